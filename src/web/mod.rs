//! The web page by which a person runs gt, and its API for scripts (docs/web.md, docs/api.md): a listener of
//! its own. Not what the roles do: they answer for themselves, see `role`. Builds without it have no such
//! module, and `daemon::no_web_role`.

pub(crate) mod answer;
pub(crate) mod api;
mod config_files;
mod connection;
mod files;
pub(crate) mod history;
mod login;
mod places;
mod reports;
pub(crate) mod request;
pub(crate) mod role;
mod sessions;
mod site;
mod status_socket;

use crate::config::{ListenAddr, Secret, WebConfig, WebTls};
use crate::handover::{Inherited, Item, Outgoing};
use crate::net::http::hosts::AllowedHosts;
use crate::net::tls::{Acceptor, ClientCertificates, MinVersion, ServerIdentity};
use crate::net::{self, Listener, Shutdown};
use crate::sync::Mutex;
pub use config_files::CheckRole;
use connection::Connections;
use login::Admin;
pub use reports::Change;
use role::RoleView;
use site::{Site, SiteSettings};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A running page. Clones share it.
#[derive(Clone)]
pub struct Web(Arc<WebState>);

struct WebState {
    site: Arc<Site>,
    open: Mutex<OpenListener>,
    /// Triggered when the page ends.
    stop: Shutdown,
}

/// A listener, and what stops the accepting on it.
struct OpenListener {
    listener: Arc<Listener>,
    addr: ListenAddr,
    stop: Shutdown,
}

/// The plan to start or change a page: its listener is open, and its files have been read.
pub struct WebPlan {
    listener: Arc<Listener>,
    config: WebConfig,
    acceptor: Option<Acceptor>,
    /// The sessions of the parent process.
    sessions: Option<Secret>,
    check_role: CheckRole,
}

impl WebPlan {
    /// Plans how to apply `config` to a `running` page, or to a new one, and changes nothing yet. The error
    /// names the listener or the file that cannot be used.
    pub fn new(
        config: &WebConfig,
        file: &Option<PathBuf>,
        running: Option<&Web>,
        inherited: &mut Inherited,
        check_role: CheckRole,
    ) -> io::Result<Self> {
        let addr = config.addr();
        let known = running.and_then(|web| {
            let open = web.0.open.lock();
            (open.addr == *addr).then(|| open.listener.clone())
        });
        let listener = match known {
            Some(listener) => listener,
            None => match inherited.listener(file, addr) {
                Some(listener) => Arc::new(listener),
                None => {
                    let listening = net::listen(addr.host.as_deref(), addr.port);
                    Arc::new(listening.map_err(|e| {
                        io::Error::new(e.kind(), format!("listening on webAddr {addr}: {e}"))
                    })?)
                }
            },
        };
        Ok(Self {
            listener,
            config: config.clone(),
            acceptor: acceptor(config, running)?,
            sessions: inherited.web_sessions(file),
            check_role,
        })
    }

    fn settings(&self) -> SiteSettings {
        SiteSettings {
            acceptor: self.acceptor.clone(),
            hosts: AllowedHosts::new(&self.config.hosts),
            admin: Arc::new(Admin::new(&self.config.admin, self.config.password.clone())),
        }
    }
}

/// Returns what accepts TLS; `None` for plain HTTP. The error names the file that cannot be used.
fn acceptor(config: &WebConfig, running: Option<&Web>) -> io::Result<Option<Acceptor>> {
    let identity = match &config.tls {
        None => return Ok(None),
        Some(WebTls::Files(cert, key)) => ServerIdentity::from_files(cert, key)?,
        Some(WebTls::Own(Some(directory))) => ServerIdentity::in_directory(directory)?,
        // A browser that trusts a certificate should not be asked again by a reload.
        Some(WebTls::Own(None)) => match running.and_then(|web| web.own_acceptor()) {
            Some(acceptor) => return Ok(Some(acceptor)),
            None => ServerIdentity::new()?,
        },
    };
    Acceptor::new(
        identity,
        MinVersion::Tls12,
        ClientCertificates::Unasked,
        None,
    )
    .map(Some)
}

