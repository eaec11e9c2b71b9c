//! The ports that a client asks for: which of them it has, can open or shares, and those that are missing, which
//! are tried again.

use super::host_table::HostMember;
use super::registered_client::MissingPort;
use super::shared_ports::{JoinedPort, PortStanding, PortsOfOthers};
use super::{Login, Registry, RegistryState};
use crate::net::clock;
use crate::server::ports::{
    self, InheritedPort, OpenedPort, PortFailure, PortId, PortListener, PortQuota, PortRequest,
};
use crate::wire::frame::{PortCause, RejectCode, ServiceIndex};
use crate::wire::hello::ServiceSpec;
use crate::wire::Version;
use log::Level;
use std::fmt::Display;
use std::time::{Duration, Instant};

/// Interval at which ports that could not be opened are tried again.
pub(super) const PORT_RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// A port that a client keeps: its index, the client's present request, and the service.
pub(super) type KeptPort = (usize, PortRequest, ServiceIndex);

/// A port that a client requests, and the service.
pub(super) type WantedPort = (PortRequest, ServiceIndex);

/// The ports that a client requests: those that it has, that were opened, that it shares, and that are
/// missing.
pub(super) struct SortedPorts {
    pub(super) kept: Vec<KeptPort>,
    pub(super) new: Vec<(PortListener, OpenedPort)>,
    pub(super) joined: Vec<JoinedPort>,
    /// Ports that could not be opened.
    pub(super) missing: Vec<MissingPort>,
}

/// The ports that a client requests, before any is opened.
#[derive(Default)]
pub(super) struct RequestedPorts {
    pub(super) kept: Vec<KeptPort>,
    pub(super) wanted: Vec<WantedPort>,
    pub(super) joined: Vec<JoinedPort>,
    pub(super) refused: Vec<MissingPort>,
}

impl Registry {
    /// Opens the ports that the client requests and does not have, without holding the lock.
    pub(super) fn open_early(
        &self,
        login: &Login<'_>,
        services: &[Option<ServiceSpec>],
    ) -> Vec<InheritedPort> {
        if services
            .iter()
            .flatten()
            .all(|spec| PortRequest::of(spec).is_none())
        {
            return Vec::new();
        }
        let inner = self.lock();
        let client = inner.clients.get(login.key);
        if client.is_some_and(|client| *client.services == services) {
            return Vec::new();
        }
        let mine = client.map_or(&[][..], |client| &client.ports);
        let of_others = PortsOfOthers {
            table: &inner.shared_ports,
            key: login.key,
        };
        let wanted = sort_ports(services, mine, of_others).wanted;
        let mut kept = inner.reservations.ports_of(login.id, clock::now());
        let of_group = inner.reserved_for_group(login, services);
        kept.extend(inner.reservations.ports_with(&of_group));
        drop(inner);
        let wanted: Vec<PortRequest> = wanted.into_iter().map(|(request, _)| request).collect();
        ports::open_early(login.limits, &wanted, kept)
    }

    /// Has the missing ports of a client tried again at once.
    pub fn retry_soon(&self, key: &str) {
        if let Some(client) = self.lock().clients.get_mut(key) {
            client.retry_at = clock::now();
        }
    }

    /// Whether the client has missing ports.
    pub fn misses_ports(&self, id: &str) -> bool {
        let inner = self.lock();
        let client = inner.clients.get(id);
        client.is_some_and(|client| !client.missing.is_empty())
    }

    /// Whether the client has missing ports that the caller should try to open now.
    pub fn is_retry_due(&self, id: &str) -> bool {
        let mut inner = self.lock();
        let client = inner.clients.get_mut(id);
        let Some(client) = client.filter(|client| !client.missing.is_empty()) else {
            return false;
        };
        let now = clock::now();
        let due = client.retry_at <= now;
        if due {
            client.retry_at = now + PORT_RETRY_INTERVAL;
        }
        due
    }

