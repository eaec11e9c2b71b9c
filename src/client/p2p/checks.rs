//! The filter in front of ICE: which connectivity checks are sent, where and how often, and which
//! STUN messages are accepted (docs/p2p.md, "Connectivity checks").
//!
//! rtc-ice 0.21 trusts its peer: every source of a valid check becomes a candidate, every candidate
//! is checked five times a second, and nothing limits their number. Without this filter, a visitor
//! could aim such a flood of checks at any address.

#[cfg(all(feature = "quic", not(feature = "sim")))]
mod addresses;

use crate::sync::Mutex;
use rtc_ice::candidate::Candidate;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Maximum number of addresses of a peer: those that it names, and sources of its checks.
pub const MAX_REMOTES: usize = 32;
/// Maximum number of addresses that a peer may name. The rest is for sources of checks.
const MAX_NAMED: usize = 24;
/// The port of multicast DNS, from which rtc-ice 0.21 accepts datagrams without the password.
const MDNS_PORT: u16 = 5353;
/// Maximum number of ports that a peer may name of one IP address, so that one host is not checked
/// many times over.
const MAX_NAMED_OF_HOST: usize = 8;
/// Pauses between the checks of an address that does not answer; it gets one check more than there
/// are pauses, within 8 s.
const PAUSES: [Duration; 7] = [
    Duration::from_millis(200),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1600),
    Duration::from_millis(2400),
    Duration::from_millis(2400),
];
/// Maximum number of checks of an address that has sent a valid check and not answered ours.
const HEARD_CHECKS: u8 = 20;
/// Pause between two checks of an address that has sent a valid check.
const HEARD_PAUSE: Duration = Duration::from_millis(100);
/// Pause between two checks of an address that has answered one.
const ANSWERED_PAUSE: Duration = Duration::from_millis(50);
/// Pause between two rounds of checks for each address in them, within [`ROUND_PAUSES`]. With the
/// other bounds, ICE computes at most 160 checks a second for a peer.
const ROUND_PAUSE: Duration = Duration::from_millis(10);
/// Minimum and maximum pause between two rounds of checks.
const ROUND_PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(200)];
/// Pause between two rounds without checks, in which ICE only sees the time pass.
const IDLE_ROUND: Duration = Duration::from_secs(1);
/// Maximum number of checks whose answers are recognised; older ones are forgotten.
const MAX_OUTSTANDING: usize = 256;
/// Number of the peer's own checks that are accepted at once.
const MAX_REQUESTS: u32 = 64;
/// Time after which one more of the peer's own checks is accepted.
const REQUEST_PAUSE: Duration = Duration::from_millis(20);
/// Number of times at once that a peer may have addresses exchanged, and the time after which it may once more: each
/// time, this end asks its STUN servers, and a peer that is lost does not need it more often.
const MAX_EXCHANGES: u32 = 4;
const EXCHANGE_PAUSE: Duration = Duration::from_secs(2);
/// Number of checks that the whole process may send at once to addresses that have not answered.
const BUDGET: u32 = 200;
/// The part of [`BUDGET`] that is kept for addresses that have sent a valid check: an address
/// that a visitor only names may be anyone's.
const RESERVE: u32 = 100;
/// Time after which one more check may be sent to an address that has not answered.
const BUDGET_PAUSE: Duration = Duration::from_millis(20);

/// STUN message types (RFC 8489, section 5) of the method Binding.
const REQUEST: u16 = 0x0001;
const INDICATION: u16 = 0x0011;
const SUCCESS: u16 = 0x0101;

/// A token bucket for events: a number that may happen at once, refilled with time.
#[derive(Debug)]
struct Tokens {
    most: u32,
    pause: Duration,
    left: u32,
    since: Option<Instant>,
}

impl Tokens {
    fn new(most: u32, pause: Duration) -> Self {
        Self {
            most,
            pause,
            left: most,
            since: None,
        }
    }

    /// Takes one token if more than `reserve` are left.
    fn take(&mut self, reserve: u32, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let pause = self.pause.as_millis().max(1);
        let earned = now.saturating_duration_since(since).as_millis() / pause;
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(self.most);
            // A part of a pause counts the next time, unless the bucket is full.
            let whole = self.pause.checked_mul(earned);
            let next = whole.and_then(|whole| since.checked_add(whole));
            self.since = next.filter(|_| self.left < self.most).or(Some(now));
        }
        if self.left <= reserve {
            return false;
        }
        self.left -= 1;
        true
    }
}

/// The budget of checks to addresses that have not answered, shared by all peers of the process.
#[derive(Debug)]
pub struct CheckBudget(Mutex<Tokens>);

impl Default for CheckBudget {
    fn default() -> Self {
        Self(Mutex::new(Tokens::new(BUDGET, BUDGET_PAUSE)))
    }
}

