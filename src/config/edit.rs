//! Changes of single entries in the text of a configuration file: lists of services, and users. Comments and
//! the order of lines stay. Not the meaning of keys.
//!
//! Entries are found by their indentation, in block style; what is written in another style can be edited as a
//! text alone. The caller checks the result: see `edit_check`.

use serde_json::{Map, Value};

/// Why an entry cannot be changed: a sentence.
pub type EditError = String;

/// A section whose entries are edited.
#[derive(Clone, Copy)]
pub enum Entries<'a> {
    /// The list below a key at the top of the file.
    ListOf(&'a str),
    /// The keys below a key at the top of the file.
    KeysOf(&'a str),
    /// The keys at the top of the file.
    Top,
}

/// Values by which the keys of an entry are replaced; `null` removes a key.
pub type Changes = Map<String, Value>;

/// The lines of a file, and where the entries of a section are.
struct Section {
    lines: Vec<String>,
    /// Where a first entry would be written.
    end: usize,
    /// Indentation of the entries; of none, that which they would have.
    indent: usize,
    /// The first line and the end of each entry, without the comments before the next one.
    entries: Vec<(usize, usize)>,
    is_list: bool,
}

fn indent_of(line: &str) -> usize {
    line.len()
        .saturating_sub(line.trim_start_matches(' ').len())
}

/// Whether a line has neither a key nor a value.
fn is_empty(line: &str) -> bool {
    let text = line.trim();
    text.is_empty() || text.starts_with('#')
}

fn is_item(line: &str) -> bool {
    let text = line.trim_start_matches(' ');
    text == "-" || text.starts_with("- ")
}

/// Returns the key at the beginning of a line, and what stands behind it.
fn key_of(line: &str) -> Option<(String, &str)> {
    let text = line.trim_start_matches(' ');
    let (key, rest) = match text.chars().next()? {
        quote @ ('"' | '\'') => {
            let inside = text.get(1..)?;
            let end = inside.find(quote)?;
            let (key, rest) = (inside.get(..end)?, inside.get(end..)?.get(1..)?);
            // An escape would need a parser.
            if key.contains('\\') {
                return None;
            }
            (key, rest.trim_start().strip_prefix(':')?)
        }
        _ => {
            let colon = text.match_indices(':').map(|(at, _)| at).find(|at| {
                let next = text.as_bytes().get(at.saturating_add(1));
                next.is_none_or(|next| *next == b' ')
            })?;
            (text.get(..colon)?.trim_end(), text.get(colon..)?.get(1..)?)
        }
    };
    let is_value = rest.is_empty() || rest.starts_with(' ');
    is_value.then(|| (key.to_owned(), rest.trim()))
}

impl Section {
    /// Finds the entries of a section; adds the section if it is missing.
    fn find(text: &str, which: Entries<'_>) -> Result<Self, EditError> {
        let mut lines: Vec<String> = text
            .lines()
            .map(|line| line.trim_end_matches('\r').to_owned())
            .collect();
        if lines
            .iter()
            .any(|line| line.contains('\t') && line.trim_start_matches(' ').starts_with('\t'))
        {
            return Err("The file is indented by tabs: edit it as a text.".to_owned());
        }
        let is_list = matches!(which, Entries::ListOf(_));
        let (Entries::ListOf(name) | Entries::KeysOf(name)) = which else {
            let end = lines.len();
            return Ok(Self::between(lines, 0, end, 0, is_list));
        };
        let is_head = |line: &String| {
            indent_of(line) == 0
                && !is_empty(line)
                && key_of(line).is_some_and(|(key, _)| key == name)
        };
        let Some(head) = lines.iter().position(is_head) else {
            lines.push(format!("{name}:"));
            let end = lines.len();
            return Ok(Self::between(lines, end, end, 2, is_list));
        };
        let value = lines
            .get(head)
            .and_then(|line| key_of(line))
            .map_or("", |(_, value)| value);
        let value = value.split(" #").next().unwrap_or_default().trim();
        match value {
            value if value.is_empty() || value.starts_with('#') => {}
            "{}" | "[]" | "null" | "~" => {
                if let Some(line) = lines.get_mut(head) {
                    *line = format!("{name}:");
                }
            }
            _ => {
                return Err(format!(
                    "{name} is not written as a block with a line for each entry: edit the file as a text."
                ))
            }
        }
        let begin = head.saturating_add(1);
        let is_outside =
            |line: &String| !is_empty(line) && indent_of(line) == 0 && !(is_list && is_item(line));
        let rest = lines.iter().skip(begin);
        let end = rest
            .clone()
            .position(is_outside)
            .map_or(lines.len(), |at| begin.saturating_add(at));
        let first = lines
            .iter()
            .take(end)
            .skip(begin)
            .find(|line| !is_empty(line));
        let indent = first.map_or(2, |line| indent_of(line));
        Ok(Self::between(lines, begin, end, indent, is_list))
    }

    fn between(lines: Vec<String>, begin: usize, end: usize, indent: usize, is_list: bool) -> Self {
        let starts = |line: &String| {
            !is_empty(line) && indent_of(line) == indent && (!is_list || is_item(line))
        };
        let numbered = (0..).zip(&lines).take(end).skip(begin);
        let starts: Vec<usize> = numbered
            .filter(|(_, line)| starts(line))
            .map(|(at, _)| at)
            .collect();
        let ends = starts.iter().skip(1).copied().chain([end]);
        let trimmed = |(start, end): (usize, usize)| {
            let body = lines.iter().take(end).skip(start);
            let last = body.clone().rev().position(|line| {
                !is_empty(line) || indent_of(line) > indent && !line.trim().is_empty()
            });
            (start, end.saturating_sub(last.unwrap_or(0)))
        };
        let entries: Vec<_> = starts.iter().copied().zip(ends).map(trimmed).collect();
        let end = entries.last().map_or(begin, |(_, end)| *end);
        Self {
            lines,
            end,
            indent,
            entries,
            is_list,
        }
    }

    fn text(self) -> String {
        let mut text = self.lines.join("\n");
        text.push('\n');
        text
    }

    fn insert(&mut self, at: usize, lines: Vec<String>) {
        let at = at.min(self.lines.len());
        self.lines.splice(at..at, lines);
    }
}

/// Returns a changed text with CR LF at the ends of its lines if the text before the change has these alone, as files
/// from Windows do. Browsers take them away.
pub fn with_ends_of(before: &str, text: String) -> String {
    let ends = before.matches('\n').count();
    match ends > 0 && before.matches("\r\n").count() == ends {
        true => text.replace("\r\n", "\n").replace('\n', "\r\n"),
        false => text,
    }
}

/// Returns the number of entries.
#[cfg(test)]
fn count(text: &str, which: Entries<'_>) -> Result<usize, EditError> {
    Section::find(text, which).map(|section| section.entries.len())
}

/// Adds an entry at the end: an item of a list, or a key with its section.
pub fn add(
    text: &str,
    which: Entries<'_>,
    key: &str,
    values: &Changes,
) -> Result<String, EditError> {
    let mut section = Section::find(text, which)?;
    let pad = " ".repeat(section.indent);
    let inner = " ".repeat(section.indent.saturating_add(2));
    let mut lines = Vec::new();
    if !section.is_list {
        lines.push(format!("{pad}{}:", scalar(key)));
    }
    // The rest is in the order of the alphabet.
    let is_first = |(key, _): &(&String, &Value)| matches!(key.as_str(), "local" | "secret");
    let (first, rest): (Vec<_>, Vec<_>) = values.iter().partition(is_first);
    let given = first
        .into_iter()
        .chain(rest)
        .filter(|(_, value)| !value.is_null());
    for (key, value) in given {
        let begin = match section.is_list && lines.is_empty() {
            true => format!("{pad}- "),
            false => inner.clone(),
        };
        lines.push(format!("{begin}{}: {}", scalar(key), written(value)));
    }
    if lines.is_empty() {
        return Err("The entry is empty.".to_owned());
    }
    section.insert(section.end, lines);
    Ok(with_ends_of(text, section.text()))
}

/// Removes an entry.
pub fn remove(text: &str, which: Entries<'_>, at: usize) -> Result<String, EditError> {
    let mut section = Section::find(text, which)?;
    let (start, end) = entry(&section, at)?;
    section.lines.drain(start..end.min(section.lines.len()));
    Ok(with_ends_of(text, section.text()))
}

/// Changes the keys of an entry; the others stay as they are written.
pub fn change(
    text: &str,
    which: Entries<'_>,
    at: usize,
    changes: &Changes,
) -> Result<String, EditError> {
    let mut section = Section::find(text, which)?;
    let (start, end) = entry(&section, at)?;
    let in_line = || "The entry is written on one line: edit the file as a text.".to_owned();
    let first = section.lines.get(start).cloned().unwrap_or_default();
    // A dash is as good as a blank here.
    let (mut first_key, mut keys_indent) = (start.saturating_add(1), None);
    if section.is_list {
        let text = first.trim_start_matches(' ').get(1..).unwrap_or_default();
        let inner = text.trim_start_matches(' ');
        if !inner.is_empty() && !inner.starts_with('#') {
            key_of(inner)
                .filter(|_| !inner.starts_with(['{', '[']))
                .ok_or_else(in_line)?;
            let indent = first.len().saturating_sub(inner.len());
            first_key = start;
            keys_indent = Some(indent);
            if let Some(line) = section.lines.get_mut(start) {
                *line = format!("{}{inner}", " ".repeat(indent));
            }
        }
    } else {
        let value = key_of(&first)
            .map(|(_, value)| value.to_owned())
            .unwrap_or_default();
        if !value.is_empty() && !value.starts_with('#') {
            return Err(in_line());
        }
    }
    let inside = section.lines.iter().take(end).skip(first_key);
    let found = inside
        .clone()
        .find(|line| !is_empty(line))
        .map(|line| indent_of(line));
    let indent = keys_indent
        .or(found)
        .unwrap_or(section.indent.saturating_add(2));
    let mut end = end;
    for (key, value) in changes {
        let is_key = |line: &String| {
            !is_empty(line)
                && indent_of(line) == indent
                && key_of(line).is_some_and(|(it, _)| it == *key)
        };
        let inside = section.lines.iter().take(end).skip(first_key);
        let at = inside
            .clone()
            .position(is_key)
            .map(|at| first_key.saturating_add(at));
        let line = format!("{}{}: {}", " ".repeat(indent), scalar(key), written(value));
        let Some(at) = at else {
            if !value.is_null() {
                section.insert(end, vec![line]);
                end = end.saturating_add(1);
            }
            continue;
        };
        // The value may go on, deeper or as a list at the same depth, also behind blank lines and comments.
        let goes_on =
            |line: &str| indent_of(line) > indent || indent_of(line) == indent && is_item(line);
        let rest = section
            .lines
            .iter()
            .take(end)
            .skip(at.saturating_add(1))
            .take_while(|line| is_empty(line) || goes_on(line));
        let last = (1usize..)
            .zip(rest)
            .filter(|(_, line)| !is_empty(line) && goes_on(line))
            .last();
        let more = last.map_or(0, |(number, _)| number);
        let comment = section
            .lines
            .get(at)
            .and_then(|line| comment_of(line))
            .filter(|_| more == 0);
        let line = match (value.is_null(), comment) {
            (true, _) => None,
            (false, Some(comment)) => Some(format!("{line} {comment}")),
            (false, None) => Some(line),
        };
        end = end
            .saturating_sub(more.saturating_add(1))
            .saturating_add(usize::from(line.is_some()));
        section.lines.splice(at..=at.saturating_add(more), line);
    }
    if section.is_list {
        // The dash comes back, before what is the first key now.
        let first = section
            .lines
            .iter()
            .take(end)
            .skip(start)
            .position(|line| !is_empty(line));
        let at = start.saturating_add(first.ok_or("The entry would be empty.")?);
        let pad = section.indent;
        if first_key == start {
            if let Some(line) = section.lines.get_mut(at) {
                let inner = line.trim_start_matches(' ').to_owned();
                let gap = indent.saturating_sub(pad).saturating_sub(1);
                *line = format!("{}-{}{inner}", " ".repeat(pad), " ".repeat(gap));
            }
        }
    }
    Ok(with_ends_of(text, section.text()))
}

/// Returns the place of the entry with this key.
pub fn place_of(text: &str, which: Entries<'_>, key: &str) -> Result<Option<usize>, EditError> {
    let section = Section::find(text, which)?;
    let keys = section.entries.iter().map(|(start, _)| {
        let line = section.lines.get(*start)?;
        key_of(line).map(|(key, _)| key)
    });
    Ok(keys.into_iter().position(|it| it.as_deref() == Some(key)))
}

fn entry(section: &Section, at: usize) -> Result<(usize, usize), EditError> {
    let entry = section.entries.get(at).copied();
    entry.ok_or_else(|| "There is no such entry in the file.".to_owned())
}

/// Returns the comment at the end of a line whose value has no `#`.
fn comment_of(line: &str) -> Option<&str> {
    let at = line.find(" #")?;
    let comment = line.get(at..)?.trim();
    (!comment.contains(['"', '\''])).then_some(comment)
}

/// Writes a value on one line. JSON is YAML.
fn written(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        value => value.to_string(),
    }
}

