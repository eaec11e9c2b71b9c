//! The stub of `quic_carrier` in builds without QUIC: all streams of a tunnel are in one connection's bytes.

use super::stream_state::StreamState;
use super::tunnel_state::TunnelState;
use super::{PeerRole, Stream, Tunnel};
use crate::net::clock::Tick;
use crate::net::Conn;
use crate::wire::frame::{Header, ServiceIndex, Signal, StreamId};
use crate::wire::Malformed;
use std::io;
use std::task::{Context, Poll};

/// The carrier of a tunnel's streams, which no tunnel of this build has.
pub(super) enum QuicCarrier {}

/// The lane of a stream, which no stream of this build has.
pub(super) enum Lane {}

impl Lane {
    #[cfg(feature = "server")]
    pub fn carry_datagrams(&mut self) {
        match *self {}
    }
}

/// What reading the lanes has brought: nothing.
#[derive(Default)]
pub(super) struct LaneProgress {
    pub opened: Vec<OpenedStream>,
    pub bytes: usize,
    pub any: bool,
}

/// A stream that the peer has opened.
pub(super) struct OpenedStream {
    pub stream: Stream,
    pub service: ServiceIndex,
    pub is_of_previous: bool,
}

impl QuicCarrier {
    pub fn of(_: &Conn, _: PeerRole) -> Option<Box<Self>> {
        None
    }

    pub fn lane(&self) -> Box<Lane> {
        match *self {}
    }

    pub fn told(&mut self, _: u32) {
        match *self {}
    }
}

impl TunnelState {
    pub fn announce_lane(&mut self, _: StreamId) {}

    pub fn finish_lane(&mut self, _: StreamId) {}

    pub fn end_lane(&mut self, _: StreamId, _: &mut StreamState) {}

    pub fn cut_lanes(&mut self) {}

    pub fn note_registration(&mut self, _: Signal) {}

    pub fn streams_opened(&mut self) -> Option<Header> {
        None
    }

    pub fn streamless_lanes(&self) -> usize {
        0
    }

    pub fn outlives_peer(&mut self) -> bool {
        false
    }

    pub fn all_sent(&mut self) {
        self.end(true);
    }

    pub fn end_if_due(&mut self) {}

    pub fn is_blocked(&self) -> bool {
        false
    }

    pub fn sweep_lanes(&mut self, _: Tick) {}

    pub fn poll_fill_lane(
        &mut self,
        _: StreamId,
        _: &mut Context<'_>,
        _: impl FnOnce(&mut Context<'_>, &mut [u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
    }
}

impl Tunnel {
    pub(super) fn early_streams(&self) -> Result<Vec<OpenedStream>, Malformed> {
        Ok(Vec::new())
    }

    pub(super) fn poll_lanes(
        &self,
        _: &mut Context<'_>,
        _: usize,
        _: Tick,
    ) -> io::Result<LaneProgress> {
        Ok(LaneProgress::default())
    }
}
