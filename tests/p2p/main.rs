//! WebRTC peers, as far as they need no other program.

#[path = "../common/mod.rs"]
mod common;

#[cfg(all(feature = "server", feature = "client", feature = "p2p"))]
mod forward;
#[cfg(all(feature = "client", feature = "p2p"))]
mod forward_to_original;
#[cfg(feature = "p2p")]
mod malformed_signaling;
#[cfg(feature = "p2p")]
mod p2p;
#[cfg(all(feature = "server", feature = "client", feature = "p2p"))]
mod private;
#[cfg(all(
    feature = "server",
    feature = "client",
    feature = "p2p",
    feature = "quic"
))]
mod quic;
#[cfg(all(feature = "server", feature = "client", feature = "p2p"))]
mod reload;
#[cfg(all(feature = "server", feature = "client", feature = "p2p"))]
mod rules;
#[cfg(all(feature = "server", feature = "client", feature = "p2p"))]
mod udp_forward;
