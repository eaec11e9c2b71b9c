//! The path of a QUIC connection, from the moment that ICE has selected one: it is checked, and replaced by another
//! one that answers when it fails or the peer speaks from another address (docs/p2p.md, "QUIC"). rtc-ice 0.21 never
//! selects a second pair.

use super::stun::{self, Checked};
use super::QuicTransport;
use crate::client::p2p::checks::InboundCheck;
use crate::client::p2p::peer::transport::CONSENT;
use crate::client::p2p::peer::{Peer, PeerState, Transport, IDLE_TICK};
use crate::client::p2p::socket::Datagram;
use crate::net::clock::next_step;
use bytes::BytesMut;
use rtc_ice::state::ConnectionState;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Time that ICE has to select a path after the connection has been established over a first one.
const SELECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for which a path that was used lately may be silent before it is checked.
const SILENCE: Duration = Duration::from_secs(1);
/// Time since the last packet in which a path counts as used.
const ACTIVE: Duration = Duration::from_secs(5);
/// Time that the path has to answer a check before the other addresses are checked, too; also the pause between two
/// such rounds.
const ROUND: Duration = Duration::from_millis(500);
/// Time after which addresses that have not answered get as many checks as new ones.
const REVIVAL: Duration = Duration::from_secs(10);
/// Pause between two addresses that are forgotten for others.
const FORGET_PAUSE: Duration = Duration::from_secs(1);
/// Time of silence after which the ends tell each other their addresses anew.
const LOST: Duration = Duration::from_secs(2);
/// Time of silence after which the peer is gone.
const GONE: Duration = Duration::from_secs(30);

/// The watch over the path of one connection.
#[derive(Debug)]
pub(super) struct PathWatch {
    state: WatchState,
    /// When something authentic came from the peer, from whatever address.
    heard: Instant,
    /// When something came over the path.
    path_heard: Instant,
    /// When the last packet was sent or came.
    active: Instant,
    /// When the path is checked next.
    next_check: Instant,
    /// When the oldest check of the path was sent that has no answer.
    asked: Option<Instant>,
    /// Another address from which the peer has sent the last packet.
    spoke: Option<SocketAddr>,
    /// When addresses that have not answered were last given new checks.
    revived: Option<Instant>,
    /// When an address was last forgotten.
    forgot: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WatchState {
    /// ICE checks the path.
    Ice {
        /// When the connection was established.
        since: Option<Instant>,
    },
    /// The path answers.
    Steady,
    /// The path does not answer; all addresses are checked at this time.
    Searching(Instant),
}

impl PathWatch {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: WatchState::Ice { since: None },
            heard: now,
            path_heard: now,
            active: now,
            next_check: now,
            asked: None,
            spoke: None,
            revived: None,
            forgot: None,
        }
    }

    /// Notes that a packet was sent.
    pub(super) fn sent(&mut self, now: Instant) {
        self.active = now;
    }

    fn is_ours(&self) -> bool {
        !matches!(self.state, WatchState::Ice { .. })
    }

    /// Notes that the path works.
    fn works(&mut self, now: Instant) {
        (self.heard, self.path_heard, self.asked) = (now, now, None);
        if self.is_ours() {
            self.state = WatchState::Steady;
        }
    }

    fn check_next(&mut self, now: Instant) {
        self.next_check = next_step(now + CONSENT - IDLE_TICK, IDLE_TICK);
    }

    fn is_active(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.active) < ACTIVE
    }

    fn deadline(&self) -> Option<Instant> {
        let state = match self.state {
            WatchState::Ice { since } => return since.map(|since| since + SELECTION_TIMEOUT),
            WatchState::Steady => self.asked.map(|asked| asked + ROUND),
            WatchState::Searching(next) => Some(next),
        };
        let silence = self.path_heard + SILENCE;
        let silence = (self.asked.is_none() && silence < self.active + ACTIVE).then_some(silence);
        let due = [
            state,
            silence,
            Some(self.next_check),
            Some(self.heard + GONE),
        ];
        due.into_iter().flatten().min()
    }
}

