//! A configuration as one line for the log: every option with its value, without secrets. Made of
//! texts, not of parsed values.

use super::file::Document;
use super::layers::OptionName;
use super::secret::redact;
use super::value::Scalar;
use super::yaml::{Node, NodeKind};

/// The text that replaces a secret.
const MASK: &str = "******";
/// Options whose values are secrets.
const SECRETS: [&str; 7] = [
    "groupKey",
    "password",
    "private",
    "secret",
    "sentryDSN",
    "tcpForwardKey",
    "udpForwardKey",
];
/// Flags that are actions, not options.
const NO_OPTIONS: [&str; 3] = ["h", "s", "version"];
/// Sections of a file besides `options`.
const SECTIONS: [&str; 8] = [
    "admin",
    "services",
    "tcp",
    "tcpNumber",
    "udp",
    "udpNumber",
    "host",
    "users",
];
/// Keys of sections that are not options.
const KEYS: [&str; 7] = [
    "disabled", "domains", "from", "number", "range", "regex", "withID",
];
/// Maximum length of the line in bytes; a file may have thousands of users.
const MAX_LINE: usize = 16 * 1024;

/// Whether the option's value is a secret.
pub fn is_secret(name: &OptionName) -> bool {
    SECRETS.contains(&name.camel)
}

/// Whether the values of this key of a file are secrets.
#[cfg(feature = "web")]
pub fn is_secret_key(key: &str) -> bool {
    SECRETS.contains(&key)
}

/// A flag as it was written: name and value.
pub type FlagText<'a> = (&'a str, &'a str);

