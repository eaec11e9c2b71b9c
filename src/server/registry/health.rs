//! Services that are down, as their clients have told (docs/wire.md, "States of services").

use super::domains::domain_of;
use super::registered_client::{PoolEntry, RegisteredClient};
use super::{Registry, RegistryState};
use crate::logging::LogThrottle;
use crate::tunnel::Tunnel;
use crate::wire::frame::ServiceIndex;
use crate::wire::hello::ServiceSpec;

/// Maximum number of further lines about the services of a tunnel in the minute after one.
const MORE_LINES: u16 = 19;

/// The services that are down, as a client has reported in one tunnel.
pub(super) struct DownServices {
    services: Vec<ServiceIndex>,
    /// Limits the log lines, since a client can report as often as it likes.
    lines: LogThrottle,
}

impl Default for DownServices {
    fn default() -> Self {
        Self {
            services: Vec::new(),
            lines: LogThrottle::with_more(MORE_LINES),
        }
    }
}

impl PoolEntry {
    /// Whether the client has told in this tunnel that a service is down.
    pub(super) fn is_down(&self, service: ServiceIndex) -> bool {
        let mut down = self.down.iter().flat_map(|down| &down.services);
        down.any(|down| *down == service)
    }
}

impl RegisteredClient {
    /// Whether a service is down: on all tunnels that visitors may take, and on one at least.
    pub(super) fn is_down(&self, service: ServiceIndex) -> bool {
        let current = self.tunnels.iter().filter(|member| self.is_current(member));
        let mut open = current.filter(|member| member.tunnel.is_open()).peekable();
        open.peek().is_some() && open.all(|member| member.is_down(service))
    }

    /// Returns the services that are down, in order.
    pub(super) fn down(&self) -> Vec<ServiceIndex> {
        let current = self.tunnels.iter().filter(|member| self.is_current(member));
        let open = current.filter(|member| member.tunnel.is_open());
        let (mut tunnels, mut told) = (0usize, Vec::new());
        for member in open {
            tunnels = tunnels.saturating_add(1);
            told.extend(
                member
                    .down
                    .iter()
                    .flat_map(|down| down.services.iter().copied()),
            );
        }
        // One that is down has been told of in each tunnel.
        told.sort_unstable();
        let same = told.chunk_by(|one, other| one == other);
        same.filter(|same| same.len() == tunnels)
            .filter_map(|same| same.first().copied())
            .collect()
    }
}

impl Registry {
    /// Notes whether a service is up, as the client has told in one of its tunnels. Returns the name of the
    /// service and the number of changes that were not logged before, if visitors see a change and it is to be
    /// logged.
    pub fn set_state(
        &self,
        id: &str,
        tunnel: &Tunnel,
        service: ServiceIndex,
        is_up: bool,
    ) -> Option<(String, u32)> {
        let mut inner = self.lock();
        let client = inner.clients.get_mut(id)?;
        let at = client
            .tunnels
            .iter()
            .position(|it| it.tunnel.is(tunnel) && client.is_current(it))?;
        client.services.get(service.as_usize())?;
        let was_down = client.is_down(service);
        let told = client.tunnels.get_mut(at)?.down.get_or_insert_default();
        match told.services.iter().position(|down| *down == service) {
            Some(at) if is_up => drop(told.services.swap_remove(at)),
            None if !is_up => told.services.push(service),
            _ => return None,
        }
        if client.is_down(service) == was_down {
            return None;
        }
        let told = client.tunnels.get(at)?.down.as_ref()?;
        let lines = told.lines.allow()?;
        Some((inner.service_name(id, service), lines))
    }
}

