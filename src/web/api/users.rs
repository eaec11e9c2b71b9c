//! Calls about the users in the files of a server.

use super::config::{file_of, finish};
use super::services::shown;
use super::{Call, Route};
use crate::config::edit::{self, Changes, Entries};
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
    let edited = blocking(move || {
        let file = ConfigFile::of_role(&file)?;
        let users = file.of_users()?;
        let (target, entries, at) = find(&file, users.as_ref(), &id)?;
        let text = match (route, at) {
            (Route::AddUser, None) => edit::add(&target.text, entries, &id, &values),
            (Route::AddUser, Some(_)) => Err(format!("There is a user \"{id}\" already.")),
            (_, None) => Err(format!(
                "The files have no user \"{id}\"; one of flags cannot be changed here."
            )),
            (Route::ChangeUser, Some(at)) => edit::change(&target.text, entries, at, &values),
            (_, Some(at)) => edit::remove(&target.text, entries, at),
        };
        let text = text.map_err(FileError::Wrong)?;
        check_ids(target, &text, entries, route, &id)?;
        let is_role = std::ptr::eq(target, &file);
        // What the users' file says is read from the disk.
        if is_role {
            check_role(&file.role_of(&text)?).map_err(FileError::Wrong)?;
        }
        target.write(&text)?;
        if !is_role {
            let checked = file
                .role_of(&file.text)
                .and_then(|role| check_role(&role).map_err(FileError::Wrong));
            if let Err(e) = checked {
                target.restore(&text)?;
                return Err(e);
            }
        }
        let shown = target.path().display().to_string();
        Ok::<_, FileError>((is_role.then(|| etag(&text)), shown))
    });
    match edited.await {
        Ok((etag, path)) => {
            call.log(format_args!("{what} in {path}"));
            let answer = match made.is_null() {
                true => json!({}),
                false => json!({"secret": made}),
            };
            finish(site, etag, Vec::new(), answer).await
        }
        Err(e) => e.answer(),
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

/// Checks that a change of one user has left the others.
fn check_ids(
    file: &ConfigFile,
    text: &str,
    entries: Entries<'_>,
    route: Route,
    id: &str,
) -> Result<(), FileError> {
    let ids = |text: &str| -> Result<Vec<String>, FileError> {
        let document = file.document(text)?;
        let path: &[&str] = match entries {
            Entries::Top => &[],
            _ => &["users"],
        };
        let mut ids = match document.node(path).map(|node| &node.kind) {
            Some(NodeKind::Map(users)) => users.iter().map(|(id, _)| id.clone()).collect(),
            _ => Vec::new(),
        };
        ids.retain(|it| it != id);
        Ok(ids)
    };
    let document = file.document(text)?;
    let path = match entries {
        Entries::Top => vec![id],
        _ => vec!["users", id],
    };
    let is_there = document.node(&path).is_some();
    match ids(&file.text)? == ids(text)? && is_there == (route != Route::RemoveUser) {
        true => Ok(()),
        false => Err(FileError::Wrong(
            "The file is written in a way in which users cannot be changed one by one: edit it as a text.".to_owned(),
        )),
    }
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
    if let Some(more) = file.of_users()? {
        add(&more, more.document(&more.text)?.node(&[]));
    }
    users.sort_by(|a, b| a["id"].as_str().cmp(&b["id"].as_str()));
    Ok(json!({"users": users}))
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
