//! The formats of other programs' files, told apart by their content: TOML, INI, YAML and JSON. Not the
//! meaning of the keys.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use toml::de::{DeString, DeTable, DeValue};

use super::ini;
use super::template;
use super::tree::{Leaf, Node, NodeKind, Place};
use crate::config::yaml::{self, YamlTree};

/// Maximum number of values in a file, those of its aliases counted each time.
const MAX_VALUES: usize = 200_000;
/// Maximum number of bytes of the values in a file, those of its aliases counted each time.
const MAX_BYTES: usize = 4 << 20;

/// A format of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// TOML.
    Toml,
    /// The INI format that frp had before version 0.52.
    Ini,
    /// YAML.
    Yaml,
    /// JSON.
    Json,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Toml => "TOML",
            Format::Ini => "INI",
            Format::Yaml => "YAML",
            Format::Json => "JSON",
        })
    }
}

/// A file that was read.
pub struct Parsed {
    /// The format that it turned out to have.
    pub format: Format,
    /// Its settings.
    pub root: Node,
    /// Lines that are templates, without which the rest was read.
    pub templates: Vec<Leaf>,
}

/// Reads the text of a file. The error is a sentence, with the line in front if it is known.
pub fn read(text: &str) -> Result<Parsed, String> {
    let is_empty = |line: &str| line.is_empty() || line.starts_with(['#', ';']);
    if text.lines().all(|line| is_empty(line.trim())) {
        return Err("it is empty".to_owned());
    }
    let format = format_of(text);
    let (text, templates) = match format {
        Format::Toml | Format::Yaml => template::without(text),
        Format::Ini => template::without_lines(text),
        Format::Json => (text.to_owned(), Vec::new()),
    };
    let root = match format {
        Format::Toml => toml(&text),
        Format::Ini => Ok(ini::read(&text)?),
        Format::Yaml => yaml(text),
        Format::Json => json(&text),
    };
    let root = root.map_err(|why| format!("{why} (read as {format})"))?;
    match root.kind {
        NodeKind::Map(_) => Ok(Parsed {
            format,
            root,
            templates,
        }),
        _ => Err(format!("this is no section of keys (read as {format})")),
    }
}

/// Returns the format that the text has, or would have without its mistakes.
fn format_of(text: &str) -> Format {
    let is_content =
        |line: &&str| !line.is_empty() && !line.starts_with(['#', ';']) && !template::is_line(line);
    let mut lines = text.lines().map(str::trim).filter(is_content);
    let Some(first) = lines.next() else {
        return Format::Yaml;
    };
    if first.starts_with('{') {
        return Format::Json;
    }
    let is_section = ini::section(first).is_some() || first.starts_with("[[");
    if !is_section && ini::setting(first).is_none() {
        return Format::Yaml;
    }
    let is_common = |line: &str| ini::section(line) == Some("common");
    if is_common(first) || lines.clone().any(is_common) {
        return Format::Ini;
    }
    // A list in YAML may begin like a section.
    if ini::setting(first).is_none() && !lines.clone().any(|line| ini::setting(line).is_some()) {
        return match first.starts_with("[[") || text.lines().all(|line| ini::is_line(line.trim())) {
            true => Format::Toml,
            false => Format::Yaml,
        };
    }
    // An INI file without [common], which another one includes, has values that TOML would quote.
    let is_rathole = |line: &str| {
        let name = ini::section(line).unwrap_or_default();
        let name = name.split_once('.').map_or(name, |(name, _)| name);
        ["client", "server"].contains(&name)
    };
    let all_ini = is_section
        && !text.lines().any(|line| is_rathole(line.trim()))
        && text.lines().all(|line| ini::is_line(line.trim()));
    let (without, _) = template::without(text);
    match all_ini && DeTable::parse(&without).is_err() {
        true => Format::Ini,
        false => Format::Toml,
    }
}

