//! The stub of `client_views` for builds without clients.

use super::client_role::ClientRole;
use super::role::RoleSet;
use crate::web::role::RoleView;
use std::sync::Arc;

/// Returns none: there are no clients in this build.
pub fn views(_: &RoleSet<ClientRole>) -> Vec<Arc<dyn RoleView>> {
    Vec::new()
}
