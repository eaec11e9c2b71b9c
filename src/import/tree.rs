//! A file of another program as a tree, from which its settings are taken one by one: whatever is left in
//! the end was not carried. Not the formats: see `format`.

use std::fmt;
use std::rc::Rc;

/// Maximum length of a value or of a part of a path in a comment, in characters.
const MAX_SHOWN: usize = 120;

/// A value of a file, and its place there.
#[derive(Debug)]
pub struct Node {
    place: Rc<Place>,
    /// The content.
    pub kind: NodeKind,
}

/// The content of a value.
#[derive(Debug)]
pub enum NodeKind {
    /// No value.
    Null,
    /// A text, a number or a boolean, as it was written.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A section of keys, in their order.
    Map(Vec<(String, Node)>),
}

/// The place of a value: the path to it and its line. Values share the places of their sections.
#[derive(Debug)]
pub struct Place {
    of: Option<Rc<Place>>,
    step: Step,
    line: Option<usize>,
}

/// The last part of a path.
#[derive(Debug)]
enum Step {
    Key(String),
    Index(usize),
}

/// A setting with its path and its line, to be told in a comment.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The path as the file has it.
    path: String,
    line: Option<usize>,
    /// The value; empty if the path says it all.
    value: String,
}

impl Place {
    /// Returns the place of a key. `of` is its section.
    pub fn key(of: Option<&Rc<Place>>, key: &str, line: Option<usize>) -> Rc<Self> {
        Rc::new(Self {
            of: of.cloned(),
            step: Step::Key(key.to_owned()),
            line,
        })
    }

    /// Returns the place of an element of a list.
    pub fn index(of: &Rc<Place>, index: usize, line: Option<usize>) -> Rc<Self> {
        Rc::new(Self {
            of: Some(of.clone()),
            step: Step::Index(index),
            line,
        })
    }

    /// Returns the line, or that of the nearest section with one.
    fn line(&self) -> Option<usize> {
        let above = || self.of.as_ref().and_then(|of| of.line());
        self.line.or_else(above)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(of) = &self.of {
            of.fmt(f)?;
        }
        match &self.step {
            Step::Key(key) => {
                let is_first = self.of.as_ref().is_none_or(|of| of.is_root());
                f.write_str(if is_first { "" } else { "." })?;
                f.write_str(&shown(key))
            }
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

impl Place {
    /// Returns the place of a whole file.
    fn root() -> Rc<Self> {
        Self::key(None, "", None)
    }

    fn is_root(&self) -> bool {
        self.of.is_none() && matches!(&self.step, Step::Key(key) if key.is_empty())
    }
}

impl Node {
    /// Creates a value at a place.
    pub fn new(place: Rc<Place>, kind: NodeKind) -> Self {
        Self { place, kind }
    }

    /// Creates the value of a whole file.
    pub fn of_file(kind: NodeKind) -> Self {
        Self::new(Place::root(), kind)
    }

    /// Returns the place.
    pub fn place(&self) -> &Rc<Place> {
        &self.place
    }

    /// Returns the text, if the value is one.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the keys, if the value is a section.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let entries = match &self.kind {
            NodeKind::Map(entries) => entries.as_slice(),
            _ => &[],
        };
        entries.iter().map(|(key, _)| key.as_str())
    }

    /// Returns the value at a path of keys with dots between them.
    pub fn get(&self, path: &str) -> Option<&Node> {
        path.split('.').try_fold(self, |node, key| {
            let NodeKind::Map(entries) = &node.kind else {
                return None;
            };
            let mut entries = entries.iter();
            entries.find(|(name, _)| name == key).map(|(_, node)| node)
        })
    }

    /// Removes the value at a path and returns it; `None` if there is none, or if it is null.
    pub fn take(&mut self, path: &str) -> Option<Node> {
        let NodeKind::Map(entries) = &mut self.kind else {
            return None;
        };
        let (key, rest) = match path.split_once('.') {
            Some((key, rest)) => (key, Some(rest)),
            None => (path, None),
        };
        let at = entries.iter().position(|(name, _)| name == key)?;
        let (_, node) = entries.get_mut(at)?;
        let Some(rest) = rest else {
            let is_null = matches!(node.kind, NodeKind::Null);
            return (!is_null).then(|| entries.remove(at).1);
        };
        let taken = node.take(rest)?;
        if matches!(&node.kind, NodeKind::Map(left) if left.is_empty()) {
            entries.remove(at);
        }
        Some(taken)
    }

    /// Puts a value at a path, whose sections are made if there are none. Returns a value that was there.
    pub fn put(&mut self, path: &str, value: Node) -> Option<Node> {
        let NodeKind::Map(entries) = &mut self.kind else {
            return Some(value);
        };
        let (key, rest) = match path.split_once('.') {
            Some((key, rest)) => (key, Some(rest)),
            None => (path, None),
        };
        let found = entries.iter_mut().find(|(name, _)| name == key);
        match (found, rest) {
            (Some((_, node)), Some(rest)) => node.put(rest, value),
            (Some((_, node)), None) => Some(std::mem::replace(node, value)),
            (None, Some(rest)) => {
                let mut section = Node::new(value.place.clone(), NodeKind::Map(Vec::new()));
                let before = section.put(rest, value);
                entries.push((key.to_owned(), section));
                before
            }
            (None, None) => {
                entries.push((key.to_owned(), value));
                None
            }
        }
    }

    /// Adds a value to a section, whatever else has this key.
    pub fn push(&mut self, key: &str, value: Node) {
        if let NodeKind::Map(entries) = &mut self.kind {
            entries.push((key.to_owned(), value));
        }
    }

    /// Returns every setting in the value.
    pub fn leaves(&self) -> Vec<Leaf> {
        let mut leaves = Vec::new();
        self.add_leaves(&mut leaves);
        leaves
    }

    fn add_leaves(&self, leaves: &mut Vec<Leaf>) {
        match &self.kind {
            NodeKind::List(nodes) if !nodes.is_empty() => {
                nodes.iter().for_each(|node| node.add_leaves(leaves));
            }
            NodeKind::Map(entries) if !entries.is_empty() => {
                entries.iter().for_each(|(_, node)| node.add_leaves(leaves));
            }
            NodeKind::Null | NodeKind::Text(_) | NodeKind::List(_) | NodeKind::Map(_) => {
                leaves.push(self.leaf());
            }
        }
    }

    /// Returns the value as one setting.
    pub fn leaf(&self) -> Leaf {
        let value = match &self.kind {
            NodeKind::Null => "null".to_owned(),
            NodeKind::Text(text) if text.is_empty() => "\"\"".to_owned(),
            NodeKind::Text(text) => shown(text),
            NodeKind::List(_) => "[]".to_owned(),
            NodeKind::Map(_) => "{}".to_owned(),
        };
        Leaf {
            path: self.place.to_string(),
            line: self.place.line(),
            value,
        }
    }
}

impl Leaf {
    /// Creates a setting that is a whole line.
    pub fn of_line(line: usize, text: &str) -> Self {
        Self {
            path: shown(text.trim()),
            line: Some(line),
            value: String::new(),
        }
    }

