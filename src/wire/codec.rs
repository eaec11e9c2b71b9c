//! Encoding and parsing for the version that a tunnel speaks: one interface over `gt1` and `gt2`.
//!
//! A [`HelloReader`] stops after the credentials, so that a server can check them before it
//! buffers anything of the services.

pub use super::gt2::hello::{answer, parse_answer, HelloAnswer};

use super::frame::{Encoded, Header, Signal};
use super::hello::{Credentials, Hello};
use super::{gt1, gt2, Malformed, Version};
use std::fmt;

/// Maximum length in bytes of a header to parse: a GT/2 frame with fields of later versions.
pub const MAX_HEAD: usize = gt2::frame::MAX_HEAD;

impl Version {
    /// Parses a header at the start of `bytes`. Returns the header and its length, at most
    /// [`MAX_HEAD`]; `None` if bytes are missing.
    pub fn parse(self, bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
        match self {
            Self::One => gt1::frame::parse(bytes),
            Self::Two => gt2::frame::parse(bytes),
        }
    }

    /// Encodes a header; empty if this version cannot express it.
    pub fn encode(self, head: impl Into<Header>) -> Encoded {
        match self {
            Self::One => gt1::frame::encode(head.into()),
            Self::Two => gt2::frame::encode(head.into()),
        }
    }
}

impl Hello {
    /// Encodes the hello as a client sends it.
    pub fn encode(&self, version: Version) -> Vec<u8> {
        match version {
            Version::One => gt1::hello::encode(&self.id, self.secret(), &self.services),
            Version::Two => gt2::hello::encode(self),
        }
    }

    /// Encodes the part after magic and version of a GT/1 hello, for [`HelloReader::registration`].
    #[cfg(feature = "server")]
    pub fn encode_registration(&self) -> Vec<u8> {
        let mut out = Vec::new();
        gt1::hello::encode_registration(&mut out, &self.id, self.secret(), &self.services);
        out
    }

    /// Returns the secret, as GT/1 sends it. Clients with a key have none, and do not use GT/1.
    fn secret(&self) -> &[u8] {
        self.proof.secret().unwrap_or_default()
    }

    /// Encodes a change of services: the services signal with its registration.
    pub fn encode_change(&self, version: Version) -> Vec<u8> {
        match version {
            Version::One => {
                let mut out = version.encode(Signal::Services).as_slice().to_vec();
                gt1::hello::encode_registration(&mut out, &self.id, self.secret(), &self.services);
                out
            }
            Version::Two => {
                let fields = gt2::hello::encode_registration(self);
                // Configuration allows no more services than fit.
                let len = fields.len() as u32;
                let mut out = version
                    .encode(Header::Registration { len })
                    .as_slice()
                    .to_vec();
                out.extend(fields);
                out
            }
        }
    }
}

/// A parser of a hello that arrives in pieces, starting after magic and version. `Debug` leaves
/// out the bytes read, which may contain a secret.
pub enum HelloReader {
    /// A reader of GT/1.
    One(gt1::hello::Gt1HelloReader),
    /// A reader of GT/2.
    Two(gt2::hello::Gt2HelloReader),
}

impl fmt::Debug for HelloReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HelloReader").finish_non_exhaustive()
    }
}

impl HelloReader {
    /// Creates a reader for a hello.
    pub fn new(version: Version) -> Self {
        match version {
            Version::One => Self::One(gt1::hello::Gt1HelloReader::default()),
            Version::Two => Self::Two(gt2::hello::Gt2HelloReader::new()),
        }
    }

    /// Creates a reader for the registration after a GT/1 services signal.
    pub fn registration() -> Self {
        Self::new(Version::One)
    }

    /// Creates a reader for the `len` bytes after a [`Header::Registration`].
    pub fn registration_of(len: u32) -> Self {
        Self::Two(gt2::hello::Gt2HelloReader::registration(len))
    }

    /// Consumes bytes and returns how many: all of them unless the hello ends among them. The first
    /// time, it stops after the credentials so that the caller can check them.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        match self {
            Self::One(reader) => reader.feed(bytes),
            Self::Two(reader) => reader.feed(bytes),
        }
    }

    /// Returns id and proof once they have been read.
    pub fn credentials(&self) -> Option<Credentials<'_>> {
        match self {
            Self::One(reader) => reader.credentials(),
            Self::Two(reader) => reader.credentials(),
        }
    }

    /// Returns the hello once it is complete, otherwise the reader.
    pub fn finish(self) -> Result<Hello, Self> {
        match self {
            Self::One(reader) => reader.finish().map_err(Self::One),
            Self::Two(reader) => reader.finish().map_err(Self::Two),
        }
    }
}
