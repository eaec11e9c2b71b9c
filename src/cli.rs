//! The command line: subcommand, flags in Go's style, groups of `-local`. The meaning of the
//! options is in `config`.
//!
//! Flags are looked up in the declarations of the options and converted to argh's form
//! (`-tlsAddr=443` → `--tls-addr 443`), which `config::layers` reads. Messages name flags as users
//! write them.

mod invocation;
mod signal_request;
mod subcommand;

#[cfg(feature = "web")]
use std::path::Path;
use std::path::PathBuf;

#[cfg(feature = "client")]
use crate::config::client;
use crate::config::file::Document;
#[cfg(feature = "web")]
use crate::config::foreign::Content;
use crate::config::hint::did_you_mean;
use crate::config::layers::{options, Flag, Layers, OptionName, Options};
#[cfg(feature = "server")]
use crate::config::server;
use crate::config::{summary, ConfigError, RoleConfig, RoleName};
#[cfg(feature = "client")]
use crate::control::bans::BanRequest;
use crate::import::ImportRequest;
#[cfg(feature = "password")]
use crate::passwords::UserName;
use crate::version::VERSION;

pub use invocation::{invocation, Invocation};
pub use signal_request::{ControlSignal, SignalRequest};
use subcommand::{nearest, word, Subcommand};

/// The command that a command line gives.
#[derive(Debug)]
pub enum Command {
    /// Run these roles in one process.
    Run(Vec<RoleConfig>),
    /// Check whether these roles can run (`gt check`).
    Check(Vec<RoleConfig>),
    /// Print the fingerprints of the keys of the servers among these roles (`gt fingerprint`).
    Fingerprint(Vec<RoleConfig>),
    /// Print this text to stdout and exit (`-h`, `-version`).
    Print(String),
    /// Send a signal to running processes of gt (`-s`).
    Signal(SignalRequest),
    /// Ask running processes of gt about bans (`gt bans`).
    #[cfg(feature = "client")]
    Bans(BanRequest),
    /// Ask running processes of gt what they do (`gt status`).
    #[cfg(any(feature = "client", feature = "web"))]
    Status {
        /// Whether it is printed as JSON.
        is_json: bool,
    },
    /// Ask for a password, and print its hash, with this name before it (`gt hash`).
    #[cfg(feature = "password")]
    Hash(Option<UserName>),
    /// Make a key for a client and write it into this file (`gt keygen`).
    #[cfg(feature = "client")]
    Keygen(PathBuf),
    /// Print a key for a private service (`gt keygen -shared`).
    #[cfg(feature = "p2p")]
    SharedKey,
    /// Print the configuration of another program as gt's (`gt import`).
    Import(ImportRequest),
}

options! {
    /// The flags that a file cannot contain.
    pub(crate) struct ProgramFlags {
        /// read this yaml file, or every yaml file in this directory
        config: Option<PathBuf> => ("config", "string"),
        /// print this help
        h: bool => ("h", "bool"),
        /// send a signal to running processes of gt: reload, wake, restart, stop or kill
        s: Option<ControlSignal> => ("s", "string"),
        /// print the version of this program
        version: bool => ("version", "bool"),
    }
}

/// The flags that can be given with the `-config` of a directory, whose files may have different
/// roles.
const WITH_DIRECTORY: [&str; 6] = ["config", "threads", "logLevel", "s", "user", "group"];

/// Parses the command line; `argv[0]` is the program's name. Reads the files that it names, so
/// calling it again is a reload. An error is a mistake of the user and means exit code 2.
pub fn parse(argv: &[String]) -> Result<Command, ConfigError> {
    let (program, verb, arguments) = begin(argv);
    match (understand(program, arguments)?, verb) {
        (Command::Run(roles), Some(Verb::Check)) => Ok(Command::Check(roles)),
        (Command::Run(roles), Some(Verb::Fingerprint)) => Ok(Command::Fingerprint(roles)),
        (command, _) => Ok(command),
    }
}

/// Returns the role that this text would make of a file that the command line names. The error is a mistake
/// in the text, with its line. `users` is a file of users, and the text that it has in place of that on the disk.
#[cfg(feature = "web")]
pub fn role_of_text(
    argv: &[String],
    path: &Path,
    text: String,
    users: Option<(PathBuf, String)>,
) -> Result<RoleConfig, ConfigError> {
    let (program, _, arguments) = begin(argv);
    let (role, arguments) = role(program, arguments)?;
    let flags = flags(arguments, role)?;
    let mut document = Document::parse(path, text, Content::Configuration)?;
    document.users = users;
    let role = document.role(role.or(RoleName::only()))?;
    load(role, &flags, Some(&document))
}

