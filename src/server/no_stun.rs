//! The stub of `stun` in builds without P2P. `config` reports that the server is missing.

use super::state::ServerState;
use crate::config;
use crate::handover::{Inherited, Outgoing};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A STUN server, which this build does not have.
#[derive(Default)]
pub struct Stun(());

/// The plan for a STUN server: empty.
pub struct StunPlan;

impl StunPlan {
    pub fn new(
        _: &config::ServerConfig,
        _: &Option<PathBuf>,
        _: Option<&Stun>,
        _: &mut Inherited,
    ) -> io::Result<Self> {
        Ok(Self)
    }
}

impl Stun {
    pub fn change(&mut self, _: StunPlan, _: &Arc<ServerState>) {}

    pub fn share(&self) -> Vec<Outgoing> {
        Vec::new()
    }
}
