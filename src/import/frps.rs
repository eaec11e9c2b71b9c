//! A server of frp (frps) as a server of gt.

use super::draft::{Draft, Group, Note, NoteKind, Setting, Value};
use super::frp::{self, listen_addr, ID, UNKNOWN};
use super::source::{Fate, Source, Taken};
use super::tree::{Leaf, Node, NodeKind};
use crate::config::value::digits;
use crate::config::RoleName;

/// Settings of a server that gt has no keys for.
const TOLD: &[(&str, Fate)] = &[
    (
        "auth.additionalScopes",
        Fate::Needless("gt's clients prove the secret for every tunnel"),
    ),
    (
        "auth.oidc",
        Fate::Lost("gt knows clients by id and secret, or asks an authAPI (docs/configuration.md)"),
    ),
    (
        "auth.tokenSource",
        Fate::Todo("write the token itself as the secret of each user"),
    ),
    (
        "custom404Page",
        Fate::Lost("gt has pages of its own for visitors that it cannot serve"),
    ),
    (
        "detailedErrorsToClient",
        Fate::Needless("gt's clients are told why a port cannot be opened"),
    ),
    ("enablePrometheus", Fate::Needless("apiAddr has /metrics")),
    (
        "httpPlugins",
        Fate::Todo(
            "gt has no plugins, so that it allows what they have refused; for logins, see authAPI \
             (docs/configuration.md)",
        ),
    ),
    ("kcpBindPort", Fate::Lost("gt has no KCP")),
    (
        "natHoleAnalysisDataReserveHours",
        Fate::Needless("gt keeps no such data"),
    ),
    (
        "quicBindPort",
        Fate::Lost("write quicAddr, and remote: quic://HOST at the clients"),
    ),
    (
        "sshTunnelGateway",
        Fate::Lost("gt takes no tunnels from SSH clients"),
    ),
    (
        "tcpmuxHTTPConnectPort",
        Fate::Lost("gt has no services by HTTP CONNECT"),
    ),
    (
        "tcpmuxPassthrough",
        Fate::Lost("gt has no services by HTTP CONNECT"),
    ),
    (
        "transport.maxPoolCount",
        Fate::Needless("visitors share tunnels; connections limits those of a client"),
    ),
    (
        "transport.quic",
        Fate::Needless("QUIC needs no settings here"),
    ),
    (
        "transport.tcpKeepalive",
        Fate::Needless("gt watches its tunnels itself"),
    ),
    (
        "transport.tcpMux",
        Fate::Needless("visitors always share tunnels"),
    ),
    (
        "transport.tcpMuxKeepaliveInterval",
        Fate::Needless("gt watches its tunnels itself"),
    ),
    (
        "transport.tls.trustedCaFile",
        Fate::Lost("gt's clients prove themselves by id and secret"),
    ),
    ("udpPacketSize", Fate::Needless("gt has no such limit")),
    (
        "userConnTimeout",
        Fate::Needless("gt has a limit of its own"),
    ),
    (
        "vhostHTTPTimeout",
        Fate::Needless("timeout applies to silent visitors"),
    ),
];

/// Converts the file of a server.
pub fn convert(root: Node) -> Draft {
    let mut source = Source::new(root);
    let mut options = Vec::new();
    let has_names = listeners(&mut source, &mut options);
    let users = users(&mut source, &mut options);
    let tcp = ports(&mut source);
    if has_names {
        names(&mut source, &mut options);
    } else {
        let why = "there is no vhostHTTPPort, so that no service has a host name";
        source.tell(&[("subDomainHost", Fate::Needless(why))]);
    }
    api(&mut source, &mut options);
    if let Some(Taken { text, leaf }) = source.text("transport.heartbeatTimeout") {
        match digits(&text) {
            Some(seconds) if seconds > 0 => {
                options.push(Setting::text("timeout", format!("{seconds}s")));
            }
            _ => source.note(
                NoteKind::Lost,
                leaf,
                "gt watches its tunnels, unless timeout is 0",
            ),
        }
    }
    options.extend(frp::log(&mut source));
    source.tell(TOLD);

    let mut settings = vec![Setting::text("type", "server")];
    settings.extend(users);
    settings.extend(tcp);
    let options = Group {
        settings: options,
        notes: source.finish(UNKNOWN),
        ..Group::default()
    };
    settings.push(Setting::new("options", Value::Section(options)));
    Draft {
        role: RoleName::Server,
        body: Group {
            settings,
            ..Group::default()
        },
    }
}

