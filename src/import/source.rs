//! A section of a file from which settings are taken, and the comments about those that are not carried.

use super::draft::{Note, NoteKind};
use super::template;
use super::tree::{Leaf, Node, NodeKind};
use crate::config::value::digits;

/// What becomes of a setting that gt has no key for.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// It is not carried, for this reason; if it is off, nothing is lost.
    Lost(&'static str),
    /// It is not needed, for this reason.
    Needless(&'static str),
    /// It is not carried, and the user has to do this.
    Todo(&'static str),
}

/// A section whose settings are taken one by one.
#[derive(Debug)]
pub struct Source {
    node: Node,
    /// The comments so far.
    pub notes: Vec<Note>,
}

/// The text of a setting that was taken.
#[derive(Debug)]
pub struct Taken {
    /// The text, which is not empty.
    pub text: String,
    /// The setting, for a comment about it.
    pub leaf: Leaf,
}

impl Source {
    /// Creates the source of a section.
    pub fn new(node: Node) -> Self {
        Self {
            node,
            notes: Vec::new(),
        }
    }

    /// Whether there is a value at a path.
    pub fn has(&self, path: &str) -> bool {
        self.node.get(path).is_some()
    }

    /// Returns the text at a path, and leaves it there.
    pub fn peek(&self, path: &str) -> Option<&str> {
        self.node.get(path).and_then(Node::text)
    }

    /// Takes the value at a path.
    pub fn take(&mut self, path: &str) -> Option<Node> {
        self.node.take(path)
    }

    /// Adds a comment about a setting.
    pub fn note(&mut self, kind: NoteKind, leaf: Leaf, why: impl Into<String>) {
        self.notes.push(Note::about(kind, vec![leaf], why));
    }

    /// Takes the text at a path. If the value is none that can be used, a comment says why.
    pub fn text(&mut self, path: &str) -> Option<Taken> {
        let node = self.take(path)?;
        self.usable(node)
    }

    /// Takes the texts at a path, of a list or of one value.
    pub fn texts(&mut self, path: &str) -> Vec<Taken> {
        let Some(node) = self.take(path) else {
            return Vec::new();
        };
        match node.kind {
            NodeKind::List(nodes) => {
                let texts = nodes.into_iter().filter_map(|node| self.usable(node));
                texts.collect()
            }
            _ => self.usable(node).into_iter().collect(),
        }
    }

    fn usable(&mut self, node: Node) -> Option<Taken> {
        let leaf = node.leaf();
        match node.kind {
            NodeKind::Text(text) if template::is_value(&text) => {
                let why = "a template, which gt does not have: write the value itself";
                self.note(NoteKind::Todo, leaf, why);
                None
            }
            NodeKind::Text(text) if text.is_empty() => {
                self.note(NoteKind::Needless, leaf, "it is empty");
                None
            }
            NodeKind::Text(text) => Some(Taken { text, leaf }),
            NodeKind::Null => {
                self.note(NoteKind::Needless, leaf, "it is empty");
                None
            }
            NodeKind::List(_) | NodeKind::Map(_) => {
                self.notes.push(Note::new(
                    NoteKind::Lost,
                    &node,
                    "a single value belongs here",
                ));
                None
            }
        }
    }

    /// Takes a whole number of up to `max` at a path.
    pub fn number(&mut self, path: &str, max: u64) -> Option<u64> {
        let Taken { text, leaf } = self.text(path)?;
        let number = digits(&text).filter(|number| *number <= max);
        if number.is_none() {
            let why = format!("this is not a whole number from 0 to {max}");
            self.note(NoteKind::Lost, leaf, why);
        }
        number
    }

    /// Takes a port at a path; 0 is none.
    pub fn port(&mut self, path: &str) -> Option<u16> {
        let number = self.number(path, u64::from(u16::MAX))?;
        u16::try_from(number).ok().filter(|port| *port != 0)
    }

    /// Comments on what there is of these settings.
    pub fn tell(&mut self, fates: &[(&str, Fate)]) {
        for (path, fate) in fates {
            let Some(node) = self.take(path) else {
                continue;
            };
            let is_off = matches!(node.text(), Some("false" | "0" | ""));
            let (kind, why) = match fate {
                Fate::Lost(_) | Fate::Todo(_) if is_off => (NoteKind::Needless, "it is off"),
                Fate::Lost(why) => (NoteKind::Lost, *why),
                Fate::Needless(why) => (NoteKind::Needless, *why),
                Fate::Todo(why) => (NoteKind::Todo, *why),
            };
            self.notes.push(Note::new(kind, &node, why));
        }
    }

    /// Comments on all settings that are left, and returns the comments.
    pub fn finish(mut self, why: &str) -> Vec<Note> {
        let is_empty = matches!(&self.node.kind, NodeKind::Map(left) if left.is_empty());
        if !is_empty {
            self.notes.push(Note::new(NoteKind::Lost, &self.node, why));
        }
        self.notes
    }
}
