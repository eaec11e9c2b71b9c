//! Malicious peers: the measured cost of each attack at server and client, and that all others are
//! served during and after it.
//!
//! Each test prints `attack | bound | measured` for each of its bounds: `cargo test --test hostile --
//! --nocapture` gives the table. The memory bounds are for a build without optimisation.

#![cfg(all(feature = "server", feature = "client"))]

#[path = "../common/mod.rs"]
mod common;

mod bound;
mod client;
mod crowd;
mod garbage;
mod many;
#[cfg(feature = "quic")]
mod quic;
#[cfg(feature = "quic")]
mod quic_streams;
mod slow;
mod stage;
mod tunnel;
mod udp;
mod visitors;
#[cfg(feature = "ws")]
mod websocket;
