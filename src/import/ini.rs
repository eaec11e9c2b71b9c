//! The INI format that frp had before version 0.52: sections, `key = value`, comments of whole lines. Its
//! settings get the names that they have in frp's TOML; `names` has the list.

use super::names::{self, Section};
use super::tree::{Node, NodeKind, Place};

/// Maximum number of settings in a file.
const MAX_SETTINGS: usize = 10_000;

/// Returns the name of a section from its line.
pub fn section(line: &str) -> Option<&str> {
    let line = line.split_once(" #").map_or(line, |(line, _)| line);
    let name = line.trim_end().strip_prefix('[')?.strip_suffix(']')?;
    let is_name = !name.is_empty() && !name.starts_with('[') && !name.contains([',', '"', '\'']);
    is_name.then(|| name.trim())
}

/// Splits a line `key = value`.
pub fn setting(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once('=')?;
    let key = key.trim();
    let usual = |c: char| c.is_ascii_alphanumeric() || "-_.\"".contains(c);
    (!key.is_empty() && key.chars().all(usual)).then(|| (key, value.trim()))
}

/// Whether a line may stand in such a file.
pub fn is_line(line: &str) -> bool {
    let is_other = line.is_empty() || line.starts_with(['#', ';']) || line.starts_with("{{");
    is_other || section(line).is_some() || setting(line).is_some()
}

/// Reads a file. The error names the line.
pub fn read(text: &str) -> Result<Node, String> {
    let mut root = Node::of_file(NodeKind::Map(Vec::new()));
    let mut sections: Vec<Section<'_>> = Vec::new();
    let mut count = 0usize;
    for (number, line) in (1usize..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = section(line) {
            sections.push(Section {
                name,
                line: number,
                settings: Vec::new(),
            });
            continue;
        }
        let wrong = |why: &str| format!("line {number}: {why} (read as INI)");
        let Some((key, value)) = setting(line) else {
            return Err(wrong("this is neither a [section] nor key = value"));
        };
        let Some(section) = sections.last_mut() else {
            return Err(wrong("this setting stands before the first [section]"));
        };
        count = count.saturating_add(1);
        if count > MAX_SETTINGS {
            return Err(wrong(&format!(
                "there are more than {MAX_SETTINGS} settings; no configuration has as many"
            )));
        }
        let place = Place::key(None, &format!("[{}] {key}", section.name), Some(number));
        let text = NodeKind::Text(unquoted(value).to_owned());
        section.settings.push(Node::new(place, text));
    }
    if !sections.iter().any(names::is_of_frp) {
        return Err(
            "it has sections, but none of frp: no [common] with settings that gt knows, and no other one \
             with a type or a plugin (read as INI)"
                .to_owned(),
        );
    }
    names::add(&mut root, sections);
    Ok(root)
}

/// Removes a pair of quotes around a value.
fn unquoted(value: &str) -> &str {
    let inner = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    ['"', '\'', '`']
        .into_iter()
        .find_map(inner)
        .unwrap_or(value)
}
