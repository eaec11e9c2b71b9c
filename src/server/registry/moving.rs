//! Registrations that move between processes with their clients' tunnels, and clients that the
//! parent process still serves.

use super::domains::domain_of;
use super::handed_over::{KeptHost, RECONNECT_PERIOD_AFTER_RESTART};
use super::held_clients::LoginRight;
use super::registered_client::{PoolEntry, RegisteredClient};
use super::requested_hosts::WantedHost;
use super::requested_ports::sort_ports;
use super::shared_ports::PortsOfOthers;
use super::{Key, Login, Registry};
use crate::config::Secret;
use crate::net::clock;
use crate::server::ports::{InheritedPort, OpenedPort, PortListener};
use crate::tunnel::Tunnel;
use crate::wire::frame::{RejectCode, StreamId};
use crate::wire::hello::ServiceSpec;
use crate::wire::Version;

/// The granted services of a tunnel's client, and the id of its last stream.
pub struct Registration {
    /// The services by their index; `None` for one that is not granted.
    pub services: Vec<Option<ServiceSpec>>,
    /// The id of the last stream that was opened to the client.
    pub last_stream: StreamId,
}

impl RegisteredClient {
    /// Whether the client has a GT/1 tunnel that serves visitors: it cannot be asked to reconnect.
    fn stays(&self) -> bool {
        let serves = |tunnel: &Tunnel| tunnel.is_open() || tunnel.is_parked();
        let mut tunnels = self.tunnels.iter().map(|member| &member.tunnel);
        tunnels.any(|tunnel| tunnel.version() == Version::One && serves(tunnel))
    }
}

impl Registry {
    /// Marks a client whose visitors the parent process serves.
    pub fn hold(&self, id: &str, mut hosts: Vec<Key>, right: LoginRight) {
        let mut inner = self.lock();
        let now = clock::now();
        // The parent does not know which clients have registered here since; they keep their own.
        hosts.retain(|key| {
            let host = inner.hosts.get(key);
            let is_others = host.is_some_and(|host| *host.member.client != *id);
            let reserved = inner.reservations.other_owner(key, id, None, now);
            !is_others && reserved.is_none()
        });
        inner.has_domains |= hosts.iter().any(|(_, name)| domain_of(name).is_some());
        inner.held.hold(id, hosts, right);
        drop(inner);
        self.notify_changed();
    }

    /// Ends [`Registry::hold`]: visitors wait for the client here. Returns the client's right to
    /// connect.
    pub fn release(&self, id: &str) -> Option<LoginRight> {
        let mut inner = self.lock();
        let (hosts, ports, right) = inner.held.release(id)?;
        let now = clock::now();
        for mut port in ports {
            inner.reservations.reserve_port(id, port.share(), None, now);
        }
        inner.restart_until = Some(now + RECONNECT_PERIOD_AFTER_RESTART);
        for host in hosts {
            let host = KeptHost {
                key: host,
                id: Some(id.into()),
                group: None,
            };
            inner.reservations.restore_host(host, now);
        }
        drop(inner);
        self.notify_changed();
        Some(right)
    }

    /// Ends [`Registry::hold`] for all clients.
    pub fn release_all(&self) -> Vec<(Box<str>, LoginRight)> {
        let clients = self.held().into_iter();
        clients
            .filter_map(|(id, _)| {
                let right = self.release(&id)?;
                Some((id, right))
            })
            .collect()
    }

    /// Whether a GT/1 tunnel of this client serves visitors, here or in the parent process.
    pub fn stays(&self, id: &str) -> bool {
        let inner = self.lock();
        inner.held.has(id) || inner.clients.get(id).is_some_and(|client| client.stays())
    }

