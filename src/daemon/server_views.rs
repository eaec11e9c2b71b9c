//! The servers of the process as the web page sees them. Builds without servers have `no_server_views`.

use super::role::RoleSet;
use super::server_role::ServerRole;
use crate::server::ServerView;
use crate::web::role::RoleView;
use std::sync::Arc;

/// Returns the views of all servers.
pub fn views(servers: &RoleSet<ServerRole>) -> Vec<Arc<dyn RoleView>> {
    let view = |(source, server): &_| -> Arc<dyn RoleView> {
        Arc::new(ServerView::new(Clone::clone(server), Clone::clone(source)))
    };
    servers.iter().map(view).collect()
}

/// Tells the servers that no page shows them.
pub fn hide(servers: &RoleSet<ServerRole>) {
    servers.iter().for_each(|(_, server)| server.hide());
}
