//! Proxies of a client of frp as services of gt.

use std::collections::BTreeSet;

use super::draft::{Group, Note, NoteKind, Setting, Value};
use super::frp::{self, UNKNOWN};
use super::source::{Fate, Source, Taken};
use super::tree::{Node, NodeKind};

/// Maximum number of services that gt's server takes from one client.
const MAX_SERVICES: usize = 600;
/// Maximum number of passwords that are hashed, which takes a tenth of a second each.
const MAX_PASSWORDS: usize = 32;

/// Hashes a password. The error says why it cannot.
pub type Hasher = fn(&str) -> Result<String, String>;

/// Settings of a proxy that gt has no keys for.
const TOLD: &[(&str, Fate)] = &[
    ("annotations", Fate::Lost("gt has no notes of services")),
    (
        "healthCheck.httpHeaders",
        Fate::Lost("gt sets no fields of requests of health checks"),
    ),
    (
        "healthCheck",
        Fate::Lost("only services that gt connects to have health checks, of type tcp or http"),
    ),
    (
        "loadBalancer",
        Fate::Lost("a group of gt has a name, a groupKey, and a host name or a remotePort"),
    ),
    ("localIP", Fate::Needless("the plugin is the service")),
    ("localPort", Fate::Needless("the plugin is the service")),
    ("metadatas", Fate::Lost("gt has no metadata of services")),
    (
        "requestHeaders",
        Fate::Lost("gt sets no fields of requests but those of forwarded: true"),
    ),
    ("responseHeaders", Fate::Lost("gt does not change answers")),
    (
        "transport.bandwidthLimitMode",
        Fate::Needless("speed applies at the client"),
    ),
    (
        "transport.useCompression",
        Fate::Lost("gt does not compress"),
    ),
    (
        "transport.useEncryption",
        Fate::Lost("gt encrypts whole tunnels: remote: tls://… in options"),
    ),
];

/// What `local` is for the proxies that gt is itself: of SOCKS5 and of HTTP.
const PROXIES: [&str; 2] = ["socks5:", "httpproxy:"];

