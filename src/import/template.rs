//! Go templates in files of frp: `{{ .Envs.NAME }}` in a value, and blocks such as `{{ range … }}`. gt has
//! none; the rest of a file is read without them.

use super::tree::Leaf;

/// The beginning of a template.
const BEGIN: &str = "{{";

/// Whether a line is nothing but templates.
pub fn is_line(line: &str) -> bool {
    let line = line.trim();
    line.starts_with(BEGIN) && line.ends_with("}}")
}

/// Whether a value is a template, so that it is not known.
pub fn is_value(text: &str) -> bool {
    text.contains(BEGIN)
}

/// Returns the text with the lines that are templates emptied, and those lines.
pub fn without_lines(text: &str) -> (String, Vec<Leaf>) {
    if !text.contains(BEGIN) {
        return (text.to_owned(), Vec::new());
    }
    let mut templates = Vec::new();
    let mut rest = String::new();
    for (number, line) in (1usize..).zip(text.split('\n')) {
        if is_line(line) {
            templates.push(Leaf::of_line(number, line));
        } else {
            rest.push_str(line);
        }
        rest.push('\n');
    }
    (rest, templates)
}

/// Returns the text without the lines that are templates, and with quotes around values that are.
pub fn without(text: &str) -> (String, Vec<Leaf>) {
    let (rest, templates) = without_lines(text);
    if !rest.contains(BEGIN) {
        return (rest, templates);
    }
    let quoted = rest.lines().map(quoted).collect::<Vec<_>>().join("\n");
    (quoted, templates)
}

/// Puts the value of a line into quotes if it begins with a template. TOML and YAML have the same ones.
fn quoted(line: &str) -> String {
    let Some((before, value)) = line.split_once(BEGIN) else {
        return line.to_owned();
    };
    let is_key = before.trim_end().ends_with(['=', ':']) && !before.contains(['"', '\'', '#']);
    if !is_key || value.contains('\'') {
        return line.to_owned();
    }
    format!("{before}'{BEGIN}{}'", value.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_do_not_keep_the_rest_from_being_read() {
        let text = "a = {{ .Envs.A }}\n{{- range $v := x }}\nb = \"t-{{ $v }}\"\n{{- end }}";
        let (rest, templates) = without(text);
        assert_eq!(rest, "a = '{{ .Envs.A }}'\n\nb = \"t-{{ $v }}\"\n");
        let lines: Vec<_> = templates.iter().filter_map(Leaf::line).collect();
        assert_eq!(lines, [2, 4]);
        assert_eq!(without("a: 1\r\n").0, "a: 1\r\n");
    }
}
