//! The client's configuration, read from flags and file and checked. Not the client.

mod health_check;
mod host_prefix;
mod local;
mod options;
#[cfg_attr(not(feature = "outbound"), path = "client/no_outbound.rs")]
mod outbound;
#[cfg_attr(not(feature = "password"), path = "client/no_password.rs")]
mod password;
mod private;
#[cfg_attr(not(feature = "proxy"), path = "client/no_proxy.rs")]
pub(crate) mod proxy;
mod remote;
mod remote_key;
mod servers;
mod service;
mod service_ports;
mod visitor_rate;
mod webrtc;

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::account::AccountConfig;
use super::address::ListenAddr;
use super::file::{error, Document, Section};
use super::layers::{without_p2p, without_portmap, without_web, Flag, Layers, OptionName, Options};
use super::logging::{AccessLogConfig, LoggingConfig, SentryConfig};
use super::options::{CommonOptions, OF_WEB};
use super::value::{given, Value};
use super::web::{WebFile, WebPassword};
use super::{
    check_length, secret_file, ConfigError, Role, RoleConfig, Secret, Url, WebConfig, Wire,
};
use crate::net::{LinkSource, ProxyServer};
pub use health_check::{HealthCheck, HealthProbe};
pub use local::{Local, Scheme};
pub(super) use options::{ClientOptions, ServiceOptions};
pub use password::UserPassword;
pub use proxy::{ProxyKind, Target};
pub use remote::{Remote, Transport};
pub use remote_key::ServerKeys;
pub use servers::servers;
use servers::{mixed, through_proxy};
use service::{check_domains, check_ports, check_prefixes};
pub use service::{Exposure, ServiceConfig};
pub use visitor_rate::VisitorRate;
pub use webrtc::{WebRtc, WebRtcLevel};

/// Options that need the feature `p2p`.
const OF_P2P: &[&str] = &[
    "remoteSTUN",
    "tcpForwardAddr",
    "tcpForwardConnections",
    "tcpForwardFallback",
    "tcpForwardHostPrefix",
    "tcpForwardKey",
    "tcpForwardKeyFile",
    "udpForwardAddr",
    "udpForwardFallback",
    "udpForwardHostPrefix",
    "udpForwardKey",
    "udpForwardKeyFile",
    "udpForwardPort",
    "webrtcConnectionIdleTimeout",
    "webrtcConnections",
    "webrtcLogLevel",
    "webrtcMaxPort",
    "webrtcMinPort",
];

/// Options that need the feature `portmap`.
const OF_PORTMAP: &[&str] = &["webrtcPortMap"];

/// Maximum number of interfaces and source addresses.
const MAX_SOURCES: usize = 8;

/// The checked configuration of a client.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Identity, and the connection to the servers.
    pub link: Uplink,
    /// Services in the order of their index: those of the flags, then those of the file.
    pub services: Vec<ServiceConfig>,
    /// STUN servers, as they were written.
    pub stun: Vec<String>,
    /// Settings of peer connections.
    pub webrtc: WebRtc,
    /// Local listener that forwards to another client.
    pub tcp_forward: Option<TcpForward>,
    /// The web page by which gt is run; `None` for none.
    pub web: Option<WebConfig>,
    /// Local UDP socket whose datagrams are forwarded to another client.
    pub udp_forward: Option<UdpForward>,
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
}

/// Identity of a client and its connection to the servers. A change needs new tunnels.
#[derive(Clone, Debug, PartialEq)]
pub struct Uplink {
    /// Id, 1 to 200 bytes.
    pub id: String,
    /// Secret, 1 to 200 bytes; `None` to generate one, unless there is a key.
    pub secret: Option<Secret>,
    /// PEM file with the key that proves the id; `None` if the secret does.
    pub key: Option<PathBuf>,
    /// Ways to servers; those of one host are ways to one server, and all servers are used at once. May be
    /// empty if `remote_api` is set.
    pub remotes: Vec<Remote>,
    /// The proxy through which servers and the remoteAPI are reached; `None` for none.
    pub proxy: Option<ProxyServer>,
    /// Interfaces and source addresses that tunnels are spread over; empty if the system chooses.
    pub sources: Vec<LinkSource>,
    /// URL of the API that returns the server's address.
    pub remote_api: Option<Url>,
    /// The keys of servers that the client trusts.
    pub server_keys: ServerKeys,
    /// PEM file with the only certificates to trust in a server.
    pub remote_cert: Option<PathBuf>,
    /// Whether to accept any certificate.
    pub remote_cert_insecure: bool,
    /// Maximum number of tunnels to one server, 1 to 10.
    pub connections: usize,
    /// Number of idle tunnels to keep open, 1 to `connections`.
    pub idle_connections: usize,
    /// Time after which a silent tunnel is closed; not zero.
    pub remote_timeout: Duration,
    /// Delay after a failed attempt to connect.
    pub reconnect_delay: Duration,
    /// Versions of the wire to use with servers.
    pub wire: Wire,
    /// Whether servers are asked where visitors come from.
    pub origins: bool,
    /// Whether there are services of groups, so that others with the same id may be connected, too.
    pub groups: bool,
    /// Whether tunnels use the congestion control BBR where the kernel has it.
    pub bbr: bool,
}

