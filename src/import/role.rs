//! The role of a file that may be for a client, for a server, or for both.

use crate::config::RoleName;

/// Returns the role of a file that has the keys of one or of both.
pub fn choose(client: bool, server: bool, asked: Option<RoleName>) -> Result<RoleName, String> {
    let wrong = |role: &str, is: &str| {
        Err(format!(
            "this is a {is}'s file, and gt was asked for the {role}: write gt import FILE alone"
        ))
    };
    match (client, server, asked) {
        (true, false, Some(RoleName::Server)) => wrong("server", "client"),
        (false, true, Some(RoleName::Client)) => wrong("client", "server"),
        (_, _, Some(role)) => Ok(role),
        (true, false, None) => Ok(RoleName::Client),
        (false, true, None) => Ok(RoleName::Server),
        (true, true, None) => Err(
            "this file is for a client and for a server, and gt has a file for each: write gt client import \
             FILE and gt server import FILE"
                .to_owned(),
        ),
        (false, false, None) => Err(
            "nothing in it says whether it is a client's file or a server's: write gt client import FILE or \
             gt server import FILE"
                .to_owned(),
        ),
    }
}
