//! The stub of `client_role` for builds without the feature: a role that never runs.

use super::role::{Role, RoleSet};
use crate::config::RoleConfig;
use crate::handover::{Inherited, Outgoing};
use std::future::{ready, Ready};
use std::io;
use std::time::Duration;

/// Never created.
#[derive(Clone)]
pub enum ClientRole {}

impl Role for ClientRole {
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

/// See `client_role`.
pub fn check(_: &RoleConfig) -> io::Result<()> {
    Ok(())
}

/// See `client_role`.
pub fn wait_ready(_: &RoleSet<ClientRole>) -> Ready<()> {
    ready(())
}

/// See `client_role`.
pub fn retry_now(_: &RoleSet<ClientRole>) -> Ready<()> {
    ready(())
}
