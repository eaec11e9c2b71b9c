//! Ports that several clients share (docs/wire.md, "Groups"). One member has the listener; the others are
//! in the table of shared ports alone. When it leaves, another member takes the listener over.

use super::groups::{OfGroup, MAX_MEMBERS};
use super::host_table::{HostMember, HostTable};
use super::{Login, RegistryState};
use crate::server::ports::{PortId, PortListener, PortRequest};
use crate::wire::frame::{PortCause, ServiceIndex};
use crate::wire::hello::{GroupSpec, ServiceSpec};

/// A port of a client whose listener another member of its group has.
pub struct JoinedPort {
    /// The port.
    pub port: PortId,
    /// The client's service.
    pub service: ServiceIndex,
}

/// How a client can get a port for one of its services.
pub enum PortStanding {
    /// It opens the port, or has it already.
    Open,
    /// It joins the members of its group that have the port.
    Join,
    /// It cannot have the port.
    Refused(PortCause),
}

/// The shared ports as they are for one client.
#[derive(Clone, Copy)]
pub struct PortsOfOthers<'a> {
    /// The ports.
    pub table: &'a HostTable<PortId>,
    /// The key of the client.
    pub key: &'a str,
}

impl PortsOfOthers<'_> {
    /// Returns how the client can get a port for a service of this group, or of none.
    pub fn standing(&self, request: PortRequest, group: Option<&GroupSpec>) -> PortStanding {
        let Some(group) = group else {
            return PortStanding::Open;
        };
        if request.random || request.port == 0 {
            return PortStanding::Refused(PortCause::NotAllowed);
        }
        let Some(host) = self.table.get(&request.id()) else {
            return PortStanding::Open;
        };
        if host.rival(self.key, Some(group), MAX_MEMBERS).is_some() {
            return PortStanding::Refused(PortCause::InUse);
        }
        match host.others(self.key).next() {
            Some(_) => PortStanding::Join,
            None => PortStanding::Open,
        }
    }

    /// Returns why a client is refused a port for a service of this group, for the log.
    pub fn why_refused(&self, request: PortRequest, group: Option<&GroupSpec>) -> String {
        let shared = self.table.get(&request.id());
        let why = match shared.and_then(|host| host.group.as_ref()) {
            _ if request.random || request.port == 0 => {
                "a group shares no port of the server's choice: choose one"
            }
            Some(its) => its.why_not(group),
            None => "another client has it",
        };
        format!("{why}{}", OfGroup(group))
    }

    /// Whether other clients have the port, too.
    pub fn has(&self, port: PortId) -> bool {
        let host = self.table.get(&port);
        host.is_some_and(|host| host.others(self.key).next().is_some())
    }
}

impl RegistryState {
    /// Leaves the listener of a port to another member of the group. Returns it if there is none.
    pub(super) fn leave_port(&mut self, key: &str, port: PortListener) -> Option<PortListener> {
        let heir = self.shared_ports.get(&port.id()).and_then(|host| {
            let mut others = host.others(key);
            others.find(|member| self.clients.contains_key(&member.client))
        });
        let heir = heir.map(|member| (member.client.clone(), member.service));
        let Some((heir, service)) = heir else {
            return Some(port);
        };
        let Some(client) = self.clients.get_mut(&heir) else {
            return Some(port);
        };
        let mut port = port;
        client.joined.retain(|joined| joined.port != port.id());
        let (protocol, number) = port.id();
        let request = PortRequest {
            protocol,
            random: false,
            port: number,
        };
        port.assign(request, service);
        client.ports.push(port);
        None
    }

    /// Notes which of a client's ports are shared. `ports` are those that it has, with their services.
    pub(super) fn share_ports_of(
        &mut self,
        key: &str,
        ports: impl Iterator<Item = (PortId, ServiceIndex, Option<GroupSpec>)>,
    ) {
        self.shared_ports.take(key);
        for (port, service, group) in ports {
            if let Some(group) = group {
                let client = key.into();
                let member = HostMember { client, service };
                self.shared_ports.insert(port, member, Some(&group));
            }
        }
    }

    /// Returns the ports that the services of a client ask for in a group whose members had them lately, so
    /// that they are not only for the client that had them.
    pub(super) fn reserved_for_group(
        &self,
        login: &Login<'_>,
        services: &[Option<ServiceSpec>],
    ) -> Vec<PortId> {
        let specs = services.iter().flatten();
        let wanted = specs.filter_map(|spec| {
            let (group, request) = (spec.group()?, PortRequest::of(spec)?);
            Some((request.id(), group))
        });
        let now = crate::net::clock::now();
        let is_its = |(port, group): &(PortId, &GroupSpec)| {
            let reserved = self.reservations.is_others_port(*port, login.id, now);
            reserved && self.reservations.is_port_of(*port, group)
        };
        wanted.filter(is_its).map(|(port, _)| port).collect()
    }
}
