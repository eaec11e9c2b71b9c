//! A yaml file as a tree that keeps every scalar's own text, and the reading of typed sections from
//! it. Not the meaning of the keys.
//!
//! `secret: 012345` must stay `012345` and `remote:` may be one value or a list. serde_yaml gives
//! either the shape (and then `0x10` is 16) or the text (and then the shape must be known), so the
//! file is parsed twice: once for the shape, once for the text. The time is linear in the size of
//! the file, since a server may have tens of thousands of users.

use std::cell::RefCell;
use std::fmt;

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

/// The place of a node in a file: the number of nodes before it.
type Mark = usize;

/// The merge key, which copies the keys of other sections (<https://yaml.org/type/merge.html>).
const MERGE: &str = "<<";

/// The name of a text in messages.
const VALUE: &str = "a single value";
/// The name of a map in messages.
const SECTION: &str = "a section of keys";

/// A yaml value.
#[derive(Debug)]
pub struct Node {
    mark: Mark,
    pub(crate) kind: NodeKind,
}

/// The content of a yaml value.
#[derive(Debug)]
pub(crate) enum NodeKind {
    Null,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// An unknown key.
#[derive(Clone, Debug, PartialEq)]
pub struct Unknown {
    /// Path of the key, such as `options.host`.
    pub path: String,
    mark: Mark,
}

/// Returns the places of the keys, sorted.
fn marks(keys: &[Unknown]) -> Vec<Mark> {
    let mut marks: Vec<Mark> = keys.iter().map(|key| key.mark).collect();
    marks.sort_unstable();
    marks
}

/// An error in a file, and its place. Boxed, since the result of every value has room for one.
#[derive(Debug)]
pub struct YamlError(Box<Wrong>);

#[derive(Debug)]
struct Wrong {
    path: String,
    mark: Option<Mark>,
    message: String,
}

/// A parsed file.
#[derive(Debug)]
pub struct YamlTree {
    text: String,
    root: Node,
}

impl YamlTree {
    /// Parses the text of a file. The error is the text and a message with the line.
    pub fn parse(text: String) -> Result<Self, (String, String)> {
        let mut root = match walk(&text, &mut Task::Fill) {
            Ok(root) => root,
            Err(error) => return Err((text, sentence(&error))),
        };
        match root.merge() {
            Ok(()) => Ok(YamlTree { text, root }),
            Err(YamlError(wrong)) => {
                let message = at_line(line(&text, wrong.mark), &wrong.message);
                Err((text, message))
            }
        }
    }

    /// Returns the text of the file.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the file is a section of keys, or empty. Any other file is an error.
    pub fn has_keys(&self) -> bool {
        matches!(self.root.kind, NodeKind::Map(_) | NodeKind::Null)
    }

    /// Returns the keys of the section at `path`, in their order; none if there is no such section.
    pub fn keys(&self, path: &[&str]) -> Vec<&str> {
        match self.node(path).map(|node| &node.kind) {
            Some(NodeKind::Map(entries)) => entries.iter().map(|(key, _)| key.as_str()).collect(),
            _ => Vec::new(),
        }
    }

    /// Reads the section at `path`, and returns it with the keys that `T` does not know. A missing
    /// section is read as an empty one.
    pub fn read<'t, T: Deserialize<'t>>(
        &'t self,
        path: &[&str],
    ) -> Result<(T, Vec<Unknown>), String> {
        let nothing = Node {
            mark: 0,
            kind: NodeKind::Null,
        };
        let node = self.node(path).unwrap_or(&nothing);
        let unknown = RefCell::new(Vec::new());
        let path = path.join(".");
        match T::deserialize(At::only(&path, node, &unknown)) {
            Ok(value) => Ok((value, unknown.into_inner())),
            Err(error) => Err(self.sentence(&error)),
        }
    }

