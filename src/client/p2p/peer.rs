//! One peer: ICE finds a way to it, DTLS makes the way private, SCTP carries channels over it.
//! State machines that are fed datagrams and the time; no socket, no clock and no task.

use super::checks::ConnectivityChecks;
use super::identity::{DtlsRole, Identity};
use super::memory::MemoryShare;
use super::packets::PacketFilter;
use super::records::RecordFilter;
use super::resets::{OutgoingReset, StreamResets};
use super::sdp::{self, Description};
use super::socket::Datagram;
use super::{P2pError, MAX_MESSAGE_IN, MAX_MESSAGE_OUT};
use crate::net::clock::next_step;
use crate::tunnel::{STUCK_ALONE_TIMEOUT, STUCK_TIMEOUT};
use bytes::{Bytes, BytesMut};
use rtc_datachannel::data_channel::{DataChannel, DataChannelConfig, DataChannelMessage};
use rtc_dtls::config::HandshakeConfig;
use rtc_dtls::endpoint::{Endpoint as Dtls, EndpointEvent};
use rtc_ice::agent::agent_config::AgentConfig;
use rtc_ice::agent::{Agent, Event as IceEvent};
use rtc_ice::candidate::candidate_host::CandidateHostConfig;
use rtc_ice::candidate::{unmarshal_candidate, Candidate, CandidateConfig};
use rtc_ice::mdns::MulticastDnsMode;
use rtc_ice::state::ConnectionState;
use rtc_sctp::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint as Sctp, EndpointConfig,
    Event as SctpEvent, Payload, PayloadProtocolIdentifier, ServerConfig, StreamEvent, TimerConfig,
    TransportConfig,
};
use rtc_shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use sansio::Protocol as _;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Where DTLS and SCTP think the peer is. Where it really is, only ICE knows.
const SOMEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 1);
/// The local candidates of ICE, one for each family: all addresses of this machine are those of
/// one socket, so that a pair of candidates for each of them would be the same check many times.
const HERE: [SocketAddr; 2] = [
    SOMEWHERE,
    SocketAddr::new(
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        1,
    ),
];
/// Bytes that may be on their way to a peer of which nothing is known; it may have small buffers.
const FIRST_WINDOW: usize = 64 * 1024;
/// And to one that has shown that it keeps up.
const MOST_WINDOW: usize = 1024 * 1024;
/// Bytes of one channel that its peer has not acknowledged,
const OUT: usize = 256 * 1024;
/// and that have come and not been taken; more wait in SCTP's own buffer,
const IN: usize = 192 * 1024;
/// which has this many bytes for all channels together.
pub(crate) const RECEIVE: u32 = 512 * 1024;
/// Between two ends of gt each says how much it has taken, so that a channel whose reader stops
/// does not fill that buffer: the protocol that a channel is opened with,
const CREDITED: &str = "gt-credit";
/// how many bytes may be on their way or wait,
const WINDOW: usize = 256 * 1024;
/// after how many it is said,
const CREDIT: usize = 64 * 1024;
/// and how many may be sent before the first word of it, by who knows that it comes.
const UNKNOWN: usize = 64 * 1024;
/// Maximum length of a DTLS datagram that is kept until its sender has answered a check; a
/// ClientHello is far shorter.
const EARLY: usize = 1500;
/// Messages are joined up to this length, so that small ones take little more than their bytes.
const JOINED: usize = 4 * 1024;
/// Channels of a peer at a time.
const CHANNELS: usize = 256;
/// Maximum number of SCTP streams that a peer may use: those of its channels, and those that are
/// being reset. SCTP looks at all of them for every chunk.
const STREAMS: usize = 1024;
/// How often a peer that is there is looked after, at the same time as all others.
const IDLE_TICK: Duration = Duration::from_secs(2);
/// How often its consent is asked for (RFC 7675), and how long it may be silent.
const CONSENT: Duration = Duration::from_secs(4);
const SILENCE: Duration = Duration::from_secs(7);
const FAILURE: Duration = Duration::from_secs(8);

pub struct Peer {
    agent: Agent,
    checks: ConnectivityChecks,
    state: PeerState,
    side: Option<DtlsRole>,
    dtls: Option<Dtls>,
    handshake: Option<Arc<HandshakeConfig>>,
    sctp: Option<Sctp>,
    association: Option<(AssociationHandle, Association)>,
    records: RecordFilter,
    packets: PacketFilter,
    resets: StreamResets,
    /// The last DTLS datagram of a candidate that has answered no check yet, which may be about to.
    /// Without it the handshake would wait for its repetition.
    early: Option<(SocketAddr, BytesMut)>,
    /// Where the peer is: our address, and its own.
    path: Option<SocketAddr>,
    out: VecDeque<Datagram>,
    /// What is held for the readers of all channels.
    memory: MemoryShare,
    channels: HashMap<u16, Channel>,
    opened: VecDeque<OpenedChannel>,
    next_id: u16,
    ids: u16,
    /// Largest message that the peer takes.
    max_message: usize,
    window: usize,
    /// Bytes of all channels that are not acknowledged, and that were since the window changed.
    outstanding: usize,
    acknowledged: usize,
    losses: u64,
    /// Channels that wait for room, first come, first served.
    waiting: VecDeque<u16>,
    last_tick: Option<Instant>,
    /// Since when SCTP takes nothing more of the peer.
    full_since: Option<Instant>,
    /// Since when there is no channel.
    idle_since: Instant,
}

