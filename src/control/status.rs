//! The command `gt status`: asks the running processes of gt what they do. Those with a web page (`webAddr`) tell
//! all of it; clients also tell the ways to the other clients that they forward to.

#[cfg_attr(not(feature = "client"), path = "status/no_forwards.rs")]
mod forwards;
#[cfg_attr(not(feature = "web"), path = "status/no_pages.rs")]
pub mod pages;

#[cfg(feature = "client")]
pub use forwards::STATUS;

use super::ControlReport;

/// What a process has told.
pub enum Told {
    /// Lines, to be printed behind its number.
    Lines(Vec<String>),
    /// Nothing, since it has nothing to tell.
    Nothing,
}

/// Asks every running process of this program. With `is_json`, what their pages tell is printed as it is.
pub fn ask(is_json: bool) -> ControlReport {
    let mut report = ControlReport::default();
    let Some(running) = report.find_running() else {
        return report;
    };
    for process in &running.ours {
        let pid = process.pid;
        let asked = match is_json {
            true => vec![pages::ask_json(pid)],
            false => vec![pages::ask(pid), forwards::ask(pid)],
        };
        for told in asked {
            match told {
                Ok(Told::Lines(lines)) if is_json => report.done.extend(lines),
                Ok(Told::Lines(lines)) => {
                    let lines = lines.into_iter();
                    report.done.extend(lines.map(|line| format!("process {pid} {line}")));
                }
                Ok(Told::Nothing) => {}
                Err(why) => report.failed.push(format!(
                    "process {pid} does not tell its status: {why}; try as root, or as the user it runs as"
                )),
            }
        }
    }
    if report.done.is_empty() && report.failed.is_empty() {
        let mut why = "no gt that this user may ask has a web page (webAddr), or forwards to other clients \
                       (tcpForwardAddr, udpForwardAddr); a server with apiAddr answers curl ADDRESS/status"
            .to_owned();
        for hidden in &running.hidden {
            why += &format!("; process {} seems to be a gt: try as root", hidden.pid);
        }
        report.failed.push(why);
    }
    report
}
