//! A service that the client publishes: its local end, and how visitors reach it. Not the relay.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::health_check::HealthCheck;
use super::local::{check_socket, Local, Scheme};
use super::options::ServiceOptions;
use super::password::UserPassword;
use super::private;
use super::proxy::{self, Target};
use super::remote::Remote;
use super::service_ports::{self, RequestedPorts};
use super::visitor_rate::VisitorRate;
use crate::config::label::label;
use crate::config::value::{Scalar, Value};
use crate::config::{check_length, secret_file, AddressRules, Domain, Secret};
use crate::wire::hello::{GroupSpec, MAX_DOMAINS, MAX_GROUP, MAX_OPTIONS};
use crate::wire::proxy_protocol::ProxyVersion;

/// A service. Its place in the list is its index on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Local end of the service.
    pub local: Local,
    /// How visitors reach the service.
    pub exposure: Exposure,
    /// The addresses that visitors may come from.
    pub visitors: AddressRules,
    /// Time after which a silent connection is closed; `None` for never.
    pub local_timeout: Option<Duration>,
    /// Whether the Host header of every request is replaced with the host of `local`.
    pub use_local_as_http_host: bool,
    /// The passwords of visitors, each of whom has another name; empty if they need none.
    pub passwords: Vec<UserPassword>,
    /// Where visitors of a proxy may go; empty for private networks, and for other services.
    pub targets: Vec<Target>,
    /// The version of the PROXY header before each connection to the service; `None` for no header.
    pub proxy_protocol: Option<ProxyVersion>,
    /// How often one address may connect; `None` for any number of times.
    pub visitor_rate: Option<VisitorRate>,
    /// Bytes per second of all connections together, in each direction; 0 for no limit.
    pub speed: u64,
    /// Bytes per second of each connection, in each direction; 0 for no limit.
    pub visitor_speed: u64,
    /// Whether fields of every request tell where the visitor comes from.
    pub forwarded: bool,
    /// Whether symbolic links may lead out of the directory.
    pub follow_links_outside: bool,
    /// The group that shares its names; `None` for none.
    pub group: Option<GroupSpec>,
    /// How the service is checked; `None` for not at all.
    pub health_check: Option<HealthCheck>,
}

/// The way in which visitors reach a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// By host name, on the server's own listeners.
    Host {
        /// Whether the name is that of a TLS handshake instead of an HTTP header.
        tls: bool,
        /// Host prefix, in lower case and in the `xn--` form if it is not ASCII; `None` for the
        /// client's id.
        prefix: Option<String>,
    },
    /// By host names of its own, on the server's own listeners.
    Domains {
        /// Whether the name is that of a TLS handshake instead of an HTTP header.
        tls: bool,
        /// A host prefix besides, as in `Host`; `None` for none.
        prefix: Option<String>,
        /// The names, at least one.
        domains: Vec<Domain>,
    },
    /// On a TCP port of its own.
    Tcp {
        /// Port to ask for; 0 for any, and then `random` is set.
        port: u16,
        /// Whether the server may choose another port.
        random: bool,
    },
    /// On a UDP port of its own.
    Udp {
        /// Port to ask for; 0 for any, and then `random` is set.
        port: u16,
        /// Whether the server may choose another port.
        random: bool,
    },
    /// To other clients that prove a key, and to nobody else.
    Private {
        /// The key.
        key: Secret,
    },
}

impl Exposure {
    /// Whether visitors come by the server's listener for HTTP.
    pub fn is_http(&self) -> bool {
        let (Self::Host { tls, .. } | Self::Domains { tls, .. }) = self else {
            return false;
        };
        !tls
    }
}

impl Scalar for ProxyVersion {
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "1" => Ok(ProxyVersion::One),
            "2" => Ok(ProxyVersion::Two),
            _ => Err(format!(
                "\"{text}\" is not a version of the PROXY protocol: write 1 or 2."
            )),
        }
    }
}

impl ServiceOptions {
    /// Makes a relative directory absolute, from `base`.
    pub(super) fn resolve(mut self, base: &Path) -> Self {
        self.local = self.local.map(|local| local.resolve(base));
        self
    }
}

