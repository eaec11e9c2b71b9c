//! The flows of a peer: channels whose datagrams travel beside them, unordered, and are not repeated: as application data
//! of DTLS, or as datagrams of QUIC.

use super::{Peer, PeerState, Transport, SOMEWHERE};
use crate::client::p2p::pieces::{split, Assembler, Piece, MAX_PIECE};
use crate::net::DatagramQueue;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// Maximum number of packets that wait for the socket, before datagrams are dropped.
const MAX_WAITING: usize = 512;
/// Maximum bytes of received datagrams of all flows of the process that wait for their readers.
const MAX_QUEUED: usize = 8 * 1024 * 1024;

/// Bytes of received datagrams of all flows of the process that wait.
static QUEUED: AtomicUsize = AtomicUsize::new(0);

/// The datagrams of a channel.
pub(super) struct PeerFlow {
    /// The number of the channel's stream, which is the same at both ends.
    number: u16,
    assembler: Assembler,
    queue: DatagramQueue,
    reader: Option<Waker>,
    /// The number of the next datagram to send.
    next: u16,
}

impl Drop for PeerFlow {
    fn drop(&mut self) {
        QUEUED.fetch_sub(self.queue.len(), Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Peer {
    /// Takes datagrams of a channel from now on. False if the channel has ended.
    pub fn begin_flow(&mut self, id: u16) -> bool {
        let number = match &self.transport {
            // Both ends know a channel by its stream.
            Transport::Sctp => Some(id),
            Transport::Quic(quic) => quic.number_of(id),
        };
        let Some(number) = number else {
            return false;
        };
        let flow = PeerFlow {
            number,
            assembler: Assembler::default(),
            queue: DatagramQueue::default(),
            reader: None,
            next: 0,
        };
        self.flows.insert(id, flow);
        true
    }

    /// Takes no more datagrams of a channel.
    pub fn end_flow(&mut self, id: u16) {
        self.flows.remove(&id);
    }

    /// Processes a packet with a piece of a datagram.
    pub(super) fn receive_piece(&mut self, packet: &[u8], now: Instant) {
        let Some(piece) = Piece::parse(packet) else {
            return;
        };
        let mut flows = self.flows.values_mut();
        let Some(flow) = flows.find(|flow| flow.number == piece.flow) else {
            return;
        };
        let PeerFlow {
            assembler, queue, ..
        } = flow;
        let before = queue.len();
        assembler.add(&piece, now, |datagram| {
            let queued = QUEUED.load(Ordering::Relaxed);
            if queued.saturating_add(datagram.len()) <= MAX_QUEUED {
                queue.push(datagram);
            }
        });
        QUEUED.fetch_add(queue.len() - before, Ordering::Relaxed);
        if before == 0 && !queue.is_empty() {
            if let Some(reader) = flow.reader.take() {
                reader.wake();
            }
        }
    }

    /// Drops datagrams whose pieces have not come in time.
    pub(super) fn expire_pieces(&mut self, now: Instant) {
        for flow in self.flows.values_mut() {
            flow.assembler.expire(now);
        }
    }

    /// Sends a datagram, or drops it if too many wait. False if it was dropped.
    pub fn send_datagram(&mut self, id: u16, datagram: &[u8], now: Instant) -> bool {
        let Some(flow) = self.flows.get_mut(&id) else {
            return false;
        };
        if self.state != PeerState::Connected || self.out.len() >= MAX_WAITING {
            return false;
        }
        let number = (flow.number, flow.next);
        flow.next = flow.next.wrapping_add(1);
        match (&mut self.transport, &mut self.dtls) {
            (Transport::Quic(quic), _) => {
                let most = quic.max_piece();
                split(number, datagram, most, |packet| quic.send_datagram(packet))
            }
            (Transport::Sctp, Some(dtls)) => split(number, datagram, MAX_PIECE, |packet| {
                dtls.write(now, SOMEWHERE, packet).is_ok()
            }),
            (Transport::Sctp, None) => false,
        }
    }

    /// Reads records of received datagrams; 0 if the channel is not a flow any more.
    pub fn poll_datagrams(&mut self, id: u16, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<usize> {
        let Some(flow) = self.flows.get_mut(&id) else {
            return Poll::Ready(0);
        };
        match flow.queue.take(buf) {
            0 => {
                flow.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            n => {
                QUEUED.fetch_sub(n, Ordering::Relaxed);
                Poll::Ready(n)
            }
        }
    }
}
