//! A configuration file without its secrets, for a person to edit, and with them again afterwards. Not the
//! storage of the file.
//!
//! Each secret is replaced by its number in the file, as in `secret: "******1"`. Numbers may move and be deleted;
//! a value that is not such a number is a new one. Secrets in comments are those of options that are switched off.

use super::file::Document;
use super::foreign::Content;
use super::secret::redact;
use super::summary::is_secret_key;
use super::yaml::{Node, NodeKind};
use super::ConfigError;
use serde_json::{Map, Value};
use std::ops::Range;
use std::path::Path;

/// What the number of a secret stands behind.
const MASK: &str = "******";

/// What is wrong with a number of a secret in another place.
const MISPLACED: &str =
    "A hidden value stands where none can be: only values of secrets, passwords and keys, and \
                         addresses with a password in them, are hidden, as a whole.";

/// Returns the text of a file with numbers in place of its secrets.
pub fn mask(path: &Path, text: &str, content: Content) -> Result<String, ConfigError> {
    let secrets = secrets(path, text, content, false)?;
    let mut masked = String::new();
    let mut end = 0;
    for (number, range) in (1usize..).zip(&secrets) {
        masked += text.get(end..range.start).unwrap_or_default();
        masked += &format!("\"{MASK}{number}\"");
        end = range.end;
    }
    masked += text.get(end..).unwrap_or_default();
    Ok(masked)
}

/// Returns an edited text with the secrets of the text before the edit in place of their numbers. Does not
/// check what else it says.
pub fn unmask(
    path: &Path,
    before: &str,
    edited: &str,
    content: Content,
) -> Result<String, ConfigError> {
    let known = secrets(path, before, content, false)?;
    refuse_marks(path, edited, content)?;
    let mut text = String::new();
    let mut end = 0;
    let mut restored = Vec::new();
    for range in secrets(path, edited, content, true)? {
        let written = edited.get(range.clone()).unwrap_or_default();
        let Some(number) = number(written) else {
            continue;
        };
        let at = number.checked_sub(1).and_then(|at| known.get(at));
        let Some(secret) = at.and_then(|range| before.get(range.clone())) else {
            let why = "There is no hidden value with this number.";
            return Err(fault(path, edited, range.start, why));
        };
        text += edited.get(end..range.start).unwrap_or_default();
        restored.push(text.len()..text.len().saturating_add(secret.len()));
        text += secret;
        end = range.end;
    }
    text += edited.get(end..).unwrap_or_default();
    // What is not a secret is shown, so a secret must not come there.
    let hidden = secrets(path, &text, content, false)?;
    let mut shown = restored.iter().filter(|range| !hidden.contains(range));
    match shown.next() {
        None => Ok(text),
        Some(range) => Err(fault(path, &text, range.start, MISPLACED)),
    }
}

/// Whether a call gives a secret that has a part of what stands for one, as if it had been read here.
pub fn has_mark(values: &Map<String, Value>) -> bool {
    fn is_in(value: &Value) -> bool {
        match value {
            Value::String(text) => text.contains(MASK),
            Value::Array(values) => values.iter().any(is_in),
            _ => false,
        }
    }
    values
        .iter()
        .any(|(key, value)| is_secret_key(key) && is_in(value))
}

/// Fails if a key is the number of a secret, or a new secret looks like one. Comments may have anything in them.
fn refuse_marks(path: &Path, edited: &str, content: Content) -> Result<(), ConfigError> {
    let document = Document::parse(path, edited.to_owned(), content)?;
    let tree = document.tree();
    let Some(node) = wrong_mark(tree.root(), false) else {
        return Ok(());
    };
    let place = tree.places_of(&[node]).into_iter().next().flatten();
    let line = place.map_or(String::new(), |(line, _)| format!(" line {line}:"));
    let shown = path.display();
    Err(ConfigError::new(format!("{shown}:{line} {MISPLACED}")))
}

/// Returns a value that looks like the number of a secret and is not one, or has such a key.
fn wrong_mark(node: &Node, is_secret: bool) -> Option<&Node> {
    match &node.kind {
        NodeKind::Null => None,
        NodeKind::Text(text) => {
            let is_hidden = is_secret || text.contains("://") && redact(text) != *text;
            let is_wrong = is_hidden && text.contains(MASK) && number(text).is_none();
            is_wrong.then_some(node)
        }
        NodeKind::List(nodes) => nodes.iter().find_map(|it| wrong_mark(it, is_secret)),
        NodeKind::Map(entries) => entries.iter().find_map(|(key, node)| {
            let is_section = matches!(node.kind, NodeKind::Map(_));
            let is_key = is_secret_key(key) && !is_section;
            let found = number(key).map(|_| node);
            found.or_else(|| wrong_mark(node, is_secret || is_key))
        }),
    }
}

