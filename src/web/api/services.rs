//! Calls about the services in the file of a client.

use super::config::{change, file_of};
use super::{Call, Route};
use crate::config::edit::{self, Changes, Entries};
use crate::config::edit_check::{self, Edit};
use crate::config::masked::has_mark;
use crate::config::summary::is_secret_key;
use crate::config::yaml::{Node, NodeKind};
use crate::config::RoleName;
use crate::net::blocking;
use crate::web::answer::Answer;
use crate::web::config_files::{ConfigFile, FileError};
use crate::web::role::RoleView;
use crate::web::site::Site;
use serde_json::{json, Value};
use std::path::PathBuf;
use std::sync::Arc;

const SERVICES: Entries<'_> = Entries::ListOf("services");

/// Answers a call about services.
pub async fn answer(site: &Arc<Site>, route: Route, call: Call) -> Answer {
    let name = Some(RoleName::Client);
    if route == Route::TestService {
        return match site.role(call.query("role"), name) {
            Some(role) => role.answer(route, &call).await,
            None => super::no_role(RoleName::Client),
        };
    }
    let (role, file) = match file_of(site, &call, name) {
        Ok(found) => found,
        Err(answer) if route == Route::Services && answer.status == 409 => {
            return match site.role(call.query("role"), name) {
                Some(role) => Answer::json(
                    200,
                    &json!({"services": [], "running": running(role).await}),
                ),
                None => answer,
            };
        }
        Err(answer) => return answer,
    };
    if route == Route::Services {
        return list(role, file).await;
    }
    let number = call.argument().parse::<usize>().ok();
    let values = match (route, call.body.as_object()) {
        (Route::RemoveService, _) => Changes::new(),
        (_, Some(values)) => values.clone(),
        (_, None) => return Answer::error(400, "The body is an object of the service's keys."),
    };
    let is_plain = |value: &Value| match value {
        Value::Object(_) => false,
        Value::Array(values) => values.iter().all(|it| !it.is_array() && !it.is_object()),
        _ => true,
    };
    if !values.values().all(is_plain) || values.keys().any(|key| key.len() > 64) {
        return Answer::error(
            400,
            "The keys of a service are texts, numbers, or lists of them.",
        );
    }
    if has_mark(&values) {
        let why = "A secret has ****** in it, which stands for one that is hidden: leave the key out to keep it.";
        return Answer::error(422, why);
    }
    let what = match route {
        Route::AddService => "added a service",
        Route::ChangeService => "changed a service",
        _ => "removed a service",
    };
    let edit = move |file: &ConfigFile| {
        let (text, done) = match (route, number) {
            (Route::AddService, _) => (
                edit::add(&file.text, SERVICES, "", &values),
                Edit::Add("", &values),
            ),
            (Route::ChangeService, Some(number)) => (
                edit::change(&file.text, SERVICES, number, &values),
                Edit::Change(number, &values),
            ),
            (_, Some(number)) => (
                edit::remove(&file.text, SERVICES, number),
                Edit::Remove(number),
            ),
            (_, None) => {
                let why = "The number of the service is not one.";
                return Err(FileError::Wrong(why.to_owned()));
            }
        };
        let text = text.map_err(FileError::Wrong)?;
        let (before, after) = (file.document(&file.text)?, file.document(&text)?);
        edit_check::check(&before, &after, SERVICES, &done).map_err(FileError::Wrong)?;
        Ok((text, json!({})))
    };
    change(site, &call, file, what, false, edit).await
}

/// Lists the services in the file as they are written, and those that run.
async fn list(role: Arc<dyn RoleView>, file: PathBuf) -> Answer {
    let read = blocking(move || {
        let file = ConfigFile::of_role(&file)?;
        let document = file.document(&file.text)?;
        let services = match document.node(&["services"]).map(|node| &node.kind) {
            Some(NodeKind::List(nodes)) => nodes.iter().map(shown).collect(),
            _ => Vec::new(),
        };
        Ok::<_, FileError>((services, file.etag()))
    });
    match read.await {
        Ok((services, etag)) => {
            let body = json!({"services": services, "running": running(role).await, "etag": etag});
            Answer::json(200, &body)
        }
        Err(e) => e.answer(),
    }
}

async fn running(role: Arc<dyn RoleView>) -> Value {
    let summary = blocking(move || role.summary()).await;
    summary.get("services").cloned().unwrap_or_default()
}

/// Returns an entry of the file without secrets.
pub fn shown(node: &Node) -> Value {
    match &node.kind {
        NodeKind::Null => Value::Null,
        NodeKind::Text(text) => json!(text),
        NodeKind::List(nodes) => nodes.iter().map(shown).collect(),
        NodeKind::Map(entries) => {
            let entries = entries.iter().map(|(key, node)| {
                let is_secret = is_secret_key(key) && !matches!(node.kind, NodeKind::Map(_));
                let value = if is_secret { hidden(node) } else { shown(node) };
                (key.clone(), value)
            });
            Value::Object(entries.collect())
        }
    }
}

/// Returns a secret without its text, or passwords by the names of those that have them.
fn hidden(node: &Node) -> Value {
    let name = |text: &str| match text.split_once(':') {
        Some((name, _)) => json!(format!("{name}:******")),
        None => json!("******"),
    };
    match &node.kind {
        NodeKind::List(nodes) => nodes.iter().map(hidden).collect(),
        NodeKind::Text(text) => name(text),
        _ => json!("******"),
    }
}
