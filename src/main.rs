//! The program: parses the command line, runs the roles, and returns the exit code.

// A panic ends the process in the programs for routers: nothing that input reaches may have one.
// Tests may, see clippy.toml.
#![warn(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use gt::cli::{self, Command};
use gt::config::RoleConfig;
use gt::daemon::{self, ProcessOrigin};
use gt::handover::{Inherited, ParentLink, Program};
#[cfg(feature = "import")]
use gt::import::ImportRequest;
#[cfg(feature = "client")]
use gt::keys::PrivateKey;
#[cfg(feature = "password")]
use gt::passwords::{self, PasswordHash, UserName};
use gt::version::VERSION;
use gt::{control, logging};
use std::io::{self, Write};
#[cfg(feature = "client")]
use std::path::Path;
use std::process::ExitCode;

/// Exit code of a failure at run time.
const FAILED: u8 = 1;
/// Exit code of bad flags or a bad configuration.
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    if cfg!(feature = "sim") {
        let why = "this program was built for a simulation: build it without the feature sim";
        return complain(FAILED, why, None);
    }
    let signals = match daemon::expect_signals() {
        Ok(signals) => signals,
        Err(e) => return complain(FAILED, &format!("waiting for signals: {e}"), None),
    };
    let (parent, inherited) = match ParentLink::from_env() {
        Ok(Some((parent, inherited))) => (Some(parent), inherited),
        Ok(None) => (None, Inherited::default()),
        Err(e) => {
            let why = format!("taking another process's place: {e}");
            return complain(FAILED, &why, None);
        }
    };
    let program = Program::current();
    let argv: Vec<String> = std::env::args_os()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let mut roles = match cli::parse(&argv) {
        Ok(Command::Run(roles)) => roles,
        Ok(Command::Check(roles)) => return check(&roles),
        Ok(Command::Fingerprint(roles)) => return fingerprint(&roles),
        Ok(Command::Print(text)) => {
            // A reader that stops early, such as `head`, has closed the pipe.
            let _ = writeln!(io::stdout(), "{}", text.trim_end());
            return ExitCode::SUCCESS;
        }
        Ok(Command::Signal(wanted)) => return print(control::send(&wanted)),
        #[cfg(feature = "client")]
        Ok(Command::Bans(request)) => return print(control::bans::ask(request)),
        #[cfg(any(feature = "client", feature = "web"))]
        Ok(Command::Status { is_json }) => return status(is_json),
        #[cfg(feature = "password")]
        Ok(Command::Hash(user)) => return hash(user.as_ref()),
        #[cfg(feature = "client")]
        Ok(Command::Keygen(file)) => return keygen(&file),
        #[cfg(feature = "p2p")]
        Ok(Command::SharedKey) => return shared_key(),
        #[cfg(feature = "import")]
        Ok(Command::Import(request)) => return import(&request),
        #[cfg(not(feature = "import"))]
        Ok(Command::Import(request)) => match request {},
        Err(e) => return complain(BAD_USAGE, &e.to_string(), parent.as_ref()),
    };
    if let Err(e) = daemon::prepare(&roles) {
        return complain(FAILED, &e.to_string(), parent.as_ref());
    }
    let _reports = match logging::start(&roles) {
        Ok(guard) => guard,
        Err(e) => return complain(FAILED, &e.to_string(), parent.as_ref()),
    };
    for loaded in &mut roles {
        let config = std::mem::take(&mut loaded.shown);
        log::info!("{} config={config}", VERSION);
    }
    for warning in roles.iter().flat_map(|loaded| &loaded.warnings) {
        log::warn!("{warning}");
    }
    let again = move || match cli::parse(&argv)? {
        Command::Run(roles) => Ok::<_, gt::config::ConfigError>(roles),
        _ => Ok(Vec::new()),
    };
    let origin = ProcessOrigin {
        program,
        parent,
        inherited,
    };
    match daemon::run(roles, origin, signals, again) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            if !e.is_reported {
                log::error!(target: logging::FATAL, "{e}");
            }
            ExitCode::from(FAILED)
        }
    }
}

/// Prints what running processes tell of themselves; JSON without anything before it.
#[cfg(any(feature = "client", feature = "web"))]
fn status(is_json: bool) -> ExitCode {
    let mut report = control::status::ask(is_json);
    if is_json {
        for line in std::mem::take(&mut report.done) {
            let _ = writeln!(io::stdout(), "{line}");
        }
    }
    print(report)
}

