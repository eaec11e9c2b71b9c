//! Changes of what a client offers while its tunnel is served.

use super::ServerSession;
use crate::config::Secret;
use crate::server::auth_api::AuthDecision;
use crate::server::login::all;
use crate::wire::frame::{RejectCode, Signal};
use crate::wire::hello::ServiceSpec;
use crate::wire::Version;
use async_std::channel::Receiver;
use futures_lite::future;

impl ServerSession {
    /// Asks the API about changed services, one change after the other, while the tunnel
    /// goes on. Says why if it is to end. If the API fails, what was granted stays granted:
    /// what runs must not suffer.
    pub(super) async fn review_changes(&self, queue: Receiver<Vec<ServiceSpec>>) -> String {
        while let Ok(offers) = queue.recv().await {
            let api = self.auth().judge.as_ref().map(|(api, _)| api.clone());
            let new = match &api {
                Some(api) => match Box::pin(api.judge(&self.id, &self.secret, &offers)).await {
                    AuthDecision::Granted(new) => Some(new),
                    AuthDecision::Denied => return self.refuse_change(RejectCode::BadCredentials),
                    AuthDecision::Failed => None,
                },
                None => None,
            };
            let granted = {
                let mut standing = self.auth();
                standing.asked = offers.clone();
                match &mut standing.judge {
                    Some((_, grant)) => {
                        if let Some(new) = new {
                            *grant = new;
                        }
                        grant.of(&self.id, offers)
                    }
                    // Meanwhile the configuration knows it.
                    None => all(offers),
                }
            };
            self.apply_change(granted).await;
            let mut standing = self.auth();
            standing.judging = standing.judging.saturating_sub(1);
        }
        future::pending().await
    }

    /// The services signal: the same client with other services. If it cannot have them, the
    /// tunnel ends, but not before what runs.
    pub(super) async fn apply_change(&self, offers: Vec<Option<ServiceSpec>>) {
        let (id, peer) = (&self.id, self.peer);
        let registry = &self.state.registry;
        if self.state.stop.is_triggered() {
            let stays =
                self.tunnel.version() == Version::One && self.state.transfer.child().is_some();
            let is_new = || self.as_login(|login| registry.is_new(login, &offers));
            if !stays || is_new() {
                // The newer process alone knows what is free, and there the client says so again.
                // Here it gets nothing new, and what it has must not suffer.
                registry.set_aside(id, &self.tunnel);
                self.tunnel.signal(Signal::Services);
                if stays {
                    // It is not asked to come there in another way.
                    self.tunnel.close();
                    self.state.settle(id).await;
                }
                return;
            }
        }
        let updated = self.as_login(|login| registry.update(login, offers, &self.tunnel));
        match updated {
            Ok(opened) => {
                self.serve_ports(opened);
                log::info!("services changed id={id} addr={peer}");
                self.state
                    .announce_again(id, Secret::new(&*self.secret))
                    .await;
            }
            Err(refusal) => {
                let why = self.refuse_change(refusal);
                log::warn!("a tunnel drains id={id} addr={peer}: {why}");
                self.tunnel.close();
            }
        }
    }

    pub(super) fn refuse_change(&self, refusal: RejectCode) -> String {
        self.state.counters.refused(refusal);
        self.tunnel.signal(Signal::Error(refusal));
        format!("its new services were refused: {refusal}")
    }
}
