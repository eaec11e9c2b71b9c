//! What a process leaves to the one that takes its place: its listening sockets, and what the
//! new one cannot find out by itself.

#[cfg(feature = "server")]
use crate::config::ListenAddr;
use crate::config::Secret;
#[cfg(feature = "server")]
use crate::net::Listener;
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;

/// One thing that is left. Strings name a server by the address of its first listener, and a
/// client by its id.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Piece {
    /// A server's listener, under the address that the configuration gives it. Comes with its
    /// socket.
    Listener { addr: String },
    /// A TCP port of a client, `asked` for by this number and perhaps any. Comes with its
    /// socket.
    Port {
        server: String,
        id: String,
        random: bool,
        asked: u16,
        port: u16,
    },
    /// A prefix that a client serves: its visitors are to wait until it is back.
    Host {
        server: String,
        tls: bool,
        prefix: String,
    },
    /// The secret that holds for an id where any client may come.
    Claim {
        server: String,
        id: String,
        secret: Vec<u8>,
    },
    /// The secret that a client has made up for itself.
    Secret { id: String, secret: Vec<u8> },
    /// There is no more.
    End,
}

/// What is left and not yet taken.
#[derive(Default)]
pub struct Legacy(Vec<(Piece, Option<OwnedFd>)>);

impl Legacy {
    pub(super) fn add(&mut self, piece: Piece, socket: Option<OwnedFd>) {
        self.0.push((piece, socket));
    }

    /// The secret that the client `id` has made up.
    pub fn secret(&self, id: &str) -> Option<Secret> {
        self.0.iter().find_map(|(piece, _)| match piece {
            Piece::Secret { id: other, secret } if other == id => Some(Secret::new(&secret[..])),
            _ => None,
        })
    }

    /// The listener for this address, once. One that does not listen any more is of no use.
    #[cfg(feature = "server")]
    pub fn listener(&mut self, wanted: &ListenAddr) -> Option<Listener> {
        let wanted = wanted.to_string();
        let is_it = |piece: &Piece| matches!(piece, Piece::Listener { addr } if *addr == wanted);
        let at = self.0.iter().position(|(piece, _)| is_it(piece))?;
        let (_, socket) = self.0.swap_remove(at);
        Listener::adopt(socket?).ok()
    }

    /// All that a server's clients had there.
    #[cfg(feature = "server")]
    pub fn of_clients(&mut self, server: &str) -> Vec<(Piece, Option<OwnedFd>)> {
        let is_its = |piece: &Piece| match piece {
            Piece::Port { server: of, .. }
            | Piece::Host { server: of, .. }
            | Piece::Claim { server: of, .. } => of == server,
            Piece::Listener { .. } | Piece::Secret { .. } | Piece::End => false,
        };
        self.0.extract_if(.., |(piece, _)| is_its(piece)).collect()
    }
}
