//! The exchange with the same server in the parent and child process while the older one drains: which
//! clients' tunnels the older one holds, and the tunnels and visitors that move between them.
//! `handover` defines the messages.
//!
//! GT/1 clients cannot be asked to reconnect. Their tunnels stay in the older process while they
//! have streams, and it serves all their visitors; then they move or are closed.
//!
//! A visitor is forwarded to an older process at most once, and only comes back from there, so
//! that it cannot go in circles.

use super::connection_limit::Permit;
use super::incoming::AcceptedConn;
use super::ports::{InheritedPort, PortRequest, PortSocket, Protocol};
use super::process_links::{Announced, MessageOrigin};
use super::registry::{registry_key, HostKind, Key, LoginRight};
use super::state::ServerState;
use super::users::{Authenticator, LoginVerdict};
use super::{session, visitor};
use crate::config::Secret;
use crate::handover::{HostKey, Message, MovedTunnel, ProcessLink};
use crate::net::kernel::{AsFd, OwnedFd};
use crate::net::{bridge, carry, Conn, Listener, Socket, Timer};
use std::sync::Arc;
use std::time::Duration;

/// Time that one direction of a visitor on a bridge may pause when the other has ended.
const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Time that the ports and the right of a client from the parent process are kept for it.
const RETENTION: Duration = Duration::from_secs(60);

/// The handler of other processes' messages to one server.
#[derive(Clone)]
pub struct Recipient(Arc<ServerState>);

impl ServerState {
    /// Asks the child to forward visitors of this id here, unless it was asked before.
    pub async fn announce(&self, id: &str, secret: Secret) {
        if let Some(child) = self.transfer.child() {
            let mut announced = self.transfer.announced.lock().await;
            self.send_holding(&child, &mut announced, id, secret).await;
        }
    }

    /// Asks the child to forward visitors of this id here, again if it was asked before: the host
    /// prefixes of the id may have changed.
    pub async fn announce_changed(&self, id: &str, secret: Secret) {
        if let Some(child) = self.transfer.child() {
            let mut announced = self.transfer.announced.lock().await;
            announced.ids.remove(id);
            self.send_holding(&child, &mut announced, id, secret).await;
        }
    }

    /// Tells the child the current prefixes of an id whose visitors it forwards here.
    pub async fn reannounce(&self, id: &str, secret: Secret) {
        if let Some(child) = self.transfer.child() {
            let mut announced = self.transfer.announced.lock().await;
            if announced.ids.remove(id) {
                self.send_holding(&child, &mut announced, id, secret).await;
            }
        }
    }

    async fn send_holding(
        &self,
        child: &ProcessLink,
        announced: &mut Announced,
        id: &str,
        secret: Secret,
    ) {
        if announced.is_over || !announced.ids.insert(id.into()) {
            return;
        }
        let hosts = self.registry.hosts_of(id).into_iter();
        let hosts = hosts.map(|(kind, prefix)| HostKey {
            tls: kind == HostKind::Tls,
            prefix: prefix.into(),
        });
        let holding = Message::Holding {
            id: id.to_owned(),
            hosts: hosts.collect(),
            secret,
        };
        // Fails only if the child has ended.
        let _ = child.send(&holding, None).await;
    }

    /// Tells the child when no tunnel of this id that could serve visitors is left here.
    pub async fn release_if_done(&self, id: &str) {
        if let Some(child) = self.transfer.child() {
            let mut announced = self.transfer.announced.lock().await;
            if !self.registry.stays(id) && announced.ids.remove(id) {
                self.release(&child, id).await;
            }
        }
    }

    /// Tells the child to keep all visitors, which wait there for their clients.
    pub async fn release_all(&self) {
        if let Some(child) = self.transfer.child() {
            let mut announced = self.transfer.announced.lock().await;
            announced.is_over = true;
            for id in std::mem::take(&mut announced.ids) {
                self.release(&child, &id).await;
            }
        }
    }

    async fn release(&self, child: &ProcessLink, id: &str) {
        self.move_ports(child, id).await;
        let _ = child
            .send(&Message::Released { id: id.to_owned() }, None)
            .await;
    }

    /// Moves a client's tunnel and its TCP ports to the child. Returns false if the tunnel is lost
    /// because the child has ended.
    pub async fn move_tunnel(&self, id: &str, tunnel: MovedTunnel, socket: OwnedFd) -> bool {
        let Some(child) = self.transfer.child() else {
            return false;
        };
        // Other tunnels of the client must not arrive before its ports.
        let _in_order = self.transfer.announced.lock().await;
        self.move_ports(&child, id).await;
        let sent = child.send(&Message::Tunnel(tunnel), Some(socket)).await;
        sent.is_ok()
    }

    /// Moves the TCP ports of a client to the child.
    async fn move_ports(&self, child: &ProcessLink, id: &str) {
        for shared in self.registry.take_ports(id) {
            let port = Message::Port {
                id: id.to_owned(),
                random: shared.request.random,
                requested: shared.request.port,
                port: shared.port,
            };
            // Clients of GT/1, whose tunnels move, have no ports of UDP.
            let Some(PortSocket::Tcp(listener)) = &shared.listener else {
                continue;
            };
            if let Ok(socket) = listener.as_fd().try_clone_to_owned() {
                let _ = child.send(&port, Some(socket)).await;
            }
        }
    }

