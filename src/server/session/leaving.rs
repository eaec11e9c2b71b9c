//! Tunnels that leave this process for the one that takes its place.

use super::{Origin, ServerSession};
use crate::config::Secret;
use crate::handover::MovedTunnel;
use crate::net::timeout;
use crate::server::registry::Registration;
use crate::tunnel::Inbox;
use crate::wire::frame::Signal;
use crate::wire::hello::{Hello, ServiceSpec};
use crate::wire::Version;
use async_io::Timer;
use futures_lite::future;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Visitors that have ended their direction keep their streams for a little less than this after
/// the last answer.
const LAST_ANSWERS: Duration = Duration::from_secs(3);
/// If they keep them for longer, so long other visitors are served before the next try.
const NEXT_TRY: Duration = Duration::from_secs(10);
/// How long it takes until a frame that has begun is whole.
pub(super) const MOVE_RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// What has become of a tunnel that was to leave this process.
pub(super) enum LeaveResult {
    Moves(MovedTunnel, OwnedFd),
    /// It ends here, and its client comes back to the newer process.
    Closes,
    /// It is in the middle of something.
    Stays,
}

impl ServerSession {
    /// Sees off a client that has said hello while this server began to make way. What it wants to
    /// register may be another process's by now.
    pub(super) async fn refuse_after_stop(
        &self,
        offers: Vec<Option<ServiceSpec>>,
        mut inbox: Inbox,
        origin: Origin,
    ) {
        log::debug!("{}: a tunnel of {} comes too late", self.peer, self.id);
        let checked = self.as_login(|login| self.state.registry.check_hosts(login, &offers));
        if let Err(refusal) = checked {
            // It is not told that it is ready under names that are another client's.
            self.state.counters.refused(refusal);
            self.tunnel.signal(Signal::Error(refusal));
            return self.close_tunnel(inbox, false).await;
        }
        let of_original = self.tunnel.version() == Version::One && !self.guest;
        if of_original && self.state.transfer.child().is_some() {
            future::poll_once(self.tunnel.park()).await;
            // Its writer has first to find that there is nothing to send.
            for _ in 0..10 {
                let registration = Registration {
                    offers: offers.clone(),
                    last_task: 0,
                };
                match self.take_tunnel(&mut inbox, registration, origin) {
                    Some(Ok((moved, socket))) => return self.send_away(moved, socket).await,
                    Some(Err(_)) => return,
                    None if inbox.is_movable() => Timer::after(MOVE_RETRY_INTERVAL).await,
                    None => break,
                };
            }
        }
        if origin == Origin::Client {
            self.tunnel.signal(Signal::Ready);
        }
        if self.tunnel.version() == Version::Two {
            self.tunnel.signal(Signal::Reconnect);
        }
        self.tunnel.close();
        self.close_tunnel(inbox, false).await;
    }

    /// Gives the tunnel to the newer process.
    pub(super) async fn send_away(&self, moved: MovedTunnel, socket: OwnedFd) {
        if !self.state.give_tunnel(&self.id, moved, socket).await {
            log::warn!("a tunnel of {} is lost, the new process is gone", self.id);
        }
    }

    /// Takes the tunnel out of this process, if it can be done now.
    pub(super) fn take_tunnel(
        &self,
        inbox: &mut Inbox,
        registration: Registration,
        origin: Origin,
    ) -> Option<io::Result<(MovedTunnel, OwnedFd)>> {
        let Registration { offers, last_task } = registration;
        let offers = {
            let standing = self.auth();
            match standing.judge {
                Some(_) => standing.asked.clone(),
                None => offers.into_iter().collect::<Option<_>>()?,
            }
        };
        let taken = inbox.take_conn()?;
        let hello = Hello {
            id: self.id.clone(),
            secret: self.secret.clone(),
            offers,
            window: 0,
        };
        let (is_ready, last_task) = match origin {
            Origin::Client => (false, 0),
            Origin::Process { last_task: first } => (true, first.max(last_task)),
        };
        let moved = |(socket, unread)| {
            let moved = MovedTunnel {
                is_ready,
                last_stream: last_task,
                unread,
                hello: hello.encode_registration(),
            };
            (moved, socket)
        };
        Some(taken.map(moved))
    }

    /// Waits until another process has taken over, and no stream needs this tunnel here. Until
    /// then that process brings the client's visitors here.
    pub(super) async fn may_leave(&self, pause: Duration) {
        self.state.stop.wait().await;
        if self.state.transfer.child().is_none() {
            return future::pending().await;
        }
        if !pause.is_zero() {
            Timer::after(pause).await;
        }
        let registry = &self.state.registry;
        let parked = future::poll_once(self.tunnel.park()).await;
        if parked.is_none() || !pause.is_zero() {
            self.state
                .announce(&self.id, Secret::new(&*self.secret))
                .await;
        }
        loop {
            self.tunnel.park().await;
            if timeout(LAST_ANSWERS, self.tunnel.unused()).await.is_some() {
                return;
            }
            // A visitor that has ended its direction still gets much.
            self.tunnel.unpark();
            registry.changed();
            future::or(self.tunnel.unused(), async {
                Timer::after(NEXT_TRY).await;
            })
            .await;
        }
    }

    /// Takes the tunnel to the newer process, or closes it if that cannot be done, so that its
    /// client comes there.
    pub(super) async fn leave(&self, inbox: &mut Inbox) -> LeaveResult {
        if !inbox.is_movable() {
            self.tunnel.close();
            self.state.settle(&self.id).await;
            return LeaveResult::Closes;
        }
        // While its services change, nobody knows what it offers.
        let judging = self.auth().judging > 0;
        let registration = self.state.registry.registration(&self.id, &self.tunnel);
        let Some(registration) = registration.filter(|_| !judging) else {
            self.tunnel.unpark();
            self.state.registry.changed();
            return LeaveResult::Stays;
        };
        let ready = Origin::Process { last_task: 0 };
        match self.take_tunnel(inbox, registration, ready) {
            Some(Ok((moved, socket))) => LeaveResult::Moves(moved, socket),
            Some(Err(e)) => {
                log::warn!("a tunnel of {} cannot be moved: {e}", self.id);
                self.tunnel.finish();
                LeaveResult::Closes
            }
            None => LeaveResult::Stays,
        }
    }
}
