//! The stub of `quic` in builds without QUIC. `config` refuses addresses of servers over QUIC and reports that
//! the listener is missing.

use crate::keys::Binding;
use crate::net::Delivery;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

/// The stream of a connection of QUIC, which this build does not have.
#[derive(Debug)]
pub enum QuicStream {}

impl QuicStream {
    pub fn poll_read(&self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
        match *self {}
    }

    pub fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {}
    }

    pub fn poll_write(&self, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        match *self {}
    }

    pub fn finish(&self) -> io::Result<()> {
        match *self {}
    }

    pub fn reset_on_close(&self, _: bool) {
        match *self {}
    }

    pub fn cut(&self) {
        match *self {}
    }

    pub fn limit_unsent(&self, _: u32) {
        match *self {}
    }

    pub fn has_failed(&self) -> bool {
        match *self {}
    }

    pub fn delivery(&self) -> Option<Delivery> {
        match *self {}
    }

    pub fn probe(&self, _: bool) {
        match *self {}
    }

    pub fn binding(&self) -> Option<Binding> {
        match *self {}
    }

    #[cfg(feature = "server")]
    pub fn congestion(&self) -> Option<String> {
        match *self {}
    }

    #[cfg(feature = "web")]
    pub fn loss_per_mille(&self) -> u64 {
        match *self {}
    }

    pub fn local_addr(&self) -> SocketAddr {
        match *self {}
    }

    pub fn peer_addr(&self) -> SocketAddr {
        match *self {}
    }
}
