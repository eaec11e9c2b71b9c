//! The stub of `web_role` for builds without the feature.

use super::client_role::ClientRole;
use super::no_role::NoRole;
use super::role::RoleSet;
use super::server_role::ServerRole;
use crate::config::RoleConfig;
use std::io;

/// See `web_role`.
pub type WebRole = NoRole;

/// What a page would be told of.
#[derive(Clone, Copy)]
pub enum Change {
    Reload,
    Restart,
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
