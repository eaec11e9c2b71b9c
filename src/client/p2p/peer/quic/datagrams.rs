//! The datagrams of a connection (RFC 9221), which carry those of flows.

use super::QuicTransport;
use crate::client::p2p::peer::Peer;
use crate::client::p2p::pieces::HEADER;
use bytes::Bytes;
use quinn_proto::Side;
use std::time::Instant;

impl QuicTransport {
    /// Returns the number by which both ends know a channel that is a flow: that of its stream, whose last bit tells
    /// the end that has opened it.
    pub(in super::super) fn number_of(&self, id: u16) -> Option<u16> {
        let stream = self.channels.get(&id)?.stream;
        let index = u16::try_from(stream.index() % (1 << 15)).ok()?;
        Some(index << 1 | u16::from(stream.initiator() == Side::Server))
    }

    /// Returns the next datagram that has come.
    fn datagram(&mut self) -> Option<Bytes> {
        self.phase.connection()?.datagrams().recv()
    }

    /// Returns the maximum length of a piece that fits a datagram.
    pub(in super::super) fn max_piece(&mut self) -> usize {
        let connection = self.phase.connection();
        let most = connection.and_then(|it| it.datagrams().max_size());
        most.unwrap_or(0).saturating_sub(HEADER)
    }

    /// Sends a datagram. False if too many wait.
    pub(in super::super) fn send_datagram(&mut self, packet: &[u8]) -> bool {
        let Some(connection) = self.phase.connection() else {
            return false;
        };
        let packet = Bytes::copy_from_slice(packet);
        connection.datagrams().send(packet, false).is_ok()
    }
}

impl Peer {
    /// Processes the datagrams that QUIC has received.
    pub(super) fn receive_quic_datagrams(&mut self, now: Instant) {
        while let Some(packet) = self.transport.quic().and_then(|quic| quic.datagram()) {
            self.receive_piece(&packet, now);
        }
    }
}
