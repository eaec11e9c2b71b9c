//! The server's configuration: merged from flags and file, checked. Not the server.

mod limits;
mod networks;
mod options;
mod overlap;
mod tls;
mod users;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::account::AccountConfig;
use super::address::{ListenAddr, FIRST_FREE_PORT};
use super::file::{error, without_p2p, Document};
use super::foreign::Content;
use super::logging::{LoggingConfig, SentryConfig};
use super::options::{CommonOptions, OptionName};
use super::value::{all, either, given, Value};
use super::yaml::{fields, unknown_to_all};
use super::{ConfigError, Role, RoleConfig, Url, Wire};
use limits::{HostEntry, PartLimits, TcpEntry};
pub use limits::{HostRules, Limits, PortRange, TcpRule};
pub use networks::Network;
pub use options::ServerOptions;
use tls::TlsOption;
pub use tls::TlsVersion;
pub use users::User;
use users::{UserEntry, UsersConfig};

/// Options that have their effect only where there is P2P.
const OF_P2P: &[&str] = &["stunAddr"];

/// A server, ready to start.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// For visitors and tunnels in the clear.
    pub addr: Option<ListenAddr>,
    /// For visitors and tunnels over TLS; `cert_file` and `key_file` are set when this is.
    pub tls_addr: Option<ListenAddr>,
    /// For TLS visitors that are passed on as they come, by server name.
    pub sni_addr: Option<ListenAddr>,
    /// PEM, for `tls_addr`.
    pub cert_file: Option<PathBuf>,
    /// PEM, for `tls_addr`.
    pub key_file: Option<PathBuf>,
    /// The oldest TLS to speak on `tls_addr`.
    pub tls_min: TlsVersion,
    /// By id, each id once.
    pub users: Vec<User>,
    /// What happens to clients that are not among `users`, unless an authAPI decides.
    pub any_client: AnyClient,
    /// For clients that are not among `users`; those have their own, complete.
    pub limits: Limits,
    /// How long a tunnel may be silent; zero means any time.
    pub timeout: Duration,
    /// Whether traffic in one direction alone counts as silence.
    pub timeout_on_unidirectional_traffic: bool,
    /// The header that names the prefix, `Host` unless configured.
    pub http_mux_header: String,
    /// Whose connections carry one request each.
    pub front_proxies: Vec<Network>,
    /// How often an address may fail to authenticate before it is refused; 0 for any number.
    pub reconnect_times: u32,
    /// How long it is refused then.
    pub reconnect_duration: Duration,
    /// Most connections of one address at a time; 0 for any number.
    pub address_connections: u32,
    /// Most connections of all at a time; 0 for any number.
    pub total_connections: u32,
    /// The URL to ask about users.
    pub auth_api: Option<Url>,
    /// The status page.
    pub api: Option<ApiConfig>,
    /// The STUN service.
    pub stun_addr: Option<ListenAddr>,
    /// Where the log goes.
    pub logging: LoggingConfig,
    /// Where reports go.
    pub sentry: Option<SentryConfig>,
    /// Whom to become.
    pub account: AccountConfig,
    /// Executor threads, 1 to 64.
    pub threads: usize,
    /// What tunnels may speak.
    pub wire: Wire,
}

impl ServerConfig {
    /// Whether it listens on ports below 1024, or clients may have it listen there.
    pub fn low_ports(&self) -> bool {
        let api = self.api.as_ref().map(|api| &api.addr);
        let listeners = [&self.addr, &self.tls_addr, &self.sni_addr, &self.stun_addr];
        let mut listeners = listeners.into_iter().flatten().chain(api);
        listeners.any(ListenAddr::is_low) || self.low_client_ports()
    }

    /// Whether clients may have it listen on ports below 1024.
    fn low_client_ports(&self) -> bool {
        let users = self.users.iter().map(|user| &user.limits);
        let mut rules = users.chain([&self.limits]).flat_map(|limits| &limits.tcp);
        rules.any(|rule| rule.range.first < FIRST_FREE_PORT)
    }
}

/// Whether a client that is not among the configured users may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnyClient {
    /// It is refused.
    Refused,
    /// `allowAnyClient` is set.
    Allowed,
    /// It may, because nothing in the configuration is about users.
    AllowedByDefault,
}

/// The status page's listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiConfig {
    /// Where to listen.
    pub addr: ListenAddr,
    /// Certificate and key, PEM; `None` means plain HTTP.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The oldest TLS to speak.
    pub tls_min: TlsVersion,
    /// The host names that requests may be for, besides IP addresses and localhost.
    pub hosts: Vec<String>,
}

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub struct ServerFlags {
    /// The options of both roles.
    pub common: CommonOptions,
    /// The server's own.
    pub own: ServerOptions,
    /// The flags that were given, each once.
    pub given: Vec<&'static str>,
}

