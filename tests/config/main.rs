//! Flags, files, signals to a running gt, and reloads.

#![cfg(all(feature = "server", feature = "client"))]

#[path = "../common/mod.rs"]
mod common;

mod check;
mod cli;
mod documents;
mod flags;
#[cfg(feature = "import")]
mod import;
mod reload;
mod reload_server;
mod signals;
mod wake;
