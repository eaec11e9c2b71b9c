//! Visitors: what services learn of them.

#[path = "../common/mod.rs"]
mod common;

#[cfg(all(feature = "server", feature = "client"))]
mod accept_proxy;
#[cfg(all(feature = "server", feature = "client"))]
mod access_log;
#[cfg(all(feature = "server", feature = "client"))]
mod allow;
#[cfg(all(feature = "server", feature = "client"))]
mod bans;
#[cfg(all(feature = "server", feature = "client"))]
mod forwarded;
#[cfg(all(feature = "server", feature = "client", feature = "password"))]
mod password;
#[cfg(all(feature = "server", feature = "client", feature = "proxy"))]
mod proxies;
#[cfg(all(
    feature = "server",
    feature = "client",
    feature = "proxy",
    feature = "password"
))]
mod proxy_passwords;
#[cfg(all(feature = "server", feature = "client"))]
mod proxy_protocol;
#[cfg(all(feature = "server", feature = "client", feature = "proxy"))]
mod proxy_udp;
#[cfg(all(feature = "server", feature = "client"))]
mod speed;
