//! QUIC between two ends of gt, in place of DTLS and SCTP (docs/p2p.md, "QUIC"): a connection of quinn-proto on the
//! path that the connectivity checks have found. Like the peer, it is given datagrams and the time. Builds without
//! QUIC have `no_quic`.
//!
//! quinn-proto sees one address for the whole life of the connection: the peer selects the path (`paths.rs`), and
//! tells the connection of a new one.

mod channel;
mod channels;
mod crowd;
mod datagrams;
pub(crate) mod header;
mod paths;
mod setup;
mod stun;
#[cfg(test)]
mod tests;

use super::binding::EXPORTED;
use super::{OpenedChannel, Peer, PeerState, SOMEWHERE};
use crate::client::p2p::identity::{DtlsRole, Identity};
use crate::client::p2p::memory::MemoryShare;
use crate::client::p2p::socket::Datagram;
use crate::client::p2p::P2pError;
use crate::collections::HashMap;
use bytes::{Bytes, BytesMut};
use channel::QuicChannel;
use crowd::Crowd;
use paths::PathWatch;
use quinn_proto::{
    Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, Endpoint, Event,
    StreamEvent, StreamId,
};
use setup::{Setup, SideSetup, PREFIX};
use std::cell::Cell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Whether this build has QUIC between peers.
pub const IS_THERE: bool = true;

/// Maximum number of datagrams of one call of the state machine.
const MAX_SEGMENTS: usize = 40;
/// Number of datagrams that may wait for the socket before further ones are made.
const MAX_OUT: usize = 2 * MAX_SEGMENTS;
/// Bytes that may wait to be sent, beside those in flight.
const MAX_UNSENT: u64 = 128 * 1024;
/// Maximum bytes that are sent and not acknowledged, or wait to be sent.
const MAX_SEND_WINDOW: u64 = 2 * 1024 * 1024;

/// Error codes of streams and of the connection (docs/p2p.md, "QUIC").
mod code {
    use quinn_proto::VarInt;

    /// The end does not need the stream or the connection any more.
    pub const CLOSED: VarInt = VarInt::from_u32(0);
    /// The connection behind the stream was cut.
    pub const ABORTED: VarInt = VarInt::from_u32(1);
    /// The reader takes nothing, and its bytes are needed elsewhere.
    pub const TOO_SLOW: VarInt = VarInt::from_u32(2);
    /// The stream does not begin with a label.
    pub const MALFORMED: VarInt = VarInt::from_u32(3);
}

