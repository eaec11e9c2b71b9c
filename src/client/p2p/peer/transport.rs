//! The transport of a peer: ICE finds the path, DTLS encrypts it, SCTP has an association on it.

use super::credit::SendWindow;
use super::path::LossMeter;
use super::quic::{self, QuicTransport};
use super::{Peer, PeerState, Transport, HERE, RECEIVE, SOMEWHERE};
use crate::client::p2p::checks::ConnectivityChecks;
use crate::client::p2p::identity::{DtlsRole, Identity};
use crate::client::p2p::memory::MemoryShare;
use crate::client::p2p::nat_kind::NatAddress;
use crate::client::p2p::packets::PacketFilter;
use crate::client::p2p::pieces::is_piece;
use crate::client::p2p::records::RecordFilter;
use crate::client::p2p::resets::{OutgoingReset, StreamResets};
use crate::client::p2p::sdp::Description;
use crate::client::p2p::socket::Datagram;
use crate::client::p2p::{P2pError, MAX_MESSAGE_IN, MAX_MESSAGE_OUT};
use crate::collections::HashMap;
use bytes::{Bytes, BytesMut};
use rtc_dtls::endpoint::{Endpoint as Dtls, EndpointEvent};
use rtc_ice::agent::agent_config::AgentConfig;
use rtc_ice::agent::{Agent, Event as IceEvent};
use rtc_ice::candidate::candidate_host::CandidateHostConfig;
use rtc_ice::candidate::{unmarshal_candidate, Candidate, CandidateConfig};
use rtc_ice::mdns::MulticastDnsMode;
use rtc_ice::state::ConnectionState;
use rtc_sctp::{
    ClientConfig, DatagramEvent, Endpoint as Sctp, EndpointConfig, Event as SctpEvent, Payload,
    ServerConfig, StreamEvent, TimerConfig, TransportConfig,
};
use rtc_shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use sansio::Protocol as _;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Maximum number of SCTP streams that a peer may use, for its channels and for resets in progress.
/// SCTP iterates over all of them for every chunk.
const STREAMS: usize = 1024;
/// Interval of consent checks (RFC 7675).
pub(super) const CONSENT: Duration = Duration::from_secs(4);
/// Time that a connected peer may be silent.
const SILENCE: Duration = Duration::from_secs(7);
/// Time in which a path between addresses of the machines themselves is preferred to one through a NAT: the answer to a
/// check in the same network takes less. The default of rtc-ice 0.21, 0.5 and 1 s, was most of the time to a connection.
const PREFERENCE: Duration = Duration::from_millis(60);
/// Time after which a silent peer has failed.
const FAILURE: Duration = Duration::from_secs(8);