/// Returns the number that a text in quotation marks stands for.
fn number(written: &str) -> Option<usize> {
    let text = written.trim_matches(['"', '\'']);
    text.strip_prefix(MASK)?.parse().ok()
}

fn fault(path: &Path, text: &str, at: usize, why: &str) -> ConfigError {
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count().saturating_add(1);
    ConfigError::new(format!("{}: line {line}: {why}", path.display()))
}

/// Returns where the secrets of a file are, in their order, with their quotation marks; also what stands for a
/// secret if it is `masked`.
fn secrets(
    path: &Path,
    text: &str,
    content: Content,
    masked: bool,
) -> Result<Vec<Range<usize>>, ConfigError> {
    let document = Document::parse(path, text.to_owned(), content)?;
    let tree = document.tree();
    let mut found = Vec::new();
    collect(tree.root(), false, masked, &mut found);
    let places = tree.places_of(&found);
    let lines: Vec<usize> = [0]
        .into_iter()
        .chain(text.match_indices('\n').map(|(at, _)| at.saturating_add(1)))
        .collect();
    let mut ranges = Vec::new();
    for (node, place) in found.iter().zip(places) {
        let NodeKind::Text(value) = &node.kind else {
            continue;
        };
        let range = place.and_then(|(line, column)| {
            let start = *lines.get(line.checked_sub(1)?)?;
            let rest = text.get(start..)?;
            let (offset, _) = rest.char_indices().nth(column.checked_sub(1)?)?;
            let start = start.checked_add(offset)?;
            let length = written_length(text.get(start..)?, value)?;
            Some(start..start.checked_add(length)?)
        });
        match range {
            Some(range) => ranges.push(range),
            None => {
                let line = place.map_or(String::new(), |(line, _)| format!(" on line {line}"));
                return Err(ConfigError::new(format!(
                    "{}: The secret{line} is written in a form that cannot be hidden: write it behind its key, on \
                     one line.",
                    path.display()
                )));
            }
        }
    }
    ranges.extend(comments(text).flat_map(|(start, comment)| in_comment(start, comment, masked)));
    // An alias stands for one value at several places.
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.dedup();
    Ok(ranges)
}

/// Returns the comments of a text, from their `#` on, and where they begin. What is behind an odd number of quotation
/// marks may be in a value, and is left out.
fn comments(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut start = 0_usize;
    text.split_inclusive('\n').filter_map(move |line| {
        let begin = start;
        start = start.saturating_add(line.len());
        let mut marks = line.match_indices('#').map(|(at, _)| line.split_at(at));
        let (before, comment) = marks.find(|(before, _)| {
            let is_even = |quote| before.matches(quote).count() % 2 == 0;
            (before.is_empty() || before.ends_with([' ', '\t'])) && is_even('"') && is_even('\'')
        })?;
        Some((begin.saturating_add(before.len()), comment.trim_end()))
    })
}

/// Returns where a comment has the values of keys that are secrets, or that look like one. `start` is where the comment
/// begins in its text.
fn in_comment(start: usize, comment: &str, masked: bool) -> Vec<Range<usize>> {
    let colons = comment.match_indices(": ").map(|(at, _)| at);
    let values = colons.filter_map(|colon| {
        let before = comment.get(..colon)?.trim_end_matches(['"', '\'']);
        let key = before.rsplit(|c: char| !c.is_ascii_alphanumeric()).next()?;
        let before = before.strip_suffix(key)?.trim_end_matches(['"', '\'', ' ']);
        // Not a sentence about a secret.
        let is_key = before.ends_with(['#', '-', '{', '[', ',']);
        is_key.then_some((key, colon.checked_add(2)?))
    });
    // An entry of a list: a password with its name, for example.
    let item = comment.trim_start_matches('#').trim_start();
    let item = item
        .strip_prefix("- ")
        .map(|value| ("", comment.len().saturating_sub(value.len())));
    let found = values.chain(item).filter_map(|(key, at)| {
        let rest = comment.get(at..)?;
        let value = rest.trim_start();
        let at = at.checked_add(rest.len().checked_sub(value.len())?)?;
        let value = value.get(..value_length(value))?.trim_end();
        let is_address = value.contains("://") && redact(value) != *value;
        let is_masked = masked && number(value).is_some();
        let is_secret = is_secret_key(key) || is_address || value.contains("$pbkdf2-");
        if value.is_empty() || value.starts_with(['{', '[']) || !(is_secret || is_masked) {
            return None;
        }
        let begin = start.checked_add(at)?;
        Some(begin..begin.checked_add(value.len())?)
    });
    found.collect()
}

