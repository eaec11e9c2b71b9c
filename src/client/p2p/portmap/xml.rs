//! The texts of the elements of a small XML document, as UPnP devices send them. It is no XML parser: it knows
//! neither attributes nor the tree, only elements in their order.

/// Maximum length in bytes of an element's name.
const MAX_NAME: usize = 64;
/// Maximum length in bytes of an element's text.
const MAX_TEXT: usize = 512;

/// A step through a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<'a> {
    /// An element without elements in it: its name without prefix, and its text.
    Text(&'a str, String),
    /// The end of an element with other elements in it.
    End(&'a str),
}

/// The steps of a document. Ends at the first part that is malformed.
pub struct Steps<'a> {
    rest: &'a str,
    /// The element that has begun last, and where its text begins.
    open: Option<&'a str>,
}

impl<'a> Steps<'a> {
    /// Reads a document from its beginning.
    pub fn new(document: &'a str) -> Self {
        let (rest, open) = (document, None);
        Self { rest, open }
    }
}

impl<'a> Iterator for Steps<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        loop {
            let (text, markup) = self.rest.split_once('<')?;
            if let Some(comment) = markup.strip_prefix("!--") {
                self.rest = comment.split_once("-->")?.1;
                self.open = None;
                continue;
            }
            let (tag, rest) = markup.split_once('>')?;
            self.rest = rest;
            if tag.starts_with(['?', '!']) {
                continue;
            }
            match tag.strip_prefix('/') {
                Some(name) => {
                    let name = local_name(name)?;
                    let has_only_text = self.open.take() == Some(name);
                    return Some(match has_only_text {
                        true => Step::Text(name, unescape(text.trim())?),
                        false => Step::End(name),
                    });
                }
                None if tag.ends_with('/') => self.open = None,
                None => self.open = Some(local_name(tag)?),
            }
        }
    }
}

/// Returns the name of a tag without its prefix and attributes.
fn local_name(tag: &str) -> Option<&str> {
    let name = tag.split_ascii_whitespace().next()?;
    let name = name.rsplit_once(':').map_or(name, |(_, name)| name);
    (1..=MAX_NAME).contains(&name.len()).then_some(name)
}

/// Replaces the entities of a text; `None` if one is unknown, or the text too long.
fn unescape(text: &str) -> Option<String> {
    if text.len() > MAX_TEXT {
        return None;
    }
    let mut plain = String::new();
    let mut parts = text.split('&');
    plain.push_str(parts.next()?);
    for part in parts {
        let (entity, rest) = part.split_once(';')?;
        plain.push(match entity {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            _ => return None,
        });
        plain.push_str(rest);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_come_in_their_order() {
        let document = "<?xml version=\"1.0\"?>\n<!-- <a>no</a> --><s:root xmlns=\"x\">\
            <u:service a='b'><type> one &amp; two </type><empty/><url></url></u:service></s:root>";
        let steps: Vec<_> = Steps::new(document).collect();
        let text = |name, text: &str| Step::Text(name, text.to_owned());
        assert_eq!(
            steps,
            [
                text("type", "one & two"),
                text("url", ""),
                Step::End("service"),
                Step::End("root"),
            ]
        );
    }

    #[test]
    fn a_malformed_part_ends_the_document() {
        let long = format!("<a>{}</a>", "x".repeat(600));
        for document in [
            "",
            "text",
            "<a",
            "<a>text",
            "<a>&unknown;</a>",
            "<a>&</a>",
            "<>",
            &long,
            "<!-- <a>x</a>",
        ] {
            assert_eq!(Steps::new(document).next(), None, "{document}");
        }
    }
}
