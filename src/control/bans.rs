//! The command `gt bans`: asks the running processes of gt for the addresses that they have banned
//! (`visitorRate`), or lifts bans.

use super::{socket, ControlReport};
use std::io;
use std::net::IpAddr;

/// What a process is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BanRequest {
    /// Tell all bans.
    List,
    /// Lift the bans of this address, or all for `None`.
    Lift(Option<IpAddr>),
}

impl BanRequest {
    /// Reads the words of the command line behind `bans`.
    pub fn from_words(words: &[String]) -> Result<Self, String> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[..] {
            [] => Ok(Self::List),
            ["lift", "all"] => Ok(Self::Lift(None)),
            // As it is listed.
            ["lift", address] => match address.strip_suffix("/64").unwrap_or(address).parse() {
                Ok(address) => Ok(Self::Lift(Some(address))),
                Err(_) => Err(format!(
                    "\"{address}\" is not an address: write it like 192.0.2.1 or 2001:db8::1, or all."
                )),
            },
            _ => Err("Write gt bans, gt bans lift ADDRESS or gt bans lift all.".to_owned()),
        }
    }

    /// Reads a request as the process gets it.
    #[cfg(feature = "client")]
    pub fn from_line(line: &str) -> Option<Self> {
        let words: Vec<String> = line
            .strip_suffix('\n')?
            .split(' ')
            .map(str::to_owned)
            .collect();
        match words.first().map(String::as_str) {
            Some("list") => Some(Self::List),
            _ => Self::from_words(&words).ok(),
        }
    }

    /// Returns the request as the process gets it.
    fn line(self) -> String {
        match self {
            Self::List => "list\n".to_owned(),
            Self::Lift(None) => "lift all\n".to_owned(),
            Self::Lift(Some(address)) => format!("lift {address}\n"),
        }
    }
}

/// Asks every running process of this program.
pub fn ask(request: BanRequest) -> ControlReport {
    let mut report = ControlReport::default();
    let Some(running) = report.find_running() else {
        return report;
    };
    let mut answers = 0;
    for process in &running.ours {
        match exchange(process.pid, request) {
            Ok(Some(answer)) => {
                answers += 1;
                report.done.extend(shown(process.pid, request, &answer));
            }
            Ok(None) => {}
            Err(e) => report.failed.push(format!(
                "process {} does not tell its bans: {e}; try as root, or as the user it runs as",
                process.pid
            )),
        }
    }
    if answers == 0 && report.failed.is_empty() {
        let mut why = "no gt that this user may ask counts visitors (visitorRate)".to_owned();
        for hidden in &running.hidden {
            why += &format!("; process {} seems to be a gt: try as root", hidden.pid);
        }
        report.failed.push(why);
    }
    report
}

/// Returns the answer of a process; `None` if it counts no visitors.
fn exchange(pid: u32, request: BanRequest) -> io::Result<Option<String>> {
    let answer = socket::exchange(pid, &request.line())?;
    match (request, answer) {
        // It always tells a number.
        (BanRequest::Lift(_), Some(answer)) if answer.is_empty() => {
            Err(io::ErrorKind::PermissionDenied.into())
        }
        (_, answer) => Ok(answer),
    }
}

/// Returns the lines to print about the answer of a process.
fn shown(pid: u32, request: BanRequest, answer: &str) -> Vec<String> {
    match request {
        BanRequest::Lift(_) => vec![format!("process {pid} has lifted {} bans", answer.trim())],
        BanRequest::List if answer.is_empty() => vec![format!("process {pid} has banned nobody")],
        BanRequest::List => {
            let ban = |line: &str| {
                let mut words = line.splitn(3, ' ');
                let (address, seconds) = (words.next()?, words.next()?);
                let service = words.next()?;
                Some(format!(
                    "process {pid} has banned {address} for {seconds} s more from {service}"
                ))
            };
            answer.lines().filter_map(ban).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<BanRequest, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        BanRequest::from_words(&words)
    }

    #[test]
    fn the_command_is_read_and_passed_on() {
        let address = "192.0.2.1".parse().ok();
        let network = "2001:db8::".parse().ok();
        for (line, request) in [
            ("", BanRequest::List),
            ("lift all", BanRequest::Lift(None)),
            ("lift 192.0.2.1", BanRequest::Lift(address)),
            ("lift 2001:db8::/64", BanRequest::Lift(network)),
        ] {
            assert_eq!(words(line), Ok(request), "{line}");
            #[cfg(feature = "client")]
            assert_eq!(BanRequest::from_line(&request.line()), Some(request));
        }
        for line in ["all", "lift", "lift me", "lift 192.0.2.1 192.0.2.2", "list"] {
            assert!(words(line).is_err(), "{line}");
        }
        #[cfg(feature = "client")]
        for line in ["", "list", "lift all", "lift\n", "\n", "lift 1 2\n"] {
            let read = BanRequest::from_line(line);
            assert!(read.is_none() || line == "\n", "{line:?}: {read:?}");
        }
    }
}
