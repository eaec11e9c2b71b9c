//! The API's JSON: serde_json's, with a space after commas and colons, so that it is readable with
//! `curl`.

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use std::io::{self, Write};

/// Formats `value` as one line of JSON, including the newline.
pub fn line(value: &impl Serialize) -> String {
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, Spaced);
    // Cannot fail: writing to a vector succeeds, and all map keys of the API are strings.
    let _ = value.serialize(&mut serializer);
    bytes.push(b'\n');
    String::from_utf8_lossy(&bytes).into_owned()
}

struct Spaced;

impl Spaced {
    fn separate<W: ?Sized + Write>(writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }
}

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        Self::separate(writer, first)
    }

    fn begin_object_key<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        Self::separate(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_spaces_only_after_commas_and_colons() {
        #[derive(Serialize)]
        struct Page {
            text: &'static str,
            list: [u16; 3],
            none: Option<u16>,
        }
        let page = Page {
            text: "a\"b,c:\n",
            list: [1, 2, 3],
            none: None,
        };
        assert_eq!(
            line(&page),
            "{\"text\": \"a\\\"b,c:\\n\", \"list\": [1, 2, 3], \"none\": null}\n"
        );
    }
}
