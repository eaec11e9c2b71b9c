//! The server as a role of the process. Builds without the feature have `no_server_role`.

use super::exchange;
use super::role::{ProcessRole, RoleSet};
use crate::config::RoleConfig;
use crate::handover::{ChildProcess, Inherited, Outgoing, ParentLink, Progress};
use crate::keys::Fingerprint;
use crate::server::{self, Server, ServerPlan};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A running server.
pub type ServerRole = Arc<Server>;

impl ProcessRole for ServerRole {
    type Plan = ServerPlan;

    fn plan(
        loaded: &RoleConfig,
        running: Option<&Self>,
        inherited: &mut Inherited,
    ) -> io::Result<Option<ServerPlan>> {
        let running = running.map(Arc::as_ref);
        let config = loaded.role.server();
        config
            .map(|config| ServerPlan::new(config, &loaded.source, running, inherited))
            .transpose()
    }

    fn start(plan: ServerPlan) -> io::Result<Self> {
        Server::start(plan).map(Arc::new)
    }

    fn change(&mut self, plan: ServerPlan) {
        Server::change(self, plan);
    }

    fn export(&self) -> Vec<Outgoing> {
        Server::export(self)
    }

    async fn stop(self, patience: Duration) {
        Server::stop(&self, patience).await;
    }
}

/// Checks the files that a server's configuration names; other roles pass.
pub fn check(loaded: &RoleConfig) -> io::Result<()> {
    loaded.role.server().map_or(Ok(()), server::check)
}

/// Returns the fingerprint of a server's key; `None` of another role, and of a server without TLS.
pub fn fingerprint(loaded: &RoleConfig) -> io::Result<Option<Fingerprint>> {
    let config = loaded.role.server();
    config.map_or(Ok(None), server::fingerprint)
}

/// Cancels a handover: the child process has failed.
pub fn cancel_handover(servers: &RoleSet<ServerRole>) {
    for (_, server) in servers.iter() {
        server.cancel_handover();
    }
}

/// Reports to the parent process that the servers listen, and links them to those of the parent.
pub fn report_listening(servers: &RoleSet<ServerRole>, parent: &ParentLink) -> io::Result<()> {
    match exchange::with_parent(servers) {
        Some(link) => parent.report_listening(&link),
        None => parent.report(&Progress::Listening),
    }
}

/// Drains the servers after the child process has taken over their listeners. Returns after
/// `patience` at the latest.
pub fn drain<'a>(
    servers: &'a RoleSet<ServerRole>,
    child: &mut ChildProcess,
    patience: Duration,
) -> impl Future<Output = ()> + Send + 'a {
    exchange::with_child(servers, child.link(), patience)
}
