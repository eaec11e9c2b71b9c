//! A registered client: its tunnels, services and ports. Not how it gets them, see `admission`.

use super::conflict::RegistrationConflict;
use super::health::DownServices;
use super::shared_ports::JoinedPort;
use super::SharedServices;
use crate::logging::LogThrottle;
use crate::server::ports::{PortId, PortListener, PortRequest};
use crate::server::users::{Credentials, LoginProof};
use crate::tunnel::{Traffic, Tunnel};
use crate::wire::frame::{PortCause, ServiceIndex, Signal, StreamId};
use crate::wire::hello::{GroupSpec, ServiceSpec};
use crate::wire::Version;
use smallvec::SmallVec;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// A client: one id with at least one tunnel.
pub(super) struct RegisteredClient {
    /// Shared with the tunnels whose client's end has the same.
    pub(super) services: SharedServices,
    pub(super) tunnels: SmallVec<[PoolEntry; 1]>,
    /// Tunnels of the previous registration, with its services.
    pub(super) draining: Option<Box<Draining>>,
    pub(super) ports: Vec<PortListener>,
    /// Ports whose listeners other members of a group have.
    pub(super) joined: Vec<JoinedPort>,
    /// Services whose ports could not be opened.
    pub(super) missing: Vec<MissingPort>,
    /// When the missing ports are tried again.
    pub(super) retry_at: Instant,
    pub(super) last_stream: StreamId,
    /// When the client's first tunnel registered.
    pub(super) since: SystemTime,
    /// Traffic of the client's tunnels that have ended.
    pub(super) past_traffic: Traffic,
    pub(super) proof: LoginProof,
    /// The credentials of the latest tunnel, for the next ones to share.
    pub(super) credentials: Option<Arc<Credentials>>,
    /// The address that the latest tunnel came from.
    pub(super) peer: SocketAddr,
    pub(super) conflict: RegistrationConflict,
    /// Limits the log lines about changed services, since a client can change them as often as it likes. In a
    /// box: few clients change any.
    pub(super) change_lines: Option<Box<LogThrottle>>,
}

impl RegisteredClient {
    /// Whether snapshots include the client.
    pub(super) fn is_listed(&self) -> bool {
        self.proof != LoginProof::SelfTest
    }

    /// Returns the tunnels that take streams.
    pub(super) fn open_tunnels(&self) -> impl Iterator<Item = &Tunnel> {
        let tunnels = self.tunnels.iter().map(|member| &member.tunnel);
        tunnels.filter(|tunnel| tunnel.is_open())
    }

    /// Whether the registration has a tunnel that takes streams.
    pub(super) fn is_alive(&self) -> bool {
        self.open_tunnels().next().is_some()
    }

    /// Whether the registration has replaced one with these services, of which tunnels still drain.
    pub(super) fn has_replaced(&self, services: &[Option<ServiceSpec>]) -> bool {
        let old = self.draining.as_ref();
        old.is_some_and(|old| *old.services == services)
    }

    /// Tells the client's tunnels of a port that was opened after they were ready. Not over GT/1,
    /// which allows this message only before *ready*.
    pub(super) fn announce(&self, (_, port): PortId, service: ServiceIndex) {
        let members = self.tunnels.iter();
        for member in members.filter(|member| self.is_current(member)) {
            if member.tunnel.version() == Version::Two {
                member.tunnel.signal(Signal::PortOpened { service, port });
            }
        }
    }

    /// Whether the client's end of a tunnel has the services of the registration.
    pub(super) fn is_current(&self, member: &PoolEntry) -> bool {
        let its = member.services.as_ref();
        its.is_some_and(|its| Arc::ptr_eq(its, &self.services))
    }

    /// Shares services with a tunnel whose client's end has the same: a change and its reversal
    /// may come over a slow tunnel after they have come over the others.
    pub(super) fn share(&self, services: Vec<Option<ServiceSpec>>) -> SharedServices {
        let mut known = self.tunnels.iter().filter_map(|it| it.services.as_ref());
        let same = known.find(|known| ***known == services);
        same.cloned().unwrap_or_else(|| Arc::new(services))
    }

    /// Whether the tunnels that take streams have other services than the registration, and none is
    /// about to change them. An old process of a client may have sent its last change over its own
    /// tunnel after the tunnels of the new process had registered: the new process does not know of
    /// it and must register again.
    pub(super) fn is_left_behind(&self) -> bool {
        let open = || self.tunnels.iter().filter(|it| it.tunnel.is_open());
        let has_other = |it: &PoolEntry| it.services.is_some() && !self.is_current(it);
        open().next().is_some() && open().all(has_other)
    }

    /// Returns the open ports, with their services.
    pub(super) fn open_ports(&self) -> impl Iterator<Item = (PortId, ServiceIndex)> + '_ {
        let ports = self.ports.iter().map(|port| (port.id(), port.service()));
        let joined = self.joined.iter().map(|port| (port.port, port.service));
        ports.chain(joined)
    }

    /// Returns the group of a service.
    pub(super) fn group_of(&self, service: ServiceIndex) -> Option<&GroupSpec> {
        let spec = self.services.get(service.as_usize())?;
        spec.as_ref()?.group()
    }

    pub(super) fn all_tunnels(&self) -> impl Iterator<Item = &Tunnel> {
        let old = self.draining.iter().flat_map(|old| old.tunnels.iter());
        self.tunnels.iter().map(|member| &member.tunnel).chain(old)
    }
}

pub(super) struct MissingPort {
    pub(super) request: PortRequest,
    pub(super) service: ServiceIndex,
    pub(super) cause: PortCause,
}

pub(super) struct PoolEntry {
    pub(super) tunnel: Tunnel,
    /// The services that the client's end of the tunnel has; `None` while a change of them is
    /// pending.
    pub(super) services: Option<SharedServices>,
    /// The services that are down, as its client has told in this tunnel. In a box: few tunnels have any.
    pub(super) down: Option<Box<DownServices>>,
}

impl PoolEntry {
    /// Creates the entry of a tunnel whose client's end has these services.
    pub(super) fn new(tunnel: &Tunnel, services: &SharedServices) -> Self {
        Self {
            tunnel: tunnel.clone(),
            services: Some(services.clone()),
            down: None,
        }
    }
}

pub(super) struct Draining {
    pub(super) services: SharedServices,
    pub(super) tunnels: Vec<Tunnel>,
}
