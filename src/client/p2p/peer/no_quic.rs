//! The stub of `quic` in builds without QUIC: peers use DTLS and SCTP.

use super::binding::EXPORTED;
use super::{OpenedChannel, Peer};
use crate::client::p2p::identity::{DtlsRole, Identity};
use crate::client::p2p::memory::MemoryShare;
use crate::client::p2p::P2pError;
use bytes::Bytes;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Whether this build has QUIC between peers.
pub const IS_THERE: bool = false;

/// A connection with a peer, of which there is none.
pub(super) struct QuicTransport(Infallible);

impl QuicTransport {
    pub(super) fn new(_: &Identity, _: DtlsRole, _: &str, _: Instant) -> Result<Self, P2pError> {
        Err(P2pError::new(
            "a QUIC connection",
            "this gt was built without QUIC",
        ))
    }

    pub(super) fn deadline(&mut self, _: Option<Instant>) -> Option<Instant> {
        match self.0 {}
    }

    pub(super) fn close(&mut self, _: Instant) {
        match self.0 {}
    }

    pub(super) fn export(&self, _: &str) -> Option<[u8; EXPORTED]> {
        match self.0 {}
    }

    pub(super) fn measured(&self) -> (Duration, u32) {
        match self.0 {}
    }

    pub(super) fn number_of(&self, _: u16) -> Option<u16> {
        match self.0 {}
    }

    pub(super) fn max_piece(&mut self) -> usize {
        match self.0 {}
    }

    pub(super) fn send_datagram(&mut self, _: &[u8]) -> bool {
        match self.0 {}
    }

    pub(super) fn opened(&mut self) -> Option<OpenedChannel> {
        match self.0 {}
    }

    pub(super) fn channels(&self) -> usize {
        match self.0 {}
    }

    pub(super) fn open(&mut self, _: &str, _: Instant) -> Option<u16> {
        match self.0 {}
    }

    pub(super) fn refuse_channels(&mut self) {
        match self.0 {}
    }

    pub(super) fn shed(&mut self, _: &MemoryShare) {
        match self.0 {}
    }

    pub(super) fn end_idle(&mut self, _: &MemoryShare, _: Instant) {
        match self.0 {}
    }

    pub(super) fn abort(&mut self, _: u16, _: &MemoryShare) {
        match self.0 {}
    }

    pub(super) fn limit_idle(&mut self, _: u16, _: Option<Duration>, _: Instant) {
        match self.0 {}
    }

    pub(super) fn idle_limit(&self, _: u16) -> Option<Duration> {
        match self.0 {}
    }

    pub(super) fn goes_on(&mut self, _: u16, _: Instant) {
        match self.0 {}
    }

    pub(super) fn has_ended(&self, _: u16) -> bool {
        match self.0 {}
    }

    pub(super) fn is_drained(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn poll_read(
        &mut self,
        _: u16,
        _: &MemoryShare,
        _: &mut Context<'_>,
        _: Instant,
    ) -> Poll<Option<Bytes>> {
        match self.0 {}
    }

    pub(super) fn poll_read_to(
        &mut self,
        _: u16,
        _: &MemoryShare,
        _: &mut Context<'_>,
        _: &mut [u8],
        _: Instant,
    ) -> Poll<usize> {
        match self.0 {}
    }

    pub(super) fn poll_answered(&mut self, _: u16, _: &mut Context<'_>) -> Poll<bool> {
        match self.0 {}
    }

    pub(super) fn poll_cut(&mut self, _: u16, _: &mut Context<'_>) -> Poll<()> {
        match self.0 {}
    }

    pub(super) fn is_cut(&self, _: u16) -> bool {
        match self.0 {}
    }

    pub(super) fn unread(&mut self, _: u16, _: Bytes) {
        match self.0 {}
    }

    pub(super) fn poll_room(&mut self, _: u16, _: &mut Context<'_>) -> Poll<Option<usize>> {
        match self.0 {}
    }

    pub(super) fn write(&mut self, _: u16, _: Bytes, _: Instant) -> bool {
        match self.0 {}
    }

    pub(super) fn finish(&mut self, _: u16) {
        match self.0 {}
    }

    pub(super) fn poll_delivered(&mut self, _: u16, _: &mut Context<'_>) -> Poll<()> {
        match self.0 {}
    }

    pub(super) fn drop_channel(&mut self, _: u16, _: &MemoryShare) {
        match self.0 {}
    }

    pub(super) fn end(&mut self, _: &MemoryShare) {
        match self.0 {}
    }
}

impl Peer {
    pub(super) fn receive_quic(&mut self, _: SocketAddr, _: &[u8], _: Instant) -> bool {
        false
    }

    pub(super) fn pump_quic(&mut self, _: Instant) {}

    pub(super) fn send_quic(&mut self, _: Instant) {}

    pub(super) fn watches_path(&self) -> bool {
        false
    }

    pub(super) fn take_first_path(&mut self, _: SocketAddr, _: Instant) {}

    pub(super) fn take_selected_path(&mut self, _: SocketAddr, _: Instant) {}

    pub(super) fn receive_own_stun(&mut self, _: SocketAddr, _: &[u8], _: Instant) -> bool {
        false
    }

    pub(super) fn has_lost_path(&self, _: Instant) -> bool {
        false
    }

    pub(super) fn check_named(&mut self, _: SocketAddr, _: Instant) {}

    pub(super) fn watch_deadline(&self) -> Option<Instant> {
        None
    }
}