thread_local! {
    /// The buffer of the thread for the datagrams that a connection is about to send.
    static OUT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A connection with a peer, and its channels.
pub(super) struct QuicTransport {
    endpoint: Endpoint,
    /// The beginning of the IDs by which the peer's packets are recognized.
    prefix: [u8; PREFIX],
    phase: Phase,
    paths: PathWatch,
    channels: HashMap<u16, QuicChannel>,
    ids: HashMap<StreamId, u16>,
    next_id: u16,
    opened: VecDeque<OpenedChannel>,
    /// Bytes of all channels that the connection has not taken yet.
    unsent: usize,
    /// Number of channels whose bytes that wait in the connection are allowed for.
    relieved: u32,
    crowd: Crowd,
    /// Whether the connection has more to send as soon as the socket has room.
    has_more: bool,
    /// Whether channels that the peer opens are refused.
    refuses: bool,
}

/// The progress of a connection.
enum Phase {
    /// The end that starts the handshake has no path yet.
    Idle(quinn_proto::ClientConfig),
    /// The end that waits for the handshake has not received its first packet.
    Waiting,
    /// The handshake has begun.
    Begun {
        handle: ConnectionHandle,
        connection: Box<Connection>,
        is_established: bool,
    },
    /// There is no connection any more.
    Over,
}

impl Phase {
    fn connection(&mut self) -> Option<&mut Connection> {
        match self {
            Self::Begun { connection, .. } => Some(connection),
            Self::Idle(_) | Self::Waiting | Self::Over => None,
        }
    }
}

/// What the peer's task has to know of a connection's progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing has changed.
    None,
    /// The handshake is complete.
    Established,
    /// The connection has ended for this reason.
    Over(&'static str),
}

impl QuicTransport {
    /// Creates the connection's end. The end that starts the handshake does so with its first path.
    pub(super) fn new(
        identity: &Identity,
        side: DtlsRole,
        fingerprint: &str,
        now: Instant,
    ) -> Result<Self, P2pError> {
        let Setup {
            endpoint,
            side,
            prefix,
        } = Setup::new(identity, side, fingerprint)?;
        let (phase, server) = match side {
            SideSetup::Client(config) => (Phase::Idle(config), None),
            SideSetup::Server(config) => (Phase::Waiting, Some(config)),
        };
        Ok(Self {
            endpoint: Endpoint::new(endpoint, server, true, None),
            prefix,
            phase,
            paths: PathWatch::new(now),
            channels: HashMap::default(),
            ids: HashMap::default(),
            next_id: 0,
            opened: VecDeque::new(),
            unsent: 0,
            relieved: 0,
            crowd: Crowd::default(),
            has_more: false,
            refuses: false,
        })
    }

    /// Whether a datagram from an address that is not known may be this peer's.
    fn recognizes(&self, bytes: &[u8]) -> bool {
        let is_short = bytes.first().is_some_and(|first| first & 0x80 == 0);
        is_short && bytes.get(1..=PREFIX) == Some(&self.prefix[..])
    }

    /// Starts the handshake, if this end does.
    fn begin(&mut self, now: Instant) -> Result<(), &'static str> {
        if !matches!(self.phase, Phase::Idle(_)) {
            return Ok(());
        }
        let Phase::Idle(config) = std::mem::replace(&mut self.phase, Phase::Over) else {
            return Ok(());
        };
        // The name is not sent: the certificate is known.
        let begun = self.endpoint.connect(now, config, SOMEWHERE, "gt");
        let (handle, connection) = begun.map_err(|_| "the QUIC handshake cannot begin")?;
        self.phase = Phase::Begun {
            handle,
            connection: Box::new(connection),
            is_established: false,
        };
        Ok(())
    }

    /// Passes a datagram to the connection. The result tells whether it is the connection's; if `doubted`, whether it
    /// is also authentic and new.
    fn receive(&mut self, bytes: &[u8], doubted: bool, now: Instant) -> bool {
        let mut answer = Vec::new();
        let bytes = BytesMut::from(bytes);
        let event = self
            .endpoint
            .handle(now, SOMEWHERE, None, None, bytes, &mut answer);
        match (event, &mut self.phase) {
            (Some(DatagramEvent::NewConnection(incoming)), Phase::Waiting) => {
                let accepted = self.endpoint.accept(incoming, now, &mut answer, None);
                if let Ok((handle, connection)) = accepted {
                    self.phase = Phase::Begun {
                        handle,
                        connection: Box::new(connection),
                        is_established: false,
                    };
                }
                true
            }
            (Some(DatagramEvent::NewConnection(incoming)), _) => {
                self.endpoint.ignore(incoming);
                false
            }
            (Some(DatagramEvent::ConnectionEvent(_, event)), Phase::Begun { connection, .. }) => {
                let before = doubted.then(|| frames(connection));
                connection.handle_event(event);
                before.is_none_or(|before| frames(connection) != before)
            }
            // Answers to packets of no connection, such as a version that is not known, are not sent: both ends are gt.
            _ => false,
        }
    }

    /// Returns when the connection has to be advanced.
    pub(super) fn deadline(&mut self, now: Option<Instant>) -> Option<Instant> {
        let waiting = self.channel_deadline();
        let connection = self.phase.connection()?;
        let more = now.filter(|_| self.has_more);
        [connection.poll_timeout(), waiting, more]
            .into_iter()
            .flatten()
            .min()
    }

    /// Advances the connection to `now`.
    pub(super) fn pump(&mut self, memory: &MemoryShare, now: Instant) -> Progress {
        if let Some(connection) = self.phase.connection() {
            if connection.poll_timeout().is_some_and(|due| due <= now) {
                connection.handle_timeout(now);
            }
        }
        let progress = self.events(memory, now);
        self.end_headless(memory, now);
        self.relieve(memory, now);
        progress
    }

    /// Handles what has happened to the connection.
    fn events(&mut self, memory: &MemoryShare, now: Instant) -> Progress {
        let mut progress = Progress::None;
        loop {
            let Phase::Begun {
                handle,
                connection,
                is_established,
            } = &mut self.phase
            else {
                return progress;
            };
            while let Some(event) = connection.poll_endpoint_events() {
                if let Some(answer) = self.endpoint.handle_event(*handle, event) {
                    connection.handle_event(answer);
                }
            }
            let Some(event) = connection.poll() else {
                return progress;
            };
            match event {
                Event::Connected => {
                    *is_established = true;
                    progress = Progress::Established;
                }
                Event::ConnectionLost { reason } => return Progress::Over(why(&reason)),
                Event::Stream(event) => self.stream_event(event, memory, now),
                Event::HandshakeDataReady | Event::DatagramReceived | Event::DatagramsUnblocked => {
                }
            }
        }
    }

    fn stream_event(&mut self, event: StreamEvent, memory: &MemoryShare, now: Instant) {
        match event {
            StreamEvent::Opened { dir: Dir::Bi } => self.accept(memory, now),
            StreamEvent::Readable { id } => self.readable(id, memory, now),
            StreamEvent::Writable { id } => self.writable(id, now),
            StreamEvent::Finished { id } => self.delivered(id),
            StreamEvent::Stopped { id, .. } => self.stopped(id),
            StreamEvent::Opened { dir: Dir::Uni } | StreamEvent::Available { .. } => {}
        }
    }

    /// Moves datagrams of the connection to `out`.
    pub(super) fn send(&mut self, to: SocketAddr, out: &mut VecDeque<Datagram>, now: Instant) {
        self.has_more = false;
        let Some(connection) = self.phase.connection() else {
            return;
        };
        let in_flight = connection.congestion_state().window();
        let window = in_flight.saturating_add(MAX_UNSENT).min(MAX_SEND_WINDOW);
        connection.set_send_window(window);
        let mut buffer = OUT.take();
        loop {
            if out.len() >= MAX_OUT {
                self.has_more = true;
                break;
            }
            buffer.clear();
            let Some(transmit) = connection.poll_transmit(now, MAX_SEGMENTS, &mut buffer) else {
                break;
            };
            let sent = buffer.get(..transmit.size).unwrap_or_default();
            let segment = transmit.segment_size.unwrap_or(transmit.size).max(1);
            let mut bytes = BytesMut::from(sent);
            while !bytes.is_empty() {
                let length = segment.min(bytes.len());
                let bytes = bytes.split_to(length);
                out.push_back(Datagram { to, bytes });
            }
            self.paths.sent(now);
        }
        OUT.set(buffer);
    }

    /// Ends the connection; the last datagrams are made by [`QuicTransport::send`].
    pub(super) fn close(&mut self, now: Instant) {
        if let Some(connection) = self.phase.connection() {
            connection.close(now, code::CLOSED, Bytes::new());
        }
    }

    /// Returns keying material that only the two ends of the connection know.
    pub(super) fn export(&self, label: &str) -> Option<[u8; EXPORTED]> {
        let Phase::Begun { connection, .. } = &self.phase else {
            return None;
        };
        let mut exported = [0; EXPORTED];
        let session = connection.crypto_session();
        let result = session.export_keying_material(&mut exported, label.as_bytes(), b"");
        result.ok().map(|()| exported)
    }

    /// Returns the round-trip time of the path, and the share of packets that were lost, in thousandths.
    pub(super) fn measured(&self) -> (Duration, u32) {
        let Phase::Begun { connection, .. } = &self.phase else {
            return (Duration::ZERO, 0);
        };
        let path = connection.stats().path;
        let loss = path.lost_packets.saturating_mul(1000) / path.sent_packets.max(1);
        (path.rtt, u32::try_from(loss).unwrap_or(u32::MAX))
    }
}

