//! Datagrams: sockets that receive and send many in one system call, where the kernel can, and
//! connections that carry them as records in a stream of bytes. Not what the datagrams are for.

#[cfg(not(feature = "sim"))]
mod batch;
#[cfg(all(
    any(feature = "server", feature = "proxy", feature = "p2p"),
    not(feature = "sim")
))]
mod bound;
#[cfg(not(feature = "sim"))]
mod coalescing;
mod conn;
#[cfg(all(feature = "client", not(feature = "sim")))]
mod connected;
#[cfg(all(any(feature = "quic", feature = "p2p"), not(feature = "sim")))]
mod joined;
#[cfg(feature = "client")]
mod losses;
mod offload;
mod records;
#[cfg(not(feature = "sim"))]
mod run;
#[cfg(feature = "sim")]
mod simulated;

#[cfg(all(
    any(feature = "server", feature = "proxy", feature = "p2p"),
    not(feature = "sim")
))]
pub use bound::{DatagramPath, Datagrams};
pub use conn::DatagramConn;
#[cfg(any(feature = "server", feature = "proxy", feature = "p2p"))]
pub use conn::Flow;
#[cfg(all(feature = "client", not(feature = "sim")))]
pub use connected::dial_udp;
#[cfg(all(any(feature = "quic", feature = "p2p"), not(feature = "sim")))]
pub use joined::{receive_joined, JoinedDatagrams};
#[cfg(feature = "client")]
pub use losses::DatagramLosses;
#[cfg(all(any(feature = "quic", feature = "p2p"), not(feature = "sim")))]
pub use offload::enable_gro;
pub use offload::set_udp_offload;
#[cfg(any(feature = "server", feature = "proxy", feature = "p2p"))]
pub use records::DatagramQueue;
#[cfg(any(
    test,
    fuzzing,
    feature = "p2p",
    all(feature = "quic", not(feature = "sim"))
))]
pub use records::RecordReader;
#[cfg(feature = "sim")]
pub use simulated::{dial_udp, DatagramPath, Datagrams};
