//! Whether an edited file says what it did before, except for the entry that was to be changed. The editor knows
//! lines and not YAML, so each of its changes is checked here. Not the edit itself: see `edit`.

use super::edit::{Changes, EditError, Entries};
use super::file::Document;
use super::yaml::{Node, NodeKind};
use serde_json::Value;

/// What was to be done to one entry.
pub enum Edit<'a> {
    /// An entry was added; the key is that of a user.
    Add(&'a str, &'a Changes),
    /// The keys of the entry at this place were changed.
    Change(usize, &'a Changes),
    /// The entry at this place was removed.
    Remove(usize),
}

/// Fails unless the edit is the only difference between two versions of a file.
pub fn check(
    before: &Document,
    after: &Document,
    which: Entries<'_>,
    edit: &Edit<'_>,
) -> Result<(), EditError> {
    match is_only(before.node(&[]), after.node(&[]), which, edit) {
        Some(true) => Ok(()),
        _ => Err(
            "The file is written in a way in which its entries cannot be changed one by one: edit it as a text."
                .to_owned(),
        ),
    }
}

fn is_only(
    before: Option<&Node>,
    after: Option<&Node>,
    which: Entries<'_>,
    edit: &Edit<'_>,
) -> Option<bool> {
    let name = match which {
        Entries::Top => return is_done(entries(before)?, entries(after)?, edit),
        Entries::ListOf(name) | Entries::KeysOf(name) => name,
    };
    let (before, after) = (entries(before)?, entries(after)?);

    let is_rest_same = are_same(
        &others(&before, |key| key != name),
        &others(&after, |key| key != name),
    );
    let (before, after) = (section(&before, name)?, section(&after, name)?);
    Some(is_rest_same && is_done(entries(before)?, entries(after)?, edit)?)
}

/// The entries of a section: with keys, or the items of a list without.
type Parts<'n> = Vec<(Option<&'n str>, &'n Node)>;

/// Returns the entries of a section or list; of nothing, none. `None` for a text.
fn entries(node: Option<&Node>) -> Option<Parts<'_>> {
    match node.map(|node| &node.kind) {
        None | Some(NodeKind::Null) => Some(Vec::new()),
        Some(NodeKind::List(nodes)) => Some(nodes.iter().map(|node| (None, node)).collect()),
        Some(NodeKind::Map(entries)) => {
            let entries = entries.iter().map(|(key, node)| (Some(key.as_str()), node));
            Some(entries.collect())
        }
        Some(NodeKind::Text(_)) => None,
    }
}

/// Returns the section with this name, if there is one. `None` if there are two, since one would not be compared.
fn section<'n>(all: &Parts<'n>, name: &str) -> Option<Option<&'n Node>> {
    let mut found = all.iter().filter(|(key, _)| *key == Some(name));
    let node = found.next().map(|(_, node)| *node);
    found.next().is_none().then_some(node)
}

/// Returns the entries whose keys are others.
fn others<'n>(all: &Parts<'n>, is_other: impl Fn(&str) -> bool) -> Parts<'n> {
    let others = all.iter().filter(|(key, _)| key.is_none_or(&is_other));
    others.copied().collect()
}

/// Whether a section differs by the edit alone.
fn is_done(mut before: Parts<'_>, mut after: Parts<'_>, edit: &Edit<'_>) -> Option<bool> {
    let is_entry_right = match *edit {
        Edit::Add(key, values) => {
            let (name, node) = after.pop()?;
            name.is_none_or(|it| it == key)
                && is_changed(&Vec::new(), &entries(Some(node))?, values)
        }
        Edit::Change(at, changes) => {
            if at >= before.len() || at >= after.len() {
                return None;
            }
            let (old, new) = (before.remove(at), after.remove(at));
            old.0 == new.0 && is_changed(&entries(Some(old.1))?, &entries(Some(new.1))?, changes)
        }
        Edit::Remove(at) => {
            if at >= before.len() {
                return None;
            }
            before.remove(at);
            true
        }
    };
    Some(is_entry_right && are_same(&before, &after))
}

/// Whether an entry differs by its changed keys alone, and has their values.
fn is_changed(before: &Parts<'_>, after: &Parts<'_>, changes: &Changes) -> bool {
    let is_other = |key: &str| !changes.contains_key(key);
    let is_set = |(key, value): (&String, &Value)| {
        let mut found = after.iter().filter(|(it, _)| *it == Some(key.as_str()));
        match (found.next(), value) {
            (None, Value::Null) => true,
            (Some((_, node)), value) => found.next().is_none() && is_value(node, value),
            (None, _) => false,
        }
    };
    are_same(&others(before, is_other), &others(after, is_other)) && changes.iter().all(is_set)
}