/// Converts the addresses to listen on. Whether visitors come by host names.
fn listeners(source: &mut Source, options: &mut Vec<Setting>) -> bool {
    let host = source.text("bindAddr").map(|host| host.text);
    let addr = |port| listen_addr(host.as_deref(), port);
    let bound = source.port("bindPort").unwrap_or(frp::PORT);
    let http = source.port("vhostHTTPPort");
    let https = source.port("vhostHTTPSPort");
    let has_names = http.is_some() || https.is_some();
    let force = source.text("transport.tls.force");
    let force = force.filter(|force| force.text != "false");
    match certificate(source) {
        Some((cert, key)) => {
            let mut notes = vec![Note::hint(
                "tunnels come here over TLS: clients have remote: tls://HOST:PORT, and remoteCert if the \
                 certificate is self-signed",
            )];
            if let Some(Taken { leaf, .. }) = force {
                let why = "tlsAddr takes nothing but TLS";
                notes.push(Note::about(NoteKind::Needless, vec![leaf], why));
            }
            let mut visitors = |key: &str, port: Option<u16>| {
                let port = port?;
                if port == bound {
                    notes.push(Note::todo(format!(
                        "in frp, tunnels and visitors share the port {bound}: visitors need another {key}"
                    )));
                    return None;
                }
                Some(Setting::text(key, addr(port)))
            };
            // The default is 80.
            let plain = visitors("addr", http);
            options.push(plain.unwrap_or_else(|| Setting::text("addr", "")));
            let sni = visitors("sniAddr", https);
            let mut tls = Setting::text("tlsAddr", addr(bound));
            tls.notes = notes;
            options.push(tls);
            options.push(Setting::text("certFile", cert));
            options.push(Setting::text("keyFile", key));
            options.extend(sni);
        }
        None => {
            let mut plain = match (http, https) {
                (Some(http), _) => Setting::text("addr", addr(http)),
                (None, Some(https)) if https == bound => Setting::text("addr", ""),
                (None, _) => Setting::text("addr", addr(bound)),
            };
            if let Some(Taken { leaf, .. }) = force {
                let why = "tunnels are not encrypted: give the server a certificate (tlsAddr, certFile, keyFile), \
                           and clients remote: tls://HOST:PORT";
                plain
                    .notes
                    .push(Note::about(NoteKind::Todo, vec![leaf], why));
            }
            let mut sni = https.map(|https| Setting::text("sniAddr", addr(https)));
            if let Some(http) = http.filter(|http| *http != bound && https != Some(bound)) {
                match https {
                    None => {
                        let why = format!(
                            "for the tunnels of clients that have frp's bindPort as their remote; those of others \
                             come to addr. Remove it once all of them have remote: tcp://HOST:{http}"
                        );
                        sni = Some(Setting::text("sniAddr", addr(bound)).with(Note::hint(why)));
                    }
                    Some(_) => plain.notes.push(Note::todo(format!(
                        "tunnels come to addr, not to frp's bindPort {bound}: write remote: tcp://HOST:{http} \
                         into the files of clients"
                    ))),
                }
            }
            options.push(plain);
            options.extend(sni);
        }
    }
    has_names
}

/// Takes the certificate and its key, if both are there.
fn certificate(source: &mut Source) -> Option<(String, String)> {
    let cert = source.text("transport.tls.certFile");
    match (cert, source.text("transport.tls.keyFile")) {
        (Some(cert), Some(key)) => Some((cert.text, key.text)),
        (cert, key) => {
            for Taken { leaf, .. } in cert.into_iter().chain(key) {
                let why = "tlsAddr needs both a certificate and its key";
                source.note(NoteKind::Todo, leaf, why);
            }
            None
        }
    }
}

/// Converts the token to a user.
fn users(source: &mut Source, options: &mut Vec<Setting>) -> Option<Setting> {
    // A token that cannot be read is no reason to admit anyone.
    let is_open = !source.has("auth");
    if let Some(Taken { text, leaf }) = source.text("auth.method") {
        match text.as_str() {
            "token" => source.note(
                NoteKind::Needless,
                leaf,
                "the token is the secret of a user",
            ),
            _ => source.note(
                NoteKind::Lost,
                leaf,
                "gt knows clients by id and secret alone",
            ),
        }
    }
    match source.text("auth.token") {
        Some(token) => {
            let user = Group {
                settings: vec![Setting::text("secret", token.text)],
                ..Group::default()
            };
            let mut user = Setting::new(ID, Value::Section(user));
            user.notes.push(Note::hint(
                "in frp, all clients share this token. In gt, each has an id and a secret of its own: add the \
                 others like this one",
            ));
            Some(Setting::new(
                "users",
                Value::Section(Group {
                    settings: vec![user],
                    ..Group::default()
                }),
            ))
        }
        None if is_open => {
            let mut setting = Setting::text("allowAnyClient", "true");
            setting.notes.push(Note::todo(
                "there is no token, so that anyone can be a client: better write users: instead",
            ));
            options.push(setting);
            None
        }
        None => Some(
            Setting::new("users", Value::Section(Group::default())).with(Note::todo(
                "add the clients, like client1: {secret: SECRET}",
            )),
        ),
    }
}