    /// Returns the line, if it is known.
    pub fn line(&self) -> Option<usize> {
        self.line
    }
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        match self.value.as_str() {
            "" => Ok(()),
            value => write!(f, ": {value}"),
        }
    }
}

/// Returns a text for a comment: one line of limited length, of characters that can be printed.
pub fn shown(text: &str) -> String {
    let mut shown = String::new();
    for (at, c) in text.chars().enumerate() {
        if at >= MAX_SHOWN {
            shown.push('…');
            break;
        }
        match c {
            '"' | '\'' | '\\' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(of: Option<&Rc<Place>>, key: &str, line: usize, text: &str) -> (String, Node) {
        let kind = NodeKind::Text(text.to_owned());
        (
            key.to_owned(),
            Node::new(Place::key(of, key, Some(line)), kind),
        )
    }

    #[test]
    fn what_was_not_taken_is_left_with_its_path_and_line() {
        let mut file = Node::of_file(NodeKind::Map(Vec::new()));
        let auth = Place::key(Some(file.place()), "auth", None);
        let entries = vec![
            text(Some(&auth), "token", 1, "secret"),
            text(Some(&auth), "method", 2, "line\nbreak"),
        ];
        file.put("auth", Node::new(auth, NodeKind::Map(entries)));
        let token = file.take("auth.token").unwrap();
        assert_eq!(token.text(), Some("secret"));
        assert!(file.take("auth.token").is_none());
        let left = file.leaves();
        let shown: Vec<_> = left
            .iter()
            .map(|leaf| (leaf.to_string(), leaf.line()))
            .collect();
        assert_eq!(shown, [("auth.method: line\\nbreak".to_owned(), Some(2))]);
        file.take("auth.method").unwrap();
        assert!(file.get("auth").is_none());
    }

    #[test]
    fn a_text_in_a_comment_is_one_line_of_limited_length() {
        assert_eq!(
            shown("a\r\n\u{2028}\u{85}\"b\\"),
            "a\\r\\n\\u{2028}\\u{85}\"b\\"
        );
        assert_eq!(shown(&"x".repeat(200)).chars().count(), 121);
    }
}
