//! The guard in front of ICE: which connectivity checks leave, to where and how often, and which
//! STUN messages come in. rtc-ice trusts its peer: every source of a valid check becomes a
//! candidate, every candidate is checked five times a second, and nothing limits their number
//! (webrtc-rs/rtc, crate rtc-ice 0.21). A visitor must not be able to aim that at others.

use crate::sync::Mutex;
use rtc_ice::candidate::Candidate;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Addresses of a peer, named or heard from, that it may have in all.
pub const REMOTES: usize = 32;
/// Addresses that the peer may name. The rest is for those that checks come from.
const NAMED: usize = 24;
/// The port of multicast DNS: rtc-ice 0.21 takes what comes from there without asking for the password.
const MDNS: u16 = 5353;
/// Ports of one address that the peer may name, so that one host is not many targets.
const NAMED_OF_HOST: usize = 8;
/// Pauses between the checks of an address that does not answer; it gets one check more than
/// there are pauses, within 8 s.
const PAUSES: [Duration; 7] = [
    Duration::from_millis(200),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1600),
    Duration::from_millis(2400),
    Duration::from_millis(2400),
];
/// Checks of an address that has sent a valid check itself, and has not answered ours.
const HEARD_CHECKS: u8 = 20;
/// Pause between two checks of an address that was heard or has answered.
const HEARD_PAUSE: Duration = Duration::from_millis(100);
const ANSWERED_PAUSE: Duration = Duration::from_millis(50);
/// Pause between two rounds of checks, for each address in them. With the bounds, a peer costs
/// 160 checks to compute a second at most.
const ROUND_PAUSE: Duration = Duration::from_millis(10);
const ROUND_PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(200)];
/// Pause between two rounds that have nothing to check: ICE sees there how time passes.
const IDLE_ROUND: Duration = Duration::from_secs(1);
/// Checks whose answers are recognised; older ones are forgotten.
const OUTSTANDING: usize = 256;
/// Checks of the peer that are taken at once, and how often one more is.
const REQUESTS: u32 = 64;
const REQUEST_PAUSE: Duration = Duration::from_millis(20);
/// Checks of all peers to addresses that have not answered: at once, and how often one more. The
/// second half of them is for addresses that have sent a valid check, which takes more than a
/// visitor's word.
const BUDGET: u32 = 200;
const RESERVE: u32 = 100;
const BUDGET_PAUSE: Duration = Duration::from_millis(20);

/// Types of STUN messages (RFC 8489, section 5) with the method Binding.
const REQUEST: u16 = 0x0001;
const INDICATION: u16 = 0x0011;
const SUCCESS: u16 = 0x0101;

/// A number of events that may happen at once and refills with time.
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

    /// Takes one if more than `reserve` are left.
    fn take(&mut self, reserve: u32, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let pause = self.pause.as_millis().max(1);
        let earned = now.saturating_duration_since(since).as_millis() / pause;
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(self.most);
            // What is not a whole pause counts the next time, except when it is full.
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

/// The checks to addresses that have not answered, which all peers of the process share.
#[derive(Debug)]
pub struct CheckBudget(Mutex<Tokens>);

impl Default for CheckBudget {
    fn default() -> Self {
        Self(Mutex::new(Tokens::new(BUDGET, BUDGET_PAUSE)))
    }
}

impl CheckBudget {
    fn take(&self, standing: CandidateState, now: Instant) -> bool {
        let reserve = match standing {
            CandidateState::Named => RESERVE,
            CandidateState::Heard | CandidateState::Answered => 0,
        };
        let mut tokens = self.0.lock();
        tokens.take(reserve, now)
    }
}

/// What this end is to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IceRole {
    /// A visitor has offered, and this end answers.
    Answers,
    /// A visitor has asked for an offer.
    Offers,
    /// This end looks for a client that its own user has named (tcpForwardHostPrefix).
    Dials,
}

impl IceRole {
    /// Whether the session description of this end comes first.
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
    /// Checks on their way: their transactions, and where to.
    outstanding: VecDeque<([u8; 12], SocketAddr)>,
    requests: Tokens,
    round: Option<Instant>,
}

#[derive(Debug)]
struct RemoteCandidate {
    addr: SocketAddr,
    standing: CandidateState,
    /// Checks that have left.
    sent: u8,
    /// When the next one may; `None` is never.
    next: Option<Instant>,
}

/// How far an address of a peer is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CandidateState {
    /// The peer says that it is its own.
    Named,
    /// A check with the right password came from it; the source may be forged.
    Heard,
    /// It has answered a check of ours.
    Answered,
}

/// A STUN message that ICE may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InboundCheck {
    /// A check of the peer.
    Request,
    /// The answer to a check of ours that went to where it comes from.
    Answer([u8; 12]),
    Indication,
}