    /// Returns the message of an error, with its line and path.
    fn sentence(&self, YamlError(wrong): &YamlError) -> String {
        let Wrong { path, message, .. } = &**wrong;
        let colon = if path.is_empty() { "" } else { ": " };
        let message = format!("{path}{colon}{message}");
        at_line(line(&self.text, wrong.mark), &message)
    }

    /// Returns the keys and values of the section at `path`.
    pub fn entries<'t>(
        &'t self,
        path: &str,
        node: &'t Node,
    ) -> Result<&'t [(String, Node)], String> {
        match &node.kind {
            NodeKind::Null => Ok(&[]),
            NodeKind::Map(entries) => Ok(entries),
            _ => Err(self.sentence(&At::only(path, node, &RefCell::default()).wrong(SECTION))),
        }
    }

    /// Returns the text of the value at `path`, or the texts if it may be a `list`.
    pub fn texts<'t>(
        &'t self,
        path: &str,
        node: &'t Node,
        list: bool,
    ) -> Result<Vec<&'t str>, String> {
        let text = |path: &str, node: &'t Node| match &node.kind {
            NodeKind::Text(text) => Ok(text.as_str()),
            _ => Err(self.sentence(&At::only(path, node, &RefCell::default()).wrong(VALUE))),
        };
        match &node.kind {
            NodeKind::List(_) if list => {
                let nodes = node.elements(path).into_iter();
                nodes.map(|(path, node)| text(&path, node)).collect()
            }
            _ => text(path, node).map(|text| vec![text]),
        }
    }

    /// Returns the message about a wrong value at `path`; in a list, about the value at `index`.
    pub fn fault(&self, path: &str, node: &Node, index: usize, why: &str) -> String {
        let values = node.elements(path);
        let (path, mark) = match values.get(index) {
            Some((path, node)) => (path.as_str(), node.mark),
            None => (path, node.mark),
        };
        at_line(line(&self.text, Some(mark)), &format!("{path}: {why}"))
    }

    /// Returns the lines of unknown keys, in their order. Reads the file once for all of them.
    pub fn lines_of(&self, unknown: &[Unknown]) -> Vec<Option<usize>> {
        let mut task = Task::FindLines {
            wanted: marks(unknown),
            found: Vec::new(),
        };
        // The file was parsed before, so this cannot fail.
        let _ = walk(&self.text, &mut task);
        match task {
            Task::FindLines { found, .. } => {
                let line = |key: &Unknown| {
                    let at = found.binary_search_by_key(&key.mark, |(mark, _)| *mark);
                    found.get(at.ok()?).map(|(_, line)| *line)
                };
                unknown.iter().map(line).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Returns the value of the whole file.
    #[cfg(feature = "web")]
    pub(super) fn root(&self) -> &Node {
        &self.root
    }

    /// Returns the line and the column of each of these texts, from 1, in their order. Both are those of the
    /// text's first character, a quotation mark for example.
    #[cfg(feature = "web")]
    pub(super) fn places_of(&self, texts: &[&Node]) -> Vec<Option<(usize, usize)>> {
        let mut wanted: Vec<Mark> = texts.iter().map(|node| node.mark).collect();
        wanted.sort_unstable();
        let mut task = Task::FindTexts {
            wanted,
            found: Vec::new(),
        };
        // The file was parsed before, so this cannot fail.
        let _ = walk(&self.text, &mut task);
        let Task::FindTexts { found, .. } = task else {
            return Vec::new();
        };
        let place = |node: &&Node| {
            let at = found.binary_search_by_key(&node.mark, |(mark, _)| *mark);
            found.get(at.ok()?).map(|(_, place)| *place)
        };
        texts.iter().map(place).collect()
    }

    /// Returns the value at `path`, if there is one.
    pub(crate) fn node(&self, path: &[&str]) -> Option<&Node> {
        path.iter()
            .try_fold(&self.root, |node, key| match &node.kind {
                NodeKind::Map(entries) => entries
                    .iter()
                    .find(|(name, _)| name == key)
                    .map(|(_, node)| node),
                _ => None,
            })
    }
}

/// Puts the line, if it is known, before a message.
fn at_line(line: Option<usize>, message: &str) -> String {
    match line {
        Some(line) => format!("line {line}: {message}"),
        None => message.to_owned(),
    }
}

/// Returns the line on which a value begins. serde_yaml has places only in errors, so this reads up
/// to the value and fails there.
fn line(text: &str, mark: Option<Mark>) -> Option<usize> {
    let error = walk(text, &mut Task::StopAt(mark?)).err()?;
    Some(error.location()?.line())
}

impl Node {
    /// Returns the text of a value, or the texts of a list.
    pub(crate) fn texts(&self) -> Vec<&str> {
        match &self.kind {
            NodeKind::Text(text) => vec![text],
            NodeKind::List(nodes) => nodes.iter().flat_map(Node::texts).collect(),
            NodeKind::Null | NodeKind::Map(_) => Vec::new(),
        }
    }

    /// Whether the value is null.
    pub(super) fn is_null(&self) -> bool {
        matches!(self.kind, NodeKind::Null)
    }

    /// Describes this value as one of an unknown key.
    pub(crate) fn unknown(&self, path: String) -> Unknown {
        let mark = self.mark;
        Unknown { path, mark }
    }

    /// Returns the values of a list with their paths. Any other value is a list of one.
    pub(super) fn elements(&self, path: &str) -> Vec<(String, &Node)> {
        match &self.kind {
            NodeKind::Null => Vec::new(),
            NodeKind::List(nodes) => nodes
                .iter()
                .enumerate()
                .map(|(index, node)| (format!("{path}[{index}]"), node))
                .collect(),
            _ => vec![(path.to_owned(), self)],
        }
    }

    /// Replaces merge keys, here and in nested values, by the keys of their sections. A section's
    /// own keys take precedence over merged ones, and earlier merged sections over later ones.
    fn merge(&mut self) -> Result<(), YamlError> {
        match &mut self.kind {
            NodeKind::Null | NodeKind::Text(_) => {}
            NodeKind::List(nodes) => nodes.iter_mut().try_for_each(Node::merge)?,
            NodeKind::Map(entries) => {
                entries.iter_mut().try_for_each(|(_, node)| node.merge())?;
                if let Some(at) = entries.iter().position(|(key, _)| key == MERGE) {
                    let (_, merged) = entries.remove(at);
                    merged.into_sections(entries)?;
                    let mut repeated = repeated(entries).into_iter().peekable();
                    let mut at = 0usize;
                    entries.retain(|_| {
                        let here = at;
                        at = at.saturating_add(1);
                        repeated.next_if_eq(&here).is_none()
                    });
                }
            }
        }
        Ok(())
    }

    /// Appends the entries of a merge key's value: of a section, or of a list of sections.
    fn into_sections(self, entries: &mut Vec<(String, Node)>) -> Result<(), YamlError> {
        let sections = match self.kind {
            NodeKind::List(nodes) => nodes,
            _ => vec![self],
        };
        for node in sections {
            let NodeKind::Map(merged) = node.kind else {
                let mut fault: YamlError = de::Error::custom(
                    "the merge key << takes a section or a list of sections, like <<: *name where \
                     another section is marked &name.",
                );
                fault.0.mark = Some(node.mark);
                return Err(fault);
            };
            entries.extend(merged);
        }
        Ok(())
    }
}

/// Returns the sorted indexes of entries that repeat the key of an earlier entry. Takes n log n
/// time, since a section may have tens of thousands of keys.
fn repeated(entries: &[(String, Node)]) -> Vec<usize> {
    let mut keys: Vec<(&str, usize)> = entries
        .iter()
        .enumerate()
        .map(|(at, (key, _))| (key.as_str(), at))
        .collect();
    keys.sort_unstable();
    let mut places = Vec::new();
    let mut before = None;
    for (key, at) in keys {
        if before.replace(key) == Some(key) {
            places.push(at);
        }
    }
    places.sort_unstable();
    places
}

/// Returns serde_yaml's message with the line in front.
fn sentence(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    match error.location() {
        Some(place) => {
            let (line, column) = (place.line(), place.column());
            let text = text.replace(&format!(" at line {line} column {column}"), "");
            format!("line {line}: {text}.")
        }
        // The only error without a place.
        None if text.contains("more than one document") => {
            "this is more than one document, and gt reads only one: remove the line ---.".to_owned()
        }
        None => format!("{text}."),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Shape)
    }
}

/// The visitor of the first pass, which finds the shape of the tree.
struct Shape;

fn value<E>() -> Result<Node, E> {
    Ok(Node {
        mark: 0,
        kind: NodeKind::Text(String::new()),
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
            kind: NodeKind::Null,
        })
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node {
            mark: 0,
            kind: NodeKind::Null,
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
            kind: NodeKind::List(nodes),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        while let Some(key) = access.next_key::<String>()? {
            entries.push((key, access.next_value()?));
        }
        let repeated = repeated(&entries).into_iter().next();
        if let Some((key, _)) = repeated.and_then(|at| entries.get(at)) {
            return Err(de::Error::custom(format!(
                "the key \"{key}\" is given twice in one section"
            )));
        }
        Ok(Node {
            mark: 0,
            kind: NodeKind::Map(entries),
        })
    }
}

/// The purpose of the second pass.
enum Task {
    /// Store the text of each value, as it was written.
    Fill,
    /// Fail at this node.
    StopAt(Mark),
    /// Find the lines of the keys of these nodes. Both lists are sorted.
    FindLines {
        wanted: Vec<Mark>,
        found: Vec<(Mark, usize)>,
    },
    /// Find the lines and columns of these texts. Both lists are sorted.
    #[cfg(feature = "web")]
    FindTexts {
        wanted: Vec<Mark>,
        found: Vec<(Mark, (usize, usize))>,
    },
}

impl Task {
    /// Whether the place of this node is to be found.
    #[cfg(feature = "web")]
    fn finds(&self, mark: Mark) -> bool {
        matches!(self, Self::FindTexts { wanted, .. } if wanted.binary_search(&mark).is_ok())
    }

    /// Whether the place of this node is to be found: never.
    #[cfg(not(feature = "web"))]
    fn finds(&self, _: Mark) -> bool {
        false
    }

    /// Notes the place that an error about a node names.
    #[cfg(feature = "web")]
    fn found(&mut self, mark: Mark, error: &str) {
        if let (Self::FindTexts { found, .. }, Some(place)) = (self, place_in(error)) {
            found.push((mark, place));
        }
    }

    /// See above.
    #[cfg(not(feature = "web"))]
    fn found(&mut self, _: Mark, _: &str) {}
}

/// Returns the line and the column at the end of an error.
fn place_in(error: &str) -> Option<(usize, usize)> {
    let (_, place) = error.rsplit_once(" at line ")?;
    let (line, column) = place.split_once(" column ")?;
    Some((line.parse().ok()?, column.parse().ok()?))
}

/// Parses a file in two passes: the first returns the shape of the tree, the second does the task.
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

/// A node in the second pass.
struct Walk<'a> {
    node: &'a mut Node,
    /// Number of nodes before this one.
    count: &'a mut Mark,
    task: &'a mut Task,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.node.mark = *self.count;
        *self.count = self.count.saturating_add(1);
        if matches!(self.task, Task::StopAt(mark) if *mark == self.node.mark) {
            return deserializer.deserialize_str(Stop);
        }
        match self.node.kind {
            NodeKind::Null => deserializer.deserialize_ignored_any(IgnoredAny).map(|_| ()),
            NodeKind::Text(_) if self.task.finds(self.node.mark) => {
                // serde_yaml has consumed the text when it makes the error.
                if let Err(error) = deserializer.deserialize_str(Stop) {
                    self.task.found(self.node.mark, &error.to_string());
                }
                Ok(())
            }
            NodeKind::Text(_) => deserializer.deserialize_str(self),
            NodeKind::List(_) => deserializer.deserialize_seq(self),
            NodeKind::Map(_) => deserializer.deserialize_map(self),
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
            self.node.kind = NodeKind::Text(text.to_owned());
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        if let NodeKind::List(nodes) = &mut self.node.kind {
            for node in nodes {
                access.next_element_seed(Walk {
                    node,
                    count: self.count,
                    task: self.task,
                })?;
            }
        }
        // serde_yaml requires reading up to the end of the list.
        access.next_element::<IgnoredAny>().map(|_| ())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        if let NodeKind::Map(entries) = &mut self.node.kind {
            for (_, node) in entries {
                match self.task {
                    Task::FindLines { wanted, found }
                        if wanted.binary_search(self.count).is_ok() =>
                    {
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

/// Skips a key and returns its line. serde_yaml has consumed the key when it makes the error, so
/// reading can go on; the line is in the error's text.
struct Line;

impl<'de> DeserializeSeed<'de> for Line {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let Err(error) = deserializer.deserialize_str(Stop) else {
            return Ok(None);
        };
        let line = place_in(&error.to_string()).map(|(line, _)| line);
        // The text of an error at the beginning of a file has no line.
        Ok(Some(line.unwrap_or(1)))
    }
}

/// A visitor that accepts no value.
struct Stop;

impl Visitor<'_> for Stop {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for YamlError {}

impl de::Error for YamlError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        YamlError(Box::new(Wrong {
            path: String::new(),
            mark: None,
            message: message.to_string(),
        }))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format_args!("the key {field} is missing here."))
    }
}

/// A deserializer of a node. There is one for every value, so it holds the parts of a path and not
/// the path. serde instantiates it for each type, so code that does not depend on the type is kept
/// out of line, which keeps the program small.
#[derive(Clone, Copy)]
struct At<'a> {
    node: &'a Node,
    /// List or section that contains the node.
    of: Option<&'a At<'a>>,
    step: Step<'a>,
    unknown: &'a RefCell<Vec<Unknown>>,
}

/// The place of a node in its list or section.
#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
    /// The node is a list of one.
    Only,
}

