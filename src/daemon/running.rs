//! The roles that run in this process, each identified by its configuration file.

#[cfg(feature = "server")]
use super::exchange;
#[cfg(feature = "client")]
use crate::client::{self, Client};
use crate::config::RoleConfig;
use crate::handover::{Inherited, Item, Outgoing, ParentLink, Progress};
#[cfg(feature = "server")]
use crate::handover::{ProcessLink, ProcessMessages};
use crate::net::{timeout, WaitGroup};
#[cfg(feature = "server")]
use crate::server::{self, Server};
use futures_lite::future;
use std::future::{poll_fn, Future};
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
#[cfg(feature = "server")]
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// Time that streams have to finish once another process has taken over, or once the role was
/// removed from the configuration (docs/operations.md, "Restart").
const DRAIN_TIMEOUT: Duration = Duration::from_secs(120);

/// The configuration file of a role; `None` if it is configured by flags.
pub type RoleSource = Option<PathBuf>;

/// The running roles in the order in which they were started. Clones share the roles.
#[derive(Clone, Default)]
pub struct RunningRoles {
    #[cfg(feature = "server")]
    servers: Vec<(RoleSource, Arc<Server>)>,
    #[cfg(feature = "client")]
    clients: Vec<(RoleSource, Client)>,
    /// Roles removed from the configuration that are still draining.
    draining: WaitGroup,
}

/// The plans to start or reconfigure each role: files that are read and listeners that are open.
#[derive(Default)]
pub struct RolePlans {
    #[cfg(feature = "server")]
    servers: Vec<(RoleSource, server::ServerPlan)>,
    #[cfg(feature = "client")]
    clients: Vec<(RoleSource, client::ClientPlan)>,
}

impl RunningRoles {
    /// Applies the plans: starts new roles, reconfigures running ones, and stops the others.
    /// Servers start first so that clients in the same process can connect to them. Fails if the
    /// system has no random numbers.
    pub fn change(&mut self, plans: RolePlans) -> io::Result<()> {
        #[cfg(feature = "server")]
        {
            let mut before = std::mem::take(&mut self.servers);
            for (source, plan) in plans.servers {
                let server = match take(&mut before, &source) {
                    Some(server) => {
                        server.change(plan);
                        server
                    }
                    None => Arc::new(Server::start(plan)?),
                };
                self.servers.push((source, server));
            }
            for (_, server) in before {
                self.stop_in_background(async move { server.stop(DRAIN_TIMEOUT).await });
            }
        }
        #[cfg(feature = "client")]
        {
            let mut before = std::mem::take(&mut self.clients);
            for (source, plan) in plans.clients {
                let client = match take(&mut before, &source) {
                    Some(mut client) => {
                        client.change(plan);
                        client
                    }
                    None => Client::start(plan),
                };
                self.clients.push((source, client));
            }
            for (_, client) in before {
                self.stop_in_background(async move { client.stop(DRAIN_TIMEOUT).await });
            }
        }
        Ok(())
    }

    fn stop_in_background(&self, stopping: impl Future<Output = ()> + Send + 'static) {
        let draining = self.draining.begin();
        crate::spawn(async move {
            stopping.await;
            drop(draining);
        });
    }

    /// Plans how to apply a configuration, and changes nothing yet. The error names the file,
    /// folder or listener that cannot be used.
    pub fn plan(&self, roles: &[RoleConfig], inherited: &mut Inherited) -> io::Result<RolePlans> {
        let mut plans = RolePlans::default();
        for loaded in roles {
            let source = &loaded.source;
            let with_file = |e: io::Error| with_file(loaded, e);
            #[cfg(feature = "server")]
            if let Some(config) = loaded.role.server() {
                let running = find(&self.servers, source).map(Arc::as_ref);
                let plan = server::ServerPlan::new(config, source, running, inherited)
                    .map_err(with_file)?;
                plans.servers.push((source.clone(), plan));
            }
            #[cfg(feature = "client")]
            if let Some(config) = loaded.role.client() {
                let running = find(&self.clients, source);
                let plan = client::ClientPlan::new(config, source, running, inherited)
                    .map_err(with_file)?;
                plans.clients.push((source.clone(), plan));
            }
        }
        Ok(plans)
    }

    /// Returns the sockets and state to hand over to the child process.
    pub fn export(&self) -> Vec<Outgoing> {
        let mut items = Vec::new();
        #[cfg(feature = "server")]
        for (source, server) in &self.servers {
            items.push((Item::Role(source.clone()), None));
            items.extend(server.export());
        }
        #[cfg(feature = "client")]
        for (source, client) in &self.clients {
            items.push((Item::Role(source.clone()), None));
            items.extend(client.export());
        }
        items
    }

