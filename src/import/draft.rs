//! gt's configuration as it is being made: settings, and comments about what was not carried. Not their
//! meaning.

use std::borrow::Cow;
use std::fmt::Write;

use super::tree::{shown, Leaf, Node};
use crate::config::RoleName;

/// Length of a line of a comment, in characters.
const WIDTH: usize = 96;
/// Maximum number of lines of a comment for one reason.
const MAX_LEAVES: usize = 1_000;

/// A configuration of one role.
#[derive(Debug)]
pub struct Draft {
    /// The role.
    pub role: RoleName,
    /// The sections at the top.
    pub body: Group,
}

/// Settings that belong together: those of a section, or of an entry of a list.
#[derive(Debug, Default)]
pub struct Group {
    /// A comment in front of an entry of a list.
    pub title: Option<String>,
    /// The settings.
    pub settings: Vec<Setting>,
    /// What was not carried.
    pub notes: Vec<Note>,
    /// The reason why all of it stands in comments, if it does.
    pub off: Option<String>,
}

/// A key of gt's with its value.
#[derive(Debug)]
pub struct Setting {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Value,
    /// Comments behind it.
    pub notes: Vec<Note>,
    /// The reason why it stands in a comment, if it does.
    pub off: Option<String>,
    /// The line that it had when the draft was last written.
    line: usize,
}

/// The value of a key.
#[derive(Debug)]
pub enum Value {
    /// One text.
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
    /// A section.
    Section(Group),
    /// A list of sections.
    Groups(Vec<Group>),
}

/// A comment about settings of the other program.
#[derive(Debug)]
pub struct Note {
    kind: NoteKind,
    leaves: Vec<Leaf>,
    why: String,
}

/// What a comment is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteKind {
    /// A setting that gt has nothing for.
    Lost,
    /// A setting that gt does without.
    Needless,
    /// What the user has to do.
    Todo,
    /// What the user should know.
    Hint,
}

impl Note {
    /// Creates a comment about all settings in a value.
    pub fn new(kind: NoteKind, about: &Node, why: impl Into<String>) -> Self {
        Self::about(kind, about.leaves(), why)
    }

    /// Creates a comment about these settings.
    pub fn about(kind: NoteKind, leaves: Vec<Leaf>, why: impl Into<String>) -> Self {
        Self {
            kind,
            leaves,
            why: why.into(),
        }
    }

    /// Creates a comment about what the user has to do.
    pub fn todo(why: impl Into<String>) -> Self {
        Self::about(NoteKind::Todo, Vec::new(), why)
    }

    /// Creates a comment about what the user should know.
    pub fn hint(why: impl Into<String>) -> Self {
        Self::about(NoteKind::Hint, Vec::new(), why)
    }
}

impl Setting {
    /// Creates a setting of one text.
    pub fn text(key: &str, text: impl Into<String>) -> Self {
        Self::new(key, Value::Text(text.into()))
    }

    /// Creates a setting.
    pub fn new(key: &str, value: Value) -> Self {
        Self {
            key: key.to_owned(),
            value,
            notes: Vec::new(),
            off: None,
            line: 0,
        }
    }

    /// Adds a comment.
    pub fn with(mut self, note: Note) -> Self {
        self.notes.push(note);
        self
    }
}

impl Group {
    /// Returns the text of a setting.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let mut settings = self.settings.iter();
        settings
            .find(|setting| setting.key == key && setting.off.is_none())
            .map(|setting| &setting.value)
    }
}

/// The number of comments of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Settings that were not carried.
    pub lost: usize,
    /// What the user has to do.
    pub todo: usize,
}

impl Draft {
    /// Writes the configuration, and remembers the line of each setting. To `check` it, the comments and the
    /// file of users that it may name are left out.
    pub fn write(&mut self, check: bool) -> (String, Counts) {
        let mut page = Page {
            check,
            ..Page::default()
        };
        page.group(&mut self.body, 0, false);
        (page.text, page.counts)
    }

    /// Turns the setting of a line into a comment, with its entry if it is one of a list. Whether there is one.
    pub fn turn_off(&mut self, line: usize, why: &str) -> bool {
        turn_off(&mut self.body, line, why)
    }

    /// Turns an entry of the list at `key` into a comment. `index` counts those that are no comments.
    /// Whether there is one.
    pub fn turn_off_entry(&mut self, key: &str, index: usize, why: &str) -> bool {
        let mut settings = self.body.settings.iter_mut();
        let list = settings.find_map(|setting| match &mut setting.value {
            Value::Groups(groups) if setting.key == key => Some(groups),
            _ => None,
        });
        let is_written = |group: &&mut Group| {
            group.off.is_none() && group.settings.iter().any(|it| it.off.is_none())
        };
        let mut groups = list.into_iter().flatten().filter(is_written);
        let group = groups.nth(index);
        let found = group.is_some();
        if let Some(group) = group {
            group.off = Some(why.to_owned());
        }
        found
    }
}

