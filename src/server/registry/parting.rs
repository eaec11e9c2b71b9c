//! What of the registry goes to another process with a client's tunnels, and comes from there.

use super::held::Right;
use super::{Client, Key, Login, Member, Registry, Shared, RETURNING};
use crate::config::Secret;
use crate::server::ports::{Opened, Port};
use crate::tunnel::Tunnel;
use crate::wire::frame::Refusal;
use crate::wire::hello::Offer;
use crate::wire::Version;
use std::time::Instant;

/// What the client of a tunnel offers, as far as it was granted, and the id of its last stream.
pub struct Registration {
    pub offers: Vec<Option<Offer>>,
    pub last_task: u32,
}

impl Client {
    /// Whether it has a tunnel that can serve visitors and cannot be asked to come back.
    fn stays(&self) -> bool {
        let serves = |tunnel: &Tunnel| tunnel.is_open() || tunnel.is_parked();
        let mut tunnels = self.tunnels.iter().map(|member| &member.tunnel);
        tunnels.any(|tunnel| tunnel.version() == Version::One && serves(tunnel))
    }
}

impl Registry {
    /// The older process serves the visitors of this client.
    pub fn hold(&self, id: &str, mut hosts: Vec<Key>, right: Right) {
        let mut inner = self.lock();
        let now = Instant::now();
        // The older process does not know who has come here since: nothing is taken from those.
        hosts.retain(|key| {
            let host = inner.hosts.get(key);
            let is_others = host.is_some_and(|host| *host.client != *id);
            !is_others && inner.kept.other_owner(key, id, now).is_none()
        });
        inner.held.hold(id, hosts, right);
        drop(inner);
        self.arrived.notify(usize::MAX);
    }

    /// The older process does not any more: the client is waited for. Returns its right.
    pub fn release(&self, id: &str) -> Option<Right> {
        let mut inner = self.lock();
        let (hosts, right) = inner.held.release(id)?;
        let now = Instant::now();
        inner.restarted = Some(now + RETURNING);
        for host in hosts {
            inner.kept.expect_host(host, Some(id.into()), now);
        }
        drop(inner);
        self.arrived.notify(usize::MAX);
        Some(right)
    }

    /// The same for all of them.
    pub fn release_all(&self) -> Vec<(Box<str>, Right)> {
        let clients = self.held().into_iter();
        clients
            .filter_map(|(id, _)| {
                let right = self.release(&id)?;
                Some((id, right))
            })
            .collect()
    }

    /// Whether a tunnel of this client that cannot be asked to come back serves visitors, here or
    /// in the older process.
    pub fn stays(&self, id: &str) -> bool {
        let inner = self.lock();
        inner.held.has(id) || inner.clients.get(id).is_some_and(Client::stays)
    }

    /// Waits until no client has a tunnel here that cannot be asked to come back.
    pub async fn nothing_stays(&self) {
        let is_one = |member: &Member| member.tunnel.version() == Version::One;
        loop {
            let arrival = self.arrival();
            let stays = {
                let inner = self.lock();
                let mut clients = inner.clients.values();
                clients.any(|client| client.tunnels.iter().any(is_one))
            };
            if !stays {
                return;
            }
            arrival.await;
        }
    }

    /// The clients that the older process serves, with their secrets.
    pub fn held(&self) -> Vec<(Box<str>, Secret)> {
        self.lock().held.clients()
    }

    /// The prefixes of a client, here or in the older process.
    pub fn hosts_of(&self, id: &str) -> Vec<Key> {
        let inner = self.lock();
        let here = inner.hosts.of(id).iter();
        let held = inner.held.hosts_of(id).iter();
        here.chain(held).cloned().collect()
    }

    /// Leaves the ports of clients to the process that they are shared with, but for those of
    /// clients whose tunnels stay here for a while.
    pub fn give_up_ports_but_of_those_that_stay(&self) {
        let mut inner = self.lock();
        inner.kept.close_ports();
        for client in inner.clients.values_mut() {
            if !client.stays() {
                client.ports.clear();
            }
        }
    }

    /// The ports of a client, for another process: nothing accepts on them here any more.
    pub fn take_ports(&self, id: &str) -> Vec<Shared> {
        let mut inner = self.lock();
        let Some(client) = inner.clients.get_mut(id) else {
            return Vec::new();
        };
        client.ports.sort_by_key(Port::service);
        let ports = client.ports.drain(..);
        ports.map(|mut port| port.share()).collect()
    }

    /// What of a tunnel's registration goes with it to another process. `None` if its client is
    /// about to offer other services, or has been replaced.
    pub fn registration(&self, id: &str, tunnel: &Tunnel) -> Option<Registration> {
        let inner = self.lock();
        let client = inner.member(id, tunnel)?;
        let is_it = |member: &&Member| member.tunnel.is(tunnel);
        let member = client.tunnels.iter().find(is_it)?;
        (member.version == client.version).then(|| Registration {
            offers: client.offers.clone(),
            last_task: client.last_task,
        })
    }

    /// Adds a tunnel that has come from another process, of which its client has not noticed
    /// anything. As [`Registry::join`], but a client that has come with other services since then
    /// is not replaced.
    pub fn adopt(
        &self,
        login: &Login<'_>,
        registration: Registration,
        tunnel: &Tunnel,
    ) -> Result<Vec<Opened>, Refusal> {
        let Registration { offers, last_task } = registration;
        let early = self.open_early(login, &offers);
        let mut inner = self.lock();
        let other = inner.clients.get(login.id);
        if other.is_some_and(|client| client.offers != offers && !client.tunnels.is_empty()) {
            return Err(Refusal::OtherClientConnected);
        }
        let opened = inner.admit(login, offers, early)?;
        if let Some(client) = inner.clients.get_mut(login.id) {
            // No stream's id may be one that the client has just heard.
            client.last_task = client.last_task.max(last_task);
            client.tunnels.push(Member {
                tunnel: tunnel.clone(),
                version: client.version,
            });
        }
        drop(inner);
        self.arrived.notify(usize::MAX);
        Ok(opened)
    }

    /// A port of a client that comes soon, unless it is here.
    pub fn expect_port(&self, id: &str, port: Shared) {
        let mut inner = self.lock();
        let now = Instant::now();
        if let Some(client) = inner.clients.get_mut(id) {
            if client.ports.iter().any(|its| its.port == port.port) {
                return;
            }
            // It may be the one that could not be opened because the older process had it.
            client.retry_at = now;
        }
        inner.kept.keep_port(id, port, now);
    }
}
