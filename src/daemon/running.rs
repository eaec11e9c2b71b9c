//! The roles that run in this process.

use super::client_role::{self, ClientRole};
use super::role::{with_file, Plans, ProcessRole, RoleSet};
use super::server_role::{self, ServerRole};
use super::web_role::{self, Change, WebRole};
use crate::config::RoleConfig;
use crate::handover::{ChildProcess, Inherited, Outgoing, ParentLink, Progress};
use crate::keys::Fingerprint;
use crate::net::{timeout, WaitGroup};
use futures_lite::future;
use std::future::Future;
use std::io;
use std::time::Duration;

/// Time that streams have to finish once another process has taken over, or once the role was
/// removed from the configuration (docs/operations.md, "Restart").
const DRAIN_TIMEOUT: Duration = Duration::from_secs(120);

/// The running roles. Clones share them.
#[derive(Clone, Default)]
pub struct RunningRoles {
    servers: RoleSet<ServerRole>,
    clients: RoleSet<ClientRole>,
    webs: RoleSet<WebRole>,
    /// Roles removed from the configuration that are still draining.
    draining: WaitGroup,
}

/// What each role needs to start or to be reconfigured.
pub struct RolePlans {
    servers: Plans<ServerRole>,
    clients: Plans<ClientRole>,
    webs: Plans<WebRole>,
}

impl RunningRoles {
    /// Applies the plans: starts new roles, reconfigures running ones, and stops the others.
    /// Servers start first so that clients in the same process can connect to them. Fails if the
    /// system has no random numbers.
    pub fn change(&mut self, plans: RolePlans) -> io::Result<()> {
        let servers = self.servers.change(plans.servers)?;
        self.stop_in_background(servers);
        let clients = self.clients.change(plans.clients)?;
        self.stop_in_background(clients);
        let webs = self.webs.change(plans.webs)?;
        self.stop_in_background(webs);
        web_role::show(&self.webs, &self.servers, &self.clients);
        Ok(())
    }

    fn stop_in_background<R: ProcessRole>(&self, roles: Vec<R>) {
        for role in roles {
            let draining = self.draining.begin();
            crate::net::spawn(async move {
                role.stop(DRAIN_TIMEOUT).await;
                drop(draining);
            });
        }
    }

    /// Plans how to apply a configuration, and changes nothing yet. The error names the file,
    /// folder or listener that cannot be used.
    pub fn plan(&self, roles: &[RoleConfig], inherited: &mut Inherited) -> io::Result<RolePlans> {
        Ok(RolePlans {
            servers: self.servers.plan(roles, inherited)?,
            clients: self.clients.plan(roles, inherited)?,
            webs: self.webs.plan(roles, inherited)?,
        })
    }

    /// Returns the sockets and state to hand over to the child process.
    pub fn export(&self) -> Vec<Outgoing> {
        let mut items = self.servers.export();
        items.extend(self.clients.export());
        items.extend(self.webs.export());
        items
    }

    /// Cancels a handover: the child process has failed.
    pub fn cancel_handover(&self) {
        server_role::cancel_handover(&self.servers);
    }

    /// Tells the web pages what has become of a reload or a restart; the error is a sentence.
    pub fn report(&self, what: Change, error: Option<String>) {
        web_role::report(&self.webs, what, error);
    }

    /// Stops the web pages, whose listeners another process has.
    pub fn stop_webs(&self) {
        web_role::stop(&self.webs);
    }

    /// Whether a server is running.
    pub fn has_servers(&self) -> bool {
        !self.servers.is_empty()
    }

    /// Tells the parent process when the servers listen and when the clients are connected.
    pub fn report_to_parent(&self, parent: ParentLink) {
        let log = |reported: io::Result<()>| {
            if let Err(e) = reported {
                log::debug!("telling the old process: {e}");
            }
        };
        log(server_role::report_listening(&self.servers, &parent));
        let clients = self.clients.clone();
        crate::net::spawn(async move {
            client_role::wait_ready(&clients).await;
            log(parent.report(&Progress::Connected));
            drop(parent);
            // The server may have refused a client while the old process held its id.
            client_role::retry_now(&clients).await;
        });
    }

    /// Makes clients that wait before their next attempt connect at once.
    pub fn wake(&self) {
        client_role::wake(&self.clients);
    }

    /// Drains the servers after the child process has taken over their listeners.
    pub fn drain_servers<'a>(
        &'a self,
        child: &mut ChildProcess,
    ) -> impl Future<Output = ()> + Send + 'a {
        server_role::drain(&self.servers, child, DRAIN_TIMEOUT)
    }

    /// Stops the clients after those of the child process have connected.
    pub async fn drain_clients(&self) {
        self.clients.stop(DRAIN_TIMEOUT).await;
        self.draining.idle().await;
    }

    /// Stops all roles; streams have `patience` to finish.
    pub async fn stop(&self, patience: Duration) {
        let roles = future::zip(self.clients.stop(patience), self.servers.stop(patience));
        self.stop_webs();
        let draining = timeout(patience, self.draining.idle());
        future::zip(roles, draining).await;
    }
}

/// Returns the fingerprint of a server's key; `None` of another role, and of a server without TLS.
pub fn fingerprint(loaded: &RoleConfig) -> io::Result<Option<Fingerprint>> {
    server_role::fingerprint(loaded).map_err(|e| with_file(loaded, e))
}

/// Checks whether the files and folders that a role names can be used.
pub fn check(loaded: &RoleConfig) -> io::Result<()> {
    let checked = server_role::check(loaded)
        .and_then(|()| client_role::check(loaded))
        .and_then(|()| web_role::check(loaded));
    checked.map_err(|e| with_file(loaded, e))
}