/// A local listener that forwards each connection to another client.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpForward {
    /// Address to listen on.
    pub addr: ListenAddr,
    /// Host prefix of the other client.
    pub host_prefix: String,
    /// Key of the private service to reach; `None` for the service with the host prefix.
    pub key: Option<Secret>,
    /// Number of peer connections, 1 to 10.
    pub connections: usize,
    /// Whether connections go through the server while there is no peer connection.
    pub fallback: bool,
}

/// A local UDP socket whose datagrams are forwarded to another client.
#[derive(Clone, Debug, PartialEq)]
pub struct UdpForward {
    /// Address to listen on.
    pub addr: ListenAddr,
    /// Host prefix of the other client.
    pub host_prefix: String,
    /// Its service.
    pub target: UdpTarget,
    /// Whether datagrams go through the server while there is no peer connection.
    pub fallback: bool,
}

/// The service of another client that datagrams are for.
#[derive(Clone, Debug, PartialEq)]
pub enum UdpTarget {
    /// The private one with this key.
    Private(Secret),
    /// That with this UDP port at the server.
    Port(u16),
}

/// The sections of a client's file. Those of type `()` are read elsewhere.
#[derive(Deserialize, Default)]
#[serde(default)]
struct ClientFile {
    version: (),
    r#type: (),
    options: (),
    admin: Option<Value<String>>,
    password: Option<Value<WebPassword>>,
    services: (),
}

/// Returns all options of a client.
pub fn names() -> impl Iterator<Item = &'static OptionName> {
    let names = [
        ClientOptions::NAMES,
        ServiceOptions::NAMES,
        CommonOptions::NAMES,
    ];
    names.into_iter().flatten()
}

/// Returns the options that each service of a client has.
pub fn service_names() -> &'static [OptionName] {
    ServiceOptions::NAMES
}