    /// Tries to open the missing ports and tells the client's tunnels of those that are open now.
    /// The caller has to accept on the returned ports.
    pub fn retry_ports(&self, login: &Login<'_>) -> Vec<OpenedPort> {
        let (id, key, now) = (login.id, login.key, clock::now());
        let inner = self.lock();
        let client = inner.clients.get(key);
        let missing = client.into_iter().flat_map(|client| &client.missing);
        let missing: Vec<PortRequest> = missing.map(|missing| missing.request).collect();
        let services = client.map(|client| client.services.clone());
        let services = services.unwrap_or_default();
        let of_group = inner.reserved_for_group(login, &services);
        let mut kept = inner.reservations.ports_of(id, now);
        kept.extend(inner.reservations.ports_with(&of_group));
        drop(inner);
        let early = ports::open_early(login.limits, &missing, kept);
        let mut inner = self.lock();
        let of_group = inner.reserved_for_group(login, &services);
        let mut inherited = inner.inherited_ports(id, early, &of_group, now);
        let others = inner.ports_of_siblings(key, &services);
        let RegistryState {
            clients,
            reservations,
            shared_ports,
            ..
        } = &mut *inner;
        let is_others =
            |port| !of_group.contains(&port) && reservations.is_others_port(port, id, now);
        let mut allowance = PortQuota::new(login.limits).without(&is_others);
        let mut opened = Vec::new();
        let Some(client) = clients.get_mut(key) else {
            return opened;
        };
        let ports = client.open_ports().map(|(port, _)| port);
        for port in others.into_iter().chain(ports) {
            allowance.admit(port);
        }
        let mut tries = ports::MAX_TRIES_LOCKED;
        for missing in std::mem::take(&mut client.missing) {
            let MissingPort {
                request, service, ..
            } = missing;
            let group = client.group_of(service).cloned();
            let of_others = PortsOfOthers {
                table: shared_ports,
                key,
            };
            match of_others.standing(request, group.as_ref()) {
                PortStanding::Open => {}
                PortStanding::Join if allowance.admit(request.id()) => {
                    let port = request.id();
                    client.announce(port, service);
                    client.joined.push(JoinedPort { port, service });
                    let client = key.into();
                    let member = HostMember { client, service };
                    shared_ports.insert(port, member, group.as_ref());
                    continue;
                }
                PortStanding::Join | PortStanding::Refused(_) => {
                    client.missing.push(missing);
                    continue;
                }
            }
            match ports::open(&mut allowance, &mut inherited, request, service, &mut tries) {
                Ok((port, socket)) => {
                    client.announce(port.id(), service);
                    if group.is_some() {
                        let client = key.into();
                        let member = HostMember { client, service };
                        shared_ports.insert(port.id(), member, group.as_ref());
                    }
                    client.ports.push(port);
                    opened.push(socket);
                }
                Err(failure) => {
                    log_failure(Level::Debug, id, request, service, &failure);
                    client.missing.push(missing);
                }
            }
        }
        for port in &opened {
            inner.reservations.release_port_of_all(port.id());
        }
        opened
    }
}

impl RegistryState {
    /// Returns the ports reserved for the client, and those opened `early` for it that no other
    /// client has by now.
    pub(super) fn inherited_ports(
        &self,
        id: &str,
        mut early: Vec<InheritedPort>,
        of_group: &[PortId],
        now: Instant,
    ) -> Vec<InheritedPort> {
        let mut inherited = self.reservations.ports_of(id, now);
        inherited.extend(self.reservations.ports_with(of_group));
        // A reserved number may have been opened early.
        inherited
            .retain(|port| port.listener.is_some() || early.iter().all(|e| e.id() != port.id()));
        early.retain(|port| {
            let is_its = of_group.contains(&port.id());
            is_its || !self.reservations.is_others_port(port.id(), id, now)
        });
        inherited.extend(early);
        inherited
    }
}