/// A server's file.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ServerFile {
    version: (),
    r#type: (),
    options: (),
    users: Option<BTreeMap<String, UserEntry>>,
    tcp: Option<Vec<TcpEntry>>,
    tcp_number: Option<Value<u32>>,
    host: HostEntry,
}

/// The names of all its options.
pub fn names() -> Vec<OptionName> {
    let mut names = super::options::names::<ServerOptions>();
    names.append(&mut super::options::names::<CommonOptions>());
    names
}

/// Whether a server's `options:` may hold it.
#[cfg(feature = "client")]
pub(super) fn is_option(key: &str) -> bool {
    fields::<ServerOptions>().contains(&key) || fields::<CommonOptions>().contains(&key)
}

/// Merges flags and file, a flag over the file, and checks the outcome.
pub fn load(flags: ServerFlags, document: Option<&Document>) -> Result<RoleConfig, ConfigError> {
    let mut warnings = without_p2p(OF_P2P, &flags.given, document);
    let mut file = ServerFile::default();
    let mut options = ServerOptions::default();
    let mut common = CommonOptions::default();
    if let Some(document) = document {
        let mut unknown;
        (file, unknown) = document.read(&[])?;
        let read: (ServerOptions, _) = document.read(&["options"])?;
        let read_common: (CommonOptions, _) = document.read(&["options"])?;
        unknown.extend(unknown_to_all([read.1, read_common.1]));
        let names = [fields::<ServerOptions>(), fields::<CommonOptions>()].concat();
        warnings.extend(document.unknown(&unknown, &names));
        (options, common) = (read.0, read_common.0);
    }
    let fail = |message: String| error(document, message);

    let mut users = UsersConfig::default();
    // Each of these says that not everybody may connect, even if it turns out to be empty: a users
    // file may be half-written, a variable of a start script unset.
    let mut users_are_configured = document.is_some_and(|it| it.node(&["users"]).is_some());
    for options in [&flags.own, &options] {
        users_are_configured |= !options.id.is_empty() || !options.secret.is_empty();
    }
    users.add_pairs(&flags.own).map_err(ConfigError)?;
    if let Some(path) = given(flags.own.users.clone().or(options.users.clone())) {
        users_are_configured = true;
        let document = Document::open(&path, Content::Users)?;
        let (entries, unknown) = document.read(&[])?;
        warnings.extend(document.unknown(&unknown, &[]));
        users.add_entries(entries);
    }
    users.add_pairs(&options).map_err(fail)?;
    users.add_entries(file.users.unwrap_or_default());

    let (tcp, tcp_number) = tcp(&flags.own, &options, file.tcp, file.tcp_number).map_err(fail)?;
    let options = flags.own.or(options);
    let common = flags.common.or(common);
    let global = PartLimits {
        tcp,
        tcp_number,
        speed: given(options.speed),
        connections: given(options.connections),
        host: HostEntry {
            number: options.host_number,
            regex: Some(options.host_regex).filter(|list| !list.is_empty()),
            with_id: options.host_with_id,
        }
        .or(file.host),
    };
    let auth_api = given(options.auth_api);
    let allow_any_client = given(options.allow_any_client).unwrap_or(false);
    warnings.extend(users.warn_of_global(&global, allow_any_client || auth_api.is_some()));
    let users = users.finish(&global).map_err(fail)?;

    let nobody = users.is_empty() && auth_api.is_none();
    let any_client = match allow_any_client {
        true => AnyClient::Allowed,
        false if nobody && !users_are_configured => {
            warnings
                .push("working on -allowAnyClient mode, because no user is configured".to_owned());
            AnyClient::AllowedByDefault
        }
        false => AnyClient::Refused,
    };
    if nobody && any_client == AnyClient::Refused {
        warnings.push(
            "no client can connect: users are configured, but there is not one in the \
             configuration or the users file; add one, or set allowAnyClient"
                .to_owned(),
        );
    }
    let (api_cert, api_key) = (given(options.api_cert_file), given(options.api_key_file));
    if api_cert.is_some() != api_key.is_some() {
        warnings.push(
            "the API speaks plain HTTP: HTTPS needs both apiCertFile and apiKeyFile".to_owned(),
        );
    }
    if allow_any_client && auth_api.is_some() {
        warnings.push(
            "allowAnyClient has no effect beside authAPI, which decides about every client that \
             is not among the users"
                .to_owned(),
        );
    }
    let tunnel_tls_min = tls_min("tlsVersion", options.tls_version, &mut warnings);
    let api_tls_min = tls_min("apiTLSVersion", options.api_tls_version, &mut warnings);
    let server = ServerConfig {
        addr: options.addr.map_or(
            Some(ListenAddr {
                host: None,
                port: 80,
            }),
            |addr| addr.0,
        ),
        tls_addr: given(options.tls_addr),
        sni_addr: given(options.sni_addr),
        cert_file: given(options.cert_file),
        key_file: given(options.key_file),
        tls_min: tunnel_tls_min,
        users,
        any_client,
        limits: global.resolve(),
        timeout: given(options.timeout).unwrap_or(Duration::from_secs(90)),
        timeout_on_unidirectional_traffic: given(options.timeout_on_unidirectional_traffic)
            .unwrap_or(false),
        http_mux_header: given(options.http_mux_header).map_or("Host".to_owned(), |name| name.0),
        front_proxies: all(options.front_proxies),
        reconnect_times: given(options.reconnect_times).unwrap_or(3),
        reconnect_duration: given(options.reconnect_duration).unwrap_or(Duration::from_secs(300)),
        address_connections: given(options.address_connections).unwrap_or(0),
        total_connections: given(options.total_connections).unwrap_or(0),
        auth_api,
        api: given(options.api_addr).map(|addr| ApiConfig {
            addr,
            tls: api_cert.zip(api_key),
            tls_min: api_tls_min,
            hosts: all(options.api_hosts)
                .into_iter()
                .map(|host| host.0)
                .collect(),
        }),
        stun_addr: given(options.stun_addr),
        logging: common.logging(),
        sentry: common.sentry(),
        account: common.account(),
        threads: common.threads(),
        wire: common.wire(),
    };
    check(&server).map_err(fail)?;
    warnings.extend(same_listeners(&server));
    if server.account.user.is_some() && server.low_client_ports() {
        warnings.push(
            "clients may have TCP ports below 1024, which cannot be opened once gt is another user"
                .to_owned(),
        );
    }
    Ok(RoleConfig {
        role: Role::Server(Box::new(server)),
        source: document.map(|document| document.path.clone()),
        warnings,
        shown: String::new(),
    })
}