impl CheckBudget {
    fn take(&self, state: CandidateState, now: Instant) -> bool {
        let reserve = match state {
            CandidateState::Named => RESERVE,
            CandidateState::Heard | CandidateState::Answered => 0,
        };
        let mut tokens = self.0.lock();
        tokens.take(reserve, now)
    }
}

/// The role of this end towards the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IceRole {
    /// A visitor has offered, and this end answers.
    Answers,
    /// A visitor has asked for an offer.
    Offers,
    /// This end connects to a client that its own user has named (tcpForwardHostPrefix).
    Dials,
}

impl IceRole {
    /// Whether this end sends its session description first.
    pub fn offers(self) -> bool {
        self != Self::Answers
    }
}

/// The checks of one peer.
#[derive(Debug)]
pub struct ConnectivityChecks {
    budget: Arc<CheckBudget>,
    role: IceRole,
    /// The addresses of this machine.
    own: Vec<IpAddr>,
    remotes: Vec<RemoteCandidate>,
    /// Outstanding checks: transaction and destination.
    outstanding: VecDeque<([u8; 12], SocketAddr)>,
    requests: Tokens,
    exchanges: Tokens,
    round: Option<Instant>,
}

#[derive(Debug)]
struct RemoteCandidate {
    addr: SocketAddr,
    state: CandidateState,
    /// Number of checks that were sent.
    sent: u8,
    /// When the next check may be sent; `None` for never.
    next: Option<Instant>,
}

/// The trust in an address of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CandidateState {
    /// The peer has named the address as its own.
    Named,
    /// A check with the right password came from the address; the source may be forged.
    Heard,
    /// The address has answered a check from this end.
    Answered,
}

/// A STUN message that ICE may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InboundCheck {
    /// A check from the peer.
    Request,
    /// The answer to the check with this transaction, from the address that it was sent to.
    Answer([u8; 12]),
    /// An indication, which gets no answer, from an address that has answered a check.
    Indication,
}

impl ConnectivityChecks {
    /// Creates the checks of a peer. `own` are the addresses of this machine.
    pub fn new(budget: Arc<CheckBudget>, role: IceRole, own: Vec<IpAddr>) -> Self {
        Self {
            budget,
            role,
            own,
            remotes: Vec::new(),
            outstanding: VecDeque::new(),
            requests: Tokens::new(MAX_REQUESTS, REQUEST_PAUSE),
            exchanges: Tokens::new(MAX_EXCHANGES, EXCHANGE_PAUSE),
            round: None,
        }
    }

    /// Whether the peer may have addresses exchanged once more.
    pub fn exchange(&mut self, now: Instant) -> bool {
        self.exchanges.take(0, now)
    }

    /// Returns the role of this end towards the peer.
    pub fn role(&self) -> IceRole {
        self.role
    }

    fn find(&mut self, addr: SocketAddr) -> Option<&mut RemoteCandidate> {
        self.remotes.iter_mut().find(|remote| remote.addr == addr)
    }

    /// Whether `addr` is one of the peer's.
    pub fn knows(&self, addr: SocketAddr) -> bool {
        self.remotes.iter().any(|remote| remote.addr == addr)
    }

    /// Whether `addr` has answered a check.
    pub fn has_answered(&self, addr: SocketAddr) -> bool {
        let is = |it: &RemoteCandidate| it.addr == addr && it.state == CandidateState::Answered;
        self.remotes.iter().any(is)
    }

    /// Whether a candidate that the peer names is to be checked.
    pub fn learn(&mut self, candidate: &Candidate, now: Instant) -> bool {
        let addr = candidate.addr();
        let is_named = |remote: &&RemoteCandidate| remote.state == CandidateState::Named;
        let named = || self.remotes.iter().filter(is_named);
        let of_host = || named().filter(|remote| remote.addr.ip() == addr.ip());
        let takes = candidate.network_type().is_udp()
            // rtc-ice 0.21 subtracts the component from 256 (RFC 8445, section 5.1.2.1).
            && (1..=256).contains(&candidate.component())
            && !matches!(addr.port(), 0 | MDNS_PORT)
            && self.is_target(addr)
            && !self.knows(addr)
            && self.remotes.len() < MAX_REMOTES
            && named().count() < MAX_NAMED
            && of_host().count() < MAX_NAMED_OF_HOST;
        if takes {
            self.remotes
                .push(RemoteCandidate::new(addr, CandidateState::Named, now));
        }
        takes
    }

    /// Whether a valid check has come from any address.
    pub fn have_heard(&self) -> bool {
        let mut remotes = self.remotes.iter();
        remotes.any(|remote| remote.state != CandidateState::Named)
    }

