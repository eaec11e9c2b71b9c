//! A host prefix in the options of a client.

use crate::config::label::label;
use crate::config::value::Scalar;

/// A normalised host prefix, see [`label`].
#[derive(Clone, Debug, PartialEq)]
pub struct HostPrefix(pub String);

impl Scalar for HostPrefix {
    fn read(text: &str) -> Result<Self, String> {
        let wrong = |why| format!("\"{}\" is not a host prefix: {why}.", text.escape_debug());
        label(text).map(HostPrefix).map_err(wrong)
    }
}
