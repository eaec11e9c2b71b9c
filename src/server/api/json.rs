//! JSON strings (RFC 8259, 7). The rest of JSON is written where it is meant.

use std::fmt::{self, Display, Formatter, Write};

/// Shows a string in quotes, with what must be escaped escaped.
pub struct JsonString<'a>(pub &'a str);

/// Shows a list of things that are JSON already.
pub struct JsonArray<I>(pub I);

impl Display for JsonString<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\0'..='\u{1F}' => write!(f, "\\u{:04x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

impl<I: Iterator<Item: Display> + Clone> Display for JsonArray<I> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_char('[')?;
        for (at, item) in self.0.clone().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{item}")?;
        }
        f.write_char(']')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_reserves_is_escaped() {
        let text = "a\"b\\c\n\u{1}é\u{7F}";
        assert_eq!(
            JsonString(text).to_string(),
            "\"a\\\"b\\\\c\\u000a\\u0001é\u{7F}\""
        );
    }

    #[test]
    fn a_list_has_commas_between_its_items() {
        assert_eq!(JsonArray([1, 2].iter()).to_string(), "[1, 2]");
        assert_eq!(JsonArray([0; 0].iter()).to_string(), "[]");
    }
}
