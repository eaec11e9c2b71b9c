//! Which versions of the wire tunnels may speak. Not the versions themselves.

use crate::config::value::Scalar;
use crate::wire::Version;

/// The option `wire`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wire {
    /// GT/2 where the other end can, GT/1 where not.
    #[default]
    Auto,
    /// GT/1 alone.
    One,
    /// GT/2 alone.
    Two,
}

impl Wire {
    /// Whether tunnels may speak it.
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
    fn every_way_to_write_it_is_read_and_others_are_told_the_right_ones() {
        assert_eq!(Wire::read("auto"), Ok(Wire::Auto));
        assert_eq!(Wire::read("Auto"), Ok(Wire::Auto));
        assert_eq!(Wire::read("1"), Ok(Wire::One));
        assert_eq!(Wire::read("2"), Ok(Wire::Two));
        let told = Wire::read("3").unwrap_err();
        assert!(told.contains("write auto, 1 or 2"), "{told}");
    }
}
