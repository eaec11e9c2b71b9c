//! Files of the original GT as those of gt: the keys are the same, but for those of what gt does not have.

use super::draft::{Draft, Group, Note, NoteKind, Setting, Value};
use super::role::choose;
use super::tree::{Node, NodeKind};
use crate::config::{client, server, RoleName};

/// The sections at the top of a file.
const SECTIONS: &[&str] = &[
    "host",
    "options",
    "services",
    "tcp",
    "tcpNumber",
    "type",
    "udp",
    "udpNumber",
    "users",
    "version",
];
/// The keys of a user.
const OF_USERS: &[&str] = &[
    "connections",
    "domains",
    "from",
    "host",
    "secret",
    "speed",
    "tcp",
    "tcpNumber",
    "udp",
    "udpNumber",
];
/// The keys of `host:`.
const OF_HOST: &[&str] = &["number", "regex", "withID"];
/// The keys of an entry of `tcp:` and `udp:`.
const OF_PORTS: &[&str] = &["number", "range"];
/// Options that the original has and gt has not, by the beginning of their names in lower case.
const GONE: &[(&str, &str)] = &[
    ("host", "write the address into addr: addr: HOST:PORT"),
    ("openbbr", "write bbr: true"),
    ("web", "gt has no web administration"),
];

/// The kind of a section, which says what its keys are.
#[derive(Clone, Copy)]
enum Kind {
    Top,
    Options(RoleName),
    Service,
    Users,
    User,
    Host,
    Ports,
    /// A section that gt does not have.
    None,
}

impl Kind {
    /// Whether a key may stand in the section.
    fn has(self, key: &str) -> bool {
        match self {
            Kind::Top => SECTIONS.contains(&key),
            Kind::Options(RoleName::Client) => client::names().any(|name| name.camel == key),
            Kind::Options(RoleName::Server) => server::names().any(|name| name.camel == key),
            Kind::Service => client::service_names().iter().any(|name| name.camel == key),
            Kind::Users => true,
            Kind::User => OF_USERS.contains(&key),
            Kind::Host => OF_HOST.contains(&key),
            Kind::Ports => OF_PORTS.contains(&key),
            Kind::None => false,
        }
    }

    /// Returns the kind of the section at a key.
    fn at(self, key: &str, role: RoleName) -> Self {
        match (self, key) {
            (Kind::Top, "options") => Kind::Options(role),
            (Kind::Top, "services") => Kind::Service,
            (Kind::Top, "users") => Kind::Users,
            (Kind::Users, _) => Kind::User,
            (Kind::Top | Kind::User, "host") => Kind::Host,
            (Kind::Top | Kind::User, "tcp" | "udp") => Kind::Ports,
            _ => Kind::None,
        }
    }
}

/// Whether a file is one of the original GT, or of gt.
pub fn is_of(root: &Node) -> bool {
    root.keys()
        .any(|key| key != "version" && key != "type" && SECTIONS.contains(&key))
}

/// Whether a file has nothing but users with secrets.
pub fn is_of_users(root: &Node) -> bool {
    let NodeKind::Map(entries) = &root.kind else {
        return false;
    };
    let mut users = entries.iter();
    !entries.is_empty() && users.all(|(_, user)| user.get("secret").is_some())
}

/// Returns the role of a file, by its `type:` or its keys. The error is a sentence without its end.
pub fn role(root: &Node, asked: Option<RoleName>) -> Result<RoleName, String> {
    let named = match root.get("type").and_then(Node::text) {
        Some("client") => Some(RoleName::Client),
        Some("server") => Some(RoleName::Server),
        _ => None,
    };
    if let Some(named) = named {
        return choose(named == RoleName::Client, named == RoleName::Server, asked);
    }
    let options = || root.get("options").into_iter().flat_map(Node::keys);
    let is_client = |key| Kind::Options(RoleName::Client).has(key);
    let is_server = |key| Kind::Options(RoleName::Server).has(key);
    let client = root.get("services").is_some();
    let server = ["users", "tcp", "tcpNumber", "host"]
        .iter()
        .any(|key| root.get(key).is_some());
    choose(
        client || options().any(|key| is_client(key) && !is_server(key)),
        server || options().any(|key| is_server(key) && !is_client(key)),
        asked,
    )
}

/// Converts a file.
pub fn convert(mut root: Node, role: RoleName) -> Draft {
    // The role was read from it.
    root.take("type");
    let mut body = group(root, Kind::Top, role);
    let name = match role {
        RoleName::Client => "client",
        RoleName::Server => "server",
    };
    body.settings.insert(0, Setting::text("type", name));
    Draft { role, body }
}

fn group(node: Node, kind: Kind, role: RoleName) -> Group {
    let mut group = Group::default();
    let entries = match node.kind {
        NodeKind::Map(entries) => entries,
        _ => return group,
    };
    for (key, node) in entries {
        if matches!(node.kind, NodeKind::Null) {
            group
                .notes
                .push(Note::new(NoteKind::Needless, &node, "it is empty"));
            continue;
        }
        let is_role = match (kind, key.as_str()) {
            (Kind::Top, "services") => role == RoleName::Client,
            (Kind::Top, "users" | "tcp" | "tcpNumber" | "udp" | "udpNumber" | "host") => {
                role == RoleName::Server
            }
            _ => true,
        };
        if !is_role {
            let why = "this is for the other role";
            group.notes.push(Note::new(NoteKind::Lost, &node, why));
            continue;
        }
        if !kind.has(&key) {
            let lower = key.to_lowercase();
            let gone = GONE.iter().find(|(name, _)| lower.starts_with(name));
            let why = match (kind, gone) {
                (Kind::Options(_), Some((_, why))) => why,
                _ => "gt has no such key",
            };
            group.notes.push(Note::new(NoteKind::Lost, &node, why));
            continue;
        }
        if (matches!(kind, Kind::Top), key.as_str()) == (true, "version") {
            group
                .settings
                .extend(node.text().map(|text| Setting::text(&key, text)));
            continue;
        }
        match value(node, kind.at(&key, role), role) {
            Ok(value) => group.settings.push(Setting::new(&key, value)),
            Err(note) => group.notes.push(note),
        }
    }
    group
}

/// Converts a value. The error is the comment on one that cannot be carried.
fn value(node: Node, kind: Kind, role: RoleName) -> Result<Value, Note> {
    let is_list = |node: &Node| match &node.kind {
        NodeKind::List(nodes) => Some(nodes.iter().all(|node| node.text().is_some())),
        _ => None,
    };
    let texts = is_list(&node);
    let place = node.place().clone();
    match (node.kind, texts) {
        (NodeKind::Text(text), _) => Ok(Value::Text(text)),
        (NodeKind::List(nodes), Some(true)) => {
            let text = |node: &Node| node.text().unwrap_or_default().to_owned();
            Ok(Value::Texts(nodes.iter().map(text).collect()))
        }
        (NodeKind::List(nodes), _) if matches!(kind, Kind::Service | Kind::Ports) => {
            let groups = nodes.into_iter().map(|node| group(node, kind, role));
            Ok(Value::Groups(groups.collect()))
        }
        (NodeKind::Map(entries), _) if !matches!(kind, Kind::None) => {
            let node = Node::new(place, NodeKind::Map(entries));
            match kind {
                // A single one may stand without a list.
                Kind::Service => Ok(Value::Groups(vec![group(node, kind, role)])),
                _ => Ok(Value::Section(group(node, kind, role))),
            }
        }
        (other, _) => {
            let node = Node::new(place, other);
            Err(Note::new(
                NoteKind::Lost,
                &node,
                "gt reads no such value here",
            ))
        }
    }
}
