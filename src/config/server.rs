//! The server's configuration, read from flags and file and checked. Not the server.

mod acme;
mod limits;
mod options;
mod overlap;
mod tls;
mod udp_listeners;
mod users;
mod ws_place;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::account::AccountConfig;
use super::address::{ListenAddr, FIRST_FREE_PORT};
use super::file::{error, Document};
use super::foreign::Content;
use super::layers::{
    without_acme, without_p2p, without_quic, without_web, without_ws, Flag, Layers, OptionName,
    Options,
};
use super::logging::{AccessLogConfig, LoggingConfig, SentryConfig};
use super::options::{CommonOptions, OF_WEB};
use super::value::{given, Value};
use super::web::{WebFile, WebPassword};
use super::{
    AddressRules, ConfigError, Network, PortRange, Role, RoleConfig, Url, WebConfig, Wire,
};
use crate::state_dir::IDENTITY;
pub use acme::AcmeConfig;
use limits::{GlobalLimits, PartLimits, PartPorts, PortEntry};
pub use limits::{HostRules, Limits, PortLimits, PortRule};
pub(super) use options::{PairedOptions, ServerOptions};
use tls::TlsOption;
pub use tls::TlsVersion;
pub use users::User;
use users::{UserEntry, UsersConfig};
pub use ws_place::WsPlace;

/// Options that need the feature `acme`.
const OF_ACME: &[&str] = &["acmeDomain"];
/// Options that need the feature `p2p`.
const OF_P2P: &[&str] = &["stunAddr"];
/// Options that need the feature `ws`.
const OF_WS: &[&str] = &["wsPath"];
/// Options that need the feature `quic`.
const OF_QUIC: &[&str] = &["quicAddr"];
/// Options that may also be set in the section `host:`, and their keys there.
const OF_HOST: [(&str, &str); 3] = [
    ("hostNumber", "number"),
    ("hostRegex", "regex"),
    ("hostWithID", "withID"),
];

/// The checked configuration of a server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Address for visitors and tunnels without TLS.
    pub addr: Option<ListenAddr>,
    /// Address for visitors and tunnels over TLS; needs `cert_file` and `key_file`, or `state_dir`.
    pub tls_addr: Option<ListenAddr>,
    /// Address for TLS that is routed by its server name and not decrypted.
    pub sni_addr: Option<ListenAddr>,
    /// UDP address for tunnels over QUIC.
    pub quic_addr: Option<ListenAddr>,
    /// PEM file with the certificate for `tls_addr` and `quic_addr`.
    pub cert_file: Option<PathBuf>,
    /// PEM file with the key for `tls_addr` and `quic_addr`.
    pub key_file: Option<PathBuf>,
    /// PEM file with the authorities of visitors' certificates, which visitors of `tls_addr` must have.
    pub client_ca: Option<PathBuf>,
    /// Directory with the certificate that the server makes if it has no `cert_file`.
    pub state_dir: Option<PathBuf>,
    /// How the server gets certificates for the names of its clients; `None` if it gets none.
    pub acme: Option<AcmeConfig>,
    /// Oldest TLS version for `tls_addr`.
    pub tls_min: TlsVersion,
    /// Users, sorted by id; each id once.
    pub users: Vec<User>,
    /// Whether clients that are not among `users` are admitted, unless an authAPI decides.
    pub any_client: AnyClient,
    /// Limits of clients that are not among `users`. Users have complete limits of their own.
    pub limits: Limits,
    /// Time after which a silent tunnel is closed; zero for never.
    pub timeout: Duration,
    /// Time of silence after which a visitor's flow of datagrams ends.
    pub udp_timeout: Duration,
    /// Whether a connection with traffic in one direction only is treated as silent.
    pub timeout_on_unidirectional_traffic: bool,
    /// Header that contains the host prefix.
    pub http_mux_header: String,
    /// Addresses of reverse proxies, whose connections carry one request each.
    pub front_proxies: Vec<Network>,
    /// Addresses of proxies whose connections begin with a header of the PROXY protocol.
    pub accept_proxy: Vec<Network>,
    /// The addresses that visitors may come from.
    pub visitors: AddressRules,
    /// Number of failed logins after which an address is locked out; 0 for no limit.
    pub reconnect_times: u32,
    /// Duration of a lockout.
    pub reconnect_duration: Duration,
    /// Maximum number of connections from one address; 0 for no limit.
    pub address_connections: u32,
    /// Maximum number of connections; 0 for no limit.
    pub total_connections: u32,
    /// URL that is asked about ids and secrets.
    pub auth_api: Option<Url>,
    /// Listener of the API.
    pub api: Option<ApiConfig>,
    /// UDP address of the STUN service.
    pub stun_addr: Option<ListenAddr>,
    /// The web page by which gt is run; `None` for none.
    pub web: Option<WebConfig>,
    /// Log level, file and rotation.
    pub logging: LoggingConfig,
    /// The log of visitors; `None` for none.
    pub access_log: Option<AccessLogConfig>,
    /// Error reports to Sentry; `None` for none.
    pub sentry: Option<SentryConfig>,
    /// User and group to run as.
    pub account: AccountConfig,
    /// Number of executor threads, 1 to 64.
    pub threads: usize,
    /// Whether the kernel may join and split UDP datagrams.
    pub udp_offload: bool,
    /// Versions of the wire that tunnels may use.
    pub wire: Wire,
    /// Where tunnels in WebSockets are taken; `None` for nowhere.
    pub ws: Option<WsPlace>,
    /// Whether connections use the congestion control BBR where the kernel has it.
    pub bbr: bool,
}

