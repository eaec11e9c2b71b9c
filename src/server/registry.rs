//! Which client serves what: ids, host prefixes and ports, and the tunnels behind them. The
//! only place that knows more than one connection.

mod survey;

use super::ports::{self, Allowance, Asked, Opened, Port, Shared};
use crate::config::{is_host_prefix, Limits};
use crate::tunnel::{Stream, Traffic, Tunnel};
use crate::wire::frame::{next_task, Refusal, Signal};
use crate::wire::hello::Offer;
use event_listener::{Event, EventListener};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
#[cfg(test)]
pub use survey::READ_HERE;
pub use survey::{Order, Seen, Sum};

/// A prefix that has lost its last tunnel is waited for so long after.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Prefixes that are remembered at most.
const MOST_REMEMBERED: usize = 4096;

/// What a host prefix is matched with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An HTTP header.
    Http,
    /// The server name of a TLS hello.
    Tls,
}

/// What became of a visitor's wish.
pub enum Opening {
    Stream(Stream),
    /// The client is known, but has no tunnel at this moment.
    NotNow,
    /// Nobody serves this, and nobody did lately.
    Unknown,
}

#[derive(Default)]
pub struct Registry {
    inner: Mutex<Inner>,
    /// Somebody has registered.
    arrived: Event,
}

#[derive(Default)]
struct Inner {
    clients: HashMap<Box<str>, Client>,
    hosts: Hosts,
    remembered: HashMap<Key, Instant>,
    /// Ports of clients that have not come back yet.
    inherited: HashMap<Box<str>, Vec<Shared>>,
    /// What clients that have left have moved.
    past: Traffic,
}

type Hosts = HashMap<Key, Host>;

/// A host prefix, in lower case, and what it is matched with.
pub type Key = (Kind, Box<str>);

#[derive(PartialEq, Eq)]
struct Host {
    client: Box<str>,
    service: u16,
}

/// One id with at least one tunnel.
struct Client {
    offers: Vec<Option<Offer>>,
    /// Counts the changes of the offers.
    version: u32,
    tunnels: Vec<Member>,
    /// Tunnels of the registration before, and what they offered.
    old: Option<Old>,
    ports: Vec<Port>,
    last_task: u32,
    /// When its first tunnel came.
    since: SystemTime,
    /// What its tunnels that have ended have moved.
    past: Traffic,
    /// Whether surveys tell of it.
    listed: bool,
}

impl Client {
    /// Whether streams to it can be opened.
    fn is_served(&self) -> bool {
        self.tunnels.iter().any(|member| member.tunnel.is_open())
    }

    fn all_tunnels(&self) -> impl Iterator<Item = &Tunnel> {
        let old = self.old.iter().flat_map(|old| old.tunnels.iter());
        self.tunnels.iter().map(|member| &member.tunnel).chain(old)
    }
}

struct Member {
    tunnel: Tunnel,
    /// The version of the offers that its client's end has.
    version: u32,
}

struct Old {
    offers: Vec<Option<Offer>>,
    tunnels: Vec<Tunnel>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a tunnel to the client's registration, or makes or replaces it, and tells the
    /// client. An offer that is not granted is `None`: only its index counts. The ports that
    /// were opened for it have to be served by the caller. A client that is not `listed` is
    /// left out of surveys.
    pub fn join(
        &self,
        id: &str,
        limits: &Limits,
        offers: Vec<Option<Offer>>,
        tunnel: &Tunnel,
        listed: bool,
    ) -> Result<Vec<Opened>, Refusal> {
        let mut inner = self.lock();
        let mut opened = Vec::new();
        if let Some(client) = inner.clients.get_mut(id) {
            if client.offers == offers {
                let most = usize::try_from(limits.connections).unwrap_or(usize::MAX);
                let open = client.tunnels.iter().filter(|m| m.tunnel.is_open());
                if most > 0 && open.count() >= most {
                    return Err(Refusal::TooManyConnections);
                }
            } else if client.old.as_ref().is_some_and(|old| old.offers == offers) {
                return Err(Refusal::OtherClientConnected);
            } else {
                let before = inner.register(id, limits, offers, &mut opened)?;
                inner.retire(id, before);
            }
        } else {
            inner.register(id, limits, offers, &mut opened)?;
        }
        inner.welcome(id, tunnel, Signal::Ready);
        if let Some(client) = inner.clients.get_mut(id) {
            client.listed = listed;
        }
        drop(inner);
        self.arrived.notify(usize::MAX);
        Ok(opened)
    }

