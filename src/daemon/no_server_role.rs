//! The stub of `server_role` for builds without the feature: a role that never runs.

use super::role::{Role, RoleSet};
use crate::config::RoleConfig;
use crate::handover::{ChildProcess, Inherited, Outgoing, ParentLink, Progress};
use std::future::Future;
use std::io;
use std::time::Duration;

/// Never created.
#[derive(Clone)]
pub enum ServerRole {}

impl Role for ServerRole {
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

/// See `server_role`.
pub fn check(_: &RoleConfig) -> io::Result<()> {
    Ok(())
}

/// See `server_role`.
pub fn cancel_handover(_: &RoleSet<ServerRole>) {}

/// See `server_role`.
pub fn report_listening(_: &RoleSet<ServerRole>, parent: &ParentLink) -> io::Result<()> {
    parent.report(&Progress::Listening)
}

/// See `server_role`.
pub fn drain(
    _: &RoleSet<ServerRole>,
    _: &mut ChildProcess,
    _: Duration,
) -> impl Future<Output = ()> + Send {
    std::future::ready(())
}
