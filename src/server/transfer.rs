//! The same server in the process before this one and in the one after it, while the older one
//! drains: which clients' tunnels the older one holds, and the tunnels and visitors that go from
//! one to the other. How that is said is `handover`'s business.
//!
//! Clients of GT/1 cannot be asked to come back. Their tunnels stay in the older process while they
//! have streams, and it serves all their visitors; then they move, or are closed.
//!
//! A visitor goes to an older process once at most, and comes back only from there: it cannot go
//! in circles.

use super::places::Place;
use super::ports::{Asked, Shared};
use super::registry::{Key, Kind, Right};
use super::users::Verdict;
use super::{session, visitor, State};
use crate::config::Secret;
use crate::handover::{Host, Link, Message};
use crate::net::{bridge, Conn, Listener, Socket, Stop};
use async_io::Timer;
use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What another process has given away for a client is kept this long until the client is here.
const KEPT: Duration = Duration::from_secs(60);

/// The other processes that a server exchanges tunnels and visitors with.
#[derive(Default)]
pub struct Transfer {
    /// The older process, while it has tunnels.
    parent: Mutex<Option<Link>>,
    parent_gone: Stop,
    child: Mutex<Option<Child>>,
}

/// The newer process, to which this one makes way.
struct Child {
    link: Link,
    /// The ids whose visitors it brings here. `None` once it is to bring no more.
    announced: Option<HashSet<Box<str>>>,
}

/// The process that a message comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    Parent,
    Child,
}

/// Takes what other processes say to one server.
#[derive(Clone)]
pub struct Recipient(Arc<State>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Transfer {
    pub fn set_parent(&self, link: Link) {
        *lock(&self.parent) = Some(link);
    }

    pub fn set_child(&self, link: Link) {
        let announced = Some(HashSet::new());
        *lock(&self.child) = Some(Child { link, announced });
    }

    /// The older process, if there is one that visitors can be brought to.
    pub fn parent(&self) -> Option<Link> {
        lock(&self.parent).clone().filter(Link::is_open)
    }

    /// The newer process, if there is one.
    pub fn child(&self) -> Option<Link> {
        let child = lock(&self.child);
        let link = child.as_ref().map(|child| child.link.clone());
        link.filter(Link::is_open)
    }

    /// Triggered when the older process has nothing left that could serve visitors, or is gone.
    pub fn parent_gone(&self) -> Stop {
        self.parent_gone.clone()
    }

    /// Waits until there is no older process.
    pub async fn parent_end(&self) {
        if self.parent().is_some() {
            self.parent_gone.heard().await;
        }
    }

    /// Notes that the child is to bring visitors of this id here. False if it knows, or is to
    /// bring none.
    fn announce(&self, id: &str) -> bool {
        let mut child = lock(&self.child);
        let announced = child.as_mut().and_then(|child| child.announced.as_mut());
        announced.is_some_and(|announced| announced.insert(id.into()))
    }

    /// Notes that the child is not to bring visitors of this id here any more. False if it never
    /// was.
    fn revoke(&self, id: &str) -> bool {
        let mut child = lock(&self.child);
        let announced = child.as_mut().and_then(|child| child.announced.as_mut());
        announced.is_some_and(|announced| announced.remove(id))
    }

    /// Notes that the child is to bring no visitors from now on. Returns the ids whose visitors it
    /// did.
    fn revoke_all(&self) -> HashSet<Box<str>> {
        let mut child = lock(&self.child);
        let announced = child.as_mut().and_then(|child| child.announced.take());
        announced.unwrap_or_default()
    }
}

impl State {
    /// Has the child bring visitors of this id here.
    pub async fn announce(&self, id: &str, secret: Secret) {
        let Some(child) = self.transfer.child() else {
            return;
        };
        if !self.transfer.announce(id) {
            return;
        }
        let hosts = self.registry.hosts_of(id).into_iter();
        let hosts = hosts.map(|(kind, prefix)| Host {
            tls: kind == Kind::Tls,
            prefix: prefix.into(),
        });
        let holds = Message::Holds {
            id: id.to_owned(),
            hosts: hosts.collect(),
            secret,
        };
        // If it is gone, there is nobody to tell.
        let _ = child.send(&holds, None).await;
    }

    /// The same for an id that has other host prefixes now.
    pub async fn announce_again(&self, id: &str, secret: Secret) {
        if self.transfer.revoke(id) {
            self.announce(id, secret).await;
        }
    }

    /// Tells the child when no tunnel of this id is left here that could serve visitors.
    pub async fn settle(&self, id: &str) {
        if !self.registry.stays(id) && self.transfer.revoke(id) {
            self.release(id).await;
        }
    }

    /// Has the child bring no more visitors: they wait there.
    pub async fn let_go(&self) {
        for id in self.transfer.revoke_all() {
            self.release(&id).await;
        }
    }

    async fn release(&self, id: &str) {
        let Some(child) = self.transfer.child() else {
            return;
        };
        self.give_ports(&child, id).await;
        let _ = child
            .send(&Message::Released { id: id.to_owned() }, None)
            .await;
    }

    /// Leaves the TCP ports of a client to the child.
    pub async fn give_ports(&self, child: &Link, id: &str) {
        for shared in self.registry.take_ports(id) {
            let port = Message::Port {
                id: id.to_owned(),
                random: shared.asked.random,
                asked: shared.asked.port,
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
        self.transfer.parent_gone.say();
    }

    /// Gives the visitor that the message tells of to another process. If that one is gone, gives
    /// the connection back; `None` if it is lost.
    pub async fn bring(
        &self,
        link: &Link,
        message: Message,
        conn: Arc<Conn>,
        place: Place,
    ) -> Result<(), Option<(Arc<Conn>, Place)>> {
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
    pub(super) fn new(state: Arc<State>) -> Self {
        Self(state)
    }

    /// Acts on a message. What has to wait for something else than the next process is left to a
    /// task of its own: messages of one process are acted on in order.
    pub async fn hear(&self, from: Sender, message: Message, socket: Option<OwnedFd>) {
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
            (_, Sender::Child) => {}
            (Message::Holds { id, hosts, secret }, _) => {
                let rules = state.rules.get();
                let admission = match rules.users.judge(&id, secret.as_bytes()) {
                    Verdict::Admitted(admission) => Some(admission),
                    Verdict::Ask(..) => None,
                    Verdict::Refused => {
                        log::warn!("the new configuration does not let id={id} in: its visitors are not served");
                        return;
                    }
                };
                // A name that has become a user's is not another client's any more.
                let is_its = |key: &Key| !rules.users.reserves(&key.1, &id);
                let hosts = hosts.into_iter().map(|host| key(&host));
                let hosts = hosts.filter(is_its).collect();
                let right = Right::new(secret.clone(), admission);
                state.registry.hold(&id, hosts, right);
                state.transfer.revoke(&id);
                state.announce(&id, secret).await;
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
            (Message::Port { .. }, _) if state.stop.is_said() => {}
            (
                Message::Port {
                    id,
                    random,
                    asked,
                    port,
                },
                _,
            ) => {
                let Some(Ok(listener)) = socket.map(Listener::adopt) else {
                    // Its client has closed it meanwhile.
                    return;
                };
                let shared = Shared {
                    asked: Asked {
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
            state.stop.or(Timer::after(KEPT)).await;
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
pub fn key(host: &Host) -> Key {
    let kind = if host.tls { Kind::Tls } else { Kind::Http };
    (kind, host.prefix.as_str().into())
}
