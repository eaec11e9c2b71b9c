//! Tunnels that end or drain, and registrations that end with them.

use super::instances::id_of;
use super::registered_client::Draining;
use super::reservations::Reservation;
use super::{Registry, RegistryState, SharedServices};
use crate::net::clock;
use crate::server::ports::PortListener;
use crate::tunnel::Tunnel;
use crate::wire::frame::Signal;
use crate::wire::Version;

impl Registry {
    /// Whether the tunnel belongs to the client's current registration.
    pub fn is_current(&self, id: &str, tunnel: &Tunnel) -> bool {
        self.lock().member(id, tunnel).is_some()
    }

    /// Removes a tunnel that has ended. With the last one the registration ends.
    pub fn tunnel_ended(&self, id: &str, tunnel: &Tunnel) {
        self.remove(id, tunnel);
        self.tunnel_ended_event.notify(usize::MAX);
    }

    /// Removes a tunnel that has ended, of any registration of the id of this one.
    pub fn tunnel_of_id_ended(&self, key: &str, tunnel: &Tunnel) {
        let inner = self.lock();
        let keys: Vec<Box<str>> = inner.of_id(id_of(key)).map(|(key, _)| key.into()).collect();
        drop(inner);
        keys.iter().for_each(|key| self.tunnel_ended(key, tunnel));
    }

    pub(super) fn remove(&self, id: &str, tunnel: &Tunnel) {
        let mut inner = self.lock();
        // They look again when the lock is free.
        self.wake_visitors(&inner, id);
        let Some(client) = inner.clients.get_mut(id) else {
            return;
        };
        if !client.all_tunnels().any(|other| other.is(tunnel)) {
            return;
        }
        client.past_traffic += tunnel.traffic();
        client.tunnels.retain(|member| !member.tunnel.is(tunnel));
        if let Some(old) = &mut client.draining {
            old.tunnels.retain(|other| !other.is(tunnel));
            if old.tunnels.is_empty() {
                client.draining = None;
            }
        }
        if client.is_left_behind() {
            inner.leave_behind(id);
            return;
        }
        if client.tunnels.is_empty() {
            // Draining tunnels of the previous registration keep the entry.
            let (listed, past, is_gone) = (
                client.is_listed(),
                client.past_traffic,
                client.draining.is_none(),
            );
            inner.end_registration(id);
            if is_gone {
                inner.clients.remove(id);
                inner.instances.remove(id);
                if listed {
                    inner.past_traffic += past;
                }
            }
        }
    }

    /// Stops opening streams on a tunnel whose client has changed its services while the
    /// registration stays: service indexes mean something else to that client.
    pub fn suspend_tunnel(&self, id: &str, tunnel: &Tunnel) {
        let mut inner = self.lock();
        let Some(client) = inner.clients.get_mut(id) else {
            return;
        };
        let mut members = client.tunnels.iter_mut();
        if let Some(member) = members.find(|member| member.tunnel.is(tunnel)) {
            member.services = None;
        }
    }
}

impl RegistryState {
    /// Ends the client's registration as if its tunnels had ended; they drain.
    pub(super) fn revoke(&mut self, id: &str) {
        // Without its services, so that the client may register with the same ones again.
        self.drain_tunnels(id, SharedServices::default());
        self.end_registration(id);
    }

    /// Ends a registration whose services none of the client's open tunnels has, see
    /// `RegisteredClient::is_left_behind`.
    pub(super) fn leave_behind(&mut self, id: &str) {
        if let Some(client) = self.clients.get(id) {
            for tunnel in client.open_tunnels() {
                if tunnel.version() == Version::Two {
                    tunnel.signal(Signal::Reconnect);
                }
            }
        }
        self.revoke(id);
    }

    /// Drains the tunnels of the current registration.
    pub(super) fn drain_tunnels(&mut self, id: &str, services: SharedServices) {
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
        if let Some(old) = client.draining.take() {
            tunnels.extend(old.tunnels);
        }
        client.draining = Some(Box::new(Draining { services, tunnels }));
    }

    /// Ends the client's registration and reserves its prefixes and ports for its id.
    pub(super) fn end_registration(&mut self, key: &str) {
        let (id, now) = (id_of(key), clock::now());
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let services = std::mem::take(&mut client.services);
        client.missing.clear();
        client.joined.clear();
        client.ports.sort_by_key(PortListener::service);
        let proof = client.proof;
        let ports = std::mem::take(&mut client.ports);
        let ports: Vec<PortListener> = ports
            .into_iter()
            .filter_map(|port| self.leave_port(key, port))
            .collect();
        self.shared_ports.take(key);
        if self.held.has(id) {
            // The parent process still has tunnels of it, for the visitors of the ports, too.
            self.held.keep_ports(id, ports);
        } else {
            for port in ports {
                let spec = services.get(port.service().as_usize());
                let group = spec.and_then(|spec| spec.as_ref()?.group().cloned());
                self.reservations
                    .reserve_port(id, port.number(), group, now);
            }
        }
        let client = (id, proof);
        let hosts = self.hosts.take(key);
        self.reservations
            .reserve_hosts(client, hosts, Reservation::Claimed, now);
    }
}