/// Checks whether the files that `config` names can be used. Makes and opens nothing. The error names the one
/// that cannot.
pub fn check(config: &WebConfig) -> io::Result<()> {
    let identity = match &config.tls {
        Some(WebTls::Files(cert, key)) => Some(ServerIdentity::from_files(cert, key)?),
        Some(WebTls::Own(Some(directory))) => ServerIdentity::made_in(directory)?,
        Some(WebTls::Own(None)) | None => None,
    };
    let acceptor =
        identity.map(|it| Acceptor::new(it, MinVersion::Tls12, ClientCertificates::Unasked, None));
    acceptor.transpose().map(drop)
}

impl Web {
    /// Starts a page, which shows no roles yet.
    pub fn start(plan: WebPlan) -> Self {
        let port = plan.listener.addr().port();
        let site = Arc::new(Site::new(plan.settings(), port, plan.check_role));
        if let Some(sessions) = &plan.sessions {
            site.sessions.import(sessions.as_bytes());
        }
        let stop = Shutdown::default();
        net::spawn(site.clone().keep_history(stop.clone()));
        status_socket::expose(&site);
        let open = open(&site, &plan);
        announce(&site, &plan);
        Self(Arc::new(WebState {
            site,
            open: Mutex::new(open),
            stop,
        }))
    }

    /// Applies another configuration. Sessions go on unless the name or the password is another.
    pub fn change(&self, plan: WebPlan) {
        let Self(web) = self;
        let mut settings = plan.settings();
        let before = web.site.settings.get();
        match before.admin.is(&settings.admin) {
            // It knows the right password, which takes long to check again.
            true => settings.admin = before.admin.clone(),
            false => web.site.sessions.end_all(),
        }
        web.site.settings.replace(settings);
        let mut now = web.open.lock();
        if !Arc::ptr_eq(&now.listener, &plan.listener) {
            let before = std::mem::replace(&mut *now, open(&web.site, &plan));
            before.stop.trigger();
        }
        drop(now);
        // One that is signed in needs no link.
        if !web.site.reports.is_awaited() || plan.config.password.is_some() {
            announce(&web.site, &plan);
        }
    }

    /// Shows these roles from now on.
    pub fn show(&self, roles: Vec<Arc<dyn RoleView>>) {
        self.0.site.show(roles);
    }

    /// Tells calls that wait what has become of a reload or a restart; the error is a sentence.
    pub fn report(&self, what: Change, error: Option<String>) {
        self.0.site.reports.note(what, error);
    }

    /// Returns the sockets and state to hand over to the child process.
    pub fn export(&self) -> Vec<Outgoing> {
        let Self(web) = self;
        let open = web.open.lock();
        let listener = Item::Listener {
            addr: open.addr.to_string(),
        };
        let sessions = Item::WebSessions {
            sessions: Secret::new(web.site.sessions.export()),
        };
        vec![(listener, Some(open.listener.clone())), (sessions, None)]
    }

    /// Stops accepting. Requests that have come are answered.
    pub fn stop(&self) {
        self.0.open.lock().stop.trigger();
        self.0.stop.trigger();
        self.0.site.show(Vec::new());
    }

    /// Returns the acceptor whose certificate lasts as long as the process.
    fn own_acceptor(&self) -> Option<Acceptor> {
        self.0.site.settings.get().acceptor.clone()
    }
}

/// Starts to accept connections on the listener of a plan.
fn open(site: &Arc<Site>, plan: &WebPlan) -> OpenListener {
    let (listener, stop) = (plan.listener.clone(), Shutdown::default());
    let addr = plan.config.addr();
    log::info!("Listening webAddr={addr}");
    log::info!("acceptLoop started addr={}", listener.addr());
    let connections = Connections::new(site.clone(), stop.clone());
    net::spawn(connections.accept(listener.clone()));
    OpenListener {
        listener,
        addr: addr.clone(),
        stop,
    }
}

/// Makes a link that signs in once, if there is no password, and logs it.
fn announce(site: &Site, plan: &WebPlan) {
    if plan.config.password.is_some() {
        return site.login.forget_link();
    }
    let scheme = match plan.acceptor {
        Some(_) => "https",
        None => "http",
    };
    match site.login.new_link() {
        Ok(link) => log::info!(
            "the web page: {scheme}://{}/#link={link} signs in once, within 10 minutes; a reload makes another link",
            plan.listener.addr()
        ),
        Err(e) => log::error!("the web page: no link can be made: {e}"),
    }
}
