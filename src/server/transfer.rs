//! The same server in the process before this one and in the one after it, while the older one
//! drains: which clients' tunnels the older one holds, and the tunnels and visitors that go from
//! one to the other. How that is said is `handover`'s business.
//!
//! Clients of GT/1 cannot be asked to come back. Their tunnels stay in the older process while they
//! have streams, and it serves all their visitors; then they move, or are closed.
//!
//! A visitor goes to an older process once at most, and comes back only from there: it cannot go
//! in circles.

use super::connection_limit::Permit;
use super::ports::{InheritedPort, PortRequest};
use super::registry::{HostKind, Key, LoginRight};
use super::users::LoginVerdict;
use super::{session, visitor, ServerState};
use crate::config::Secret;
use crate::handover::{HostKey, Message, MovedTunnel, ProcessLink};
use crate::net::{bridge, Conn, Listener, Shutdown, Socket};
use async_io::Timer;
use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What another process has given away for a client is kept this long until the client is here.
const RETENTION: Duration = Duration::from_secs(60);

/// The other processes that a server exchanges tunnels and visitors with.
#[derive(Default)]
pub struct Transfer {
    /// The older process, while it has tunnels.
    parent: Mutex<Option<ProcessLink>>,
    parent_gone: Shutdown,
    /// The newer process, to which this one makes way.
    child: Mutex<Option<ProcessLink>>,
    /// Locked until what was decided is in the queue to the child, where it may have to wait for
    /// room: what is decided later must not overtake it.
    announced: async_lock::Mutex<Announced>,
}

/// The clients whose visitors the child brings here.
#[derive(Default)]
struct Announced {
    ids: HashSet<Box<str>>,
    /// There will be no more of them.
    is_over: bool,
}

/// The process that a message comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageOrigin {
    Parent,
    Child,
}