/// Returns a number that differs after an authentic packet: of each kind of frame that is in some packet of each sort.
fn frames(connection: &Connection) -> u64 {
    let it = connection.stats().frame_rx;
    [
        it.acks,
        it.stream,
        it.ping,
        it.crypto,
        it.datagram,
        it.max_data,
        it.max_stream_data,
        it.max_streams_bidi,
        it.new_connection_id,
        it.retire_connection_id,
        it.reset_stream,
        it.stop_sending,
        it.connection_close,
    ]
    .into_iter()
    .fold(0, u64::wrapping_add)
}

/// Returns the reason for the end of a connection.
fn why(reason: &ConnectionError) -> &'static str {
    log::debug!("a QUIC connection with a peer has ended: {reason}");
    match reason {
        ConnectionError::ApplicationClosed(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::Reset => "the peer has ended it",
        ConnectionError::TransportError(_) | ConnectionError::VersionMismatch => {
            "the QUIC connection has failed, see the debug log"
        }
        ConnectionError::TimedOut => "there is no connection to the peer any more",
        ConnectionError::LocallyClosed | ConnectionError::CidsExhausted => "ended here",
    }
}

impl Peer {
    /// Processes a QUIC packet. False if it is not this peer's.
    pub(super) fn receive_quic(&mut self, from: SocketAddr, bytes: &[u8], now: Instant) -> bool {
        let may_come = self.checks.has_answered(from);
        let is_elsewhere = self.path != Some(from);
        let Some(quic) = self.transport.quic() else {
            return false;
        };
        if !may_come && !quic.recognizes(bytes) {
            return false;
        }
        if quic.receive(bytes, is_elsewhere, now) {
            self.spoken_from(from, now);
        }
        true
    }

    /// Advances QUIC and the watch over its path.
    pub(super) fn pump_quic(&mut self, now: Instant) {
        let Self {
            transport, memory, ..
        } = self;
        let Some(quic) = transport.quic() else {
            return;
        };
        match quic.pump(memory, now) {
            Progress::None => self.receive_quic_datagrams(now),
            Progress::Established if self.state == PeerState::Connecting => {
                self.state = PeerState::Connected;
                self.idle_since = now;
            }
            Progress::Established => {}
            Progress::Over(why) => {
                // The peer is told why.
                self.send_quic(now);
                self.end(why);
            }
        }
        self.watch_path(now);
    }

    /// Moves QUIC's datagrams towards the socket.
    pub(super) fn send_quic(&mut self, now: Instant) {
        let (Some(quic), Some(to)) = (self.transport.quic(), self.path) else {
            return;
        };
        quic.send(to, &mut self.out, now);
    }
}
