//! The client: where its server is, and what it publishes.

// A test fails by a panic.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "client")]
mod remote_api;
#[cfg(all(feature = "server", feature = "client"))]
mod safety;