    /// Whether an address that only the peer has named may be checked (RFC 8445, sections 5.1.1.1
    /// and
    /// 19.5.1). A peer on this machine is checked after its own check has come: no datagram with
    /// such a source comes from elsewhere. The end that dials begins, since one of two ends on one
    /// machine has to, and its user has chosen the peer.
    fn is_target(&self, addr: SocketAddr) -> bool {
        let ip = addr.ip();
        let is_unicast = match ip {
            IpAddr::V4(v4) => {
                let first = v4.octets()[0];
                first != 0 && first < 224 && !v4.is_link_local()
            }
            IpAddr::V6(v6) => {
                !v6.is_unspecified() && !v6.is_multicast() && !v6.is_unicast_link_local()
            }
        };
        let is_own = ip.is_loopback() || self.own.contains(&ip);
        let own_is_fine = self.role == IceRole::Dials && addr.port() >= 1024;
        is_unicast && ip.to_canonical() == ip && (!is_own || own_is_fine)
    }

    /// Decides whether ICE may see a STUN message, and as what.
    pub fn admit(&mut self, from: SocketAddr, bytes: &[u8], now: Instant) -> Option<InboundCheck> {
        let (kind, transaction) = head(bytes)?;
        if from.port() == MDNS_PORT {
            return None;
        }
        match kind {
            REQUEST => {
                let has_room = self.remotes.len() < MAX_REMOTES || self.knows(from);
                (has_room && self.requests.take(0, now)).then_some(InboundCheck::Request)
            }
            SUCCESS => {
                let asked = self.outstanding.contains(&(transaction, from));
                asked.then_some(InboundCheck::Answer(transaction))
            }
            INDICATION => self.has_answered(from).then_some(InboundCheck::Indication),
            _ => None,
        }
    }

    /// Notes that ICE has accepted a message as the peer's.
    pub fn accept(&mut self, from: SocketAddr, message: InboundCheck, now: Instant) {
        match message {
            InboundCheck::Request => match self.find(from) {
                Some(remote) if remote.state == CandidateState::Named => {
                    (remote.state, remote.next) = (CandidateState::Heard, Some(now));
                }
                Some(_) => {}
                None => self
                    .remotes
                    .push(RemoteCandidate::new(from, CandidateState::Heard, now)),
            },
            InboundCheck::Answer(transaction) => {
                self.outstanding.retain(|(sent, _)| *sent != transaction);
                if let Some(remote) = self.find(from) {
                    (remote.state, remote.next) = (CandidateState::Answered, Some(now));
                }
            }
            InboundCheck::Indication => {}
        }
    }

    /// Whether a STUN message that ICE has written is sent.
    pub fn leaves(&mut self, to: SocketAddr, bytes: &[u8], now: Instant) -> bool {
        let Some((kind, transaction)) = head(bytes) else {
            return false;
        };
        if kind != REQUEST {
            // An answer to a check that was admitted.
            return true;
        }
        let budget = self.budget.clone();
        let Some(remote) = self.find(to) else {
            return false;
        };
        if remote.next.is_none_or(|next| next > now) {
            return false;
        }
        if remote.state != CandidateState::Answered && !budget.take(remote.state, now) {
            remote.next = Some(now + HEARD_PAUSE);
            return false;
        }
        remote.checked(now);
        if self.outstanding.len() >= MAX_OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back((transaction, to));
        true
    }

    /// Notes that ICE has written the checks of all addresses.
    pub fn round(&mut self, now: Instant) {
        self.round = Some(now);
    }

    /// Returns when ICE may write checks again; `None` for at once.
    pub fn next_round(&self) -> Option<Instant> {
        let last = self.round?;
        let [least, most] = ROUND_PAUSES;
        let count = u32::try_from(self.remotes.len()).unwrap_or(u32::MAX);
        let soonest = last + ROUND_PAUSE.saturating_mul(count).clamp(least, most);
        let mut due = last + IDLE_ROUND;
        for remote in &self.remotes {
            match (remote.state, remote.next) {
                // The address is to be nominated.
                (CandidateState::Answered, _) => due = due.min(last + most),
                (_, Some(next)) => due = due.min(next),
                (_, None) => {}
            }
        }
        Some(due.max(soonest))
    }
}

impl RemoteCandidate {
    fn new(addr: SocketAddr, state: CandidateState, now: Instant) -> Self {
        Self {
            addr,
            state,
            sent: 0,
            next: Some(now),
        }
    }

    /// Notes that a check was sent.
    fn checked(&mut self, now: Instant) {
        let before = usize::from(self.sent);
        self.sent = self.sent.saturating_add(1);
        let pause = match self.state {
            CandidateState::Named => PAUSES.get(before).copied(),
            CandidateState::Heard => (self.sent < HEARD_CHECKS).then_some(HEARD_PAUSE),
            CandidateState::Answered => Some(ANSWERED_PAUSE),
        };
        self.next = pause.map(|pause| now + pause);
    }
}

/// Returns the type of a STUN message and its transaction.
fn head(bytes: &[u8]) -> Option<(u16, [u8; 12])> {
    let kind = crate::wire::u16_at(bytes, 0)?;
    let transaction = bytes.get(8..20)?.try_into().ok()?;
    Some((kind, transaction))
}

#[cfg(test)]
mod tests;