fn turn_off(group: &mut Group, line: usize, why: &str) -> bool {
    for setting in &mut group.settings {
        if setting.off.is_some() {
            continue;
        }
        if setting.line == line {
            setting.off = Some(why.to_owned());
            return true;
        }
        let found = match &mut setting.value {
            Value::Text(_) | Value::Texts(_) => false,
            Value::Section(group) => turn_off(group, line, why),
            Value::Groups(groups) => groups.iter_mut().any(|group| {
                let found = group.off.is_none() && turn_off(group, line, why);
                if found {
                    group.settings.iter_mut().for_each(|it| it.off = None);
                    group.off = Some(why.to_owned());
                }
                found
            }),
        };
        if found {
            return true;
        }
    }
    false
}

/// The text of a configuration that is being written.
#[derive(Default)]
struct Page {
    text: String,
    lines: usize,
    counts: Counts,
    check: bool,
}

impl Page {
    /// Writes a line: indentation, `# ` if it is a comment, the text.
    fn line(&mut self, depth: usize, is_comment: bool, text: &str) {
        let width = 2 * depth;
        let _ = match is_comment {
            true => writeln!(self.text, "{:width$}# {}", "", one_line(text)),
            false => writeln!(self.text, "{:width$}{text}", ""),
        };
        self.lines = self.lines.saturating_add(1);
    }

    /// Writes a comment in lines of limited length.
    fn comment(&mut self, depth: usize, indent: &str, text: &str) {
        let mut line = String::new();
        let mut length = 0usize;
        for word in text.split(' ') {
            let more = word.chars().count().saturating_add(1);
            if length > 0 && length.saturating_add(more) > WIDTH {
                self.line(depth, true, &format!("{indent}{line}"));
                line.clear();
                length = 0;
            }
            if length > 0 {
                line.push(' ');
            }
            line.push_str(word);
            length = length.saturating_add(more);
        }
        self.line(depth, true, &format!("{indent}{line}"));
    }

    fn notes(&mut self, notes: &[Note], depth: usize) {
        if self.check {
            return;
        }
        let mut notes = notes.iter().peekable();
        while let Some(note) = notes.next() {
            let (name, count) = match note.kind {
                NoteKind::Lost => ("not carried", Some(&mut self.counts.lost)),
                NoteKind::Needless => ("not needed", None),
                NoteKind::Hint => ("note", None),
                NoteKind::Todo => ("to do", Some(&mut self.counts.todo)),
            };
            if let Some(count) = count {
                *count = count.saturating_add(note.leaves.len().max(1));
            }
            if note.leaves.is_empty() {
                self.comment(depth, "", &format!("{name}: {}", note.why));
                continue;
            }
            for leaf in note.leaves.iter().take(MAX_LEAVES) {
                let line = leaf.line().map(|line| format!(" (line {line})"));
                let line = line.unwrap_or_default();
                self.line(depth, true, &format!("{name}{line}: {leaf}"));
            }
            let more = note.leaves.len().saturating_sub(MAX_LEAVES);
            if more > 0 {
                self.line(depth, true, &format!("{name}: {more} more settings"));
            }
            // One reason for several.
            let is_same = |next: &&Note| {
                !next.leaves.is_empty() && (next.kind, &next.why) == (note.kind, &note.why)
            };
            if notes.peek().is_none_or(|next| !is_same(next)) {
                self.comment(depth, "    ", &note.why);
            }
        }
    }

    /// Writes the settings of a section.
    fn group(&mut self, group: &mut Group, depth: usize, is_comment: bool) {
        for setting in &mut group.settings {
            self.setting(setting, depth, is_comment, "");
        }
        self.notes(&group.notes, depth);
    }

    /// Writes an entry of a list.
    fn entry(&mut self, group: &mut Group, depth: usize, is_comment: bool) {
        if self.check && group.off.is_some() {
            return;
        }
        if let Some(title) = group.title.as_ref().filter(|_| !self.check) {
            self.comment(depth, "", &shown(title));
        }
        let is_comment = is_comment || group.off.is_some();
        if let Some(why) = &group.off {
            self.counts.lost = self.counts.lost.saturating_add(1);
            self.comment(depth, "", &format!("not carried: {}", sentence(why)));
        }
        let mut dash = "- ";
        for setting in &mut group.settings {
            let is_off = setting.off.is_some();
            self.setting(setting, depth, is_comment, dash);
            if !is_off {
                dash = "  ";
            }
        }
        self.notes(&group.notes, depth.saturating_add(1));
    }

