//! The stub of `quic` in builds without QUIC. `config` reports that the listener is missing.

use super::state::ServerState;
use crate::config;
use crate::handover::{Inherited, Outgoing};
use crate::net::Conn;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A listener for QUIC, which this build does not have.
#[derive(Default)]
pub struct Quic(());

/// The plan for a listener for QUIC: empty.
pub struct QuicPlan;

impl QuicPlan {
    pub fn new(
        _: &config::ServerConfig,
        _: &Option<PathBuf>,
        _: Option<&Quic>,
        _: &mut Inherited,
    ) -> io::Result<Self> {
        Ok(Self)
    }
}

impl Quic {
    pub fn change(&mut self, _: QuicPlan, _: &Arc<ServerState>) -> io::Result<()> {
        Ok(())
    }

    pub fn share(&self) -> Vec<Outgoing> {
        Vec::new()
    }
}

/// Does nothing: no connection comes over QUIC.
pub fn raise_window(_: &Conn) {}

/// Does nothing: no connection comes over QUIC.
pub fn use_bbr(_: &Conn) {}

/// No connection comes over QUIC.
pub fn has_streams(_: &Conn) -> bool {
    false
}

/// Does nothing: no connection comes over QUIC.
pub async fn answer_probe(_: &Conn) {}