impl ServerConfig {
    /// Whether no client can connect, because there is no user.
    #[cfg(feature = "web")]
    pub fn admits_nobody(&self) -> bool {
        self.users.is_empty() && self.auth_api.is_none() && self.any_client != AnyClient::Allowed
    }

    /// Whether the server listens on ports below 1024, or lets clients open such ports.
    pub fn low_ports(&self) -> bool {
        let api = self.api.as_ref().map(|api| &api.addr);
        let web = self.web.as_ref().map(WebConfig::addr);
        let of_tcp = [&self.addr, &self.tls_addr, &self.sni_addr];
        let of_udp = [&self.quic_addr, &self.stun_addr];
        let listeners = of_tcp.into_iter().chain(of_udp).flatten();
        let mut listeners = listeners.chain(api).chain(web);
        listeners.any(ListenAddr::is_low) || self.low_client_ports()
    }

    /// Whether clients may open ports below 1024.
    fn low_client_ports(&self) -> bool {
        let users = self.users.iter().map(|user| &user.limits);
        let mut rules = users
            .chain([&self.limits])
            .flat_map(|limits| limits.tcp.rules.iter().chain(&limits.udp.rules));
        rules.any(|rule| rule.range.first < FIRST_FREE_PORT)
    }
}

/// The policy for clients that are not among the configured users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnyClient {
    /// Such clients are refused.
    Refused,
    /// Such clients are admitted, since `allowAnyClient` is set.
    Allowed,
    /// Such clients are admitted, since the configuration has nothing about users.
    AllowedByDefault,
}

/// The listener of the API.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiConfig {
    /// Address to listen on.
    pub addr: ListenAddr,
    /// PEM files with the certificate and the key; `None` for plain HTTP.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Oldest TLS version.
    pub tls_min: TlsVersion,
    /// Host names that requests may have, besides IP addresses and localhost.
    pub hosts: Vec<String>,
}

/// The sections of a server's file. Those of type `()` are read elsewhere.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ServerFile {
    version: (),
    r#type: (),
    options: (),
    admin: Option<Value<String>>,
    password: Option<Value<WebPassword>>,
    users: Option<BTreeMap<String, UserEntry>>,
    tcp: Option<Vec<PortEntry>>,
    tcp_number: Option<Value<u32>>,
    udp: Option<Vec<PortEntry>>,
    udp_number: Option<Value<u32>>,
    host: (),
}

/// Returns all options of a server.
pub fn names() -> impl Iterator<Item = &'static OptionName> {
    let names = [
        ServerOptions::NAMES,
        PairedOptions::NAMES,
        CommonOptions::NAMES,
    ];
    names.into_iter().flatten()
}