/// The services that were made so far.
pub struct Proxies {
    hash: Hasher,
    passwords: usize,
    /// The only proxies that run; `None` for all.
    started: Option<BTreeSet<String>>,
    services: Vec<Group>,
    notes: Vec<Note>,
    count: usize,
    /// The ports of the server, with their protocol and the name of their proxy.
    ports: Vec<(&'static str, (u16, u16), String)>,
    /// The host names and host prefixes, with their kind and the name of their proxy.
    names: Vec<(&'static str, String, String)>,
}

/// How visitors reach a service.
enum Kind {
    Tcp,
    Udp,
    Http,
    Https,
}

impl Proxies {
    /// Creates an empty list. `started` has the names of the only proxies that run.
    pub fn new(hash: Hasher, started: Option<BTreeSet<String>>) -> Self {
        Self {
            hash,
            passwords: 0,
            started,
            services: Vec::new(),
            notes: Vec::new(),
            count: 0,
            ports: Vec::new(),
            names: Vec::new(),
        }
    }

    /// Returns the services, and comments on proxies that are none.
    pub fn finish(self) -> (Vec<Group>, Vec<Note>) {
        (self.services, self.notes)
    }

    fn lose(&mut self, node: &Node, why: impl Into<String>) {
        self.notes.push(Note::new(NoteKind::Lost, node, why));
    }

    /// Adds a visitor of another client's proxy, for which gt has other means.
    pub fn add_visitor(&mut self, node: Node) {
        self.lose(
            &node,
            "write tcpForwardAddr: ADDRESS, tcpForwardHostPrefix: ID and tcpForwardKey: KEY into the options of \
             this client, for a private service of another one (docs/p2p.md)",
        );
    }

    /// Adds a proxy.
    pub fn add(&mut self, node: Node) {
        let kind = node.get("type").and_then(Node::text).unwrap_or("tcp");
        let kind = match kind {
            "tcp" => Kind::Tcp,
            "http" => Kind::Http,
            "https" => Kind::Https,
            "udp" => Kind::Udp,
            "stcp" | "sudp" | "xtcp" => {
                let why =
                    "write a service with private: KEY, which only clients with this key reach \
                           (docs/p2p.md)";
                return self.lose(&node, why);
            }
            "tcpmux" => return self.lose(&node, "gt has no services by HTTP CONNECT"),
            _ => return self.lose(&node, "gt has no services of this type"),
        };
        let plugin = node.get("plugin.type").and_then(Node::text);
        match plugin {
            None | Some("static_file" | "unix_domain_socket" | "http_proxy" | "socks5") => {}
            Some("https2http" | "https2https" | "http2https" | "http2http" | "tls2raw") => {
                let why = "gt's client neither adds nor removes TLS: give the server the certificate (tlsAddr) \
                           and publish the service as http://, or let the service have it, as https://";
                return self.lose(&node, why);
            }
            Some(_) => return self.lose(&node, "gt has no such plugin"),
        }
        if !matches!(node.kind, NodeKind::Map(_)) {
            return self.lose(&node, "a section of keys belongs here");
        }
        let mut source = Source::new(node);
        let place = source.text("name");
        let name = place
            .as_ref()
            .map_or("", |name| name.text.as_str())
            .to_owned();
        let title = match place {
            Some(Taken { text, leaf }) => match leaf.line() {
                Some(line) => format!("{text} (line {line})"),
                None => text,
            },
            None => "a proxy without a name".to_owned(),
        };
        // It shows in local.
        source.take("type");
        let mut groups = match self.service(&mut source, &kind, &name) {
            Ok(groups) => groups,
            Err(why) => vec![Group {
                off: Some(why),
                ..Group::default()
            }],
        };
        if let Some(why) = self.off(&mut source, &name) {
            groups.iter_mut().for_each(|it| it.off = Some(why.clone()));
        }
        self.reserve(&mut groups, &kind, &name);
        source.tell(TOLD);
        let is_off = groups.iter().all(|group| group.off.is_some());
        let why = if is_off {
            "its service is not carried"
        } else {
            UNKNOWN
        };
        let notes = source.finish(why);
        if let Some(first) = groups.first_mut() {
            first.notes = notes;
        }
        for mut group in groups {
            group.title.get_or_insert_with(|| title.clone());
            self.services.push(group);
        }
    }

    /// Returns the reason why a proxy does not run in frp.
    fn off(&self, source: &mut Source, name: &str) -> Option<String> {
        let enabled = source.text("enabled");
        let is_off = enabled.as_ref().is_some_and(|it| it.text == "false");
        if let Some(Taken { leaf, .. }) = enabled {
            source.note(
                NoteKind::Needless,
                leaf,
                "a service that does not run stands in comments",
            );
        }
        if is_off {
            return Some("it is not enabled".to_owned());
        }
        let started = self.started.as_ref()?;
        let is_started = started.is_empty() || started.contains(name);
        (!is_started).then(|| "it is not in the list start".to_owned())
    }

    /// Converts a proxy to one service, or to one for each of its ranges of ports. The error is the reason why
    /// there is none.
    fn service(
        &mut self,
        source: &mut Source,
        kind: &Kind,
        name: &str,
    ) -> Result<Vec<Group>, String> {
        let locals = locals(source, kind)?;
        let mut groups = match kind {
            Kind::Tcp => ports(source, locals, "remoteTCPPort", "remoteTCPRandom")?,
            Kind::Udp => ports(source, locals, "remoteUDPPort", "remoteUDPRandom")?,
            Kind::Http | Kind::Https => {
                let [local] = locals.as_slice() else {
                    return Err("it has several ports, but one host name".to_owned());
                };
                vec![host(source, local)?]
            }
        };
        let mut common = Vec::new();
        if let Some(Taken { text, leaf }) = source.text("transport.proxyProtocolVersion") {
            match text.as_str() {
                "v1" => common.push(("proxyProtocol", "1".to_owned())),
                "v2" => common.push(("proxyProtocol", "2".to_owned())),
                _ => source.note(NoteKind::Lost, leaf, "the versions are v1 and v2"),
            }
        }
        if let Some(Taken { text, leaf }) = source.text("transport.bandwidthLimit") {
            match speed(&text) {
                Some(speed) => common.push(("speed", speed.to_string())),
                None => source.note(NoteKind::Lost, leaf, "a limit is written like 1MB or 500KB"),
            }
        }
        if matches!(kind, Kind::Http) {
            let off = restrictions(source);
            groups.iter_mut().for_each(|group| group.off = off.clone());
        }
        let is_proxy = |group: &Group| {
            let mut settings = group.settings.iter();
            settings.any(
                |it| matches!(&it.value, Value::Text(text) if PROXIES.contains(&text.as_str())),
            )
        };
        let is_proxy = groups.iter().any(is_proxy);
        if let Some(password) = self.password(source, name, is_proxy)? {
            let setting = || Setting::new("password", Value::Texts(vec![password.clone()]));
            groups
                .iter_mut()
                .for_each(|group| group.settings.push(setting()));
        }
        common.extend(health_check(source, kind));
        common.extend(shared_group(source, &groups));
        for group in &mut groups {
            let settings = common.iter();
            let settings = settings.map(|(key, text)| Setting::text(key, text.clone()));
            group.settings.extend(settings);
        }
        Ok(groups)
    }

    /// Converts the name and the password of visitors. A service that would lose its password is not carried.
    fn password(
        &mut self,
        source: &mut Source,
        name: &str,
        is_proxy: bool,
    ) -> Result<Option<String>, String> {
        let (mut user, mut password) = (source.text("httpUser"), source.text("httpPassword"));
        for (of_user, of_password) in [
            ("plugin.httpUser", "plugin.httpPassword"),
            ("plugin.username", "plugin.password"),
        ] {
            if user.is_none() && password.is_none() {
                user = source.text(of_user);
                password = source.text(of_password);
            }
        }
        let (user, password) =
            match (user, password) {
                (None, None) if is_proxy => return Err(
                    "anyone could go into the networks of this machine: give it a password (gt \
                            hash), or the targets that visitors may reach"
                        .to_owned(),
                ),
                (None, None) => return Ok(None),
                (Some(user), Some(password)) => (user.text, password.text),
                (user, password) => {
                    for Taken { leaf, .. } in user.into_iter().chain(password) {
                        source.note(
                            NoteKind::Lost,
                            leaf,
                            "a password of gt has a name and a text",
                        );
                    }
                    return Err("its password cannot be carried".to_owned());
                }
            };
        self.passwords = self.passwords.saturating_add(1);
        if self.passwords > MAX_PASSWORDS {
            return Err(format!(
                "there are more than {MAX_PASSWORDS} passwords: hash this one by \"gt hash {user}\", and write \
                 what it prints as the service's password"
            ));
        }
        match (self.hash)(&password) {
            Ok(hash) => Ok(Some(format!("{user}:{hash}"))),
            Err(why) => Err(format!("the password of {name} cannot be hashed: {why}")),
        }
    }

    /// Notes the ports and names of services. A service with those of another one is turned off, and so is one
    /// too many.
    fn reserve(&mut self, groups: &mut [Group], kind: &Kind, name: &str) {
        let protocol = match kind {
            Kind::Tcp => "TCP",
            Kind::Udp => "UDP",
            Kind::Http => "HTTP",
            Kind::Https => "HTTPS",
        };
        for group in groups.iter_mut().filter(|group| group.off.is_none()) {
            let mut ports = Vec::new();
            let mut names = Vec::new();
            for setting in &group.settings {
                match (setting.key.as_str(), &setting.value) {
                    ("remoteTCPPort" | "remoteUDPPort", Value::Text(text)) => {
                        ports.extend(frp::ranges(text).unwrap_or_default());
                    }
                    ("domain", Value::Texts(texts)) => {
                        names.extend(texts.iter().map(|text| text.to_lowercase()));
                    }
                    // A domain has a dot or is `*`.
                    ("hostPrefix", Value::Text(text)) => names.push(text.to_lowercase()),
                    _ => {}
                }
            }
            let count = |(first, last): &(u16, u16)| usize::from(last.saturating_sub(*first));
            let more: usize = ports.iter().map(count).sum();
            let total = self.count.saturating_add(more).saturating_add(1);
            let same_port = |(other, (first, last), _): &&(&str, (u16, u16), String)| {
                let overlaps = |(a, b): &(u16, u16)| a <= last && first <= b;
                *other == protocol && ports.iter().any(overlaps)
            };
            let same_name = |(other, text, _): &&(&str, String, String)| {
                *other == protocol && names.contains(text)
            };
            if total > MAX_SERVICES {
                group.off = Some(format!(
                    "there are more than {MAX_SERVICES} services, the most that gt's server takes from one \
                     client; divide them between clients with different ids"
                ));
            } else if let Some((.., owner)) = self.ports.iter().find(same_port) {
                group.off = Some(format!("{owner} has the same port of the server"));
            } else if let Some((_, text, owner)) = self.names.iter().find(same_name) {
                group.off = Some(format!("{owner} has the same host name {text}"));
            } else {
                self.count = total;
                let port = |port| (protocol, port, name.to_owned());
                self.ports.extend(ports.into_iter().map(port));
                let text = |text| (protocol, text, name.to_owned());
                self.names.extend(names.into_iter().map(text));
            }
        }
    }
}

/// The local end of a service.
struct LocalEnd {
    local: String,
    /// The address, as `host` and as `host:port`, if it has one.
    hosts: Vec<String>,
    /// Number of ports.
    ports: u32,
}

/// Converts the address or the plugin of a proxy.
fn locals(source: &mut Source, kind: &Kind) -> Result<Vec<LocalEnd>, String> {
    let one = |local| LocalEnd {
        local,
        hosts: Vec::new(),
        ports: 1,
    };
    if let Some(plugin) = source.text("plugin.type") {
        let is_file = plugin.text == "static_file";
        if let "socks5" | "http_proxy" = plugin.text.as_str() {
            let [socks5, http] = PROXIES;
            let local = match plugin.text.as_str() {
                "socks5" => socks5,
                _ => http,
            };
            let why = "visitors reach private networks alone: write others into targets";
            source.note(NoteKind::Todo, plugin.leaf, why);
            return match kind {
                Kind::Tcp => Ok(vec![one(local.to_owned())]),
                _ => Err("gt publishes proxies on TCP ports alone".to_owned()),
            };
        }
        let key = if is_file {
            "plugin.localPath"
        } else {
            "plugin.unixPath"
        };
        let Some(Taken { text, .. }) = source.text(key) else {
            return Err(format!("it has no {key}"));
        };
        let path = match text.starts_with(['/', '.']) {
            true => text,
            false => format!("./{text}"),
        };
        if is_file {
            let why = "gt serves the folder at /: visitors leave this out of the address";
            source.tell(&[("plugin.stripPrefix", Fate::Lost(why))]);
            return match kind {
                Kind::Https => Err("gt serves folders without TLS of their own".to_owned()),
                Kind::Udp => Err("gt serves folders over TCP alone".to_owned()),
                Kind::Tcp | Kind::Http => Ok(vec![one(format!("file://{path}"))]),
            };
        }
        let scheme = match kind {
            Kind::Tcp => "unix",
            Kind::Udp => return Err("gt has Unix sockets of streams alone".to_owned()),
            Kind::Http => "http+unix",
            Kind::Https => "https+unix",
        };
        return Ok(vec![one(format!("{scheme}://{path}"))]);
    }
    let host = source.text("localIP").map(|host| host.text);
    let host = host.unwrap_or_else(|| "127.0.0.1".to_owned());
    let Some(Taken { text, leaf }) = source.text("localPort") else {
        return Err("it has no localPort".to_owned());
    };
    let Some(ranges) = frp::ranges(&text) else {
        source.note(NoteKind::Lost, leaf, "this is no port");
        return Err("its localPort is no port".to_owned());
    };
    if ranges.len() > frp::MAX_RANGES {
        return Err(format!("localPort: {}", frp::TOO_MANY_RANGES));
    }
    let scheme = match kind {
        Kind::Tcp => "tcp",
        Kind::Udp => "udp",
        Kind::Http => "http",
        Kind::Https => "https",
    };
    let local = |(first, last): (u16, u16)| {
        let address = frp::host_port(&host, first);
        let end = match first == last {
            true => String::new(),
            false => format!("-{last}"),
        };
        LocalEnd {
            local: format!("{scheme}://{address}{end}"),
            hosts: vec![host.clone(), address],
            ports: u32::from(last.abs_diff(first)).saturating_add(1),
        }
    };
    Ok(ranges.into_iter().map(local).collect())
}

/// Converts the ports of the server.
fn ports(
    source: &mut Source,
    locals: Vec<LocalEnd>,
    port: &str,
    random: &str,
) -> Result<Vec<Group>, String> {
    let remote = source.text("remotePort").filter(|port| port.text != "0");
    let Some(Taken { text, leaf }) = remote else {
        let group = |local: LocalEnd| Group {
            settings: vec![
                Setting::text("local", local.local),
                Setting::text(random, "true"),
            ],
            ..Group::default()
        };
        return Ok(locals.into_iter().map(group).collect());
    };
    let Some(ranges) = frp::ranges(&text) else {
        source.note(NoteKind::Lost, leaf, "this is no port");
        return Err("its remotePort is no port".to_owned());
    };
    let counts = ranges
        .iter()
        .map(|(first, last)| u32::from(last.abs_diff(*first)).saturating_add(1));
    if !locals.iter().map(|local| local.ports).eq(counts) {
        source.note(
            NoteKind::Lost,
            leaf,
            "these are not as many ports as those of localPort",
        );
        return Err("it has not as many ports at both ends".to_owned());
    }
    let group = |(local, range): (LocalEnd, (u16, u16))| Group {
        settings: vec![
            Setting::text("local", local.local),
            Setting::text(port, frp::range(range)),
        ],
        ..Group::default()
    };
    Ok(locals.into_iter().zip(ranges).map(group).collect())
}

/// Converts the host names of an HTTP or HTTPS service.
fn host(source: &mut Source, local: &LocalEnd) -> Result<Group, String> {
    let mut settings = vec![Setting::text("local", local.local.clone())];
    let domains: Vec<String> = source
        .texts("customDomains")
        .into_iter()
        .map(|domain| domain.text)
        .collect();
    let subdomain = source.text("subdomain");
    if domains.is_empty() && subdomain.is_none() {
        return Err("it has neither customDomains nor a subdomain".to_owned());
    }
    if !domains.is_empty() {
        settings.push(Setting::new("domain", Value::Texts(domains)));
    }
    if let Some(subdomain) = subdomain {
        settings.push(Setting::text("hostPrefix", subdomain.text));
    }
    if let Some(Taken { text, leaf }) = source.text("hostHeaderRewrite") {
        if local.hosts.contains(&text) {
            settings.push(Setting::text("useLocalAsHTTPHost", "true"));
        } else {
            let why = "gt replaces the Host of requests with the host of local alone: if this name leads to \
                       the service on this machine (/etc/hosts), write it into local, and \
                       useLocalAsHTTPHost: true";
            source.note(NoteKind::Todo, leaf, why);
        }
    }
    Ok(Group {
        settings,
        ..Group::default()
    })
}

/// Converts the health checks of a service; there are none of datagrams, nor of pages behind TLS.
fn health_check(source: &mut Source, kind: &Kind) -> Vec<(&'static str, String)> {
    let checked = source.peek("healthCheck.type").map(str::to_owned);
    let has_plugin = source.peek("plugin.type").is_some();
    let probe = match (checked.as_deref(), kind) {
        _ if has_plugin => return Vec::new(),
        (Some("tcp"), Kind::Tcp | Kind::Http | Kind::Https) => "tcp".to_owned(),
        (Some("http"), Kind::Tcp | Kind::Http) => match source.text("healthCheck.path") {
            Some(Taken { text, .. }) if text.starts_with('/') => text,
            Some(Taken { text, .. }) => format!("/{text}"),
            None => "/".to_owned(),
        },
        _ => return Vec::new(),
    };
    source.take("healthCheck.type");
    let mut settings = vec![("healthCheck", probe)];
    for (path, key, unit) in [
        ("healthCheck.intervalSeconds", "healthCheckEvery", "s"),
        ("healthCheck.timeoutSeconds", "healthCheckTimeout", "s"),
        ("healthCheck.maxFailed", "healthCheckFail", ""),
    ] {
        let Some(Taken { text, leaf }) = source.text(path) else {
            continue;
        };
        match text.parse::<u32>() {
            Ok(1..=100) => settings.push((key, format!("{text}{unit}"))),
            _ => source.note(NoteKind::Lost, leaf, "this is no number from 1 to 100"),
        }
    }
    settings
}

/// Converts the group that a service shares its visitors in.
fn shared_group(source: &mut Source, services: &[Group]) -> Vec<(&'static str, String)> {
    let is_random = |setting: &Setting| setting.key.ends_with("Random");
    let has_place = services
        .iter()
        .all(|service| !service.settings.iter().any(is_random));
    let (group, key) = ("loadBalancer.group", "loadBalancer.groupKey");
    let is_whole = [group, key]
        .iter()
        .all(|path| source.peek(path).is_some_and(|text| !text.is_empty()));
    if !has_place || !is_whole {
        return Vec::new();
    }
    let taken = [source.text(group), source.text(key)];
    let keys = ["serviceGroup", "groupKey"];
    let settings = keys.into_iter().zip(taken);
    settings
        .filter_map(|(key, taken)| Some((key, taken?.text)))
        .collect()
}

/// Returns the reason why a service has restrictions that it would lose, if it has any.
fn restrictions(source: &mut Source) -> Option<String> {
    let mut lost = false;
    for Taken { text, leaf } in source.texts("locations") {
        match text.as_str() {
            "/" => source.note(NoteKind::Needless, leaf, "gt publishes all paths"),
            _ => {
                source.note(
                    NoteKind::Lost,
                    leaf,
                    "gt publishes all paths of a host name",
                );
                lost = true;
            }
        }
    }
    if let Some(Taken { leaf, .. }) = source.text("routeByHTTPUser") {
        source.note(
            NoteKind::Lost,
            leaf,
            "gt does not route by the names of visitors",
        );
        lost = true;
    }
    lost.then(|| {
        "visitors would reach more than in frp. If that is right, remove the # here".to_owned()
    })
}

/// Reads a limit such as `1MB` in bytes per second.
fn speed(text: &str) -> Option<u64> {
    let (number, unit) = match (text.strip_suffix("MB"), text.strip_suffix("KB")) {
        (Some(number), _) => (number, 1024.0 * 1024.0),
        (_, Some(number)) => (number, 1024.0),
        _ => return None,
    };
    let number: f64 = number.trim().parse().ok()?;
    let bytes = number * unit;
    // Beyond this, no network reaches the limit.
    (1.0..1e15).contains(&bytes).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_read_in_bytes() {
        assert_eq!(speed("1MB"), Some(1_048_576));
        assert_eq!(speed("1.5 KB"), Some(1536));
        for text in ["", "MB", "1", "1GB", "-1MB", "NaNMB", "infMB", "0KB"] {
            assert_eq!(speed(text), None, "{text}");
        }
    }
}
