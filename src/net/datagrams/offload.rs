//! Joining and splitting datagrams in the kernel (udp(7), `UDP_GRO` and `UDP_SEGMENT`): whether gt may use it
//! (`udpOffload`).

use std::sync::atomic::{AtomicBool, Ordering};

static IS_ON: AtomicBool = AtomicBool::new(cfg!(any(target_os = "linux", target_os = "android")));

/// Sets whether sockets that are opened from now on let the kernel join and split datagrams, where it can.
pub fn set_udp_offload(on: bool) {
    if !on {
        IS_ON.store(false, Ordering::Relaxed);
    }
}

/// Whether the kernel may be asked to join and split datagrams.
#[cfg(not(feature = "sim"))]
pub fn udp_offload() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

/// Lets the kernel join the datagrams that a socket receives. Returns whether it does, and then whether it may
/// be asked to split what is sent.
#[cfg(all(any(feature = "quic", feature = "p2p"), not(feature = "sim")))]
pub fn enable_gro(socket: &std::net::UdpSocket) -> bool {
    use nix::sys::socket::{setsockopt, sockopt::UdpGroSegment};

    udp_offload() && setsockopt(socket, UdpGroSegment, &true).is_ok()
}