    /// Waits until no GT/1 tunnel is left in this process.
    pub async fn all_moved(&self) {
        let is_one = |member: &PoolEntry| member.tunnel.version() == Version::One;
        loop {
            let ended = self.tunnel_ended_event.listen();
            let stays = {
                let inner = self.lock();
                let mut clients = inner.clients.values();
                clients.any(|client| client.tunnels.iter().any(is_one))
            };
            if !stays {
                return;
            }
            ended.await;
        }
    }

    /// Whether the services include a host prefix or TCP port that the client does not have.
    pub fn requests_more(&self, login: &Login<'_>, services: &[Option<ServiceSpec>]) -> bool {
        let inner = self.lock();
        let ports = inner.clients.get(login.key).map_or(&[][..], |c| &c.ports);
        let of_others = PortsOfOthers {
            table: &inner.shared_ports,
            key: login.key,
        };
        let wanted = sort_ports(services, ports, of_others).wanted;
        let mine = inner.hosts.of(login.key);
        let hosts = inner.requested_hosts(login, services);
        let had = |hosts: Vec<WantedHost<'_>>| hosts.iter().all(|host| mine.contains(&host.key));
        !wanted.is_empty() || !hosts.is_ok_and(had)
    }

    /// Returns the clients that the parent process serves, with their secrets.
    pub fn held(&self) -> Vec<(Box<str>, Secret)> {
        self.lock().held.clients()
    }

    /// Returns the prefixes of a client, here or in the parent process.
    pub fn hosts_of(&self, id: &str) -> Vec<Key> {
        let inner = self.lock();
        let here = inner.hosts.of(id).iter();
        let held = inner.held.hosts_of(id).iter();
        here.chain(held).cloned().collect()
    }

    /// Closes the ports in this process, except for those of clients whose GT/1 tunnels stay for a
    /// while; the child process keeps them open.
    pub fn close_ports_of_moved_clients(&self) {
        let mut inner = self.lock();
        inner.reservations.close_ports();
        inner.held.close_ports();
        for client in inner.clients.values_mut() {
            if !client.stays() {
                client.ports.clear();
            }
        }
    }

    /// Returns the ports of a client to hand them over, each once. This process stops accepting on
    /// them, but still knows their services, for visitors that the other process forwards.
    pub fn take_ports(&self, id: &str) -> Vec<InheritedPort> {
        let mut inner = self.lock();
        let Some(client) = inner.clients.get_mut(id) else {
            return Vec::new();
        };
        client.ports.sort_by_key(PortListener::service);
        let ports = client.ports.iter_mut();
        ports.filter_map(PortListener::move_away).collect()
    }

    /// Returns the registration that moves with a tunnel; `None` if the client is about to change
    /// its services or was replaced.
    pub fn registration(&self, id: &str, tunnel: &Tunnel) -> Option<Registration> {
        let inner = self.lock();
        let client = inner.member(id, tunnel)?;
        let is_it = |member: &&PoolEntry| member.tunnel.is(tunnel);
        let member = client.tunnels.iter().find(is_it)?;
        client.is_current(member).then(|| Registration {
            services: client.services.to_vec(),
            last_stream: client.last_stream,
        })
    }

    /// Adds a tunnel that has moved here from another process unnoticed by its client. Like
    /// [`Registry::register`], but does not replace a client that has registered other services
    /// since.
    pub fn adopt(
        &self,
        login: &Login<'_>,
        registration: Registration,
        tunnel: &Tunnel,
    ) -> Result<Vec<OpenedPort>, RejectCode> {
        let Registration {
            services,
            last_stream,
        } = registration;
        let early = self.open_early(login, &services);
        let mut inner = self.lock();
        let other = inner.clients.get(login.key);
        if other.is_some_and(|client| *client.services != services && !client.tunnels.is_empty()) {
            return Err(RejectCode::OtherClientConnected);
        }
        let opened = inner.admit(login, services, early)?;
        if let Some(client) = inner.clients.get_mut(login.key) {
            // New stream ids must not collide with those that the client has just used.
            client.last_stream = client.last_stream.max(last_stream);
            client
                .tunnels
                .push(PoolEntry::new(tunnel, &client.services));
        }
        drop(inner);
        self.notify_changed();
        Ok(opened)
    }