/// Reads TOML.
fn toml(text: &str) -> Result<Node, String> {
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map(|span| line_at(text, span.start));
        at_line(line, error.message())
    })?;
    let lines = Lines::new(text);
    let mut root = Node::of_file(NodeKind::Null);
    root.kind = toml_table(table.into_inner(), &root, &lines);
    Ok(root)
}

fn toml_table(table: DeTable<'_>, of: &Node, lines: &Lines) -> NodeKind {
    let mut entries: Vec<_> = table.into_iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let entry = |(key, value): (toml::Spanned<DeString<'_>>, toml::Spanned<DeValue<'_>>)| {
        let line = lines.of(key.span().start);
        let key = key.into_inner().into_owned();
        let place = Place::key(Some(of.place()), &key, Some(line));
        (key, toml_value(value.into_inner(), place, lines))
    };
    NodeKind::Map(entries.into_iter().map(entry).collect())
}

fn toml_value(value: DeValue<'_>, place: Rc<Place>, lines: &Lines) -> Node {
    let mut node = Node::new(place, NodeKind::Null);
    node.kind = match value {
        DeValue::String(text) => NodeKind::Text(text.into_owned()),
        DeValue::Integer(number) => {
            let decimal = i64::from_str_radix(number.as_str(), number.radix());
            let text = decimal.map_or_else(|_| number.to_string(), |number| number.to_string());
            NodeKind::Text(text)
        }
        DeValue::Float(number) => NodeKind::Text(number.to_string()),
        DeValue::Boolean(flag) => NodeKind::Text(flag.to_string()),
        DeValue::Datetime(date) => NodeKind::Text(date.to_string()),
        DeValue::Array(values) => {
            let element = |(index, value): (usize, toml::Spanned<DeValue<'_>>)| {
                let line = lines.of(value.span().start);
                let place = Place::index(node.place(), index, Some(line));
                toml_value(value.into_inner(), place, lines)
            };
            NodeKind::List(values.into_iter().enumerate().map(element).collect())
        }
        DeValue::Table(table) => toml_table(table, &node, lines),
    };
    node
}

/// The places of the line breaks of a text.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(breaks.map(|(at, _)| at).collect())
    }

    /// Returns the number of the line at a place, from 1 on.
    fn of(&self, at: usize) -> usize {
        self.0.partition_point(|end| *end < at).saturating_add(1)
    }
}

fn line_at(text: &str, at: usize) -> usize {
    Lines::new(text).of(at)
}

fn at_line(line: Option<usize>, why: &str) -> String {
    match line {
        Some(line) => format!("line {line}: {why}"),
        None => why.to_owned(),
    }
}

/// Reads YAML by gt's own reader, which keeps the text of values.
fn yaml(text: String) -> Result<Node, String> {
    let budget = Budget::default();
    // What is no YAML is told by the second reading.
    let _ = Count(&budget).deserialize(serde_yaml::Deserializer::from_str(&text));
    if budget.is_spent.get() {
        return Err(format!(
            "there are more than {MAX_VALUES} values or {MAX_BYTES} bytes in it, those of aliases counted \
             each time; no configuration has as many"
        ));
    }
    let tree = YamlTree::parse(text).map_err(|(_, why)| why.trim_end_matches('.').to_owned())?;
    let Some(top) = tree.node(&[]) else {
        return Err("it is empty".to_owned());
    };
    let mut keys = Vec::new();
    add_keys(top, &mut keys);
    let mut lines = tree.lines_of(&keys).into_iter();
    let mut root = Node::of_file(NodeKind::Null);
    root.kind = yaml_kind(top, &root, &mut lines);
    Ok(root)
}

/// Collects the values of keys, in the order of [`yaml_kind`].
fn add_keys(node: &yaml::Node, keys: &mut Vec<yaml::Unknown>) {
    match &node.kind {
        yaml::NodeKind::Map(entries) => {
            for (_, node) in entries {
                keys.push(node.unknown(String::new()));
                add_keys(node, keys);
            }
        }
        yaml::NodeKind::List(nodes) => nodes.iter().for_each(|node| add_keys(node, keys)),
        yaml::NodeKind::Null | yaml::NodeKind::Text(_) => {}
    }
}

