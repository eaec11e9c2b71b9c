//! Calls about the users in the files of a server.

use super::config::{file_of, finish};
use super::services::shown;
use super::{Call, Route};
use crate::config::edit::{self, Changes, Entries};
use crate::config::edit_check::{self, Edit};
use crate::config::masked::has_mark;
use crate::config::yaml::{Node, NodeKind};
use crate::config::{RoleName, MAX_NAME};
use crate::net::blocking;
use crate::web::answer::Answer;
use crate::web::config_files::{etag, ConfigFile, FileError};
use crate::web::sessions::random_text;
use crate::web::site::Site;
use serde_json::{json, Value};
use std::path::PathBuf;
use std::sync::Arc;

/// The keys of a user that a call may change.
const KEYS: [&str; 14] = [
    "secret",
    "disabled",
    "speed",
    "connections",
    "tcp",
    "tcpNumber",
    "udp",
    "udpNumber",
    "host",
    "domains",
    "from",
    "publicKey",
    "secretFile",
    "clientCA",
];

/// The value of `secret` in a call for one that gt makes.
const NEW_SECRET: &str = "new";

/// Answers a call about users.
pub async fn answer(site: &Arc<Site>, route: Route, call: Call) -> Answer {
    let file = match file_of(site, &call, Some(RoleName::Server)) {
        Ok((_, file)) => file,
        Err(answer) => return answer,
    };
    if route == Route::Users {
        return match blocking(move || list(&file)).await {
            Ok(body) => Answer::json(200, &body),
            Err(e) => e.answer(),
        };
    }
    let mut values = match (route, call.body.as_object()) {
        (Route::RemoveUser, _) => Changes::new(),
        (_, Some(values)) => values.clone(),
        (_, None) => return Answer::error(400, "The body is an object of the user's keys."),
    };
    let id = match route {
        Route::AddUser => values
            .remove("id")
            .and_then(|id| id.as_str().map(str::to_owned)),
        _ => Some(call.argument().to_owned()),
    };
    let Some(id) =
        id.filter(|id| (1..=MAX_NAME).contains(&id.len()) && !id.chars().any(char::is_control))
    else {
        return Answer::error(400, "id is a text of 1 to 200 bytes.");
    };
    if let Some(key) = values.keys().find(|key| !KEYS.contains(&key.as_str())) {
        let why = format!("A user has no key {key}: its keys are {}.", KEYS.join(", "));
        return Answer::error(400, why);
    }
    if has_mark(&values) {
        let why = "A secret has ****** in it, which stands for one that is hidden: leave the key out to keep it.";
        return Answer::error(422, why);
    }
    let has_proof = ["secret", "secretFile", "publicKey"]
        .iter()
        .any(|key| values.contains_key(*key));
    if route == Route::AddUser && !has_proof {
        values.insert("secret".to_owned(), json!(NEW_SECRET));
    }
    // The only time that a secret is shown: when it is made.
    let mut made = Value::Null;
    if values.get("secret").is_some_and(|it| it == NEW_SECRET) {
        match random_text() {
            Ok(secret) => {
                made = json!(secret);
                values.insert("secret".to_owned(), made.clone());
            }
            Err(e) => return Answer::error(500, format!("No secret can be made: {e}.")),
        }
    }
    let what = what_of(route, &values, &id);
    let _editing = site.editing.lock().await;
    let check_role = site.check_role;
    let version = call.if_match.clone();
    let edited = blocking(move || {
        let file = ConfigFile::of_role(&file)?;
        let users = file.of_users()?;
        if version.is_some_and(|it| it != "*" && it != version_of(&file, users.as_ref(), None)) {
            return Err(FileError::Changed);
        }
        let (target, entries, at) = find(&file, users.as_ref(), &id)?;
        let (text, done) = match (route, at) {
            (Route::AddUser, None) => (
                edit::add(&target.text, entries, &id, &values),
                Edit::Add(&id, &values),
            ),
            (Route::AddUser, Some(_)) => {
                return Err(FileError::Wrong(format!(
                    "There is a user \"{id}\" already."
                )));
            }
            (_, None) => {
                return Err(FileError::Wrong(format!(
                    "The files have no user \"{id}\"; one of flags cannot be changed here."
                )));
            }
            (Route::ChangeUser, Some(at)) => (
                edit::change(&target.text, entries, at, &values),
                Edit::Change(at, &values),
            ),
            (_, Some(at)) => (edit::remove(&target.text, entries, at), Edit::Remove(at)),
        };
        let text = text.map_err(FileError::Wrong)?;
        let (before, after) = (target.document(&target.text)?, target.document(&text)?);
        edit_check::check(&before, &after, entries, &done).map_err(FileError::Wrong)?;
        let role = match std::ptr::eq(target, &file) {
            true => file.role_of(&text)?,
            false => file.role_with_users(target, &text)?,
        };
        if route == Route::RemoveUser && role.admits_nobody() {
            return Err(FileError::Wrong(format!(
                "\"{id}\" is the last user: without one, no client can connect. Add another one first, or disable \
                 this one."
            )));
        }
        check_role(&role).map_err(FileError::Wrong)?;
        target.write(&text)?;
        let shown = target.path().display().to_string();
        let version = version_of(&file, users.as_ref(), Some((target, &text)));
        Ok::<_, FileError>((version, shown, role.warnings))
    });
    match edited.await {
        Ok((version, path, warnings)) => {
            call.log(format_args!("{what} in {path}"));
            let answer = match made.is_null() {
                true => json!({}),
                false => json!({"secret": made}),
            };
            finish(site, Some(version), warnings, answer).await
        }
        Err(e) => e.answer(),
    }
}

