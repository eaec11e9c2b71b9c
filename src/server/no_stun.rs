//! Stands where the STUN server does in a build without P2P. That it has none is said by `config`.

use super::ServerState;
use crate::config;
use crate::handover::{Inherited, Outgoing};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// There is never one.
#[derive(Default)]
pub struct Stun(());

/// There is nothing to plan.
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

    pub fn share(&self) -> Option<Outgoing> {
        None
    }
}
