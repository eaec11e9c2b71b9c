//! Calls about the process: its roles, its log, the last hour, reload and restart.

use super::Call;
use crate::logging::tail_after;
use crate::net::blocking;
use crate::version::VERSION;
use crate::web::answer::Answer;
use crate::web::reports::{signal, Change};
use crate::web::site::Site;
use serde_json::{json, Value};
use std::sync::Arc;

/// Describes the process and its roles.
pub async fn status(site: &Arc<Site>) -> Answer {
    let site = site.clone();
    Answer::json(200, &blocking(move || status_body(&site)).await)
}

/// Returns what [`status`] tells. Blocks for some milliseconds.
pub fn status_body(site: &Site) -> Value {
    let roles = site.roles().into_iter();
    let roles = roles.map(|role| {
        let file = role.source().map(|it| it.to_string_lossy().into_owned());
        let mut summary = role.summary();
        if let Some(summary) = summary.as_object_mut() {
            summary.insert("role".to_owned(), json!(role.name().to_string()));
            summary.insert("file".to_owned(), json!(file));
        }
        summary
    });
    json!({
        "version": VERSION,
        "pid": std::process::id(),
        "roles": roles.collect::<Vec<Value>>(),
        "totals": site.totals(),
        "lastChange": site.reports.last(),
    })
}

/// Tells the last lines of the log, behind one that is known.
pub fn log(call: &Call) -> Answer {
    let after = call.query("after").unwrap_or("0");
    let Ok(after) = after.parse() else {
        return Answer::error(400, "after is the number of a line.");
    };
    let lines = tail_after(after).into_iter();
    let lines =
        lines.map(|line| json!({"number": line.number, "time": line.time, "text": line.text}));
    Answer::json(200, &json!({"lines": lines.collect::<Vec<_>>()}))
}

/// Tells the last hour.
pub fn history(site: &Site) -> Answer {
    Answer::json(200, &json!({"points": site.history.look()}))
}

/// Has the process read its configuration again.
pub async fn reload(site: &Site, call: &Call) -> Answer {
    call.log("asked for a reload");
    match site.reports.reload().await {
        Ok(()) => Answer::done(),
        Err(why) => Answer::error(409, why),
    }
}

/// Has the installed program take over.
pub fn restart(call: &Call) -> Answer {
    if std::process::id() == 1 {
        let why = "This is process 1, and its container ends with it: restart the container.";
        return Answer::error(409, why);
    }
    call.log("asked for a restart");
    match signal(Change::Restart) {
        Ok(()) => Answer::json(202, &json!({"ok": true, "pid": std::process::id()})),
        Err(e) => Answer::error(500, format!("The process cannot signal itself: {e}.")),
    }
}
