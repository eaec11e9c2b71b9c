//! The listing of a folder as an HTML page: reads the names, then writes the page in pieces. No
//! sockets.

use super::date::Moment;
use super::root::{changed, look_in, FolderTree};
use crate::net::http::percent;
use rustix::fd::OwnedFd;
use rustix::fs::{Dir, FileType};
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fmt::Write;
use std::{io, vec};

/// Maximum number of names on one page. Only these are kept, which bounds the memory.
pub(super) const NAMES_MAX: usize = 10_000;

/// Number of bytes at which a piece of a page ends; it may be a few names longer.
const PIECE_BYTES: usize = 16 * 1024;

const STYLE: &str =
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:auto;padding:1rem}\
h1{font-size:1.1rem;overflow-wrap:anywhere}table{width:100%;border-collapse:collapse}\
td{padding:0;border-top:1px solid #8884;overflow-wrap:anywhere}\
td+td{padding-left:1rem;text-align:right;white-space:nowrap;opacity:.7}\
a{display:block;padding:.4rem 0;text-decoration:none}a:hover{text-decoration:underline}\
@media(max-width:36rem){td+td+td{display:none}}";

/// The page of a folder while it is being sent.
pub(super) struct FolderListing {
    tree: FolderTree,
    folder: OwnedFd,
    /// The folder's path below the root, as in `RequestTarget`.
    path: Vec<u8>,
    names: vec::IntoIter<EntryName>,
    /// Number of names in the folder that the page leaves out.
    more: usize,
    at: At,
}

/// The part of the page to write next.
enum At {
    Top,
    Rows,
    Done,
}

/// The part of an entry that is kept; size and date are looked up when its row is written.
#[derive(PartialEq, Eq)]
struct EntryName {
    kind: EntryKind,
    name: Box<[u8]>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum EntryKind {
    Folder,
    File,
}

/// Orders folders first, then by name without regard to case.
impl Ord for EntryName {
    fn cmp(&self, other: &EntryName) -> Ordering {
        fn lower(name: &EntryName) -> impl Iterator<Item = u8> + '_ {
            name.name.iter().map(u8::to_ascii_lowercase)
        }
        let by_name = || {
            lower(self)
                .cmp(lower(other))
                .then_with(|| self.name.cmp(&other.name))
        };
        self.kind.cmp(&other.kind).then_with(by_name)
    }
}

impl PartialOrd for EntryName {
    fn partial_cmp(&self, other: &EntryName) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FolderListing {
    /// Reads the names in `folder`, which was opened from `path`. Blocks. Hidden entries and those
    /// that would not be served are left out.
    pub(super) fn read(
        tree: FolderTree,
        folder: OwnedFd,
        path: Vec<u8>,
    ) -> io::Result<FolderListing> {
        let mut names = BinaryHeap::new();
        let mut more = 0_usize;
        for entry in Dir::new(folder.try_clone()?)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name.starts_with(b".") {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Directory => EntryKind::Folder,
                FileType::RegularFile => EntryKind::File,
                FileType::Symlink | FileType::Unknown => match tree.look(&join(&path, name)) {
                    Ok(metadata) if metadata.is_dir() => EntryKind::Folder,
                    Ok(_) => EntryKind::File,
                    Err(_) => continue,
                },
                _ => continue,
            };
            names.push(EntryName {
                kind,
                name: name.into(),
            });
            if names.len() > NAMES_MAX {
                // Drops the last in order, so that the first ones remain.
                names.pop();
                more = more.saturating_add(1);
            }
        }
        let names = names.into_sorted_vec().into_iter();
        Ok(FolderListing {
            tree,
            folder,
            path,
            names,
            more,
            at: At::Top,
        })
    }

    /// Appends the next piece of the page to `out`; false when nothing is left. Blocks.
    pub(super) fn write(&mut self, out: &mut String) -> bool {
        let full = out.len().saturating_add(PIECE_BYTES);
        if let At::Top = self.at {
            self.write_top(out);
            self.at = At::Rows;
        }
        if let At::Rows = self.at {
            while out.len() < full {
                match self.names.next() {
                    Some(name) => self.write_row(&name, out),
                    None => {
                        self.write_bottom(out);
                        self.at = At::Done;
                        break;
                    }
                }
            }
        }
        matches!(self.at, At::Rows)
    }

    fn write_top(&self, out: &mut String) {
        out.push_str(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\"><title>/",
        );
        escape(
            self.path
                .rsplit(|byte| *byte == b'/')
                .next()
                .unwrap_or_default(),
            out,
        );
        put(
            out,
            format_args!("</title><style>{STYLE}</style><h1>/<bdi>"),
        );
        escape(&self.path, out);
        out.push_str("</bdi></h1><table>");
        if !self.path.is_empty() {
            out.push_str("<tr><td><a href=\"../\">../</a><td><td>");
        }
        out.push('\n');
    }

    fn write_row(&self, entry: &EntryName, out: &mut String) {
        let slash = match entry.kind {
            EntryKind::Folder => "/",
            EntryKind::File => "",
        };
        out.push_str("<tr><td><a href=\"");
        // A plain segment: no `/`, `\\`, `:`, quote or space.
        percent::encode(&entry.name, out);
        put(out, format_args!("{slash}\"><bdi>"));
        escape(&entry.name, out);
        put(out, format_args!("</bdi>{slash}</a><td>"));
        let seen = match look_in(&self.folder, &entry.name) {
            Ok(metadata) if metadata.is_symlink() => {
                self.tree.look(&join(&self.path, &entry.name)).ok()
            }
            Ok(metadata) => Some(metadata),
            // It was removed meanwhile or cannot be read: the row shows only its name.
            Err(_) => None,
        };
        if let Some(metadata) = &seen {
            if entry.kind == EntryKind::File {
                put_size(metadata.len(), out);
            }
        }
        out.push_str("<td>");
        if let Some(moment) = seen.and_then(|metadata| Moment::from_unix(changed(&metadata).0)) {
            put(out, format_args!("{}", moment.short()));
        }
        out.push('\n');
    }

    fn write_bottom(&self, out: &mut String) {
        out.push_str("</table>\n");
        if self.more > 0 {
            put(
                out,
                format_args!("<p>and {} more, not shown</p>\n", self.more),
            );
        }
        out.push_str("<p>Times are UTC.</p></html>\n");
    }
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    match folder {
        b"" => name.to_vec(),
        folder => [folder, b"/", name].concat(),
    }
}

/// Escapes text for HTML. Bytes that are not UTF-8, and control characters, become U+FFFD.
fn escape(text: &[u8], out: &mut String) {
    for char in String::from_utf8_lossy(text).chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            char if char.is_control() => out.push(char::REPLACEMENT_CHARACTER),
            char => out.push(char),
        }
    }
}