impl<'a> At<'a> {
    /// Makes a deserializer of a node at `path`.
    fn only(path: &'a str, node: &'a Node, unknown: &'a RefCell<Vec<Unknown>>) -> Self {
        At {
            node,
            of: None,
            step: Step::Key(path),
            unknown,
        }
    }

    fn path(&self) -> String {
        let mut path = self.of.map(At::path).unwrap_or_default();
        match self.step {
            Step::Key(key) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
            }
            Step::Index(index) => path.push_str(&format!("[{index}]")),
            Step::Only => {}
        }
        path
    }

    /// Adds the place to an error that has none yet.
    #[inline(never)]
    fn named(&self, mut fault: YamlError) -> YamlError {
        if fault.0.mark.is_none() {
            fault.0.path = self.path();
            fault.0.mark = Some(self.node.mark);
        }
        fault
    }

    #[inline(never)]
    fn wrong(&self, wanted: &str) -> YamlError {
        let found = match self.node.kind {
            NodeKind::Null => "nothing",
            NodeKind::Text(_) => VALUE,
            NodeKind::List(_) => "a list",
            NodeKind::Map(_) => SECTION,
        };
        let message = format!("this is {found}, but must be {wanted}.");
        self.named(de::Error::custom(message))
    }

    #[inline(never)]
    fn text(&self) -> Result<&'a str, YamlError> {
        match &self.node.kind {
            NodeKind::Text(text) => Ok(text),
            _ => Err(self.wrong(VALUE)),
        }
    }

    #[inline(never)]
    fn entries(&self) -> Result<&'a [(String, Node)], YamlError> {
        match &self.node.kind {
            NodeKind::Null => Ok(&[]),
            NodeKind::Map(entries) => Ok(entries),
            _ => Err(self.wrong(SECTION)),
        }
    }
}