    /// Changes what the client offers, from one of its tunnels; running streams and the other
    /// tunnels go on. Those get new streams again when they have brought the same change.
    pub fn update(
        &self,
        id: &str,
        limits: &Limits,
        offers: Vec<Option<Offer>>,
        tunnel: &Tunnel,
    ) -> Result<Vec<Opened>, Refusal> {
        let mut inner = self.lock();
        let mut opened = Vec::new();
        let Some(client) = inner.member(id, tunnel) else {
            // A tunnel that was replaced has no say, but what runs on it may finish.
            tunnel.signal(Signal::Services);
            return Ok(opened);
        };
        if client.offers != offers {
            inner.register(id, limits, offers, &mut opened)?;
        }
        if let Some(client) = inner.clients.get_mut(id) {
            client.tunnels.retain(|member| !member.tunnel.is(tunnel));
        }
        inner.welcome(id, tunnel, Signal::Services);
        drop(inner);
        self.arrived.notify(usize::MAX);
        Ok(opened)
    }

    /// What the client was granted is held against other limits. If they would not give it
    /// that, its registration ends: its tunnels drain, and when it comes again it is told
    /// why.
    pub fn hold_against(&self, id: &str, limits: &Limits) -> Result<(), Refusal> {
        let mut inner = self.lock();
        let Some(client) = inner.clients.get(id) else {
            return Ok(());
        };
        let mut allowance = Allowance::new(limits);
        let ports = client.ports.iter().all(|port| allowance.admit(port.port));
        let verdict = match inner.wanted_hosts(id, limits, &client.offers) {
            Ok(hosts) if ports && inner.has(id, &hosts) => Ok(()),
            // It goes by other names now.
            Ok(_) if ports => Err(Refusal::HostNotAllowed),
            Ok(_) => Err(Refusal::TooManyPorts),
            Err(refusal) => Err(refusal),
        };
        if verdict.is_err() {
            inner.dismiss(id);
            return verdict;
        }
        let most = usize::try_from(limits.connections).unwrap_or(usize::MAX);
        let tunnels = inner
            .clients
            .get(id)
            .into_iter()
            .flat_map(|client| &client.tunnels);
        let open = tunnels.filter(|member| member.tunnel.is_open());
        open.skip(if most > 0 { most } else { usize::MAX })
            .for_each(|member| member.tunnel.close());
        Ok(())
    }

    /// Every prefix that somebody serves, or did lately.
    pub fn hosts(&self) -> Vec<Key> {
        let inner = self.lock();
        let lately = inner.remembered.iter();
        let lately = lately.filter(|(_, lost)| lost.elapsed() < REMEMBERED);
        let all = inner.hosts.keys().chain(lately.map(|(key, _)| key));
        all.cloned().collect()
    }

    /// Every port and whose it is, for another process; those of one client in the order of its
    /// services.
    pub fn share_ports(&self) -> Vec<(Box<str>, Shared)> {
        let mut inner = self.lock();
        let mut shared = Vec::new();
        for (id, client) in &mut inner.clients {
            client.ports.sort_by_key(Port::service);
            let ports = client.ports.iter_mut().map(Port::share);
            shared.extend(ports.map(|port| (id.clone(), port)));
        }
        for (id, ports) in &inner.inherited {
            shared.extend(ports.iter().map(|port| (id.clone(), port.clone())));
        }
        shared
    }

    /// No other process has taken the ports.
    pub fn keep_ports(&self) {
        for client in self.lock().clients.values_mut() {
            client.ports.iter_mut().for_each(Port::keep);
        }
    }

    /// Leaves all ports to the process that they are shared with.
    pub fn give_up_ports(&self) {
        let mut inner = self.lock();
        inner.inherited.clear();
        for client in inner.clients.values_mut() {
            client.ports.clear();
        }
    }