/// Returns the length of a value in a comment: to its other quotation mark, or to the end of an entry.
fn value_length(value: &str) -> usize {
    let quoted = value.chars().next().filter(|it| matches!(it, '"' | '\''));
    let end = match quoted {
        Some(quote) => {
            let end = value.get(1..).and_then(|rest| rest.find(quote));
            end.and_then(|at| at.checked_add(2))
        }
        None => ["}", "]", ", ", " #"]
            .iter()
            .filter_map(|it| value.find(it))
            .min(),
    };
    end.unwrap_or(value.len())
}

/// Adds the texts below a node that are secrets, or stand for one if the file is `masked`.
fn collect<'t>(node: &'t Node, is_secret: bool, masked: bool, found: &mut Vec<&'t Node>) {
    match &node.kind {
        NodeKind::Null => {}
        NodeKind::Text(text) => {
            let is_address = text.contains("://") && redact(text) != *text;
            let is_masked = masked && number(text).is_some();
            if !text.is_empty() && (is_secret || is_address || is_masked) {
                found.push(node);
            }
        }
        NodeKind::List(nodes) => {
            nodes
                .iter()
                .for_each(|it| collect(it, is_secret, masked, found));
        }
        NodeKind::Map(entries) => {
            for (key, node) in entries {
                // A user may have the name of an option.
                let is_section = matches!(node.kind, NodeKind::Map(_));
                let is_key = is_secret_key(key) && !is_section;
                collect(node, is_secret || is_key, masked, found);
            }
        }
    }
}