fn yaml_kind(
    node: &yaml::Node,
    of: &Node,
    lines: &mut impl Iterator<Item = Option<usize>>,
) -> NodeKind {
    match &node.kind {
        yaml::NodeKind::Null => NodeKind::Null,
        yaml::NodeKind::Text(text) => NodeKind::Text(text.clone()),
        yaml::NodeKind::List(nodes) => {
            let element = |(index, node): (usize, &yaml::Node)| {
                let place = Place::index(of.place(), index, None);
                let mut value = Node::new(place, NodeKind::Null);
                value.kind = yaml_kind(node, &value, lines);
                value
            };
            NodeKind::List(nodes.iter().enumerate().map(element).collect())
        }
        yaml::NodeKind::Map(entries) => {
            let entry = |(key, node): &(String, yaml::Node)| {
                let place = Place::key(Some(of.place()), key, lines.next().flatten());
                let mut value = Node::new(place, NodeKind::Null);
                value.kind = yaml_kind(node, &value, lines);
                (key.clone(), value)
            };
            NodeKind::Map(entries.iter().map(entry).collect())
        }
    }
}

/// Reads JSON.
fn json(text: &str) -> Result<Node, String> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let root = Node::of_file(NodeKind::Null);
    let kind = JsonValue(&root).deserialize(&mut reader);
    let read = kind.and_then(|kind| reader.end().map(|()| kind));
    let kind = read.map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let why = error.to_string();
        let why = why.replace(&format!(" at line {line} column {column}"), "");
        at_line((line > 0).then_some(line), &why)
    })?;
    Ok(Node::of_file(kind))
}

/// A value of JSON that is about to be read. Its place is that of the node.
struct JsonValue<'a>(&'a Node);