impl<'de, 'a> Deserializer<'de> for At<'a> {
    type Error = YamlError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        match &self.node.kind {
            NodeKind::Null => visitor.visit_unit(),
            NodeKind::Text(_) => self.deserialize_str(visitor),
            NodeKind::List(_) => self.deserialize_seq(visitor),
            NodeKind::Map(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        let result = visitor.visit_str(self.text()?);
        result.map_err(|fault| self.named(fault))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        match self.node.kind {
            NodeKind::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    /// Reads a list; a single value is a list of one.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        let (nodes, next) = match &self.node.kind {
            NodeKind::Null => (&[][..], None),
            NodeKind::List(nodes) => (&nodes[..], Some(0)),
            _ => (std::slice::from_ref(self.node), None),
        };
        visitor.visit_seq(Elements {
            of: &self,
            nodes: nodes.iter(),
            next,
        })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        let result = visitor.visit_map(Entries {
            of: &self,
            entries: self.entries()?.iter(),
            value: None,
        });
        result.map_err(|fault| self.named(fault))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, YamlError> {
        self.deserialize_map(visitor)
    }

    /// Skips a section of type `()`, which is read elsewhere.
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        visitor.visit_unit()
    }

    /// Notes an unknown key: serde calls this for no others.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        self.unknown.borrow_mut().push(Unknown {
            mark: self.node.mark,
            path: self.path(),
        });
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char string bytes byte_buf unit_struct
        newtype_struct tuple tuple_struct enum identifier
    }
}

