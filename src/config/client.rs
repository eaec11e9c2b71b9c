//! The client's configuration: merged from flags and file, checked. Not the client.

mod local;
mod options;
mod remote;
mod service;

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::account::AccountConfig;
use super::address::ListenAddr;
use super::file::{error, without_p2p, Document};
use super::logging::{LoggingConfig, SentryConfig};
use super::options::{CommonOptions, OptionName};
use super::value::{all, given, Scalar};
use super::yaml::{fields, unknown_to_all};
use super::{check_length, ConfigError, Role, RoleConfig, Secret, Url, Wire};
pub use local::{Local, Scheme};
pub use options::{ClientOptions, ServiceOptions};
pub use remote::Remote;
use service::{check_ports, check_prefixes};
pub use service::{Exposure, ServiceConfig};

/// Options that have their effect only where there is P2P.
const OF_P2P: &[&str] = &[
    "remoteSTUN",
    "tcpForwardAddr",
    "tcpForwardConnections",
    "tcpForwardFallback",
    "tcpForwardHostPrefix",
    "webrtcConnectionIdleTimeout",
    "webrtcConnections",
    "webrtcLogLevel",
    "webrtcMaxPort",
    "webrtcMinPort",
];

/// A client, ready to start.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Who it is, and its way to the servers.
    pub link: Uplink,
    /// In the order of their index: those of the flags, then those of the file.
    pub services: Vec<ServiceConfig>,
    /// STUN servers, as they were given.
    pub stun: Vec<String>,
    /// Peer connections.
    pub webrtc: WebRtc,
    /// The local listener whose connections go to another client.
    pub tcp_forward: Option<TcpForward>,
    /// Where the log goes.
    pub logging: LoggingConfig,
    /// Where reports go.
    pub sentry: Option<SentryConfig>,
    /// Whom to become.
    pub account: AccountConfig,
    /// Executor threads, 1 to 64.
    pub threads: usize,
}

/// Who a client is, and its way to the servers: what a tunnel cannot change once it is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Uplink {
    /// 1 to 200 bytes.
    pub id: String,
    /// 1 to 200 bytes; `None` means that one is to be made up.
    pub secret: Option<Secret>,
    /// The servers to be connected to, all at once; empty only where `remote_api` names one.
    pub remotes: Vec<Remote>,
    /// The URL that tells where the server is.
    pub remote_api: Option<Url>,
    /// PEM; what to trust in a server, besides nothing else.
    pub remote_cert: Option<PathBuf>,
    /// Whether to trust any server.
    pub remote_cert_insecure: bool,
    /// The most tunnels to one server, 1 to 10.
    pub connections: usize,
    /// Idle tunnels to keep, 1 to `connections`.
    pub idle_connections: usize,
    /// How long a tunnel may be silent; never zero.
    pub remote_timeout: Duration,
    /// How long to wait before connecting again.
    pub reconnect_delay: Duration,
    /// What is spoken with servers.
    pub wire: Wire,
}

/// Peer connections.
#[derive(Clone, Debug, PartialEq)]
pub struct WebRtc {
    /// How long one may be idle.
    pub idle_timeout: Duration,
    /// What its own log lines need to be shown.
    pub log_level: WebRtcLevel,
    /// The lowest port to use; 0 means any.
    pub min_port: u16,
    /// The highest port to use, not below `min_port`; 0 means any.
    pub max_port: u16,
    /// Peers at a time, 1 to 1000.
    pub connections: usize,
}

/// WebRTC's names of log levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum WebRtcLevel {
    Verbose,
    Info,
    Warning,
    Error,
}

/// A local listener whose connections go to another client.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpForward {
    /// Where to listen.
    pub addr: ListenAddr,
    /// The other client's.
    pub host_prefix: String,
    /// Peer connections to it, 1 to 10.
    pub connections: usize,
    /// Whether connections go through the server while there is no direct way.
    pub fallback: bool,
}

