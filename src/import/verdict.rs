//! gt's own reader as the judge of a draft: what it does not accept becomes a comment with its reason.

use std::path::Path;

use super::draft::Draft;
use crate::config::file::Document;
use crate::config::foreign::Content;
use crate::config::{client, server, RoleName};

/// Maximum number of settings that are turned into comments, each of which takes one more reading.
const MAX_WRONG: usize = 100;
/// The name of the file in gt's errors.
const NAME: &str = "gt.yaml";

/// Turns settings that gt does not accept into comments. Returns the reason why gt does not accept the rest.
pub fn settle(draft: &mut Draft) -> Option<String> {
    for _ in 0..MAX_WRONG {
        let why = judge(draft)?;
        if !turn_off(draft, &why) {
            return Some(why);
        }
    }
    judge(draft)
}

/// Returns the reason why gt does not accept the configuration.
fn judge(draft: &mut Draft) -> Option<String> {
    let (text, _) = draft.write(true);
    let role = draft.role;
    let read =
        Document::parse(Path::new(NAME), text, Content::Configuration).and_then(|document| {
            document.role(Some(role))?;
            match role {
                RoleName::Client => client::load(&[], &[], Some(&document)),
                RoleName::Server => server::load(&[], Some(&document)),
            }
        });
    let why = read.err()?.to_string();
    let why = why
        .strip_prefix(NAME)
        .map_or(why.as_str(), |why| why.trim_start_matches([':', ' ']));
    Some(why.to_owned())
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
