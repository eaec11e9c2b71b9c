//! A yaml file as a tree that keeps every scalar's own text, and the reading of typed sections from
//! it. Not what the keys mean.
//!
//! `secret: 012345` must stay `012345` and `remote:` may be one value or a list. serde_yaml gives
//! either the shape (and then `0x10` is 16) or the text (and then the shape must be known), so the
//! file is gone through twice: once for the shape, once for the text. All of it takes a time that
//! is linear in the size of the file: a server may have tens of thousands of users.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

/// A place in a file, counted in nodes.
type Mark = usize;

/// The key that brings the keys of other sections into its own (<https://yaml.org/type/merge.html>).
const MERGE: &str = "<<";

/// One yaml value.
#[derive(Debug)]
pub struct Node {
    mark: Mark,
    pub(super) kind: Kind,
}

/// What a value is.
#[derive(Debug)]
pub(super) enum Kind {
    Null,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// A key that nothing asked for, as a path such as `options.host`.
#[derive(Clone, Debug, PartialEq)]
pub struct Unknown {
    /// Where it stands.
    pub path: String,
    mark: Mark,
}

/// The keys that none of several readings of one section has asked for.
pub fn unknown_to_all<const N: usize>(readings: [Vec<Unknown>; N]) -> Vec<Unknown> {
    let mut counts: HashMap<Mark, usize> = HashMap::new();
    for key in readings.iter().flatten() {
        *counts.entry(key.mark).or_default() += 1;
    }
    let mut keys: Vec<Unknown> = readings.into_iter().next().unwrap_or_default();
    keys.retain(|key| counts.get(&key.mark) == Some(&N));
    keys
}

/// What is wrong with a file, and where.
#[derive(Debug)]
pub struct Fault {
    path: String,
    mark: Option<Mark>,
    message: String,
}

/// A whole file.
#[derive(Debug)]
pub struct Tree {
    text: String,
    root: Node,
}

impl Tree {
    /// Takes a file's text. The error is the text again and `line N: what is wrong`.
    pub fn parse(text: String) -> Result<Self, (String, String)> {
        let mut root = match walk(&text, &mut Task::Fill) {
            Ok(root) => root,
            Err(error) => return Err((text, sentence(&error))),
        };
        match root.merge() {
            Ok(()) => Ok(Tree { text, root }),
            Err(Fault { mark, message, .. }) => {
                let message = at_line(line(&text, mark), &message);
                Err((text, message))
            }
        }
    }

    /// The text it was made of.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is a section of keys, as it has to be, or empty.
    pub fn has_keys(&self) -> bool {
        matches!(self.root.kind, Kind::Map(_) | Kind::Null)
    }

    /// The keys of the section at `path`, in order; none if there is no such section.
    pub fn keys(&self, path: &[&str]) -> Vec<&str> {
        match self.node(path).map(|node| &node.kind) {
            Some(Kind::Map(entries)) => entries.iter().map(|(key, _)| key.as_str()).collect(),
            _ => Vec::new(),
        }
    }

    /// Reads the section at `path`, and the keys in it that `T` does not know.
    /// A section that is not there reads like an empty one.
    pub fn read<'t, T: Deserialize<'t>>(
        &'t self,
        path: &[&str],
    ) -> Result<(T, Vec<Unknown>), String> {
        let nothing = Node {
            mark: 0,
            kind: Kind::Null,
        };
        let node = self.node(path).unwrap_or(&nothing);
        let unknown = RefCell::new(Vec::new());
        let at = At {
            node,
            path: path.join("."),
            unknown: &unknown,
        };
        match T::deserialize(at) {
            Ok(value) => Ok((value, unknown.into_inner())),
            Err(Fault {
                path,
                mark,
                message,
            }) => {
                let path = if path.is_empty() { path } else { path + ": " };
                let message = format!("{path}{message}");
                Err(at_line(line(&self.text, mark), &message))
            }
        }
    }

    /// The lines that unknown keys stand on, in their order. Reads the file once for all of them.
    pub fn lines_of(&self, unknown: &[Unknown]) -> Vec<Option<usize>> {
        let mut task = Task::FindLines {
            wanted: unknown.iter().map(|key| key.mark).collect(),
            found: HashMap::new(),
        };
        // It was read before, so there is nothing wrong with it.
        let _ = walk(&self.text, &mut task);
        match task {
            Task::FindLines { found, .. } => {
                let line = |key: &Unknown| found.get(&key.mark).copied();
                unknown.iter().map(line).collect()
            }
            Task::Fill | Task::StopAt(_) => Vec::new(),
        }
    }