    /// Writes a setting. In an entry of a list, `dash` is what stands before the key.
    fn setting(&mut self, setting: &mut Setting, depth: usize, is_comment: bool, dash: &str) {
        let is_file = setting.key == "users" && matches!(setting.value, Value::Text(_));
        if self.check && (is_file || setting.off.is_some()) {
            return;
        }
        let below = depth.saturating_add(1);
        let notes = depth.saturating_add(usize::from(!dash.is_empty()));
        if let Some(why) = &setting.off {
            self.counts.lost = self.counts.lost.saturating_add(1);
            self.comment(notes, "", &format!("not carried: {}", sentence(why)));
        }
        let is_comment = is_comment || setting.off.is_some();
        let key = scalar(&setting.key);
        let begin = format!("{dash}{key}:");
        setting.line = self.lines.saturating_add(1);
        match &mut setting.value {
            Value::Text(text) => {
                self.line(depth, is_comment, &format!("{begin} {}", scalar(text)));
            }
            Value::Texts(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| scalar(text)).collect();
                self.line(
                    depth,
                    is_comment,
                    &format!("{begin} [{}]", texts.join(", ")),
                );
            }
            Value::Section(group) => {
                self.line(depth, is_comment, &begin);
                let below = below.saturating_add(usize::from(!dash.is_empty()));
                self.group(group, below, is_comment);
            }
            Value::Groups(groups) => {
                self.line(depth, is_comment, &begin);
                let below = below.saturating_add(usize::from(!dash.is_empty()));
                for group in groups {
                    self.entry(group, below, is_comment);
                }
            }
        }
        self.notes(&setting.notes, notes);
    }
}

/// Returns a reason for a comment: one line without the characters that cannot be printed.
fn sentence(why: &str) -> String {
    let word = |c: char| match c {
        '"' | '\'' | '\\' => c.to_string(),
        '\n' => " ".to_owned(),
        c => c.escape_debug().to_string(),
    };
    why.chars().take(1_000).map(word).collect()
}

/// Returns a text without what ends a line: a comment must not end before its text does (YAML 1.2, sections
/// 5.4 and 6.6; YAML 1.1 has more breaks).
fn one_line(text: &str) -> Cow<'_, str> {
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    if !text.contains(breaks) {
        return text.into();
    }
    let word = |c: char| match breaks(c) {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(word).collect::<String>().into()
}

/// Returns a text as a value of YAML, which is read back unchanged.
fn scalar(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_./:-".contains(c);
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/');
    let is_null = text.eq_ignore_ascii_case("null");
    if begins && !text.ends_with(':') && !is_null && text.chars().all(is_plain) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\'' => quoted.push('\''),
            c if c.escape_debug().eq([c]) => quoted.push(c),
            c => {
                let _ = write!(quoted, "\\U{:08X}", u32::from(c));
            }
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml::YamlTree;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_read_back_unchanged(text: String) {
            let tree = YamlTree::parse(format!("k: {}\nl: [{}]", scalar(&text), scalar(&text)));
            let tree = tree.unwrap();
            prop_assert_eq!(tree.node(&["k"]).unwrap().texts(), [text.as_str()]);
            prop_assert_eq!(tree.node(&["l"]).unwrap().texts(), [text.as_str()]);
        }
    }

    #[test]
    fn a_text_that_yaml_reads_as_something_else_has_quotes() {
        for text in [
            "",
            "~",
            "null",
            "Null",
            "NULL",
            " a",
            "a ",
            "a: b",
            "a #b",
            "a:",
            "- a",
            "*a",
            "&a",
            "!a",
            "[a]",
            "{{ .Envs.A }}",
            "a\nb",
            "\u{85}",
            "\u{2028}",
            "\u{feff}",
            "a\tb",
            "'a'",
            "\"a\"",
            "%a",
            "@a",
            "`a`",
            "---",
            "...",
            "<<",
            "=",
        ] {
            let tree = YamlTree::parse(format!("k: {}", scalar(text))).unwrap();
            assert_eq!(tree.node(&["k"]).unwrap().texts(), [text]);
        }
        assert_eq!(
            scalar("tcp://127.0.0.1:6000-6010"),
            "tcp://127.0.0.1:6000-6010"
        );
        assert_eq!(scalar("0x10"), "0x10");
    }

    #[test]
    fn a_setting_that_is_turned_off_takes_its_entry_with_it() {
        let service = |local: &str| Group {
            title: Some("web\n# x".to_owned()),
            settings: vec![
                Setting::text("local", local),
                Setting::text("hostPrefix", "a"),
            ],
            ..Group::default()
        };
        let services = Value::Groups(vec![service("http://a"), service("http://b")]);
        let mut draft = Draft {
            role: RoleName::Client,
            body: Group {
                settings: vec![
                    Setting::new("services", services),
                    Setting::text("other", "x"),
                ],
                ..Group::default()
            },
        };
        let (text, _) = draft.write(false);
        assert_eq!(text.lines().nth(6), Some("    hostPrefix: a"), "{text}");
        assert!(draft.turn_off(7, "it is wrong"));
        let (text, counts) = draft.write(false);
        assert!(
            text.contains("  # - local: http://b\n  #   hostPrefix: a\n"),
            "{text}"
        );
        assert!(
            text.contains("  - local: http://a\n    hostPrefix: a\n"),
            "{text}"
        );
        assert_eq!((counts.lost, counts.todo), (1, 0));
        assert!(!draft.turn_off(100, "no such line"));
        assert!(draft.turn_off_entry("services", 0, "it is wrong, too"));
        assert!(!draft.turn_off_entry("services", 0, "none is left"));
    }
}
