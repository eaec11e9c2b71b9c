//! The clients of the process as the web page sees them. Builds without clients have `no_client_views`.

use super::client_role::ClientRole;
use super::role::RoleSet;
use crate::client::ClientView;
use crate::web::role::RoleView;
use std::sync::Arc;

/// Returns the views of all clients.
pub fn views(clients: &RoleSet<ClientRole>) -> Vec<Arc<dyn RoleView>> {
    let view = |(source, client): &_| -> Arc<dyn RoleView> {
        Arc::new(ClientView::new(Clone::clone(client), Clone::clone(source)))
    };
    clients.iter().map(view).collect()
}