    /// Reserves a port for a client that is about to arrive, unless the client has it here.
    pub fn expect_port(&self, id: &str, port: InheritedPort) {
        let mut inner = self.lock();
        let now = clock::now();
        if let Some(client) = inner.clients.get_mut(id) {
            if client.ports.iter().any(|its| its.id() == port.id()) {
                return;
            }
            // The client may be here without the port, because the parent process had it.
            client.retry_at = now;
        }
        inner.reservations.reserve_port(id, port, None, now);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HostKind, OpenResult};
    use super::*;
    use crate::config::Limits;
    use crate::net::{self, bridge};
    use crate::server::ports::{PortRequest, PortSocket, Protocol};
    use crate::server::settings::Settings;
    use crate::tunnel::{Inbox, PeerRole, Policy};
    use std::net::{IpAddr, Ipv4Addr};
    use std::os::fd::{AsFd, OwnedFd};
    use std::sync::Arc;
    use std::time::Duration;

    const VISITOR: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn key(prefix: &str) -> Key {
        (HostKind::Http, prefix.into())
    }

    /// Creates a tunnel, and what keeps it open.
    fn tunnel() -> (Tunnel, (Inbox, OwnedFd)) {
        let (conn, far) = bridge::bridge().expect("a connection");
        let policy = Policy::new(Version::One, PeerRole::Client, Duration::from_secs(60));
        let (tunnel, inbox) = Tunnel::new(Arc::new(conn), Vec::new(), policy);
        (tunnel, (inbox, far))
    }

    /// Registers a client whose prefix is its id.
    fn join(registry: &Registry, id: &str, tunnel: &Tunnel) {
        let spec = ServiceSpec::Host {
            tls: false,
            prefix: None,
        };
        let (limits, settings) = (Limits::of_one_prefix(), Settings::without_users());
        let login = Login::of_user(id, &limits, &settings);
        let joined = registry.register(&login, vec![Some(spec)], tunnel);
        assert!(joined.is_ok(), "{id}");
    }

    #[test]
    fn a_client_whose_port_is_missing_has_no_tunnel_that_rests() {
        let registry = Registry::default();
        let theirs = net::listen(None, 0).expect("listen");
        let port = theirs.addr().port();
        let (tunnel, (mut inbox, _far)) = tunnel();
        join(&registry, "id1", &tunnel);
        inbox.rest(Duration::MAX);
        assert!(tunnel.rests());
        let host = ServiceSpec::Host {
            tls: false,
            prefix: None,
        };
        let random = false;
        let services = [host, ServiceSpec::Tcp { random, port }].map(Some);
        let (limits, settings) = (Limits::of_ports(1, port, port), Settings::without_users());
        let login = Login::of_user("id1", &limits, &settings);
        assert!(registry.update(&login, services.to_vec(), &tunnel).is_ok());
        assert!(registry.misses_ports("id1"), "it is in use");
        assert!(!tunnel.rests(), "its session retries");
    }

    #[test]
    fn a_port_of_the_parent_process_is_opened_when_it_arrives() {
        async_std::task::block_on(async {
            let registry = Registry::default();
            let theirs = net::listen(None, 0).expect("listen");
            let port = theirs.addr().port();
            let (limits, settings) = (Limits::of_ports(1, port, port), Settings::without_users());
            let login = Login::of_user("id1", &limits, &settings);
            let random = false;
            let services = [
                ServiceSpec::Host {
                    tls: false,
                    prefix: None,
                },
                ServiceSpec::Tcp { random, port },
            ];
            let (tunnel, _open) = tunnel();
            let joined = registry.register(&login, services.map(Some).to_vec(), &tunnel);
            assert!(joined.is_ok_and(|opened| opened.is_empty()), "it is in use");
            assert!(!registry.is_retry_due("id1"));
            let shared = InheritedPort {
                request: PortRequest {
                    protocol: Protocol::Tcp,
                    random,
                    port,
                },
                port,
                listener: Some(PortSocket::Tcp(Arc::new(theirs))),
                older: None,
            };
            registry.expect_port("id1", shared);
            assert!(registry.is_retry_due("id1"));
            let opened = registry.retry_ports(&login);
            let opened: Vec<_> = opened.iter().map(|opened| opened.port).collect();
            assert_eq!(opened, [port]);
        });
    }

