//! What all connections of the page share: who may use it, the roles that it shows, and the last hour.

use super::config_files::CheckRole;
use super::history::{History, Totals};
use super::login::{Admin, LoginGuard};
use super::reports::Reports;
use super::role::RoleView;
use super::sessions::Sessions;
use crate::config::RoleName;
use crate::current::Current;
use crate::net::http::hosts::AllowedHosts;
use crate::net::tls::Acceptor;
use crate::net::{blocking, Shutdown};
use crate::sync::Mutex;
use std::sync::Arc;

/// The settings of the page, which a reload changes.
pub struct SiteSettings {
    pub acceptor: Option<Acceptor>,
    pub hosts: AllowedHosts,
    pub admin: Arc<Admin>,
}

/// The shared state of the page.
pub struct Site {
    pub settings: Current<SiteSettings>,
    pub sessions: Sessions,
    pub login: LoginGuard,
    pub history: History,
    pub reports: Reports,
    /// Held by the call that changes a file of the configuration.
    pub editing: async_lock::Mutex<()>,
    /// Checks whether a role could run.
    pub check_role: CheckRole,
    /// The name of the cookie of sessions: browsers send those of one host to all of its ports.
    pub cookie: String,
    roles: Mutex<Vec<Arc<dyn RoleView>>>,
}

impl Site {
    /// Creates the state of a page at this port, which shows no roles yet.
    pub fn new(settings: SiteSettings, port: u16, check_role: CheckRole) -> Self {
        Self {
            settings: Current::new(settings),
            sessions: Sessions::default(),
            login: LoginGuard::default(),
            history: History::default(),
            reports: Reports::default(),
            editing: async_lock::Mutex::new(()),
            check_role,
            cookie: format!("gt-{port}"),
            roles: Mutex::default(),
        }
    }

    /// Shows these roles from now on.
    pub fn show(&self, roles: Vec<Arc<dyn RoleView>>) {
        *self.roles.lock() = roles;
    }

    /// Returns the roles in their order.
    pub fn roles(&self) -> Vec<Arc<dyn RoleView>> {
        self.roles.lock().clone()
    }

    /// Returns the role with this number, or the first one of a kind.
    pub fn role(&self, number: Option<&str>, name: Option<RoleName>) -> Option<Arc<dyn RoleView>> {
        let is_meant = |role: &Arc<dyn RoleView>| name.is_none_or(|name| role.name() == name);
        let roles = self.roles();
        match number {
            Some(number) => roles
                .get(number.parse::<usize>().ok()?)
                .filter(|it| is_meant(it))
                .cloned(),
            None => roles.into_iter().find(is_meant),
        }
    }

    /// Returns the numbers of all roles. Blocks like [`RoleView::totals`].
    pub fn totals(&self) -> Totals {
        let mut all = Totals::default();
        self.roles().iter().for_each(|role| all.add(&role.totals()));
        all
    }

    /// Takes the points of the history until `stop` is triggered.
    pub async fn keep_history(self: Arc<Self>, stop: Shutdown) {
        let keeping = async {
            loop {
                let site = self.clone();
                blocking(move || site.history.add(site.totals())).await;
                self.history.next().await;
            }
        };
        stop.or::<()>(keeping).await;
    }
}
