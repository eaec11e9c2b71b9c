//! Changes of a client's services during its session: asks the authAPI and applies them.

use super::ServerSession;
use crate::logging::held_back;
use crate::server::auth_api::AuthDecision;
use crate::server::login::all_granted;
use crate::wire::frame::{RejectCode, ServiceIndex, Signal};
use crate::wire::hello::ServiceSpec;
use crate::wire::Version;
use async_std::channel::Receiver;
use futures_lite::future;
use std::sync::atomic::Ordering;

impl ServerSession {
    /// Asks the authAPI about changed services, one change at a time, while the tunnel goes on.
    /// Returns the reason if the tunnel must end. If the API fails, the granted prefixes stay, so
    /// that running services do not suffer.
    pub(super) async fn review_changes(&self, queue: Receiver<Vec<ServiceSpec>>) -> String {
        while let Ok(services) = queue.recv().await {
            let api = self
                .auth()
                .api_grant
                .as_ref()
                .map(|grant| grant.api.clone());
            let new = match &api {
                Some(api) => match Box::pin(api.authorize(
                    &self.credentials.id,
                    &self.credentials.authenticator,
                    &services,
                ))
                .await
                {
                    AuthDecision::Granted(new) => Some(new),
                    AuthDecision::Denied => return self.reject_change(RejectCode::BadCredentials),
                    AuthDecision::Failed => None,
                },
                None => None,
            };
            let granted = {
                let mut auth = self.auth();
                match &mut auth.api_grant {
                    Some(grant) => {
                        grant.requested = services.clone();
                        if let Some(new) = new {
                            grant.prefixes = new;
                        }
                        grant.prefixes.of(&self.credentials.id, services)
                    }
                    // The configuration knows the client by now.
                    None => all_granted(services),
                }
            };
            self.apply_change(granted).await;
            self.pending_changes.fetch_sub(1, Ordering::SeqCst);
        }
        future::pending().await
    }

    /// Applies a client's changed services. If it may not have them, the tunnel drains.
    pub(super) async fn apply_change(&self, services: Vec<Option<ServiceSpec>>) {
        let (id, peer) = (&self.credentials.id, self.peer);
        let registry = &self.state.registry;
        if self.state.stop.is_triggered() {
            let stays =
                self.tunnel.version() == Version::One && self.state.transfer.child().is_some();
            let is_new = || self.as_login(|login| registry.requests_more(login, &services));
            if !stays || is_new() {
                // Only the child process knows what is free, and the client registers there again.
                // Here it gets nothing new and keeps its prefixes and ports.
                registry.suspend_tunnel(self.key(), &self.tunnel);
                self.tunnel.signal(Signal::Services);
                if stays {
                    // A GT/1 client reconnects only if its tunnel closes.
                    self.tunnel.close();
                    self.state.release_if_done(id).await;
                }
                return;
            }
        }
        let updated = self.as_login(|login| registry.update(login, services, &self.tunnel));
        match updated {
            Ok(opened) => {
                let lines = registry.may_log_change(self.key());
                self.serve_ports(opened, lines.is_some());
                if let Some(more) = lines.map(held_back) {
                    log::info!("services changed id={id} addr={peer}{more}");
                }
                if let Some(secret) = self.credentials.authenticator.secret() {
                    self.state.reannounce(id, secret).await;
                }
            }
            Err(code) => {
                let why = self.reject_change(code);
                log::warn!("a tunnel drains id={id} addr={peer}: {why}");
                self.tunnel.close();
            }
        }
    }

    /// Notes whether a service of the client is up. Its index means another service, perhaps, while a
    /// change waits for the authAPI.
    pub(super) fn service_state(&self, service: ServiceIndex, is_up: bool) {
        if self.pending_changes.load(Ordering::SeqCst) > 0 {
            return;
        }
        let (id, registry) = (&self.credentials.id, &self.state.registry);
        let change = registry.set_state(self.key(), &self.tunnel, service, is_up);
        let Some((name, lines)) = change else { return };
        let more = held_back(lines);
        match is_up {
            true => log::info!("a service is up again id={id} service={name}{more}"),
            false => log::warn!(
                "a service is down, as its client has found; its visitors are refused until it is up \
                 id={id} service={name}{more}"
            ),
        }
    }

    /// Rejects changed services. Returns the reason for the end of the tunnel.
    pub(super) fn reject_change(&self, code: RejectCode) -> String {
        self.state.counters.refused(code);
        self.tunnel.signal(Signal::Error(code));
        format!("its new services were refused: {code}")
    }
}
