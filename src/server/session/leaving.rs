//! Moving of tunnels from this draining process to its child.

use super::{ServerSession, TunnelOrigin};
use crate::handover::MovedTunnel;
use crate::net::kernel::OwnedFd;
use crate::net::{timeout, Timer};
use crate::server::registry::Registration;
use crate::server::users::Authenticator;
use crate::tunnel::Inbox;
use crate::wire::frame::{Signal, StreamId};
use crate::wire::hello::{Hello, Proof, ServiceSpec};
use crate::wire::Version;
use futures_lite::future;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Time that a tunnel must be unused before it moves: a little more than the 2 s for which
/// half-closed visitors keep their streams after the last byte of an answer.
const UNUSED_TIME: Duration = Duration::from_secs(3);
/// Time that other visitors are served before the next attempt if streams stay.
const NEXT_ATTEMPT_PAUSE: Duration = Duration::from_secs(10);
/// Time to wait for the rest of a partially read frame before the next attempt.
pub(super) const MOVE_RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// The result of an attempt to move a tunnel out of this process.
pub(super) enum LeaveResult {
    /// The tunnel moves, with this socket.
    Moves(MovedTunnel, OwnedFd),
    /// The tunnel ends here; its client reconnects to the child process.
    Closes,
    /// The tunnel cannot move now.
    Stays,
}

impl ServerSession {
    /// Rejects or moves a client that sent its hello while this server began to drain. Another process
    /// may own by now what the client wants to register.
    pub(super) async fn reject_after_stop(
        &self,
        services: Vec<Option<ServiceSpec>>,
        mut inbox: Inbox,
        origin: TunnelOrigin,
    ) {
        log::debug!(
            "{}: a tunnel of {} arrived after the drain began",
            self.peer,
            self.credentials.id
        );
        let checked = self.as_login(|login| self.state.registry.check_hosts(login, &services));
        if let Err(code) = checked {
            // Do not tell it that it is ready under names that belong to another client.
            self.state.counters.refused(code);
            self.tunnel.signal(Signal::Error(code));
            return self.close_tunnel(inbox, false).await;
        }
        let of_original = self.tunnel.version() == Version::One && !self.is_self_test;
        if of_original && self.state.transfer.child().is_some() {
            future::poll_once(self.tunnel.park()).await;
            // The tunnel's writer has to find first that there is nothing to send.
            for _ in 0..10 {
                let registration = Registration {
                    services: services.clone(),
                    last_stream: StreamId(0),
                };
                match self.take_tunnel(&mut inbox, registration, origin) {
                    Some(Ok((moved, socket))) => return self.move_away(moved, socket).await,
                    Some(Err(_)) => return,
                    None if inbox.is_movable() => Timer::after(MOVE_RETRY_INTERVAL).await,
                    None => break,
                };
            }
        }
        if origin == TunnelOrigin::Client {
            self.tunnel.signal(Signal::Ready);
        }
        if self.tunnel.version() == Version::Two {
            self.tunnel.signal(Signal::Reconnect);
        }
        self.tunnel.close();
        self.close_tunnel(inbox, false).await;
    }

    /// Moves the tunnel to the child process.
    pub(super) async fn move_away(&self, moved: MovedTunnel, socket: OwnedFd) {
        if !self
            .state
            .move_tunnel(&self.credentials.id, moved, socket)
            .await
        {
            log::warn!(
                "a tunnel of id={} is lost: the new process has ended",
                self.credentials.id
            );
        }
    }

    /// Takes the tunnel's socket and state, if possible now.
    pub(super) fn take_tunnel(
        &self,
        inbox: &mut Inbox,
        registration: Registration,
        origin: TunnelOrigin,
    ) -> Option<io::Result<(MovedTunnel, OwnedFd)>> {
        let Registration {
            services,
            last_stream,
        } = registration;
        let services = {
            let auth = self.auth();
            match &auth.api_grant {
                Some(grant) => grant.requested.clone(),
                None => services.into_iter().collect::<Option<_>>()?,
            }
        };
        let from = inbox.conn().peer_addr().ok();
        // Tunnels with keys are of GT/2, and do not move.
        let Authenticator::Secret(secret) = self.credentials.authenticator.clone() else {
            return None;
        };
        let taken = inbox.take_conn()?;
        let hello = Hello {
            id: self.credentials.id.clone(),
            proof: Proof::Secret(secret),
            services,
            window: 0,
            origins: false,
            bbr: false,
            instance: None,
        };
        let (is_ready, last_stream) = match origin {
            TunnelOrigin::Client => (false, StreamId(0)),
            TunnelOrigin::Process { last_stream: first } => (true, first.max(last_stream)),
        };
        let moved = |(socket, unread)| {
            let moved = MovedTunnel {
                peer: Some(self.peer).filter(|peer| from != Some(*peer)),
                is_ready,
                last_stream,
                unread,
                hello: hello.encode_registration(),
            };
            (moved, socket)
        };
        Some(taken.map(moved))
    }

    /// Asks the child process to forward the client's visitors here. Clients with keys connect there
    /// again by themselves.
    async fn announce(&self) {
        if let Some(secret) = self.credentials.authenticator.secret() {
            self.state.announce(&self.credentials.id, secret).await;
        }
    }

    /// Waits until no stream needs this tunnel here, after the child process has taken over. Until
    /// then the child forwards the client's visitors here.
    pub(super) async fn wait_movable(&self, pause: Duration) {
        if self.state.transfer.child().is_none() {
            return future::pending().await;
        }
        if !pause.is_zero() {
            Timer::after(pause).await;
        }
        let registry = &self.state.registry;
        let parked = future::poll_once(self.tunnel.park()).await;
        if parked.is_none() || !pause.is_zero() {
            self.announce().await;
        }
        loop {
            self.tunnel.park().await;
            if timeout(UNUSED_TIME, self.tunnel.unused()).await.is_some() {
                return;
            }
            // A visitor that has ended its direction still receives data.
            self.tunnel.unpark();
            registry.notify_changed();
            // Those that wait in the child are served here meanwhile.
            self.announce().await;
            future::or(self.tunnel.unused(), async {
                Timer::after(NEXT_ATTEMPT_PAUSE).await;
            })
            .await;
        }
    }

    /// Takes the tunnel to move it to the child process, or closes it if it cannot move, so that
    /// its client reconnects there.
    pub(super) async fn try_move(&self, inbox: &mut Inbox) -> LeaveResult {
        if !inbox.is_movable() {
            self.tunnel.close();
            self.state.release_if_done(&self.credentials.id).await;
            return LeaveResult::Closes;
        }
        // While a change of services is pending, the registration is not known.
        let pending = self.pending_changes.load(Ordering::SeqCst) > 0;
        let registration = self.state.registry.registration(self.key(), &self.tunnel);
        let Some(registration) = registration.filter(|_| !pending) else {
            self.tunnel.unpark();
            self.state.registry.notify_changed();
            return LeaveResult::Stays;
        };
        let ready = TunnelOrigin::Process {
            last_stream: StreamId(0),
        };
        match self.take_tunnel(inbox, registration, ready) {
            Some(Ok((moved, socket))) => LeaveResult::Moves(moved, socket),
            Some(Err(e)) => {
                log::warn!(
                    "moving a tunnel of id={} to the new process: {e}",
                    self.credentials.id
                );
                self.tunnel.finish();
                LeaveResult::Closes
            }
            None => LeaveResult::Stays,
        }
    }
}
