//! The stub of `server_views` for builds without servers.

use super::role::RoleSet;
use super::server_role::ServerRole;
use crate::web::role::RoleView;
use std::sync::Arc;

/// Returns none: there are no servers in this build.
pub fn views(_: &RoleSet<ServerRole>) -> Vec<Arc<dyn RoleView>> {
    Vec::new()
}

/// See `server_views`.
pub fn hide(_: &RoleSet<ServerRole>) {}