/// Writes a text as it is, if YAML reads it so, or else in quotation marks.
fn scalar(text: &str) -> String {
    let begins = |c: char| c.is_ascii_alphanumeric() || c == '/';
    let usual = |c: char| c.is_ascii_alphanumeric() || "/.:_-+@$=%".contains(c);
    let is_plain = text.starts_with(begins) && text.chars().all(usual) && !text.ends_with(':');
    let is_word = ["null", "true", "false", "yes", "no", "on", "off"]
        .iter()
        .any(|it| text.eq_ignore_ascii_case(it));
    match is_plain && !is_word {
        true => text.to_owned(),
        false => Value::from(text).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TEXT: &str = "\
# A client
options:
  id: a
services:
  # the camera
  - local: http://127.0.0.1:80 # on the shelf
    hostPrefix: cam
    password:
      - one
      - two
    # rarely
    speed: 5

  # the shell
  -   local: tcp://127.0.0.1:22
      remoteTCPPort: 2222
# the end
";

    fn map(value: Value) -> Changes {
        value.as_object().unwrap().clone()
    }

    const SERVICES: Entries<'_> = Entries::ListOf("services");

    #[test]
    fn entries_are_added_removed_and_changed_and_the_rest_stays() {
        assert_eq!(count(TEXT, SERVICES), Ok(2));
        let more = map(
            json!({"local": "udp://127.0.0.1:53", "allow": ["10.0.0.0/8"], "hostPrefix": "a: b"}),
        );
        let added = add(TEXT, SERVICES, "", &more).unwrap();
        let (before, after) = TEXT.split_at(TEXT.find("# the end").unwrap());
        assert_eq!(
            added,
            format!("{before}  - local: udp://127.0.0.1:53\n    allow: [\"10.0.0.0/8\"]\n    hostPrefix: \"a: b\"\n{after}")
        );
        let removed = remove(TEXT, SERVICES, 0).unwrap();
        assert!(
            removed.contains("# the camera\n\n  # the shell\n  -   local"),
            "{removed}"
        );
        let changed = change(
            TEXT,
            SERVICES,
            0,
            &map(json!({"local": "http://127.0.0.1:81", "password": null, "speed": 6, "hostPrefix": null, "forwarded": true})),
        )
        .unwrap();
        let expected = "  - local: http://127.0.0.1:81 # on the shelf\n    # rarely\n    speed: 6\n    forwarded: true\n\n  # the shell";
        assert!(changed.contains(expected), "{changed}");
        let changed = change(
            TEXT,
            SERVICES,
            1,
            &map(json!({"local": null, "remoteTCPPort": 22})),
        )
        .unwrap();
        assert!(
            changed.contains("  # the shell\n  -   remoteTCPPort: 22\n# the end"),
            "{changed}"
        );
        assert!(change(TEXT, SERVICES, 2, &Changes::new()).is_err());
        assert!(remove(TEXT, SERVICES, 2).is_err());
    }

    #[test]
    fn sections_may_be_missing_empty_or_not_indented() {
        let one = map(json!({"local": "x"}));
        for (text, expected) in [
            ("a: b\n", "a: b\nservices:\n  - local: x\n"),
            ("services:\na: b\n", "services:\n  - local: x\na: b\n"),
            ("services: []\n", "services:\n  - local: x\n"),
            (
                "services:\n- local: y\na: b",
                "services:\n- local: y\n- local: x\na: b\n",
            ),
            ("services: # all\n", "services: # all\n  - local: x\n"),
        ] {
            assert_eq!(add(text, SERVICES, "", &one).as_deref(), Ok(expected));
        }
        for text in ["services: [{local: y}]\n", "services: {local: y}\n"] {
            assert!(add(text, SERVICES, "", &one).is_err(), "{text}");
        }
        let line = "services:\n  - {local: y}\n";
        assert!(change(line, SERVICES, 0, &one).is_err());
        assert_eq!(remove(line, SERVICES, 0).as_deref(), Ok("services:\n"));
    }

    #[test]
    fn a_value_goes_on_behind_blank_lines_and_comments() {
        let text = "users:\n  a:\n    secret: s\n    host:\n      # two\n\n      - one\n\n    # last\n    - two\n    # speed\n    speed: 5\n";
        for (value, line) in [(json!(null), ""), (json!("x"), "    host: x\n")] {
            let changed = change(
                text,
                Entries::KeysOf("users"),
                0,
                &map(json!({"host": value})),
            );
            let expected =
                format!("users:\n  a:\n    secret: s\n{line}    # speed\n    speed: 5\n");
            assert_eq!(changed, Ok(expected));
        }
    }

    #[test]
    fn users_are_keys() {
        let text = "users:\n  alice:\n    secret: a # old\n    speed: 5\n  \"b c\": {secret: b}\n";
        let users = Entries::KeysOf("users");
        assert_eq!(place_of(text, users, "b c"), Ok(Some(1)));
        assert_eq!(place_of(text, users, "secret"), Ok(None));
        let changed = change(
            text,
            users,
            0,
            &map(json!({"secret": "n", "speed": null, "disabled": true})),
        )
        .unwrap();
        assert!(
            changed.starts_with(
                "users:\n  alice:\n    secret: n # old\n    disabled: true\n  \"b c\""
            ),
            "{changed}"
        );
        assert!(change(text, users, 1, &map(json!({"secret": "n"}))).is_err());
        let added = add(text, users, "12: x", &map(json!({"secret": "s"}))).unwrap();
        assert!(
            added.ends_with("{secret: b}\n  \"12: x\":\n    secret: s\n"),
            "{added}"
        );
        let top = "alice:\n  secret: a\n";
        assert_eq!(
            add(
                top,
                Entries::Top,
                "bob",
                &map(json!({"tcp": [{"range": "1-2"}]}))
            )
            .as_deref(),
            Ok("alice:\n  secret: a\nbob:\n  tcp: [{\"range\":\"1-2\"}]\n")
        );
    }
}
