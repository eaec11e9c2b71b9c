//! Forwarding of local ports to another client. A connection starts through the server at once, unless a
//! direct way is up; it takes the direct way from the moment that there is one. Builds without P2P have
//! `no_forward`.

mod direct;
mod error;
mod offer;
mod other_client;
mod running;
mod status;
mod tcp;
mod udp;

#[cfg(feature = "web")]
pub use status::describe;
pub use status::lines as status;
pub use tcp::{PlannedForward, TcpForwarder};
pub use udp::{PlannedUdpForward, UdpForwarder};