impl QuicTransport {
    /// Tells the connection that its path is another one: its congestion control and packet length start over.
    fn path_changed(&mut self, now: Instant) {
        if let Some(connection) = self.phase.connection() {
            connection.path_changed(now);
            match connection.side().is_client() {
                true => connection.local_address_changed(),
                false => connection.ping(),
            }
        }
    }
}

impl Peer {
    /// Whether the path is watched here, and no longer by ICE.
    pub(in super::super) fn watches_path(&self) -> bool {
        matches!(&self.transport, Transport::Quic(quic) if quic.paths.is_ours())
    }

    /// Takes an address that has answered a check as the first path, and starts the handshake.
    pub(in super::super) fn take_first_path(&mut self, from: SocketAddr, now: Instant) {
        if self.path.is_some() || !self.checks.has_answered(from) {
            return;
        }
        let Transport::Quic(quic) = &mut self.transport else {
            return;
        };
        self.path = Some(from);
        if let Err(why) = quic.begin(now) {
            self.end(why);
        }
    }

    /// Uses the path that ICE has selected.
    pub(in super::super) fn take_selected_path(&mut self, to: SocketAddr, now: Instant) {
        if self.path != Some(to) {
            self.change_path(to, now);
        }
        self.take_first_path(to, now);
    }

    /// Sends everything to another address from now on.
    fn change_path(&mut self, to: SocketAddr, now: Instant) {
        let Transport::Quic(quic) = &mut self.transport else {
            return;
        };
        if let (Some(from), true) = (self.path, quic.paths.is_ours()) {
            log::info!("the path to a peer changes from {from} to {to}");
        }
        self.path = Some(to);
        quic.paths.works(now);
        quic.paths.spoke = None;
        quic.paths.check_next(now);
        quic.path_changed(now);
    }

    /// Notes that an authentic packet has come from an address.
    pub(super) fn spoken_from(&mut self, from: SocketAddr, now: Instant) {
        let is_path = self.path == Some(from);
        let Transport::Quic(quic) = &mut self.transport else {
            return;
        };
        let paths = &mut quic.paths;
        (paths.heard, paths.active) = (now, now);
        if is_path {
            return paths.works(now);
        }
        if paths.is_ours() && paths.spoke != Some(from) {
            // The address is taken once it has answered, since anyone can repeat a packet from elsewhere.
            paths.spoke = Some(from);
            self.make_room_for(from, now);
            self.checks.hear(from, now);
            self.check(from, now);
        }
    }

    /// Forgets an address if there are as many as there may be and `from` is a new one, at most one a second.
    fn make_room_for(&mut self, from: SocketAddr, now: Instant) {
        if self.checks.knows(from) || !self.checks.is_full() {
            return;
        }
        let Transport::Quic(quic) = &mut self.transport else {
            return;
        };
        let forgot = &mut quic.paths.forgot;
        if forgot.is_none_or(|last| now >= last + FORGET_PAUSE) {
            *forgot = Some(now);
            self.checks.forget_one(self.path);
        }
    }

    /// Sends a check to an address of the peer.
    fn check(&mut self, to: SocketAddr, now: Instant) {
        let Some(theirs) = self.agent.get_remote_credentials() else {
            return;
        };
        let ours = self.agent.get_local_credentials();
        let Some(bytes) = stun::request(ours, theirs, self.checks.role().offers()) else {
            return;
        };
        if self.checks.leaves(to, &bytes, now) {
            let bytes = BytesMut::from(&bytes[..]);
            self.out.push_back(Datagram { to, bytes });
        }
    }