/// Returns the length of a value as it is written at the beginning of `rest`, if it is the one that is meant.
fn written_length(rest: &str, value: &str) -> Option<usize> {
    let quoted = match rest.bytes().next()? {
        b'"' => {
            let mut is_escaped = false;
            let mut chars = rest.char_indices().skip(1);
            chars.find(|(_, c)| {
                let ends = *c == '"' && !is_escaped;
                is_escaped = *c == '\\' && !is_escaped;
                ends
            })
        }
        b'\'' => {
            let mut chars = rest.char_indices().skip(1).peekable();
            loop {
                let (at, c) = chars.next()?;
                if c == '\'' && chars.next_if(|(_, next)| *next == '\'').is_none() {
                    break Some((at, c));
                }
            }
        }
        _ => return rest.starts_with(value).then_some(value.len()),
    };
    let length = quoted?.0.checked_add(1)?;
    let read: String = serde_yaml::from_str(rest.get(..length)?).ok()?;
    (read == value).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# The secret: not this one
users:
  alice: {secret: s3cret, speed: 5} # secret: s3cret
  \"böb\":   {\"secret\": \"a\\\"b\" }
  secret:
    secret: 'it''s'
services:
- local: http://127.0.0.1:80
  password:
    - alice:$pbkdf2$x
    - \"bob:y\"
options:
  remoteProxy: http://user:pw@proxy:3128
  sentryDSN:
    https://key@sentry.example/1
  secret: ''
";

    fn masked(text: &str) -> Result<String, ConfigError> {
        mask(Path::new("gt.yaml"), text, Content::Configuration)
    }

    fn unmasked(edited: &str) -> Result<String, ConfigError> {
        unmask(Path::new("gt.yaml"), TEXT, edited, Content::Configuration)
    }

    #[test]
    fn a_masked_file_has_no_secrets_and_reads_as_before() {
        let masked = masked(TEXT).unwrap();
        for secret in [
            "s3cret", "a\\\"b", "it''s", "pbkdf2", "bob:y", "user:pw", "key@",
        ] {
            assert!(!masked.contains(secret), "{secret} in {masked}");
        }
        assert!(masked.starts_with(
            "# The secret: not this one\nusers:\n  alice: {secret: \"******1\", speed: 5} # secret: \"******2\"\n"
        ));
        assert!(
            masked.contains("password:\n    - \"******5\"\n    - \"******6\"\n"),
            "{masked}"
        );
        assert_eq!(unmasked(&masked).unwrap(), TEXT);
    }

    #[test]
    fn edited_text_keeps_secrets_that_have_moved_and_takes_new_ones() {
        let edited = "users:\n  bob: {secret: \"******3\"}\n  carol: {secret: new}\noptions: {secret: '******4'}\n";
        let text = unmasked(edited).unwrap();
        assert_eq!(
            text,
            "users:\n  bob: {secret: \"a\\\"b\"}\n  carol: {secret: new}\noptions: {secret: 'it''s'}\n"
        );
    }

    #[test]
    fn secrets_in_comments_are_hidden_too_and_may_be_switched_on() {
        let text = "options:\n  id: a\n  # secret: s3cret one\n  #secret: \"s3cret\"  \n  secret: s3cret # secret: s3cret, perhaps\n  \
                    #   - bob:$pbkdf2-sha256$s3cret\n  # remoteProxy: http://a:s3cret@b # no secret here\n\
                    # users: {a: {secret: s3cret}, b: {'secret': 's3cret'}}\nmore: \"a # secret: b\"\n# secret:\n";
        let shown = masked(text).unwrap();
        assert!(!shown.contains("s3cret"), "{shown}");
        assert!(shown.contains("  # secret: \"******1\"\n  #secret: \"******2\"  \n  secret: \"******3\" # secret: \"******4\", perhaps\n"), "{shown}");
        assert!(
            shown.ends_with("more: \"a # secret: b\"\n# secret:\n"),
            "{shown}"
        );
        let path = Path::new("gt.yaml");
        let unmasked = |edited: &str| unmask(path, text, edited, Content::Configuration);
        assert_eq!(unmasked(&shown).unwrap(), text);
        let switched = shown
            .replace("  #secret: \"******2\"", "  groupKey: \"******2\"")
            .replace("  secret: \"******3\"", "  # secret: \"******3\"");
        let switched = unmasked(&switched).unwrap();
        assert!(
            switched.contains("  groupKey: \"s3cret\"  \n  # secret: s3cret # "),
            "{switched}"
        );
        let why = unmasked(&shown.replace("id: a", "id: \"******1\""))
            .unwrap_err()
            .to_string();
        assert!(why.contains("line 2: ") && !why.contains("s3cret"), "{why}");
        let why = unmasked("# id: \"******1\"\n").unwrap_err().to_string();
        assert!(why.contains("line 1: ") && !why.contains("s3cret"), "{why}");
    }

    #[test]
    fn a_secret_cannot_be_moved_to_where_it_is_shown() {
        for (edited, line) in [
            ("options:\n  id: \"******1\"\n", 2),
            ("options:\n  secret: a******1\n", 2),
            ("options:\n  password: [\"bob:******\"]\n", 2),
            ("options:\n  secret: \"******99\"\n", 2),
            ("\"******1\": 1\n", 1),
        ] {
            let why = unmasked(edited).unwrap_err().to_string();
            assert!(why.contains(&format!("line {line}: ")), "{edited}: {why}");
            assert!(!why.contains("s3cret"));
        }
        let why = unmasked("a: [").unwrap_err().to_string();
        assert!(why.contains("line "), "{why}");
    }

    #[test]
    fn comments_and_what_is_not_hidden_may_look_like_a_number() {
        let text = "# ******\noptions: {id: a, secret: b} # \"******1\"\nmore: \"a ******\"\n";
        let shown = masked(text).unwrap();
        let path = Path::new("gt.yaml");
        let again = unmask(path, text, &shown, Content::Configuration);
        assert_eq!(again.unwrap(), text);
        // A secret that was written so by hand is kept.
        let text = "options: {secret: \"******7\"}\n";
        let shown = masked(text).unwrap();
        let again = unmask(path, text, &shown, Content::Configuration);
        assert_eq!(again.unwrap(), text);
        let values = |value: Value| value.as_object().unwrap().clone();
        let has = |value| has_mark(&values(value));
        assert!(has(serde_json::json!({"password": ["bob:******"]})));
        assert!(has(serde_json::json!({"secret": "******1"})));
        assert!(!has(
            serde_json::json!({"secret": "*****1", "local": "******"})
        ));
    }

    #[test]
    fn a_form_that_cannot_be_hidden_is_an_error() {
        for text in [
            "options:\n  secret: |\n    s3cret\n",
            "options:\n  secret: two\n    lines\n",
            "options:\n  secret: &a s3cret\nusers: {a: {secret: *a}}\n",
        ] {
            let shown = masked(text);
            let is_hidden = shown.as_ref().is_ok_and(|it| !it.contains("s3cret"));
            assert!(shown.is_err() || is_hidden, "{text}: {shown:?}");
        }
    }
}
