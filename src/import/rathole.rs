//! Clients and servers of rathole as those of gt.

use super::draft::{Draft, Group, Note, NoteKind, Setting, Value};
use super::frp::{listen_addr, ID, UNKNOWN};
use super::source::{Fate, Source, Taken};
use super::tree::{Leaf, Node, NodeKind};
use crate::config::value::Scalar;
use crate::config::{ListenAddr, RoleName};

/// The section of the client.
pub const CLIENT: &str = "client";
/// The section of the server.
pub const SERVER: &str = "server";

/// Settings of transports that gt has no keys for.
const OF_TRANSPORTS: &[(&str, Fate)] = &[
    (
        "transport.tcp.keepalive_interval",
        Fate::Needless("gt watches its tunnels itself"),
    ),
    (
        "transport.tcp.keepalive_secs",
        Fate::Needless("gt watches its tunnels itself"),
    ),
    (
        "transport.tcp.nodelay",
        Fate::Needless("gt always sends at once"),
    ),
    (
        "transport.tcp.proxy",
        Fate::Lost("gt connects to its server without a proxy"),
    ),
    (
        "transport.noise",
        Fate::Lost("gt encrypts tunnels by TLS: tlsAddr of the server, remote: tls://… of clients"),
    ),
    (
        "transport.websocket",
        Fate::Lost("gt's tunnels are TCP or TLS"),
    ),
];

/// Settings of services that gt has no keys for.
const OF_SERVICES: &[(&str, Fate)] = &[
    ("nodelay", Fate::Needless("gt always sends at once")),
    (
        "retry_interval",
        Fate::Needless("the tunnels of a client have reconnectDelay"),
    ),
];

/// What the section of the other role is.
const OTHER: &str =
    "of the other role: gt has a file for each, so use gt import once more, with the role: \
                     gt client import FILE or gt server import FILE";

/// Whether a file is one of rathole.
pub fn is_of(root: &Node) -> bool {
    let is_role = |role: &str, address: &str| {
        let has = |key: &str| root.get(&format!("{role}.{key}")).is_some();
        has(address) || has("services")
    };
    is_role(CLIENT, "remote_addr") || is_role(SERVER, "bind_addr")
}

/// Converts the part of a file that is for a role.
pub fn convert(mut root: Node, role: RoleName) -> Draft {
    let (own, other) = match role {
        RoleName::Client => (CLIENT, SERVER),
        RoleName::Server => (SERVER, CLIENT),
    };
    let section = root.take(own);
    let section = section.unwrap_or_else(|| Node::of_file(NodeKind::Map(Vec::new())));
    let mut source = Source::new(section);
    let mut body = match role {
        RoleName::Client => client(&mut source, &root),
        RoleName::Server => server(&mut source),
    };
    source.tell(OF_TRANSPORTS);
    let notes = source.finish(UNKNOWN);
    if let Some(Value::Section(options)) = body.last_mut().map(|it| &mut it.value) {
        options.notes.extend(notes);
    }
    let mut rest = Source::new(root);
    rest.tell(&[(other, Fate::Needless(OTHER))]);
    Draft {
        role,
        body: Group {
            settings: body,
            notes: rest.finish(UNKNOWN),
            ..Group::default()
        },
    }
}

/// Takes the services of a section: their names, and their settings.
fn services(source: &mut Source) -> Vec<(String, Option<usize>, Source)> {
    let Some(list) = source.take("services") else {
        return Vec::new();
    };
    match list.kind {
        NodeKind::Map(entries) => {
            let entry = |(name, node): (String, Node)| {
                let line = node.leaf().line();
                (name, line, Source::new(node))
            };
            entries.into_iter().map(entry).collect()
        }
        _ => {
            let why = "a section of services belongs here";
            source.notes.push(Note::new(NoteKind::Lost, &list, why));
            Vec::new()
        }
    }
}

fn title(name: &str, line: Option<usize>) -> Option<String> {
    Some(match line {
        Some(line) => format!("{name} (line {line})"),
        None => name.to_owned(),
    })
}

/// A protocol of services.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// Takes the type of a service. The error is the reason why it is none of gt's.
    fn take(service: &mut Source) -> Result<Self, String> {
        match service.text("type") {
            None => Ok(Protocol::Tcp),
            // It shows in what is made of it.
            Some(Taken { text, .. }) if text == "tcp" => Ok(Protocol::Tcp),
            Some(Taken { text, .. }) if text == "udp" => Ok(Protocol::Udp),
            Some(Taken { leaf, .. }) => {
                service.note(NoteKind::Lost, leaf, "the types are tcp and udp");
                Err("it has no type that gt knows".to_owned())
            }
        }
    }

    /// Returns the key for its ports of a user, which is also its scheme.
    fn key(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }

    /// Returns the keys for the port of the server, and for one that the server chooses.
    fn remote(self) -> (&'static str, &'static str) {
        match self {
            Protocol::Tcp => ("remoteTCPPort", "remoteTCPRandom"),
            Protocol::Udp => ("remoteUDPPort", "remoteUDPRandom"),
        }
    }
}