/// Returns the configuration as one line. `names` are the role's options, `services` the groups of
/// flags of several `-local`, which are not among `flags`.
pub fn summary(
    names: &[&OptionName],
    flags: &[FlagText<'_>],
    services: &[Vec<FlagText<'_>>],
    document: Option<&Document>,
) -> String {
    let mut json = JsonWriter(String::new());
    json.open('{');
    let section = |name: &str| document.and_then(|document| document.node(&[name]));
    for name in names
        .iter()
        .filter(|name| !NO_OPTIONS.contains(&name.camel))
    {
        let of_flags: Vec<&str> = flags
            .iter()
            .filter(|(flag, _)| *flag == name.camel)
            .map(|(_, value)| *value)
            .collect();
        let of_file = document.and_then(|document| document.node(&["options", name.camel]));
        let of_file = of_file.map(Node::texts).unwrap_or_default();
        let values = match (of_flags.is_empty(), name.camel) {
            (false, _) => of_flags,
            (true, "config") => Vec::new(),
            (true, _) => of_file,
        };
        // Tells the option from the section of the same name.
        let key = match section(name.camel) {
            Some(_) => format!("options.{}", name.camel),
            None => name.camel.to_owned(),
        };
        json.key(&key);
        json.option(name, &values);
    }
    if !services.is_empty() {
        json.key("services");
        json.open('[');
        for service in services {
            json.open('{');
            for (name, value) in service {
                json.key(name);
                json.text(value);
            }
            json.close('}');
        }
        if let Some(NodeKind::List(nodes)) = section("services").map(|node| &node.kind) {
            for node in nodes {
                json.node(node, names);
            }
        }
        json.close(']');
    }
    for name in SECTIONS {
        match section(name) {
            Some(node) if services.is_empty() || name != "services" => {
                json.key(name);
                if name == "users" {
                    json.users(node, names);
                } else {
                    json.node(node, names);
                }
            }
            _ => {}
        }
    }
    json.close('}');
    json.end()
}

/// A writer of JSON for people to read. Programs should not parse it: long lines are cut.
struct JsonWriter(String);

impl JsonWriter {
    fn open(&mut self, bracket: char) {
        self.separate();
        self.0.push(bracket);
    }

    fn close(&mut self, bracket: char) {
        self.0.push(bracket);
    }

    fn separate(&mut self) {
        if !self.0.is_empty() && !self.0.ends_with(['{', '[', ':']) {
            self.0.push(',');
        }
    }

    fn key(&mut self, key: &str) {
        self.quoted(key);
        self.0.push(':');
    }

    fn quoted(&mut self, text: &str) {
        self.separate();
        self.0.push('"');
        for c in text.chars() {
            match c {
                '"' | '\\' => self.0.extend(['\\', c]),
                c if c.is_control() => self.0.extend(c.escape_default()),
                c => self.0.push(c),
            }
        }
        self.0.push('"');
    }

    /// Writes a text. A URL is written without possible passwords and keys.
    fn text(&mut self, text: &str) {
        match text.contains("://") {
            true => self.quoted(&redact(text)),
            false => self.quoted(text),
        }
    }

    fn plain(&mut self, text: &str) {
        self.separate();
        self.0.push_str(text);
    }

    /// Writes the given values of an option, or its default, in the form of its kind.
    fn option(&mut self, name: &OptionName, values: &[&str]) {
        let secret = is_secret(name);
        let shown = |value| {
            if secret && !str::is_empty(value) {
                MASK
            } else {
                value
            }
        };
        if name.repeats && !values.is_empty() {
            self.open('[');
            for value in values {
                self.text(shown(value));
            }
            return self.close(']');
        }
        let value = match values.last() {
            Some(value) => shown(value),
            None => name.default,
        };
        match name.kind {
            "bool" => self.plain(match bool::read(value) {
                Ok(true) => "true",
                _ => "false",
            }),
            "uint" | "float" if value.is_empty() => self.plain("0"),
            "uint" | "float" if value.parse::<f64>().is_ok() => self.plain(value),
            "value" if value.is_empty() => self.plain("null"),
            _ => self.text(value),
        }
    }

    /// Writes a value. Of a section only known keys are written, since an unknown one may be a
    /// mistyped secret.
    fn node(&mut self, node: &Node, names: &[&OptionName]) {
        match &node.kind {
            NodeKind::Null => self.plain("null"),
            NodeKind::Text(text) => self.text(text),
            NodeKind::List(nodes) => {
                self.open('[');
                for node in nodes {
                    self.node(node, names);
                }
                self.close(']');
            }
            NodeKind::Map(entries) => {
                self.open('{');
                for (key, node) in entries {
                    let key = key.as_str();
                    let known = SECTIONS.contains(&key) || KEYS.contains(&key);
                    if SECRETS.contains(&key) {
                        self.key(key);
                        self.quoted(MASK);
                    } else if known || names.iter().any(|name| name.camel == key) {
                        self.key(key);
                        self.node(node, names);
                    }
                }
                self.close('}');
            }
        }
    }

    fn users(&mut self, node: &Node, names: &[&OptionName]) {
        self.open('{');
        if let NodeKind::Map(entries) = &node.kind {
            for (id, node) in entries {
                if self.0.len() > MAX_LINE {
                    break;
                }
                self.key(id);
                self.node(node, names);
            }
        }
        self.close('}');
    }

    fn end(mut self) -> String {
        if self.0.len() > MAX_LINE {
            let end = (0..=MAX_LINE).rev().find(|at| self.0.is_char_boundary(*at));
            self.0.truncate(end.unwrap_or(0));
            self.0.push('…');
        }
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::foreign::Content;
    use crate::config::secret::tests::URLS;

    #[test]
    fn a_url_prints_without_passwords() {
        let others = [
            ("^a://\\d", "^a://\\\\d"),
            ("say \"hi\"\n", "say \\\"hi\\\"\\n"),
        ];
        for (url, text) in URLS.into_iter().chain(others) {
            let mut json = JsonWriter(String::new());
            json.text(url);
            assert_eq!(json.0, format!("\"{text}\""));
        }
    }

    #[test]
    fn the_line_of_thousands_of_users_is_cut() {
        let users: String = (0..5_000)
            .map(|n| format!("  user{n}: {{secret: topsecret, pasword: topsecret}}\n"))
            .collect();
        let path = std::path::Path::new("gt.yaml");
        let document =
            Document::parse(path, format!("users:\n{users}"), Content::Configuration).unwrap();
        let line = summary(&[], &[], &[], Some(&document));
        assert!(line.starts_with("{\"users\":{\"user0\":{\"secret\":\"******\"},"));
        assert!(
            (MAX_LINE..MAX_LINE + 100).contains(&line.len()),
            "{}",
            line.len()
        );
        assert!(line.ends_with('…') && !line.contains("topsecret"));
    }
}
