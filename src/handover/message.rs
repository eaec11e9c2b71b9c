//! Messages between the servers of a draining process and of its successor: which clients' tunnels
//! stay in the old process, and the tunnels and visitors that move between the two. Not their
//! transport, see `link`.

use super::packet::{PacketReader, PacketWriter};
use crate::config::Secret;
use crate::wire::frame::StreamId;
use crate::wire::origin::{VisitorOrigin, LENGTH};
use std::net::SocketAddr;
use std::path::PathBuf;

/// A message of a [`ProcessLink`](super::ProcessLink). The variants that carry a socket say so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Tunnels of this id stay in the draining process, which serves the id's visitors until it
    /// sends [`Message::Released`].
    Holding {
        /// The client's id.
        id: String,
        /// The client's host prefixes.
        hosts: Vec<HostKey>,
        /// The client's secret, to be checked by the successor.
        secret: Secret,
    },
    /// The draining process has no more tunnels of this id that can take streams.
    Released {
        /// The client's id.
        id: String,
    },
    /// A TCP port of the client whose tunnel follows. Carries the listening socket.
    Port {
        /// The client's id.
        id: String,
        /// Whether the client accepts another port than the requested one.
        random: bool,
        /// The port that the client requested.
        requested: u16,
        /// The port that is open.
        port: u16,
    },
    /// A client's tunnel. Carries its socket.
    Tunnel(MovedTunnel),
    /// A visitor to forward to its destination. Carries its socket.
    Visitor {
        /// Where the visitor goes.
        to: Destination,
        /// The visitor's address. The socket's own peer may be this machine: see `net::bridge`.
        peer: SocketAddr,
        /// Where the visitor comes from, if its socket does not tell: it is of a bridge, or a PROXY
        /// header has told.
        origin: Option<Box<VisitorOrigin>>,
        /// Bytes already read from the visitor.
        head: Vec<u8>,
    },
    /// The draining process has nothing left that could serve visitors.
    Done,
}

/// A host prefix, and whether it is matched against the TLS server name or the HTTP host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    /// Whether the prefix is matched against the TLS server name.
    pub tls: bool,
    /// The prefix, as it is published.
    pub prefix: String,
}

/// The destination of a visitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// The client that has this host prefix.
    Host(HostKey),
    /// The same, for a visitor that has shown a certificate of the authority of a user, in this file.
    CertifiedHost(HostKey, PathBuf),
    /// A TCP port of a client.
    Port {
        /// The client's id.
        id: String,
        /// The port that is open.
        port: u16,
    },
}

/// A GT/1 tunnel without streams that moves to another process.
#[derive(Clone, PartialEq, Eq)]
pub struct MovedTunnel {
    /// The client's address, if the connection does not tell.
    pub peer: Option<SocketAddr>,
    /// Whether the client has received the ready signal.
    pub is_ready: bool,
    /// The id of the last stream opened to the client.
    pub last_stream: StreamId,
    /// Bytes read but not used yet: the start of a frame.
    pub unread: Vec<u8>,
    /// The client's hello without magic and version: id, secret and services.
    pub hello: Vec<u8>,
}

impl std::fmt::Debug for MovedTunnel {
    /// Leaves out the hello, which contains a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MovedTunnel").finish_non_exhaustive()
    }
}

impl HostKey {
    fn encode(&self, writer: PacketWriter) -> PacketWriter {
        let writer = writer.u16(u16::from(self.tls));
        writer.bytes(self.prefix.as_bytes())
    }

    fn decode(reader: &mut PacketReader<'_>) -> Option<Self> {
        Some(Self {
            tls: reader.u16()? != 0,
            prefix: reader.text()?,
        })
    }
}

impl Message {
    /// Encodes the message for the server that is configured by the file `role`; `None` is the one
    /// that is configured by flags.
    pub(super) fn encode(&self, role: &Option<PathBuf>) -> Vec<u8> {
        let start = |kind| PacketWriter::new(kind).path(role.as_deref());
        match self {
            Self::Done => start(0),
            Self::Holding { id, hosts, secret } => {
                let count = u16::try_from(hosts.len()).unwrap_or(u16::MAX);
                let writer = start(1).bytes(id.as_bytes()).bytes(secret.as_bytes());
                let writer = writer.u16(count);
                let hosts = hosts.iter().take(usize::from(count));
                hosts.fold(writer, |writer, host| host.encode(writer))
            }
            Self::Released { id } => start(2).bytes(id.as_bytes()),
            Self::Port {
                id,
                random,
                requested,
                port,
            } => start(3)
                .bytes(id.as_bytes())
                .u16(u16::from(*random))
                .u16(*requested)
                .u16(*port),
            Self::Tunnel(tunnel) => {
                // Earlier versions know the kind without an address alone.
                let writer = match tunnel.peer {
                    Some(peer) => start(9).bytes(peer.to_string().as_bytes()),
                    None => start(4),
                };
                writer
                    .u16(u16::from(tunnel.is_ready))
                    .u32(tunnel.last_stream.0)
                    .bytes(&tunnel.unread)
                    .rest(&tunnel.hello)
            }
            Self::Visitor {
                to,
                peer,
                origin,
                head,
            } => {
                // Earlier versions know the kinds without an origin alone.
                let writer = match (to, origin) {
                    (Destination::Host(host), None) => host.encode(start(5)),
                    (Destination::Host(host), Some(_)) => host.encode(start(7)),
                    (Destination::CertifiedHost(host, file), _) => {
                        host.encode(start(10)).path(Some(file))
                    }
                    (Destination::Port { id, port }, origin) => {
                        let kind = if origin.is_some() { 8 } else { 6 };
                        start(kind).bytes(id.as_bytes()).u16(*port)
                    }
                };
                let writer = writer.bytes(peer.to_string().as_bytes());
                let writer = match (to, origin) {
                    (_, Some(origin)) => writer.bytes(&origin.encode()),
                    (Destination::CertifiedHost(..), None) => writer.bytes(&[]),
                    (_, None) => writer,
                };
                writer.rest(head)
            }
        }
        .finish()
    }