/// Formats a size in bytes, or in binary units with one decimal.
fn put_size(bytes: u64, out: &mut String) {
    let mut units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].iter();
    let mut unit = units.next();
    let mut count = bytes;
    while count >= 1 << 20 {
        count >>= 10;
        unit = units.next();
    }
    match unit {
        Some(unit) if bytes >= 1 << 10 => {
            put(
                out,
                format_args!("{}.{} {unit}", count >> 10, ((count & 1023) * 10) >> 10),
            );
        }
        _ => put(out, format_args!("{bytes} B")),
    }
}

/// Appends formatted text. Writing to a String cannot fail.
fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(bytes: u64) -> String {
        let mut out = String::new();
        put_size(bytes, &mut out);
        out
    }

    #[test]
    fn sizes_are_short_and_rounded_correctly() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (1 << 20, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_name_cannot_become_markup() {
        let mut out = String::new();
        escape(b"<a href=\"x\" b='y'>&\x01\xff", &mut out);
        assert_eq!(
            out,
            "&lt;a href=&quot;x&quot; b=&#39;y&#39;&gt;&amp;\u{fffd}\u{fffd}"
        );
    }

    #[test]
    fn folders_come_first_and_names_sort_without_case() {
        let name = |kind, name: &str| EntryName {
            kind,
            name: name.as_bytes().into(),
        };
        let mut names = [
            name(EntryKind::File, "b"),
            name(EntryKind::File, "C"),
            name(EntryKind::Folder, "z"),
            name(EntryKind::File, "a"),
            name(EntryKind::File, "A"),
        ];
        names.sort();
        let sorted: Vec<_> = names
            .iter()
            .map(|name| String::from_utf8_lossy(&name.name))
            .collect();
        assert_eq!(sorted, ["z", "A", "a", "b", "C"]);
    }
}
