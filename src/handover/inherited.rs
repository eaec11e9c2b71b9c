//! What a process leaves to the one that takes its place: its listening sockets, and what the
//! new one cannot find out by itself.

use super::packet::{PacketReader, PacketWriter};
#[cfg(any(feature = "server", feature = "p2p"))]
use crate::config::ListenAddr;
use crate::config::Secret;
#[cfg(all(feature = "server", feature = "p2p"))]
use crate::net::Datagrams;
#[cfg(any(feature = "server", feature = "p2p"))]
use crate::net::Listener;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

/// One thing that is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// All up to the next of these belongs to the role that comes from this file.
    Role(Option<PathBuf>),
    /// A server's listener, under the address that the configuration gives it. Comes with its
    /// socket.
    Listener { addr: String },
    /// A TCP port of a client, `asked` for by this number and perhaps any. Comes with its
    /// socket, or without one if the client is away and only its number is kept.
    Port {
        id: String,
        random: bool,
        asked: u16,
        port: u16,
    },
    /// A prefix that a client serves: it is kept for its id, and visitors wait until the client is
    /// back. Versions before the id was handed over do not say whose it is.
    Host {
        tls: bool,
        prefix: String,
        id: Option<String>,
    },
    /// The secret that holds for an id where any client may come.
    Claim { id: String, secret: Secret },
    /// The secret that a client has made up for itself.
    Secret { id: String, secret: Secret },
    /// A server's socket for STUN, under the address that the configuration gives it. Comes with
    /// it.
    Stun { addr: String },
    /// There is no more.
    End,
}

/// A piece on its way.
pub type Outgoing = (Item, Option<Arc<dyn AsFd + Send + Sync>>);

