//! What is known of a peer's path: the kind of its address, its round-trip time and its loss.

use super::{Peer, Transport};
use crate::client::p2p::resets::{chunks, DATA};
use crate::client::p2p::MAPPED;
use crate::wire::u32_at;
use rtc_ice::candidate::CandidateType;
use std::fmt;
use std::time::Duration;

/// Number of sent chunks after which older ones count half.
const LOSS_SPAN: u32 = 1024;

/// The way to a peer: the kind of its address on the path that ICE has selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerWay {
    /// An address of the machine itself.
    Host,
    /// An address of a NAT, as a STUN server has seen it.
    ServerReflexive,
    /// An address that checks have come from.
    PeerReflexive,
    /// A port of a router, mapped at the peer's request.
    Mapped,
    /// An address of a TURN server.
    Relay,
}

impl fmt::Display for PeerWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::ServerReflexive => "srflx",
            Self::PeerReflexive => "prflx",
            Self::Mapped => "mapped",
            Self::Relay => "relay",
        })
    }
}

/// The path to a connected peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerPath {
    /// The kind of the peer's address.
    pub way: PeerWay,
    /// The protocol that carries the channels.
    pub over: &'static str,
    /// The round-trip time, as that protocol has measured it; zero before the first measurement.
    pub round_trip: Duration,
    /// The share of recent data that was sent again, in thousandths.
    pub loss: u32,
}

impl fmt::Display for PeerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            way,
            over,
            round_trip,
            loss,
        } = self;
        let (percent, tenths) = (loss / 10, loss % 10);
        let rtt = round_trip.as_millis();
        write!(
            f,
            "way={way} over={over} rtt={rtt}ms loss={percent}.{tenths}%"
        )
    }
}

/// Counts the data that SCTP sends, and how much of it was sent before.
#[derive(Debug, Default)]
pub(super) struct LossMeter {
    /// The highest number of a sent chunk.
    highest: Option<u32>,
    sent: u32,
    repeated: u32,
}

impl LossMeter {
    /// Notes a packet that SCTP sends.
    pub(super) fn sent(&mut self, packet: &[u8]) {
        for chunk in chunks(packet).filter(|chunk| chunk.kind == DATA) {
            let Some(number) = u32_at(chunk.value, 0) else {
                continue;
            };
            if self.sent >= LOSS_SPAN {
                (self.sent, self.repeated) = (self.sent / 2, self.repeated / 2);
            }
            self.sent += 1;
            match self.highest {
                // Numbers begin again after the last one.
                Some(highest) if number.wrapping_sub(highest).wrapping_sub(1) > u32::MAX / 2 => {
                    self.repeated += 1;
                }
                _ => self.highest = Some(number),
            }
        }
    }

    /// Returns the share of repeated chunks in thousandths.
    pub(super) fn per_mille(&self) -> u32 {
        self.repeated * 1000 / self.sent.max(1)
    }
}

impl Peer {
    /// Returns the kind of the peer's address; `None` if ICE has selected no path.
    pub fn way(&self) -> Option<PeerWay> {
        let remote = match self.is_quic() {
            // Its path may change later.
            true => {
                let mut remotes = self.agent.get_remote_candidates().iter();
                let path = self.path?;
                let Some(remote) = remotes.find(|it| it.addr() == path) else {
                    return Some(PeerWay::PeerReflexive);
                };
                remote
            }
            false => self.agent.get_selected_candidate_pair()?.1,
        };
        Some(match remote.candidate_type() {
            CandidateType::PeerReflexive => PeerWay::PeerReflexive,
            CandidateType::Relay => PeerWay::Relay,
            _ if remote.foundation().starts_with(MAPPED) => PeerWay::Mapped,
            CandidateType::ServerReflexive => PeerWay::ServerReflexive,
            _ => PeerWay::Host,
        })
    }

    /// Returns the protocol that carries the channels.
    pub fn over(&self) -> &'static str {
        match self.transport {
            Transport::Sctp => "SCTP",
            Transport::Quic(_) => "QUIC",
        }
    }

    /// Returns the path to the peer; `None` if ICE has selected none.
    pub fn path(&self) -> Option<PeerPath> {
        let (round_trip, loss) = match &self.transport {
            Transport::Quic(quic) => quic.measured(),
            Transport::Sctp => {
                let (_, association) = self.association.as_ref()?;
                (association.rtt(), self.losses.per_mille())
            }
        };
        Some(PeerPath {
            way: self.way()?,
            over: self.over(),
            round_trip,
            loss,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet with a DATA chunk of each of these numbers.
    fn packet(numbers: &[u32]) -> Vec<u8> {
        let mut packet = vec![0; 12];
        for number in numbers {
            packet.extend([DATA, 3, 0, 20]);
            packet.extend(number.to_be_bytes());
            packet.extend([0; 12]);
        }
        packet
    }

    #[test]
    fn data_that_is_sent_again_is_lost_data() {
        let mut meter = LossMeter::default();
        assert_eq!(meter.per_mille(), 0);
        meter.sent(&packet(&[u32::MAX - 1, u32::MAX, 0, 1]));
        assert_eq!(meter.per_mille(), 0, "numbers begin again");
        meter.sent(&packet(&[u32::MAX]));
        assert_eq!(meter.per_mille(), 200);
        for number in 2..10_000 {
            meter.sent(&packet(&[number]));
        }
        assert_eq!(meter.per_mille(), 0, "it was long ago");
        assert!(meter.sent <= LOSS_SPAN);
    }

    #[test]
    fn a_path_is_shown_with_its_way_its_round_trip_and_its_loss() {
        let path = PeerPath {
            way: PeerWay::ServerReflexive,
            over: "QUIC",
            round_trip: Duration::from_millis(12),
            loss: 15,
        };
        assert_eq!(path.to_string(), "way=srflx over=QUIC rtt=12ms loss=1.5%");
    }
}
