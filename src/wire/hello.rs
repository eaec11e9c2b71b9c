//! The hello: a client's credentials and services.
//!
//! A [`HelloReader`] stops after the credentials, so that a server can check them before it
//! buffers anything of the services.

pub use super::gt2::hello::{answer, answer_length};
use super::{gt1, gt2, Malformed, Version};
use crate::wire::frame::{Header, Signal};
use std::fmt;

/// Maximum length in bytes of an id, a secret or a prefix.
pub const MAX_NAME: usize = 200;
/// Maximum number of services in a hello.
pub const MAX_OPTIONS: usize = 600;
/// Maximum length in bytes of a GT/2 hello after its length field: [`MAX_OPTIONS`] services with
/// names of [`MAX_NAME`] bytes fit.
pub const MAX_LENGTH: u32 = 128 * 1024;

/// Id and secret, borrowed from the received bytes. `Debug` leaves the secret out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// The client's id, 1 to [`MAX_NAME`] bytes.
    pub id: &'a str,
    /// The client's secret, 1 to [`MAX_NAME`] bytes.
    pub secret: &'a [u8],
}

/// A service that a client asks the server to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceSpec {
    /// HTTP or TLS visitors with this host prefix, or with the client's id if it is `None`.
    Host {
        /// Whether the visitors are those of a TLS server name, instead of an HTTP host.
        tls: bool,
        /// The host prefix; `None` for the client's id.
        prefix: Option<Box<str>>,
    },
    /// A TCP port of the server: `port`, or any allowed one if `random`.
    Tcp {
        /// Whether any other allowed port will do if `port` cannot be opened.
        random: bool,
        /// The requested port.
        port: u16,
    },
}

/// A complete hello without magic and version. `Debug` leaves the secret out.
#[derive(Clone, PartialEq, Eq)]
pub struct Hello {
    /// The client's id.
    pub id: Box<str>,
    /// The client's secret.
    pub secret: Box<[u8]>,
    /// The services, in the order of their indexes.
    pub services: Vec<ServiceSpec>,
    /// Bytes that the server may send on each new stream before it gets credit; 0 in GT/1, which
    /// has no windows.
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
        shown
            .field("id", &self.id)
            .field("services", &self.services);
        shown.field("window", &self.window).finish_non_exhaustive()
    }
}

impl Hello {
    /// Encodes the hello as a client sends it.
    pub fn encode(&self, version: Version) -> Vec<u8> {
        match version {
            Version::One => gt1::hello::encode(&self.id, &self.secret, &self.services),
            Version::Two => gt2::hello::encode(self),
        }
    }

    /// Encodes the part after magic and version of a GT/1 hello, for [`HelloReader::registration`].
    #[cfg(feature = "server")]
    pub fn encode_registration(&self) -> Vec<u8> {
        let mut out = Vec::new();
        gt1::hello::encode_registration(&mut out, &self.id, &self.secret, &self.services);
        out
    }

    /// Encodes a change of services: the services signal with its registration.
    pub fn encode_change(&self, version: Version) -> Vec<u8> {
        match version {
            Version::One => {
                let mut out = version.encode(Signal::Services).as_slice().to_vec();
                gt1::hello::encode_registration(&mut out, &self.id, &self.secret, &self.services);
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

    /// Returns id and secret once they have been read.
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
