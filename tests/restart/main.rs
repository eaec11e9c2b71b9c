//! Restarts: a new process replaces the old one.

#![cfg(all(feature = "server", feature = "client"))]

#[path = "../common/mod.rs"]
mod common;

mod account;
mod failing_child;
mod file_privileges;
mod handover;
mod original_clients;
#[cfg(all(feature = "quic", feature = "client"))]
mod quic;
mod restart;
mod udp;