impl Peer {
    /// Creates a peer; the end that offers is the controlling end of ICE.
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
            srflx_acceptance_min_wait: Some(PREFERENCE),
            prflx_acceptance_min_wait: Some(PREFERENCE),
            // Names in .local are skipped; multicast DNS answers are not trusted.
            multicast_dns_mode: MulticastDnsMode::Disabled,
            // The number of checks is limited by `ConnectivityChecks`.
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
            transport: Transport::Sctp,
            dtls: None,
            handshake: None,
            fingerprints: None,
            sctp: None,
            association: None,
            records: RecordFilter::default(),
            packets: PacketFilter::default(),
            resets: StreamResets::default(),
            losses: LossMeter::default(),
            early: None,
            nat: None,
            path: None,
            out: VecDeque::new(),
            memory,
            channels: HashMap::default(),
            flows: HashMap::default(),
            opened: VecDeque::new(),
            next_id: 0,
            ids: u16::MAX,
            max_message: MAX_MESSAGE_OUT,
            window: SendWindow::new(),
            waiting: VecDeque::new(),
            last_tick: None,
            pumped: now,
            full_since: None,
            idle_since: now,
            refuses: false,
            is_retired: false,
        })
    }

    /// Adds an address that the peer has named. Addresses that cannot or must not be checked are
    /// skipped.
    pub fn add_remote(&mut self, candidate: &str, now: Instant) {
        self.nat = NatAddress::parse(candidate).or(self.nat);
        let text = candidate.strip_prefix("candidate:").unwrap_or(candidate);
        // mDNS names are not resolved: their hosts send checks themselves.
        let Ok(candidate) = unmarshal_candidate(text) else {
            return log::trace!("a candidate of no use: {text}");
        };
        let addr = candidate.addr();
        match self.checks.learn(&candidate, now) {
            true => {
                let _ = self.agent.add_remote_candidate(candidate);
                self.check_named(addr, now);
            }
            false => log::trace!("a candidate that is not checked: {text}"),
        }
    }

    /// Applies the peer's description and starts to connect.
    pub fn connect(
        &mut self,
        identity: &Identity,
        peer: &Description,
        side: DtlsRole,
        now: Instant,
    ) -> Result<(), P2pError> {
        let (ours, theirs) = (
            identity.fingerprint.clone(),
            peer.fingerprint.to_ascii_uppercase(),
        );
        self.fingerprints = Some(match side {
            DtlsRole::Client => [ours, theirs],
            DtlsRole::Server => [theirs, ours],
        });
        if peer.quic && quic::IS_THERE {
            let quic = QuicTransport::new(identity, side, &peer.fingerprint, now)?;
            self.transport = Transport::Quic(Box::new(quic));
            return self.start_ice(peer, side, now);
        }
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
        // RFC 8832, section 6: the DTLS client has the even numbers.
        self.next_id = u16::from(side == DtlsRole::Server);
        let max_message = usize::try_from(peer.max_message).unwrap_or(usize::MAX);
        self.max_message = max_message.clamp(1, MAX_MESSAGE_OUT);
        self.start_ice(peer, side, now)
    }

    /// Starts the connectivity checks.
    fn start_ice(
        &mut self,
        peer: &Description,
        side: DtlsRole,
        now: Instant,
    ) -> Result<(), P2pError> {
        self.side = Some(side);
        for candidate in &peer.candidates {
            self.add_remote(candidate, now);
        }
        let is_controlling = self.agent.role();
        self.agent
            .start_connectivity_checks(now, is_controlling, peer.ufrag.clone(), peer.pwd.clone())
            .map_err(|e| P2pError::new("ICE", e))
    }

    pub(super) fn receive_stun(&mut self, from: SocketAddr, bytes: &[u8], now: Instant) -> bool {
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
            self.take_first_path(from, now);
            if let Some((_, bytes)) = self.early.take_if(|(addr, _)| *addr == from) {
                self.receive(from, &bytes, now);
            }
        }
        is_peers
    }

    /// Sends the messages that ICE has written, as far as they are permitted.
    pub(super) fn send_stun(&mut self, now: Instant) {
        while let Some(message) = self.agent.poll_write() {
            let (to, bytes) = (message.transport.peer_addr, message.message);
            if self.checks.leaves(to, &bytes, now) {
                self.out.push_back(Datagram { to, bytes });
            }
        }
    }

    /// Returns the time at which ICE has to be advanced.
    pub(super) fn ice_due(&mut self) -> Option<Instant> {
        let due = self.agent.poll_timeout()?;
        match (self.path, self.checks.next_round()) {
            (None, Some(round)) => Some(round.max(due)),
            _ => Some(due),
        }
    }

    /// Passes the permitted records of a datagram to DTLS.
    pub(super) fn receive_records(&mut self, datagram: &[u8], now: Instant) {
        let Some(dtls) = &mut self.dtls else {
            return;
        };
        let records = self.records.admit(datagram);
        if records.is_empty() {
            return;
        }
        match dtls.read(now, SOMEWHERE, None, records) {
            Ok(events) => events.into_iter().for_each(|event| self.hear(event, now)),
            // Anyone may have sent it, with a forged source.
            Err(e) => log::debug!("a datagram of a peer: {e}"),
        }
    }

    pub(super) fn hear(&mut self, event: EndpointEvent, now: Instant) {
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
            EndpointEvent::ApplicationData(bytes) if is_piece(&bytes) => {
                self.receive_piece(&bytes, now);
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

    /// Passes a packet to SCTP.
    pub(super) fn deliver(&mut self, packet: Bytes, now: Instant) {
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

    pub(super) fn pump_ice(&mut self, now: Instant) {
        while let Some(event) = self.agent.poll_event() {
            match event.event {
                IceEvent::ConnectionStateChange(ConnectionState::Failed)
                    if !self.is_quic() || self.state == PeerState::Connecting =>
                {
                    self.end("there is no connection to the peer any more");
                }
                IceEvent::SelectedCandidatePairChange(_, remote) if self.is_quic() => {
                    self.take_selected_path(remote.addr(), now);
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

    pub(super) fn pump_sctp(&mut self, now: Instant) {
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
                    // Streams are recognised by their first message; SCTP's own list only grows.
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
        // An abort by the peer produces no event.
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

    /// Moves the outgoing bytes of all layers towards the socket.
    pub(super) fn send(&mut self, now: Instant) {
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
                    self.losses.sent(&packet);
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
}

/// Returns the association's limits. DATA is repeated as long as the peer is reachable, which ICE
/// decides: after its default of five repetitions rtc-sctp 0.21 would silently stop sending.
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

/// Formats an address of this machine as a candidate.
pub fn candidate(addr: SocketAddr) -> Option<String> {
    let host = host(addr).ok()?;
    Some(format!("candidate:{}", host.marshal()))
}
