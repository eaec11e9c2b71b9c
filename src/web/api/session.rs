//! Calls to sign in and out.

use super::Call;
use crate::web::answer::Answer;
use crate::web::connection::refusal;
use crate::web::login::LoginError;
use crate::web::request::BasicLogin;
use crate::web::site::Site;
use serde_json::json;
use std::sync::Arc;

/// Signs in by a name and a password, or by a link.
pub async fn login(site: &Arc<Site>, call: &Call) -> Answer {
    let from = call.peer.ip();
    let result = match (call.text("link"), call.text("admin"), call.text("password")) {
        (Some(link), None, None) => site.login.follow_link(link, from),
        (None, Some(admin), Some(password)) => {
            let login = BasicLogin {
                admin: admin.to_owned(),
                password: password.as_bytes().to_vec(),
            };
            site.login.check(&call.admin, login, from).await
        }
        _ => {
            let why = "The body needs admin and password, or link.";
            return Answer::error(400, why);
        }
    };
    match result {
        Ok(()) => {}
        Err(LoginError::Wrong) if call.text("link").is_some() => {
            let why =
                "The link has been used, has ended (after 10 minutes), or is another one's: gt -s reload makes another one.";
            return Answer::error(401, why);
        }
        Err(e) => return refusal(e, call.admin.has_password()),
    }
    let session = match site.sessions.begin(&call.cookies) {
        Ok(session) => session,
        Err(e) => return Answer::error(500, format!("No session can begin: {e}.")),
    };
    call.log("signed in");
    let secure = if call.is_tls { "; Secure" } else { "" };
    let cookie = format!(
        "{}={}; Path=/; HttpOnly; SameSite=Strict{secure}",
        site.cookie, session.cookie
    );
    let body = json!({"admin": call.admin.name(), "csrf": session.csrf});
    Answer::json(200, &body).with("Set-Cookie", &cookie)
}

/// Ends the sessions of the browser.
pub fn logout(site: &Site, call: &Call) -> Answer {
    let Some(cookie) = call.cookies.first() else {
        return Answer::error(400, "There is no session: the call has a password.");
    };
    site.sessions.end(cookie);
    call.log("signed out");
    let secure = if call.is_tls { "; Secure" } else { "" };
    let cookie = format!(
        "{}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0{secure}",
        site.cookie
    );
    Answer::done().with("Set-Cookie", &cookie)
}

/// Tells the name of the one that is signed in.
pub fn session(call: &Call) -> Answer {
    Answer::json(200, &json!({"admin": call.admin.name()}))
}
