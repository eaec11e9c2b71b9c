//! The items that a process hands over to its successor: listening sockets, and state that the
//! successor cannot find out otherwise.

use super::packet::{PacketReader, PacketWriter};
#[cfg(any(feature = "server", feature = "p2p", feature = "web"))]
use crate::config::ListenAddr;
use crate::config::Secret;
use crate::net::kernel::{AsFd, OwnedFd};
#[cfg(feature = "p2p")]
use crate::net::Datagrams;
#[cfg(any(feature = "server", feature = "p2p", feature = "web"))]
use crate::net::Listener;
use crate::wire::hello::{GroupSpec, INSTANCE};
use std::path::PathBuf;
use std::sync::Arc;

/// One item of a handover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The configuration file of the role to which the items up to the next `Role` belong; `None`
    /// if it is configured by flags.
    Role(Option<PathBuf>),
    /// A server's listener. Carries the socket.
    Listener {
        /// The address, as the configuration writes it.
        addr: String,
    },
    /// A port of a client. Carries the socket, or none if the client is away and only the number is
    /// reserved.
    Port {
        /// The client's id.
        id: String,
        /// Whether it is a UDP port.
        udp: bool,
        /// Whether the client accepts another port than the requested one.
        random: bool,
        /// The port that the client requested.
        requested: u16,
        /// The port that is open or reserved.
        port: u16,
    },
    /// A reserved host prefix. Its visitors wait until the client is back.
    Host {
        /// Whether the prefix is matched against the TLS server name.
        tls: bool,
        /// The prefix, as it is published.
        prefix: String,
        /// The client's id; `None` from earlier versions of gt, which do not hand it over.
        id: Option<String>,
    },
    /// The first secret seen for an id, on a server that admits any client.
    FirstSecret {
        /// The id.
        id: String,
        /// The secret of its first login.
        secret: Secret,
    },
    /// The secret that a client has generated for itself.
    Secret {
        /// The client's id.
        id: String,
        /// The secret.
        secret: Secret,
    },
    /// What distinguishes a client from others with its id.
    Instance {
        /// The client's id.
        id: String,
        /// Random bytes.
        instance: [u8; INSTANCE],
    },
    /// A reserved host prefix or domain of a group. Earlier versions of gt do not know the kind.
    GroupedHost {
        /// Whether the prefix is matched against the TLS server name.
        tls: bool,
        /// The prefix, as it is published.
        prefix: String,
        /// The id of one of the members.
        id: String,
        /// The group.
        group: GroupSpec,
    },
    /// The group that shares a port. Earlier versions of gt do not know the kind.
    PortGroup {
        /// Whether it is a UDP port.
        udp: bool,
        /// The port.
        port: u16,
        /// The group.
        group: GroupSpec,
    },
    /// A server's STUN socket. Carries the socket.
    Stun {
        /// The address, as the configuration writes it.
        addr: String,
    },
    /// A client's socket of udpForwardAddr. Carries the socket.
    Datagrams {
        /// The address, as the configuration writes it.
        addr: String,
    },
    /// A server's socket of QUIC. Carries the socket.
    Quic {
        /// The address, as the configuration writes it.
        addr: String,
    },
    /// The link over which the child process passes packets on to the connections of a socket of QUIC that stay in
    /// the parent. Carries a socket.
    QuicLink {
        /// The address, as the configuration writes it.
        addr: String,
        /// The key by which their connection IDs are recognized.
        key: [u8; 8],
    },
    /// The certificate that a server has made for QUIC.
    QuicCert {
        /// The certificate, in DER.
        cert: Vec<u8>,
        /// Its private key, in PKCS #8.
        key: Secret,
    },
    /// The sessions of a role's web page. Earlier versions of gt do not know the kind.
    WebSessions {
        /// The sessions, as the page has encoded them.
        sessions: Secret,
    },
    /// The last item.
    End,
}

/// An item to hand over, with its socket.
pub type Outgoing = (Item, Option<Arc<dyn AsFd + Send + Sync>>);