/// What to do with roles instead of running them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Check,
    Fingerprint,
}

impl Verb {
    fn of(word: &str) -> Option<Self> {
        match word {
            "check" => Some(Self::Check),
            "fingerprint" => Some(Self::Fingerprint),
            _ => None,
        }
    }
}

/// Splits `argv` into the program's name, what to do with the roles, and the remaining arguments.
fn begin(argv: &[String]) -> (&str, Option<Verb>, &[String]) {
    let (program, arguments) = argv
        .split_first()
        .map_or(("gt", argv), |(first, rest)| (first.as_str(), rest));
    let verb = arguments.first().and_then(|first| Verb::of(first));
    match (verb, arguments) {
        (Some(_), [_, rest @ ..]) => (program, verb, rest),
        _ => (program, None, arguments),
    }
}

fn understand(program: &str, arguments: &[String]) -> Result<Command, ConfigError> {
    let nothing_said = arguments.is_empty();
    let (role, arguments) = role(program, arguments)?;
    if nothing_said && role.is_none() {
        return Err(ConfigError::new(format!(
            "Choose what to do.\n\n{}",
            usage(None)
        )));
    }
    match word(arguments, role)? {
        Some(Subcommand::Help(role)) => return Ok(Command::Print(usage(role))),
        Some(Subcommand::HelpAbout(text)) => return Ok(Command::Print(text.to_owned())),
        Some(Subcommand::Version) => return Ok(Command::Print(format!("{VERSION}\n"))),
        #[cfg(feature = "client")]
        Some(Subcommand::Bans(request)) => return Ok(Command::Bans(request)),
        #[cfg(any(feature = "client", feature = "web"))]
        Some(Subcommand::Status { is_json }) => return Ok(Command::Status { is_json }),
        #[cfg(feature = "password")]
        Some(Subcommand::Hash(user)) => return Ok(Command::Hash(user)),
        #[cfg(feature = "client")]
        Some(Subcommand::Keygen(file)) => return Ok(Command::Keygen(file)),
        #[cfg(feature = "p2p")]
        Some(Subcommand::SharedKey) => return Ok(Command::SharedKey),
        Some(Subcommand::Import(request)) => return Ok(Command::Import(request)),
        None => {}
    }
    let flags = flags(arguments, role)?;
    let program = program_flags(&flags)?;
    if program.h {
        return Ok(Command::Print(usage(role)));
    }
    if program.version {
        return Ok(Command::Print(format!("{VERSION}\n")));
    }
    let config = program.config;
    let role = role.or(RoleName::only());
    if let Some(signal) = program.s {
        return Ok(Command::Signal(SignalRequest {
            signal,
            role,
            config,
        }));
    }
    let mut loaded = Vec::new();
    match config {
        Some(path) => {
            let wrong = flags
                .iter()
                .find(|flag| !WITH_DIRECTORY.contains(&flag.name.camel));
            if let Some(flag) = wrong.filter(|_| path.is_dir()) {
                return Err(ConfigError::new(format!(
                    "-{} cannot be given with the -config of a directory: write it into the file \
                         of its role.",
                    flag.name.camel
                )));
            }
            for document in Document::open_all(&path)? {
                let role = document.role(role)?;
                loaded.push(load(role, &flags, Some(&document))?);
            }
        }
        None => {
            let role = role.ok_or_else(|| {
                ConfigError::new(
                    "Choose a role: gt server, gt client, or gt -config with a file that names one.",
                )
            })?;
            loaded.push(load(role, &flags, None)?);
        }
    }
    Ok(Command::Run(loaded))
}

/// Returns the role given by the program's name or the first argument, and the remaining arguments.
fn role<'a>(
    program: &str,
    arguments: &'a [String],
) -> Result<(Option<RoleName>, &'a [String]), ConfigError> {
    let program = program.rsplit(['/', '\\']).next().unwrap_or(program);
    let stem = program.strip_suffix(".exe").unwrap_or(program);
    let by_name = word_at_end(stem);
    let (by_word, rest) = match arguments.split_first() {
        Some((first, rest)) if first == "server" => (Some(RoleName::Server), rest),
        Some((first, rest)) if first == "client" => (Some(RoleName::Client), rest),
        _ => (None, arguments),
    };
    if let (Some(name), Some(word)) = (by_name, by_word) {
        if name != word {
            return Err(ConfigError::new(format!(
                "{program} is a {name} by its name and cannot be a {word}."
            )));
        }
    }
    let role = by_word.or(by_name);
    match role {
        Some(role) if !role.built() => Err(ConfigError::new(format!(
            "This gt was built without the {role}."
        ))),
        role => Ok((role, rest)),
    }
}