    #[test]
    fn a_reserved_port_that_a_child_has_is_not_closed_for_it_by_a_client_that_takes_it_here() {
        async_std::task::block_on(async {
            for is_cancelled in [false, true] {
                let registry = Registry::default();
                let listener = Arc::new(net::listen(None, 0).expect("listen"));
                let port = listener.addr().port();
                let request = PortRequest {
                    protocol: Protocol::Tcp,
                    random: false,
                    port,
                };
                let reserved = InheritedPort {
                    request,
                    port,
                    listener: Some(PortSocket::Tcp(listener)),
                    older: None,
                };
                registry.restore(Vec::new(), vec![("id1".into(), reserved)], &[]);
                let (_, shared) = registry.share_ports().remove(0);
                let of_child = shared.listener.and_then(|it| it.to_send());
                let of_child = of_child.expect("a listener");
                let of_child = of_child.as_fd().try_clone_to_owned().expect("a descriptor");
                if is_cancelled {
                    registry.unshare_ports();
                }
                let limits = Limits::of_ports(1, port, port);
                let settings = Settings::without_users();
                let login = Login::of_user("id1", &limits, &settings);
                let (tunnel, _open) = tunnel();
                let random = false;
                let services = vec![Some(ServiceSpec::Tcp { random, port })];
                let opened = registry.register(&login, services, &tunnel);
                assert!(opened.is_ok_and(|opened| opened.len() == 1));
                registry.close_ports();
                let listens = crate::net::Listener::adopt(of_child).is_ok();
                assert_eq!(listens, !is_cancelled);
            }
        });
    }

    #[test]
    fn a_held_client_takes_no_prefix_that_another_has_or_reserves() {
        async_std::task::block_on(async {
            let registry = Registry::default();
            let ((here, _open), (away, _also_open)) = (tunnel(), tunnel());
            join(&registry, "here", &here);
            join(&registry, "away", &away);
            registry.tunnel_ended("away", &away);
            let hosts = ["here", "away", "free"].map(key).to_vec();
            let right = LoginRight::new(Secret::new("secret"), None);
            registry.hold("held", hosts, right);
            assert_eq!(registry.hosts_of("held"), [key("free")]);
            let open = |prefix| registry.open_host(HostKind::Http, prefix, VISITOR, false);
            assert!(matches!(open("here"), OpenResult::Stream(_)));
            assert!(matches!(open("away"), OpenResult::NoTunnel));
            assert!(matches!(open("free"), OpenResult::Held));
            // Releasing the client does not take the prefixes either.
            registry.release("held");
            assert!(matches!(open("here"), OpenResult::Stream(_)));
            join(&registry, "away", &away);
            assert!(matches!(open("away"), OpenResult::Stream(_)));
            // A client's own prefixes stay its own.
            let right = LoginRight::new(Secret::new("secret"), None);
            registry.hold("here", vec![key("here")], right);
            assert_eq!(registry.hosts_of("here"), [key("here"), key("here")]);
        });
    }