impl Item {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::End => PacketWriter::new(0),
            Self::Role(file) => PacketWriter::new(1).path(file.as_deref()),
            Self::Listener { addr } => PacketWriter::new(2).bytes(addr.as_bytes()),
            Self::Port {
                id,
                udp,
                random,
                requested,
                port,
            } => PacketWriter::new(if *udp { 8 } else { 3 })
                .bytes(id.as_bytes())
                .u16(u16::from(*random))
                .u16(*requested)
                .u16(*port),
            Self::Host { tls, prefix, id } => {
                let host = PacketWriter::new(4)
                    .u16(u16::from(*tls))
                    .bytes(prefix.as_bytes());
                match id {
                    Some(id) => host.bytes(id.as_bytes()),
                    None => host,
                }
            }
            Self::FirstSecret { id, secret } => PacketWriter::new(5)
                .bytes(id.as_bytes())
                .bytes(secret.as_bytes()),
            Self::Secret { id, secret } => PacketWriter::new(6)
                .bytes(id.as_bytes())
                .bytes(secret.as_bytes()),
            Self::Stun { addr } => PacketWriter::new(7).bytes(addr.as_bytes()),
            Self::Datagrams { addr } => PacketWriter::new(24).bytes(addr.as_bytes()),
            Self::Quic { addr } => PacketWriter::new(16).bytes(addr.as_bytes()),
            Self::QuicLink { addr, key } => PacketWriter::new(17).bytes(addr.as_bytes()).bytes(key),
            Self::QuicCert { cert, key } => PacketWriter::new(18).bytes(cert).bytes(key.as_bytes()),
            Self::WebSessions { sessions } => PacketWriter::new(32).bytes(sessions.as_bytes()),
            Self::Instance { id, instance } => {
                PacketWriter::new(10).bytes(id.as_bytes()).bytes(instance)
            }
            Self::PortGroup { udp, port, group } => PacketWriter::new(12)
                .u16(u16::from(*udp))
                .u16(*port)
                .bytes(group.name.as_bytes())
                .bytes(&group.key)
                .u16(u16::from(group.sticky)),
            Self::GroupedHost {
                tls,
                prefix,
                id,
                group,
            } => PacketWriter::new(11)
                .u16(u16::from(*tls))
                .bytes(prefix.as_bytes())
                .bytes(id.as_bytes())
                .bytes(group.name.as_bytes())
                .bytes(&group.key)
                .u16(u16::from(group.sticky)),
        }
        .finish()
    }

    /// Decodes an item. `None` if it is malformed or of a kind that only later versions know.
    pub(super) fn decode(packet: &[u8]) -> Option<Self> {
        let mut reader = PacketReader::new(packet);
        let kind = reader.u8()?;
        Some(match kind {
            0 => Self::End,
            1 => Self::Role(reader.path()?),
            2 => Self::Listener {
                addr: reader.text()?,
            },
            3 | 8 => Self::Port {
                id: reader.text()?,
                udp: kind == 8,
                random: reader.u16()? != 0,
                requested: reader.u16()?,
                port: reader.u16()?,
            },
            4 => Self::Host {
                tls: reader.u16()? != 0,
                prefix: reader.text()?,
                id: match reader.is_empty() {
                    true => None,
                    false => Some(reader.text()?),
                },
            },
            5 => Self::FirstSecret {
                id: reader.text()?,
                secret: Secret::new(reader.bytes()?),
            },
            6 => Self::Secret {
                id: reader.text()?,
                secret: Secret::new(reader.bytes()?),
            },
            7 => Self::Stun {
                addr: reader.text()?,
            },
            24 => Self::Datagrams {
                addr: reader.text()?,
            },
            16 => Self::Quic {
                addr: reader.text()?,
            },
            17 => Self::QuicLink {
                addr: reader.text()?,
                key: reader.bytes()?.try_into().ok()?,
            },
            18 => Self::QuicCert {
                cert: reader.bytes()?.to_vec(),
                key: Secret::new(reader.bytes()?),
            },
            10 => Self::Instance {
                id: reader.text()?,
                instance: reader.bytes()?.try_into().ok()?,
            },
            11 => Self::GroupedHost {
                tls: reader.u16()? != 0,
                prefix: reader.text()?,
                id: reader.text()?,
                group: read_group(&mut reader)?,
            },
            12 => Self::PortGroup {
                udp: reader.u16()? != 0,
                port: reader.u16()?,
                group: read_group(&mut reader)?,
            },
            32 => Self::WebSessions {
                sessions: Secret::new(reader.bytes()?),
            },
            _ => return None,
        })
    }
}

