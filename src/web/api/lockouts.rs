//! Calls about addresses that have failed to log in too often: at the page itself, or at a server.

use super::Call;
use crate::auth_lockout::AuthLockout;
use crate::web::answer::Answer;
use serde_json::json;
use std::net::IpAddr;

/// Lists the addresses that are locked out.
pub fn list(lockout: &AuthLockout) -> Answer {
    let lockouts = lockout.list().into_iter().map(|it| {
        json!({
            "address": it.network.to_string(),
            "failures": it.failures,
            "seconds": it.left.as_secs().saturating_add(1),
        })
    });
    Answer::json(200, &json!({"lockouts": lockouts.collect::<Vec<_>>()}))
}

/// Lifts the lockout of the address in the call's path. `whose` ends the line of the log: the page or a server.
pub fn lift(lockout: &AuthLockout, call: &Call, whose: &str) -> Answer {
    let Ok(address) = call.argument().parse::<IpAddr>() else {
        return Answer::error(400, "The address is an IP address.");
    };
    match lockout.succeeded(address) {
        true => {
            call.log(format_args!("lifted the lockout of {address}{whose}"));
            Answer::done()
        }
        false => Answer::error(404, "This address has not failed to log in lately."),
    }
}