/// Reads and checks the configuration of a client. `groups` are the flags of its services, a group
/// for each `-local`.
pub fn load(
    flags: &[Flag],
    groups: &[Vec<Flag>],
    document: Option<&Document>,
) -> Result<RoleConfig, ConfigError> {
    let mut warnings = without_p2p(OF_P2P, flags, document);
    warnings.extend(without_portmap(OF_PORTMAP, flags, document));
    warnings.extend(without_web(OF_WEB, flags, document));
    let (mut file, mut list) = (Vec::new(), Vec::new());
    let mut top = ClientFile::default();
    if let Some(document) = document {
        let mut unknown;
        (top, unknown) = document.read(&[])?;
        list = document.sections("services")?;
        let of_services: Vec<&str> = service_names().iter().map(|name| name.camel).collect();
        unknown.extend(
            list.iter()
                .flat_map(|section| section.unknown(&of_services)),
        );
        let options = document.section("options", &[])?;
        let names: Vec<&str> = names().map(|name| name.camel).collect();
        unknown.extend(options.unknown(&names));
        warnings.extend(document.unknown(&unknown, &names));
        file.push(options);
    }
    let layers = Layers { flags, file: &file };
    let options: ClientOptions = layers.read()?;
    let common: CommonOptions = layers.read()?;
    let groups = service_groups(groups, &file, &list, document)?;
    let fail = |message: String| error(document, message);

    let id = options.id.ok_or_else(|| {
        fail("There is no id: set the id of this client by id or -id.".to_owned())
    })?;
    check_length(&format!("The id \"{id}\""), id.len()).map_err(fail)?;
    let mut secret_files: Vec<PathBuf> = document
        .and_then(Document::with_secrets)
        .into_iter()
        .collect();
    if let Some(key) = &options.key {
        secret_file::check_path("key", key).map_err(fail)?;
        secret_files.push(key.clone());
    }
    let secret = match (options.secret, options.secret_file) {
        (Some(_), Some(_)) => {
            let why = "secret and secretFile both name the secret: remove one of them.";
            return Err(fail(why.to_owned()));
        }
        (None, Some(path)) => {
            let secret = secret_file::secret("secretFile", &path).map_err(fail)?;
            secret_files.push(path);
            Some(secret)
        }
        (secret, None) => secret,
    };
    if let Some(secret) = &secret {
        check_length(&format!("The secret of \"{id}\""), secret.as_bytes().len()).map_err(fail)?;
    }
    let mut services = Vec::new();
    for (name, group) in groups {
        secret_files.extend(group.password_file.clone());
        secret_files.extend(group.private_file.clone());
        services.extend(ServiceConfig::all(group, &name, &mut warnings).map_err(fail)?);
    }
    private::check_keys(&services).map_err(fail)?;
    services.extend(private::signaling(&id, &services).map_err(fail)?);
    check_ports(&services).map_err(fail)?;
    check_prefixes(&id, &services).map_err(fail)?;
    check_domains(&services).map_err(fail)?;
    if common.wire == Wire::One {
        let lacking = services
            .iter()
            .filter_map(|it| Some((&it.local, it.needs_gt2_for()?)));
        warnings.extend(lacking.map(|(local, what)| {
            format!("{local} has {what} and is not published, since wire is 1")
        }));
    }
    warnings.extend(
        services
            .iter()
            .filter_map(|service| service.readable_passwords(&options.remote)),
    );

    let mut remotes = options.remote;
    if options.remote_proxy.is_some() {
        let can = |remote: &Remote| remote.transport.can_use_proxies();
        let (usable, unused) = through_proxy(&remotes, can).map_err(fail)?;
        warnings.extend(unused);
        remotes = usable;
    }
    warnings.extend(mixed(&remotes));
    let connections = options.remote_connections.0;
    let idle = options.remote_idle_connections.0.max(1);
    if idle > connections {
        return Err(fail(format!(
            "remoteIdleConnections ({idle}) cannot be more than remoteConnections ({connections})."
        )));
    }
    let tcp_forward = match (options.tcp_forward_addr, options.tcp_forward_host_prefix) {
        (None, _) => None,
        (Some(_), None) => {
            let message =
                "tcpForwardAddr needs tcpForwardHostPrefix: the host prefix of the client \
                           to reach.";
            return Err(fail(message.to_owned()));
        }
        (Some(addr), Some(host_prefix)) => Some(TcpForward {
            addr,
            host_prefix: host_prefix.0,
            key: private::key(
                ("tcpForwardKey", options.tcp_forward_key),
                ("tcpForwardKeyFile", options.tcp_forward_key_file),
                &mut secret_files,
            )
            .map_err(fail)?,
            connections: small(options.tcp_forward_connections.0),
            fallback: options.tcp_forward_fallback,
        }),
    };
    let web_file = WebFile {
        admin: given(top.admin),
        password: given(top.password),
    };
    let web = WebConfig::new(&common, web_file, &mut warnings).map_err(fail)?;
    secret_files.extend(web.as_ref().and_then(WebConfig::key_file));
    let udp_key = private::key(
        ("udpForwardKey", options.udp_forward_key),
        ("udpForwardKeyFile", options.udp_forward_key_file),
        &mut secret_files,
    )
    .map_err(fail)?;
    let udp_target = match (udp_key, options.udp_forward_port) {
        (Some(key), 0) => Ok(UdpTarget::Private(key)),
        (None, port @ 1..) => Ok(UdpTarget::Port(port)),
        (Some(_), _) => Err(
            "udpForwardKey and udpForwardPort name two services: remove one of them.".to_owned(),
        ),
        (None, 0) => Err(
            "udpForwardAddr needs udpForwardKey, the key of a private service of the other client, or \
             udpForwardPort, the remoteUDPPort of one that is published."
                .to_owned(),
        ),
    };
    let udp_forward = match (options.udp_forward_addr, options.udp_forward_host_prefix) {
        (None, _) => None,
        (Some(_), None) => {
            let message = "udpForwardAddr needs udpForwardHostPrefix: the host prefix of the client to reach.";
            return Err(fail(message.to_owned()));
        }
        (Some(addr), Some(host_prefix)) => Some(UdpForward {
            addr,
            host_prefix: host_prefix.0,
            target: udp_target.map_err(fail)?,
            fallback: options.udp_forward_fallback,
        }),
    };
    let client = ClientConfig {
        web,
        logging: common.logging(),
        access_log: common.access_log(),
        sentry: common.sentry(),
        account: common.account(),
        threads: common.threads(),
        udp_offload: common.udp_offload,
        link: Uplink {
            id,
            secret,
            key: options.key,
            remotes,
            proxy: options.remote_proxy,
            sources: options.remote_bind,
            remote_api: options.remote_api,
            server_keys: ServerKeys::new(&options.remote_key, common.state_dir).map_err(fail)?,
            remote_cert: options.remote_cert,
            remote_cert_insecure: options.remote_cert_insecure,
            connections: small(connections),
            idle_connections: small(idle),
            remote_timeout: options.remote_timeout,
            reconnect_delay: options.reconnect_delay,
            wire: common.wire,
            origins: common.access_log.is_some()
                || services
                    .iter()
                    .any(|service| service.needs_origins_for().is_some()),
            groups: services.iter().any(|service| service.group.is_some()),
            bbr: common.bbr,
        },
        services,
        stun: options.remote_stun,
        webrtc: WebRtc {
            idle_timeout: options.webrtc_connection_idle_timeout,
            log_level: options.webrtc_log_level,
            min_port: options.webrtc_min_port,
            max_port: options.webrtc_max_port,
            port_map: options.webrtc_port_map,
            connections: small(options.webrtc_connections.0),
        },
        tcp_forward,
        udp_forward,
    };
    check(&client).map_err(fail)?;
    Ok(RoleConfig {
        role: Role::Client(Box::new(client)),
        source: document.map(|document| document.path.clone()),
        warnings,
        secret_files,
        shown: String::new(),
    })
}