/// Converts the section of the client. `rest` is the rest of the file.
fn client(source: &mut Source, rest: &Node) -> Vec<Setting> {
    let default = source.text("default_token");
    let mut secret: Option<String> = None;
    let mut tokens: Vec<Leaf> = Vec::new();
    let mut default_differs = false;
    let mut entries = Vec::new();
    for (name, line, mut service) in services(source) {
        let protocol = Protocol::take(&mut service);
        let off = protocol.as_ref().err().cloned();
        let protocol = protocol.unwrap_or(Protocol::Tcp);
        let (remote, random) = protocol.remote();
        let mut settings = Vec::new();
        let local = service.text("local_addr");
        let off = off.or_else(|| {
            let none = local.is_none();
            none.then(|| "it has no local_addr".to_owned())
        });
        if let Some(local) = local {
            let local = format!("{}://{}", protocol.key(), local.text);
            settings.push(Setting::text("local", local));
        }
        let address = rest
            .get(&format!("{SERVER}.services"))
            .and_then(|services| entry(services, &name)?.get("bind_addr")?.text());
        let port = address.and_then(|text| ListenAddr::read(text).ok());
        match port {
            Some(ListenAddr { port, .. }) => {
                settings.push(Setting::text(remote, port.to_string()));
            }
            None => {
                let mut setting = Setting::text(random, "true");
                setting.notes.push(Note::todo(format!(
                    "the port is in the server's file: write {remote}: PORT instead, with the port of the \
                     bind_addr of {name}; with {random} the server chooses one"
                )));
                settings.push(setting);
            }
        }
        let own = service.text("token");
        let token = own.as_ref().or(default.as_ref()).map(|it| &it.text);
        if off.is_none() && secret.is_none() {
            secret = token.cloned();
        }
        let differs = token.is_some() && token != secret.as_ref();
        match own {
            Some(Taken { leaf, .. }) if differs => tokens.push(leaf),
            Some(Taken { leaf, .. }) => {
                service.note(NoteKind::Needless, leaf, "it is the secret of this client");
            }
            None => default_differs |= differs,
        }
        service.tell(OF_SERVICES);
        entries.push(Group {
            title: title(&name, line),
            settings,
            notes: service.finish(UNKNOWN),
            off,
        });
    }
    if let Some(Taken { text, leaf }) = default {
        match (default_differs, &secret) {
            (true, _) => tokens.push(leaf),
            (false, Some(secret)) if *secret == text => {}
            (false, _) => source.note(NoteKind::Needless, leaf, "each service has a token"),
        }
    }
    let mut services = Setting::new("services", Value::Groups(entries));
    if !tokens.is_empty() {
        let why = "a client of gt has one secret for all of its services: under users: of the server, give the \
                   user of this client all of its ports";
        services
            .notes
            .push(Note::about(NoteKind::Todo, tokens, why));
    }

    let mut options = Vec::new();
    remote(source, &mut options);
    let why =
        "the server knows this client by its id and secret: the user of this id under users: there";
    options.push(Setting::text("id", ID).with(Note::hint(why)));
    match secret {
        Some(secret) => options.push(Setting::text("secret", secret)),
        None => source.notes.push(Note::todo(
            "there is no token: write a secret: here, the one of this id under users: of the server",
        )),
    }
    if let Some(seconds) = source.number("heartbeat_timeout", u64::from(u32::MAX)) {
        if seconds > 0 {
            options.push(Setting::text("remoteTimeout", format!("{seconds}s")));
        }
    }
    if let Some(seconds) = source.number("retry_interval", u64::from(u32::MAX)) {
        options.push(Setting::text("reconnectDelay", format!("{seconds}s")));
    }
    let options = Group {
        settings: options,
        ..Group::default()
    };
    vec![
        Setting::text("type", "client"),
        services,
        Setting::new("options", Value::Section(options)),
    ]
}

/// Returns the entry of a section. Names may have dots.
fn entry<'n>(section: &'n Node, name: &str) -> Option<&'n Node> {
    let NodeKind::Map(entries) = &section.kind else {
        return None;
    };
    let mut entries = entries.iter();
    entries.find(|(key, _)| key == name).map(|(_, node)| node)
}