impl Scalar for WebRtcLevel {
    fn read(text: &str) -> Result<Self, String> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "verbose" => WebRtcLevel::Verbose,
            "info" => WebRtcLevel::Info,
            "warning" => WebRtcLevel::Warning,
            "error" => WebRtcLevel::Error,
            _ => {
                return Err(format!(
                    "\"{text}\" is not a level of WebRTC: write verbose, info, warning or error."
                ))
            }
        })
    }
}

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub struct ClientFlags {
    /// The options of both roles.
    pub common: CommonOptions,
    /// The client's own.
    pub own: ClientOptions,
    /// A group for each `-local`; or one group without `local`, for the service that the file's
    /// `options:` hold.
    pub services: Vec<ServiceOptions>,
    /// The flags that were given, each once.
    pub given: Vec<&'static str>,
}

/// A client's file.
#[derive(Deserialize, Default)]
#[serde(default)]
struct ClientFile {
    version: (),
    r#type: (),
    options: (),
    services: Vec<ServiceOptions>,
}

/// The names of all its options.
pub fn names() -> Vec<OptionName> {
    let mut names = super::options::names::<ClientOptions>();
    names.append(&mut service_names());
    names.append(&mut super::options::names::<CommonOptions>());
    names
}

/// The names of the options that belong to one service.
pub fn service_names() -> Vec<OptionName> {
    super::options::names::<ServiceOptions>()
}

/// Whether a client's `options:` may hold it.
#[cfg(feature = "server")]
pub(super) fn is_option(key: &str) -> bool {
    option_fields().contains(&key)
}

fn option_fields() -> Vec<&'static str> {
    [
        fields::<ClientOptions>(),
        fields::<ServiceOptions>(),
        fields::<CommonOptions>(),
    ]
    .concat()
}

/// Merges flags and file, a flag over the file, and checks the outcome.
pub fn load(flags: ClientFlags, document: Option<&Document>) -> Result<RoleConfig, ConfigError> {
    let mut warnings = without_p2p(OF_P2P, &flags.given, document);
    let mut file = ClientFile::default();
    let mut options = ClientOptions::default();
    let mut single = ServiceOptions::default();
    let mut common = CommonOptions::default();
    if let Some(document) = document {
        let mut unknown;
        (file, unknown) = document.read(&[])?;
        let (unknown_own, unknown_single, unknown_common);
        (options, unknown_own) = document.read(&["options"])?;
        (single, unknown_single) = document.read(&["options"])?;
        (common, unknown_common) = document.read(&["options"])?;
        let unknown_options = unknown_to_all([unknown_own, unknown_single, unknown_common]);
        unknown.extend(unknown_options);
        warnings.extend(document.unknown(&unknown, &option_fields()));
    }
    let fail = |message: String| error(document, message);

    let options = flags.own.or(options);
    let common = flags.common.or(common);
    let id = given(options.id)
        .ok_or_else(|| fail("There is no id: say who this client is by id or -id.".to_owned()))?;
    check_length(&format!("The id \"{id}\""), id.len()).map_err(fail)?;
    let secret = given(options.secret);
    if let Some(secret) = &secret {
        check_length(&format!("The secret of \"{id}\""), secret.as_bytes().len()).map_err(fail)?;
    }
    let groups = service_groups(flags.services, single, file.services, document);
    let services: Vec<ServiceConfig> = groups
        .into_iter()
        .map(|(name, group)| ServiceConfig::new(group, &name, &mut warnings).map_err(fail))
        .collect::<Result<_, _>>()?;
    check_ports(&services).map_err(fail)?;
    check_prefixes(&id, &services).map_err(fail)?;

    let connections = given(options.remote_connections).map_or(3, |number| number.0);
    let idle = given(options.remote_idle_connections).map_or(1, |number| number.0.max(1));
    if idle > connections {
        return Err(fail(format!(
            "remoteIdleConnections ({idle}) cannot be more than remoteConnections ({connections})."
        )));
    }
    let client = ClientConfig {
        link: Uplink {
            id,
            secret,
            remotes: all(options.remote),
            remote_api: given(options.remote_api),
            remote_cert: given(options.remote_cert),
            remote_cert_insecure: given(options.remote_cert_insecure).unwrap_or(false),
            connections: small(connections),
            idle_connections: small(idle),
            remote_timeout: given(options.remote_timeout).unwrap_or(Duration::from_secs(45)),
            reconnect_delay: given(options.reconnect_delay).unwrap_or(Duration::from_secs(5)),
            wire: common.wire(),
        },
        services,
        stun: all(options.remote_stun),
        webrtc: WebRtc {
            idle_timeout: given(options.webrtc_connection_idle_timeout)
                .unwrap_or(Duration::from_secs(300)),
            log_level: given(options.webrtc_log_level).unwrap_or(WebRtcLevel::Warning),
            min_port: given(options.webrtc_min_port).unwrap_or(0),
            max_port: given(options.webrtc_max_port).unwrap_or(0),
            connections: small(given(options.webrtc_connections).map_or(30, |number| number.0)),
        },
        tcp_forward: match (
            given(options.tcp_forward_addr),
            given(options.tcp_forward_host_prefix),
        ) {
            (None, _) => None,
            (Some(_), None) => {
                let message = "tcpForwardAddr needs tcpForwardHostPrefix: the host prefix of \
                     the client to reach.";
                return Err(fail(message.to_owned()));
            }
            (Some(addr), Some(host_prefix)) => Some(TcpForward {
                addr,
                host_prefix: host_prefix.0,
                connections: small(
                    given(options.tcp_forward_connections).map_or(3, |number| number.0),
                ),
                fallback: given(options.tcp_forward_fallback).unwrap_or(true),
            }),
        },
        logging: common.logging(),
        sentry: common.sentry(),
        account: common.account(),
        threads: common.threads(),
    };
    check(&client).map_err(fail)?;
    Ok(RoleConfig {
        role: Role::Client(Box::new(client)),
        source: document.map(|document| document.path.clone()),
        warnings,
        shown: String::new(),
    })
}