/// Reads and checks the configuration of a server.
pub fn load(flags: &[Flag], document: Option<&Document>) -> Result<RoleConfig, ConfigError> {
    let mut warnings = without_p2p(OF_P2P, flags, document);
    warnings.extend(without_acme(OF_ACME, flags, document));
    warnings.extend(without_ws(OF_WS, flags, document));
    warnings.extend(without_quic(OF_QUIC, flags, document));
    warnings.extend(without_web(OF_WEB, flags, document));
    let (mut sections, mut file) = (Vec::new(), ServerFile::default());
    if let Some(document) = document {
        let mut unknown;
        (file, unknown) = document.read(&[])?;
        let host = document.section("host", &OF_HOST)?;
        unknown.extend(host.unknown(&OF_HOST.map(|(_, key)| key)));
        let options = document.section("options", &[])?;
        let names: Vec<&str> = names().map(|name| name.camel).collect();
        unknown.extend(options.unknown(&names));
        warnings.extend(document.unknown(&unknown, &names));
        sections.extend([options, host]);
    }
    let layers = |flags, file| Layers { flags, file };
    let options: ServerOptions = layers(flags, &sections).read()?;
    let common: CommonOptions = layers(flags, &sections).read()?;
    let by_flags: PairedOptions = layers(flags, &[]).read()?;
    let by_file: PairedOptions = layers(&[], &sections).read()?;
    let fail = |message: String| error(document, message);
    let acme = AcmeConfig::of(&options, common.state_dir.as_ref())
        .map_err(fail)?
        .filter(|_| cfg!(feature = "acme"));

    let mut secret_files: Vec<PathBuf> = document
        .and_then(Document::with_secrets)
        .into_iter()
        .collect();
    let keys = [&options.key_file, &options.api_key_file];
    secret_files.extend(keys.into_iter().flatten().cloned());
    let mut users = UsersConfig::default();
    // Each of these restricts which clients may connect, even if it turns out to be empty: a users
    // file may be half-written, a variable of a start script unset.
    let mut users_are_configured = document.is_some_and(|it| it.node(&["users"]).is_some());
    for pairs in [&by_flags, &by_file] {
        users_are_configured |= !pairs.id.is_empty() || !pairs.secret.is_empty();
    }
    users.add_pairs(&by_flags).map_err(ConfigError)?;
    if let Some(path) = &options.users {
        users_are_configured = true;
        let replaced = document.and_then(|it| it.users.as_ref());
        let document = match replaced.filter(|(of, _)| of == path) {
            Some((_, text)) => Document::parse(path, text.clone(), Content::Users)?,
            None => Document::open(path, Content::Users)?,
        };
        let (entries, unknown) = document.read(&[])?;
        warnings.extend(document.unknown(&unknown, &[]));
        secret_files.extend(document.with_secrets());
        users
            .add_entries(entries, &mut secret_files)
            .map_err(|why| error(Some(&document), why))?;
    }
    users.add_pairs(&by_file).map_err(fail)?;
    users
        .add_entries(file.users.unwrap_or_default(), &mut secret_files)
        .map_err(fail)?;

    let sources = [by_flags, by_file];
    let of_tcp = sources
        .each_ref()
        .map(|it| (it.tcp_number.clone(), it.tcp_range.clone()));
    let of_udp = sources.map(|it| (it.udp_number, it.udp_range));
    let listed = |list, number| PartPorts {
        list,
        number: given(number),
    };
    let tcp = listed(file.tcp, file.tcp_number);
    let udp = listed(file.udp, file.udp_number);
    let global = GlobalLimits {
        tcp: global_ports("tcp", of_tcp, tcp).map_err(fail)?,
        udp: global_ports("udp", of_udp, udp).map_err(fail)?,
        speed: options.speed,
        connections: options.connections,
        hosts: HostRules {
            number: options.host_number,
            regex: options.host_regex.into_iter().map(|it| it.0).collect(),
            with_id: options.host_with_id,
        },
        domains: options.domains,
    };
    let has_domains = !global.domains.is_empty();
    if has_domains && !options.http_mux_header.0.eq_ignore_ascii_case("Host") {
        warnings.push(
            "domains apply to TLS alone, since HTTP visitors are routed by another header than Host \
             (httpMUXHeader)"
                .to_owned(),
        );
    }
    let auth_api = options.auth_api;
    let allow_any_client = options.allow_any_client;
    warnings.extend(users.warn_of_global(&global, allow_any_client || auth_api.is_some()));
    let users = users.finish(&global).map_err(fail)?;

    let no_users = users.is_empty() && auth_api.is_none();
    let any_client = match allow_any_client {
        true => AnyClient::Allowed,
        false if no_users && !users_are_configured => {
            warnings
                .push("working on -allowAnyClient mode, because no user is configured".to_owned());
            AnyClient::AllowedByDefault
        }
        false => AnyClient::Refused,
    };
    if no_users && any_client == AnyClient::Refused {
        warnings.push(
            "no client can connect: users are configured, but neither the configuration nor the \
             users file has one; add one, or set allowAnyClient"
                .to_owned(),
        );
    }
    let (api_cert, api_key) = (options.api_cert_file, options.api_key_file);
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
    let web_file = WebFile {
        admin: given(file.admin),
        password: given(file.password),
    };
    let web = WebConfig::new(&common, web_file, &mut warnings).map_err(fail)?;
    secret_files.extend(web.as_ref().and_then(WebConfig::key_file));
    let tunnel_tls_min = tls_min("tlsVersion", options.tls_version, &mut warnings);
    let api_tls_min = tls_min("apiTLSVersion", options.api_tls_version, &mut warnings);
    let server = ServerConfig {
        logging: common.logging(),
        access_log: common.access_log(),
        sentry: common.sentry(),
        account: common.account(),
        threads: common.threads(),
        udp_offload: common.udp_offload,
        addr: options.addr.0,
        tls_addr: options.tls_addr,
        sni_addr: options.sni_addr,
        quic_addr: options.quic_addr,
        cert_file: options.cert_file,
        key_file: options.key_file,
        client_ca: options.client_ca,
        state_dir: common.state_dir,
        acme,
        tls_min: tunnel_tls_min,
        users,
        any_client,
        limits: PartLimits::default().complete(&global),
        timeout: options.timeout,
        udp_timeout: options.udp_timeout,
        timeout_on_unidirectional_traffic: options.timeout_on_unidirectional_traffic,
        http_mux_header: options.http_mux_header.0,
        front_proxies: options.front_proxies,
        accept_proxy: options.accept_proxy,
        visitors: AddressRules::new(("allow", options.allow), ("deny", options.deny))
            .map_err(fail)?,
        reconnect_times: options.reconnect_times,
        reconnect_duration: options.reconnect_duration,
        address_connections: options.address_connections,
        total_connections: options.total_connections,
        auth_api,
        api: options.api_addr.map(|addr| ApiConfig {
            addr,
            tls: api_cert.zip(api_key),
            tls_min: api_tls_min,
            hosts: options.api_hosts.into_iter().map(|host| host.0).collect(),
        }),
        stun_addr: options.stun_addr,
        web,
        wire: common.wire,
        ws: options.ws_path.0,
        bbr: common.bbr,
    };
    let udp_timeout = server.udp_timeout.as_secs();
    if !(1..=3600).contains(&udp_timeout) {
        return Err(fail("udpTimeout is outside of 1s to 1h.".to_owned()));
    }
    check(&server).map_err(fail)?;
    warnings.extend(udp_listeners::check(&server).map_err(fail)?);
    warnings.extend(same_listeners(&server));
    warnings.extend(uncertified_visitors(&server));
    let has_own_identity = server.cert_file.is_none();
    let state_dir = server.state_dir.as_ref().filter(|_| has_own_identity);
    secret_files.extend(state_dir.map(|path| path.join(IDENTITY)));
    if server.account.user.is_some() && server.low_client_ports() {
        warnings.push(
            "clients may have ports below 1024, which cannot be opened once gt is another user"
                .to_owned(),
        );
    }
    Ok(RoleConfig {
        role: Role::Server(Box::new(server)),
        source: document.map(|document| document.path.clone()),
        warnings,
        secret_files,
        shown: String::new(),
    })
}