impl ServiceConfig {
    /// Creates the services of an entry from its options: one, or one for each of its ports. `name` is the
    /// subject of errors and warnings.
    pub(super) fn all(
        options: ServiceOptions,
        name: &str,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<Self>, String> {
        let Some(local) = options.local.clone() else {
            return Err(format!(
                "{name} has no local: set it, like local: http://127.0.0.1:80 or \
                     -local http://127.0.0.1:80."
            ));
        };
        let private =
            private_key(&options).map_err(|why| format!("{name} ({}): {why}", local.first))?;
        let requested = match &private {
            Some(_) => {
                check_private(&options)
                    .map_err(|why| format!("{name} ({}): {why}", local.first))?;
                RequestedPorts::none()
            }
            None => RequestedPorts::of(&options, &local, name)?,
        };
        let mut first = Self::new(options, local.first.clone(), requested, name, warnings)?;
        if let Some(key) = private {
            first.exposure = Exposure::Private { key };
        }
        service_ports::all(first, local, requested, name)
    }

    fn new(
        options: ServiceOptions,
        local: Local,
        requested: RequestedPorts,
        name: &str,
        warnings: &mut Vec<String>,
    ) -> Result<Self, String> {
        check_socket(&local)?;
        let health_check = HealthCheck::new(&options, &local, name, warnings)?;
        let group = group(&options).map_err(|why| format!("{name} ({local}): {why}"))?;
        if options.group_sticky && group.is_none() {
            warnings.push(format!(
                "{name} ({local}) has no serviceGroup, so its groupSticky is ignored"
            ));
        }
        let prefix = options.host_prefix.map(|prefix| prefix.0);
        let RequestedPorts { range, random, .. } = requested;
        let port = range.map_or(0, |range| range.first);
        let is_udp = matches!(local, Local::Udp { .. });
        let scheme = match &local {
            Local::Tcp { scheme, .. } | Local::Unix { scheme, .. } => *scheme,
            Local::Udp { .. } => Scheme::Tcp,
            Local::Files(_) => Scheme::Http,
            Local::Proxy(_) | Local::Signaling => Scheme::Tcp,
        };
        let transport = if is_udp { "UDP" } else { "TCP" };
        let is_proxy = matches!(local, Local::Proxy(_));
        let is_tcp = port != 0 || random.unwrap_or(false);
        if is_proxy && (!options.domain.is_empty() || prefix.is_some() && is_tcp) {
            return Err(format!(
                "{name} ({local}) is reached by a TCP port, or by a hostPrefix, for tcpForwardAddr of other clients: \
                 remove its domain, and one of the others."
            ));
        }
        if is_proxy && prefix.is_some() && cfg!(not(feature = "p2p")) {
            return Err(format!(
                "{name} ({local}) is reached by its hostPrefix peer to peer, for which this \
                 one was built without the feature p2p: give it a remoteTCPPort instead."
            ));
        }
        if is_proxy && options.use_local_as_http_host {
            return Err(format!(
                "{name} ({local}) passes requests on to the hosts that they name: remove its \
                 useLocalAsHTTPHost."
            ));
        }
        let mut domains: Vec<Domain> = Vec::new();
        for domain in options.domain {
            let Some(domain) = domain.0 else {
                return Err(format!(
                    "{name} ({local}): an entry of its domain is empty: remove it, or write a name."
                ));
            };
            if domains.contains(&domain) {
                return Err(format!("{name} ({local}) has the domain {domain} twice."));
            }
            domains.push(domain);
        }
        if domains.len() > MAX_DOMAINS {
            return Err(format!(
                "{name} ({local}) has more than {MAX_DOMAINS} domains."
            ));
        }
        let tls = scheme == Scheme::Https;
        let exposure = match (scheme, port, random.unwrap_or(false)) {
            (Scheme::Http | Scheme::Https, 0, false) if domains.is_empty() => {
                Exposure::Host { tls, prefix }
            }
            (Scheme::Http | Scheme::Https, 0, false) => Exposure::Domains {
                tls,
                prefix,
                domains,
            },
            (Scheme::Tcp, 0, false) if is_proxy && prefix.is_some() => {
                Exposure::Host { tls, prefix }
            }
            _ if !domains.is_empty() => {
                return Err(format!(
                    "{name} ({local}) is reached by a {transport} port, so it cannot have a domain: remove \
                     its domain, or its remote{transport}Port and remote{transport}Random; a tcp:// or udp:// \
                     service has no host names."
                ));
            }
            (Scheme::Tcp, 0, false) if random.is_some() => {
                return Err(format!(
                    "{name} ({local}) has neither a remote{transport}Port nor remote{transport}Random: give \
                     it one of them."
                ));
            }
            (_, port, random) => {
                if let Some(prefix) = prefix {
                    warnings.push(format!(
                        "{name} ({local}) is reached by a {transport} port, so its hostPrefix {prefix} \
                             is ignored"
                    ));
                }
                let random = random || port == 0;
                match is_udp {
                    true => Exposure::Udp { port, random },
                    false => Exposure::Tcp { port, random },
                }
            }
        };
        let is_random = matches!(
            exposure,
            Exposure::Tcp { random: true, .. } | Exposure::Udp { random: true, .. }
        );
        if group.is_some() && is_random {
            return Err(format!(
                "{name} ({local}) has a serviceGroup, but no port of its own choice to share: give it a \
                 remote{transport}Port, without remote{transport}Random."
            ));
        }
        let mut forwarded = options.forwarded;
        if forwarded && (scheme != Scheme::Http || matches!(local, Local::Files(_))) {
            forwarded = false;
            warnings.push(format!(
                "{name} ({local}) does not begin with http://, so its forwarded is ignored"
            ));
        }
        let mut proxy_protocol = options.proxy_protocol;
        let is_own = is_proxy || matches!(local, Local::Files(_));
        if is_own && proxy_protocol.take().is_some() {
            warnings.push(format!(
                "{name} ({local}) is served by gt itself, so its proxyProtocol is ignored"
            ));
        }
        if is_udp && proxy_protocol == Some(ProxyVersion::One) {
            return Err(format!(
                "{name} ({local}) has proxyProtocol 1, which knows no datagrams: write 2."
            ));
        }
        let visitors = AddressRules::new(("allow", options.allow), ("deny", options.deny))
            .map_err(|why| format!("{name} ({local}): {why}"))?;
        let passwords = passwords(options.password, options.password_file)
            .map_err(|why| format!("{name} ({local}): {why}"))?;
        if !passwords.is_empty() && scheme != Scheme::Http && !is_proxy {
            return Err(format!(
                "{name} ({local}) does not begin with http:// or file://, and is no proxy, so gt cannot ask \
                 its visitors for a password: remove its password."
            ));
        }
        let targets = options.targets.into_iter().map(|target| target.0);
        let mut targets = targets.collect::<Option<Vec<_>>>().ok_or_else(|| {
            format!(
                "{name} ({local}): an entry of its targets is empty: remove it, or write a network or a name."
            )
        })?;
        if !is_proxy && !targets.is_empty() {
            targets.clear();
            warnings.push(format!(
                "{name} ({local}) is no proxy, so its targets are ignored"
            ));
        }
        proxy::check(name, &local, &targets, &visitors, !passwords.is_empty())?;
        Ok(ServiceConfig {
            local,
            exposure,
            visitors,
            local_timeout: options.local_timeout.filter(|timeout| !timeout.is_zero()),
            use_local_as_http_host: options.use_local_as_http_host,
            passwords,
            targets,
            proxy_protocol,
            forwarded,
            visitor_rate: options.visitor_rate.map(|rate| VisitorRate {
                count: rate.count,
                period: rate.period,
                ban: options.ban_for,
            }),
            speed: options.speed,
            visitor_speed: options.visitor_speed,
            follow_links_outside: options.follow_links_outside,
            group,
            health_check,
        })
    }

    /// Whether the service has domains of its own.
    pub fn has_domains(&self) -> bool {
        matches!(self.exposure, Exposure::Domains { .. })
    }

    /// Returns what the service has that GT/1 cannot carry, if anything.
    pub fn needs_gt2_for(&self) -> Option<&'static str> {
        let needs = [
            (self.has_domains(), "a domain"),
            (self.has_udp_port(), "a UDP port"),
            (self.group.is_some(), "a serviceGroup"),
        ];
        needs
            .into_iter()
            .find_map(|(needed, what)| needed.then_some(what))
    }