    /// The value at `path`, if there is one.
    pub(crate) fn node(&self, path: &[&str]) -> Option<&Node> {
        path.iter()
            .try_fold(&self.root, |node, key| match &node.kind {
                Kind::Map(entries) => entries
                    .iter()
                    .find(|(name, _)| name == key)
                    .map(|(_, node)| node),
                _ => None,
            })
    }
}

/// A message with the line it is about, if that is known, in front.
fn at_line(line: Option<usize>, message: &str) -> String {
    match line {
        Some(line) => format!("line {line}: {message}"),
        None => message.to_owned(),
    }
}

/// The line that a value begins on. serde_yaml tells a place only in an error, so this reads up to
/// there and fails.
fn line(text: &str, mark: Option<Mark>) -> Option<usize> {
    let error = walk(text, &mut Task::StopAt(mark?)).err()?;
    Some(error.location()?.line())
}

impl Node {
    /// The text of a value, or the texts of a list.
    pub(crate) fn texts(&self) -> Vec<&str> {
        match &self.kind {
            Kind::Text(text) => vec![text],
            Kind::List(nodes) => nodes.iter().flat_map(Node::texts).collect(),
            Kind::Null | Kind::Map(_) => Vec::new(),
        }
    }

    /// Replaces merge keys by what they bring, here and further in. A section's own keys win over
    /// those it merges, and earlier merged sections over later ones.
    fn merge(&mut self) -> Result<(), Fault> {
        match &mut self.kind {
            Kind::Null | Kind::Text(_) => {}
            Kind::List(nodes) => nodes.iter_mut().try_for_each(Node::merge)?,
            Kind::Map(entries) => {
                entries.iter_mut().try_for_each(|(_, node)| node.merge())?;
                if let Some(at) = entries.iter().position(|(key, _)| key == MERGE) {
                    let (_, merged) = entries.remove(at);
                    let merged = merged.into_sections()?;
                    let mut known: HashSet<String> =
                        entries.iter().map(|(key, _)| key.clone()).collect();
                    let new = merged.filter(|(key, _)| known.insert(key.clone()));
                    entries.extend(new);
                }
            }
        }
        Ok(())
    }

    /// The entries of the section, or of the list of sections, that is the value of a merge key.
    fn into_sections(self) -> Result<impl Iterator<Item = (String, Node)>, Fault> {
        let sections = match self.kind {
            Kind::List(nodes) => nodes,
            _ => vec![self],
        };
        let entries = |node: Node| match node.kind {
            Kind::Map(entries) => Ok(entries),
            _ => Err(Fault {
                path: String::new(),
                mark: Some(node.mark),
                message: "the merge key << takes a section or a list of sections, like <<: *name \
                          where another section is marked &name."
                    .to_owned(),
            }),
        };
        let sections: Result<Vec<_>, Fault> = sections.into_iter().map(entries).collect();
        Ok(sections?.into_iter().flatten())
    }
}

/// serde_yaml's message, the line in front.
fn sentence(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    match error.location() {
        Some(place) => {
            let (line, column) = (place.line(), place.column());
            let text = text.replace(&format!(" at line {line} column {column}"), "");
            format!("line {line}: {text}.")
        }
        // The one thing wrong with a file as a whole.
        None if text.contains("more than one document") => {
            "this is more than one document: only one is read, so take the line --- out.".to_owned()
        }
        None => format!("{text}."),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Shape)
    }
}

/// The first time through: what is a list, what is a section, what is a value.
struct Shape;

fn value<E>() -> Result<Node, E> {
    Ok(Node {
        mark: 0,
        kind: Kind::Text(String::new()),
    })
}

impl<'de> Visitor<'de> for Shape {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a section")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node {
            mark: 0,
            kind: Kind::Null,
        })
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node {
            mark: 0,
            kind: Kind::Null,
        })
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        value()
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        value()
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        value()
    }

    fn visit_i128<E>(self, _: i128) -> Result<Node, E> {
        value()
    }

    fn visit_u128<E>(self, _: u128) -> Result<Node, E> {
        value()
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        value()
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        value()
    }

    fn visit_enum<A: de::EnumAccess<'de>>(self, _: A) -> Result<Node, A::Error> {
        let message = "this has a tag (!name), and no option takes one";
        Err(de::Error::custom(message))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = access.next_element()? {
            nodes.push(node);
        }
        Ok(Node {
            mark: 0,
            kind: Kind::List(nodes),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        while let Some(key) = access.next_key::<String>()? {
            entries.push((key, access.next_value()?));
        }
        // Sorted, since a section may have tens of thousands of keys.
        let mut keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_str()).collect();
        keys.sort_unstable();
        if let Some([key, _]) = keys.windows(2).find(|pair| pair.first() == pair.last()) {
            return Err(de::Error::custom(format!(
                "the key \"{key}\" stands twice in one section"
            )));
        }
        Ok(Node {
            mark: 0,
            kind: Kind::Map(entries),
        })
    }
}

