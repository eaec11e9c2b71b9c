//! The API: its routes, and which part answers each. docs/api.md and etc/openapi.yaml describe it.

mod config;
pub(crate) mod lockouts;
mod process;
mod services;
mod session;
mod users;

use super::answer::Answer;
use super::login::Admin;
use super::request::Method;
use super::site::Site;
use crate::config::RoleName;
pub use process::status_body;
use serde_json::Value;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Login,
    Logout,
    Session,
    Status,
    Log,
    History,
    Reload,
    Restart,
    PageLockouts,
    LiftPageLockout,
    ReadConfig,
    WriteConfig,
    CheckConfig,
    Clients,
    Client,
    CutVisitor,
    Lockouts,
    LiftLockout,
    Certificate,
    Users,
    AddUser,
    ChangeUser,
    RemoveUser,
    ClientState,
    Bans,
    LiftBan,
    Services,
    AddService,
    ChangeService,
    RemoveService,
    TestService,
}

/// All routes: the method, the path with the names of its arguments, and what it is for.
pub const ROUTES: [(Method, &str, Route); 31] = [
    (Method::Post, "/api/login", Route::Login),
    (Method::Post, "/api/logout", Route::Logout),
    (Method::Get, "/api/session", Route::Session),
    (Method::Get, "/api/status", Route::Status),
    (Method::Get, "/api/log", Route::Log),
    (Method::Get, "/api/history", Route::History),
    (Method::Post, "/api/reload", Route::Reload),
    (Method::Post, "/api/restart", Route::Restart),
    (Method::Get, "/api/lockouts", Route::PageLockouts),
    (
        Method::Delete,
        "/api/lockouts/{address}",
        Route::LiftPageLockout,
    ),
    (Method::Get, "/api/config", Route::ReadConfig),
    (Method::Put, "/api/config", Route::WriteConfig),
    (Method::Post, "/api/config/check", Route::CheckConfig),
    (Method::Get, "/api/server/clients", Route::Clients),
    (Method::Get, "/api/server/clients/{id}", Route::Client),
    (
        Method::Delete,
        "/api/server/visitors/{number}",
        Route::CutVisitor,
    ),
    (Method::Get, "/api/server/lockouts", Route::Lockouts),
    (
        Method::Delete,
        "/api/server/lockouts/{address}",
        Route::LiftLockout,
    ),
    (Method::Get, "/api/server/certificate", Route::Certificate),
    (Method::Get, "/api/server/users", Route::Users),
    (Method::Post, "/api/server/users", Route::AddUser),
    (Method::Patch, "/api/server/users/{id}", Route::ChangeUser),
    (Method::Delete, "/api/server/users/{id}", Route::RemoveUser),
    (Method::Get, "/api/client", Route::ClientState),
    (Method::Get, "/api/client/bans", Route::Bans),
    (Method::Delete, "/api/client/bans/{address}", Route::LiftBan),
    (Method::Get, "/api/client/services", Route::Services),
    (Method::Post, "/api/client/services", Route::AddService),
    (
        Method::Patch,
        "/api/client/services/{number}",
        Route::ChangeService,
    ),
    (
        Method::Delete,
        "/api/client/services/{number}",
        Route::RemoveService,
    ),
    (
        Method::Post,
        "/api/client/services/{number}/test",
        Route::TestService,
    ),
];

/// A call of the API by one that may make it.
pub struct Call {
    /// The name and the password in force.
    pub admin: Arc<Admin>,
    /// The arguments in the path.
    pub arguments: Vec<String>,
    pub query: Vec<(String, String)>,
    /// The body; null if there is none.
    pub body: Value,
    /// The version of the configuration that is to be changed.
    pub if_match: Option<String>,
    /// The cookie of the session; those that a login shows; none with a password.
    pub cookies: Vec<String>,
    /// Where the call comes from.
    pub peer: SocketAddr,
    pub is_tls: bool,
}

impl Call {
    /// Returns a value of the query.
    pub fn query(&self, name: &str) -> Option<&str> {
        let mut pairs = self.query.iter();
        pairs
            .find(|(it, _)| it == name)
            .map(|(_, value)| value.as_str())
    }

    /// Returns the first argument in the path.
    pub fn argument(&self) -> &str {
        self.arguments.first().map_or("", String::as_str)
    }

    /// Returns a text of the body.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.body.get(name)?.as_str()
    }

    /// Writes the log line about a change.
    pub fn log(&self, what: impl fmt::Display) {
        log::info!("the web page: {} has {what}", Who(self));
    }
}

struct Who<'a>(&'a Call);

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Call { admin, peer, .. } = self.0;
        write!(f, "{} from {}", admin.name(), peer.ip().to_canonical())
    }
}