    /// Clients that had these will be back soon.
    pub fn expect(&self, hosts: Vec<Key>, ports: Vec<(Box<str>, Shared)>) {
        let mut inner = self.lock();
        let now = Instant::now();
        for host in hosts {
            inner.remembered.insert(host, now);
        }
        for (id, port) in ports {
            inner.inherited.entry(id).or_default().push(port);
        }
    }

    /// Closes the ports of those that did not come back.
    pub fn expect_no_more(&self) {
        self.lock().inherited.clear();
    }

    /// Whether the tunnel belongs to the client's present registration.
    pub fn counts(&self, id: &str, tunnel: &Tunnel) -> bool {
        self.lock().member(id, tunnel).is_some()
    }

    /// A tunnel has ended, and moves no more bytes. With the last one the registration ends.
    pub fn leave(&self, id: &str, tunnel: &Tunnel) {
        let mut inner = self.lock();
        let Some(client) = inner.clients.get_mut(id) else {
            return;
        };
        client.past += tunnel.traffic();
        client.tunnels.retain(|member| !member.tunnel.is(tunnel));
        if let Some(old) = &mut client.old {
            old.tunnels.retain(|other| !other.is(tunnel));
            if old.tunnels.is_empty() {
                client.old = None;
            }
        }
        if client.tunnels.is_empty() {
            // What drains from the registration before is still remembered.
            client.offers.clear();
            client.ports.clear();
            let (listed, past) = (client.listed, client.past);
            if client.old.is_none() {
                inner.clients.remove(id);
                if listed {
                    inner.past += past;
                }
            }
            inner.forget_hosts(id, listed);
        }
    }

    /// A stream to whoever serves the prefix.
    pub fn open_host(&self, kind: Kind, prefix: &str) -> Opening {
        let mut inner = self.lock();
        let key = (kind, Box::from(prefix));
        match inner.hosts.get(&key) {
            Some(host) => {
                let (id, service) = (host.client.clone(), host.service);
                inner.open(&id, service)
            }
            None => match inner.remembered.get(&key) {
                Some(lost) if lost.elapsed() < REMEMBERED => Opening::NotNow,
                _ => Opening::Unknown,
            },
        }
    }

    /// Opens a stream to the service that a client's TCP port belongs to now: the client may have
    /// changed its services since the visitor connected.
    pub fn open_port(&self, id: &str, port: u16) -> Opening {
        let mut inner = self.lock();
        let client = inner.clients.get(id);
        let mut ports = client.into_iter().flat_map(|client| &client.ports);
        match ports.find(|other| other.port == port).map(Port::service) {
            Some(service) => inner.open(id, service),
            None => Opening::NotNow,
        }
    }

    /// Opens no more streams on a tunnel whose client has changed its services, while the
    /// registration stays as it is: an index would mean another service to that client.
    pub fn set_aside(&self, id: &str, tunnel: &Tunnel) {
        let mut inner = self.lock();
        let Some(client) = inner.clients.get_mut(id) else {
            return;
        };
        let mut members = client.tunnels.iter_mut();
        if let Some(member) = members.find(|member| member.tunnel.is(tunnel)) {
            member.version = client.version.wrapping_sub(1);
        }
    }

    /// Hears of the next registration.
    pub fn arrival(&self) -> EventListener {
        self.arrived.listen()
    }

    /// Every tunnel there is.
    pub fn tunnels(&self) -> Vec<Tunnel> {
        let inner = self.lock();
        let clients = inner.clients.values().flat_map(Client::all_tunnels);
        clients.cloned().collect()
    }
}

impl Inner {
    fn member(&self, id: &str, tunnel: &Tunnel) -> Option<&Client> {
        let client = self.clients.get(id)?;
        let mut tunnels = client.tunnels.iter();
        tunnels
            .any(|member| member.tunnel.is(tunnel))
            .then_some(client)
    }

