//! The stub of `mover` in builds without the client.

use super::connection::{ConnectionShared, ConnectionState};
use std::sync::Arc;
use std::time::Instant;

/// The result of a check: there is nothing to do.
#[derive(Default)]
pub struct PathCheck {
    pub deadline: Option<Instant>,
    pub speaks: bool,
}

/// The mover of a server's connection, which does not move.
pub struct Mover;

impl Mover {
    pub fn new(_: bool) -> Self {
        Self
    }

    pub fn check(
        &mut self,
        _: &Arc<ConnectionShared>,
        _: &mut ConnectionState,
        _: Instant,
    ) -> PathCheck {
        PathCheck::default()
    }
}
