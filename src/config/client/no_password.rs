//! Builds without passwords: a service that has some must not be published without them.

use crate::config::value::Scalar;

/// No visitor has a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserPassword {}

impl Scalar for UserPassword {
    fn read(_text: &str) -> Result<Self, String> {
        let why = "This gt was built without passwords (the feature password): install one with them, or \
                   remove the option.";
        Err(why.to_owned())
    }
}
