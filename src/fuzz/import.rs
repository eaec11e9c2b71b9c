//! Fuzz entry for the files of other programs.

use crate::cli;
use crate::config::file::Document;
use crate::config::foreign::Content;
use crate::config::RoleName;
use crate::import::{import, Imported};
use std::path::Path;

/// A hash that takes no time.
const HASH: &str =
    "$pbkdf2-sha256$i=310000$3+4f3ib27oI8qj+tj8Bx4w$6rT2vBti7/VRXwpEl8XzVNnL/S3xcePFxPLXFL55vZo";
/// Maximum size of what is made of one byte, and of none.
const GROWTH: usize = 600;
const LEAST: usize = 8 * 1024;

/// Converts a file: what is printed is yaml of a limited size, which gt runs unless it says that it does not.
pub fn import_files(data: &[u8]) {
    let hash = |_: &str| Ok(HASH.to_owned());
    let why = match import(data, "FILE", None, hash) {
        Ok(imported) => return assert_imported(&imported, data),
        Err(why) => why,
    };
    assert!(why.starts_with("FILE: ") && why.ends_with('.'), "{why}");
    assert!(why.len() < LEAST + 8 * data.len());
    // Some files need the role to be named.
    for role in [RoleName::Client, RoleName::Server] {
        if let Ok(imported) = import(data, "FILE", Some(role), hash) {
            assert_eq!(imported.role, role);
            assert_imported(&imported, data);
        }
    }
}

fn assert_imported(imported: &Imported, data: &[u8]) {
    let text = &imported.text;
    assert!(text.len() < LEAST + GROWTH * data.len(), "{}", text.len());
    let document = Document::parse(Path::new("gt.yaml"), text.clone(), Content::Configuration);
    let document = document.unwrap_or_else(|why| panic!("{why}\n{text}"));
    assert_eq!(document.role(None).ok(), Some(imported.role), "{text}");
    // It names another file, which would be opened.
    if document.node(&["options", "users"]).is_some() {
        return;
    }
    let loaded = cli::load(imported.role, &[], Some(&document));
    let why = loaded.err().map(|why| why.to_string());
    assert_eq!(
        why.is_some(),
        imported.incomplete.is_some(),
        "{why:?}\n{text}"
    );
    assert!(text.contains("# gt does not run it yet: ") == why.is_some());
}