fn word_at_end(name: &str) -> Option<RoleName> {
    if name.ends_with("server") {
        Some(RoleName::Server)
    } else if name.ends_with("client") {
        Some(RoleName::Client)
    } else {
        None
    }
}

/// Reads the flags that a file cannot contain.
fn program_flags(flags: &[Flag]) -> Result<ProgramFlags, ConfigError> {
    Layers { flags, file: &[] }.read()
}

/// Returns the flags of a role, sorted by name; of both roles if the role is not known yet.
fn names(role: Option<RoleName>) -> Vec<&'static OptionName> {
    let mut names: Vec<&OptionName> = ProgramFlags::NAMES.iter().collect();
    let has = |other: RoleName| role.unwrap_or(other) == other;
    #[cfg(feature = "server")]
    if has(RoleName::Server) {
        names.extend(server::names());
    }
    #[cfg(feature = "client")]
    if has(RoleName::Client) {
        names.extend(client::names());
    }
    names.sort_by_key(|name| name.camel);
    names.dedup_by_key(|name| name.camel);
    names
}

/// Parses flags by Go's rules: one dash or two, `-name value` or `-name=value`; a boolean flag
/// takes a value with `=` only.
fn flags(arguments: &[String], role: Option<RoleName>) -> Result<Vec<Flag>, ConfigError> {
    let names = names(role);
    let mut flags = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let bare = argument
            .strip_prefix("--")
            .or(argument.strip_prefix('-'))
            .unwrap_or("");
        if bare.is_empty() {
            // It may be the rest of a secret that contains a space.
            let shown = match flags.last() {
                Some(Flag { name, .. }) if summary::is_secret(name) => {
                    format!("The argument after the value of -{}", name.camel)
                }
                _ => format!("\"{argument}\""),
            };
            return Err(ConfigError::new(format!(
                "{shown} is not a flag: flags begin with a dash, and a switch takes its \
                     value like -name=false."
            )));
        }
        let (word, value) = match bare.split_once('=') {
            Some((word, value)) => (word, Some(value.to_owned())),
            None => (bare, None),
        };
        let word = if word == "help" { "h" } else { word };
        let Some(name) = names
            .iter()
            .find(|name| word == name.camel || name.long().strip_prefix("--") == Some(word))
        else {
            let known = names.iter().map(|name| name.camel);
            let hint = match did_you_mean(word, known.clone()).or_else(|| nearest(word, known)) {
                Some(meant) => format!("did you mean -{meant}?"),
                None => "-h lists all there are.".to_owned(),
            };
            let of = role
                .map(|role| format!(" of the {role}"))
                .unwrap_or_default();
            return Err(ConfigError::new(format!(
                "-{word} is not a flag{of}: {hint}"
            )));
        };
        let value = match value {
            Some(value) => value,
            None if name.kind == "bool" => "true".to_owned(),
            None => arguments
                .next()
                .cloned()
                .ok_or_else(|| ConfigError::new(format!("-{} needs a value.", name.camel)))?,
        };
        flags.push(Flag { name, value });
    }
    Ok(flags)
}

/// Creates the configuration of a role from the flags and a file.
pub(crate) fn load(
    role: RoleName,
    flags: &[Flag],
    document: Option<&Document>,
) -> Result<RoleConfig, ConfigError> {
    let names = names(Some(role));
    if let Some(flag) = flags
        .iter()
        .find(|flag| names.iter().all(|name| name.camel != flag.name.camel))
    {
        return Err(ConfigError::new(format!(
            "-{} is not a flag of the {role}.",
            flag.name.camel
        )));
    }
    let groups = service_groups(flags, role)?;
    let mut loaded = match role {
        #[cfg(feature = "server")]
        RoleName::Server => server::load(flags, document),
        #[cfg(feature = "client")]
        RoleName::Client => client::load(flags, &groups, document),
        #[cfg(not(all(feature = "server", feature = "client")))]
        _ => Err(ConfigError::new(format!(
            "This gt was built without the {role}."
        ))),
    }?;
    loaded.shown = summary::summary(
        &names,
        &pairs(flags.iter().filter(|flag| {
            let in_group =
                |group: &Vec<Flag>| group.iter().any(|f| f.name.camel == flag.name.camel);
            groups.len() < 2 || !groups.iter().any(in_group)
        })),
        &match groups.len() {
            0 | 1 => Vec::new(),
            _ => groups.iter().map(pairs).collect(),
        },
        document,
    );
    Ok(loaded)
}

