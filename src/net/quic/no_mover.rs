//! The stub of `mover` in builds without the client.

use super::connection::{Shared, State};
use std::sync::Arc;
use std::time::Instant;

/// The result of a check: there is nothing to do.
#[derive(Default)]
pub struct Checked {
    pub deadline: Option<Instant>,
    pub speaks: bool,
}

/// Nothing: connections of servers do not move.
pub struct Mover;

impl Mover {
    pub fn new(_: bool) -> Self {
        Self
    }

    pub fn check(&mut self, _: &Arc<Shared>, _: &mut State, _: Instant) -> Checked {
        Checked::default()
    }
}
