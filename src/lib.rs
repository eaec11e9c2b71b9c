//! gt: a reverse-proxy tunnel that publishes services behind NAT.
//!
//! The path of a byte: [`net`] accepts a visitor's socket, `server` works out its destination
//! and opens a stream in a [`tunnel`], [`wire`] encodes the frames, and at the other end `client`
//! connects the stream to the local service. [`cli`] and [`config`] read flags and files,
//! [`daemon`] starts the roles. docs/architecture.md has the map and the glossary.
//!
//! Everything runs on one executor thread of gt's own unless `threads` says otherwise; the
//! main thread only waits for signals.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
// All of gt but its tests comes by the time, sockets and the order of hash tables where they can be
// simulated.
#![cfg_attr(not(test), warn(clippy::disallowed_methods, clippy::disallowed_types))]
// A panic ends the process in the programs for routers: nothing that input reaches may have one.
// Tests may, see clippy.toml.
#![warn(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

#[cfg(any(feature = "server", feature = "web"))]
mod auth_lockout;
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
mod collections;
pub mod config;
pub mod control;
mod current;
pub mod daemon;
mod encoding;
#[cfg(any(test, fuzzing))]
#[allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]
pub mod fuzz;
pub mod handover;
#[cfg_attr(not(feature = "import"), path = "no_import.rs")]
pub mod import;
pub mod keys;
pub mod logging;
pub mod net;
#[cfg(feature = "password")]
pub mod passwords;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "sim")]
pub mod sim;
mod small_file;
mod state_dir;
mod sync;
pub mod tunnel;
pub mod version;
#[cfg(feature = "web")]
mod web;
pub mod wire;

#[cfg(not(any(feature = "server", feature = "client")))]
compile_error!("gt needs at least one of the features `server` and `client`");
