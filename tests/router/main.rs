//! gt on OpenWrt: its package under a router's shell, and its programs under qemu. Needs the
//! packages that tests/run installs, and the programs that openwrt/build makes.

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

mod openwrt;
mod qemu;
