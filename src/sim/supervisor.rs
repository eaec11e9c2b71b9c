//! What a supervisor is told, by this thread's world: the items of `daemon/supervisor.rs`.

use super::process::{self, ProcessId};

/// Notes which process has taken over from the running one.
pub(crate) fn notify(state: &str) {
    let main = state.trim_end().strip_prefix("MAINPID=");
    let number = main.and_then(|number| number.parse().ok());
    if let Some(number) = number {
        process::set_successor(ProcessId::from_number(number));
    }
}
