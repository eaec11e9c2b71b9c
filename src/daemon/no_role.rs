//! The stub of a role that this program was built without: it never runs.

use super::role::ProcessRole;
use crate::config::RoleConfig;
use crate::handover::{Inherited, Outgoing};
use std::io;
use std::time::Duration;

/// A role, which never exists in this build.
#[derive(Clone)]
pub enum NoRole {}

impl ProcessRole for NoRole {
    type Plan = Self;

    fn plan(_: &RoleConfig, _: Option<&Self>, _: &mut Inherited) -> io::Result<Option<Self>> {
        Ok(None)
    }

    fn start(plan: Self) -> io::Result<Self> {
        match plan {}
    }

    fn change(&mut self, _: Self) {
        match *self {}
    }

    fn export(&self) -> Vec<Outgoing> {
        match *self {}
    }

    async fn stop(self, _: Duration) {
        match self {}
    }
}
