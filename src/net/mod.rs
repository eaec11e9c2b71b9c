//! Sockets: listening, dialling, TLS, HTTP, timers, and [`Conn`], the type that the rest of the
//! crate reads and writes. The module knows nothing of tunnels and their bytes.

#[cfg(feature = "server")]
pub mod bridge;
#[cfg(any(feature = "server", feature = "p2p"))]
mod carry;
pub mod clock;
mod congestion;
mod conn;
mod datagrams;
mod delivery;
mod dial;
pub mod follow;
#[cfg(feature = "portmap")]
mod gateway;
pub mod http;
#[cfg(all(feature = "client", feature = "p2p"))]
mod interfaces;
#[cfg(all(feature = "client", any(feature = "p2p", feature = "proxy")))]
mod is_public;
#[cfg(not(feature = "sim"))]
pub(crate) mod kernel;
mod listen;
#[cfg(not(feature = "sim"))]
mod netlink;
#[cfg(all(not(feature = "sim"), any(feature = "quic", feature = "portmap")))]
mod network_changes;
mod network_of;
#[cfg(feature = "client")]
#[cfg_attr(not(feature = "outbound"), path = "no_outbound.rs")]
pub(crate) mod outbound;
#[cfg_attr(any(feature = "sim", not(feature = "quic")), path = "no_quic.rs")]
pub(crate) mod quic;
mod race;
mod read_buf;
mod resolve;
#[cfg(feature = "sim")]
pub(crate) mod runtime;
#[cfg(not(feature = "sim"))]
mod runtime;
mod shared_threads;
mod shutdown;
#[cfg(not(feature = "sim"))]
mod sock_diag;
mod socket;
#[cfg(all(feature = "client", any(feature = "proxy", feature = "outbound")))]
pub mod socks5;
mod task_group;
mod throttle;
mod timeout;
pub mod tls;
mod token_bucket;
#[cfg(all(feature = "client", feature = "proxy"))]
mod visitor_names;
#[cfg(feature = "ws")]
pub(crate) mod websocket;

#[cfg(feature = "sim")]
pub(crate) use crate::sim::kernel;
#[cfg(any(feature = "server", feature = "p2p"))]
pub use carry::carry;
#[cfg(feature = "p2p")]
pub use carry::CarriedEnd;
pub use congestion::warn_without_bbr;
#[cfg(feature = "server")]
pub use congestion::{congestion_of_new, set_bbr};
#[cfg(all(test, feature = "server"))]
pub use conn::tests::Flood;
#[cfg(all(test, any(feature = "server", feature = "p2p")))]
pub use conn::tests::WakeCount;
pub use conn::{Conn, ConnLayer};
pub use datagrams::set_udp_offload;
pub use datagrams::DatagramConn;
#[cfg(any(feature = "server", feature = "p2p"))]
pub use datagrams::DatagramPath;
#[cfg(any(
    test,
    fuzzing,
    feature = "p2p",
    all(feature = "quic", not(feature = "sim"))
))]
pub use datagrams::RecordReader;
#[cfg(feature = "client")]
pub use datagrams::{dial_udp, DatagramLosses};
#[cfg(all(any(feature = "quic", feature = "p2p"), not(feature = "sim")))]
pub use datagrams::{enable_gro, receive_joined, JoinedDatagrams};
#[cfg(any(feature = "server", feature = "proxy", feature = "p2p"))]
pub use datagrams::{DatagramQueue, Datagrams, Flow};
pub use delivery::Delivery;
#[cfg(all(feature = "client", feature = "proxy"))]
pub use dial::dial_first;
#[cfg(feature = "client")]
pub use dial::dial_unix;
pub use dial::{dial, Dial, Dialling, Direct};
#[cfg(feature = "portmap")]
pub use gateway::default_gateway;
#[cfg(all(feature = "client", feature = "p2p"))]
pub use interfaces::{interface_addresses, InterfaceAddress};
#[cfg(all(feature = "client", any(feature = "p2p", feature = "proxy")))]
pub use is_public::is_public;
pub use kernel::{accept_failures, random};
pub use listen::{listen, Listener};
#[cfg(all(not(feature = "sim"), any(feature = "quic", feature = "portmap")))]
pub use network_changes::{source_for, NetworkChanges};
pub use network_of::network_of;
#[cfg(feature = "client")]
pub use outbound::{Dialer, LinkSource, LinkUse, ProxyServer};
#[cfg(all(feature = "client", feature = "outbound"))]
pub use outbound::{ProxyLogin, ProxyProtocol};
pub use race::race;
pub use read_buf::with_read_buf;
#[cfg(test)]
pub use read_buf::READ;
#[cfg(any(feature = "client", feature = "p2p"))]
pub use resolve::addresses;
#[cfg(feature = "server")]
pub use runtime::spawn_unboxed_on;
pub use runtime::{
    blocking, set_threads, spawn, spawn_on, Interest, PollSource, Readiness, ShardId, Timer,
};
#[cfg(feature = "client")]
pub use shared_threads::DISK;
#[cfg(any(all(feature = "client", feature = "password"), feature = "web"))]
pub use shared_threads::PASSWORDS;
pub use shutdown::Shutdown;
pub use socket::Socket;
pub use task_group::{TaskGuard, WaitGroup};
pub use throttle::Throttle;
pub use timeout::{poll_stalled, timeout, timeout_at};
pub use token_bucket::TokenBucket;
#[cfg(all(feature = "client", feature = "proxy"))]
pub use visitor_names::look_up_for_visitor;
