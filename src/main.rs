//! argv → roles → run → exit code, and nothing else.

use gt::cli::{self, Command};
use gt::daemon::{self, Origin};
use gt::handover::{Heir, Legacy, Program, Word};
use gt::{logging, signals};
use std::io::{self, Write};
use std::process::ExitCode;

/// Failed at run time.
const FAILED: u8 = 1;
/// Bad flags or configuration.
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    let (heir, legacy) = match Heir::find() {
        Ok(Some((heir, legacy))) => (Some(heir), legacy),
        Ok(None) => (None, Legacy::default()),
        Err(e) => {
            return complain(
                FAILED,
                &format!("taking another process's place: {e}"),
                None,
            )
        }
    };
    let argv: Vec<String> = std::env::args_os()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let mut roles = match cli::parse(&argv) {
        Ok(Command::Run(roles)) => roles,
        Ok(Command::Print(text)) => {
            // Who reads only its beginning, as `head` does, has closed the pipe.
            let _ = writeln!(io::stdout(), "{}", text.trim_end());
            return ExitCode::SUCCESS;
        }
        Ok(Command::Signal(wanted)) => match signals::send(&wanted) {
            Ok(sent) => {
                for line in sent {
                    let _ = writeln!(io::stdout(), "gt: {line}");
                }
                return ExitCode::SUCCESS;
            }
            Err(why) => return complain(FAILED, &why, None),
        },
        Err(e) => return complain(BAD_USAGE, &e.to_string(), heir.as_ref()),
    };
    let program = match Program::this() {
        Ok(program) => program,
        Err(e) => {
            let why = format!("finding out which program this is: {e}");
            return complain(FAILED, &why, heir.as_ref());
        }
    };
    daemon::prepare(&roles);
    let _reports = match logging::start(&roles) {
        Ok(guard) => guard,
        Err(e) => return complain(FAILED, &e.to_string(), heir.as_ref()),
    };
    for loaded in &mut roles {
        let config = std::mem::take(&mut loaded.shown);
        log::info!("{} config={config}", cli::VERSION);
    }
    for warning in roles.iter().flat_map(|loaded| &loaded.warnings) {
        log::warn!("{warning}");
    }
    let again = move || match cli::parse(&argv)? {
        Command::Run(roles) => Ok::<_, gt::config::Error>(roles),
        _ => Ok(Vec::new()),
    };
    let origin = Origin {
        program,
        heir,
        legacy,
    };
    match daemon::run(roles, origin, again) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            log::error!(target: logging::FATAL, "{e}");
            ExitCode::from(FAILED)
        }
    }
}

/// Says why nothing runs, also to the process whose place this one was to take.
fn complain(code: u8, why: &str, heir: Option<&Heir>) -> ExitCode {
    let _ = writeln!(io::stderr(), "gt: {why}");
    if let Some(heir) = heir {
        heir.say(&Word::Failed(why.to_owned()));
    }
    ExitCode::from(code)
}