    /// Makes `offers` what the client serves. Nothing has changed if it is refused. Returns
    /// what it offered before.
    fn register(
        &mut self,
        id: &str,
        limits: &Limits,
        offers: Vec<Option<Offer>>,
        opened: &mut Vec<Opened>,
    ) -> Result<Vec<Option<Offer>>, Refusal> {
        let hosts = self.wanted_hosts(id, limits, &offers)?;
        let client = self.clients.remove(id);
        let before = client.as_ref().map_or(&[][..], |client| &client.ports);
        let inherited = self.inherited.remove(id).unwrap_or_default();
        let (kept, new) = match wanted_ports(limits, &offers, before, inherited) {
            Ok(ports) => ports,
            Err(refusal) => {
                if let Some(client) = client {
                    self.clients.insert(id.into(), client);
                }
                return Err(refusal);
            }
        };
        let mut client = client.unwrap_or(Client {
            offers: Vec::new(),
            version: 0,
            tunnels: Vec::new(),
            old: None,
            ports: Vec::new(),
            last_task: 0,
            since: SystemTime::now(),
            past: Traffic::default(),
            listed: true,
        });
        let mut at = 0;
        client.ports.retain_mut(|port| {
            let keep = kept.iter().find(|(kept, ..)| *kept == at);
            at += 1;
            keep.inspect(|(_, asked, service)| port.belongs_to(*asked, *service))
                .is_some()
        });
        for (port, socket) in new {
            client.ports.push(port);
            opened.push(socket);
        }
        client.version = client.version.wrapping_add(1);
        let before = std::mem::replace(&mut client.offers, offers);
        self.clients.insert(id.into(), client);
        self.forget_hosts(id, true);
        for (key, service) in hosts {
            self.remembered.remove(&key);
            let client = id.into();
            let host = Host { client, service };
            if let Some(former) = self.hosts.insert(key, host) {
                // When it comes again it has to ask for its prefixes anew.
                self.dismiss(&former.client);
            }
        }
        Ok(before)
    }

    /// The host prefixes of `offers`, if the client may have them.
    fn wanted_hosts(
        &self,
        id: &str,
        limits: &Limits,
        offers: &[Option<Offer>],
    ) -> Result<Vec<(Key, u16)>, Refusal> {
        let rules = &limits.hosts;
        let mut wanted: Vec<(Key, u16)> = Vec::new();
        for (service, offer) in (0u16..).zip(offers) {
            let Some(Offer::Host { tls, prefix }) = offer else {
                continue;
            };
            let prefix = match prefix {
                None => id.to_ascii_lowercase(),
                Some(prefix) => {
                    let allowed = rules.regex.iter().any(|regex| regex.is_match(prefix));
                    if !allowed && !rules.regex.is_empty() {
                        return Err(Refusal::HostNotAllowed);
                    }
                    let prefix = prefix.to_ascii_lowercase();
                    if rules.with_id {
                        format!("{}-{prefix}", id.to_ascii_lowercase())
                    } else {
                        prefix
                    }
                }
            };
            // No visitor can ask for any other, and pages and logs show them.
            if !is_host_prefix(&prefix) {
                return Err(Refusal::HostNotAllowed);
            }
            let kind = if *tls { Kind::Tls } else { Kind::Http };
            let key: Key = (kind, prefix.into_boxed_str());
            let taken = self.hosts.get(&key).is_some_and(|host| {
                // Who is about to leave, or is to, has no claim any more.
                let owner = self.clients.get(&host.client);
                *host.client != *id && owner.is_some_and(Client::is_served)
            });
            if taken || wanted.iter().any(|(other, _)| *other == key) {
                return Err(Refusal::HostConflict);
            }
            wanted.push((key, service));
        }
        let most = usize::try_from(rules.number).unwrap_or(usize::MAX);
        if most > 0 && wanted.len() > most {
            return Err(Refusal::TooManyHosts);
        }
        Ok(wanted)
    }

    /// Whether the client has these prefixes and no others.
    fn has(&self, id: &str, hosts: &[(Key, u16)]) -> bool {
        let mine = self.hosts.values().filter(|host| *host.client == *id);
        let has = |(key, _): &(Key, u16)| {
            let host = self.hosts.get(key);
            host.is_some_and(|host| *host.client == *id)
        };
        mine.count() == hosts.len() && hosts.iter().all(has)
    }

