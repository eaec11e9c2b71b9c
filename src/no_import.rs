//! `gt import` in a program without the feature `import`: an error.

use crate::config::RoleName;

/// What `gt import` is asked for: nothing can be.
#[derive(Debug, PartialEq, Eq)]
pub enum ImportRequest {}

impl ImportRequest {
    /// The error, which is all the help there is.
    pub const HELP: &str =
        "This gt was built without import: use a program with the Cargo feature import, as on a desktop, and \
         copy what it prints here.";

    /// Returns the error.
    pub fn from_words(_: &[String], _: Option<RoleName>) -> Result<Self, String> {
        Err(Self::HELP.to_owned())
    }
}