/// How far a peer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerState {
    /// No way is known yet, or it is not private yet, or the association is being made.
    Connecting,
    Connected,
    /// For this reason.
    Over(&'static str),
}

/// A channel that the peer has opened.
pub struct OpenedChannel {
    pub id: u16,
    pub label: String,
}

#[derive(Default)]
struct Channel {
    phase: ChannelPhase,
    inbox: VecDeque<BytesMut>,
    /// Bytes in it.
    waiting: usize,
    /// Bytes that the reader was given last, and holds.
    reading: usize,
    /// Since when the reader has taken nothing although something waits.
    stalled: Option<Instant>,
    /// When bytes came, were taken or were sent last.
    moved: Option<Instant>,
    /// How long ago that may be.
    idle_limit: Option<Duration>,
    /// Waits for the channel to be cut.
    watcher: Option<Waker>,
    /// What was held for the reader is lost: too much was held in all channels.
    is_cut: bool,
    /// Not acknowledged.
    outstanding: usize,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Who has opened it waits for the answer.
    dialing: bool,
    is_queued: bool,
    /// Nobody reads and writes it any more.
    is_dropped: bool,
    credits: Option<Credits>,
}

/// Of a channel between two ends of gt.
#[derive(Default)]
struct Credits {
    /// What may be sent; `None` until the other end has shown that it knows of credit.
    left: Option<usize>,
    /// What was taken and not said yet, less what was given back.
    owed: i64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum ChannelPhase {
    #[default]
    Open,
    /// We have said all; what is on its way is waited for.
    Draining,
    /// We have said that it ends; the peer has not yet.
    Closing,
    /// The peer has ended it, or is gone.
    Closed,
}

impl Peer {
    /// A peer to be; the controlling end of ICE is the one that offers.
    pub fn new(
        identity: &Identity,
        checks: ConnectivityChecks,
        memory: MemoryShare,
        now: Instant,
    ) -> Result<Self, P2pError> {
        let config = AgentConfig {
            is_controlling: checks.role().offers(),
            keepalive_interval: Some(CONSENT),
            disconnected_timeout: Some(SILENCE),
            failed_timeout: Some(FAILURE),
            // Names that end in .local are passed over, and what would answer them is not trusted.
            multicast_dns_mode: MulticastDnsMode::Disabled,
            // Those that leave are limited in front of it.
            max_binding_requests: Some(u16::MAX - 1),
            ..AgentConfig::default()
        };
        let agent = Agent::new(now, Arc::new(config), identity.provider.clone());
        let mut agent = agent.map_err(|e| P2pError::new("ICE", e))?;
        for here in HERE {
            let here = host(here).and_then(|host| agent.add_local_candidate(host));
            here.map_err(|e| P2pError::new("ICE", e))?;
        }
        Ok(Self {
            agent,
            checks,
            state: PeerState::Connecting,
            side: None,
            dtls: None,
            handshake: None,
            sctp: None,
            association: None,
            records: RecordFilter::default(),
            packets: PacketFilter::default(),
            resets: StreamResets::default(),
            early: None,
            path: None,
            out: VecDeque::new(),
            memory,
            channels: HashMap::new(),
            opened: VecDeque::new(),
            next_id: 0,
            ids: u16::MAX,
            max_message: MAX_MESSAGE_OUT,
            window: FIRST_WINDOW,
            outstanding: 0,
            acknowledged: 0,
            losses: 0,
            waiting: VecDeque::new(),
            last_tick: None,
            full_since: None,
            idle_since: now,
        })
    }

