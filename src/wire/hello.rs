//! The hello: a client's credentials and services, as values. `codec` encodes and reads it.

use crate::keys::{PublicKey, Signature};
use std::fmt;
use subtle::ConstantTimeEq;

/// Maximum length in bytes of an id, a secret or a prefix.
pub const MAX_NAME: usize = 200;
/// Maximum number of services in a hello.
pub const MAX_OPTIONS: usize = 600;
/// Maximum number of domains of a service.
pub const MAX_DOMAINS: usize = 255;
/// Maximum length in bytes of a domain: that of a host name (RFC 1035, section 2.3.4).
pub const MAX_DOMAIN: usize = 253;
/// Maximum length in bytes of the name of a group.
pub const MAX_GROUP: usize = 64;
/// Length in bytes of an instance.
pub const INSTANCE: usize = 8;
/// Maximum length in bytes of a GT/2 hello after its length field: [`MAX_OPTIONS`] services with
/// names of [`MAX_NAME`] bytes fit.
pub const MAX_LENGTH: u32 = 128 * 1024;

/// An id and the proof of it, borrowed from a reader. `Debug` leaves a secret out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// The client's id, 1 to [`MAX_NAME`] bytes.
    pub id: &'a str,
    /// The proof that the id is the client's.
    pub proof: &'a Proof,
}

/// The proof that an id is a client's. `Debug` leaves a secret out.
#[derive(Clone, PartialEq, Eq)]
pub enum Proof {
    /// A secret, 1 to [`MAX_NAME`] bytes.
    Secret(Box<[u8]>),
    /// A key; not in GT/1.
    Key(Box<SignedKey>),
}

/// A key in a hello with its signature, which has not been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedKey {
    /// The public key.
    pub key: PublicKey,
    /// The signature of the server's challenge; not in a change of services.
    pub signature: Option<Signature>,
}

impl Proof {
    /// Returns the secret; `None` if there is a key instead.
    pub fn secret(&self) -> Option<&[u8]> {
        match self {
            Self::Secret(secret) => Some(secret),
            Self::Key(_) => None,
        }
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(_) => f.write_str("Secret"),
            Self::Key(key) => key.fmt(f),
        }
    }
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
    /// HTTP or TLS visitors of domains of the client's own; not in GT/1.
    Domains {
        /// Whether the visitors are those of a TLS server name, instead of an HTTP host.
        tls: bool,
        /// A host prefix besides; `None` for none.
        prefix: Option<Box<str>>,
        /// The domains, at least one: names, `*.` and a name, or `*`.
        domains: Vec<Box<str>>,
    },
    /// A TCP port of the server: `port`, or any allowed one if `random`.
    Tcp {
        /// Whether any other allowed port will do if `port` cannot be opened.
        random: bool,
        /// The requested port.
        port: u16,
    },
    /// A UDP port of the server, in the same way; not in GT/1.
    Udp {
        /// Whether any other allowed port will do if `port` cannot be opened.
        random: bool,
        /// The requested port.
        port: u16,
    },
    /// A service whose name it shares with other clients of its group; not in GT/1.
    Grouped {
        /// The group.
        group: Box<GroupSpec>,
        /// The service, which is none of a group.
        service: Box<ServiceSpec>,
    },
}

/// The kinds of services, besides those of GT/1, that a server can publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceKinds {
    /// Services with domains of their own.
    pub domains: bool,
    /// Services with UDP ports.
    pub udp: bool,
    /// Services of groups.
    pub groups: bool,
}

impl ServiceKinds {
    /// The kinds that this version of gt knows.
    pub const ALL: Self = Self {
        domains: true,
        udp: true,
        groups: true,
    };
    /// The kinds of GT/1.
    pub const NONE: Self = Self {
        domains: false,
        udp: false,
        groups: false,
    };
}

/// A group of services of several clients, which share a name. `Debug` leaves the key out.
#[derive(Clone, PartialEq, Eq)]
pub struct GroupSpec {
    /// The name of the group, 1 to [`MAX_GROUP`] bytes.
    pub name: Box<str>,
    /// What its members know and others do not, 1 to [`MAX_NAME`] bytes.
    pub key: Box<[u8]>,
    /// Whether visitors of one address should come to the same member.
    pub sticky: bool,
}

impl GroupSpec {
    /// Whether both are the same group, with the same key. Keys of one length are compared in constant
    /// time.
    pub fn is(&self, other: &Self) -> bool {
        let same_key: bool = self.key.ct_eq(&other.key).into();
        same_key && self.name == other.name
    }
}

impl fmt::Debug for GroupSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("GroupSpec");
        shown.field("name", &self.name).finish_non_exhaustive()
    }
}

impl ServiceSpec {
    /// Returns the service without its group.
    pub fn ungrouped(&self) -> &Self {
        match self {
            Self::Grouped { service, .. } => service,
            service => service,
        }
    }

    /// Returns the group of the service.
    pub fn group(&self) -> Option<&GroupSpec> {
        match self {
            Self::Grouped { group, .. } => Some(group),
            _ => None,
        }
    }
}

/// A complete hello without magic and version. `Debug` leaves the secret out.
#[derive(Clone, PartialEq, Eq)]
pub struct Hello {
    /// The client's id.
    pub id: Box<str>,
    /// The proof that the id is the client's.
    pub proof: Proof,
    /// The services, in the order of their indexes.
    pub services: Vec<ServiceSpec>,
    /// Bytes that the server may send on each new stream before it gets credit; 0 in GT/1, which
    /// has no windows.
    pub window: u32,
    /// Whether each stream is to begin with its visitor's origin; not in GT/1, nor in a change of
    /// services.
    pub origins: bool,
    /// Whether the client's congestion control is BBR, which the server's is to be, too; over QUIC only.
    pub bbr: bool,
    /// What distinguishes this client from others with the same id; not in GT/1, nor in a change of
    /// services.
    pub instance: Option<[u8; INSTANCE]>,
}

impl Hello {
    /// Whether a service is one of a group.
    pub fn has_groups(&self) -> bool {
        self.services.iter().any(|spec| spec.group().is_some())
    }

    /// Whether a service has domains of its own.
    pub fn has_domains(&self) -> bool {
        let is_of_domains = |spec: &ServiceSpec| matches!(spec, ServiceSpec::Domains { .. });
        self.services
            .iter()
            .map(ServiceSpec::ungrouped)
            .any(is_of_domains)
    }

    /// Whether a service has a UDP port.
    pub fn has_udp(&self) -> bool {
        let is_udp = |spec: &ServiceSpec| matches!(spec, ServiceSpec::Udp { .. });
        self.services.iter().map(ServiceSpec::ungrouped).any(is_udp)
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
