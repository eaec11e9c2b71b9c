//! One peer: ICE finds a path to it, DTLS encrypts, SCTP carries channels. It consists of state
//! machines that are given datagrams and the time; no sockets, clocks or tasks.

mod binding;
mod channel;
pub(crate) mod channels;
mod credit;
mod datagrams;
mod path;
mod probe;
#[cfg_attr(any(feature = "sim", not(feature = "quic")), path = "no_quic.rs")]
pub(crate) mod quic;
#[cfg(test)]
mod tests;
pub(crate) mod transport;

use super::checks::ConnectivityChecks;
use super::identity::{DtlsRole, Identity};
use super::memory::MemoryShare;
use super::nat_kind::NatAddress;
use super::packets::PacketFilter;
use super::records::RecordFilter;
use super::resets::StreamResets;
use super::sdp;
use super::socket::Datagram;
use crate::collections::HashMap;
use crate::net::clock::next_step;
use bytes::BytesMut;
pub use channel::OpenedChannel;
use channel::{Channel, ChannelPhase};
use credit::SendWindow;
use datagrams::PeerFlow;
use path::LossMeter;
pub use path::PeerPath;
#[cfg(test)]
pub use path::PeerWay;
use quic::QuicTransport;
use rtc_dtls::config::HandshakeConfig;
use rtc_dtls::endpoint::Endpoint as Dtls;
use rtc_ice::agent::Agent;
use rtc_sctp::{Association, AssociationHandle, Endpoint as Sctp};
use sansio::Protocol as _;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The peer's address for DTLS and SCTP, a placeholder. Only ICE knows the real one.
const SOMEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 1);
/// The local candidates of ICE, one for each family: all addresses of this machine share one
/// socket, so a candidate for each of them would only repeat the same checks.
const HERE: [SocketAddr; 2] = [
    SOMEWHERE,
    SocketAddr::new(
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        1,
    ),
];
/// Bytes that SCTP buffers for all channels together.
pub(crate) const RECEIVE: u32 = 512 * 1024;
/// Maximum length of a datagram that is kept until its sender has answered a check.
/// A ClientHello of DTLS is far shorter.
const EARLY: usize = 1500;
/// Interval of housekeeping for a connected peer. All peers share the same ticks, so that the
/// process wakes once for all.
const IDLE_TICK: Duration = Duration::from_secs(2);

/// A peer: its path, its association and its channels.
pub struct Peer {
    agent: Agent,
    checks: ConnectivityChecks,
    state: PeerState,
    side: Option<DtlsRole>,
    transport: Transport,
    dtls: Option<Dtls>,
    handshake: Option<Arc<HandshakeConfig>>,
    /// The fingerprints of the DTLS client's and of the server's certificate.
    fingerprints: Option<[String; 2]>,
    sctp: Option<Sctp>,
    association: Option<(AssociationHandle, Association)>,
    records: RecordFilter,
    packets: PacketFilter,
    resets: StreamResets,
    losses: LossMeter,
    /// The last datagram of DTLS or QUIC of an address that has not answered a check yet. Without it the
    /// handshake would wait for the repetition.
    early: Option<(SocketAddr, BytesMut)>,
    /// The peer's NAT, if the peer has told its kind.
    nat: Option<NatAddress>,
    /// The peer's address on the path that ICE has selected.
    path: Option<SocketAddr>,
    out: VecDeque<Datagram>,
    /// The memory held for the readers of all channels.
    memory: MemoryShare,
    channels: HashMap<u16, Channel>,
    /// The datagrams of channels that are flows.
    flows: HashMap<u16, PeerFlow>,
    opened: VecDeque<OpenedChannel>,
    next_id: u16,
    ids: u16,
    /// Largest message that the peer accepts, in bytes.
    max_message: usize,
    window: SendWindow,
    /// Channels that wait for room, first in, first out.
    waiting: VecDeque<u16>,
    last_tick: Option<Instant>,
    /// When the peer was last advanced.
    pumped: Instant,
    /// When SCTP began to take no more data from the peer.
    full_since: Option<Instant>,
    /// When the last channel ended.
    idle_since: Instant,
    /// Whether channels that the peer opens are refused.
    refuses: bool,
    /// Whether this end opens no more channels.
    is_retired: bool,
}

/// Why a peer is over that this end has ended.
pub const ENDED_HERE: &str = "ended here";

