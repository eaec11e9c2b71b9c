//! A client of frp (frpc) as a client of gt. Not its proxies: see `frpc_proxy`.

use std::collections::BTreeSet;

use super::draft::{Draft, Group, Note, NoteKind, Setting, Value};
use super::frp::{self, ID, UNKNOWN};
use super::frpc_proxy::{Hasher, Proxies};
use super::source::{Fate, Source, Taken};
use super::tree::{Node, NodeKind};
use crate::config::value::Scalar;
use crate::config::RoleName;
use crate::net::{self, ProxyServer};

/// Settings of a client that gt has no keys for.
const TOLD: &[(&str, Fate)] = &[
    (
        "auth.additionalScopes",
        Fate::Needless("gt proves the secret for every tunnel"),
    ),
    (
        "auth.oidc",
        Fate::Lost("gt knows clients by id and secret alone"),
    ),
    (
        "auth.tokenSource",
        Fate::Todo("write the token itself as secret"),
    ),
    ("clientID", Fate::Needless("gt knows clients by id")),
    (
        "dnsServer",
        Fate::Lost("gt asks the resolver of the system"),
    ),
    (
        "includes",
        Fate::Todo("use gt import on each of these files, and add their services here"),
    ),
    ("loginFailExit", Fate::Needless("gt always tries again")),
    ("metadatas", Fate::Lost("gt has no metadata of clients")),
    (
        "natHoleStunServer",
        Fate::Lost("for P2P, set remoteSTUN to gt's server (docs/p2p.md)"),
    ),
    (
        "transport.dialServerKeepalive",
        Fate::Needless("gt pings its server itself"),
    ),
    (
        "transport.dialServerTimeout",
        Fate::Needless("gt has a limit of its own"),
    ),
    (
        "transport.heartbeatInterval",
        Fate::Needless("gt pings twice in each remoteTimeout"),
    ),
    (
        "transport.poolCount",
        Fate::Needless("visitors share up to remoteConnections (3) tunnels"),
    ),
    (
        "transport.quic",
        Fate::Needless("QUIC needs no settings here"),
    ),
    (
        "transport.tcpMux",
        Fate::Needless("visitors always share tunnels"),
    ),
    (
        "transport.tcpMuxKeepaliveInterval",
        Fate::Needless("gt pings its server itself"),
    ),
    (
        "transport.tls.certFile",
        Fate::Lost("gt's clients prove themselves by id and secret"),
    ),
    (
        "transport.tls.disableCustomTLSFirstByte",
        Fate::Needless("gt's tls:// is plain TLS"),
    ),
    (
        "transport.tls.keyFile",
        Fate::Lost("gt's clients prove themselves by id and secret"),
    ),
    ("udpPacketSize", Fate::Needless("gt has no such limit")),
    (
        "webServer",
        Fate::Lost("gt's client has no web page; use gt -s reload, and its log"),
    ),
];

/// How to encrypt a tunnel.
const ENCRYPTION: &str = "the tunnel is not encrypted: frp encrypts it, without a check of the server, unless \
                          transport.tls.enable is false. For gt, give the server a certificate (tlsAddr, \
                          certFile, keyFile), and write remote: tls://HOST:PORT here, and remoteCert if the \
                          certificate is self-signed";

/// Converts the file of a client.
pub fn convert(root: Node, hash: Hasher) -> Draft {
    let mut source = Source::new(root);
    let mut options = Vec::new();
    remote(&mut source, &mut options);
    way_out(&mut source, &mut options);
    identity(&mut source, &mut options);
    if let Some(Taken { text, leaf }) = source.text("transport.heartbeatTimeout") {
        match crate::config::value::digits(&text) {
            Some(seconds) if seconds > 0 => {
                options.push(Setting::text("remoteTimeout", format!("{seconds}s")));
            }
            _ => source.note(NoteKind::Lost, leaf, "gt always watches its tunnels"),
        }
    }
    options.extend(frp::log(&mut source));
    source.tell(TOLD);

    let services = services(&mut source, hash);
    let options = Group {
        settings: options,
        notes: source.finish(UNKNOWN),
        ..Group::default()
    };
    Draft {
        role: RoleName::Client,
        body: Group {
            settings: vec![
                Setting::text("type", "client"),
                services,
                Setting::new("options", Value::Section(options)),
            ],
            ..Group::default()
        },
    }
}

/// Converts the proxies and visitors.
fn services(source: &mut Source, hash: Hasher) -> Setting {
    let started = source.has("start").then(|| {
        let mut names = BTreeSet::new();
        for Taken { text, leaf } in source.texts("start") {
            let why = "services of proxies that are not in this list stand in comments";
            source.note(NoteKind::Needless, leaf, why);
            names.insert(text);
        }
        names
    });
    let mut proxies = Proxies::new(hash, started);
    for key in ["proxies", "visitors"] {
        let Some(list) = source.take(key) else {
            continue;
        };
        let NodeKind::List(nodes) = list.kind else {
            source
                .notes
                .push(Note::new(NoteKind::Lost, &list, "a list belongs here"));
            continue;
        };
        for node in nodes {
            match key {
                "proxies" => proxies.add(node),
                _ => proxies.add_visitor(node),
            }
        }
    }
    let (groups, notes) = proxies.finish();
    let mut services = Setting::new("services", Value::Groups(groups));
    services.notes = notes;
    services
}

