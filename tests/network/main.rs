//! Lost networks, black holes and NAT, in network namespaces. Needs root, ip, nft and unshare.

// A test fails by a panic.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

#[path = "../common/mod.rs"]
mod common;

#[cfg(all(feature = "server", feature = "client"))]
mod black_hole;
#[cfg(feature = "p2p")]
mod nat;
#[cfg(all(feature = "server", feature = "client"))]
mod outages;
