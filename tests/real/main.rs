//! Real programs before and behind a tunnel: nginx, Caddy, HAProxy, curl, sshd, smbd, dnsmasq,
//! Chromium and others. Needs the packages that tests/run installs.

#[path = "../common/mod.rs"]
mod common;

#[cfg(all(feature = "server", feature = "client", feature = "acme"))]
mod acme;
#[cfg(all(feature = "server", feature = "client", feature = "p2p"))]
mod browser;
#[cfg(all(feature = "server", feature = "client"))]
mod certificates;
#[cfg(all(feature = "server", feature = "client"))]
mod examples;
#[cfg(all(feature = "server", feature = "client"))]
mod fail2ban;
mod fixtures;
#[cfg(all(feature = "server", feature = "client", feature = "keys"))]
mod full_disk;
#[cfg(all(feature = "server", feature = "client"))]
mod haproxy;
#[cfg(all(feature = "server", feature = "client"))]
mod http;
#[cfg(all(feature = "server", feature = "client", feature = "proxy"))]
mod lan;
#[cfg(all(feature = "server", feature = "client"))]
mod other_protocols;
#[cfg(all(feature = "server", feature = "client"))]
mod outbound;
#[cfg(all(
    feature = "server",
    feature = "client",
    feature = "p2p",
    feature = "web"
))]
mod page;
#[cfg(all(feature = "server", feature = "client", feature = "p2p"))]
mod prometheus;
#[cfg(all(feature = "server", feature = "client"))]
mod proxies;
#[cfg(all(feature = "server", feature = "client"))]
mod quickstart;
#[cfg(all(feature = "server", feature = "client", feature = "web"))]
mod schemathesis;
#[cfg(all(feature = "server", feature = "client", feature = "sentry"))]
mod secrets;
#[cfg(all(feature = "server", feature = "client"))]
mod smb;
#[cfg(all(feature = "server", feature = "client"))]
mod ssh;
#[cfg(all(feature = "server", feature = "p2p"))]
mod stun;
#[cfg(all(feature = "server", feature = "client", feature = "p2p"))]
mod tcp_forward;
#[cfg(all(feature = "server", feature = "client"))]
mod tls;
#[cfg(all(feature = "server", feature = "client"))]
mod udp;
#[cfg(all(feature = "server", feature = "client", feature = "p2p"))]
mod udp_forward;
#[cfg(all(feature = "server", feature = "client"))]
mod visitors;
#[cfg(all(feature = "server", feature = "client", feature = "ws"))]
mod ways;
mod websocket;