fn check(client: &ClientConfig) -> Result<(), String> {
    if client.services.is_empty() && client.tcp_forward.is_none() {
        return Err(
            "There is no service: say what to serve, like -local http://127.0.0.1:80.".to_owned(),
        );
    }
    if client.link.remotes.is_empty() && client.link.remote_api.is_none() {
        return Err(
            "There is no remote: say where the server is, like -remote tcp://example.com:80."
                .to_owned(),
        );
    }
    if client.link.remote_timeout.is_zero() {
        return Err(
            "remoteTimeout cannot be 0: a tunnel that died would never be noticed.".to_owned(),
        );
    }
    let WebRtc {
        min_port, max_port, ..
    } = client.webrtc;
    if max_port != 0 && min_port > max_port {
        return Err(format!(
            "webrtcMinPort ({min_port}) cannot be more than webrtcMaxPort ({max_port})."
        ));
    }
    Ok(())
}

/// All services with a name for each, in the order of their index. A single service of the flags
/// and the one in the file's `options:` are the same one, option by option.
fn service_groups(
    mut flags: Vec<ServiceOptions>,
    single: ServiceOptions,
    list: Vec<ServiceOptions>,
    document: Option<&Document>,
) -> Vec<(String, ServiceOptions)> {
    let here = env::current_dir().unwrap_or_default();
    let beside = document
        .and_then(|document| document.path.parent())
        .map_or(here.clone(), |directory| here.join(directory));
    let resolve = |group: ServiceOptions, base: &Path| group.resolve(base);
    let single = resolve(single, &beside);
    let mut groups = Vec::new();
    match (flags.pop(), flags.is_empty()) {
        (None, _) if single == ServiceOptions::default() => (),
        (None, _) => groups.push(("The service in options".to_owned(), single)),
        (Some(only), true) => {
            groups.push((
                "The service of the flags".to_owned(),
                resolve(only, &here).or(single),
            ));
        }
        (Some(last), false) => {
            for (i, group) in flags.into_iter().chain([last]).enumerate() {
                groups.push((
                    format!("The service of -local number {}", i + 1),
                    resolve(group, &here),
                ));
            }
        }
    }
    for (i, group) in list.into_iter().enumerate() {
        groups.push((format!("services[{i}]"), resolve(group, &beside)));
    }
    groups
}

/// For numbers that were checked to be small.
fn small(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
