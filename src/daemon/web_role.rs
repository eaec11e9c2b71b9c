//! The web page as a role of the process, which shows the others. Builds without the feature have
//! `no_web_role`.

use super::client_role::ClientRole;
use super::role::{ProcessRole, RoleSet};
use super::server_role::ServerRole;
use super::{client_views, server_views};
use crate::config::RoleConfig;
use crate::handover::{Inherited, Outgoing};
pub use crate::web::Change;
use crate::web::{self, Web, WebPlan};
use std::io;
use std::time::Duration;

/// A running page.
pub type WebRole = Web;

impl ProcessRole for WebRole {
    type Plan = WebPlan;

    fn plan(
        loaded: &RoleConfig,
        running: Option<&Self>,
        inherited: &mut Inherited,
    ) -> io::Result<Option<WebPlan>> {
        let check = |loaded: &RoleConfig| super::check(loaded).map_err(|e| e.to_string());
        let plan = |config| WebPlan::new(config, &loaded.source, running, inherited, check);
        loaded.web().map(plan).transpose()
    }

    fn start(plan: WebPlan) -> io::Result<Self> {
        Ok(Web::start(plan))
    }

    fn change(&mut self, plan: WebPlan) {
        Web::change(self, plan);
    }

    fn export(&self) -> Vec<Outgoing> {
        Web::export(self)
    }

    async fn stop(self, _: Duration) {
        // The call that has saved a configuration without a page waits for this.
        self.report(Change::Reload, None);
        Web::stop(&self);
    }
}

/// Checks the files that the page's configuration names.
pub fn check(loaded: &RoleConfig) -> io::Result<()> {
    loaded.web().map_or(Ok(()), web::check)
}

/// Has every page show all roles of the process.
pub fn show(webs: &RoleSet<WebRole>, servers: &RoleSet<ServerRole>, clients: &RoleSet<ClientRole>) {
    if webs.is_empty() {
        return server_views::hide(servers);
    }
    for (_, web) in webs.iter() {
        let mut views = server_views::views(servers);
        views.extend(client_views::views(clients));
        web.show(views);
    }
}

/// Tells the pages what has become of a reload or a restart; the error is a sentence.
pub fn report(webs: &RoleSet<WebRole>, what: Change, error: Option<String>) {
    for (_, web) in webs.iter() {
        web.report(what, error.clone());
    }
}

/// Stops the pages, whose listeners another process has.
pub fn stop(webs: &RoleSet<WebRole>) {
    webs.iter().for_each(|(_, web)| web.stop());
}
