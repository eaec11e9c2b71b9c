//! The hello: who a client is and what it offers.
//!
//! A [`Reader`] stops behind the credentials, so that a server can judge them before it
//! holds anything of the list behind them.

pub use super::gt2::hello::{answer, answer_length};
use super::{gt1, gt2, Malformed, Version};
use crate::wire::frame::{Header, Signal};
use std::fmt;

/// Longest id, secret or prefix, in bytes.
pub const MAX_NAME: usize = 200;
/// Most services a server accepts in one hello.
pub const MAX_OPTIONS: usize = 600;
/// Longest hello of GT/2 behind its length: all services with the longest names fit.
pub const MAX_LENGTH: u32 = 128 * 1024;

/// Id and secret, as they stand in the peer's bytes. Shows itself without the secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credentials<'a> {
    pub id: &'a str,
    pub secret: &'a [u8],
}

/// One service a client asks the server to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceSpec {
    /// Visitors whose host prefix is `prefix`, or the client's id if there is none.
    Host { tls: bool, prefix: Option<Box<str>> },
    /// A TCP port of the server: `port`, or any allowed one if `random`.
    Tcp { random: bool, port: u16 },
}

/// A whole hello, without magic and version. Shows itself without the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Hello {
    pub id: Box<str>,
    pub secret: Box<[u8]>,
    pub offers: Vec<ServiceSpec>,
    /// Bytes that each new stream may bring the client before it gives credit; nothing in
    /// GT/1.
    pub window: u32,
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Credentials");
        shown.field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Hello");
        shown.field("id", &self.id).field("offers", &self.offers);
        shown.field("window", &self.window).finish_non_exhaustive()
    }
}

impl Hello {
    /// What a client says first.
    pub fn encode(&self, version: Version) -> Vec<u8> {
        match version {
            Version::One => gt1::hello::encode(&self.id, &self.secret, &self.offers),
            Version::Two => gt2::hello::encode(self),
        }
    }

    /// What stands behind magic and version in GT/1, for [`Reader::registration`].
    #[cfg(feature = "server")]
    pub fn encode_registration(&self) -> Vec<u8> {
        let mut out = Vec::new();
        gt1::hello::encode_registration(&mut out, &self.id, &self.secret, &self.offers);
        out
    }

    /// What a client says when its services have changed: the services signal with all that
    /// belongs to it.
    pub fn encode_change(&self, version: Version) -> Vec<u8> {
        match version {
            Version::One => {
                let mut out = version.encode(Signal::Services).as_slice().to_vec();
                gt1::hello::encode_registration(&mut out, &self.id, &self.secret, &self.offers);
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

/// Reads a hello that comes in pieces, from behind magic and version. Shows itself without what it
/// has read, which may be a secret.
pub enum HelloReader {
    One(gt1::hello::Gt1HelloReader),
    Two(gt2::hello::Gt2HelloReader),
}

impl fmt::Debug for HelloReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl HelloReader {
    /// For a hello.
    pub fn new(version: Version) -> Self {
        match version {
            Version::One => Self::One(gt1::hello::Gt1HelloReader::default()),
            Version::Two => Self::Two(gt2::hello::Gt2HelloReader::new()),
        }
    }

    /// For what stands behind a services signal of GT/1.
    pub fn registration() -> Self {
        Self::new(Version::One)
    }

    /// For the `len` bytes of a [`Head::Registration`].
    pub fn registration_of(len: u32) -> Self {
        Self::Two(gt2::hello::Gt2HelloReader::registration(len))
    }

    /// Takes bytes and says how many: all of them, unless the hello ended among them. Stops
    /// behind the credentials the first time, so that they can be judged.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        match self {
            Self::One(reader) => reader.feed(bytes),
            Self::Two(reader) => reader.feed(bytes),
        }
    }

    /// Id and secret, once they have been read.
    pub fn credentials(&self) -> Option<Credentials<'_>> {
        match self {
            Self::One(reader) => reader.credentials(),
            Self::Two(reader) => reader.credentials(),
        }
    }

    /// The hello, once its last byte has been read; else the reader again.
    pub fn finish(self) -> Result<Hello, Self> {
        match self {
            Self::One(reader) => reader.finish().map_err(Self::One),
            Self::Two(reader) => reader.finish().map_err(Self::Two),
        }
    }
}