impl Item {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::End => PacketWriter::new(0),
            Self::Role(file) => PacketWriter::new(1).path(file.as_deref()),
            Self::Listener { addr } => PacketWriter::new(2).bytes(addr.as_bytes()),
            Self::Port {
                id,
                random,
                asked,
                port,
            } => PacketWriter::new(3)
                .bytes(id.as_bytes())
                .u16(u16::from(*random))
                .u16(*asked)
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
            Self::Claim { id, secret } => PacketWriter::new(5)
                .bytes(id.as_bytes())
                .bytes(secret.as_bytes()),
            Self::Secret { id, secret } => PacketWriter::new(6)
                .bytes(id.as_bytes())
                .bytes(secret.as_bytes()),
            Self::Stun { addr } => PacketWriter::new(7).bytes(addr.as_bytes()),
        }
        .done()
    }

    /// `None` if it is of a kind that only another version of gt knows, or malformed.
    pub(super) fn decode(packet: &[u8]) -> Option<Self> {
        let mut reader = PacketReader::new(packet);
        Some(match reader.u8()? {
            0 => Self::End,
            1 => Self::Role(reader.path()?),
            2 => Self::Listener {
                addr: reader.text()?,
            },
            3 => Self::Port {
                id: reader.text()?,
                random: reader.u16()? != 0,
                asked: reader.u16()?,
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
            5 => Self::Claim {
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
            _ => return None,
        })
    }
}

/// What is left and not yet taken.
#[derive(Default)]
pub struct Inherited {
    pieces: Vec<Received>,
    /// Whose the next pieces are.
    role: Option<PathBuf>,
}

struct Received {
    /// The file of the role it belongs to.
    role: Option<PathBuf>,
    piece: Item,
    /// Only servers have any; a client lets them go.
    #[cfg_attr(not(feature = "server"), allow(dead_code))]
    socket: Option<OwnedFd>,
}

impl Inherited {
    pub(super) fn add(&mut self, piece: Item, socket: Option<OwnedFd>) {
        if let Item::Role(file) = piece {
            self.role = file;
            return;
        }
        self.pieces.push(Received {
            role: self.role.clone(),
            piece,
            socket,
        });
    }

    /// The secret that the client of this file and `id` has made up.
    pub fn secret(&self, role: &Option<PathBuf>, id: &str) -> Option<Secret> {
        let mut its = self.pieces.iter().filter(|received| received.role == *role);
        its.find_map(|received| match &received.piece {
            Item::Secret { id: other, secret } if other == id => Some(secret.clone()),
            _ => None,
        })
    }

    /// The listener for this address, once: that of this file's server, or another one's. One
    /// that does not listen any more is of no use.
    #[cfg(any(feature = "server", feature = "p2p"))]
    pub fn listener(&mut self, role: &Option<PathBuf>, wanted: &ListenAddr) -> Option<Listener> {
        let addr = wanted.to_string();
        Listener::adopt(self.socket(role, &Item::Listener { addr })?).ok()
    }

    /// The socket for STUN at this address, as [`Legacy::listener`] has it.
    #[cfg(all(feature = "server", feature = "p2p"))]
    pub fn stun(&mut self, role: &Option<PathBuf>, wanted: &ListenAddr) -> Option<Datagrams> {
        let addr = wanted.to_string();
        Datagrams::adopt(self.socket(role, &Item::Stun { addr })?).ok()
    }

    #[cfg(any(feature = "server", feature = "p2p"))]
    fn socket(&mut self, role: &Option<PathBuf>, piece: &Item) -> Option<OwnedFd> {
        let is_it = |received: &Received| received.piece == *piece;
        let is_its = |received: &Received| received.role == *role && is_it(received);
        let at = self.pieces.iter().position(is_its);
        let at = at.or_else(|| self.pieces.iter().position(is_it))?;
        self.pieces.remove(at).socket
    }

    /// All that the clients of this file's server had there.
    #[cfg(feature = "server")]
    pub fn of_clients(&mut self, role: &Option<PathBuf>) -> Vec<(Item, Option<OwnedFd>)> {
        let theirs = |received: &mut Received| {
            let is_servers = matches!(received.piece, Item::Listener { .. } | Item::Stun { .. });
            received.role == *role && !is_servers
        };
        let theirs = self.pieces.extract_if(.., theirs);
        theirs
            .map(|received| (received.piece, received.socket))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn every_piece_arrives_as_it_was() {
        let odd = PathBuf::from(OsString::from_vec(vec![b'/', 0xFF, b'"', b'\n']));
        let id = "\u{1}\"\\ü".repeat(40);
        let secret = Secret::new(vec![0xFF; 200]);
        for piece in [
            Item::Role(None),
            Item::Role(Some(odd)),
            Item::Listener {
                addr: "[::1]:80".to_owned(),
            },
            Item::Port {
                id: id.clone(),
                random: true,
                asked: 0,
                port: 65535,
            },
            Item::Host {
                tls: true,
                prefix: "web".to_owned(),
                id: Some(id.clone()),
            },
            Item::Claim {
                id: id.clone(),
                secret: secret.clone(),
            },
            Item::Secret { id, secret },
            Item::Stun {
                addr: ":3478".to_owned(),
            },
            Item::End,
        ] {
            let packet = piece.encode();
            assert_eq!(Item::decode(&packet), Some(piece.clone()));
            let later = [&packet[..], b"what a later version adds"].concat();
            assert_eq!(Item::decode(&later), Some(piece.clone()));
            // Where an older version's piece of the kind ends.
            let old = match piece {
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
    fn what_was_made_up_is_its_own_role_s() {
        let mut legacy = Inherited::default();
        let files = ["one.yaml", "two.yaml"].map(|file| Some(PathBuf::from(file)));
        for file in &files {
            legacy.add(Item::Role(file.clone()), None);
            let secret = Secret::new(format!("{file:?}"));
            let id = "id1".to_owned();
            legacy.add(Item::Secret { id, secret }, None);
        }
        for file in &files {
            let secret = Some(Secret::new(format!("{file:?}")));
            assert!(legacy.secret(file, "id1") == secret);
            assert!(legacy.secret(file, "id2").is_none());
        }
        assert!(legacy.secret(&None, "id1").is_none());
    }

    #[cfg(feature = "server")]
    #[test]
    fn listeners_of_one_address_keep_their_order_and_their_server() {
        let mut legacy = Inherited::default();
        let addr = |file: &str| (Some(PathBuf::from(file)), ":0".to_owned());
        let mut ports = Vec::new();
        for (role, addr) in ["one", "one", "one", "two"].map(addr) {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            ports.push(socket.local_addr().unwrap());
            legacy.add(Item::Role(role), None);
            legacy.add(Item::Listener { addr }, Some(socket.into()));
        }
        let wanted = ListenAddr {
            host: None,
            port: 0,
        };
        let mut next = |file: &str| {
            let listener = legacy.listener(&Some(PathBuf::from(file)), &wanted);
            listener.map(|listener| listener.addr())
        };
        assert_eq!(next("two"), Some(ports[3]));
        assert_eq!(next("one"), Some(ports[0]));
        assert_eq!(next("one"), Some(ports[1]));
        assert_eq!(next("renamed"), Some(ports[2]));
        assert_eq!(next("one"), None);
    }
}