    /// The client's registration ends, as if its tunnels had; they drain.
    fn dismiss(&mut self, id: &str) {
        // What it offered does not matter any more: it may come with the same again.
        self.retire(id, Vec::new());
        if let Some(client) = self.clients.get_mut(id) {
            client.offers.clear();
            client.ports.clear();
        }
        self.forget_hosts(id, true);
    }

    /// The tunnels of the registration before drain.
    fn retire(&mut self, id: &str, offers: Vec<Option<Offer>>) {
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        if client.tunnels.is_empty() {
            return;
        }
        let mut tunnels: Vec<Tunnel> = client.tunnels.drain(..).map(|m| m.tunnel).collect();
        for tunnel in &tunnels {
            tunnel.close();
        }
        if let Some(old) = client.old.take() {
            tunnels.extend(old.tunnels);
        }
        client.old = Some(Old { offers, tunnels });
    }

    /// Tells the client of its ports, then `done`; from here on it may get streams.
    fn welcome(&mut self, id: &str, tunnel: &Tunnel, done: Signal) {
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        for port in &client.ports {
            tunnel.signal(Signal::PortOpened {
                service: port.service(),
                port: port.port,
            });
        }
        tunnel.signal(done);
        client.tunnels.push(Member {
            tunnel: tunnel.clone(),
            version: client.version,
        });
    }

    /// Takes the client's prefixes away, and may `remember` them for a while.
    fn forget_hosts(&mut self, id: &str, remember: bool) {
        let now = Instant::now();
        let remembered = &mut self.remembered;
        remembered.retain(|_, lost| now.duration_since(*lost) < REMEMBERED);
        self.hosts.retain(|key, host| {
            if *host.client != *id {
                return true;
            }
            if remember && remembered.len() < MOST_REMEMBERED {
                remembered.insert(key.clone(), now);
            }
            false
        });
    }

    fn open(&mut self, id: &str, service: u16) -> Opening {
        let Some(client) = self.clients.get_mut(id) else {
            return Opening::NotNow;
        };
        let current = client
            .tunnels
            .iter()
            .filter(|m| m.version == client.version);
        let loads = current.filter_map(|member| {
            let tunnel = &member.tunnel;
            Some(((tunnel.is_doubtful(), tunnel.load()?), tunnel))
        });
        let Some((_, tunnel)) = loads.min_by_key(|(load, _)| *load) else {
            return Opening::NotNow;
        };
        // After four thousand million tasks an old one may still be there.
        for _ in 0..64 {
            client.last_task = next_task(client.last_task);
            if let Some(stream) = tunnel.open(client.last_task, service) {
                return Opening::Stream(stream);
            }
        }
        Opening::NotNow
    }
}

/// Ports to keep (their place in `mine`, and what they are now), and ports that were opened.
type Ports = (Vec<(usize, Asked, u16)>, Vec<(Port, Opened)>);

fn wanted_ports(
    limits: &Limits,
    offers: &[Option<Offer>],
    mine: &[Port],
    mut inherited: Vec<Shared>,
) -> Result<Ports, Refusal> {
    let mut kept: Vec<(usize, Asked, u16)> = Vec::new();
    let mut missing = Vec::new();
    for (service, offer) in (0u16..).zip(offers) {
        let Some(Offer::Tcp { random, port }) = *offer else {
            continue;
        };
        let asked = Asked { random, port };
        let same = mine
            .iter()
            .enumerate()
            .find(|(at, port)| port.answers(asked) && !kept.iter().any(|(taken, ..)| taken == at));
        match same {
            Some((at, _)) => kept.push((at, asked, service)),
            None => missing.push((asked, service)),
        }
    }
    let mut allowance = Allowance::new(limits);
    for port in kept.iter().filter_map(|(at, ..)| mine.get(*at)) {
        if !allowance.admit(port.port) {
            return Err(Refusal::TooManyPorts);
        }
    }
    let mut new = Vec::new();
    for (asked, service) in missing {
        let (port, opened) = ports::open(&mut allowance, &mut inherited, asked, service)?;
        new.push((port, opened));
    }
    Ok((kept, new))
}
