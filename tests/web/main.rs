//! The web page and its API: who may use it, what it changes, and what it leaves alone. In a browser:
//! `tests/real/page.rs`.

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "web")]
mod page;

#[cfg(all(feature = "web", feature = "server", feature = "client"))]
mod access;
#[cfg(all(feature = "web", feature = "server", feature = "client"))]
mod bounds;
#[cfg(all(feature = "web", feature = "server", feature = "client"))]
mod client;
#[cfg(all(feature = "web", feature = "server", feature = "client"))]
mod config;
#[cfg(all(feature = "web", feature = "server", feature = "client"))]
mod process;
#[cfg(all(feature = "web", feature = "server", feature = "client"))]
mod server;
