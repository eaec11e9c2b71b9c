//! Fuzz entries: parsers of untrusted bytes with the properties that must hold for any input. Only for
//! tests and the targets in `tests/fuzz` (docs/fuzzing.md); installed programs do not contain them.
//!
//! An entry takes any bytes and panics if a property is violated. Most check that the result of a
//! reader does not depend on how its bytes are cut.

#[cfg(all(feature = "acme", not(feature = "sim")))]
mod acme;
#[cfg(feature = "client")]
mod client;
mod config;
#[cfg(all(feature = "client", feature = "p2p"))]
mod dtls;
#[cfg(all(feature = "client", feature = "p2p"))]
mod ice;
#[cfg(feature = "import")]
mod import;
mod net;
#[cfg(all(feature = "client", feature = "outbound"))]
mod outbound;
#[cfg(all(feature = "client", feature = "p2p"))]
mod p2p;
#[cfg(all(feature = "client", feature = "password"))]
mod password;
#[cfg(all(
    feature = "client",
    feature = "p2p",
    feature = "quic",
    not(feature = "sim")
))]
mod peer_quic;
#[cfg(all(feature = "client", feature = "p2p"))]
mod pieces;
#[cfg(feature = "portmap")]
mod portmap;
#[cfg(all(feature = "client", feature = "proxy"))]
mod proxy;
#[cfg(all(
    feature = "server",
    feature = "client",
    feature = "quic",
    not(feature = "sim")
))]
mod quic;
#[cfg(all(feature = "client", feature = "p2p"))]
mod sctp;
#[cfg(feature = "server")]
mod server;
#[cfg(all(feature = "server", feature = "p2p"))]
mod stun;
#[cfg(test)]
mod tests;
mod trust;
#[cfg(feature = "web")]
mod web;
#[cfg(feature = "ws")]
mod websocket;
mod wire;

#[cfg(all(feature = "acme", not(feature = "sim")))]
pub use acme::acme_answers;
#[cfg(feature = "client")]
pub use client::{files, health_status, locals, visitor_fields};
pub use config::{flags, urls, yaml};
#[cfg(all(feature = "client", feature = "p2p"))]
pub use dtls::{dtls_records, handshake_fragments};
#[cfg(all(feature = "client", feature = "p2p"))]
pub use ice::ice_stun;
#[cfg(feature = "import")]
pub use import::import_files;
pub use net::{datagrams, http_answer, http_requests};
#[cfg(all(feature = "client", feature = "outbound"))]
pub use outbound::{outbound_options, proxy_answers};
#[cfg(all(feature = "client", feature = "p2p"))]
pub use p2p::{resets, signaling};
#[cfg(all(feature = "client", feature = "password"))]
pub use password::passwords;
#[cfg(all(
    feature = "client",
    feature = "p2p",
    feature = "quic",
    not(feature = "sim")
))]
pub use peer_quic::{peer_packets, stream_header};
#[cfg(all(feature = "client", feature = "p2p"))]
pub use pieces::pieces;
#[cfg(feature = "portmap")]
pub use portmap::{port_mapping, upnp};
#[cfg(all(feature = "client", feature = "proxy"))]
pub use proxy::{proxy_requests, socks_datagrams, socks_requests};
#[cfg(all(
    feature = "server",
    feature = "client",
    feature = "quic",
    not(feature = "sim")
))]
pub use quic::quic_packets;
#[cfg(all(feature = "client", feature = "p2p"))]
pub use sctp::sctp_chunks;
#[cfg(feature = "server")]
pub use server::{client_hello, http_head, proxy_header};
#[cfg(all(feature = "server", feature = "p2p"))]
pub use stun::stun;
pub use trust::keys;
#[cfg(feature = "server")]
pub use trust::subjects;
#[cfg(feature = "web")]
pub use web::{config_edits, web_requests};
#[cfg(feature = "ws")]
pub use websocket::websocket;
#[cfg(feature = "quic")]
pub use wire::stream_headers;
pub use wire::{gt1_frames, gt1_hello, gt2_frames, gt2_hello, origins};

use futures_lite::AsyncRead;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Approximate number of prefixes of an input that are tested. A short input is cut everywhere;
/// where a longer one is cut depends on its content.
const CUTS: usize = 16;

/// Derives a number from an input, always the same one.
fn seed(data: &[u8]) -> u64 {
    // FNV-1a.
    data.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

/// Returns lengths to cut an input at, up to all of it.
fn cuts(data: &[u8]) -> impl Iterator<Item = usize> {
    let (length, step) = (data.len(), data.len() / CUTS + 1);
    let first = usize::try_from(seed(data) % step as u64).unwrap_or_default();
    (first..length).step_by(step).chain([length])
}

/// Checks that more bytes do not change a verdict. `judge` returns `None` until it has one.
fn assert_settled<'a, T: PartialEq + std::fmt::Debug>(
    data: &'a [u8],
    judge: impl Fn(&'a [u8]) -> Option<T>,
) {
    let mut before: Option<(usize, T)> = None;
    for cut in cuts(data) {
        let verdict = judge(&data[..cut]);
        match (&before, verdict) {
            (Some((at, before)), verdict) => {
                assert_eq!(Some(before), verdict.as_ref(), "after {at} bytes and {cut}");
            }
            (None, Some(verdict)) => before = Some((cut, verdict)),
            (None, None) => {}
        }
    }
}

/// The sizes of the reads in which an input arrives.
#[derive(Clone, Copy, Debug)]
enum Pace {
    /// As much as there is room for.
    Whole,
    /// Byte by byte.
    Bytes,
    /// Reads of 1 to 24 bytes, derived from this number.
    Pieces(u64),
}

impl Pace {
    /// Returns the paces that must give the same result as [`Pace::Whole`]. Byte by byte only for
    /// short inputs: most readers start anew with every byte.
    fn split(data: &[u8]) -> impl Iterator<Item = Pace> {
        let bytes = (data.len() <= 256).then_some(Pace::Bytes);
        [Pace::Pieces(seed(data) | 1)].into_iter().chain(bytes)
    }

    /// Returns the maximum size of the next read.
    fn next(&mut self) -> usize {
        match self {
            Pace::Whole => usize::MAX,
            Pace::Bytes => 1,
            Pace::Pieces(state) => {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                usize::try_from(*state % 24 + 1).unwrap_or(1)
            }
        }
    }
}

/// An input as a stream that ends behind it and is always ready.
struct Source<'a> {
    left: &'a [u8],
    pace: Pace,
}

impl<'a> Source<'a> {
    fn new(left: &'a [u8], pace: Pace) -> Self {
        Self { left, pace }
    }

    fn take(&mut self, buffer: &mut [u8]) -> usize {
        let count = self.pace.next().min(self.left.len()).min(buffer.len());
        let (now, left) = self.left.split_at(count);
        buffer[..count].copy_from_slice(now);
        self.left = left;
        count
    }
}

impl AsyncRead for Source<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(self.take(buffer)))
    }
}