fn check(server: &ServerConfig) -> Result<(), String> {
    let has_quic = cfg!(feature = "quic") && server.quic_addr.is_some();
    let listeners = [&server.addr, &server.tls_addr, &server.sni_addr];
    if listeners.into_iter().all(Option::is_none) && !has_quic {
        let why = "There is nothing to listen on: set addr, tlsAddr, sniAddr or quicAddr.";
        return Err(why.to_owned());
    }
    if has_quic && server.cert_file.is_some() != server.key_file.is_some() {
        return Err(
            "quicAddr needs both certFile and keyFile, or none of them for a certificate that the \
             server makes itself."
                .to_owned(),
        );
    }
    if server.client_ca.is_some() && server.tls_addr.is_none() {
        return Err(
            "clientCA needs tlsAddr: visitors of addr and sniAddr show gt no certificate."
                .to_owned(),
        );
    }
    let certified = server.users.iter().find(|user| user.client_ca.is_some());
    if let Some(user) = certified.filter(|_| server.tls_addr.is_none()) {
        return Err(format!(
            "The user \"{}\" has clientCA, which needs tlsAddr: visitors of addr and sniAddr show gt no certificate.",
            user.id
        ));
    }
    if let Some(user) = certified.filter(|_| !server.http_mux_header.eq_ignore_ascii_case("Host")) {
        return Err(format!(
            "The user \"{}\" has clientCA, which needs the httpMUXHeader Host: with another one, the name in a TLS \
             handshake does not tell whose visitor it is.",
            user.id
        ));
    }
    let files = [&server.cert_file, &server.key_file];
    let given = files.iter().filter(|file| file.is_some()).count();
    if server.tls_addr.is_some() && (given == 1 || (given == 0 && server.state_dir.is_none())) {
        return Err(
            "tlsAddr needs certFile and keyFile: the certificate and its key, in PEM; or neither of \
             them and stateDir, where gt keeps a certificate of its own, which clients trust by \
             remoteKey and browsers warn of."
                .to_owned(),
        );
    }
    Ok(())
}

