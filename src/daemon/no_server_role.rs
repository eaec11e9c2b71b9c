//! The stub of `server_role` for builds without the feature.

use super::no_role::NoRole;
use super::role::RoleSet;
use crate::config::RoleConfig;
use crate::handover::{ChildProcess, ParentLink, Progress};
use crate::keys::Fingerprint;
use std::future::{ready, Ready};
use std::io;
use std::time::Duration;

/// See `server_role`.
pub type ServerRole = NoRole;

/// See `server_role`.
pub fn check(_: &RoleConfig) -> io::Result<()> {
    Ok(())
}

/// Returns `None`: there are no servers in this build.
pub fn fingerprint(_: &RoleConfig) -> io::Result<Option<Fingerprint>> {
    Ok(None)
}

/// See `server_role`.
pub fn cancel_handover(_: &RoleSet<ServerRole>) {}

/// See `server_role`.
pub fn report_listening(_: &RoleSet<ServerRole>, parent: &ParentLink) -> io::Result<()> {
    parent.report(&Progress::Listening)
}

/// See `server_role`.
pub fn drain(_: &RoleSet<ServerRole>, _: &mut ChildProcess, _: Duration) -> Ready<()> {
    ready(())
}