    fn lose_parent(&self) {
        if let Some(parent) = self.transfer.parent.lock().take() {
            parent.close();
        }
        self.transfer.parent_gone.trigger();
    }

    /// Moves a visitor to another process. If that process has ended, the error is the connection;
    /// `None` if the connection is lost.
    pub async fn forward_visitor(
        &self,
        link: &ProcessLink,
        message: Message,
        conn: Arc<Conn>,
        permit: Permit,
    ) -> Result<(), Option<(Arc<Conn>, Permit)>> {
        if let Conn::Plain(socket) = &*conn {
            let socket = socket.give_away().map_err(|_| None)?;
            return match link.deliver(&message, socket).await {
                Ok(()) => Ok(()),
                Err(socket) => {
                    let socket = socket.and_then(|socket| Socket::adopt(socket).ok());
                    Err(socket.map(|socket| (Arc::new(socket.into()), permit)))
                }
            };
        }
        // A TLS session cannot move, so its plaintext goes over a bridge.
        let (near, far) = bridge::bridge().map_err(|e| {
            log::warn!("forwarding a visitor to the other gt process: {e}");
            None
        })?;
        if link.deliver(&message, far).await.is_err() {
            return Err(Some((conn, permit)));
        }
        let serving = self.serving.begin();
        crate::net::spawn(async move {
            carry(&*conn, &near, HALF_CLOSE_TIMEOUT).await;
            drop((serving, permit));
        });
        Ok(())
    }
}

impl Recipient {
    pub(super) fn new(state: Arc<ServerState>) -> Self {
        Self(state)
    }

    /// Handles a message. Spawns a task for anything that waits longer than for room in a queue,
    /// because the messages of a process are handled in order.
    pub async fn handle(&self, from: MessageOrigin, message: Message, socket: Option<OwnedFd>) {
        let state = &self.0;
        let newer = state.transfer.child();
        match (message, from) {
            (
                Message::Visitor {
                    to,
                    peer,
                    origin,
                    head,
                },
                from,
            ) => {
                let socket = socket.and_then(|socket| Socket::adopt(socket).ok());
                // Each process counts the connections that it holds: descriptors and memory are
                // used there, and a visitor of this client was counted there before the restart.
                let permit = state.connection_limit.take(peer.ip());
                if let (Some(socket), Some(permit)) = (socket, permit) {
                    let visitor = AcceptedConn {
                        socket,
                        peer,
                        origin,
                        permit,
                    };
                    let (state, handshake) = (state.clone(), state.handshakes.begin());
                    crate::net::spawn(async move {
                        visitor::resume(state, visitor, head, to, from).await;
                        drop(handshake);
                    });
                }
            }
            // Only the parent sends the others.
            (_, MessageOrigin::Child) => {}
            (Message::Holding { id, hosts, secret }, _) => {
                let settings = state.settings.get();
                let authenticator = Authenticator::Secret(secret.as_bytes().into());
                let admission = match settings.users.check_login(&id, &authenticator) {
                    LoginVerdict::Admitted(admission) => Some(admission),
                    LoginVerdict::Ask(..) => None,
                    LoginVerdict::Refused => {
                        log::warn!("the new configuration does not let id={id} in: its visitors are not served");
                        return;
                    }
                };
                // A name that now belongs to a user is no longer this client's.
                let is_its = |key: &Key| !settings.users.reserves(&key.1, &id);
                let hosts = hosts.into_iter().map(|host| registry_key(&host));
                let hosts = hosts.filter(is_its).collect();
                let right = LoginRight::new(secret.clone(), admission);
                state.registry.hold(&id, hosts, right);
                state.announce_changed(&id, secret).await;
            }
            (Message::Released { id }, _) => {
                let right = state.registry.release(&id);
                let (registry, its) = (state.clone(), id.clone());
                self.after_retention(move || {
                    drop(right);
                    registry.registry.close_expired_ports_of(&its);
                });
                state.release_if_done(&id).await;
            }
            (message @ (Message::Port { .. } | Message::Tunnel(_)), _) if newer.is_some() => {
                if let Some(newer) = newer {
                    let _ = newer.send(&message, socket).await;
                }
            }
            // Visitors no longer connect to this process.
            (Message::Port { .. }, _) if state.stop.is_triggered() => {}
            (
                Message::Port {
                    id,
                    random,
                    requested,
                    port,
                },
                _,
            ) => {
                let Some(Ok(listener)) = socket.map(Listener::adopt) else {
                    // The listener was closed in the meantime.
                    return;
                };
                let shared = InheritedPort {
                    request: PortRequest {
                        protocol: Protocol::Tcp,
                        random,
                        port: requested,
                    },
                    port,
                    listener: Some(PortSocket::Tcp(Arc::new(listener))),
                    // The parent does not accept on it any more.
                    older: None,
                };
                state.registry.expect_port(&id, shared);
                let state = state.clone();
                self.after_retention(move || state.registry.close_expired_ports_of(&id));
            }
            (Message::Tunnel(tunnel), _) => {
                let socket = socket.and_then(|socket| Socket::adopt(socket).ok());
                if let Some(socket) = socket {
                    crate::net::spawn(session::adopt(state.clone(), tunnel, socket));
                }
            }
            (Message::Done, _) => self.lose_parent(),
        }
    }