/// What the second time through is for.
enum Task {
    /// Each value's text, as it was written.
    Fill,
    /// Fails at this node.
    StopAt(Mark),
    /// The lines that the keys of these nodes stand on.
    FindLines {
        wanted: HashSet<Mark>,
        found: HashMap<Mark, usize>,
    },
}

/// Goes through a file twice: for the shape of its tree, which is returned, and for the task.
fn walk(text: &str, task: &mut Task) -> Result<Node, serde_yaml::Error> {
    #[cfg(test)]
    tests::WALKS.with(|walks| walks.set(walks.get() + 1));
    let mut root: Node = serde_yaml::from_str(text)?;
    let walk = Walk {
        node: &mut root,
        count: &mut 0,
        task,
    };
    walk.deserialize(serde_yaml::Deserializer::from_str(text))?;
    Ok(root)
}

/// A node, on the second time through.
struct Walk<'a> {
    node: &'a mut Node,
    /// The nodes that come before it.
    count: &'a mut Mark,
    task: &'a mut Task,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.node.mark = *self.count;
        *self.count = self.count.saturating_add(1);
        if matches!(self.task, Task::StopAt(mark) if *mark == self.node.mark) {
            return deserializer.deserialize_any(Stop);
        }
        match self.node.kind {
            Kind::Null => deserializer.deserialize_ignored_any(IgnoredAny).map(|_| ()),
            Kind::Text(_) => deserializer.deserialize_str(self),
            Kind::List(_) => deserializer.deserialize_seq(self),
            Kind::Map(_) => deserializer.deserialize_map(self),
        }
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the same as before")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if matches!(self.task, Task::Fill) {
            self.node.kind = Kind::Text(text.to_owned());
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        if let Kind::List(nodes) = &mut self.node.kind {
            for node in nodes {
                access.next_element_seed(Walk {
                    node,
                    count: self.count,
                    task: self.task,
                })?;
            }
        }
        // serde_yaml wants to be asked until it says that there is no more.
        access.next_element::<IgnoredAny>().map(|_| ())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        if let Kind::Map(entries) = &mut self.node.kind {
            for (_, node) in entries {
                match self.task {
                    Task::FindLines { wanted, found } if wanted.contains(self.count) => {
                        let line = access.next_key_seed(Line)?.flatten();
                        found.extend(line.map(|line| (*self.count, line)));
                    }
                    _ => {
                        access.next_key::<IgnoredAny>()?;
                    }
                }
                access.next_value_seed(Walk {
                    node,
                    count: self.count,
                    task: self.task,
                })?;
            }
        }
        access.next_key::<IgnoredAny>().map(|_| ())
    }
}

/// Reads past a key and returns its line. serde_yaml has gone past the key by the time it makes the
/// error, so the reading can go on; the line is in the error's text.
struct Line;

impl<'de> DeserializeSeed<'de> for Line {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let Err(error) = deserializer.deserialize_str(Stop) else {
            return Ok(None);
        };
        let text = error.to_string();
        let line = text.rsplit_once(" at line ").and_then(|(_, rest)| {
            let (line, _) = rest.split_once(' ')?;
            line.parse().ok()
        });
        // The very beginning of a file is left out of the text.
        Ok(Some(line.unwrap_or(1)))
    }
}

/// Accepts nothing.
struct Stop;

impl Visitor<'_> for Stop {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Fault {
            path: String::new(),
            mark: None,
            message: message.to_string(),
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format_args!("the key {field} is missing here."))
    }
}

/// A node on its way into a typed section.
#[derive(Clone)]
struct At<'a> {
    node: &'a Node,
    path: String,
    unknown: &'a RefCell<Vec<Unknown>>,
}

impl<'a> At<'a> {
    fn key(&self, key: &str, node: &'a Node) -> Self {
        let path = if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        };
        At {
            node,
            path,
            unknown: self.unknown,
        }
    }

    fn index(&self, index: usize, node: &'a Node) -> Self {
        At {
            node,
            path: format!("{}[{index}]", self.path),
            unknown: self.unknown,
        }
    }

    /// Names the place, unless a place further in is named already.
    fn named<T>(self, result: Result<T, Fault>) -> Result<T, Fault> {
        result.map_err(|fault| match fault.mark {
            Some(_) => fault,
            None => Fault {
                path: self.path,
                mark: Some(self.node.mark),
                ..fault
            },
        })
    }

    fn wrong<T>(self, wanted: &str) -> Result<T, Fault> {
        let found = match self.node.kind {
            Kind::Null => "nothing",
            Kind::Text(_) => "a single value",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a section of keys",
        };
        self.named(Err(de::Error::custom(format!(
            "this is {found}, but must be {wanted}."
        ))))
    }
}

