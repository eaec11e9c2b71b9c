//! Restarts: a new process replaces the old one.

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

mod account;
mod failing_child;
mod handover;
mod original_clients;
mod restart;
