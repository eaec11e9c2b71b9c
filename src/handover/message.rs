//! What a process that drains and the one that has taken over tell each other: which clients'
//! tunnels stay where, and the tunnels and visitors that go from one to the other.

use super::packet::{PacketReader, PacketWriter};
use crate::config::Secret;
use std::net::SocketAddr;
use std::path::PathBuf;

/// One message. Where it says so, it comes with a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Tunnels of this id stay in the process that drains, which serves the id's visitors until
    /// it says [`Message::Released`].
    Holds {
        id: String,
        hosts: Vec<HostKey>,
        /// The secret that the client has come with, to be judged by the process that has taken
        /// over.
        secret: Secret,
    },
    /// No tunnel of this id that can serve visitors is left in the process that drains.
    Released { id: String },
    /// A TCP port of the client whose tunnel is about to come. Comes with its socket.
    Port {
        id: String,
        random: bool,
        asked: u16,
        port: u16,
    },
    /// A client's tunnel. Comes with its socket.
    Tunnel(MovedTunnel),
    /// A visitor, to be brought where it wants to go. Comes with its socket.
    Visitor {
        to: Destination,
        /// Its address. That of the socket may be this machine's own: see `net::bridge`.
        peer: SocketAddr,
        /// What has been read from it.
        head: Vec<u8>,
    },
    /// The process that drains has nothing left that could serve visitors.
    Done,
}

/// A host prefix, and whether it is matched with a TLS server name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    pub tls: bool,
    pub prefix: String,
}

/// Where a visitor wants to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    Host(HostKey),
    /// The TCP port of the client with this id.
    Port {
        id: String,
        port: u16,
    },
}

/// A GT/1 tunnel without streams, as it goes on in another process.
#[derive(Clone, PartialEq, Eq)]
pub struct MovedTunnel {
    /// Whether the client has been told that it is ready.
    pub is_ready: bool,
    /// The id of the last stream that the client was given.
    pub last_task: u32,
    /// What has been read and not been used: the start of a frame.
    pub unread: Vec<u8>,
    /// The client's hello behind magic and version: id, secret and services.
    pub hello: Vec<u8>,
}

impl std::fmt::Debug for MovedTunnel {
    /// Without the hello, which has a secret in it.
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
    /// For the server whose configuration comes from the file `role`.
    pub(super) fn encode(&self, role: &Option<PathBuf>) -> Vec<u8> {
        let start = |kind| PacketWriter::new(kind).path(role.as_deref());
        match self {
            Self::Done => start(0),
            Self::Holds { id, hosts, secret } => {
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
                asked,
                port,
            } => start(3)
                .bytes(id.as_bytes())
                .u16(u16::from(*random))
                .u16(*asked)
                .u16(*port),
            Self::Tunnel(tunnel) => start(4)
                .u16(u16::from(tunnel.is_ready))
                .u32(tunnel.last_task)
                .bytes(&tunnel.unread)
                .rest(&tunnel.hello),
            Self::Visitor { to, peer, head } => match to {
                Destination::Host(host) => host.encode(start(5)),
                Destination::Port { id, port } => start(6).bytes(id.as_bytes()).u16(*port),
            }
            .bytes(peer.to_string().as_bytes())
            .rest(head),
        }
        .done()
    }

    /// The message, and the file of the server that it is for. `None` if it is malformed, or of
    /// a kind that only another version of gt knows.
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
                Self::Holds { id, hosts, secret }
            }
            2 => Self::Released { id: reader.text()? },
            3 => Self::Port {
                id: reader.text()?,
                random: reader.u16()? != 0,
                asked: reader.u16()?,
                port: reader.u16()?,
            },
            4 => Self::Tunnel(MovedTunnel {
                is_ready: reader.u16()? != 0,
                last_task: reader.u32()?,
                unread: reader.bytes()?.to_vec(),
                hello: reader.rest().to_vec(),
            }),
            5 => Self::Visitor {
                to: Destination::Host(HostKey::decode(&mut reader)?),
                peer: reader.text()?.parse().ok()?,
                head: reader.rest().to_vec(),
            },
            6 => Self::Visitor {
                to: Destination::Port {
                    id: reader.text()?,
                    port: reader.u16()?,
                },
                peer: reader.text()?.parse().ok()?,
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

    #[test]
    fn every_message_arrives_as_it_was() {
        let role = Some(PathBuf::from("/etc/gt.yaml"));
        let host = |tls| HostKey {
            tls,
            prefix: "web".to_owned(),
        };
        let id = "id\u{1}ü".repeat(30);
        for message in [
            Message::Done,
            Message::Holds {
                id: id.clone(),
                hosts: vec![host(true), host(false)],
                secret: Secret::new("secret"),
            },
            Message::Holds {
                id: id.clone(),
                hosts: Vec::new(),
                secret: Secret::new(vec![0xFF; 200]),
            },
            Message::Released { id: id.clone() },
            Message::Port {
                id: id.clone(),
                random: true,
                asked: 0,
                port: 65535,
            },
            Message::Tunnel(MovedTunnel {
                is_ready: true,
                last_task: 0x1234_5678,
                unread: vec![0xFF; 3],
                hello: vec![1; 100_000],
            }),
            Message::Visitor {
                to: Destination::Host(host(false)),
                peer: "192.0.2.1:65535".parse().unwrap(),
                head: vec![b'x'; 70_000],
            },
            Message::Visitor {
                to: Destination::Port { id, port: 22 },
                peer: "[fe80::1%3]:1".parse().unwrap(),
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
