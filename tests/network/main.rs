//! Lost networks, black holes and NAT, in network namespaces. Needs root, ip, ss, nft and unshare.

#[path = "../common/mod.rs"]
mod common;

#[cfg(all(feature = "server", feature = "client"))]
mod black_hole;
#[cfg(all(feature = "server", feature = "client"))]
mod congestion;
#[cfg(all(
    feature = "server",
    feature = "client",
    feature = "p2p",
    feature = "quic"
))]
mod direct_path;
#[cfg(feature = "p2p")]
mod forward;
#[cfg(all(feature = "server", feature = "client"))]
mod links;
#[cfg(all(feature = "server", feature = "client", feature = "quic"))]
mod migration;
#[cfg(feature = "p2p")]
mod nat;
#[cfg(all(feature = "server", feature = "client"))]
mod outages;
#[cfg(feature = "p2p")]
mod paths;
#[cfg(feature = "portmap")]
mod portmap;
#[cfg(all(feature = "server", feature = "client"))]
mod ways;