    /// Our ufrag, by which the peer's first datagrams are known to be for it.
    pub fn ufrag(&self) -> &str {
        &self.agent.get_local_credentials().ufrag
    }

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
        })
    }

    /// An address that the peer says it has. What is no use is left out.
    pub fn add_remote(&mut self, candidate: &str, now: Instant) {
        let text = candidate.strip_prefix("candidate:").unwrap_or(candidate);
        // Names of mDNS are somebody else's: their owners turn up by themselves.
        let Ok(candidate) = unmarshal_candidate(text) else {
            return log::trace!("a candidate of no use: {text}");
        };
        match self.checks.learn(&candidate, now) {
            true => {
                let _ = self.agent.add_remote_candidate(candidate);
            }
            false => log::trace!("a candidate that is not checked: {text}"),
        }
    }

    /// The peer has described itself: begins to look for it.
    pub fn connect(
        &mut self,
        identity: &Identity,
        peer: &Description,
        side: DtlsRole,
        now: Instant,
    ) -> Result<(), P2pError> {
        let handshake = Arc::new(identity.handshake(side, &peer.fingerprint)?);
        let server = (side == DtlsRole::Server).then(|| handshake.clone());
        self.dtls = Some(Dtls::new(SOMEWHERE, TransportProtocol::UDP, server));
        let server = ServerConfig::new(transport());
        self.sctp = Some(Sctp::new(
            SOMEWHERE,
            TransportProtocol::UDP,
            Arc::new(EndpointConfig::new()),
            (side == DtlsRole::Server).then(|| Arc::new(server)),
        ));
        self.handshake = Some(handshake);
        self.side = Some(side);
        // RFC 8832, section 6: the DTLS client has the even ones.
        self.next_id = u16::from(side == DtlsRole::Server);
        let max_message = usize::try_from(peer.max_message).unwrap_or(usize::MAX);
        self.max_message = max_message.clamp(1, MAX_MESSAGE_OUT);
        for candidate in &peer.candidates {
            self.add_remote(candidate, now);
        }
        let is_controlling = self.agent.role();
        self.agent
            .start_connectivity_checks(now, is_controlling, peer.ufrag.clone(), peer.pwd.clone())
            .map_err(|e| P2pError::new("ICE", e))
    }

    /// Whether the peer has described itself.
    pub fn is_described(&self) -> bool {
        self.side.is_some()
    }

    pub fn state(&self) -> &PeerState {
        &self.state
    }

    /// Whether `addr` is one of the peer's.
    pub fn is_at(&self, addr: SocketAddr) -> bool {
        self.path == Some(addr) || self.checks.knows(addr)
    }

    /// Takes a datagram that came from `from`. False if it is not this peer's.
    pub fn receive(&mut self, from: SocketAddr, bytes: &[u8], now: Instant) -> bool {
        match bytes.first() {
            // RFC 7983.
            Some(0..=3) => self.receive_stun(from, bytes, now),
            Some(20..=63) if self.checks.has_answered(from) => {
                self.receive_records(bytes, now);
                true
            }
            Some(20..=63) => {
                if bytes.len() <= EARLY && self.is_at(from) {
                    self.early = Some((from, BytesMut::from(bytes)));
                }
                false
            }
            _ => false,
        }
    }

    fn receive_stun(&mut self, from: SocketAddr, bytes: &[u8], now: Instant) -> bool {
        let Some(inbound) = self.checks.admit(from, bytes, now) else {
            return false;
        };
        let [v4, v6] = HERE;
        let transport = TransportContext {
            local_addr: if from.is_ipv4() { v4 } else { v6 },
            peer_addr: from,
            transport_protocol: TransportProtocol::UDP,
            ecn: None,
        };
        let message = TaggedBytesMut {
            now,
            transport,
            message: BytesMut::from(bytes),
        };
        let is_peers = self.agent.handle_read(message).is_ok();
        if is_peers {
            self.checks.accept(from, inbound, now);
        }
        self.send_stun(now);
        if self.checks.has_answered(from) {
            if let Some((_, bytes)) = self.early.take_if(|(addr, _)| *addr == from) {
                self.receive_records(&bytes, now);
            }
        }
        is_peers
    }

    /// Sends what ICE has written, as far as it may leave.
    fn send_stun(&mut self, now: Instant) {
        while let Some(message) = self.agent.poll_write() {
            let (to, bytes) = (message.transport.peer_addr, message.message);
            if self.checks.leaves(to, &bytes, now) {
                self.out.push_back(Datagram { to, bytes });
            }
        }
    }

    /// When ICE is to be told the time.
    fn ice_due(&mut self) -> Option<Instant> {
        let due = self.agent.poll_timeout()?;
        match (self.path, self.checks.next_round()) {
            (None, Some(round)) => Some(round.max(due)),
            _ => Some(due),
        }
    }

    /// Gives DTLS the records of a datagram that it may have.
    fn receive_records(&mut self, datagram: &[u8], now: Instant) {
        let Some(dtls) = &mut self.dtls else {
            return;
        };
        let records = self.records.admit(datagram);
        if records.is_empty() {
            return;
        }
        match dtls.read(now, SOMEWHERE, None, records) {
            Ok(events) => events.into_iter().for_each(|event| self.hear(event, now)),
            // Anybody may have sent it, in an address that is not his.
            Err(e) => log::debug!("a datagram of a peer: {e}"),
        }
    }

    fn hear(&mut self, event: EndpointEvent, now: Instant) {
        match event {
            EndpointEvent::HandshakeComplete => {
                self.records.establish();
                // The DTLS client opens the association.
                if self.side != Some(DtlsRole::Client) {
                    return;
                }
                let config = ClientConfig::new(transport());
                if let Some(sctp) = &mut self.sctp {
                    match sctp.connect(now, config, SOMEWHERE) {
                        Ok(association) => self.association = Some(association),
                        Err(_) => self.end("no SCTP association can be made"),
                    }
                }
            }
            EndpointEvent::ApplicationData(bytes)
                if self.packets.admit(&bytes) && self.resets.incoming(&bytes) =>
            {
                self.deliver(bytes.freeze(), now);
            }
            EndpointEvent::PeerClosed => self.end("the peer has ended it"),
            _ => {}
        }
    }

    /// Gives a packet to SCTP.
    fn deliver(&mut self, packet: Bytes, now: Instant) {
        let Some(sctp) = &mut self.sctp else {
            return;
        };
        match sctp.handle(now, SOMEWHERE, None, packet) {
            Some((handle, DatagramEvent::NewAssociation(association)))
                if self.association.is_none() =>
            {
                self.association = Some((handle, association));
            }
            Some((handle, DatagramEvent::AssociationEvent(event))) => {
                if let Some((ours, association)) = &mut self.association {
                    if *ours == handle {
                        association.handle_event(event);
                    }
                }
            }
            _ => {}
        }
    }

    /// When [`Peer::pump`] is due although nothing happens.
    pub fn deadline(&mut self) -> Option<Instant> {
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
        [ice, dtls, sctp, resets].into_iter().flatten().min()
    }

    /// Lets the time pass and all that has happened have its consequences.
    pub fn pump(&mut self, now: Instant) {
        if matches!(self.state, PeerState::Over(_)) {
            return;
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
        if ticks {
            self.end_idle(now);
            self.end_stuck(now);
        }
        self.shed();
        self.close_drained();
        self.send(now);
    }

    fn pump_ice(&mut self, now: Instant) {
        while let Some(event) = self.agent.poll_event() {
            match event.event {
                IceEvent::ConnectionStateChange(ConnectionState::Failed) => {
                    self.end("there is no way to the peer, or no more");
                }
                IceEvent::SelectedCandidatePairChange(_, remote) => {
                    let is_first = self.path.is_none();
                    self.path = Some(remote.addr());
                    let config = self.handshake.clone();
                    let is_client = self.side == Some(DtlsRole::Client);
                    if let (true, true, Some(dtls), Some(config)) =
                        (is_first, is_client, &mut self.dtls, config)
                    {
                        if dtls.connect(now, SOMEWHERE, config, None).is_err() {
                            self.end("the DTLS handshake cannot begin");
                        }
                    }
                }
                _ => {}
            }
        }
        self.send_stun(now);
    }

    fn pump_sctp(&mut self, now: Instant) {
        while let Some((_, association)) = &mut self.association {
            let Some(event) = association.poll() else {
                break;
            };
            match event {
                SctpEvent::Connected if self.state == PeerState::Connecting => {
                    self.state = PeerState::Connected;
                    self.idle_since = now;
                    let most = association.negotiated_max_streams();
                    self.ids = most.unwrap_or(self.ids);
                }
                SctpEvent::HandshakeFailed { .. } => self.end("no SCTP association came about"),
                // The peer has reset the channel, or the association is gone.
                SctpEvent::AssociationLost { id, .. } => self.lost(id),
                SctpEvent::Stream(StreamEvent::Readable { id }) => self.take_in(id, now),
                SctpEvent::Stream(StreamEvent::Opened { .. }) => {
                    // Streams are known by their first message; SCTP's own list only grows.
                    while association.accept_stream().is_some() {}
                    if association.stream_ids().len() > STREAMS {
                        self.end("the peer uses too many streams");
                    }
                }
                SctpEvent::Stream(StreamEvent::BufferedAmountReleased { id, n_bytes }) => {
                    self.released(id, n_bytes);
                }
                _ => {}
            }
        }
        // It ends without a word of its own if the peer aborts it.
        if let Some((_, association)) = &self.association {
            if association.is_closed() && !association.is_handshaking() {
                self.end("the peer has ended it");
            }
        }
        if let (Some(sctp), Some((handle, association))) = (&mut self.sctp, &mut self.association) {
            while let Some(event) = association.poll_endpoint_event() {
                sctp.handle_event(*handle, event);
            }
        }
    }

    /// The bytes that go out now.
    fn send(&mut self, now: Instant) {
        let Some(dtls) = &mut self.dtls else {
            return;
        };
        let mut responses = Vec::new();
        if let Some((_, association)) = &mut self.association {
            while let Some(transmit) = association.poll_transmit(now) {
                let Payload::RawEncode(packets) = transmit.message else {
                    continue;
                };
                for packet in packets {
                    self.packets.sent(&packet, RECEIVE);
                    match self.resets.outgoing(&packet) {
                        OutgoingReset::Pass => {
                            let _ = dtls.write(now, SOMEWHERE, &packet);
                        }
                        OutgoingReset::Answered(response) => responses.push(response),
                    }
                }
            }
            while let Some(packet) = self.resets.release(now) {
                let _ = dtls.write(now, SOMEWHERE, &packet);
            }
        }
        let Some(to) = self.path else {
            return;
        };
        while let Some(message) = dtls.poll_transmit() {
            let bytes = message.message;
            self.out.push_back(Datagram { to, bytes });
        }
        for response in responses {
            self.deliver(response, now);
        }
        if self.resets.is_too_much() {
            self.end("the peer answers no resets");
        }
    }

    /// Datagrams to be sent.
    pub fn out(&mut self) -> &mut VecDeque<Datagram> {
        &mut self.out
    }

    /// The next channel that the peer has opened.
    pub fn opened(&mut self) -> Option<OpenedChannel> {
        self.opened.pop_front()
    }

    /// Since when no channel is there.
    pub fn idle_since(&self) -> Option<Instant> {
        self.channels.is_empty().then_some(self.idle_since)
    }

    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Whether it has numbers for further channels.
    pub fn has_ids(&self) -> bool {
        self.next_id < self.ids
    }

    /// It is over; all channels learn of it.
    pub fn end(&mut self, why: &'static str) {
        if !matches!(self.state, PeerState::Over(_)) {
            self.state = PeerState::Over(why);
        }
        for channel in self.channels.values_mut() {
            channel.phase = ChannelPhase::Closed;
            channel.wake();
        }
    }

    /// Says goodbye: what is left to be said is in [`Peer::out`].
    pub fn close(&mut self, now: Instant) {
        if let Some((_, association)) = &mut self.association {
            let _ = association.abort();
        }
        self.send(now);
        if let (Some(dtls), Some(to)) = (&mut self.dtls, self.path) {
            let _ = dtls.close(now);
            while let Some(message) = dtls.poll_transmit() {
                let bytes = message.message;
                self.out.push_back(Datagram { to, bytes });
            }
        }
        self.end("ended here");
    }

    /// Opens a channel to the peer.
    pub fn open(&mut self, label: &str, now: Instant) -> Option<u16> {
        self.open_as(label, CREDITED, now)
    }

    fn open_as(&mut self, label: &str, protocol: &str, now: Instant) -> Option<u16> {
        if self.state != PeerState::Connected || !self.has_ids() || self.channels.len() >= CHANNELS
        {
            return None;
        }
        let (_, association) = self.association.as_mut()?;
        // Numbers are not used again: a peer that runs out of them is replaced.
        let id = self.next_id;
        let config = DataChannelConfig {
            label: label.to_owned(),
            protocol: protocol.to_owned(),
            ..DataChannelConfig::default()
        };
        association
            .open_stream(id, PayloadProtocolIdentifier::Binary)
            .ok()?;
        let mut dial = DataChannel::dial(config, 0, id).ok()?;
        while let Some(message) = dial.poll_write() {
            control(association, &mut self.resets, &message, now);
        }
        self.next_id = self.next_id.saturating_add(2);
        let channel = Channel {
            dialing: true,
            credits: (protocol == CREDITED).then(Credits::default),
            ..Channel::default()
        };
        self.channels.insert(id, channel);
        Some(id)
    }

    /// Takes what has come for a channel out of SCTP, as far as the channel may hold it.
    fn take_in(&mut self, id: u16, now: Instant) {
        loop {
            let Some((_, association)) = &mut self.association else {
                return;
            };
            // What still comes for a channel that we have ended is forgotten. The peer may use the
            // number of one that has ended again before its reader has let go.
            if self.channels.get(&id).is_some_and(Channel::holds_up) {
                return;
            }
            let Ok(mut stream) = association.stream(id) else {
                return;
            };
            let Ok(Some(message)) = stream.read_sctp() else {
                return;
            };
            self.packets.read(message.chunks.len(), message.len());
            let is_control = message.ppi == PayloadProtocolIdentifier::Dcep;
            let has_room = self.channels.len() < CHANNELS;
            match self.channels.get_mut(&id) {
                None if is_control && has_room => {
                    let bytes = message.to_payload(4096).unwrap_or_default();
                    let Some(mut accepted) = accept(id, &bytes) else {
                        continue;
                    };
                    while let Some(message) = accepted.poll_write() {
                        control(association, &mut self.resets, &message, now);
                    }
                    let mut channel = Channel::default();
                    if accepted.config().protocol == CREDITED {
                        channel.credits = Some(Credits {
                            left: Some(UNKNOWN),
                            owed: 0,
                        });
                        say_credit(association, &mut self.resets, id, WINDOW, now);
                    }
                    self.channels.insert(id, channel);
                    let label = accepted.config().label.clone();
                    self.opened.push_back(OpenedChannel { id, label });
                }
                None => {
                    // No channel, or too many.
                    self.resets.end(id);
                }
                Some(channel) if is_control => {
                    channel.dialing = false;
                    channel.wake();
                }
                Some(channel)
                    if message.ppi == PayloadProtocolIdentifier::String
                        && channel.credits.is_some() =>
                {
                    let bytes = message.to_payload(16).unwrap_or_default();
                    let more = std::str::from_utf8(&bytes).ok();
                    let more = more.and_then(|text| text.parse::<u32>().ok());
                    let more = usize::try_from(more.unwrap_or(0)).unwrap_or(0);
                    if let Some(credits) = &mut channel.credits {
                        // Who has dialled answers the first word with its own.
                        if credits.left.is_none() {
                            say_credit(association, &mut self.resets, id, WINDOW, now);
                        }
                        let left = credits.left.unwrap_or(0);
                        credits.left = Some(left.saturating_add(more).min(1 << 24));
                    }
                    if let Some(writer) = channel.writer.take() {
                        writer.wake();
                    }
                }
                Some(channel) => {
                    let is_empty = matches!(
                        message.ppi,
                        PayloadProtocolIdentifier::BinaryEmpty
                            | PayloadProtocolIdentifier::StringEmpty
                    );
                    if is_empty || channel.is_dropped || channel.phase == ChannelPhase::Closing {
                        continue;
                    }
                    let most = usize::try_from(MAX_MESSAGE_IN).unwrap_or(usize::MAX);
                    let Ok(bytes) = message.to_payload(most) else {
                        // It was told how much we take.
                        channel.end(id, &mut self.resets);
                        return;
                    };
                    channel.waiting += bytes.len();
                    self.memory.add(bytes.len());
                    channel.stalled.get_or_insert(now);
                    channel.moved = Some(now);
                    match channel.inbox.back_mut() {
                        Some(last) if last.len() + bytes.len() <= JOINED => {
                            last.extend_from_slice(&bytes);
                        }
                        _ => channel.inbox.push_back(bytes),
                    }
                    if let Some(reader) = channel.reader.take() {
                        reader.wake();
                    }
                }
            }
        }
    }

    /// Gives up channels whose readers take nothing, the longest first, while all peers together
    /// hold too much and this one the most.
    fn shed(&mut self) {
        while self.memory.is_too_much() {
            let stalled = self.channels.iter_mut();
            let stalled = stalled.filter(|(_, channel)| channel.held() > 0);
            let Some((id, _)) = stalled.min_by_key(|(_, channel)| channel.stalled) else {
                return;
            };
            let id = *id;
            self.cut(id, "peers hold too much, and its reader takes nothing");
        }
    }

    /// Ends a channel whose reader does not take what is held for it, which is lost.
    fn cut(&mut self, id: u16, why: &str) {
        if let Some(channel) = self.channels.get_mut(&id) {
            log::debug!("a channel is cut: {why}");
            self.memory.sub(channel.let_go());
            channel.is_cut = true;
            channel.end(id, &mut self.resets);
        }
    }

    /// Ends channels in which nothing has moved for as long as they may be idle.
    fn end_idle(&mut self, now: Instant) {
        let is_idle = |channel: &Channel| {
            let limit = channel
                .idle_limit
                .filter(|_| channel.phase == ChannelPhase::Open);
            limit.is_some_and(|limit| is_past(channel.moved, limit, now))
        };
        while let Some((id, channel)) = self.channels.iter_mut().find(|(_, it)| is_idle(it)) {
            let id = *id;
            match channel.held() {
                0 => {
                    log::debug!("a channel is ended: nothing has moved in it for too long");
                    channel.end(id, &mut self.resets);
                }
                _ => self.cut(id, "its reader has taken nothing for too long"),
            }
        }
    }

    /// Ends what keeps SCTP's buffer full, which all channels of the peer wait for: those whose
    /// readers have taken nothing for a while, or the peer if no reader is to blame.
    fn end_stuck(&mut self, now: Instant) {
        if !self.packets.are_full(RECEIVE) {
            self.full_since = None;
            return;
        }
        self.full_since.get_or_insert(now);
        if !self.channels.values().any(Channel::holds_up) {
            if is_past(self.full_since, STUCK_ALONE_TIMEOUT, now) {
                self.end("what it has sent cannot be read");
            }
            return;
        }
        let limit = match self.channels.len() {
            0 | 1 => STUCK_ALONE_TIMEOUT,
            _ => STUCK_TIMEOUT,
        };
        if !is_past(self.full_since, limit, now) {
            return;
        }
        let is_stuck = |it: &Channel| it.holds_up() && is_past(it.stalled, limit, now);
        let stuck = self.channels.iter().filter(|(_, it)| is_stuck(it));
        for id in stuck.map(|(id, _)| *id).collect::<Vec<u16>>() {
            self.cut(id, "its reader takes nothing, and the others wait for it");
            self.take_in(id, now);
        }
    }

    /// Ends a channel when nothing has moved in it for `limit`.
    pub fn limit_idle(&mut self, id: u16, limit: Option<Duration>, now: Instant) {
        if let Some(channel) = self.channels.get_mut(&id) {
            (channel.idle_limit, channel.moved) = (limit, Some(now));
        }
    }

    /// How long nothing may move in a channel before it ends.
    pub fn idle_limit(&self, id: u16) -> Option<Duration> {
        self.channels.get(&id)?.idle_limit
    }

    /// The reader of a channel makes use of what it was given last.
    pub fn goes_on(&mut self, id: u16, now: Instant) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.stalled = channel.stalled.and(Some(now));
            channel.moved = Some(now);
        }
    }

    /// Bytes of a channel that the peer has not acknowledged.
    pub fn unacknowledged(&self, id: u16) -> usize {
        self.channels.get(&id).map_or(0, |it| it.outstanding)
    }

    /// Whether nothing more comes on a channel but what is held, and nothing can be sent.
    pub fn has_ended(&self, id: u16) -> bool {
        let is_over =
            |it: &Channel| matches!(it.phase, ChannelPhase::Closed | ChannelPhase::Closing);
        self.channels.get(&id).is_none_or(is_over)
    }

    /// Whether nothing is held for readers, after what must be given up.
    pub fn is_drained(&mut self) -> bool {
        self.shed();
        self.channels.values().all(|channel| channel.held() == 0)
    }

    fn lost(&mut self, id: u16) {
        self.resets.ended(id);
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        self.outstanding = self.outstanding.saturating_sub(channel.outstanding);
        channel.outstanding = 0;
        channel.phase = ChannelPhase::Closed;
        channel.wake();
        self.forget(id);
        self.admit();
    }

    /// Forgets a channel that nobody has any more.
    fn forget(&mut self, id: u16) {
        let over = |channel: &Channel| channel.is_dropped && channel.phase == ChannelPhase::Closed;
        if self.channels.get(&id).is_some_and(over) {
            self.channels.remove(&id);
        }
    }

    fn released(&mut self, id: u16, bytes: usize) {
        if let Some(channel) = self.channels.get_mut(&id) {
            // Words of the channel's own beginning were not counted.
            let bytes = bytes.min(channel.outstanding);
            channel.outstanding -= bytes;
            self.outstanding = self.outstanding.saturating_sub(bytes);
            self.acknowledged = self.acknowledged.saturating_add(bytes);
        }
        let losses = self.association.as_ref().map_or(0, |(_, association)| {
            let mut stats = association.stats();
            stats.get_num_t3timeouts()
        });
        if losses != self.losses {
            self.losses = losses;
            (self.window, self.acknowledged) = (FIRST_WINDOW, 0);
        } else if self.acknowledged >= self.window {
            self.acknowledged = 0;
            self.window = (self.window * 2).min(MOST_WINDOW);
        }
        self.admit();
    }

    /// Wakes those that wait, as far as there is room.
    fn admit(&mut self) {
        let mut room = self.window.saturating_sub(self.outstanding);
        while room >= MAX_MESSAGE_OUT {
            let Some(id) = self.waiting.pop_front() else {
                return;
            };
            if let Some(channel) = self.channels.get_mut(&id) {
                channel.is_queued = false;
                if let Some(writer) = channel.writer.take() {
                    writer.wake();
                    room -= MAX_MESSAGE_OUT;
                }
            }
        }
    }

    /// Ends channels of which all has been acknowledged.
    fn close_drained(&mut self) {
        let drained = |channel: &Channel| {
            channel.phase == ChannelPhase::Draining && channel.outstanding == 0 && !channel.dialing
        };
        for (id, channel) in self.channels.iter_mut().filter(|(_, it)| drained(it)) {
            channel.phase = ChannelPhase::Closing;
            self.resets.end(*id);
        }
    }

    /// Takes bytes that have come on a channel: `Some(None)` is its end.
    pub fn poll_read(
        &mut self,
        id: u16,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Poll<Option<BytesMut>> {
        let Some(channel) = self.channels.get_mut(&id) else {
            return Poll::Ready(None);
        };
        // Whoever asks for more has done with the last.
        self.memory.sub(std::mem::take(&mut channel.reading));
        channel.stalled = (!channel.inbox.is_empty()).then_some(now);
        if let Some(bytes) = channel.inbox.pop_front() {
            channel.moved = Some(now);
            channel.waiting = channel.waiting.saturating_sub(bytes.len());
            channel.reading = bytes.len();
            let is_low = channel.waiting < IN / 2;
            self.taken(id, bytes.len(), now);
            if is_low {
                self.take_in(id, now);
            }
            return Poll::Ready(Some(bytes));
        }
        if matches!(channel.phase, ChannelPhase::Closed | ChannelPhase::Closing) {
            return Poll::Ready(None);
        }
        channel.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Bytes of a channel have been taken: the peer may send as many.
    fn taken(&mut self, id: u16, bytes: usize, now: Instant) {
        let (Some(channel), Some((_, association))) =
            (self.channels.get_mut(&id), &mut self.association)
        else {
            return;
        };
        if let Some(credits) = &mut channel.credits {
            // A message's length.
            credits.owed += bytes as i64;
            if let Some(owed) = usize::try_from(credits.owed)
                .ok()
                .filter(|owed| *owed >= CREDIT)
            {
                say_credit(association, &mut self.resets, id, owed, now);
                credits.owed = 0;
            }
        }
    }

    /// Waits until what was held for the reader of a channel is lost.
    pub fn poll_cut(&mut self, id: u16, cx: &mut Context<'_>) -> Poll<()> {
        match self.channels.get_mut(&id) {
            Some(channel) if !channel.is_cut => {
                channel.watcher = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Whether what was held for the reader of a channel is lost.
    pub fn is_cut(&self, id: u16) -> bool {
        let channel = self.channels.get(&id);
        channel.is_some_and(|channel| channel.is_cut)
    }

    pub fn memory(&self) -> &MemoryShare {
        &self.memory
    }

    /// Gives back bytes that were not used up.
    pub fn unread(&mut self, id: u16, bytes: BytesMut) {
        let channel = self.channels.get_mut(&id);
        if let Some(channel) = channel.filter(|channel| !channel.is_cut) {
            channel.waiting += bytes.len();
            channel.reading = channel.reading.saturating_sub(bytes.len());
            if let Some(credits) = &mut channel.credits {
                credits.owed -= bytes.len() as i64;
            }
            channel.inbox.push_front(bytes);
        }
    }

    /// How many bytes a channel may send now, at least one.
    pub fn poll_room(&mut self, id: u16, cx: &mut Context<'_>) -> Poll<Option<usize>> {
        let Some(channel) = self.channels.get_mut(&id) else {
            return Poll::Ready(None);
        };
        if channel.phase != ChannelPhase::Open {
            return Poll::Ready(None);
        }
        let credit = channel.credits.as_ref().and_then(|credits| credits.left);
        let credit = credit.unwrap_or(usize::MAX);
        if credit == 0 {
            channel.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let ours = channel.outstanding + MAX_MESSAGE_OUT <= OUT;
        let all = self.outstanding + MAX_MESSAGE_OUT <= self.window;
        if ours && all && !channel.dialing {
            return Poll::Ready(Some(self.max_message.min(credit)));
        }
        channel.writer = Some(cx.waker().clone());
        if !channel.is_queued {
            channel.is_queued = true;
            self.waiting.push_back(id);
        }
        Poll::Pending
    }

    /// Sends a message of at most as many bytes as there was room for.
    pub fn write(&mut self, id: u16, bytes: Bytes, now: Instant) -> bool {
        let Some(channel) = self.channels.get_mut(&id) else {
            return false;
        };
        let Some((_, association)) = &mut self.association else {
            return false;
        };
        let Ok(mut stream) = association.stream(id) else {
            return false;
        };
        let ppi = PayloadProtocolIdentifier::Binary;
        match stream.write_chunk_with_ppi(now, &bytes, ppi) {
            Ok(n) => {
                self.resets.written(id);
                channel.moved = Some(now);
                channel.outstanding += n;
                self.outstanding += n;
                let credits = channel.credits.as_mut();
                if let Some(left) = credits.and_then(|credits| credits.left.as_mut()) {
                    *left = left.saturating_sub(n);
                }
                true
            }
            Err(_) => false,
        }
    }

    /// All has been said on a channel: it ends when the peer has it.
    pub fn finish(&mut self, id: u16) {
        if let Some(channel) = self.channels.get_mut(&id) {
            if channel.phase == ChannelPhase::Open {
                channel.phase = ChannelPhase::Draining;
            }
        }
    }

    /// A channel that holds `bytes`, and that the peer has ended if it `is_closed`. What was sent
    /// on it is not acknowledged.
    #[cfg(test)]
    pub fn insert_silent(&mut self, bytes: &[u8], is_closed: bool) -> u16 {
        let (open, closed) = (ChannelPhase::Open, ChannelPhase::Closed);
        let channel = Channel {
            phase: if is_closed { closed } else { open },
            inbox: bytes.chunks(MAX_MESSAGE_OUT).map(BytesMut::from).collect(),
            waiting: bytes.len(),
            outstanding: 1,
            ..Channel::default()
        };
        self.memory.add(bytes.len());
        self.channels.insert(0, channel);
        0
    }

    /// Whether the peer has ended a channel, or is gone.
    #[cfg(test)]
    fn is_closed(&self, id: u16) -> bool {
        let channel = self.channels.get(&id);
        channel.is_none_or(|channel| channel.phase == ChannelPhase::Closed)
    }

    /// Nobody reads or writes a channel any more.
    pub fn drop_channel(&mut self, id: u16, now: Instant) {
        self.finish(id);
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.is_dropped = true;
            (channel.reader, channel.writer, channel.watcher) = (None, None, None);
            self.memory.sub(channel.let_go());
            // What still comes is read and forgotten, so that its end can come.
            self.take_in(id, now);
        }
        self.forget(id);
        // The next one of this number may be there already.
        self.take_in(id, now);
        if self.channels.is_empty() {
            self.idle_since = now;
        }
    }
}

impl Channel {
    /// Whether what else comes has to wait in SCTP's buffer.
    fn is_full(&self) -> bool {
        match self.credits {
            // Who keeps to it never sends more.
            Some(_) => self.waiting > WINDOW,
            None => self.waiting >= IN,
        }
    }

    /// Whether what has come for it stays in SCTP's buffer until its reader goes on.
    fn holds_up(&self) -> bool {
        match self.phase {
            ChannelPhase::Open | ChannelPhase::Draining => self.is_full(),
            ChannelPhase::Closing => false,
            // It is for the next channel of the same number.
            ChannelPhase::Closed => true,
        }
    }

    /// Nothing more is sent or read, unless it has ended already.
    fn end(&mut self, id: u16, resets: &mut StreamResets) {
        if self.phase != ChannelPhase::Closed {
            self.phase = ChannelPhase::Closing;
            resets.end(id);
        }
        self.wake();
    }

    /// Bytes that are held for the reader.
    fn held(&self) -> usize {
        self.waiting + self.reading
    }

    /// Drops what is held; returns how much that was.
    fn let_go(&mut self) -> usize {
        let held = self.held();
        self.inbox = VecDeque::new();
        (self.waiting, self.reading, self.stalled) = (0, 0, None);
        held
    }

    fn wake(&mut self) {
        let wakers = [&mut self.reader, &mut self.writer, &mut self.watcher];
        wakers
            .into_iter()
            .filter_map(Option::take)
            .for_each(Waker::wake);
    }
}

/// Whether `since` is as long ago as `limit`.
fn is_past(since: Option<Instant>, limit: Duration, now: Instant) -> bool {
    since.is_some_and(|since| now.saturating_duration_since(since) >= limit)
}

/// What an association takes, and that it repeats DATA for as long as the peer is there, which ICE
/// knows: after five repetitions rtc-sctp 0.21 would send nothing any more, and not say so.
pub(crate) fn transport() -> TransportConfig {
    let timers = TimerConfig {
        max_t3_rtx_retrans: usize::MAX,
        ..TimerConfig::default()
    };
    TransportConfig::default()
        .with_timer_config(timers)
        .with_max_message_size(MAX_MESSAGE_IN)
        .with_max_receive_buffer_size(RECEIVE)
}

/// The channel that a peer opens with a message. Only DATA_CHANNEL_OPEN (RFC 8832, section 8.2.1)
/// is parsed: rtc-datachannel 0.21 panics at others that are too short.
pub(crate) fn accept(id: u16, message: &[u8]) -> Option<DataChannel> {
    const OPEN: u8 = 3;
    if message.first() != Some(&OPEN) {
        return None;
    }
    let config = DataChannelConfig::default();
    DataChannel::accept(config, 0, id, PayloadProtocolIdentifier::Dcep, message).ok()
}

/// Lets the peer send so many bytes more on a channel.
fn say_credit(
    association: &mut Association,
    resets: &mut StreamResets,
    id: u16,
    bytes: usize,
    now: Instant,
) {
    if let Ok(mut stream) = association.stream(id) {
        let text = bytes.to_string();
        let ppi = PayloadProtocolIdentifier::String;
        if stream.write_with_ppi(now, text.as_bytes(), ppi).is_ok() {
            resets.written(id);
        }
    }
}

/// A word about a channel itself.
fn control(
    association: &mut Association,
    resets: &mut StreamResets,
    message: &DataChannelMessage,
    now: Instant,
) {
    if let Ok(mut stream) = association.stream(message.stream_id) {
        let written = stream.write_with_ppi(now, &message.payload, message.ppi);
        if written.is_ok() {
            resets.written(message.stream_id);
        }
    }
}

fn host(addr: SocketAddr) -> Result<Candidate, rtc_shared::error::Error> {
    let config = CandidateHostConfig {
        base_config: CandidateConfig {
            network: "udp".to_owned(),
            address: addr.ip().to_string(),
            port: addr.port(),
            component: 1,
            ..CandidateConfig::default()
        },
        ..CandidateHostConfig::default()
    };
    config.new_candidate_host()
}

/// How an address of this machine is told to a peer.
pub fn candidate(addr: SocketAddr) -> Option<String> {
    let host = host(addr).ok()?;
    Some(format!("candidate:{}", host.marshal()))
}

#[cfg(test)]
mod tests;
