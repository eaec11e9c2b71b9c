//! TLS versions as the options name them. Not the protocol.

use crate::config::value::Scalar;

/// The oldest TLS version to accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// A value of the options `tlsVersion` and `apiTLSVersion`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TlsOption {
    /// `tls1.1`, for configurations of the original gt.
    Tls11,
    /// A supported version.
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