impl ConnectivityChecks {
    /// `own` are the addresses of this machine.
    pub fn new(budget: Arc<CheckBudget>, role: IceRole, own: Vec<IpAddr>) -> Self {
        Self {
            budget,
            role,
            own,
            remotes: Vec::new(),
            outstanding: VecDeque::new(),
            requests: Tokens::new(REQUESTS, REQUEST_PAUSE),
            round: None,
        }
    }

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
        let is = |it: &RemoteCandidate| it.addr == addr && it.standing == CandidateState::Answered;
        self.remotes.iter().any(is)
    }

    /// Whether a candidate that the peer names is to be checked.
    pub fn learn(&mut self, candidate: &Candidate, now: Instant) -> bool {
        let addr = candidate.addr();
        let is_named = |remote: &&RemoteCandidate| remote.standing == CandidateState::Named;
        let named = || self.remotes.iter().filter(is_named);
        let of_host = || named().filter(|remote| remote.addr.ip() == addr.ip());
        let takes = candidate.network_type().is_udp()
            // rtc-ice 0.21 subtracts the component from 256 (RFC 8445, section 5.1.2.1).
            && (1..=256).contains(&candidate.component())
            && !matches!(addr.port(), 0 | MDNS)
            && self.is_target(addr)
            && !self.knows(addr)
            && self.remotes.len() < REMOTES
            && named().count() < NAMED
            && of_host().count() < NAMED_OF_HOST;
        if takes {
            self.remotes
                .push(RemoteCandidate::new(addr, CandidateState::Named, now));
        }
        takes
    }

    /// Whether an address may be checked that nothing but the peer's word speaks for (RFC 8445,
    /// sections 5.1.1.1 and 19.5.1). A peer on this machine is checked when its own check has
    /// come: no datagram with such a source comes from elsewhere. The end that dials begins,
    /// since one of two ends on one machine has to, and its user has chosen the peer.
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

    /// Whether ICE may see a STUN message, and as what.
    pub fn admit(&mut self, from: SocketAddr, bytes: &[u8], now: Instant) -> Option<InboundCheck> {
        let (kind, transaction) = head(bytes)?;
        if from.port() == MDNS {
            return None;
        }
        match kind {
            REQUEST => {
                let has_room = self.remotes.len() < REMOTES || self.knows(from);
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

    /// ICE has found that a message is the peer's.
    pub fn accept(&mut self, from: SocketAddr, message: InboundCheck, now: Instant) {
        match message {
            InboundCheck::Request => match self.find(from) {
                Some(remote) if remote.standing == CandidateState::Named => {
                    (remote.standing, remote.next) = (CandidateState::Heard, Some(now));
                }
                Some(_) => {}
                None => self
                    .remotes
                    .push(RemoteCandidate::new(from, CandidateState::Heard, now)),
            },
            InboundCheck::Answer(transaction) => {
                self.outstanding.retain(|(sent, _)| *sent != transaction);
                if let Some(remote) = self.find(from) {
                    (remote.standing, remote.next) = (CandidateState::Answered, Some(now));
                }
            }
            InboundCheck::Indication => {}
        }
    }

    /// Whether a STUN message that ICE has written leaves.
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
        if remote.standing != CandidateState::Answered && !budget.take(remote.standing, now) {
            remote.next = Some(now + HEARD_PAUSE);
            return false;
        }
        remote.checked(now);
        if self.outstanding.len() >= OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back((transaction, to));
        true
    }

    /// ICE has written the checks of all addresses.
    pub fn round(&mut self, now: Instant) {
        self.round = Some(now);
    }

    /// When ICE may write checks again; `None` is at once.
    pub fn next_round(&self) -> Option<Instant> {
        let last = self.round?;
        let [least, most] = ROUND_PAUSES;
        let count = u32::try_from(self.remotes.len()).unwrap_or(u32::MAX);
        let soonest = last + ROUND_PAUSE.saturating_mul(count).clamp(least, most);
        let mut due = last + IDLE_ROUND;
        for remote in &self.remotes {
            match (remote.standing, remote.next) {
                // It is to be nominated.
                (CandidateState::Answered, _) => due = due.min(last + most),
                (_, Some(next)) => due = due.min(next),
                (_, None) => {}
            }
        }
        Some(due.max(soonest))
    }
}

impl RemoteCandidate {
    fn new(addr: SocketAddr, standing: CandidateState, now: Instant) -> Self {
        Self {
            addr,
            standing,
            sent: 0,
            next: Some(now),
        }
    }

    /// A check has left.
    fn checked(&mut self, now: Instant) {
        let before = usize::from(self.sent);
        self.sent = self.sent.saturating_add(1);
        let pause = match self.standing {
            CandidateState::Named => PAUSES.get(before).copied(),
            CandidateState::Heard => (self.sent < HEARD_CHECKS).then_some(HEARD_PAUSE),
            CandidateState::Answered => Some(ANSWERED_PAUSE),
        };
        self.next = pause.map(|pause| now + pause);
    }
}

/// The type of a STUN message and its transaction.
fn head(bytes: &[u8]) -> Option<(u16, [u8; 12])> {
    let kind = crate::wire::u16_at(bytes, 0)?;
    let transaction = bytes.get(8..20)?.try_into().ok()?;
    Some((kind, transaction))
}

#[cfg(test)]
mod tests;