    /// Whether the service has a UDP port of its own.
    pub fn has_udp_port(&self) -> bool {
        matches!(self.exposure, Exposure::Udp { .. })
    }

    /// Whether visitors of the service send datagrams.
    pub fn is_udp(&self) -> bool {
        self.has_udp_port() || self.is_private() && matches!(self.local, Local::Udp { .. })
    }

    /// Whether only clients that prove a key reach the service.
    pub fn is_private(&self) -> bool {
        matches!(self.exposure, Exposure::Private { .. })
    }

    /// Whether the service is the UDP port of a proxy, whose visitors come to its TCP port first.
    pub fn is_udp_of_proxy(&self) -> bool {
        self.is_udp() && matches!(self.local, Local::Proxy(_))
    }

    /// Returns a warning if passwords of visitors cross the line to one of these servers readable.
    pub(super) fn readable_passwords(&self, remotes: &[Remote]) -> Option<String> {
        let remote = remotes.iter().find(|remote| !remote.transport.is_secure());
        let has_password =
            !self.passwords.is_empty() && !self.is_udp_of_proxy() && !self.is_private();
        let remote = remote.filter(|_| has_password)?;
        Some(format!(
            "{} has a password, but the line to {remote} is not encrypted, so that others on the way can \
             read it: use a tls:// server",
            self.local
        ))
    }

