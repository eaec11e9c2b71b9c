//! A tunnel with gt at both ends: what visitors and services can rely on, also when ends and
//! networks fail.

#![cfg(all(feature = "server", feature = "client"))]

#[path = "../common/mod.rs"]
mod common;

mod domains;
mod drain;
mod ends;
mod faults;
mod groups;
mod health_check;
mod pool;
mod port_range;
#[cfg(feature = "quic")]
mod quic;
mod recovery;
mod slow;
mod speed;
mod timeouts;
mod udp;
#[cfg(target_os = "linux")]
mod unix_sockets;
#[cfg(feature = "ws")]
mod websocket;
