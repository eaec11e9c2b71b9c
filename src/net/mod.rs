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

pub use bucket::Bucket;
pub use conn::{Conn, Layer};
#[cfg(all(feature = "server", feature = "p2p"))]
pub use datagrams::Datagrams;
pub use delivery::Delivery;
pub use dial::dial;
pub use listen::{accept_failures, listen, Listener};
pub use random::random;
pub use reactor::blocking;
pub(crate) use reactor::{spawn, Ran};
#[cfg(feature = "p2p")]
pub use resolve::addresses;
pub use scratch::with_scratch;
#[cfg(test)]
pub use scratch::READ;
#[cfg(feature = "client")]
pub use shared_threads::DISK;
pub use socket::Socket;
pub use stop::Stop;
pub use wait_group::{WaitGroup, Working};
pub use within::{poll_stalled, until, within};
