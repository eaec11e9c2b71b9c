//! Sockets: listening, dialling, TLS, and the one type the rest of the house reads and
//! writes, [`Conn`]. Knows nothing of tunnels and their bytes.

#[cfg(feature = "server")]
pub mod bridge;
mod bucket;
pub mod clock;
mod conn;
#[cfg(all(feature = "server", feature = "p2p"))]
mod datagrams;
mod delivery;
mod dial;
pub mod follow;
pub mod http;
mod listen;
mod random;
mod reactor;
mod resolve;
mod scratch;
mod shared_threads;
mod socket;
mod stop;
pub mod tls;
mod wait_group;
mod within;

pub use bucket::TokenBucket;
pub use conn::{Conn, ConnLayer};
#[cfg(all(feature = "server", feature = "p2p"))]
pub use datagrams::Datagrams;
pub use delivery::Delivery;
pub use dial::dial;
pub use listen::{accept_failures, listen, Listener};
pub use random::random;
pub use reactor::blocking;
pub(crate) use reactor::{spawn, CountedTask};
#[cfg(feature = "p2p")]
pub use resolve::addresses;
pub use scratch::with_read_buf;
#[cfg(test)]
pub use scratch::READ;
#[cfg(feature = "client")]
pub use shared_threads::DISK;
pub use socket::Socket;
pub use stop::Shutdown;
pub use wait_group::{TaskGuard, WaitGroup};
pub use within::{poll_stalled, timeout, timeout_at};