fn check(server: &ServerConfig) -> Result<(), String> {
    if server.addr.is_none() && server.tls_addr.is_none() && server.sni_addr.is_none() {
        return Err("There is nothing to listen on: set addr, tlsAddr or sniAddr.".to_owned());
    }
    if server.tls_addr.is_some() && (server.cert_file.is_none() || server.key_file.is_none()) {
        return Err(
            "tlsAddr needs certFile and keyFile: the certificate and its key, in PEM.".to_owned(),
        );
    }
    Ok(())
}

/// Listeners that cannot both be had. The system has the last word: `:80` and `1.2.3.4:80` differ.
fn same_listeners(server: &ServerConfig) -> Option<String> {
    let api = server.api.as_ref().map(|api| api.addr.clone());
    let listeners = [
        ("addr", &server.addr),
        ("tlsAddr", &server.tls_addr),
        ("sniAddr", &server.sni_addr),
        ("apiAddr", &api),
    ];
    let given = |(name, addr): (&'static str, &Option<ListenAddr>)| {
        let addr = addr.clone().filter(|addr| addr.port != 0)?;
        Some((name, addr))
    };
    let mut before: Vec<(&str, ListenAddr)> = Vec::new();
    for (name, addr) in listeners.into_iter().filter_map(given) {
        if let Some((other, _)) = before.iter().find(|(_, other)| *other == addr) {
            let hint = "only one can have it; \"\" turns a listener off";
            return Some(format!("{other} and {name} are both {addr}: {hint}"));
        }
        before.push((name, addr));
    }
    None
}

/// The global TCP rules of the highest priority, and the number for rules that have none.
fn tcp(
    flags: &ServerOptions,
    options: &ServerOptions,
    list: Option<Vec<TcpEntry>>,
    number: Option<Value<u32>>,
) -> Result<(Option<Vec<TcpEntry>>, Option<u32>), String> {
    for options in [flags, options] {
        let ranges = all(options.tcp_range.clone());
        if !ranges.is_empty() {
            let (list, number) = TcpEntry::pair(all(options.tcp_number.clone()), ranges)?;
            return Ok((Some(list), number));
        }
    }
    let numbers = all(either(flags.tcp_number.clone(), options.tcp_number.clone()));
    if numbers.len() > 1 || (!numbers.is_empty() && list.is_none()) {
        return Err(
            "tcpNumber needs a tcpRange to go with it, like -tcpNumber 1 -tcpRange 1024-65535."
                .to_owned(),
        );
    }
    Ok((list, numbers.first().copied().or(given(number))))
}

fn tls_min(
    option: &str,
    asked: Option<Value<TlsOption>>,
    warnings: &mut Vec<String>,
) -> TlsVersion {
    match given(asked) {
        Some(TlsOption::Tls11) => {
            warnings.push(format!(
                "{option} is tls1.1, which is broken and not spoken here; it means tls1.2"
            ));
            TlsVersion::Tls12
        }
        Some(TlsOption::Spoken(version)) => version,
        None => TlsVersion::Tls12,
    }
}