    /// Cancels a handover: the child process has failed.
    pub fn cancel_handover(&self) {
        #[cfg(feature = "server")]
        self.servers
            .iter()
            .for_each(|(_, server)| server.cancel_handover());
    }

    /// Whether a server is running.
    pub fn has_servers(&self) -> bool {
        #[cfg(feature = "server")]
        return !self.servers.is_empty();
        #[cfg(not(feature = "server"))]
        false
    }

    /// Tells the parent process when the servers listen and when the clients are connected.
    pub fn report_to_parent(&self, parent: ParentLink) {
        let report = |parent: &ParentLink, progress| {
            if let Err(e) = parent.report(&progress) {
                log::debug!("telling the old process: {e}");
            }
        };
        #[cfg(feature = "server")]
        let listening = match exchange::with_parent(&self.servers) {
            Some(link) => parent.report_listening(&link),
            None => parent.report(&Progress::Listening),
        };
        #[cfg(not(feature = "server"))]
        let listening = parent.report(&Progress::Listening);
        if let Err(e) = listening {
            log::debug!("telling the old process: {e}");
        }
        #[cfg(feature = "client")]
        let clients: Vec<Client> = self.clients.iter().map(|(_, c)| c.clone()).collect();
        crate::spawn(async move {
            #[cfg(feature = "client")]
            all(clients.iter().map(Client::wait_ready)).await;
            report(&parent, Progress::Connected);
            drop(parent);
            // The server may have refused a client while the old process held its id.
            #[cfg(feature = "client")]
            all(clients.iter().map(Client::retry_now)).await;
        });
    }

    /// Drains the servers after the child process has taken over their listeners.
    #[cfg(feature = "server")]
    pub async fn drain_servers(&self, link: Option<(ProcessLink, ProcessMessages)>) {
        exchange::with_child(&self.servers, link, DRAIN_TIMEOUT).await;
    }

    /// Stops the clients after those of the child process have connected.
    pub async fn drain_clients(&self) {
        #[cfg(feature = "client")]
        all(self
            .clients
            .iter()
            .map(|(_, client)| client.stop(DRAIN_TIMEOUT)))
        .await;
        self.draining.idle().await;
    }

    /// Stops all roles; streams have `patience` to finish.
    pub async fn stop(&self, patience: Duration) {
        #[cfg(feature = "client")]
        let clients = all(self.clients.iter().map(|(_, client)| client.stop(patience)));
        #[cfg(not(feature = "client"))]
        let clients = future::ready(());
        #[cfg(feature = "server")]
        let servers = all(self.servers.iter().map(|(_, server)| server.stop(patience)));
        #[cfg(not(feature = "server"))]
        let servers = future::ready(());
        let draining = timeout(patience, self.draining.idle());
        future::zip(future::zip(clients, servers), draining).await;
    }
}

/// Checks whether the files and folders that a role names can be used.
pub fn check(loaded: &RoleConfig) -> io::Result<()> {
    #[cfg(feature = "server")]
    if let Some(config) = loaded.role.server() {
        server::check(config).map_err(|e| with_file(loaded, e))?;
    }
    #[cfg(feature = "client")]
    if let Some(config) = loaded.role.client() {
        client::check(config, &loaded.source).map_err(|e| with_file(loaded, e))?;
    }
    Ok(())
}

fn with_file(loaded: &RoleConfig, e: io::Error) -> io::Error {
    match &loaded.source {
        Some(file) => io::Error::new(e.kind(), format!("{}: {e}", file.display())),
        None => e,
    }
}

fn find<'a, R>(running: &'a [(RoleSource, R)], source: &RoleSource) -> Option<&'a R> {
    let role = running.iter().find(|(other, _)| other == source);
    role.map(|(_, role)| role)
}

fn take<R>(running: &mut Vec<(RoleSource, R)>, source: &RoleSource) -> Option<R> {
    let at = running.iter().position(|(other, _)| other == source)?;
    Some(running.remove(at).1)
}

type Task<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Runs all tasks concurrently until the last one has ended.
pub fn all<'a, F>(tasks: impl Iterator<Item = F>) -> Task<'a>
where
    F: Future<Output = ()> + Send + 'a,
{
    let mut tasks: Vec<Task<'a>> = tasks.map(|task| Box::pin(task) as Task<'a>).collect();
    Box::pin(poll_fn(move |cx| {
        tasks.retain_mut(|task| task.as_mut().poll(cx).is_pending());
        match tasks.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }))
}