/// Returns what tells this version of the users from others, with another text in one of the files. Without a
/// file of users, it is that of the configuration.
fn version_of(
    file: &ConfigFile,
    users: Option<&ConfigFile>,
    changed: Option<(&ConfigFile, &str)>,
) -> String {
    let text = |file: &ConfigFile| match changed {
        Some((it, text)) if std::ptr::eq(it, file) => text.to_owned(),
        _ => file.text.clone(),
    };
    match users {
        None => etag(&text(file)),
        Some(users) => etag(&format!("{}\0{}", text(file), text(users))),
    }
}

/// Describes a change for the log, without values.
fn what_of(route: Route, values: &Changes, id: &str) -> String {
    let keys: Vec<&str> = values.keys().map(String::as_str).collect();
    match route {
        Route::AddUser => format!("added the user id={id}"),
        Route::RemoveUser => format!("removed the user id={id}"),
        _ => format!("changed {} of the user id={id}", keys.join(", ")),
    }
}

/// Finds the file that has a user, or else the one that a new user comes into, and the place of the user.
fn find<'f>(
    file: &'f ConfigFile,
    users: Option<&'f ConfigFile>,
    id: &str,
) -> Result<(&'f ConfigFile, Entries<'static>, Option<usize>), FileError> {
    const USERS: Entries<'_> = Entries::KeysOf("users");
    let at = edit::place_of(&file.text, USERS, id);
    if let Some(users) = users {
        let in_users = edit::place_of(&users.text, Entries::Top, id).map_err(FileError::Wrong)?;
        let is_in_file = matches!(at, Ok(Some(_)));
        if in_users.is_some() || !is_in_file {
            return Ok((users, Entries::Top, in_users));
        }
    }
    Ok((file, USERS, at.map_err(FileError::Wrong)?))
}

/// Lists the users of the files, without secrets.
fn list(path: &std::path::Path) -> Result<Value, FileError> {
    let file = ConfigFile::of_role(path)?;
    let mut users = Vec::new();
    let mut add = |file: &ConfigFile, node: Option<&Node>| {
        let Some(NodeKind::Map(entries)) = node.map(|node| &node.kind) else {
            return;
        };
        for (id, node) in entries {
            users.push(described(id, node, &PathBuf::from(file.path())));
        }
    };
    add(&file, file.document(&file.text)?.node(&["users"]));
    let more = file.of_users()?;
    let version = version_of(&file, more.as_ref(), None);
    if let Some(more) = more {
        add(&more, more.document(&more.text)?.node(&[]));
    }
    users.sort_by(|a, b| a["id"].as_str().cmp(&b["id"].as_str()));
    Ok(json!({"users": users, "etag": version}))
}

fn described(id: &str, node: &Node, file: &std::path::Path) -> Value {
    let mut limits = shown(node);
    let mut has_secret = false;
    let mut disabled = false;
    if let Some(limits) = limits.as_object_mut() {
        has_secret = limits.remove("secret").is_some();
        let text = limits.remove("disabled");
        let text = text.as_ref().and_then(Value::as_str).unwrap_or_default();
        disabled = <bool as crate::config::value::Scalar>::read(text) == Ok(true);
    }
    json!({
        "id": id,
        "hasSecret": has_secret,
        "disabled": disabled,
        "limits": limits,
        "file": file.to_string_lossy(),
    })
}