fn read_group(reader: &mut PacketReader<'_>) -> Option<GroupSpec> {
    Some(GroupSpec {
        name: reader.text()?.into(),
        key: reader.bytes()?.into(),
        sticky: reader.u16()? != 0,
    })
}

/// The items handed over by the parent process that no role has taken yet.
#[derive(Default)]
pub struct Inherited {
    items: Vec<Received>,
    /// The role that the next items belong to.
    role: Option<PathBuf>,
}

struct Received {
    /// The configuration file of the role it belongs to.
    role: Option<PathBuf>,
    item: Item,
    /// The socket that came with the item. Only servers use it; a client closes it.
    #[cfg_attr(not(feature = "server"), allow(dead_code))]
    socket: Option<OwnedFd>,
}

impl Inherited {
    /// Adds the item of a packet. True if it was the last one.
    pub(super) fn is_complete_with(&mut self, packet: &[u8], socket: Option<OwnedFd>) -> bool {
        match Item::decode(packet) {
            Some(Item::End) => return true,
            Some(item) => self.add(item, socket),
            None => {}
        }
        false
    }

    fn add(&mut self, item: Item, socket: Option<OwnedFd>) {
        if let Item::Role(file) = item {
            self.role = file;
            return;
        }
        self.items.push(Received {
            role: self.role.clone(),
            item,
            socket,
        });
    }

    /// Returns the generated secret of the client `id` that is configured by this file.
    pub fn secret(&self, role: &Option<PathBuf>, id: &str) -> Option<Secret> {
        let mut its = self.items.iter().filter(|received| received.role == *role);
        its.find_map(|received| match &received.item {
            Item::Secret { id: other, secret } if other == id => Some(secret.clone()),
            _ => None,
        })
    }

    /// Returns the instance of the client `id` that is configured by this file.
    pub fn instance(&self, role: &Option<PathBuf>, id: &str) -> Option<[u8; INSTANCE]> {
        let mut its = self.items.iter().filter(|received| received.role == *role);
        its.find_map(|received| match &received.item {
            Item::Instance {
                id: other,
                instance,
            } if other == id => Some(*instance),
            _ => None,
        })
    }

    /// Returns the sessions of the web page that is configured by this file.
    #[cfg(feature = "web")]
    pub fn web_sessions(&self, role: &Option<PathBuf>) -> Option<Secret> {
        let mut its = self.items.iter().filter(|received| received.role == *role);
        its.find_map(|received| match &received.item {
            Item::WebSessions { sessions } => Some(sessions.clone()),
            _ => None,
        })
    }

    /// Takes the listener for this address: that of this file's server, or else another server's.
    /// Returns `None` for a socket that does not listen any more.
    #[cfg(any(feature = "server", feature = "p2p", feature = "web"))]
    pub fn listener(&mut self, role: &Option<PathBuf>, wanted: &ListenAddr) -> Option<Listener> {
        let addr = wanted.to_string();
        Listener::adopt(self.socket(role, &Item::Listener { addr })?).ok()
    }

    /// Takes the STUN socket for this address: that of this file's server, or else another
    /// server's. Returns `None` for a socket that is not UDP.
    #[cfg(all(feature = "server", feature = "p2p"))]
    pub fn stun(&mut self, role: &Option<PathBuf>, wanted: &ListenAddr) -> Option<Datagrams> {
        let addr = wanted.to_string();
        Datagrams::adopt(self.socket(role, &Item::Stun { addr })?).ok()
    }