/// Converts the address of the server.
fn remote(source: &mut Source, options: &mut Vec<Setting>) {
    let mut notes = Vec::new();
    if let Some(Taken { text, leaf }) = source.text("transport.protocol") {
        let note = |kind, why: &str| Note::about(kind, vec![leaf], why);
        notes.push(match text.as_str() {
            "tcp" => note(NoteKind::Needless, "gt's tunnels are TCP"),
            _ => note(
                NoteKind::Lost,
                "gt's tunnels are TCP or TLS: the port of remote must be one that gt's server listens on",
            ),
        });
    }
    let authority = source.text("transport.tls.trustedCaFile");
    let enabled = source.text("transport.tls.enable");
    let is_off = enabled
        .as_ref()
        .is_some_and(|enabled| enabled.text == "false");
    let is_tls = authority.is_some() && !is_off;
    if let Some(Taken { leaf, .. }) = enabled {
        let (kind, why) = match (is_tls, is_off) {
            (true, _) => (NoteKind::Needless, "it is the tls:// of remote"),
            (false, true) => (NoteKind::Needless, "remote is tcp://"),
            (false, false) => (NoteKind::Todo, ENCRYPTION),
        };
        notes.push(Note::about(kind, vec![leaf], why));
    } else if !is_tls {
        notes.push(Note::todo(ENCRYPTION));
    }
    let host = source.text("serverAddr");
    if let Some(Taken { text, leaf }) = source.text("transport.tls.serverName") {
        let is_same = host.as_ref().is_some_and(|host| host.text == text);
        let why = "gt checks the certificate for the host in remote: write this name there";
        let note = match is_same || !is_tls {
            true => (
                NoteKind::Needless,
                "gt checks the certificate for the host in remote",
            ),
            false => (NoteKind::Todo, why),
        };
        notes.push(Note::about(note.0, vec![leaf], note.1));
    }
    let port = source.port("serverPort").unwrap_or(frp::PORT);
    match host {
        Some(host) => {
            let scheme = if is_tls { "tls" } else { "tcp" };
            let remote = format!("{scheme}://{}", frp::host_port(&host.text, port));
            let mut remote = Setting::text("remote", remote);
            remote.notes.extend(notes);
            options.push(remote);
        }
        None => {
            let why = "the file has no serverAddr: write remote: tcp://HOST:PORT, the address of gt's server";
            source.notes.push(Note::todo(why));
            source.notes.extend(notes);
        }
    }
    if let Some(Taken { text, leaf }) = authority {
        match is_tls {
            true => options.push(Setting::text("remoteCert", text)),
            false => source.note(NoteKind::Needless, leaf, "remote is tcp://"),
        }
    }
}

/// Converts the proxy and the source address of the connection to the server.
fn way_out(source: &mut Source, options: &mut Vec<Setting>) {
    if let Some(Taken { text, leaf }) = source.text("transport.proxyURL") {
        match ProxyServer::read(&text) {
            Ok(_) => options.push(Setting::text("remoteProxy", text)),
            Err(_) => {
                let why = "gt's remoteProxy is an http:// or a socks5:// address";
                source.note(NoteKind::Lost, leaf, why);
            }
        }
    }
    if let Some(Taken { text, leaf }) = source.text("transport.connectServerLocalIP") {
        match net::LinkSource::read(&text) {
            Ok(_) => options.push(Setting::text("remoteBind", text)),
            Err(_) => source.note(NoteKind::Lost, leaf, "remoteBind is an address"),
        }
    }
}

/// Converts the name of the client and its token.
fn identity(source: &mut Source, options: &mut Vec<Setting>) {
    let user = source.text("user");
    let mut id = match user {
        Some(user) => Setting::text("id", user.text),
        None => Setting::text("id", ID),
    };
    let why = "each client needs an id of its own, which stands under users: of the server";
    id.notes.push(Note::hint(why));
    options.push(id);
    if let Some(Taken { text, leaf }) = source.text("auth.method") {
        match text.as_str() {
            "token" => source.note(NoteKind::Needless, leaf, "the token is the secret"),
            _ => source.note(
                NoteKind::Lost,
                leaf,
                "gt knows clients by id and secret alone",
            ),
        }
    }
    match source.text("auth.token") {
        Some(token) => options.push(Setting::text("secret", token.text)),
        None => source.notes.push(Note::todo(
            "there is no token: write a secret: here, the one of this id under users: of the server. Without \
             one, gt generates another secret at each start",
        )),
    }
}
