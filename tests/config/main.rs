//! Flags, files, signals to a running gt, and reloads.

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

mod check;
mod cli;
mod documents;
mod flags;
mod reload;
mod reload_server;
mod signals;
