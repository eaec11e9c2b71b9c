//! Clients of the parent process that are expected back after a restart: their ports stay open,
//! visitors wait, and their ids stay reserved.

use super::ports::{InheritedPort, PortId, PortRequest, PortSocket, Protocol};
use super::registry::{HostKind, KeptHost, Key};
use super::state::ServerState;
use crate::config::Secret;
use crate::handover::{Inherited, Item, Outgoing};
use crate::net::Timer;
use crate::wire::hello::GroupSpec;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Time after a restart in which clients are expected back.
const RETENTION: Duration = Duration::from_secs(60);

/// The ports, prefixes and first secrets that the parent process has handed over.
#[derive(Default)]
pub struct RestoredClients {
    ports: Vec<(Box<str>, InheritedPort)>,
    hosts: Vec<KeptHost>,
    /// The groups that share ports.
    groups: Vec<(PortId, GroupSpec)>,
    first_secrets: Vec<(String, Secret)>,
}

/// Returns the items to hand over to the child process.
pub fn export(state: &ServerState) -> Vec<Outgoing> {
    let mut items: Vec<Outgoing> = Vec::new();
    for (id, port) in state.registry.share_ports() {
        let item = Item::Port {
            id: id.into(),
            udp: port.request.protocol == Protocol::Udp,
            random: port.request.random,
            requested: port.request.port,
            port: port.port,
        };
        let socket = port.listener.and_then(|listener| listener.to_send());
        items.push((item, socket));
    }
    for ((protocol, port), group) in state.registry.groups_of_ports() {
        let udp = protocol == Protocol::Udp;
        items.push((Item::PortGroup { udp, port, group }, None));
    }
    for KeptHost { key, id, group } in state.registry.hosts() {
        let (tls, prefix) = (key.0 == HostKind::Tls, String::from(key.1));
        let id = id.map(String::from);
        let item = match (id, group) {
            (Some(id), Some(group)) => Item::GroupedHost {
                tls,
                prefix,
                id,
                group,
            },
            (id, _) => Item::Host { tls, prefix, id },
        };
        items.push((item, None));
    }
    for (id, secret) in state.first_secrets.held() {
        let id = id.into();
        items.push((Item::FirstSecret { id, secret }, None));
    }
    items
}

fn host_key(tls: bool, prefix: String) -> Key {
    let kind = if tls { HostKind::Tls } else { HostKind::Http };
    (kind, prefix.into())
}

impl RestoredClients {
    /// Takes the items of the server configured by this file.
    pub fn take(inherited: &mut Inherited, file: &Option<PathBuf>) -> Self {
        let mut restored = Self::default();
        for (item, socket) in inherited.of_clients(file) {
            match item {
                Item::Port {
                    id,
                    udp,
                    random,
                    requested,
                    port,
                } => {
                    let protocol = match udp {
                        true => Protocol::Udp,
                        false => Protocol::Tcp,
                    };
                    // If the port was closed during the handover, only its number is left.
                    let adopt = |socket| PortSocket::adopt(protocol, socket).ok();
                    let listener = socket.and_then(adopt);
                    let requested = PortRequest {
                        protocol,
                        random,
                        port: requested,
                    };
                    let port = InheritedPort {
                        request: requested,
                        port,
                        listener,
                        older: None,
                    };
                    restored.ports.push((id.into(), port));
                }
                Item::Host { tls, prefix, id } => {
                    let id = id.map(Into::into);
                    restored.hosts.push(KeptHost {
                        key: host_key(tls, prefix),
                        id,
                        group: None,
                    });
                }
                Item::PortGroup { udp, port, group } => {
                    let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
                    restored.groups.push(((protocol, port), group));
                }
                Item::GroupedHost {
                    tls,
                    prefix,
                    id,
                    group,
                } => restored.hosts.push(KeptHost {
                    key: host_key(tls, prefix),
                    id: Some(id.into()),
                    group: Some(group),
                }),
                Item::FirstSecret { id, secret } => restored.first_secrets.push((id, secret)),
                Item::Role(_)
                | Item::Listener { .. }
                | Item::Stun { .. }
                | Item::Datagrams { .. }
                | Item::Quic { .. }
                | Item::QuicLink { .. }
                | Item::QuicCert { .. }
                | Item::Secret { .. }
                | Item::Instance { .. }
                | Item::WebSessions { .. }
                | Item::End => {}
            }
        }
        restored
    }

    /// Whether no client is expected back.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.hosts.is_empty() && self.first_secrets.is_empty()
    }

    /// Reserves everything in `state` until the clients are back.
    pub fn restore(mut self, state: &Arc<ServerState>) {
        if self.is_empty() {
            return;
        }
        // The parent keeps accepting on the ports of clients whose tunnels stay there.
        for (_, port) in &mut self.ports {
            port.older = Some(state.transfer.parent_gone());
        }
        state.registry.restore(self.hosts, self.ports, &self.groups);
        let lease =
            |(id, secret): (String, Secret)| state.first_secrets.lease(&id, secret.as_bytes());
        let first_secrets: Vec<_> = self.first_secrets.into_iter().filter_map(lease).collect();
        let state = state.clone();
        crate::net::spawn(async move {
            state.stop.or(Timer::after(RETENTION)).await;
            state.registry.close_expired_ports();
            drop(first_secrets);
        });
    }
}
