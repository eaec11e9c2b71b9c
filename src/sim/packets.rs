//! Pairs of packet sockets between two processes of one machine, which can carry descriptors.

use super::world::{Body, ObjectId, World};
use crate::net::runtime::readiness::{ENDED, READ, WRITE};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;

/// Number of packets that wait at most.
const MAX_PACKETS: usize = 32;

/// One end of a pair.
#[derive(Default)]
pub(super) struct PacketEnd {
    peer: Option<ObjectId>,
    /// Packets to read, each with the object of its descriptor.
    received: VecDeque<(Vec<u8>, Option<ObjectId>)>,
    /// Whether the other end sends no more.
    has_ended: bool,
    /// Whether a packet could not be sent to this end.
    is_full: bool,
}

impl PacketEnd {
    pub fn readiness(&self) -> u8 {
        match (self.received.is_empty(), self.has_ended) {
            (_, true) => READ | ENDED,
            (false, false) => READ,
            (true, false) => 0,
        }
    }
}

impl World {
    /// Creates a pair and opens a descriptor of each end.
    pub fn packet_pair(&mut self) -> io::Result<(u64, u64)> {
        self.may_open(2)?;
        let ends = [(); 2].map(|()| self.add_object(Body::Packets(PacketEnd::default())));
        let [one, other] = ends;
        for (end, peer) in [(one, other), (other, one)] {
            if let Some(end) = self.packet_end(end) {
                end.peer = Some(peer);
            }
        }
        Ok((self.open(one)?, self.open(other)?))
    }

    pub fn send_packet(&mut self, to: u64, packet: &[u8], carried: Option<u64>) -> io::Result<()> {
        self.running()?;
        let id = self.object_of(to)?;
        let carried = carried.map(|number| self.object_of(number)).transpose()?;
        let end = self.packet_end(id).ok_or(Errno::NOTSOCK)?;
        let peer = end.peer.ok_or(Errno::PIPE)?;
        let far = self.packet_end(peer).ok_or(Errno::PIPE)?;
        if far.has_ended {
            return Err(Errno::PIPE.into());
        }
        if far.received.len() >= MAX_PACKETS {
            far.is_full = true;
            return Err(Errno::AGAIN.into());
        }
        far.received.push_back((packet.to_vec(), carried));
        if let Some(object) = carried {
            self.hold(object);
        }
        self.wake(peer, READ);
        Ok(())
    }

    pub fn receive_packet(&mut self, from: u64) -> io::Result<(Vec<u8>, Option<u64>)> {
        self.running()?;
        let id = self.object_of(from)?;
        let end = self.packet_end(id).ok_or(Errno::NOTSOCK)?;
        let peer = end.peer;
        let Some((packet, carried)) = end.received.pop_front() else {
            return Err(match end.has_ended {
                true => io::ErrorKind::UnexpectedEof.into(),
                false => Errno::AGAIN.into(),
            });
        };
        if std::mem::take(&mut end.is_full) {
            if let Some(peer) = peer {
                self.wake(peer, WRITE);
            }
        }
        // A descriptor for which there is no room is lost, as in the kernel.
        let number = carried.and_then(|object| {
            let number = self.open(object);
            self.release(object);
            number.ok()
        });
        Ok((packet, number))
    }

    /// Sends no more packets.
    pub fn end_packets(&mut self, number: u64) -> io::Result<()> {
        let id = self.object_of(number)?;
        let peer = self.packet_end(id).ok_or(Errno::NOTSOCK)?.peer;
        self.end_at(peer);
        Ok(())
    }

    fn end_at(&mut self, peer: Option<ObjectId>) {
        let Some(peer) = peer else {
            return;
        };
        if let Some(far) = self.packet_end(peer) {
            far.has_ended = true;
        }
        self.wake(peer, READ | ENDED);
    }

    pub fn close_packets(&mut self, id: ObjectId) {
        let Some(end) = self.packet_end(id) else {
            return;
        };
        let (peer, received) = (end.peer.take(), std::mem::take(&mut end.received));
        self.end_at(peer);
        if let Some(peer) = peer {
            if let Some(far) = self.packet_end(peer) {
                far.peer = None;
            }
            self.wake(peer, READ | WRITE | ENDED);
        }
        for object in received.into_iter().filter_map(|(_, carried)| carried) {
            self.release(object);
        }
        self.remove_object(id);
    }
}