    /// Calls `end` once the client has had time to reconnect, or when this process drains.
    fn after_retention(&self, end: impl FnOnce() + Send + 'static) {
        let state = self.0.clone();
        crate::net::spawn(async move {
            state.stop.or(Timer::after(RETENTION)).await;
            end();
        });
    }

    /// Handles the end of the parent process or of its tunnels.
    pub fn lose_parent(&self) {
        let state = self.0.clone();
        let held = state.registry.release_all();
        state.lose_parent();
        crate::net::spawn(async move {
            for (id, right) in held {
                let (registry, its) = (state.clone(), id.clone());
                Recipient(state.clone()).after_retention(move || {
                    drop(right);
                    registry.registry.close_expired_ports_of(&its);
                });
                state.release_if_done(&id).await;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth_lockout::AuthLockout;
    use crate::config::Limits;
    use crate::server::registry::Login;
    use crate::server::settings::Settings;
    use crate::tunnel::{PeerRole, Policy, Tunnel};
    use crate::wire::frame::StreamId;
    use crate::wire::hello::ServiceSpec;
    use crate::wire::Version;
    use futures_lite::future::{poll_once, zip};

    #[test]
    fn a_port_arrives_at_the_child_before_all_tunnels_of_its_client() {
        async_std::task::block_on(async {
            let lockout = AuthLockout::new(0, Duration::ZERO);
            let state =
                ServerState::new(Settings::without_users(), Arc::default(), lockout).unwrap();
            let (conn, far) = bridge::bridge().expect("a connection");
            let policy = Policy::new(Version::One, PeerRole::Client, Duration::from_secs(60));
            let (tunnel, _inbox) = Tunnel::new(Arc::new(conn), Vec::new(), policy);
            let limits = Limits::of_ports(0, 1024, 65535);
            let settings = Settings::without_users();
            let login = Login::of_user("id1", &limits, &settings);
            let port = ServiceSpec::Tcp {
                random: true,
                port: 0,
            };
            let joined = state.registry.register(&login, vec![Some(port)], &tunnel);
            assert!(joined.is_ok());
            let (link, queue) = ProcessLink::unread();
            state.transfer.set_child(link.clone());
            while poll_once(link.send(&Message::Done, None)).await.is_some() {}
            let moved = MovedTunnel {
                peer: None,
                is_ready: true,
                last_stream: StreamId(0),
                unread: Vec::new(),
                hello: Vec::new(),
            };
            let socket = || far.try_clone().expect("a descriptor");
            let mut first = Box::pin(state.move_tunnel("id1", moved.clone(), socket()));
            assert!(poll_once(&mut first).await.is_none(), "no room");
            let mut second = Box::pin(state.move_tunnel("id1", moved, socket()));
            for _ in 0..3 {
                queue.next();
            }
            assert!(poll_once(&mut second).await.is_none());
            assert_eq!(zip(first, second).await, (true, true));
            let messages = std::iter::from_fn(|| queue.next());
            let messages: Vec<_> = messages
                .filter(|message| *message != Message::Done)
                .collect();
            let [Message::Port { .. }, Message::Tunnel(_), Message::Tunnel(_)] = &messages[..]
            else {
                panic!("{messages:?}");
            };
        });
    }

    #[test]
    fn messages_about_a_client_arrive_in_the_order_of_the_decisions() {
        async_std::task::block_on(async {
            let lockout = AuthLockout::new(0, Duration::ZERO);
            let state =
                ServerState::new(Settings::without_users(), Arc::default(), lockout).unwrap();
            let (link, queue) = ProcessLink::unread();
            state.transfer.set_child(link.clone());
            while poll_once(link.send(&Message::Done, None)).await.is_some() {}
            let mut announcing = Box::pin(state.announce("id1", Secret::new("secret")));
            assert!(poll_once(&mut announcing).await.is_none(), "no room");
            let mut settling = Box::pin(state.release_if_done("id1"));
            assert!(poll_once(&mut settling).await.is_none());
            queue.next();
            queue.next();
            // There is room for both, and the later one is polled first.
            assert!(poll_once(&mut settling).await.is_none());
            zip(announcing, settling).await;
            let messages = std::iter::from_fn(|| queue.next());
            let messages: Vec<_> = messages
                .filter(|message| *message != Message::Done)
                .collect();
            assert!(
                matches!(
                    &messages[..],
                    [Message::Holding { .. }, Message::Released { .. }]
                ),
                "{messages:?}"
            );
        });
    }
}
