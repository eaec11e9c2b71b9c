//! The server: admission, API, STUN, log.

#[path = "../common/mod.rs"]
mod common;

#[cfg(all(feature = "server", feature = "client"))]
mod api;
#[cfg(feature = "server")]
mod auth;
#[cfg(feature = "server")]
mod dashboard;
#[cfg(all(feature = "server", feature = "client"))]
mod logging;
#[cfg(all(feature = "server", feature = "client", feature = "sentry"))]
mod sentry;
#[cfg(all(feature = "server", feature = "client", target_os = "linux"))]
mod threads;