    /// Returns the option for which the client has to know where the service's visitors come from.
    pub fn needs_origins_for(&self) -> Option<&'static str> {
        let needs = [
            (self.is_udp_of_proxy(), "the UDP port"),
            (!self.visitors.is_empty(), "allow or deny"),
            (self.visitor_rate.is_some(), "visitorRate"),
            (!self.passwords.is_empty(), "password"),
            (self.proxy_protocol.is_some(), "proxyProtocol"),
            (self.forwarded, "forwarded"),
            (self.is_private(), "private"),
        ];
        needs
            .into_iter()
            .find_map(|(needed, option)| needed.then_some(option))
    }
}

/// Returns the group of a service. The error says what is wrong with it.
fn group(options: &ServiceOptions) -> Result<Option<GroupSpec>, String> {
    let (name, key) = match (&options.service_group, &options.group_key) {
        (Some(name), Some(key)) => (name, key.as_bytes()),
        (Some(_), None) => {
            return Err(
                "it has a serviceGroup without a groupKey: give all members the same secret text."
                    .to_owned(),
            )
        }
        (None, Some(_)) => {
            return Err("it has a groupKey without a serviceGroup: name the group, too.".to_owned())
        }
        (None, None) => return Ok(None),
    };
    if name.len() > MAX_GROUP {
        return Err(format!(
            "its serviceGroup has {} bytes: the maximum is {MAX_GROUP}.",
            name.len()
        ));
    }
    check_length("its groupKey", key.len())?;
    Ok(Some(GroupSpec {
        name: name.as_str().into(),
        key: key.into(),
        sticky: options.group_sticky,
    }))
}

/// Returns the key of a private service. The error says what is wrong with it.
fn private_key(options: &ServiceOptions) -> Result<Option<Secret>, String> {
    let key = private::key(
        ("private", options.private.clone()),
        ("privateFile", options.private_file.clone()),
        &mut Vec::new(),
    )?;
    // Without P2P the service must not be published in another way.
    if key.is_some() && cfg!(not(feature = "p2p")) {
        return Err(
            "private is for peers, for which this gt was built without the feature p2p: remove the service, or \
             use another gt."
                .to_owned(),
        );
    }
    Ok(key)
}

/// Checks that a private service asks its server for nothing.
fn check_private(options: &ServiceOptions) -> Result<(), String> {
    let asks = [
        (options.host_prefix.is_some(), "hostPrefix"),
        (!options.domain.is_empty(), "domain"),
        (options.remote_port.is_some(), "remotePort"),
        (options.remote_tcp_port.is_some(), "remoteTCPPort"),
        (options.remote_tcp_random == Some(true), "remoteTCPRandom"),
        (options.remote_udp_port.is_some(), "remoteUDPPort"),
        (options.remote_udp_random == Some(true), "remoteUDPRandom"),
        (options.service_group.is_some(), "serviceGroup"),
    ];
    match asks.into_iter().find(|(asked, _)| *asked) {
        Some((_, option)) => Err(format!(
            "it is private, so it has no name and no port at the server: remove its {option}, or its private."
        )),
        None => Ok(()),
    }
}

/// Returns the passwords of a service. The error says what is wrong with them.
fn passwords(
    mut options: Vec<Value<UserPassword>>,
    file: Option<PathBuf>,
) -> Result<Vec<UserPassword>, String> {
    if let Some(path) = file {
        let lines = secret_file::lines("passwordFile", &path)?;
        if lines.is_empty() {
            return Err(format!(
                "passwordFile: {} has no line with USER:HASH, and without one anyone could come.",
                path.display()
            ));
        }
        for (at, line) in lines {
            let password = UserPassword::read(&line);
            let password = password
                .map_err(|why| format!("passwordFile: {}, line {at}: {why}", path.display()))?;
            options.push(Value(Some(password)));
        }
    }
    let mut passwords: Vec<UserPassword> = Vec::new();
    for option in options {
        // Of an empty variable, perhaps. Without a password, anyone could come.
        let Some(password) = option.0 else {
            return Err(
                "an entry of its password is empty: remove it, or write USER:HASH.".to_owned(),
            );
        };
        #[cfg(feature = "password")]
        if passwords.iter().any(|other| other.user == password.user) {
            return Err(format!(
                "it has two passwords of \"{}\": remove one of them.",
                password.user.as_str()
            ));
        }
        passwords.push(password);
    }
    Ok(passwords)
}

