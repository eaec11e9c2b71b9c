//! Restarts: a new process takes the place of the old one.

#![cfg(all(feature = "server", feature = "client"))]

#[path = "../common/mod.rs"]
mod common;

mod account;
mod failing_child;
mod handover;
mod original_clients;
mod restart;