fn check(client: &ClientConfig) -> Result<(), String> {
    // The page can add services.
    let forwards = client.tcp_forward.is_some() || client.udp_forward.is_some();
    if client.services.is_empty() && !forwards && client.web.is_none() {
        return Err("There is no service: set one, like -local http://127.0.0.1:80.".to_owned());
    }
    if client.link.remotes.is_empty() && client.link.remote_api.is_none() {
        return Err(
            "There is no remote: set the address of the server, like -remote tcp://example.com:80."
                .to_owned(),
        );
    }
    if client.link.sources.len() > MAX_SOURCES {
        return Err(format!(
            "There are {} of remoteBind, and at most {MAX_SOURCES} can be used.",
            client.link.sources.len()
        ));
    }
    check_trust(&client.link)?;
    if client.link.remote_timeout.is_zero() {
        return Err("remoteTimeout cannot be 0: a dead tunnel would never be noticed.".to_owned());
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

/// Checks that remoteKey and key do not contradict other options.
fn check_trust(link: &Uplink) -> Result<(), String> {
    if link.key.is_some() && link.secret.is_some() {
        return Err("key and secret both prove the id: remove one of them.".to_owned());
    }
    if link.key.is_some() && link.wire == Wire::One {
        return Err("key needs GT/2, and wire is 1: set it to auto, or secret.".to_owned());
    }
    if link.server_keys == ServerKeys::Any {
        return Ok(());
    }
    if link.remote_cert.is_some() || link.remote_cert_insecure {
        return Err(
            "remoteKey decides alone which servers to trust: remove remoteCert and \
             remoteCertInsecure."
                .to_owned(),
        );
    }
    match link.remotes.iter().find(|it| !it.transport.is_secure()) {
        Some(remote) => Err(format!(
            "remoteKey cannot be checked over {remote}: use tls://, or remove remoteKey."
        )),
        None => Ok(()),
    }
}

/// Reads the options of all services, in the order of their index, each with a name for errors. A
/// single service in the flags and the one in the file's `options:` are the same service: their
/// options are merged.
fn service_groups(
    groups: &[Vec<Flag>],
    options: &[Section<'_>],
    list: &[Section<'_>],
    document: Option<&Document>,
) -> Result<Vec<(String, ServiceOptions)>, ConfigError> {
    let here = env::current_dir().unwrap_or_default();
    let beside = document
        .and_then(|document| document.path.parent())
        .map_or(here.clone(), |directory| here.join(directory));
    let mut services = Vec::new();
    let mut add = |name: String, layers: Layers<'_>| -> Result<(), ConfigError> {
        // A relative directory of a flag starts at the working directory, one of the file at the
        // file's.
        let base = if layers.by_flag("local") {
            &here
        } else {
            &beside
        };
        let group: ServiceOptions = layers.read()?;
        services.push((name, group.resolve(base)));
        Ok(())
    };
    match groups {
        [] | [_] => {
            let flags = groups.first().map_or(&[][..], Vec::as_slice);
            let name = if flags.is_empty() {
                "in options"
            } else {
                "of the flags"
            };
            let file = options;
            let layers = Layers { flags, file };
            if layers.have::<ServiceOptions>() {
                add(format!("The service {name}"), layers)?;
            }
        }
        groups => {
            // The service in `options:` is not used then, but wrong values in it are errors.
            let file = options;
            Layers { flags: &[], file }.read::<ServiceOptions>()?;
            for (number, flags) in (1usize..).zip(groups) {
                let file = &[];
                add(
                    format!("The service of -local number {number}"),
                    Layers { flags, file },
                )?;
            }
        }
    }
    for (i, section) in list.iter().enumerate() {
        let file = std::slice::from_ref(section);
        add(format!("services[{i}]"), Layers { flags: &[], file })?;
    }
    Ok(services)
}

/// Converts a number that was checked to be small.
fn small(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