impl ServiceConfig {
    /// A service without any option, at no address.
    pub(super) fn bare() -> Self {
        Self {
            local: Local::Signaling,
            exposure: Exposure::Host {
                tls: false,
                prefix: None,
            },
            visitors: AddressRules::default(),
            local_timeout: None,
            use_local_as_http_host: false,
            passwords: Vec::new(),
            targets: Vec::new(),
            proxy_protocol: None,
            forwarded: false,
            visitor_rate: None,
            speed: 0,
            visitor_speed: 0,
            follow_links_outside: false,
            group: None,
            health_check: None,
        }
    }

    /// An HTTP service at this port of this machine, with this host prefix.
    #[cfg(test)]
    pub fn of_test(port: u16, prefix: &str) -> Self {
        Self {
            local: Local::Tcp {
                scheme: Scheme::Http,
                host: "localhost".to_owned(),
                port,
            },
            exposure: Exposure::Host {
                tls: false,
                prefix: Some(prefix.to_owned()),
            },
            ..Self::bare()
        }
    }
}

/// Checks the number of services, and that no two ask for the same port.
pub(super) fn check_ports(services: &[ServiceConfig]) -> Result<(), String> {
    if services.len() > MAX_OPTIONS {
        return Err(format!(
            "There are {} services; a server takes at most {MAX_OPTIONS} from one client. Divide \
             them between clients with different ids.",
            services.len()
        ));
    }
    let mut ports: Vec<((&str, u16), &Local)> = Vec::new();
    for service in services {
        let (transport, port) = match service.exposure {
            Exposure::Tcp {
                port: port @ 1..,
                random: false,
            } => ("TCP", port),
            Exposure::Udp {
                port: port @ 1..,
                random: false,
            } => ("UDP", port),
            _ => continue,
        };
        if let Some((_, other)) = ports.iter().find(|(it, _)| *it == (transport, port)) {
            return Err(format!(
                "The services {other} and {} have the same remote{transport}Port {port}: give each a port \
                 of its own, or remote{transport}Random.",
                service.local
            ));
        }
        ports.push(((transport, port), &service.local));
    }
    Ok(())
}

/// Checks that no two services of one kind have the same domain.
pub(super) fn check_domains(services: &[ServiceConfig]) -> Result<(), String> {
    let mut before: Vec<(bool, &Domain, &Local)> = Vec::new();
    for service in services {
        let Exposure::Domains { tls, domains, .. } = &service.exposure else {
            continue;
        };
        let local = &service.local;
        for domain in domains {
            let is_same = |(kind, other, _): &&(bool, &Domain, _)| (kind, *other) == (tls, domain);
            if let Some((.., other)) = before.iter().find(is_same) {
                return Err(format!(
                    "The services {other} and {local} have the same domain {domain}: remove it from one \
                     of them."
                ));
            }
            before.push((*tls, domain, local));
        }
    }
    Ok(())
}

/// Checks that no two services of one kind have the same prefix, and that an id used as a prefix is
/// a valid one.
pub(super) fn check_prefixes(id: &str, services: &[ServiceConfig]) -> Result<(), String> {
    let own = label(id);
    let mut before: Vec<(bool, &str, &Local)> = Vec::new();
    for service in services {
        let local = &service.local;
        let (tls, prefix, is_own) = match &service.exposure {
            Exposure::Host { tls, prefix } => (tls, prefix, true),
            Exposure::Domains { tls, prefix, .. } => (tls, prefix, false),
            Exposure::Tcp { .. } | Exposure::Udp { .. } | Exposure::Private { .. } => continue,
        };
        let prefix = match (prefix, &own) {
            (None, _) if !is_own => continue,
            (Some(prefix), _) => prefix,
            (None, Ok(own)) => own,
            (None, Err(why)) => {
                return Err(format!(
                    "The id \"{}\" is not a host prefix, and {local} has no other: {why}. Give the \
                     service a hostPrefix.",
                    id.escape_debug()
                ));
            }
        };
        let same = |(kind, other, _): &&(bool, &str, _)| (kind, *other) == (tls, prefix.as_str());
        if let Some((.., other)) = before.iter().find(same) {
            return Err(format!(
                "The services {other} and {local} have the same host prefix \"{prefix}\": give \
                     each a hostPrefix of its own."
            ));
        }
        before.push((*tls, prefix, local));
    }
    Ok(())
}
