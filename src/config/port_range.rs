//! A range of ports, `6000-6010`, or one port.

use std::fmt;

use super::value::{digits, Scalar};

/// The ports from `first` to `last`, both included; `first` is not 0 and not above `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

impl PortRange {
    /// Whether the range contains a port.
    #[cfg(feature = "server")]
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Returns the number of ports, 1 or more.
    #[cfg(feature = "client")]
    pub fn count(&self) -> u32 {
        u32::from(self.last.saturating_sub(self.first)).saturating_add(1)
    }

    /// Whether two ranges have a port in common.
    #[cfg(feature = "server")]
    pub fn overlaps(&self, other: PortRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortRange { first, last } if first == last => first.fmt(f),
            PortRange { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

impl Scalar for PortRange {
    fn read(text: &str) -> Result<Self, String> {
        let port = |text: &str| {
            u16::try_from(digits(text.trim())?)
                .ok()
                .filter(|port| *port != 0)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        port(first)
            .zip(port(last))
            .filter(|(first, last)| first <= last)
            .map(|(first, last)| PortRange { first, last })
            .ok_or_else(|| {
                format!(
                    "\"{text}\" is not a range of ports: write it like 1024-65535, or 2222 \
                     for one port."
                )
            })
    }
}
