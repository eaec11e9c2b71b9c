//! TLS versions as options name them. Not TLS.

use crate::config::value::Scalar;

/// The oldest TLS to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// `tls1.2`
    Tls12,
    /// `tls1.3`
    Tls13,
}

/// What the option may say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TlsOption {
    /// `tls1.1`, which older configurations have.
    Tls11,
    /// One that is still spoken.
    Spoken(TlsVersion),
}

impl Scalar for TlsOption {
    fn read(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "tls1.1" => Ok(TlsOption::Tls11),
            "tls1.2" => Ok(TlsOption::Spoken(TlsVersion::Tls12)),
            "tls1.3" => Ok(TlsOption::Spoken(TlsVersion::Tls13)),
            _ => Err(format!(
                "\"{text}\" is not a TLS version: write tls1.2 or tls1.3."
            )),
        }
    }
}
