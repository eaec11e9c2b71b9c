//! The roles that run in this process, each known by the file that it comes from.

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

/// How long what runs may take to finish once another process has taken this one's place, or
/// the role is not wanted any more.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(120);

pub type RoleSource = Option<PathBuf>;

/// In the order in which they were started. A clone knows the same roles.
#[derive(Clone, Default)]
pub struct RunningRoles {
    #[cfg(feature = "server")]
    servers: Vec<(RoleSource, Arc<Server>)>,
    #[cfg(feature = "client")]
    clients: Vec<(RoleSource, Client)>,
    /// Roles that are not wanted any more, and end.
    leaving: WaitGroup,
}

/// What each role needs to start, or to go on.
#[derive(Default)]
pub struct RolePlans {
    #[cfg(feature = "server")]
    servers: Vec<(RoleSource, server::ServerPlan)>,
    #[cfg(feature = "client")]
    clients: Vec<(RoleSource, client::ClientPlan)>,
}

impl RunningRoles {
    /// Starts what is new, changes what runs, and ends what is not wanted any more. Servers
    /// first: clients in the same process find them there. The error says that the system has
    /// no random numbers.
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
                self.leave(async move { server.stop(DRAIN_TIMEOUT).await });
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
                self.leave(async move { client.stop(DRAIN_TIMEOUT).await });
            }
        }
        Ok(())
    }

    fn leave(&self, stopping: impl Future<Output = ()> + Send + 'static) {
        let leaving = self.leaving.begin();
        crate::spawn(async move {
            stopping.await;
            drop(leaving);
        });
    }

    /// How to become what the configuration says. Nothing has changed if that cannot be done;
    /// the error says which file, folder or listener is the reason.
    pub fn plan(&self, roles: &[RoleConfig], legacy: &mut Inherited) -> io::Result<RolePlans> {
        let mut plans = RolePlans::default();
        for loaded in roles {
            let source = &loaded.source;
            let in_file = |e: io::Error| in_file(loaded, e);
            #[cfg(feature = "server")]
            if let Some(config) = loaded.role.server() {
                let running = find(&self.servers, source).map(Arc::as_ref);
                let plan =
                    server::ServerPlan::new(config, source, running, legacy).map_err(in_file)?;
                plans.servers.push((source.clone(), plan));
            }
            #[cfg(feature = "client")]
            if let Some(config) = loaded.role.client() {
                let running = find(&self.clients, source);
                let plan =
                    client::ClientPlan::new(config, source, running, legacy).map_err(in_file)?;
                plans.clients.push((source.clone(), plan));
            }
        }
        Ok(plans)
    }

    /// What the process that takes this one's place is given.
    pub fn export(&self) -> Vec<Outgoing> {
        let mut pieces = Vec::new();
        #[cfg(feature = "server")]
        for (source, server) in &self.servers {
            pieces.push((Item::Role(source.clone()), None));
            pieces.extend(server.export());
        }
        #[cfg(feature = "client")]
        for (source, client) in &self.clients {
            pieces.push((Item::Role(source.clone()), None));
            pieces.extend(client.export());
        }
        pieces
    }

    /// No process takes this one's place after all.
    pub fn keep(&self) {
        #[cfg(feature = "server")]
        self.servers.iter().for_each(|(_, server)| server.keep());
    }

    /// Whether there is a role that others come to.
    pub fn serves(&self) -> bool {
        #[cfg(feature = "server")]
        return !self.servers.is_empty();
        #[cfg(not(feature = "server"))]
        false
    }

    /// Tells the process whose place this one takes when it can go.
    pub fn succeed(&self, heir: ParentLink) {
        let say = |heir: &ParentLink, word| {
            if let Err(e) = heir.say(&word) {
                log::debug!("telling the old process: {e}");
            }
        };
        #[cfg(feature = "server")]
        let listening = match exchange::with_parent(&self.servers) {
            Some(link) => heir.say_listening(&link),
            None => heir.say(&Progress::Listening),
        };
        #[cfg(not(feature = "server"))]
        let listening = heir.say(&Progress::Listening);
        if let Err(e) = listening {
            log::debug!("telling the old process: {e}");
        }
        #[cfg(feature = "client")]
        let clients: Vec<Client> = self.clients.iter().map(|(_, c)| c.clone()).collect();
        crate::spawn(async move {
            #[cfg(feature = "client")]
            all(clients.iter().map(Client::wait_ready)).await;
            say(&heir, Progress::Connected);
            drop(heir);
            // Who was refused because of the old process tries again.
            #[cfg(feature = "client")]
            all(clients.iter().map(Client::retry_now)).await;
        });
    }

    /// Another process accepts what comes from now on.
    #[cfg(feature = "server")]
    pub async fn servers_make_way(&self, link: Option<(ProcessLink, ProcessMessages)>) {
        exchange::with_child(&self.servers, link, DRAIN_TIMEOUT).await;
    }

    /// Another process has tunnels in place of these.
    pub async fn clients_make_way(&self) {
        #[cfg(feature = "client")]
        all(self
            .clients
            .iter()
            .map(|(_, client)| client.stop(DRAIN_TIMEOUT)))
        .await;
        self.leaving.idle().await;
    }

    /// Lets what runs finish for as long as `patience`.
    pub async fn stop(&self, patience: Duration) {
        #[cfg(feature = "client")]
        let clients = all(self.clients.iter().map(|(_, client)| client.stop(patience)));
        #[cfg(not(feature = "client"))]
        let clients = future::ready(());
        #[cfg(feature = "server")]
        let servers = all(self.servers.iter().map(|(_, server)| server.stop(patience)));
        #[cfg(not(feature = "server"))]
        let servers = future::ready(());
        let leaving = timeout(patience, self.leaving.idle());
        future::zip(future::zip(clients, servers), leaving).await;
    }
}

/// Whether the files and folders that a role names can be used.
pub fn check(loaded: &RoleConfig) -> io::Result<()> {
    #[cfg(feature = "server")]
    if let Some(config) = loaded.role.server() {
        server::check(config).map_err(|e| in_file(loaded, e))?;
    }
    #[cfg(feature = "client")]
    if let Some(config) = loaded.role.client() {
        client::check(config, &loaded.source).map_err(|e| in_file(loaded, e))?;
    }
    Ok(())
}

fn in_file(loaded: &RoleConfig, e: io::Error) -> io::Error {
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

/// Waits for all of them, at the same time.
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