/// Takes what other processes say to one server.
#[derive(Clone)]
pub struct Recipient(Arc<ServerState>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Transfer {
    pub fn set_parent(&self, link: ProcessLink) {
        *lock(&self.parent) = Some(link);
    }

    pub fn set_child(&self, link: ProcessLink) {
        *lock(&self.child) = Some(link);
    }

    /// The older process, if there is one that visitors can be brought to.
    pub fn parent(&self) -> Option<ProcessLink> {
        lock(&self.parent).clone().filter(ProcessLink::is_open)
    }

    /// The newer process, if there is one.
    pub fn child(&self) -> Option<ProcessLink> {
        lock(&self.child).clone().filter(ProcessLink::is_open)
    }

    /// Triggered when the older process has nothing left that could serve visitors, or is gone.
    pub fn parent_gone(&self) -> Shutdown {
        self.parent_gone.clone()
    }

    /// Waits until there is no older process.
    pub async fn parent_end(&self) {
        if self.parent().is_some() {
            self.parent_gone.wait().await;
        }
    }
}

impl ServerState {
    /// Has the child bring visitors of this id here, if it does not yet.
    pub async fn announce(&self, id: &str, secret: Secret) {
        if let Some(child) = self.transfer.child() {
            let mut announced = self.transfer.announced.lock().await;
            self.tell_of(&child, &mut announced, id, secret).await;
        }
    }

    /// The same for an id that has other host prefixes now than the child may know of.
    pub async fn announce_anew(&self, id: &str, secret: Secret) {
        if let Some(child) = self.transfer.child() {
            let mut announced = self.transfer.announced.lock().await;
            announced.ids.remove(id);
            self.tell_of(&child, &mut announced, id, secret).await;
        }
    }

    /// The same, if the child brings visitors of this id here at all.
    pub async fn announce_again(&self, id: &str, secret: Secret) {
        if let Some(child) = self.transfer.child() {
            let mut announced = self.transfer.announced.lock().await;
            if announced.ids.remove(id) {
                self.tell_of(&child, &mut announced, id, secret).await;
            }
        }
    }

    async fn tell_of(
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
        let holds = Message::Holding {
            id: id.to_owned(),
            hosts: hosts.collect(),
            secret,
        };
        // If it is gone, there is nobody to tell.
        let _ = child.send(&holds, None).await;
    }

    /// Tells the child when no tunnel of this id is left here that could serve visitors.
    pub async fn settle(&self, id: &str) {
        if let Some(child) = self.transfer.child() {
            let mut announced = self.transfer.announced.lock().await;
            if !self.registry.stays(id) && announced.ids.remove(id) {
                self.release(&child, id).await;
            }
        }
    }

    /// Has the child bring no more visitors: they wait there.
    pub async fn let_go(&self) {
        if let Some(child) = self.transfer.child() {
            let mut announced = self.transfer.announced.lock().await;
            announced.is_over = true;
            for id in std::mem::take(&mut announced.ids) {
                self.release(&child, &id).await;
            }
        }
    }

    async fn release(&self, child: &ProcessLink, id: &str) {
        self.give_ports(child, id).await;
        let _ = child
            .send(&Message::Released { id: id.to_owned() }, None)
            .await;
    }

    /// Gives the tunnel of a client to the child, and the client's TCP ports. False if it is lost,
    /// because there is no child any more.
    pub async fn give_tunnel(&self, id: &str, tunnel: MovedTunnel, socket: OwnedFd) -> bool {
        let Some(child) = self.transfer.child() else {
            return false;
        };
        // Other tunnels of the client must not get there before its ports.
        let _in_order = self.transfer.announced.lock().await;
        self.give_ports(&child, id).await;
        let sent = child.send(&Message::Tunnel(tunnel), Some(socket)).await;
        sent.is_ok()
    }

    /// Leaves the TCP ports of a client to the child.
    async fn give_ports(&self, child: &ProcessLink, id: &str) {
        for shared in self.registry.take_ports(id) {
            let port = Message::Port {
                id: id.to_owned(),
                random: shared.asked.random,
                requested: shared.asked.port,
                port: shared.port,
            };
            let listener = shared.listener.as_ref();
            let socket = listener.map(|listener| listener.as_fd().try_clone_to_owned());
            if let Some(Ok(socket)) = socket {
                let _ = child.send(&port, Some(socket)).await;
            }
        }
    }

    fn lose_parent(&self) {
        if let Some(parent) = lock(&self.transfer.parent).take() {
            parent.close();
        }
        self.transfer.parent_gone.trigger();
    }

    /// Gives the visitor that the message tells of to another process. If that one is gone, gives
    /// the connection back; `None` if it is lost.
    pub async fn bring(
        &self,
        link: &ProcessLink,
        message: Message,
        conn: Arc<Conn>,
        place: Permit,
    ) -> Result<(), Option<(Arc<Conn>, Permit)>> {
        if let Conn::Plain(socket) = &*conn {
            let socket = socket.give_away().map_err(|_| None)?;
            return match link.send(&message, Some(socket)).await {
                Ok(()) => Ok(()),
                Err(socket) => {
                    let socket = socket.and_then(|socket| Socket::adopt(socket).ok());
                    Err(socket.map(|socket| (Arc::new(socket.into()), place)))
                }
            };
        }
        // Its TLS session stays here.
        let (near, far) = bridge::bridge().map_err(|e| {
            log::warn!("a visitor cannot be brought to another process of gt: {e}");
            None
        })?;
        if link.send(&message, Some(far)).await.is_err() {
            return Err(Some((conn, place)));
        }
        let serving = self.serving.begin();
        crate::spawn(async move {
            bridge::carry(&conn, &near).await;
            drop((serving, place));
        });
        Ok(())
    }
}

impl Recipient {
    pub(super) fn new(state: Arc<ServerState>) -> Self {
        Self(state)
    }

    /// Acts on a message. What has to wait for something else than the next process is left to a
    /// task of its own: messages of one process are acted on in order.
    pub async fn hear(&self, from: MessageOrigin, message: Message, socket: Option<OwnedFd>) {
        let state = &self.0;
        let newer = state.transfer.child();
        match (message, from) {
            (Message::Visitor { to, peer, head }, from) => {
                let socket = socket.and_then(|socket| Socket::adopt(socket).ok());
                // Each process counts the connections that it holds: that is where descriptors and
                // memory are, and where a visitor of this client was counted before the restart.
                let place = state.places.take(peer.ip());
                if let (Some(socket), Some(place)) = (socket, place) {
                    let moved = visitor::Moved { socket, peer, head };
                    let (state, greeting) = (state.clone(), state.greeting.begin());
                    crate::spawn(async move {
                        visitor::resume(state, moved, to, from, place).await;
                        drop(greeting);
                    });
                }
            }
            // The other ones come from the older process.
            (_, MessageOrigin::Child) => {}
            (Message::Holding { id, hosts, secret }, _) => {
                let rules = state.rules.get();
                let admission = match rules.users.check_login(&id, secret.as_bytes()) {
                    LoginVerdict::Admitted(admission) => Some(admission),
                    LoginVerdict::Ask(..) => None,
                    LoginVerdict::Refused => {
                        log::warn!("the new configuration does not let id={id} in: its visitors are not served");
                        return;
                    }
                };
                // A name that has become a user's is not another client's any more.
                let is_its = |key: &Key| !rules.users.reserves(&key.1, &id);
                let hosts = hosts.into_iter().map(|host| key(&host));
                let hosts = hosts.filter(is_its).collect();
                let right = LoginRight::new(secret.clone(), admission);
                state.registry.hold(&id, hosts, right);
                state.announce_anew(&id, secret).await;
            }
            (Message::Released { id }, _) => {
                let right = state.registry.release(&id);
                self.keep(move || drop(right));
                state.settle(&id).await;
            }
            (message @ (Message::Port { .. } | Message::Tunnel(_)), _) if newer.is_some() => {
                if let Some(newer) = newer {
                    let _ = newer.send(&message, socket).await;
                }
            }
            // Nobody comes here for it any more.
            (Message::Port { .. }, _) if state.stop.is_triggered() => {}
            (
                Message::Port {
                    id,
                    random,
                    requested: asked,
                    port,
                },
                _,
            ) => {
                let Some(Ok(listener)) = socket.map(Listener::adopt) else {
                    // Its client has closed it meanwhile.
                    return;
                };
                let shared = InheritedPort {
                    asked: PortRequest {
                        random,
                        port: asked,
                    },
                    port,
                    listener: Some(Arc::new(listener)),
                    // It accepts on it no more.
                    older: None,
                };
                state.registry.expect_port(&id, shared);
                let state = state.clone();
                self.keep(move || state.registry.expect_no_more_of(&id));
            }
            (Message::Tunnel(tunnel), _) => {
                let socket = socket.and_then(|socket| Socket::adopt(socket).ok());
                if let Some(socket) = socket {
                    crate::spawn(session::adopt(state.clone(), tunnel, socket));
                }
            }
            (Message::Done, _) => self.lose_parent(),
        }
    }

    /// Calls `end` when the client has had the time to come back, or this process goes.
    fn keep(&self, end: impl FnOnce() + Send + 'static) {
        let state = self.0.clone();
        crate::spawn(async move {
            state.stop.or(Timer::after(RETENTION)).await;
            end();
        });
    }

    /// The older process is gone, or has nothing left.
    pub fn lose_parent(&self) {
        let state = self.0.clone();
        let held = state.registry.release_all();
        state.lose_parent();
        crate::spawn(async move {
            for (id, right) in held {
                Recipient(state.clone()).keep(move || drop(right));
                state.settle(&id).await;
            }
        });
    }
}

/// How the registry knows a host prefix.
pub fn key(host: &HostKey) -> Key {
    let kind = if host.tls {
        HostKind::Tls
    } else {
        HostKind::Http
    };
    (kind, host.prefix.as_str().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Limits, PortRange, TcpRule};
    use crate::server::auth_lockout::AuthLockout;
    use crate::server::registry::{Login, LoginProof};
    use crate::server::settings::Settings;
    use crate::tunnel::{PeerRole, Policy, Tunnel};
    use crate::wire::hello::ServiceSpec;
    use crate::wire::Version;
    use futures_lite::future::{poll_once, zip};

    #[test]
    fn a_port_gets_to_the_child_before_every_tunnel_of_its_client() {
        async_std::task::block_on(async {
            let guard = AuthLockout::new(0, Duration::ZERO);
            let state = ServerState::new(Settings::of_nobody(), Arc::default(), guard).unwrap();
            let (conn, far) = bridge::bridge().expect("a connection");
            let policy = Policy::new(Version::One, PeerRole::Client, Duration::from_secs(60));
            let (tunnel, _inbox) = Tunnel::new(Arc::new(conn), Vec::new(), policy);
            let range = PortRange {
                first: 1024,
                last: 65535,
            };
            let limits = Limits {
                tcp: vec![TcpRule { number: 0, range }],
                ..Limits::of_one_prefix()
            };
            let login = Login {
                id: "id1",
                limits: &limits,
                rules: &Settings::of_nobody(),
                trust: LoginProof::Known,
                peer: ([192, 0, 2, 1], 1).into(),
            };
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
                is_ready: true,
                last_stream: 0,
                unread: Vec::new(),
                hello: Vec::new(),
            };
            let socket = || far.try_clone().expect("a descriptor");
            let mut first = Box::pin(state.give_tunnel("id1", moved.clone(), socket()));
            assert!(poll_once(&mut first).await.is_none(), "no room");
            let mut second = Box::pin(state.give_tunnel("id1", moved, socket()));
            for _ in 0..3 {
                queue.next();
            }
            assert!(poll_once(&mut second).await.is_none());
            assert_eq!(zip(first, second).await, (true, true));
            let told = std::iter::from_fn(|| queue.next());
            let told: Vec<_> = told.filter(|message| *message != Message::Done).collect();
            let [Message::Port { .. }, Message::Tunnel(_), Message::Tunnel(_)] = &told[..] else {
                panic!("{told:?}");
            };
        });
    }

    #[test]
    fn what_is_told_of_a_client_arrives_in_the_order_of_what_became_of_it() {
        async_std::task::block_on(async {
            let guard = AuthLockout::new(0, Duration::ZERO);
            let state = ServerState::new(Settings::of_nobody(), Arc::default(), guard).unwrap();
            let (link, queue) = ProcessLink::unread();
            state.transfer.set_child(link.clone());
            while poll_once(link.send(&Message::Done, None)).await.is_some() {}
            let mut announcing = Box::pin(state.announce("id1", Secret::new("secret")));
            assert!(poll_once(&mut announcing).await.is_none(), "no room");
            let mut settling = Box::pin(state.settle("id1"));
            assert!(poll_once(&mut settling).await.is_none());
            queue.next();
            queue.next();
            // There is room for both, and the one that came last has its turn first.
            assert!(poll_once(&mut settling).await.is_none());
            zip(announcing, settling).await;
            let told = std::iter::from_fn(|| queue.next());
            let told: Vec<_> = told.filter(|message| *message != Message::Done).collect();
            assert!(
                matches!(
                    &told[..],
                    [Message::Holding { .. }, Message::Released { .. }]
                ),
                "{told:?}"
            );
        });
    }
}