impl<'de, 'a> Deserializer<'de> for At<'a> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.kind {
            Kind::Null => visitor.visit_unit(),
            Kind::Text(_) => self.deserialize_str(visitor),
            Kind::List(_) => self.deserialize_seq(visitor),
            Kind::Map(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.kind {
            Kind::Text(text) => {
                let result = visitor.visit_str(text);
                self.named(result)
            }
            _ => self.wrong("a single value"),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.kind {
            Kind::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    /// One value is a list of one.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.kind {
            Kind::Null => visitor.visit_seq(Elements {
                of: &self,
                nodes: [].iter(),
                next: None,
            }),
            Kind::List(nodes) => visitor.visit_seq(Elements {
                of: &self,
                nodes: nodes.iter(),
                next: Some(0),
            }),
            _ => visitor.visit_seq(Elements {
                of: &self,
                nodes: std::slice::from_ref(self.node).iter(),
                next: None,
            }),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let entries: &[(String, Node)] = match &self.node.kind {
            Kind::Null => &[],
            Kind::Map(entries) => entries,
            _ => return self.wrong("a section of keys"),
        };
        let result = visitor.visit_map(Entries {
            of: &self,
            entries: entries.iter(),
            value: None,
        });
        self.named(result)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    /// `()` stands for a section that somebody else reads.
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    /// Only keys that are not fields come here.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.unknown.borrow_mut().push(Unknown {
            mark: self.node.mark,
            path: self.path,
        });
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char string bytes byte_buf unit_struct
        newtype_struct tuple tuple_struct enum identifier
    }
}

struct Elements<'a, 'b> {
    of: &'b At<'a>,
    nodes: std::slice::Iter<'a, Node>,
    /// `None` where the value stands for a list of one and has no index.
    next: Option<usize>,
}

impl<'de> SeqAccess<'de> for Elements<'_, '_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some(node) = self.nodes.next() else {
            return Ok(None);
        };
        let at = match self.next {
            Some(index) => self.of.index(index, node),
            None => At {
                node,
                ..self.of.clone()
            },
        };
        self.next = self.next.map(|index| index.saturating_add(1));
        seed.deserialize(at).map(Some)
    }
}

struct Entries<'a, 'b> {
    of: &'b At<'a>,
    entries: std::slice::Iter<'a, (String, Node)>,
    value: Option<(&'a str, &'a Node)>,
}

impl<'de> MapAccess<'de> for Entries<'_, '_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let Some((key, node)) = self.entries.next() else {
            return Ok(None);
        };
        self.value = Some((key, node));
        seed.deserialize(de::value::StrDeserializer::<Fault>::new(key))
            .map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        match self.value.take() {
            Some((key, node)) => seed.deserialize(self.of.key(key, node)),
            None => Err(de::Error::custom("a value was asked for before its key.")),
        }
    }
}

/// The keys that `T`, a struct, knows.
pub fn fields<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    // It always fails, as soon as it has said what it wants.
    let _ = T::deserialize(Ask(&mut fields));
    fields
}

struct Ask<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Ask<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Fault> {
        Err(de::Error::custom("only the fields were asked for"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::cell::Cell;
    use std::collections::BTreeMap;

    thread_local! {
        /// How often this thread has gone through a file.
        pub static WALKS: Cell<usize> = const { Cell::new(0) };
    }

    /// A user with one key that is known.
    #[derive(Deserialize)]
    struct Entry {
        #[allow(dead_code)]
        secret: (),
    }

    #[test]
    fn the_lines_of_any_number_of_unknown_keys_take_one_more_reading() {
        for users in [1, 1_000] {
            let text: String = (0..users)
                .map(|n| format!("user{n}:\n  secret: s\n  # speed\n  sped:\n    - 1\n"))
                .collect();
            let before = WALKS.get();
            let tree = Tree::parse(text).unwrap();
            let (entries, unknown): (BTreeMap<String, Entry>, _) = tree.read(&[]).unwrap();
            assert_eq!((entries.len(), unknown.len()), (users, users));
            let lines = tree.lines_of(&unknown);
            assert_eq!(WALKS.get() - before, 2, "{users} users");
            let expected: Vec<_> = (0..users).map(|n| Some(5 * n + 4)).collect();
            assert_eq!(lines, expected);
        }
    }
}