    /// Decodes a message and the file of the server it is for. `None` if it is malformed or of a
    /// kind that only later versions know.
    pub(super) fn decode(packet: &[u8]) -> Option<(Option<PathBuf>, Self)> {
        let mut reader = PacketReader::new(packet);
        let kind = reader.u8()?;
        let role = reader.path()?;
        let message = match kind {
            0 => Self::Done,
            1 => {
                let id = reader.text()?;
                let secret = Secret::new(reader.bytes()?);
                let hosts = (0..reader.u16()?).map(|_| HostKey::decode(&mut reader));
                let hosts = hosts.collect::<Option<_>>()?;
                Self::Holding { id, hosts, secret }
            }
            2 => Self::Released { id: reader.text()? },
            3 => Self::Port {
                id: reader.text()?,
                random: reader.u16()? != 0,
                requested: reader.u16()?,
                port: reader.u16()?,
            },
            4 | 9 => Self::Tunnel(MovedTunnel {
                peer: match kind {
                    9 => Some(reader.text()?.parse().ok()?),
                    _ => None,
                },
                is_ready: reader.u16()? != 0,
                last_stream: StreamId(reader.u32()?),
                unread: reader.bytes()?.to_vec(),
                hello: reader.rest().to_vec(),
            }),
            5..=8 | 10 => Self::Visitor {
                to: match kind {
                    5 | 7 => Destination::Host(HostKey::decode(&mut reader)?),
                    10 => {
                        Destination::CertifiedHost(HostKey::decode(&mut reader)?, reader.path()??)
                    }
                    _ => Destination::Port {
                        id: reader.text()?,
                        port: reader.u16()?,
                    },
                },
                peer: reader.text()?.parse().ok()?,
                origin: match kind {
                    5 | 6 => None,
                    _ => {
                        let bytes = reader.bytes()?;
                        let origin = || VisitorOrigin::parse(bytes.get(LENGTH..)?).ok();
                        match bytes {
                            [] if kind == 10 => None,
                            _ => Some(Box::new(origin()?)),
                        }
                    }
                },
                head: reader.rest().to_vec(),
            },
            _ => return None,
        };
        Some((role, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::origin::Transport;

    #[test]
    fn every_message_survives_encoding() {
        let role = Some(PathBuf::from("/etc/gt.yaml"));
        let host = |tls| HostKey {
            tls,
            prefix: "web".to_owned(),
        };
        let id = "id\u{1}ü".repeat(30);
        let origin = VisitorOrigin {
            transport: Transport::Tcp,
            source: "192.0.2.1:65535".parse().unwrap(),
            destination: "198.51.100.1:443".parse().unwrap(),
            is_decrypted: true,
            is_told: false,
            server_name: Some("web.example".into()),
            subject: Some("CN=alice".into()),
        };
        for message in [
            Message::Done,
            Message::Holding {
                id: id.clone(),
                hosts: vec![host(true), host(false)],
                secret: Secret::new("secret"),
            },
            Message::Holding {
                id: id.clone(),
                hosts: Vec::new(),
                secret: Secret::new(vec![0xFF; 200]),
            },
            Message::Released { id: id.clone() },
            Message::Port {
                id: id.clone(),
                random: true,
                requested: 0,
                port: 65535,
            },
            Message::Tunnel(MovedTunnel {
                peer: None,
                is_ready: true,
                last_stream: StreamId(0x1234_5678),
                unread: vec![0xFF; 3],
                hello: vec![1; 100_000],
            }),
            Message::Tunnel(MovedTunnel {
                peer: "192.0.2.1:65535".parse().ok(),
                is_ready: false,
                last_stream: StreamId(0),
                unread: Vec::new(),
                hello: vec![1; 100],
            }),
            Message::Visitor {
                to: Destination::CertifiedHost(host(false), PathBuf::from("/etc/ca.crt")),
                peer: "192.0.2.1:1".parse().unwrap(),
                origin: Some(Box::new(origin.clone())),
                head: b"GET".to_vec(),
            },
            Message::Visitor {
                to: Destination::CertifiedHost(host(false), PathBuf::from("/etc/ca.crt")),
                peer: "192.0.2.1:1".parse().unwrap(),
                origin: None,
                head: b"GET".to_vec(),
            },
            Message::Visitor {
                to: Destination::Host(host(false)),
                peer: "192.0.2.1:65535".parse().unwrap(),
                origin: None,
                head: vec![b'x'; 70_000],
            },
            Message::Visitor {
                to: Destination::Host(host(false)),
                peer: "192.0.2.1:65535".parse().unwrap(),
                origin: Some(Box::new(origin.clone())),
                head: vec![b'x'; 70_000],
            },
            Message::Visitor {
                to: Destination::Port {
                    id: id.clone(),
                    port: 22,
                },
                peer: "[fe80::1%3]:1".parse().unwrap(),
                origin: None,
                head: Vec::new(),
            },
            Message::Visitor {
                to: Destination::Port { id, port: 22 },
                peer: "192.0.2.1:65535".parse().unwrap(),
                origin: Some(Box::new(origin)),
                head: Vec::new(),
            },
        ] {
            let packet = message.encode(&role);
            assert!(Message::decode(&packet) == Some((role.clone(), message)));
        }
        assert!(Message::decode(&[99, 0, 0]).is_none());
        assert!(Message::decode(&[2, 0, 0, 0, 5, b'x']).is_none());
        assert!(Message::decode(&[]).is_none());
    }
}
