//! An accepted connection whose protocol is not known yet.

use super::connection_limit::Permit;
use super::process_links::MessageOrigin;
use super::settings::Settings;
use super::state::ServerState;
use crate::net::{clock, with_read_buf, Conn, Socket, TaskGuard};
use crate::wire::origin::VisitorOrigin;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::task::ready;
use std::time::{Duration, Instant};

/// Time that a visitor has to send its destination, and a client its credentials.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// The kind of visitors that a listener accepts besides tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerKind {
    /// HTTP without TLS.
    Http,
    /// HTTP over TLS that the server terminates.
    Https,
    /// TLS that is forwarded as it is, routed by server name.
    Sni,
    /// QUIC, which has no visitors.
    Quic,
}

/// An accepted connection.
pub struct AcceptedConn {
    pub socket: Socket,
    /// The address of the visitor or client.
    pub peer: SocketAddr,
    /// Where it comes from, if the socket does not tell.
    pub origin: Option<Box<VisitorOrigin>>,
    pub permit: Permit,
}

/// An accepted connection whose destination and identity are not known yet. There may be many that
/// are idle, so everything large is allocated only when the connection needs it.
pub struct Incoming {
    /// The state of the server.
    pub state: Arc<ServerState>,
    /// The settings in force when the connection was accepted.
    pub settings: Arc<Settings>,
    /// The peer's address.
    pub peer: SocketAddr,
    /// When the connection is closed unless its destination or identity is known.
    pub deadline: Instant,
    /// Bytes read but not used yet.
    pub head: Vec<u8>,
    /// Counts the connection as a handshake until it is forwarded or registered.
    pub handshake_guard: TaskGuard,
    /// The permit that the connection holds.
    pub permit: Permit,
    /// The kind of the listener that has accepted the connection.
    pub kind: ListenerKind,
    /// The other process that has accepted the connection; `None` if this one has.
    pub from: Option<MessageOrigin>,
    /// Where the visitor comes from, if the connection does not tell.
    pub origin: Option<Box<VisitorOrigin>>,
    /// The file of the authority of a user of which the TLS handshake has asked for a certificate.
    pub authority: Option<Arc<Path>>,
    /// Whether the visitor has shown a certificate, to this process or to the one that has accepted it.
    pub is_certified: bool,
}

impl Incoming {
    /// Splits an accepted connection into its socket and what is known of it.
    pub fn of(
        state: Arc<ServerState>,
        accepted: AcceptedConn,
        kind: ListenerKind,
    ) -> (Self, Socket) {
        let AcceptedConn {
            socket,
            peer,
            origin,
            permit,
        } = accepted;
        let incoming = Self {
            origin,
            ..Self::new(state, peer, permit, kind)
        };
        (incoming, socket)
    }

    /// Returns what is known of a connection of `peer`.
    pub fn new(
        state: Arc<ServerState>,
        peer: SocketAddr,
        permit: Permit,
        kind: ListenerKind,
    ) -> Self {
        Self {
            settings: state.settings.get(),
            handshake_guard: state.handshakes.begin(),
            state,
            peer,
            deadline: clock::now() + HANDSHAKE_TIMEOUT,
            head: Vec::new(),
            permit,
            kind,
            from: None,
            origin: None,
            authority: None,
            is_certified: false,
        }
    }

    pub fn is_http(&self) -> bool {
        matches!(self.kind, ListenerKind::Http | ListenerKind::Https)
    }
}

/// Reads once and appends to `bytes`, up to a total of `most`. Returns 0 at the end.
pub async fn read_more(conn: &Conn, bytes: &mut Vec<u8>, most: usize) -> io::Result<usize> {
    std::future::poll_fn(|cx| {
        with_read_buf(|buf| {
            let room = most.saturating_sub(bytes.len()).clamp(1, buf.len());
            let buf = buf.get_mut(..room).unwrap_or_default();
            let n = ready!(conn.poll_read(cx, buf))?;
            bytes.extend_from_slice(buf.get(..n).unwrap_or_default());
            std::task::Poll::Ready(Ok(n))
        })
    })
    .await
}
