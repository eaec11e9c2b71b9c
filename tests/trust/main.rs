//! Trust between the ends: keys of servers and clients, secrets in files, and certificates of visitors.

#[path = "../common/mod.rs"]
mod common;

#[cfg(all(feature = "server", feature = "client", feature = "acme"))]
mod acme;
#[cfg(all(feature = "server", feature = "client", feature = "keys"))]
mod keys;
#[cfg(all(feature = "server", feature = "client"))]
mod pins;
#[cfg(all(feature = "server", feature = "client"))]
mod secrets;
#[cfg(all(feature = "server", feature = "client"))]
mod visitors;
