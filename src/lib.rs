//! gt: a tunnel that puts services behind NAT on the internet.
//!
//! The map of the house. A byte walks one way: a visitor's socket is accepted
//! ([`net`]), [`server`] finds out where it wants to go, a stream is opened in a
//! [`tunnel`], [`wire`] gives it its form, and at the other end [`client`] brings it to the
//! local service. [`cli`] and [`config`] say what is wanted, [`daemon`] makes it so.
//!
//! Everything runs on one executor thread of async-std unless `threads` says otherwise; the
//! main thread only waits for signals.

#![forbid(unsafe_code)]

pub mod cli;
#[cfg(feature = "client")]
pub mod client;
pub mod config;
pub mod control;
pub mod daemon;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod handover;
pub mod logging;
pub mod net;
#[cfg(feature = "server")]
pub mod server;
pub mod tunnel;
pub mod wire;

#[cfg(not(any(feature = "server", feature = "client")))]
compile_error!("gt needs at least one of the features `server` and `client`");

/// Runs a task of its own on the executor.
pub(crate) fn spawn(task: impl std::future::Future<Output = ()> + Send + 'static) {
    net::spawn(Box::pin(net::CountedTask::new(task)));
}
