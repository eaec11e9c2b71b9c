//! gt's own reader as the judge of a draft: what it does not accept becomes a comment with its reason.

use std::path::Path;

use super::draft::Draft;
use crate::config::file::Document;
use crate::config::foreign::Content;
use crate::config::{client, server, RoleName};

/// Maximum number of bytes that are read in all. Each setting that is turned into a comment takes one more
/// reading of the rest.
const MAX_READ: usize = 4 << 20;
/// The name of the file in gt's errors.
const NAME: &str = "gt.yaml";

/// Turns settings that gt does not accept into comments. Returns the reason why gt does not accept the rest.
pub fn settle(draft: &mut Draft) -> Option<String> {
    let mut left = MAX_READ;
    loop {
        let (text, _) = draft.write(true);
        left = left.saturating_sub(text.len());
        let why = judge(text, draft.role)?;
        if left == 0 || !turn_off(draft, &why) {
            return Some(why);
        }
    }
}

/// Returns the reason why gt does not accept a configuration.
fn judge(text: String, role: RoleName) -> Option<String> {
    let document = Document::parse(Path::new(NAME), text, Content::Configuration);
    let read = document.and_then(|document| {
        document.role(Some(role))?;
        match role {
            RoleName::Client => client::load(&[], &[], Some(&document)),
            RoleName::Server => server::load(&[], Some(&document)),
        }
    });
    let why = read.err()?.to_string();
    let place = why.strip_prefix(NAME);
    Some(
        place
            .map_or(why.as_str(), |why| why.trim_start_matches([':', ' ']))
            .to_owned(),
    )
}

/// Turns the setting or the service that an error is about into a comment. Whether there is one.
fn turn_off(draft: &mut Draft, why: &str) -> bool {
    if let Some((line, why)) = why
        .strip_prefix("line ")
        .and_then(|why| why.split_once(": "))
    {
        return line.parse().is_ok_and(|line| draft.turn_off(line, why));
    }
    let index = |rest: &str| rest.split_once(']')?.0.parse().ok();
    let service = why.strip_prefix("services[").and_then(index);
    service.is_some_and(|index| {
        let why = why.split_once("] ").map_or(why, |(_, why)| why);
        draft.turn_off_entry("services", index, why)
    })
}
