//! The stub of `web_role` for builds without the feature.

use super::client_role::ClientRole;
use super::role::{ProcessRole, RoleSet};
use super::server_role::ServerRole;
use crate::config::RoleConfig;
use crate::handover::{Inherited, Outgoing};
use std::io;
use std::time::Duration;

/// A page, which never exists in this build.
#[derive(Clone)]
pub enum WebRole {}

/// What a page would be told of.
#[derive(Clone, Copy)]
pub enum Change {
    Reload,
    Restart,
}

impl ProcessRole for WebRole {
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

/// See `web_role`.
pub fn check(_: &RoleConfig) -> io::Result<()> {
    Ok(())
}

/// See `web_role`.
pub fn show(_: &RoleSet<WebRole>, _: &RoleSet<ServerRole>, _: &RoleSet<ClientRole>) {}

/// See `web_role`.
pub fn report(_: &RoleSet<WebRole>, _: Change, _: Option<String>) {}

/// See `web_role`.
pub fn stop(_: &RoleSet<WebRole>) {}