/// What carries the channels.
enum Transport {
    /// DTLS and SCTP, whose state is the peer's; also before the peer's description is known.
    Sctp,
    /// QUIC, between two ends of gt.
    Quic(Box<QuicTransport>),
}

impl Transport {
    fn quic(&mut self) -> Option<&mut QuicTransport> {
        match self {
            Self::Sctp => None,
            Self::Quic(quic) => Some(quic),
        }
    }
}

/// The state of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerState {
    /// ICE, DTLS or SCTP is not connected yet.
    Connecting,
    /// Channels can be opened.
    Connected,
    /// The peer has ended for this reason.
    Over(&'static str),
}

impl Peer {
    /// Returns the ICE user fragment of this end, by which the peer's first datagrams are
    /// recognised.
    pub fn ufrag(&self) -> &str {
        &self.agent.get_local_credentials().ufrag
    }

    /// Calls `write` with the values of this end's session description.
    pub fn describe<T>(
        &self,
        identity: &Identity,
        write: impl FnOnce(&sdp::LocalDescription) -> T,
    ) -> T {
        let credentials = self.agent.get_local_credentials();
        write(&sdp::LocalDescription {
            ufrag: &credentials.ufrag,
            pwd: &credentials.pwd,
            fingerprint: &identity.fingerprint,
            quic: quic::IS_THERE,
        })
    }

    /// Whether the peer takes further channels, so that no second peer is needed for them.
    pub fn has_room(&self) -> bool {
        self.is_quic() && self.channels() < channels::CHANNELS
    }

    /// Refuses channels that the peer opens from now on. It can tell that from a channel that was cut.
    pub fn refuse_channels(&mut self) {
        self.refuses = true;
        if let Some(quic) = self.transport.quic() {
            quic.refuse_channels();
        }
    }

    /// Ends the peer once it has no more channels: this end opens none any more.
    pub fn retire(&mut self) {
        self.is_retired = true;
    }

    /// Whether the peer is to end once it has no more channels.
    pub fn is_retired(&self) -> bool {
        self.is_retired
    }

    /// Whether no address of the peer answers any more, although it is connected.
    pub fn is_lost(&self) -> bool {
        self.state == PeerState::Connected && self.has_lost_path(self.pumped)
    }

    /// Whether the peer may have addresses exchanged once more (docs/p2p.md, "The path").
    pub fn may_exchange(&mut self, now: Instant) -> bool {
        self.checks.exchange(now)
    }

    /// Returns the ICE user fragment of the other end.
    pub fn their_ufrag(&self) -> Option<&str> {
        self.agent.get_remote_credentials().map(|it| &*it.ufrag)
    }

    /// Whether the channels are streams of QUIC, whose directions end one by one.
    pub fn is_quic(&self) -> bool {
        matches!(self.transport, Transport::Quic(_))
    }

    /// Whether the peer's description is known.
    pub fn is_described(&self) -> bool {
        self.side.is_some()
    }

    /// Returns the state of the peer.
    pub fn state(&self) -> &PeerState {
        &self.state
    }

    /// Returns the peer's address on the path that is used.
    pub fn address(&self) -> Option<SocketAddr> {
        self.path
    }

    /// Whether `addr` is one of the peer's addresses.
    pub fn is_at(&self, addr: SocketAddr) -> bool {
        self.path == Some(addr) || self.checks.knows(addr)
    }

    /// Processes a datagram from `from`. False if the datagram is not this peer's.
    pub fn receive(&mut self, from: SocketAddr, bytes: &[u8], now: Instant) -> bool {
        match bytes.first() {
            // The ranges of RFC 7983 and RFC 9443.
            Some(0..=3) if self.watches_path() => self.receive_own_stun(from, bytes, now),
            Some(0..=3) => self.receive_stun(from, bytes, now),
            Some(64..=127 | 192..=255) => {
                let is_taken = self.receive_quic(from, bytes, now);
                if !is_taken {
                    self.keep_early(from, bytes);
                }
                is_taken
            }
            Some(20..=63) if self.checks.has_answered(from) => {
                self.receive_records(bytes, now);
                true
            }
            Some(20..=63) => {
                self.keep_early(from, bytes);
                false
            }
            _ => false,
        }
    }

    /// Keeps a datagram of an address that has not answered a check yet.
    fn keep_early(&mut self, from: SocketAddr, bytes: &[u8]) {
        if bytes.len() <= EARLY && self.is_at(from) {
            self.early = Some((from, BytesMut::from(bytes)));
        }
    }

