//! The client as a role of the process. Builds without the feature have `no_client_role`.

use super::role::{all, AllDone, ProcessRole, RoleSet};
use crate::client::{self, Client, ClientPlan};
use crate::config::RoleConfig;
use crate::handover::{Inherited, Outgoing};
use std::io;
use std::time::Duration;

/// A running client.
pub type ClientRole = Client;

impl ProcessRole for ClientRole {
    type Plan = ClientPlan;

    fn plan(
        loaded: &RoleConfig,
        running: Option<&Self>,
        inherited: &mut Inherited,
    ) -> io::Result<Option<ClientPlan>> {
        let config = loaded.role.client();
        config
            .map(|config| ClientPlan::new(config, &loaded.source, running, inherited))
            .transpose()
    }

    fn start(plan: ClientPlan) -> io::Result<Self> {
        Ok(Client::start(plan))
    }

    fn change(&mut self, plan: ClientPlan) {
        Client::change(self, plan);
    }

    fn export(&self) -> Vec<Outgoing> {
        Client::export(self)
    }

    async fn stop(self, patience: Duration) {
        Client::stop(&self, patience).await;
    }
}

/// Checks the files that a client's configuration names; other roles pass.
pub fn check(loaded: &RoleConfig) -> io::Result<()> {
    let config = loaded.role.client();
    config.map_or(Ok(()), |config| client::check(config, &loaded.source))
}

/// Waits until the clients are connected or have tried.
pub fn wait_ready(clients: &RoleSet<ClientRole>) -> AllDone<'_> {
    all(clients.iter().map(|(_, client)| client.wait_ready()))
}

/// Retries failed connections of the clients.
pub fn retry_now(clients: &RoleSet<ClientRole>) -> AllDone<'_> {
    all(clients.iter().map(|(_, client)| client.retry_now()))
}

/// Makes clients that wait before their next attempt connect at once.
pub fn wake(clients: &RoleSet<ClientRole>) {
    for (_, client) in clients.iter() {
        client.wake();
    }
}