impl RegistryState {
    /// Returns a service as it is in the access log: its host prefix, its domain or its port.
    pub(super) fn service_name(&self, id: &str, service: ServiceIndex) -> String {
        let spec = self.clients.get(id).and_then(|client| {
            let spec = client.services.get(service.as_usize())?;
            Some((client, spec.as_ref()?))
        });
        let spec = spec.map(|(client, spec)| (client, spec.ungrouped()));
        if let Some((client, ServiceSpec::Tcp { .. } | ServiceSpec::Udp { .. })) = spec {
            let mut ports = client.open_ports();
            if let Some(((_, port), _)) = ports.find(|(_, its)| *its == service) {
                return format!("port {port}");
            }
        }
        let is_its = |key| {
            let host = self.hosts.get(key);
            host.is_some_and(|host| host.service_of(id) == Some(service))
        };
        let mut names: Vec<&str> = self
            .hosts
            .of(id)
            .iter()
            .filter(|key| is_its(key))
            .map(|(_, name)| domain_of(name).unwrap_or(name))
            .collect();
        names.sort_unstable();
        match names.first() {
            Some(name) => (*name).to_owned(),
            None => format!("service {service}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HostKind, Login, OpenResult};
    use super::*;
    use crate::config::Limits;
    use crate::net::bridge;
    use crate::server::settings::Settings;
    use crate::tunnel::{Inbox, PeerRole, Policy};
    use crate::wire::Version;
    use std::net::{IpAddr, Ipv4Addr};
    use std::os::fd::OwnedFd;
    use std::sync::Arc;
    use std::time::Duration;

    const VISITOR: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const SERVICE: ServiceIndex = ServiceIndex(0);

    /// Creates a tunnel, and what keeps it open.
    fn tunnel() -> (Tunnel, (Inbox, OwnedFd)) {
        let (conn, far) = bridge::bridge().expect("a connection");
        let policy = Policy::new(Version::Two, PeerRole::Client, Duration::from_secs(60));
        let (tunnel, inbox) = Tunnel::new(Arc::new(conn), Vec::new(), policy);
        (tunnel, (inbox, far))
    }

    fn services(prefix: &str) -> Vec<Option<ServiceSpec>> {
        vec![Some(ServiceSpec::Host {
            tls: false,
            prefix: Some(prefix.into()),
        })]
    }

    /// Calls `act` with the login of a client.
    fn as_login<T>(act: impl FnOnce(&Login<'_>) -> T) -> T {
        let (limits, settings) = (Limits::of_one_prefix(), Settings::without_users());
        act(&Login::of_user("id1", &limits, &settings))
    }

    #[test]
    fn a_service_is_down_if_all_tunnels_that_take_visitors_have_told_so() {
        async_std::task::block_on(async {
            let registry = Registry::default();
            let ((one, _open), (two, _also_open)) = (tunnel(), tunnel());
            for tunnel in [&one, &two] {
                let joined = as_login(|login| registry.register(login, services("web"), tunnel));
                assert!(joined.is_ok());
            }
            let open = |also_down| registry.open_host(HostKind::Http, "web", VISITOR, also_down);
            let set = |tunnel, is_up| registry.set_state("id1", tunnel, SERVICE, is_up);
            let web = Some(("web".to_owned(), 0));
            assert_eq!(set(&one, false), None, "the other one takes visitors");
            assert!(matches!(open(false), OpenResult::Stream(_)));
            assert_eq!(one.streams(), 0);
            assert_eq!(set(&two, false), web);
            assert_eq!(set(&two, false), None, "nothing new");
            assert!(matches!(open(false), OpenResult::Down));
            assert!(matches!(open(true), OpenResult::Stream(_)));
            assert_eq!(set(&one, true), web);
            assert!(matches!(open(false), OpenResult::Stream(_)));
            // The tunnel with the good news is lost.
            registry.tunnel_ended("id1", &one);
            assert!(matches!(open(false), OpenResult::Down));
            registry.tunnel_ended("id1", &two);
            assert!(matches!(open(false), OpenResult::NoTunnel));
            assert_eq!(set(&two, true), None, "it is no tunnel of the client");
        });
    }

    #[test]
    fn a_client_that_tells_again_and_again_has_few_lines_in_the_log() {
        async_std::task::block_on(async {
            let registry = Registry::default();
            let (tunnel, _open) = tunnel();
            let joined = as_login(|login| registry.register(login, services("web"), &tunnel));
            assert!(joined.is_ok());
            let told =
                (0..1000).filter_map(|n| registry.set_state("id1", &tunnel, SERVICE, n % 2 == 1));
            assert_eq!(told.count(), usize::from(MORE_LINES) + 1);
            let open = registry.open_host(HostKind::Http, "web", VISITOR, false);
            assert!(matches!(open, OpenResult::Stream(_)), "the last one holds");
        });
    }

    #[test]
    fn changed_services_are_up_until_their_client_tells_again() {
        async_std::task::block_on(async {
            let registry = Registry::default();
            let ((one, _open), (two, _also_open)) = (tunnel(), tunnel());
            for tunnel in [&one, &two] {
                let joined = as_login(|login| registry.register(login, services("web"), tunnel));
                assert!(joined.is_ok());
                registry.set_state("id1", tunnel, SERVICE, false);
            }
            let changed = as_login(|login| registry.update(login, services("other"), &one));
            assert!(changed.is_ok());
            let open = || registry.open_host(HostKind::Http, "other", VISITOR, false);
            assert!(matches!(open(), OpenResult::Stream(_)));
            // Its client's end has the services of before.
            assert_eq!(registry.set_state("id1", &two, SERVICE, true), None);
            assert_eq!(registry.set_state("id1", &two, SERVICE, false), None);
            assert!(matches!(open(), OpenResult::Stream(_)));
            let name = registry.set_state("id1", &one, SERVICE, false);
            assert_eq!(name, Some(("other".to_owned(), 0)));
            assert!(matches!(open(), OpenResult::Down));
            let unknown = ServiceIndex(1);
            assert_eq!(registry.set_state("id1", &one, unknown, false), None);
        });
    }
}
