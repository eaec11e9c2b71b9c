//! gt on OpenWrt and Debian: its packages, with their scripts under a shell of their own, and its programs
//! under qemu; and the packages of a release. Needs the packages that tests/run installs, and the programs
//! that openwrt/build makes.

#![cfg(all(feature = "server", feature = "client"))]

#[path = "../common/mod.rs"]
mod common;

mod apk;
mod debian;
mod feed;
mod firewall;
mod openwrt;
mod qemu;
mod release;