/// Prints what a command about running processes has done.
fn print(report: control::ControlReport) -> ExitCode {
    for line in report.done {
        let _ = writeln!(io::stdout(), "gt: {line}");
    }
    let failures = report.failed.iter();
    failures.fold(ExitCode::SUCCESS, |_, why| complain(FAILED, why, None))
}

/// Asks for a password and prints its hash, with the name of its user.
#[cfg(feature = "password")]
fn hash(user: Option<&UserName>) -> ExitCode {
    let hash = passwords::read_password().and_then(|password| PasswordHash::new(&password));
    match hash {
        Ok(hash) => {
            let user = user.map_or(String::new(), |user| format!("{}:", user.as_str()));
            match writeln!(io::stdout(), "{user}{hash}") {
                Ok(()) => ExitCode::SUCCESS,
                Err(e) => complain(FAILED, &format!("the hash cannot be printed: {e}"), None),
            }
        }
        Err(e) => complain(FAILED, &format!("no hash was made: {e}"), None),
    }
}

/// Prints the configuration of another program as gt's, and on stderr what it is and whether gt runs it.
#[cfg(feature = "import")]
fn import(request: &ImportRequest) -> ExitCode {
    let imported = match request.run() {
        Ok(imported) => imported,
        Err(why) => return complain(BAD_USAGE, &why, None),
    };
    for line in &imported.summary {
        logging::print_error(line);
    }
    match io::stdout().write_all(imported.text.as_bytes()) {
        Ok(()) if imported.incomplete.is_none() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(FAILED),
        Err(e) => complain(
            FAILED,
            &format!("the configuration cannot be printed: {e}"),
            None,
        ),
    }
}

/// Prints each role with its warnings, and what would keep it from starting on this machine.
fn check(roles: &[RoleConfig]) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    if let Err(why) = daemon::check_as_user(roles) {
        code = complain(FAILED, &why.to_string(), None);
    }
    for loaded in roles {
        for warning in &loaded.warnings {
            eprintln!("gt: warning: {warning}");
        }
        for warning in daemon::exposed_files(loaded) {
            eprintln!("gt: warning: {warning}");
        }
        if let Err(why) = daemon::check(loaded) {
            code = complain(FAILED, &why.to_string(), None);
        }
        let source = loaded.source.as_ref();
        let source = source.map_or("flags".into(), |file| file.to_string_lossy());
        let ports = if loaded.low_ports() {
            ", ports below 1024"
        } else {
            ""
        };
        let peers = loaded.peer_ports();
        let peers = peers.map_or(String::new(), |ports| format!(", peers at UDP {ports}"));
        let user = loaded.account().user.as_ref();
        let user = user.map_or(String::new(), |user| format!(", user {user}"));
        let _ = writeln!(
            io::stdout(),
            "{source}: {}{ports}{peers}{user}",
            loaded.name()
        );
    }
    code
}

/// Makes a key for a client, and prints its public half as a line for the server's `publicKey`.
#[cfg(feature = "client")]
fn keygen(file: &Path) -> ExitCode {
    let made = PrivateKey::generate().and_then(|key| key.write(file).map(|()| key));
    match made {
        Ok(key) => {
            // The comment of the key, to recognize it by; without a host name it has none.
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let line = format!("{} {}", key.public_key(), host.trim());
            let _ = writeln!(io::stdout(), "{}", line.trim_end());
            ExitCode::SUCCESS
        }
        Err(e) => complain(FAILED, &format!("no key was made: {e}"), None),
    }
}

/// Prints a key for a private service: 256 random bits.
#[cfg(feature = "p2p")]
fn shared_key() -> ExitCode {
    match gt::keys::shared_key() {
        Ok(key) => {
            let _ = writeln!(io::stdout(), "{key}");
            ExitCode::SUCCESS
        }
        Err(e) => complain(FAILED, &format!("no key was made: {e}"), None),
    }
}

/// Prints the fingerprints of the servers' keys, a line for each.
fn fingerprint(roles: &[RoleConfig]) -> ExitCode {
    match daemon::fingerprints(roles) {
        Ok(fingerprints) => {
            for fingerprint in fingerprints {
                let _ = writeln!(io::stdout(), "{fingerprint}");
            }
            ExitCode::SUCCESS
        }
        Err(e) => complain(FAILED, &e.to_string(), None),
    }
}

/// Reports an error to the parent process during a handover, otherwise on stderr.
fn complain(code: u8, why: &str, parent: Option<&ParentLink>) -> ExitCode {
    if !daemon::DaemonError::report(why.to_owned(), parent).is_reported {
        logging::print_error(&why);
    }
    ExitCode::from(code)
}
