//! Peers that mean harm: what each attack may cost server and client, measured, and that
//! everybody else is served while it lasts and after it.
//!
//! Each test prints `attack | bound | measured` for each of its bounds: `cargo test --test hostile --
//! --nocapture` gives the table. Memory is that of a build without optimisation.

#![cfg(all(feature = "server", feature = "client"))]
// A test fails by a panic.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

#[path = "../common/mod.rs"]
mod common;

mod bound;
mod client;
mod crowd;
mod garbage;
mod many;
mod slow;
mod stage;
mod tunnel;
mod visitors;
