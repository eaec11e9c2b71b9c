//! WebRTC peers, as far as they need no other program.

// A test fails by a panic.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

#[path = "../common/mod.rs"]
mod common;

#[cfg(all(feature = "client", feature = "p2p"))]
mod forward_to_original;
#[cfg(feature = "p2p")]
mod malformed_signaling;
#[cfg(feature = "p2p")]
mod p2p;