/// Splits the requested ports into those that the client has, those to open, those that others of its group
/// have, and those that it cannot have.
pub(super) fn sort_ports(
    services: &[Option<ServiceSpec>],
    mine: &[PortListener],
    of_others: PortsOfOthers<'_>,
) -> RequestedPorts {
    let mut sorted = RequestedPorts::default();
    for (service, spec) in ServiceIndex::all().zip(services) {
        let group = spec.as_ref().and_then(ServiceSpec::group);
        let Some(request) = spec.as_ref().and_then(PortRequest::of) else {
            continue;
        };
        let standing = of_others.standing(request, group);
        let same = mine.iter().enumerate().find(|(at, port)| {
            let is_taken = sorted.kept.iter().any(|(taken, ..)| taken == at);
            // A port that others share stays with the group.
            let may_stay = group.is_some() || !of_others.has(port.id());
            port.answers(request) && may_stay && !is_taken
        });
        let is_joined = sorted
            .joined
            .iter()
            .any(|joined| joined.port == request.id());
        match (standing, same) {
            (PortStanding::Open | PortStanding::Join, Some((at, _))) => {
                sorted.kept.push((at, request, service));
            }
            (PortStanding::Join, None) if !is_joined => {
                sorted.joined.push(JoinedPort {
                    port: request.id(),
                    service,
                });
            }
            (PortStanding::Open, None) => sorted.wanted.push((request, service)),
            (PortStanding::Join, None) => sorted.refused.push(MissingPort {
                request,
                service,
                cause: PortCause::InUse,
            }),
            (PortStanding::Refused(cause), _) => sorted.refused.push(MissingPort {
                request,
                service,
                cause,
            }),
        }
    }
    sorted
}

/// Opens the requested ports that the client does not have. Ports beyond those that it may have are missing;
/// over GT/1, which cannot report one, this fails then.
pub(super) fn open_requested_ports(
    login: &Login<'_>,
    mut allowance: PortQuota<'_>,
    services: &[Option<ServiceSpec>],
    (mine, of_others): (&[PortListener], PortsOfOthers<'_>),
    mut inherited: Vec<InheritedPort>,
) -> Result<SortedPorts, RejectCode> {
    let id = login.id;
    let RequestedPorts {
        mut kept,
        wanted,
        mut joined,
        refused: mut missing,
    } = sort_ports(services, mine, of_others);
    for missing in &missing {
        let group = services.get(missing.service.as_usize());
        let group = group.and_then(|spec| spec.as_ref()?.group());
        let why = of_others.why_refused(missing.request, group);
        log_failure(Level::Warn, id, missing.request, missing.service, &why);
    }
    let mut excess: Vec<(PortRequest, ServiceIndex)> = Vec::new();
    kept.retain(|(at, request, service)| {
        let is_admitted = mine.get(*at).is_some_and(|port| allowance.admit(port.id()));
        if !is_admitted {
            excess.push((*request, *service));
        }
        is_admitted
    });
    joined.retain(|joined| {
        let (protocol, port) = joined.port;
        let is_admitted = allowance.admit(joined.port);
        if is_admitted {
            log::debug!("id={id} shares {protocol} port {port} with its group");
        } else {
            let request = PortRequest {
                protocol,
                random: false,
                port,
            };
            excess.push((request, joined.service));
        }
        is_admitted
    });
    for (request, service) in excess {
        let failure = PortFailure::TooMany;
        log_failure(Level::Warn, id, request, service, &failure);
        missing.push(MissingPort {
            request,
            service,
            cause: failure.cause(),
        });
    }
    let (mut new, mut tries) = (Vec::new(), ports::MAX_TRIES_LOCKED);
    for (request, service) in wanted {
        match ports::open(&mut allowance, &mut inherited, request, service, &mut tries) {
            Ok(opened) => new.push(opened),
            Err(failure) => {
                log_failure(Level::Warn, id, request, service, &failure);
                missing.push(MissingPort {
                    request,
                    service,
                    cause: failure.cause(),
                });
            }
        }
    }
    let is_excess = |missing: &MissingPort| missing.cause == PortCause::TooMany;
    if login.version == Version::One && missing.iter().any(is_excess) {
        return Err(RejectCode::TooManyPorts);
    }
    Ok(SortedPorts {
        kept,
        new,
        joined,
        missing,
    })
}

/// Logs why a port could not be opened.
pub(super) fn log_failure(
    level: Level,
    id: &str,
    request: PortRequest,
    service: ServiceIndex,
    failure: &dyn Display,
) {
    let (protocol, port) = request.id();
    log::log!(
        level,
        "cannot open {protocol} port {port} for service {service} id={id}: {failure}"
    );
}