impl Route {
    /// Finds the route of a request, with the arguments in its path. The error is the answer.
    pub fn find(method: Method, path: &[&str]) -> Result<(Self, Vec<String>), Answer> {
        let mut methods = Vec::new();
        for (its, template, route) in ROUTES {
            let Some(arguments) = matched(template, path) else {
                continue;
            };
            let is_it = its == method || (its == Method::Get && method == Method::Head);
            if is_it {
                return Ok((route, arguments));
            }
            methods.push(its);
        }
        if methods.is_empty() {
            return Err(Answer::error(
                404,
                "The API has no such path: see docs/api.md.",
            ));
        }
        let allowed = methods.iter().map(|it| match it {
            Method::Get => "GET, HEAD".to_owned(),
            it => format!("{it:?}").to_uppercase(),
        });
        let allowed = allowed.collect::<Vec<_>>().join(", ");
        let why = format!("This path takes {allowed}.");
        Err(Answer::error(405, why).with("Allow", &allowed))
    }

    /// Whether one needs not be signed in.
    pub fn is_open(self) -> bool {
        self == Self::Login
    }

    /// Returns the kind of role that answers; `None` if the page itself does.
    fn role(self) -> Option<RoleName> {
        match self {
            Self::Clients
            | Self::Client
            | Self::CutVisitor
            | Self::Lockouts
            | Self::LiftLockout
            | Self::Certificate => Some(RoleName::Server),
            Self::ClientState | Self::Bans | Self::LiftBan => Some(RoleName::Client),
            _ => None,
        }
    }
}

/// Returns the arguments of a path that matches a template.
fn matched(template: &str, path: &[&str]) -> Option<Vec<String>> {
    let parts: Vec<&str> = template.split('/').skip(1).collect();
    if parts.len() != path.len() {
        return None;
    }
    let mut arguments = Vec::new();
    for (part, is) in parts.iter().zip(path) {
        match part.starts_with('{') {
            true if is.is_empty() => return None,
            true => arguments.push((*is).to_owned()),
            false if part == is => {}
            false => return None,
        }
    }
    Some(arguments)
}

/// Answers a call.
pub async fn answer(site: &Arc<Site>, route: Route, call: Call) -> Answer {
    if let Some(name) = route.role() {
        return match site.role(call.query("role"), Some(name)) {
            Some(role) => role.answer(route, &call).await,
            None => no_role(name),
        };
    }
    match route {
        Route::Login => session::login(site, &call).await,
        Route::Logout => session::logout(site, &call),
        Route::Session => session::session(&call),
        Route::Status => process::status(site).await,
        Route::Log => process::log(&call),
        Route::History => process::history(site),
        Route::Reload => process::reload(site, &call).await,
        Route::Restart => process::restart(&call),
        Route::PageLockouts => lockouts::list(site.login.lockout()),
        Route::LiftPageLockout => lockouts::lift(site.login.lockout(), &call, " from the web page"),
        Route::ReadConfig => config::read(site, &call).await,
        Route::WriteConfig => config::write(site, &call).await,
        Route::CheckConfig => config::check(site, &call).await,
        Route::Users | Route::AddUser | Route::ChangeUser | Route::RemoveUser => {
            users::answer(site, route, call).await
        }
        Route::Services
        | Route::AddService
        | Route::ChangeService
        | Route::RemoveService
        | Route::TestService => services::answer(site, route, call).await,
        _ => Answer::error(404, "The API has no such path."),
    }
}

fn no_role(name: RoleName) -> Answer {
    Answer::error(404, format!("This process runs no such {name}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_found_by_its_path() {
        for (method, template, route) in ROUTES {
            let path = template
                .replace("{id}", "a")
                .replace("{number}", "1")
                .replace("{address}", "::1");
            let parts: Vec<&str> = path.split('/').skip(1).collect();
            let found = Route::find(method, &parts).map(|(route, _)| route);
            assert_eq!(found.unwrap(), route, "{template}");
        }
        let status =
            |method, path: &[&str]| Route::find(method, path).map(drop).unwrap_err().status;
        assert_eq!(status(Method::Get, &["api"]), 404);
        assert_eq!(status(Method::Get, &["api", "server", "clients", ""]), 404);
        assert_eq!(status(Method::Delete, &["api", "status"]), 405);
        assert!(Route::find(Method::Head, &["api", "status"]).is_ok());
    }

    /// Reads the paths and methods of the description, whose lines are indented as an editor does.
    #[test]
    fn the_openapi_file_has_every_route_and_no_other() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/openapi.yaml");
        let text = std::fs::read_to_string(path).unwrap();
        let (mut described, mut path) = (Vec::new(), String::new());
        for line in text.lines().skip_while(|line| *line != "paths:").skip(1) {
            match line.strip_suffix(':') {
                Some(line) if line.starts_with("  /") => path = line.trim().to_owned(),
                Some("    get" | "    put" | "    post" | "    patch" | "    delete") => {
                    described.push(format!("{} {path}", line.trim().trim_end_matches(':')));
                }
                _ if !line.starts_with(' ') => break,
                _ => {}
            }
        }
        let mut routes: Vec<String> = ROUTES
            .iter()
            .map(|(method, path, _)| format!("{} {path}", format!("{method:?}").to_lowercase()))
            .collect();
        described.sort_unstable();
        routes.sort_unstable();
        assert_eq!(described, routes);
    }
}
