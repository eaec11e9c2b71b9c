//! The stub of `client_role` for builds without the feature.

use super::no_role::NoRole;
use super::role::RoleSet;
use crate::config::RoleConfig;
use std::future::{ready, Ready};
use std::io;

/// See `client_role`.
pub type ClientRole = NoRole;

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

/// See `client_role`.
pub fn wake(_: &RoleSet<ClientRole>) {}