fn pairs<'f>(flags: impl IntoIterator<Item = &'f Flag>) -> Vec<summary::FlagText<'f>> {
    let pair = |flag: &'f Flag| (flag.name.camel, flag.value.as_str());
    flags.into_iter().map(pair).collect()
}

/// Groups the flags of services: each `-local` with the flags up to the next one. With at most one
/// `-local`, all service flags are one group, in any order. A server has no groups.
fn service_groups(flags: &[Flag], role: RoleName) -> Result<Vec<Vec<Flag>>, ConfigError> {
    let names: &[OptionName] = match role {
        #[cfg(feature = "client")]
        RoleName::Client => client::service_names(),
        _ => &[],
    };
    let mine: Vec<&Flag> = flags
        .iter()
        .filter(|flag| names.iter().any(|name| name.camel == flag.name.camel))
        .collect();
    let locals = mine
        .iter()
        .filter(|flag| flag.name.camel == "local")
        .count();
    let mut groups: Vec<Vec<Flag>> = Vec::new();
    for flag in mine {
        let begins = if locals > 1 {
            flag.name.camel == "local"
        } else {
            groups.is_empty()
        };
        match groups.last_mut() {
            _ if begins => groups.push(vec![flag.clone()]),
            Some(group) => group.push(flag.clone()),
            None => {
                return Err(ConfigError::new(format!(
                    "-{} is given before the first -local: if there are several, the flags of a \
                         service follow its -local.",
                    flag.name.camel
                )))
            }
        }
    }
    Ok(groups)
}

/// The line about `gt hash` in the help text.
const HASH: &str = if cfg!(feature = "password") {
    "gt hash [USER]         ask for a password and print its hash, for a service's password\n  "
} else {
    ""
};

/// The line about `gt import` in the help text.
const IMPORT: &str = if cfg!(feature = "import") {
    "gt import FILE         print the configuration of frp, rathole or the original GT as gt's\n  "
} else {
    ""
};

/// Returns the help text of a role, or of the program if the role is not known.
fn usage(role: Option<RoleName>) -> String {
    let Some(role) = role.or(RoleName::only()) else {
        return format!(
            "{VERSION}\n\
             Usage:\n  \
             gt server [flags]      run a server, the public end (flags: gt server -h)\n  \
             gt client [flags]      run a client, the end behind NAT (flags: gt client -h)\n  \
             gt -config FILE        run the role that the file configures\n  \
             gt -config DIRECTORY   run every yaml file in it, in one process\n  \
             gt check -config FILE  test a configuration without running it\n  \
             gt fingerprint -config FILE  print the fingerprint of a server's key, for remoteKey\n  \
             gt -s SIGNAL           send reload, wake, restart, stop or kill to running processes of gt\n  \
             gt bans                list the addresses that running clients have banned (visitorRate)\n  \
             gt bans lift ADDRESS   lift the bans of an address, or of all\n  \
             gt status [-json]      show what running processes of gt do (webAddr, tcpForwardAddr)\n  \
             gt keygen [FILE]       make a key for a client (key), and print the server's publicKey\n  \
             gt keygen -shared      print a key for a private service (private) and its clients\n  \
             {HASH}\
             {IMPORT}\
             gt help [ROLE]         print this help, or the flags of the server or the client\n  \
             gt version             print the version of this program\n"
        );
    };
    let subcommand = if RoleName::only().is_some() {
        String::new()
    } else {
        format!("{role} ")
    };
    let mut text = format!("{VERSION}\nUsage: gt {subcommand}[flags]\n");
    for name in names(Some(role)) {
        text.push_str("  -");
        text.push_str(name.camel);
        if name.kind != "bool" {
            text.push(' ');
            text.push_str(name.kind);
        }
        text.push_str("\n        ");
        text.push_str(name.help());
        match (name.default, name.kind) {
            ("", _) => {}
            (default, "string") => text.push_str(&format!(" (default \"{default}\")")),
            (default, _) => text.push_str(&format!(" (default {default})")),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
#[cfg(all(
    feature = "server",
    feature = "client",
    feature = "p2p",
    feature = "sentry"
))]
mod pages;

#[cfg(test)]
mod tests;
