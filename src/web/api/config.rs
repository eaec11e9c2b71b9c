//! Calls about the file of a role as a text.

use super::Call;
use crate::net::blocking;
use crate::web::answer::Answer;
use crate::web::config_files::{etag, line_of, ConfigFile, FileError};
use crate::web::role::RoleView;
use crate::web::site::Site;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Returns the role that a call is about, and its file.
pub fn file_of(
    site: &Site,
    call: &Call,
    name: Option<crate::config::RoleName>,
) -> Result<(Arc<dyn RoleView>, PathBuf), Answer> {
    let role = site.role(call.query("role"), name);
    let role = role.ok_or_else(|| Answer::error(404, "This process runs no such role."))?;
    let file = role.source().map(Path::to_owned).ok_or_else(|| {
        let why = "gt was started without a file (-config), and flags cannot be changed here.";
        Answer::error(409, why)
    })?;
    Ok((role, file))
}

/// Shows the file without secrets.
pub async fn read(site: &Site, call: &Call) -> Answer {
    let file = match file_of(site, call, None) {
        Ok((_, file)) => file,
        Err(answer) => return answer,
    };
    let read = blocking(move || {
        let file = ConfigFile::of_role(&file)?;
        let text = file.masked()?;
        Ok::<_, FileError>((
            file.path().to_string_lossy().into_owned(),
            text,
            file.etag(),
        ))
    });
    match read.await {
        Ok((path, text, etag)) => {
            let body = json!({"file": path, "text": text, "etag": etag});
            Answer::json(200, &body).with("ETag", &format!("\"{etag}\""))
        }
        Err(e) => e.answer(),
    }
}

/// Checks a text as `gt check` does, and tells its first mistake, or its warnings.
pub async fn check(site: &Arc<Site>, call: &Call) -> Answer {
    let file = match file_of(site, call, None) {
        Ok((_, file)) => file,
        Err(answer) => return answer,
    };
    let Some(text) = call.text("text").map(str::to_owned) else {
        return Answer::error(400, "The body needs text.");
    };
    let check_role = site.check_role;
    let checked = blocking(move || {
        let file = ConfigFile::of_role(&file)?;
        let text = file.unmasked(&text)?;
        let role = file.role_of(&text)?;
        check_role(&role).map_err(FileError::Wrong)?;
        Ok::<_, FileError>(role.warnings)
    });
    match checked.await {
        Ok(warnings) => Answer::json(200, &json!({"ok": true, "warnings": warnings})),
        Err(FileError::Wrong(why)) => {
            let line = line_of(&why);
            Answer::json(200, &json!({"ok": false, "error": why, "line": line}))
        }
        Err(e) => e.answer(),
    }
}

/// Replaces the file, if its text is right, and reloads.
pub async fn write(site: &Arc<Site>, call: &Call) -> Answer {
    let Some(text) = call.text("text").map(str::to_owned) else {
        return Answer::error(400, "The body needs text.");
    };
    let edit = move |file: &ConfigFile| {
        let text = file.unmasked(&text)?;
        Ok((text, json!({})))
    };
    let file = match file_of(site, call, None) {
        Ok((_, file)) => file,
        Err(answer) => return answer,
    };
    change(site, call, file, "changed the configuration", true, edit).await
}

/// Changes the file of a role: `edit` returns another text for it, and what to answer. It is saved only if it
/// is right; then the process reloads.
pub async fn change<E>(
    site: &Arc<Site>,
    call: &Call,
    path: PathBuf,
    what: &str,
    needs_version: bool,
    edit: E,
) -> Answer
where
    E: FnOnce(&ConfigFile) -> Result<(String, serde_json::Value), FileError> + Send + 'static,
{
    let version = call.if_match.clone();
    if needs_version && version.is_none() {
        let why = "The version of the configuration that is changed has to be in the field If-Match: see the \
                   field ETag of GET /api/config.";
        return Answer::error(428, why);
    }
    let _editing = site.editing.lock().await;
    let check_role = site.check_role;
    let shown = path.display().to_string();
    let changed = blocking(move || {
        let file = ConfigFile::of_role(&path)?;
        if let Some(version) = version {
            file.require(&version)?;
        }
        let (text, answer) = edit(&file)?;
        let role = file.role_of(&text)?;
        check_role(&role).map_err(FileError::Wrong)?;
        file.write(&text)?;
        Ok::<_, FileError>((etag(&text), role.warnings, answer))
    });
    let (etag, warnings, answer) = match changed.await {
        Ok(changed) => changed,
        Err(e) => return e.answer(),
    };
    call.log(format_args!("{what} in {shown}"));
    finish(site, Some(etag), warnings, answer).await
}

/// Reloads after a change, and answers.
pub async fn finish(
    site: &Site,
    etag: Option<String>,
    warnings: Vec<String>,
    mut answer: serde_json::Value,
) -> Answer {
    let failed = site.reports.reload().await.err();
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("ok".to_owned(), json!(true));
        answer.insert("etag".to_owned(), json!(etag));
        answer.insert("warnings".to_owned(), json!(warnings));
        answer.insert("reloadError".to_owned(), json!(failed));
    }
    Answer::json(200, &answer)
}
