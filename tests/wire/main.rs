//! Both wires from docs/gt1.md and docs/wire.md: gt at one end, a hand-written peer at the other.

#![cfg(all(feature = "server", feature = "client"))]

#[path = "../common/mod.rs"]
mod common;

mod gt1_client;
mod gt1_server;
mod gt2_client;
mod gt2_server;
