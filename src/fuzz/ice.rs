//! A fuzz entry for the input of ICE: STUN messages of a P2P peer that knows the passwords, its
//! candidates, and DTLS from addresses that have answered a check and from others.

use super::dtls::IDENTITY;
use crate::client::p2p::checks::{ConnectivityChecks, IceRole, MAX_REMOTES};
use crate::client::p2p::identity::DtlsRole;
use crate::client::p2p::memory::MemoryShare;
use crate::client::p2p::peer::{Peer, PeerState};
use crate::client::p2p::sdp::{Description, LocalDescription};
use crate::net::clock;
use ring::hmac;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const UFRAG: &str = "theirs";
const PASSWORD: &str = "their-password-of-22-c";
/// STUN message types.
const REQUEST: u16 = 0x0001;
const SUCCESS: u16 = 0x0101;
/// The sources of datagrams.
const PLACES: [&str; 4] = [
    "192.0.2.7:7",
    "192.0.2.8:8",
    "[2001:db8::9]:9",
    "127.0.0.1:1010",
];

struct Probe {
    peer: Peer,
    now: Instant,
    ufrag: String,
    password: String,
    places: Vec<SocketAddr>,
    /// Checks that were received: transaction, and destination.
    checks: Vec<([u8; 12], SocketAddr)>,
    /// Addresses from which a check was answered.
    answered: Vec<SocketAddr>,
    sent: usize,
    received: usize,
}

impl Probe {
    fn new(role: IceRole) -> Self {
        let now = clock::now();
        let checks = ConnectivityChecks::new(Arc::default(), role, Vec::new());
        let memory = MemoryShare::new(Arc::default());
        let mut peer = Peer::new(&IDENTITY, checks, memory, now).expect("a peer");
        let own = |local: &LocalDescription<'_>| (local.ufrag.to_owned(), local.pwd.to_owned());
        let (ufrag, password) = peer.describe(&IDENTITY, own);
        let sdp = format!(
            "v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\n\
             a=ice-ufrag:{UFRAG}\r\na=ice-pwd:{PASSWORD}\r\na=setup:active\r\n\
             a=fingerprint:sha-256 {}\r\na=candidate:1 1 udp 9 192.0.2.7 7 typ host\r\n",
            IDENTITY.fingerprint
        );
        let theirs = Description::parse(&sdp).expect("a description");
        let connected = peer.connect(&IDENTITY, &theirs, DtlsRole::Server, now);
        connected.expect("a beginning");
        let places = PLACES.map(|place| place.parse().expect("an address"));
        let mut probe = Self {
            peer,
            now,
            ufrag,
            password,
            places: places.to_vec(),
            checks: Vec::new(),
            answered: Vec::new(),
            sent: 0,
            received: 0,
        };
        probe.pump();
        probe
    }

    fn pump(&mut self) {
        self.peer.pump(self.now);
        while let Some(datagram) = self.peer.out().pop_front() {
            self.sent += datagram.bytes.len();
            let bytes = &datagram.bytes;
            if bytes.starts_with(&REQUEST.to_be_bytes()) {
                let transaction = bytes[8..20].try_into().expect("a transaction");
                self.checks.push((transaction, datagram.to));
            }
        }
        assert!(self
            .peer
            .deadline()
            .is_none_or(|due| due > self.now - Duration::from_secs(60)));
    }

    fn receive(&mut self, from: SocketAddr, bytes: &[u8]) -> bool {
        self.received += bytes.len();
        let is_taken = self.peer.receive(from, bytes, self.now);
        self.pump();
        is_taken
    }
}