/// Converts the ports that clients may open.
fn ports(source: &mut Source) -> Vec<Setting> {
    let mut ranges = Vec::new();
    match source.take("allowPorts") {
        // Of an INI file: one text.
        Some(node) if node.text().is_some() => {
            let read = node.text().and_then(frp::ranges);
            match read {
                Some(read) => ranges.extend(read),
                None => lose(source, node.leaf()),
            }
        }
        Some(node) => match node.kind {
            NodeKind::List(nodes) => {
                for node in nodes {
                    let mut entry = Source::new(node);
                    let single = entry.port("single").map(|port| (port, port));
                    let range = entry.port("start").zip(entry.port("end"));
                    match single.or(range).filter(|(first, last)| first <= last) {
                        Some(range) => ranges.push(range),
                        None => entry.notes.push(Note::todo(
                            "an entry of allowPorts was not read: write it like range: 20000-20100",
                        )),
                    }
                    source.notes.extend(entry.finish(UNKNOWN));
                }
            }
            _ => lose(source, node.leaf()),
        },
        // In frp, clients may then open any port.
        None => ranges.push((1, u16::MAX)),
    }
    if ranges.len() > frp::MAX_RANGES {
        ranges.clear();
        let why = format!("allowPorts: {}", frp::TOO_MANY_RANGES);
        source.notes.push(Note::todo(why));
    }
    let range = |range: &(u16, u16)| Group {
        settings: vec![Setting::text("range", frp::range(*range))],
        ..Group::default()
    };
    let list = |key| Setting::new(key, Value::Groups(ranges.iter().map(range).collect()));
    let number = source.number("maxPortsPerClient", u64::from(u32::MAX));
    let number = number.unwrap_or(0).to_string();
    let mut settings = vec![
        list("tcp"),
        Setting::text("tcpNumber", number.clone()),
        list("udp").with(Note::hint("the ports that each client may open")),
        Setting::text("udpNumber", number).with(Note::hint(
            "how many of them, of TCP and of UDP; 0 for any number",
        )),
    ];
    if let Some(Taken { text, leaf }) = source.text("proxyBindAddr") {
        let is_all = ["0.0.0.0", "::"].contains(&text.as_str());
        let why = "gt opens the ports of clients on all addresses";
        match is_all {
            true => source.note(NoteKind::Needless, leaf, why),
            false => {
                source.note(NoteKind::Lost, leaf, why);
                for setting in &mut settings {
                    setting.off = Some(format!("{why}, and frp at {text} alone"));
                }
            }
        }
    }
    settings
}

fn lose(source: &mut Source, leaf: Leaf) {
    source.note(
        NoteKind::Todo,
        leaf,
        "write the ports under tcp:, like range: 20000-20100",
    );
}

/// Lets clients have the host names that frp gives them.
fn names(source: &mut Source, options: &mut Vec<Setting>) {
    let mut number = Setting::text("hostNumber", "0");
    number.notes.push(Note::hint(
        "a client may have any number of subdomains (hostPrefix)",
    ));
    if let Some(Taken { leaf, .. }) = source.text("subDomainHost") {
        let why = "the first label of any host name is a hostPrefix";
        number
            .notes
            .push(Note::about(NoteKind::Needless, vec![leaf], why));
    }
    options.push(number);
    let mut domains = Setting::new("domains", Value::Texts(vec!["*".to_owned()]));
    domains.notes.push(Note::hint(
        "clients may have any customDomains (domain), as in frp: better name those that they may have",
    ));
    options.push(domains);
}

/// Converts the dashboard.
fn api(source: &mut Source, options: &mut Vec<Setting>) {
    let port = source.port("webServer.port");
    let host = source.text("webServer.addr");
    let Some(port) = port else {
        if let Some(Taken { leaf, .. }) = host {
            source.note(NoteKind::Needless, leaf, "there is no webServer.port");
        }
        let why = "there is no webServer.port";
        source.tell(&[("webServer", Fate::Needless(why))]);
        return;
    };
    // The API has no password: it goes where no one else can reach it.
    let mut api = Setting::text("apiAddr", frp::host_port("127.0.0.1", port));
    if let Some(Taken { text, leaf }) = host {
        let (kind, why) = match text.as_str() {
            "127.0.0.1" => (NoteKind::Needless, "it is in apiAddr"),
            _ => (
                NoteKind::Lost,
                "gt's API has no password, so it listens at 127.0.0.1; another private address will do",
            ),
        };
        api.notes.push(Note::about(kind, vec![leaf], why));
    }
    options.push(api);
    let (cert, key) = (
        source.text("webServer.tls.certFile"),
        source.text("webServer.tls.keyFile"),
    );
    let setting = |key: &str, taken: Option<Taken>| taken.map(|it| Setting::text(key, it.text));
    options.extend(setting("apiCertFile", cert));
    options.extend(setting("apiKeyFile", key));
    let why = "gt's API has no password, and pages for programs alone: /status, /clients, /metrics";
    source.tell(&[("webServer", Fate::Lost(why))]);
}
