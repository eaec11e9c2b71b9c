//! The command `gt status`: asks the running clients of gt for the ways to the other clients that they forward to
//! (`tcpForwardAddr`, `udpForwardAddr`).

use super::{socket, ControlReport};

/// The request, and the first line of an answer.
pub const STATUS: &str = "status";

/// Asks every running process of this program.
pub fn ask() -> ControlReport {
    let mut report = ControlReport::default();
    let Some(running) = report.find_running() else {
        return report;
    };
    for process in &running.ours {
        let pid = process.pid;
        match socket::exchange(pid, &format!("{STATUS}\n")) {
            Ok(Some(answer)) => match answer.split_once('\n') {
                Some((STATUS, lines)) => {
                    let lines = lines.lines();
                    report.done.extend(lines.map(|line| format!("process {pid} {line}")));
                }
                _ => report.failed.push(format!(
                    "process {pid} does not tell its status: try as root, or as the user it runs as; or it \
                     is an earlier version"
                )),
            },
            // It forwards nothing.
            Ok(None) => {}
            Err(e) => report.failed.push(format!(
                "process {pid} does not tell its status: {e}; try as root, or as the user it runs as"
            )),
        }
    }
    if report.done.is_empty() && report.failed.is_empty() {
        let mut why =
            "no gt that this user may ask forwards to other clients (tcpForwardAddr, udpForwardAddr)".to_owned();
        for hidden in &running.hidden {
            why += &format!("; process {} seems to be a gt: try as root", hidden.pid);
        }
        report.failed.push(why);
    }
    report
}