fn are_same(one: &Parts<'_>, other: &Parts<'_>) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|(one, other)| one.0 == other.0 && is_same(one.1, other.1))
}

fn is_same(one: &Node, other: &Node) -> bool {
    match (&one.kind, &other.kind) {
        (NodeKind::Null, NodeKind::Null) => true,
        (NodeKind::Text(one), NodeKind::Text(other)) => one == other,
        (NodeKind::List(one), NodeKind::List(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(one, other)| is_same(one, other))
        }
        (NodeKind::Map(one), NodeKind::Map(other)) => {
            let mut both = one.iter().zip(other);
            one.len() == other.len()
                && both.all(|(one, other)| one.0 == other.0 && is_same(&one.1, &other.1))
        }
        _ => false,
    }
}

/// Whether a node is what a value has been written as.
fn is_value(node: &Node, value: &Value) -> bool {
    match (&node.kind, value) {
        (NodeKind::Null, Value::Null) => true,
        (NodeKind::Text(text), Value::String(value)) => text == value,
        (NodeKind::Text(text), Value::Bool(value)) => text == if *value { "true" } else { "false" },
        (NodeKind::Text(text), Value::Number(value)) => value.to_string() == text.as_str(),
        (NodeKind::List(nodes), Value::Array(values)) => {
            nodes.len() == values.len()
                && nodes
                    .iter()
                    .zip(values)
                    .all(|(node, value)| is_value(node, value))
        }
        (NodeKind::Map(entries), Value::Object(values)) => {
            let is_in =
                |(key, node): &(String, Node)| values.get(key).is_some_and(|it| is_value(node, it));
            entries.len() == values.len() && entries.iter().all(is_in)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::edit;
    use crate::config::foreign::Content;
    use serde_json::json;
    use std::path::Path;

    fn document(text: &str) -> Document {
        Document::parse(Path::new("a"), text.to_owned(), Content::Configuration).unwrap()
    }

    fn changes(value: Value) -> Changes {
        value.as_object().unwrap().clone()
    }

    const USERS: Entries<'_> = Entries::KeysOf("users");

    fn checked(before: &str, after: &str, edit: &Edit<'_>) -> bool {
        check(&document(before), &document(after), USERS, edit).is_ok()
    }

    #[test]
    fn what_the_editor_does_is_the_only_difference() {
        let text = "a: [1, {b: c}]\nusers:\n  one:\n    secret: x\n    tcp:\n      - range: 1-2\n  two:\n    secret: y\n";
        let values = changes(
            json!({"secret": "true", "speed": 5, "disabled": true, "tcp": [{"range": "3-4"}]}),
        );
        let more = edit::change(text, USERS, 0, &values).unwrap();
        assert!(checked(text, &more, &Edit::Change(0, &values)), "{more}");
        assert!(!checked(text, &more, &Edit::Change(1, &values)));
        let none = changes(json!({"tcp": null}));
        let less = edit::change(text, USERS, 0, &none).unwrap();
        assert!(checked(text, &less, &Edit::Change(0, &none)), "{less}");
        let added = edit::add(text, USERS, "3", &values).unwrap();
        assert!(checked(text, &added, &Edit::Add("3", &values)), "{added}");
        assert!(!checked(text, &added, &Edit::Add("4", &values)));
        let removed = edit::remove(text, USERS, 1).unwrap();
        assert!(checked(text, &removed, &Edit::Remove(1)), "{removed}");
        let empty = edit::remove(&removed, USERS, 0).unwrap();
        assert!(checked(&removed, &empty, &Edit::Remove(0)), "{empty}");
        let first = edit::add(&empty, USERS, "3", &values).unwrap();
        assert!(checked(&empty, &first, &Edit::Add("3", &values)), "{first}");
    }

    #[test]
    fn any_other_difference_is_found() {
        let text = "a: 1\nusers:\n  one: {secret: x, speed: 5}\n  two: {secret: y}\n";
        let values = changes(json!({"speed": 6}));
        let edit = Edit::Change(0, &values);
        assert!(checked(text, &text.replace("speed: 5", "speed: 6"), &edit));
        for (from, to) in [
            ("a: 1", "a: 2"),
            ("a: 1", "b: 1"),
            ("secret: x", "secret: x - y"),
            ("secret: y", "secret: z"),
            ("two", "three"),
            ("speed: 6", "speed: 7"),
            ("speed: 6", "speed: 6, tcp: []"),
            ("  two: {secret: y}\n", ""),
        ] {
            let other = text.replace("speed: 5", "speed: 6").replace(from, to);
            assert!(!checked(text, &other, &edit), "{other}");
        }
    }
}
