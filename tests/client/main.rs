//! The client: where its server is, and what it publishes.

#[path = "../common/mod.rs"]
mod common;

#[cfg(all(feature = "server", feature = "client"))]
mod outbound;
#[cfg(feature = "client")]
mod remote_api;
#[cfg(all(feature = "server", feature = "client"))]
mod safety;
#[cfg(all(feature = "server", feature = "client"))]
mod ways;
