//! One tunnel of a pool: its services, and whether another one has to take its place.

use super::context::ClientContext;
use super::health::ServiceHealth;
use super::offered_services::OfferedServices;
use super::services::{ServerAbility, Services};
use crate::config::Remote;
use crate::net::{clock, LinkUse, Shutdown};
use crate::sync::{Mutex, MutexGuard};
use crate::tunnel::Tunnel;
use crate::wire::frame::Signal;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// One tunnel of the pool.
pub struct PooledTunnel {
    /// The number of the tunnel in the log.
    pub id: u32,
    /// The server's address.
    pub remote: Remote,
    /// The link of this machine that the tunnel is over.
    pub link: LinkUse,
    /// When the tunnel was opened.
    pub begun: Instant,
    /// The tunnel itself.
    pub tunnel: Tunnel,
    /// What its server can publish.
    ability: ServerAbility,
    /// The services that the tunnel's streams are for.
    offered: Mutex<OfferedServices>,
    /// The first reason for a replacement.
    replace_reason: OnceLock<ReplaceReason>,
    /// Triggered when `replace_reason` is set.
    must_replace: Shutdown,
    /// Whether the tunnel is one of those that are always kept, and so is not closed when idle.
    pub kept: bool,
}

/// The reason why a tunnel is to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplaceReason {
    /// The server has asked for a new tunnel: it is about to end, and another process takes over.
    Asked,
    /// The server has closed the tunnel. It stops, or prefers another client with this id: two
    /// clients that reconnect at once would replace each other in turn.
    ClosedByServer,
    /// The tunnel has failed.
    Lost,
    /// A better way to the server works, or another link carries fewer tunnels.
    BetterWay,
}

impl PooledTunnel {
    /// Creates the entry of a tunnel for which the server has confirmed the `offered` services.
    pub fn new(
        id: u32,
        (remote, link): (Remote, LinkUse),
        (tunnel, ability): (Tunnel, ServerAbility),
        offered: OfferedServices,
        kept: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            remote,
            link,
            begun: clock::now(),
            tunnel,
            ability,
            offered: Mutex::new(offered),
            replace_reason: OnceLock::new(),
            must_replace: Shutdown::default(),
            kept,
        })
    }

    /// Marks the tunnel for replacement. Only the first reason counts; returns whether this is the
    /// first.
    pub fn leave(&self, why: ReplaceReason) -> bool {
        let is_first = self.replace_reason.set(why).is_ok();
        self.must_replace.trigger();
        is_first
    }

    /// Waits until a replacement is due.
    pub async fn replaced(&self) -> ReplaceReason {
        self.must_replace.wait().await;
        self.replace_reason
            .get()
            .copied()
            .unwrap_or(ReplaceReason::Lost)
    }

    /// Locks the services that the tunnel's streams are for.
    pub fn offered(&self) -> MutexGuard<'_, OfferedServices> {
        self.offered.lock()
    }

    /// Changes the services, and tells the server if it would see a difference.
    pub fn offer(&self, context: &ClientContext, services: &Arc<Services>) {
        services.log_unpublished(self.ability);
        services.log_untold_health(self.ability);
        let services = services.for_server(self.ability);
        if services.is_empty() {
            // Only those are left that the server cannot publish; the next attempt says so.
            self.leave(ReplaceReason::Lost);
            return self.tunnel.close();
        }
        let mut offered = self.offered();
        if offered.change(services.clone()) {
            let hello = services.hello(&context.id, context.credential.proof());
            self.tunnel
                .send_bytes(&hello.encode_change(self.tunnel.version()));
        }
        self.tell(&mut offered, |_| false);
    }

    /// Tells the server which services are down, as far as it does not know, and in any case of this one:
    /// it may not have heeded it before.
    pub fn tell_health(&self, again: &Arc<ServiceHealth>) {
        self.tell(&mut self.offered(), |health| Arc::ptr_eq(health, again));
    }

    /// Notes that the server has confirmed changed services. Returns false if it had nothing to confirm.
    pub fn confirm(&self) -> bool {
        let mut offered = self.offered();
        let due = offered.confirm();
        // A server heeds no states of services that it has yet to decide about.
        self.tell(&mut offered, |_| due);
        due
    }

    fn tell(&self, offered: &mut OfferedServices, again: impl Fn(&Arc<ServiceHealth>) -> bool) {
        if !self.ability.health {
            return;
        }
        for (service, is_up) in offered.news(again) {
            self.tunnel.signal(Signal::ServiceState { service, is_up });
        }
    }
}