    /// Processes a STUN message when ICE no longer does. False if it is not the peer's.
    pub(in super::super) fn receive_own_stun(
        &mut self,
        from: SocketAddr,
        bytes: &[u8],
        now: Instant,
    ) -> bool {
        self.make_room_for(from, now);
        let Some(inbound) = self.checks.admit(from, bytes, now) else {
            return false;
        };
        let Some(theirs) = self.agent.get_remote_credentials() else {
            return false;
        };
        let ours = self.agent.get_local_credentials();
        let Some(checked) = stun::read(ours, theirs, from, bytes) else {
            return false;
        };
        let Transport::Quic(quic) = &mut self.transport else {
            return false;
        };
        let is_path = self.path == Some(from);
        quic.paths.heard = now;
        if is_path {
            quic.paths.works(now);
        }
        let searches = matches!(quic.paths.state, WatchState::Searching(_));
        let spoke = quic.paths.spoke == Some(from);
        match (checked, inbound) {
            (Checked::Request(answer), InboundCheck::Request) => {
                self.checks.accept(from, inbound, now);
                let bytes = BytesMut::from(&answer[..]);
                self.out.push_back(Datagram { to: from, bytes });
                if searches && !is_path {
                    self.check(from, now);
                }
            }
            (Checked::Answer, InboundCheck::Answer(_)) => {
                self.checks.accept(from, inbound, now);
                let is_taken = searches || spoke || self.is_better(from);
                if !is_path && is_taken {
                    self.change_path(from, now);
                }
            }
            _ => return false,
        }
        true
    }

    /// Whether an address is of a better kind than the path's, for the end that decides that.
    fn is_better(&self, addr: SocketAddr) -> bool {
        // The type preference (RFC 8445, section 5.1.2.1), of addresses that the peer has named.
        let kind = |addr: SocketAddr| {
            let mut candidates = self.agent.get_remote_candidates().iter();
            let candidate = candidates.find(|it| it.addr() == addr);
            candidate.map_or(0, |it| it.priority() >> 24)
        };
        let path = self.path.map_or(0, kind);
        self.checks.role().offers() && kind(addr) > path
    }

    /// Whether no address of the peer answers, so that others have to be learnt.
    pub(in super::super) fn has_lost_path(&self, now: Instant) -> bool {
        let Transport::Quic(quic) = &self.transport else {
            return false;
        };
        let searches = matches!(quic.paths.state, WatchState::Searching(_));
        searches && now >= quic.paths.heard + LOST
    }

    /// Checks an address that the peer has named after ICE's selection.
    pub(in super::super) fn check_named(&mut self, addr: SocketAddr, now: Instant) {
        if self.watches_path() {
            self.check(addr, now);
        }
    }

    /// Checks the path when that is due, and other addresses when it does not answer.
    pub(super) fn watch_path(&mut self, now: Instant) {
        let is_connected = self.state == PeerState::Connected;
        let is_selected = self.agent.get_selected_candidate_pair().is_some()
            || self.agent.state() == ConnectionState::Failed;
        let path = self.path;
        let Transport::Quic(quic) = &mut self.transport else {
            return;
        };
        let paths = &mut quic.paths;
        if let (WatchState::Ice { since }, true) = (&mut paths.state, is_connected) {
            let since = *since.get_or_insert(now);
            if !is_selected && now < since + SELECTION_TIMEOUT {
                return;
            }
            paths.state = WatchState::Steady;
            paths.works(now);
            paths.check_next(now);
        }
        let Some(path) = path.filter(|_| paths.is_ours()) else {
            return;
        };
        if now >= paths.heard + GONE {
            return self.end("there is no connection to the peer any more");
        }
        let is_silent =
            paths.asked.is_none() && paths.is_active(now) && now >= paths.path_heard + SILENCE;
        let is_due = now >= paths.next_check || is_silent;
        if is_due {
            paths.asked.get_or_insert(now);
            paths.check_next(now);
        }
        let is_over = |asked: Instant| now >= asked + ROUND;
        if paths.state == WatchState::Steady && paths.asked.is_some_and(is_over) {
            log::debug!("the path to a peer does not answer; its other addresses are checked");
            paths.state = WatchState::Searching(now);
        }
        let searches = matches!(paths.state, WatchState::Searching(next) if next <= now);
        if searches {
            paths.state = WatchState::Searching(now + ROUND);
            if paths.revived.is_none_or(|last| now >= last + REVIVAL) {
                paths.revived = Some(now);
                self.checks.revive(now);
            }
            for addr in self.checks.addresses() {
                self.check(addr, now);
            }
        } else if is_due {
            self.check(path, now);
        }
    }

    /// Returns when the path has to be watched again.
    pub(in super::super) fn watch_deadline(&self) -> Option<Instant> {
        match &self.transport {
            Transport::Quic(quic) => quic.paths.deadline(),
            Transport::Sctp => None,
        }
    }
}