    /// Takes the socket of udpForwardAddr for this address like [`Inherited::listener`].
    #[cfg(all(feature = "client", feature = "p2p"))]
    pub fn datagrams(&mut self, role: &Option<PathBuf>, wanted: &ListenAddr) -> Option<Datagrams> {
        let addr = wanted.to_string();
        Datagrams::adopt(self.socket(role, &Item::Datagrams { addr })?).ok()
    }

    /// Takes the socket of QUIC for this address like [`Inherited::stun`].
    #[cfg(all(feature = "server", feature = "quic"))]
    pub fn quic(&mut self, role: &Option<PathBuf>, wanted: &ListenAddr) -> Option<OwnedFd> {
        let addr = wanted.to_string();
        self.socket(role, &Item::Quic { addr })
    }

    /// Takes the link for the packets of the socket of QUIC for this address, and the key by which the connection
    /// IDs of the parent are recognized.
    #[cfg(all(feature = "server", feature = "quic"))]
    pub fn quic_link(
        &mut self,
        role: &Option<PathBuf>,
        wanted: &ListenAddr,
    ) -> Option<(OwnedFd, [u8; 8])> {
        let wanted = wanted.to_string();
        let mut links = self.items.iter();
        let key = links.find_map(|received| match &received.item {
            Item::QuicLink { addr, key } if *addr == wanted => Some(*key),
            _ => None,
        })?;
        let addr = wanted;
        let socket = self.socket(role, &Item::QuicLink { addr, key })?;
        Some((socket, key))
    }

    /// Returns the certificate that this file's server has made, and its key.
    #[cfg(all(feature = "server", feature = "quic"))]
    pub fn quic_cert(&self, role: &Option<PathBuf>) -> Option<(Vec<u8>, Secret)> {
        let mut its = self.items.iter().filter(|received| received.role == *role);
        its.find_map(|received| match &received.item {
            Item::QuicCert { cert, key } => Some((cert.clone(), key.clone())),
            _ => None,
        })
    }

    #[cfg(any(feature = "server", feature = "p2p", feature = "web"))]
    fn socket(&mut self, role: &Option<PathBuf>, item: &Item) -> Option<OwnedFd> {
        let is_it = |received: &Received| received.item == *item;
        let is_its = |received: &Received| received.role == *role && is_it(received);
        let at = self.items.iter().position(is_its);
        let at = at.or_else(|| self.items.iter().position(is_it))?;
        self.items.remove(at).socket
    }

