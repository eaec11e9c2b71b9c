//! Why a visitor of a proxy does not get to its destination.

use std::{fmt, io};

/// The reason why a destination was not reached.
#[derive(Debug)]
pub(crate) enum ProxyFailure {
    /// It has no address that is a target of the proxy.
    NotATarget,
    /// It has no address, as far as the system says.
    NoAddress(io::Error),
    /// None of its addresses that are targets has answered.
    NoConnection(io::Error),
}

impl fmt::Display for ProxyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotATarget => f.write_str("it is none of the proxy's targets"),
            Self::NoAddress(e) | Self::NoConnection(e) => e.fmt(f),
        }
    }
}

impl ProxyFailure {
    /// Returns the status line, without the version, of the answer to an HTTP visitor, and its body.
    pub(crate) fn status(&self) -> (&'static str, &'static str) {
        match self {
            Self::NotATarget => ("403 Forbidden", "this proxy does not lead there"),
            Self::NoAddress(e) if e.kind() == io::ErrorKind::ResourceBusy => (
                "503 Service Unavailable",
                "too many names are being looked up; try again later",
            ),
            Self::NoAddress(e) if e.kind() == io::ErrorKind::TimedOut => {
                ("504 Gateway Timeout", "no name server answers")
            }
            Self::NoAddress(_) => ("502 Bad Gateway", "the proxy finds no address of this host"),
            Self::NoConnection(e) if e.kind() == io::ErrorKind::TimedOut => {
                ("504 Gateway Timeout", "the host does not answer")
            }
            Self::NoConnection(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                ("502 Bad Gateway", "the host refuses the connection")
            }
            Self::NoConnection(_) => ("502 Bad Gateway", "the host cannot be reached"),
        }
    }

    /// Returns the number of the status.
    pub(crate) fn status_code(&self) -> u16 {
        number_of(self.status().0).unwrap_or(502)
    }
}

/// Returns the number that a status line without its version begins with.
pub(crate) fn number_of(status: &str) -> Option<u16> {
    status.split(' ').next()?.parse().ok()
}