impl<'de> DeserializeSeed<'de> for JsonValue<'_> {
    type Value = NodeKind;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<NodeKind, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for JsonValue<'_> {
    type Value = NodeKind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<NodeKind, E> {
        Ok(NodeKind::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<NodeKind, E> {
        Ok(NodeKind::Text(flag.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<NodeKind, E> {
        Ok(NodeKind::Text(number.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<NodeKind, E> {
        Ok(NodeKind::Text(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<NodeKind, E> {
        Ok(NodeKind::Text(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<NodeKind, E> {
        Ok(NodeKind::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<NodeKind, A::Error> {
        let mut nodes = Vec::new();
        loop {
            let place = Place::index(self.0.place(), nodes.len(), None);
            let mut node = Node::new(place, NodeKind::Null);
            match access.next_element_seed(JsonValue(&node))? {
                Some(kind) => node.kind = kind,
                None => return Ok(NodeKind::List(nodes)),
            }
            nodes.push(node);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<NodeKind, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<String>()? {
            let place = Place::key(Some(self.0.place()), &key, None);
            let mut node = Node::new(place, NodeKind::Null);
            node.kind = access.next_value_seed(JsonValue(&node))?;
            entries.push((key, node));
        }
        Ok(NodeKind::Map(entries))
    }
}

/// What was found in a file so far.
#[derive(Default)]
struct Budget {
    values: Cell<usize>,
    bytes: Cell<usize>,
    is_spent: Cell<bool>,
}

/// Counts the values of a YAML file without storing them, since aliases can make many of few.
#[derive(Clone, Copy)]
struct Count<'a>(&'a Budget);

impl Count<'_> {
    fn add<E: de::Error>(self, bytes: usize) -> Result<(), E> {
        let values = self.0.values.get().saturating_add(1);
        let bytes = self.0.bytes.get().saturating_add(bytes);
        self.0.values.set(values);
        self.0.bytes.set(bytes);
        if values > MAX_VALUES || bytes > MAX_BYTES {
            self.0.is_spent.set(true);
            return Err(E::custom("too much"));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Count<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Count<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.add(0)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        self.add(0)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        self.add(0)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        self.add(0)
    }

    fn visit_i128<E: de::Error>(self, _: i128) -> Result<(), E> {
        self.add(0)
    }

    fn visit_u128<E: de::Error>(self, _: u128) -> Result<(), E> {
        self.add(0)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        self.add(0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.add(text.len())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        self.add(0)?;
        while access.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        self.add(0)?;
        while access.next_key_seed(self)?.is_some() {
            access.next_value_seed(self)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_told_by_the_content() {
        for (text, format) in [
            ("# x\nserverAddr = \"h\"\n", Format::Toml),
            ("[[proxies]]\nname = \"ssh\"\n", Format::Toml),
            ("[client]\nremote_addr = \"h:1\"\n", Format::Toml),
            ("[common]\nserver_port = 7000\n", Format::Ini),
            ("; x\n[ssh]\ntype = tcp\nlocal_port = 22\n", Format::Ini),
            ("serverAddr: h=1\n", Format::Yaml),
            ("---\n- a = b\n", Format::Yaml),
            ("[a, b]\n", Format::Yaml),
            ("", Format::Yaml),
            (" {\"serverAddr\": \"h\"}", Format::Json),
            (
                "{{- range $a }}\n[[proxies]]\nname = \"a\"\n{{- end }}",
                Format::Toml,
            ),
            ("serverAddr = {{ .Envs.A }}\n", Format::Toml),
        ] {
            assert_eq!(format_of(text), format, "{text}");
        }
    }

    #[test]
    fn every_format_gives_the_texts_of_values_and_their_lines() {
        for (text, line) in [
            ("auth.token = \"0x10\"\nserverPort = 7000\n", Some(2)),
            ("auth: {token: 0x10}\nserverPort: 7000\n", Some(2)),
            (
                "{\"auth\": {\"token\": \"0x10\"},\n\"serverPort\": 7000}",
                None,
            ),
        ] {
            let root = read(text).unwrap().root;
            assert_eq!(root.get("auth.token").unwrap().text(), Some("0x10"));
            let port = root.get("serverPort").unwrap();
            assert_eq!((port.text(), port.leaf().line()), (Some("7000"), line));
        }
    }

    #[test]
    fn an_error_names_the_line_and_the_format() {
        for (text, start, end) in [
            ("a = 1\nb = = 2\n", "line 2: ", "(read as TOML)"),
            ("a: 1\nb: [\n", "line ", "(read as YAML)"),
            ("{\"a\": 1,\n]", "line 2: ", "(read as JSON)"),
            ("[common]\na = 1\nwhat\n", "line 3: ", "(read as INI)"),
            ("- a\n", "this is no section", "(read as YAML)"),
        ] {
            let why = read(text).err().unwrap();
            assert!(why.starts_with(start) && why.ends_with(end), "{why}");
        }
    }

    #[test]
    fn aliases_cannot_make_much_of_little() {
        let many = format!("a: &a [{}]\n", "x,".repeat(1_000));
        let bomb = format!("{many}b: [{}]\n", "*a,".repeat(1_000));
        let long = format!(
            "a: &a {}\nb: [{}]\n",
            "x".repeat(100_000),
            "*a,".repeat(100)
        );
        for text in [bomb, long] {
            assert!(read(&text).err().unwrap().contains("values or"));
        }
        let few = format!("{many}b: [{}]\n", "*a,".repeat(10));
        assert!(read(&few).is_ok());
    }

    #[test]
    fn deep_nesting_is_an_error() {
        let deep = |open: &str, close: &str| open.repeat(10_000) + &close.repeat(10_000);
        for text in [
            format!("a = {}", deep("[", "]")),
            format!("a: {}", deep("[", "]")),
            format!("{{\"a\": {}}}", deep("[", "]")),
        ] {
            assert!(read(&text).is_err());
        }
    }
}
