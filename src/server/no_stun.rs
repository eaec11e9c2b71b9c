//! Stands where the STUN server does in a build without P2P. That it has none is said by `config`.

use super::State;
use crate::config;
use crate::handover::{Given, Legacy};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// There is never one.
#[derive(Default)]
pub struct Stun(());

/// There is nothing to plan.
pub struct Plan;

impl Plan {
    pub fn new(
        _: &config::Server,
        _: &Option<PathBuf>,
        _: Option<&Stun>,
        _: &mut Legacy,
    ) -> io::Result<Self> {
        Ok(Self)
    }
}

impl Stun {
    pub fn change(&mut self, _: Plan, _: &Arc<State>) {}

    pub fn share(&self) -> Option<Given> {
        None
    }
}
