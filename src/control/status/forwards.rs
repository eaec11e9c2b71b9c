//! What clients tell of the ways to the other clients that they forward to (`tcpForwardAddr`, `udpForwardAddr`).

use super::super::socket;
use super::Told;

/// The request, and the first line of an answer.
pub const STATUS: &str = "status";

/// Asks a process.
pub fn ask(pid: u32) -> Result<Told, String> {
    match socket::exchange(pid, &format!("{STATUS}\n")) {
        Ok(Some(answer)) => match answer.split_once('\n') {
            Some((STATUS, lines)) => Ok(Told::Lines(lines.lines().map(str::to_owned).collect())),
            _ => Err("it refuses, or is an earlier version".to_owned()),
        },
        // It forwards nothing.
        Ok(None) => Ok(Told::Nothing),
        Err(e) => Err(e.to_string()),
    }
}
