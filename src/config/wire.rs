//! The option `wire`, which restricts the versions of the protocol. Not the versions themselves.

use crate::config::value::Scalar;
use crate::wire::Version;

/// The versions of the wire protocol that tunnels may use (docs/wire.md, "Version detection").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wire {
    /// GT/2 if the other end supports it, GT/1 otherwise.
    #[default]
    Auto,
    /// GT/1 only.
    One,
    /// GT/2 only.
    Two,
}

impl Wire {
    /// Whether tunnels may use a version.
    pub fn allows(self, version: Version) -> bool {
        match self {
            Wire::Auto => true,
            Wire::One => version == Version::One,
            Wire::Two => version == Version::Two,
        }
    }
}

impl Scalar for Wire {
    fn read(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "auto" => Ok(Wire::Auto),
            "1" => Ok(Wire::One),
            "2" => Ok(Wire::Two),
            _ => Err(format!(
                "\"{text}\" is not a version of the wire: write auto, 1 or 2."
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_of_the_wire_is_read_and_an_error_lists_them() {
        assert_eq!(Wire::read("auto"), Ok(Wire::Auto));
        assert_eq!(Wire::read("Auto"), Ok(Wire::Auto));
        assert_eq!(Wire::read("1"), Ok(Wire::One));
        assert_eq!(Wire::read("2"), Ok(Wire::Two));
        let told = Wire::read("3").unwrap_err();
        assert!(told.contains("write auto, 1 or 2"), "{told}");
    }
}