/// Returns a warning about listeners whose visitors need no certificate, although others need one.
fn uncertified_visitors(server: &ServerConfig) -> Option<String> {
    let listeners = [("addr", &server.addr), ("sniAddr", &server.sni_addr)];
    let open: Vec<String> = listeners
        .into_iter()
        .filter_map(|(name, addr)| Some(format!("{name} ({})", addr.as_ref()?)))
        .collect();
    let is_mixed = server.client_ca.is_some() && !open.is_empty();
    is_mixed.then(|| {
        format!(
            "visitors of {} need no certificate in spite of clientCA: turn it off if all visitors should need one \
             (addr: \"\")",
            open.join(" and ")
        )
    })
}

/// Returns a warning about two listeners with the same address. Addresses such as `:80` and
/// `1.2.3.4:80` differ; whether both can be open shows only when they are opened.
fn same_listeners(server: &ServerConfig) -> Option<String> {
    let api = server.api.as_ref().map(|api| api.addr.clone());
    let web = server.web.as_ref().map(|web| web.addr().clone());
    let listeners = [
        ("addr", &server.addr),
        ("tlsAddr", &server.tls_addr),
        ("sniAddr", &server.sni_addr),
        ("apiAddr", &api),
        ("webAddr", &web),
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

/// Returns the global rules for the ports of a protocol: those of the first source, of pairs of numbers
/// and ranges, that has ranges, or else the list of the file.
fn global_ports(
    protocol: &str,
    sources: [(Vec<u32>, Vec<PortRange>); 2],
    listed: PartPorts,
) -> Result<PartPorts, String> {
    let mut numbers = Vec::new();
    for (its_numbers, ranges) in sources {
        if !ranges.is_empty() {
            let (list, number) = PortEntry::pair(protocol, its_numbers, ranges)?;
            return Ok(PartPorts {
                list: Some(list),
                number,
            });
        }
        if numbers.is_empty() {
            numbers = its_numbers;
        }
    }
    if numbers.len() > 1 || (!numbers.is_empty() && listed.list.is_none()) {
        return Err(format!(
            "{protocol}Number needs a {protocol}Range to go with it, like -{protocol}Number 1 \
             -{protocol}Range 1024-65535."
        ));
    }
    Ok(PartPorts {
        list: listed.list,
        number: numbers.first().copied().or(listed.number),
    })
}

fn tls_min(option: &str, asked: TlsOption, warnings: &mut Vec<String>) -> TlsVersion {
    match asked {
        TlsOption::Tls11 => {
            warnings.push(format!(
                "{option} is tls1.1, which is insecure and not supported; it means tls1.2"
            ));
            TlsVersion::Tls12
        }
        TlsOption::Spoken(version) => version,
    }
}
