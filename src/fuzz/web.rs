//! Fuzz entries for the web page: the heads of requests, and the texts of files that it edits.

use super::assert_settled;
use crate::config::edit::{self, Changes, Entries};
use crate::config::foreign::Content;
use crate::config::masked::{mask, unmask};
use crate::net::http::hosts::AllowedHosts;
use crate::web::api::Route;
use crate::web::request::{parse, MAX_HEAD};
use serde_json::Value;
use std::path::Path;

/// Parses the head of a request, and finds what it is for.
pub fn web_requests(data: &[u8]) {
    let hosts = AllowedHosts::new(&["a".to_owned()]);
    let short = &data[..data.len().min(MAX_HEAD - 1)];
    assert_settled(short, |bytes| {
        let parsed = parse(bytes, &hosts)?;
        Some(parsed.map(|(head, length)| (head.path, head.query, head.length, length)))
    });
    if data.len() >= MAX_HEAD {
        assert!(parse(data, &hosts).is_some());
    }
    if let Some(Ok((head, length))) = parse(data, &hosts) {
        assert!(length <= data.len());
        let path: Vec<&str> = head.path.iter().map(String::as_str).collect();
        if let Ok((route, arguments)) = Route::find(head.method, &path) {
            assert_eq!(path[0], "api");
            assert!(arguments.iter().all(|argument| !argument.is_empty()));
            assert!(!route.is_open() || head.method == crate::web::request::Method::Post);
        }
    }
}

/// Hides the secrets of a file, and puts them back; changes its services and users.
pub fn config_edits(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let path = Path::new("gt.yaml");
    if let Ok(masked) = mask(path, text, Content::Configuration) {
        if !text.contains("******") {
            let again = unmask(path, text, &masked, Content::Configuration);
            assert_eq!(again.unwrap(), text);
        }
    }
    let values: Changes = [
        ("local", Value::from("tcp://a:1")),
        ("secret", Value::from("s: #\n")),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into_iter()
    .collect();
    let removed: Changes = [("local".to_owned(), Value::Null)].into_iter().collect();
    for entries in [
        Entries::ListOf("services"),
        Entries::KeysOf("users"),
        Entries::Top,
    ] {
        // What they return is checked by reading it; they must not fail otherwise.
        let _ = edit::add(text, entries, "new", &values);
        let _ = edit::place_of(text, entries, "new");
        for at in 0..2 {
            let _ = edit::change(text, entries, at, &values);
            let _ = edit::change(text, entries, at, &removed);
            let _ = edit::remove(text, entries, at);
        }
    }
}
