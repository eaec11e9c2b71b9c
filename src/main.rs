//! argv → roles → run → exit code, and nothing else.

use gt::cli::{self, Command};
use gt::{daemon, logging};
use std::process::ExitCode;

/// Failed at run time.
const FAILED: u8 = 1;
/// Bad flags or configuration.
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    let argv: Vec<String> = std::env::args_os()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let mut roles = match cli::parse(&argv) {
        Ok(Command::Run(roles)) => roles,
        Ok(Command::Print(text)) => {
            println!("{}", text.trim_end());
            return ExitCode::SUCCESS;
        }
        Ok(Command::Signal { .. }) => {
            eprintln!("gt: -s is not effective yet; send the signal to the process with kill");
            return ExitCode::from(FAILED);
        }
        Err(e) => {
            eprintln!("gt: {e}");
            return ExitCode::from(BAD_USAGE);
        }
    };
    daemon::prepare(&roles);
    let _reports = match logging::start(&roles) {
        Ok(guard) => guard,
        Err(e) => {
            eprintln!("gt: {e}");
            return ExitCode::from(FAILED);
        }
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
    match daemon::run(roles, again) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            log::error!(target: logging::FATAL, "{e}");
            ExitCode::from(FAILED)
        }
    }
}