struct Elements<'a> {
    of: &'a At<'a>,
    nodes: std::slice::Iter<'a, Node>,
    /// Index of the next value; `None` for a list of one.
    next: Option<usize>,
}

impl<'a> Elements<'a> {
    #[inline(never)]
    fn next(&mut self) -> Option<At<'a>> {
        let node = self.nodes.next()?;
        let step = self.next.map_or(Step::Only, Step::Index);
        self.next = self.next.map(|index| index.saturating_add(1));
        Some(At {
            node,
            of: Some(self.of),
            step,
            unknown: self.of.unknown,
        })
    }
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = YamlError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, YamlError> {
        match self.next() {
            Some(at) => seed.deserialize(at).map(Some),
            None => Ok(None),
        }
    }
}

struct Entries<'a> {
    of: &'a At<'a>,
    entries: std::slice::Iter<'a, (String, Node)>,
    value: Option<At<'a>>,
}

impl<'a> Entries<'a> {
    /// Returns the next key, and keeps its value for `value`.
    #[inline(never)]
    fn next(&mut self) -> Option<&'a str> {
        let (key, node) = self.entries.next()?;
        self.value = Some(At {
            node,
            of: Some(self.of),
            step: Step::Key(key),
            unknown: self.of.unknown,
        });
        Some(key)
    }

    #[inline(never)]
    fn value(&mut self) -> Result<At<'a>, YamlError> {
        let early = || de::Error::custom("a value was asked for before its key.");
        self.value.take().ok_or_else(early)
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = YamlError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, YamlError> {
        let Some(key) = self.next() else {
            return Ok(None);
        };
        seed.deserialize(de::value::StrDeserializer::<YamlError>::new(key))
            .map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, YamlError> {
        seed.deserialize(self.value()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::cell::Cell;
    use std::collections::BTreeMap;

    thread_local! {
        /// Number of passes of this thread.
        pub static WALKS: Cell<usize> = const { Cell::new(0) };
    }

    /// A user with one known key.
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
            let tree = YamlTree::parse(text).unwrap();
            let (entries, unknown): (BTreeMap<String, Entry>, _) = tree.read(&[]).unwrap();
            assert_eq!((entries.len(), unknown.len()), (users, users));
            let lines = tree.lines_of(&unknown);
            assert_eq!(WALKS.get() - before, 2, "{users} users");
            let expected: Vec<_> = (0..users).map(|n| Some(5 * n + 4)).collect();
            assert_eq!(lines, expected);
        }
    }
}