    #[test]
    fn a_port_stays_open_while_the_parent_process_has_tunnels_of_its_client() {
        async_std::task::block_on(async {
            let theirs = net::listen(None, 0).expect("listen");
            let port = theirs.addr().port();
            let (limits, settings) = (Limits::of_ports(1, port, port), Settings::without_users());
            let login = Login::of_user("id1", &limits, &settings);
            let random = false;
            let services = vec![Some(ServiceSpec::Tcp { random, port })];
            // In the parent, the port moves with the first tunnel that does.
            let parent = Registry::default();
            let (busy, _open) = tunnel();
            let (free, _also_open) = tunnel();
            drop(theirs);
            for tunnel in [&busy, &free] {
                let joined = parent.register(&login, services.clone(), tunnel);
                assert!(joined.is_ok());
            }
            let moved = parent.take_ports("id1");
            assert_eq!(moved.len(), 1);
            assert!(parent.take_ports("id1").is_empty(), "it has moved already");
            let opened = parent.open_port("id1", (Protocol::Tcp, port), VISITOR);
            assert!(
                matches!(opened, OpenResult::Stream(_)),
                "for visitors that are sent back"
            );
            // In the child, it stays open when that tunnel has ended.
            let child = Registry::default();
            let right = LoginRight::new(Secret::new("secret"), None);
            child.hold("id1", Vec::new(), right);
            moved
                .into_iter()
                .for_each(|port| child.expect_port("id1", port));
            let opened = child
                .register(&login, services.clone(), &free)
                .expect("joins");
            let [opened] = &opened[..] else {
                panic!("one port is accepted on");
            };
            child.tunnel_ended("id1", &free);
            assert!(!opened.stop.is_triggered());
            assert!(matches!(
                child.open_port("id1", (Protocol::Tcp, port), VISITOR),
                OpenResult::Held
            ));
            let again = child.register(&login, services, &busy).expect("joins");
            assert!(again.is_empty(), "it is accepted on already");
            assert!(matches!(
                child.open_port("id1", (Protocol::Tcp, port), VISITOR),
                OpenResult::Stream(_)
            ));
            // Without the parent's tunnels, the port closes with the last one here.
            child.release("id1");
            child.tunnel_ended("id1", &busy);
            assert!(opened.stop.is_triggered());
        });
    }

    #[test]
    fn a_registration_that_only_an_ended_tunnel_had_is_given_up() {
        async_std::task::block_on(async {
            let registry = Registry::default();
            let (limits, settings) = (Limits::of_ports(1, 1, 1), Settings::without_users());
            let login = Login::of_user("id1", &limits, &settings);
            let random = false;
            let host = ServiceSpec::Host {
                tls: false,
                prefix: None,
            };
            let both = vec![
                Some(host.clone()),
                Some(ServiceSpec::Tcp { random, port: 1 }),
            ];
            let open = || registry.open_host(HostKind::Http, "id1", VISITOR, false);
            // The client's new process registers with the services that the old one had.
            let ((old, _open), (new, _also_open)) = (tunnel(), tunnel());
            join(&registry, "id1", &old);
            join(&registry, "id1", &new);
            // The last change of the old process comes after that, over its own tunnel.
            registry.suspend_tunnel("id1", &old);
            assert!(registry.update(&login, both, &old).is_ok());
            assert!(
                matches!(open(), OpenResult::Stream(_)),
                "over the old tunnel"
            );
            assert!(
                registry.is_current("id1", &new),
                "it may send the same change"
            );
            registry.tunnel_ended("id1", &old);
            assert!(!registry.is_current("id1", &new) && !new.is_open());
            assert!(matches!(open(), OpenResult::NoTunnel));
            // The new process registers again.
            let (again, _open_too) = tunnel();
            join(&registry, "id1", &again);
            assert!(matches!(open(), OpenResult::Stream(_)));
            // A tunnel whose own change is pending is not given up.
            let (other, _open_last) = tunnel();
            join(&registry, "id1", &other);
            registry.suspend_tunnel("id1", &other);
            registry.tunnel_ended("id1", &again);
            assert!(registry.is_current("id1", &other) && other.is_open());
        });
    }
}