/// Builds a message with these attributes and MESSAGE-INTEGRITY.
fn message(kind: u16, transaction: [u8; 12], attributes: &[u8], password: &str) -> Vec<u8> {
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend(((attributes.len() + 24) as u16).to_be_bytes());
    bytes.extend(0x2112_A442_u32.to_be_bytes());
    bytes.extend(transaction);
    bytes.extend(attributes);
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    let tag = hmac::sign(&key, &bytes);
    bytes.extend([0, 8, 0, 20]);
    bytes.extend(tag.as_ref());
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend((value.len() as u16).to_be_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Plays a peer against ICE: the input is a script of steps, each a kind and a byte, most with as
/// many bytes behind them.
pub fn ice_stun(data: &[u8]) {
    for role in [IceRole::Answers, IceRole::Offers] {
        run(role, data);
    }
}

fn run(role: IceRole, data: &[u8]) {
    let mut probe = Probe::new(role);
    let mut rest = data;
    while let [kind, byte, after @ ..] = rest {
        let from = probe.places[usize::from(kind >> 6)];
        let (bytes, behind) = after.split_at(after.len().min(usize::from(*byte)));
        rest = behind;
        let transaction = [*byte; 12];
        match kind % 16 {
            // A check with the right name and password, and any other attributes.
            0..=3 => {
                let name = format!("{}:{UFRAG}", probe.ufrag);
                let mut attributes = attribute(0x0006, name.as_bytes());
                if kind & 1 == 0 {
                    attributes.extend(attribute(0x0024, &[1, 2, 3, 4]));
                    let role = if role.offers() { 0x8029 } else { 0x802A };
                    attributes.extend(attribute(role, &[9; 8]));
                }
                // Nominated (RFC 8445, section 7.1.2).
                if kind & 2 == 0 && !role.offers() {
                    attributes.extend(attribute(0x0025, &[]));
                }
                attributes.extend(bytes);
                let password = probe.password.clone();
                probe.receive(from, &message(REQUEST, transaction, &attributes, &password));
            }
            // The answer to a check, from where that went, with any attributes.
            4..=6 => {
                let at = usize::from(*byte) % probe.checks.len().max(1);
                let Some((transaction, to)) = probe.checks.get(at).copied() else {
                    continue;
                };
                let answer = message(SUCCESS, transaction, bytes, PASSWORD);
                if probe.receive(to, &answer) {
                    probe.answered.push(to);
                }
            }
            // An answer to no check, or from elsewhere.
            7 => {
                let sent = probe.checks.last().copied();
                let (transaction, to) = sent.unwrap_or((transaction, from));
                let answer = message(SUCCESS, transaction, bytes, PASSWORD);
                let is_taken = probe.receive(from, &answer);
                assert!(!is_taken || to == from);
                if is_taken {
                    probe.answered.push(from);
                }
            }
            // Any type of message, with either password.
            8 => {
                let (first, attributes) = bytes.split_first().unwrap_or((&0, &[]));
                let kind = u16::from_be_bytes([kind >> 4 & 1, *first]);
                let password = probe.password.clone();
                for password in [&*password, PASSWORD] {
                    probe.receive(from, &message(kind, transaction, attributes, password));
                }
            }
            // Any bytes, as STUN or as something else.
            9 | 10 => {
                if !matches!(bytes.first(), Some(20..=63)) {
                    probe.receive(from, bytes);
                }
            }
            // DTLS is accepted only from addresses that have answered a check.
            11 => {
                let record = [&[22, 0xFE, 0xFD][..], bytes].concat();
                let is_taken = probe.receive(from, &record);
                assert!(!is_taken || probe.answered.contains(&from));
            }
            12 => {
                let text = String::from_utf8_lossy(bytes);
                probe.peer.add_remote(&text, probe.now);
                probe.pump();
            }
            // Candidates of many addresses, all with the same priority.
            13 => {
                for port in 1..=u16::from(*byte) {
                    let kinds = ["host", "srflx raddr 0.0.0.0 rport 0", "relay", "prflx"];
                    let kind = kinds[usize::from(kind >> 4 & 3)];
                    let line = format!("1 1 udp 0 198.51.100.{} {port} typ {kind}", port % 50);
                    probe.peer.add_remote(&line, probe.now);
                }
                probe.pump();
            }
            _ => {
                rest = after;
                probe.now += Duration::from_millis(u64::from(*byte) * 10);
                probe.pump();
            }
        }
        let mut to: Vec<SocketAddr> = probe.checks.iter().map(|(_, to)| *to).collect();
        to.sort();
        to.dedup();
        assert!(to.len() <= MAX_REMOTES);
        if matches!(probe.peer.state(), PeerState::Over(_)) {
            return;
        }
    }
}