    /// Takes all items that belong to the clients of this file's server.
    #[cfg(feature = "server")]
    pub fn of_clients(&mut self, role: &Option<PathBuf>) -> Vec<(Item, Option<OwnedFd>)> {
        let theirs = |received: &mut Received| {
            let is_servers = matches!(
                received.item,
                Item::Listener { .. }
                    | Item::Stun { .. }
                    | Item::Datagrams { .. }
                    | Item::Quic { .. }
                    | Item::QuicLink { .. }
                    | Item::QuicCert { .. }
                    | Item::WebSessions { .. }
            );
            received.role == *role && !is_servers
        };
        let theirs = self.items.extract_if(.., theirs);
        theirs
            .map(|received| (received.item, received.socket))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn every_item_survives_encoding() {
        let odd = PathBuf::from(OsString::from_vec(vec![b'/', 0xFF, b'"', b'\n']));
        let id = "\u{1}\"\\ü".repeat(40);
        let secret = Secret::new(vec![0xFF; 200]);
        let group = GroupSpec {
            name: "g".into(),
            key: [0xFF; 200].into(),
            sticky: true,
        };
        for item in [
            Item::Role(None),
            Item::Role(Some(odd)),
            Item::Listener {
                addr: "[::1]:80".to_owned(),
            },
            Item::Port {
                id: id.clone(),
                udp: false,
                random: true,
                requested: 0,
                port: 65535,
            },
            Item::Port {
                id: id.clone(),
                udp: true,
                random: false,
                requested: 53,
                port: 53,
            },
            Item::Host {
                tls: true,
                prefix: "web".to_owned(),
                id: Some(id.clone()),
            },
            Item::FirstSecret {
                id: id.clone(),
                secret: secret.clone(),
            },
            Item::Secret {
                id: id.clone(),
                secret,
            },
            Item::Instance {
                id: id.clone(),
                instance: [7; INSTANCE],
            },
            Item::GroupedHost {
                tls: false,
                prefix: "web".to_owned(),
                id,
                group: group.clone(),
            },
            Item::PortGroup {
                udp: true,
                port: 2222,
                group,
            },
            Item::Stun {
                addr: ":3478".to_owned(),
            },
            Item::Datagrams {
                addr: ":51820".to_owned(),
            },
            Item::Quic {
                addr: ":443".to_owned(),
            },
            Item::QuicLink {
                addr: ":443".to_owned(),
                key: [0xFF; 8],
            },
            Item::QuicCert {
                cert: vec![0x30; 500],
                key: Secret::new(vec![0xFF; 138]),
            },
            Item::End,
        ] {
            let packet = item.encode();
            assert_eq!(Item::decode(&packet), Some(item.clone()));
            let later = [&packet[..], b"what a later version appends"].concat();
            assert_eq!(Item::decode(&later), Some(item.clone()));
            // An older version's item of this kind is shorter.
            let old = match item {
                Item::Host { .. } => [&[4, 0, 1, 0, 3], &b"web"[..]].concat().len(),
                _ => 0,
            };
            for cut in (1..packet.len()).filter(|cut| *cut != old) {
                assert_eq!(Item::decode(&packet[..cut]), None);
            }
        }
        let of_an_older_version = [&[4, 0, 1, 0, 3], &b"web"[..]].concat();
        let host = Item::Host {
            tls: true,
            prefix: "web".to_owned(),
            id: None,
        };
        assert_eq!(Item::decode(&of_an_older_version), Some(host));
        assert_eq!(Item::decode(&[99, 1]), None);
        assert_eq!(Item::decode(&[]), None);
    }

    #[test]
    fn a_generated_secret_belongs_to_its_role() {
        let mut inherited = Inherited::default();
        let files = ["one.yaml", "two.yaml"].map(|file| Some(PathBuf::from(file)));
        for file in &files {
            inherited.add(Item::Role(file.clone()), None);
            let secret = Secret::new(format!("{file:?}"));
            let id = "id1".to_owned();
            inherited.add(Item::Secret { id, secret }, None);
        }
        for file in &files {
            let secret = Some(Secret::new(format!("{file:?}")));
            assert!(inherited.secret(file, "id1") == secret);
            assert!(inherited.secret(file, "id2").is_none());
        }
        assert!(inherited.secret(&None, "id1").is_none());
    }

    #[cfg(feature = "server")]
    #[test]
    fn listeners_of_one_address_keep_their_order_and_their_server() {
        let mut inherited = Inherited::default();
        let addr = |file: &str| (Some(PathBuf::from(file)), ":0".to_owned());
        let mut ports = Vec::new();
        for (role, addr) in ["one", "one", "one", "two"].map(addr) {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            ports.push(socket.local_addr().unwrap());
            inherited.add(Item::Role(role), None);
            inherited.add(Item::Listener { addr }, Some(socket.into()));
        }
        let wanted = ListenAddr {
            host: None,
            port: 0,
        };
        let mut next = |file: &str| {
            let listener = inherited.listener(&Some(PathBuf::from(file)), &wanted);
            listener.map(|listener| listener.addr())
        };
        assert_eq!(next("two"), Some(ports[3]));
        assert_eq!(next("one"), Some(ports[0]));
        assert_eq!(next("one"), Some(ports[1]));
        assert_eq!(next("renamed"), Some(ports[2]));
        assert_eq!(next("one"), None);
    }
}