    /// Returns when [`Peer::pump`] is due without another event.
    pub fn deadline(&mut self) -> Option<Instant> {
        let has_room = self.out.is_empty().then_some(self.pumped);
        let quic = self.transport.quic();
        let quic = quic.and_then(|quic| quic.deadline(has_room));
        let watch = self.watch_deadline();
        if self.watches_path() {
            return [quic, watch].into_iter().flatten().min();
        }
        let mut ice = self.ice_due();
        if self.state == PeerState::Connected {
            // ICE itself asks for five times a second.
            let at_least = self.last_tick.map(|last| next_step(last, IDLE_TICK));
            ice = ice.max(at_least);
        }
        let dtls = self
            .dtls
            .as_ref()
            .and_then(|dtls| dtls.poll_timeout(&SOMEWHERE));
        let association = self.association.as_ref();
        let sctp = association.and_then(|(_, association)| association.poll_timeout());
        let resets = self.resets.deadline();
        [ice, dtls, sctp, resets, quic, watch]
            .into_iter()
            .flatten()
            .min()
    }

    /// Advances all state machines to `now`.
    pub fn pump(&mut self, now: Instant) {
        if matches!(self.state, PeerState::Over(_)) {
            return;
        }
        self.pumped = now;
        if self.watches_path() {
            return self.pump_alone(now);
        }
        let ticks = self.ice_due().is_some_and(|at| at <= now);
        if ticks {
            self.last_tick = Some(now);
            self.checks.round(now);
            let _ = self.agent.handle_timeout(now);
        }
        if let Some(dtls) = &mut self.dtls {
            if dtls.poll_timeout(&SOMEWHERE).is_some_and(|at| at <= now)
                && dtls.handle_timeout(SOMEWHERE, now).is_err()
            {
                self.end("the DTLS handshake has no answer");
            }
        }
        if let Some((_, association)) = &mut self.association {
            if association.poll_timeout().is_some_and(|at| at <= now) {
                association.handle_timeout(now);
            }
        }
        self.pump_ice(now);
        self.pump_sctp(now);
        self.pump_quic(now);
        if ticks {
            self.end_idle(now);
            self.end_stuck(now);
        }
        self.shed(now);
        self.close_drained();
        self.send(now);
        self.send_quic(now);
    }

    /// Advances QUIC to `now` when nothing else is in use any more.
    fn pump_alone(&mut self, now: Instant) {
        self.pump_quic(now);
        let is_tick = |last| now.saturating_duration_since(last) >= IDLE_TICK;
        if self.last_tick.is_none_or(is_tick) {
            self.last_tick = Some(now);
            self.end_idle(now);
        }
        self.shed(now);
        self.send_quic(now);
    }

    /// Returns the datagrams to send.
    pub fn out(&mut self) -> &mut VecDeque<Datagram> {
        &mut self.out
    }

    /// Returns when the last channel ended, or the peer was created; `None` while there is a
    /// channel.
    pub fn idle_since(&self) -> Option<Instant> {
        (self.channels() == 0).then_some(self.idle_since)
    }

    /// Ends the peer and all its channels.
    pub fn end(&mut self, why: &'static str) {
        if !matches!(self.state, PeerState::Over(_)) {
            self.state = PeerState::Over(why);
        }
        for channel in self.channels.values_mut() {
            // The peer has not ended it.
            let is_part = matches!(channel.phase, ChannelPhase::Open | ChannelPhase::Draining);
            channel.is_lost |= is_part;
            channel.phase = ChannelPhase::Closed;
            channel.wake();
        }
        let Self {
            transport, memory, ..
        } = self;
        if let Some(quic) = transport.quic() {
            quic.end(memory);
        }
    }

    /// Ends the peer gracefully; the last datagrams are in [`Peer::out`].
    pub fn close(&mut self, now: Instant) {
        if let Some((_, association)) = &mut self.association {
            let _ = association.abort();
        }
        self.send(now);
        if let Some(quic) = self.transport.quic() {
            quic.close(now);
            self.send_quic(now);
        }
        if let (Some(dtls), Some(to)) = (&mut self.dtls, self.path) {
            let _ = dtls.close(now);
            while let Some(message) = dtls.poll_transmit() {
                let bytes = message.message;
                self.out.push_back(Datagram { to, bytes });
            }
        }
        self.end(ENDED_HERE);
    }

    /// Returns the share of the memory that the peer's channels hold.
    pub fn memory(&self) -> &MemoryShare {
        &self.memory
    }
}