/// Takes the type of the transport; true for TLS.
fn transport(source: &mut Source, todo: &str) -> bool {
    let Some(Taken { text, leaf }) = source.text("transport.type") else {
        return false;
    };
    match text.as_str() {
        "tcp" => source.note(
            NoteKind::Needless,
            leaf,
            "gt's tunnels are TCP, unless they are TLS",
        ),
        "tls" => {
            source.note(NoteKind::Needless, leaf, "it shows in the addresses");
            return true;
        }
        _ => source.note(NoteKind::Todo, leaf, todo),
    }
    false
}

/// Converts the address of the server.
fn remote(source: &mut Source, options: &mut Vec<Setting>) {
    let tls = transport(
        source,
        "the tunnel is not encrypted: gt encrypts by TLS alone. Give the server a certificate (tlsAddr, certFile, \
         keyFile), and write remote: tls://HOST:PORT here, and remoteCert if the certificate is self-signed",
    );
    let scheme = if tls { "tls" } else { "tcp" };
    let address = source.text("remote_addr");
    let host = address
        .as_ref()
        .map(|it| it.text.rsplit_once(':').map_or("", |(host, _)| host));
    let host = host.unwrap_or_default().to_owned();
    match address {
        Some(address) => {
            options.push(Setting::text(
                "remote",
                format!("{scheme}://{}", address.text),
            ));
        }
        None => source.notes.push(Note::todo(
            "there is no remote_addr: write remote: tcp://HOST:PORT, the address of gt's server",
        )),
    }
    if let Some(root) = source.text("transport.tls.trusted_root") {
        match tls {
            true => options.push(Setting::text("remoteCert", root.text)),
            false => source.note(NoteKind::Needless, root.leaf, "the transport is not tls"),
        }
    }
    if let Some(Taken { text, leaf }) = source.text("transport.tls.hostname") {
        let (kind, why) = match text == host || !tls {
            true => (
                NoteKind::Needless,
                "gt checks the certificate for the host in remote",
            ),
            false => (
                NoteKind::Todo,
                "gt checks the certificate for the host in remote: write this name there",
            ),
        };
        source.note(kind, leaf, why);
    }
}

/// A user of the server: the services that share a token.
struct UserOf {
    token: String,
    ports: Vec<(Protocol, Group)>,
}

/// Converts the section of the server.
fn server(source: &mut Source) -> Vec<Setting> {
    let tls = transport(
        source,
        "tunnels are not encrypted: gt encrypts by TLS alone. Give the server a certificate (tlsAddr, certFile, \
         keyFile), and clients remote: tls://HOST:PORT",
    );
    let mut options = Vec::new();
    let default = source.text("default_token").map(|token| token.text);
    let mut users: Vec<UserOf> = Vec::new();
    let mut notes = Vec::new();
    let mut ports: Vec<(Protocol, u16, String)> = Vec::new();
    for (name, line, mut service) in services(source) {
        let protocol = Protocol::take(&mut service);
        let mut off = protocol.as_ref().err().cloned();
        let protocol = protocol.unwrap_or(Protocol::Tcp);
        let token = service.text("token").map(|token| token.text);
        let token = token.or_else(|| default.clone());
        let address = service.text("bind_addr");
        service.tell(OF_SERVICES);
        let port = address.and_then(|Taken { text, leaf }| {
            let read = ListenAddr::read(&text).ok().filter(|addr| addr.port != 0);
            match &read {
                None => service.note(NoteKind::Lost, leaf, "this is no address with a port"),
                Some(ListenAddr { host: None, .. }) => {}
                Some(ListenAddr {
                    host: Some(host), ..
                }) => {
                    if !["0.0.0.0", "::"].contains(&host.as_str()) {
                        let why = "gt opens the ports of clients on all addresses of the server";
                        service.note(NoteKind::Lost, leaf, why);
                        off.get_or_insert_with(|| "others would reach it, too".to_owned());
                    }
                }
            }
            read.map(|addr| addr.port)
        });
        let is_same = |(other, taken, _): &&(Protocol, u16, String)| {
            (*other, Some(*taken)) == (protocol, port)
        };
        if let Some((.., other)) = ports.iter().find(is_same) {
            off.get_or_insert_with(|| format!("{other} has the same port"));
        }
        if port.is_none() {
            off.get_or_insert_with(|| "it has no port".to_owned());
        }
        let token = match token {
            Some(token) => token,
            None => {
                off.get_or_insert_with(|| "it has no token".to_owned());
                String::new()
            }
        };
        if let Some(port) = port.filter(|_| off.is_none()) {
            ports.push((protocol, port, name.clone()));
        }
        let number = Setting::text("number", "1");
        let range = port.map(|port| Setting::text("range", port.to_string()));
        let group = Group {
            title: title(&name, line),
            settings: [number].into_iter().chain(range).collect(),
            notes: service.finish(UNKNOWN),
            off,
        };
        match users.iter_mut().find(|user| user.token == token) {
            Some(user) => user.ports.push((protocol, group)),
            None => users.push(UserOf {
                token,
                ports: vec![(protocol, group)],
            }),
        }
    }
    if users.len() > 1 {
        notes.push(Note::todo(
            "services with different tokens are those of different users here, and a client of gt has one id and \
             one secret. If one client has several of them, put the ranges of its ports under one user",
        ));
    }
    // The first one is that of a client with the first of these services.
    users.sort_by_key(|user| user.ports.iter().all(|(_, port)| port.off.is_some()));
    let user = |(number, user): (usize, UserOf)| {
        let id = match number {
            1 => ID.to_owned(),
            number => format!("client{number}"),
        };
        let settings = match user.token.is_empty() {
            true => Vec::new(),
            false => vec![Setting::text("secret", user.token)],
        };
        let (tcp, udp): (Vec<_>, Vec<_>) = user
            .ports
            .into_iter()
            .partition(|(protocol, _)| *protocol == Protocol::Tcp);
        let list = |protocol: Protocol, ports: Vec<(Protocol, Group)>| {
            let ports: Vec<Group> = ports.into_iter().map(|(_, port)| port).collect();
            let is_empty = ports.is_empty();
            (!is_empty).then(|| Setting::new(protocol.key(), Value::Groups(ports)))
        };
        let lists = [list(Protocol::Tcp, tcp), list(Protocol::Udp, udp)];
        let mut setting = Setting::new(
            &id,
            Value::Section(Group {
                settings: settings
                    .into_iter()
                    .chain(lists.into_iter().flatten())
                    .collect(),
                ..Group::default()
            }),
        );
        if matches!(&setting.value, Value::Section(group) if group.get("secret").is_none()) {
            setting.off = Some("it has no token, which would be its secret".to_owned());
        }
        setting
    };
    let users = (1usize..).zip(users).map(user).collect();
    let mut users = Setting::new(
        "users",
        Value::Section(Group {
            settings: users,
            ..Group::default()
        }),
    );
    users.notes = notes;
    listener(source, &mut options, tls);
    if let Some(Taken { leaf, .. }) = source.text("heartbeat_interval") {
        source.note(
            NoteKind::Needless,
            leaf,
            "gt watches its tunnels itself (timeout)",
        );
    }
    let options = Group {
        settings: options,
        ..Group::default()
    };
    vec![
        Setting::text("type", "server"),
        users,
        Setting::new("options", Value::Section(options)),
    ]
}

/// Converts the address to listen on.
fn listener(source: &mut Source, options: &mut Vec<Setting>, tls: bool) {
    match source.text("bind_addr") {
        Some(Taken { text, leaf }) => match ListenAddr::read(&text) {
            Ok(addr) => {
                let text = listen_addr(addr.host.as_deref(), addr.port);
                options.push(Setting::text("addr", text));
            }
            Err(why) => source.note(NoteKind::Todo, leaf, why),
        },
        None => source.notes.push(Note::todo(
            "there is no bind_addr: write addr: PORT, where tunnels come to; without it, it is 80",
        )),
    }
    let archive = source.text("transport.tls.pkcs12");
    let password = source.text("transport.tls.pkcs12_password");
    if !tls {
        for Taken { leaf, .. } in archive.into_iter().chain(password) {
            source.note(NoteKind::Needless, leaf, "the transport is not tls");
        }
        return;
    }
    let why = "tunnels are not encrypted yet: gt takes certificates in PEM. Make them of the archive by \
               \"openssl pkcs12 -in ARCHIVE -nokeys -out gt.crt\" and \"openssl pkcs12 -in ARCHIVE -nocerts -nodes \
               -out gt.key\"; then write tlsAddr instead of addr, addr: \"\", certFile: gt.crt and keyFile: gt.key";
    match archive {
        Some(Taken { leaf, .. }) => source.note(NoteKind::Todo, leaf, why),
        None => source.notes.push(Note::todo(why)),
    }
    if let Some(Taken { leaf, .. }) = password {
        source.note(NoteKind::Needless, leaf, "openssl asks for it");
    }
}
