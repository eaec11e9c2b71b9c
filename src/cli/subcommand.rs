//! A first argument that is not a flag: `gt help`, `gt version`, or a mistake. The parent module
//! handles roles and `check`, which flags follow.

use std::path::Path;
#[cfg(feature = "client")]
use std::path::PathBuf;

use crate::config::{ConfigError, RoleName};
#[cfg(feature = "client")]
use crate::control::bans::BanRequest;
use crate::import::ImportRequest;
#[cfg(feature = "password")]
use crate::passwords::UserName;

/// A subcommand without flags of its own.
#[derive(Debug, PartialEq, Eq)]
pub enum Subcommand {
    /// Print the usage of gt, or the flags of one role.
    Help(Option<RoleName>),
    /// Print how a subcommand is used.
    HelpAbout(&'static str),
    /// Print the version.
    Version,
    /// Ask running processes about bans.
    #[cfg(feature = "client")]
    Bans(BanRequest),
    /// Ask running processes what they do.
    #[cfg(any(feature = "client", feature = "web"))]
    Status {
        /// Whether it is printed as JSON.
        is_json: bool,
    },
    /// Ask for a password, and print its hash, with the name of a user before it.
    #[cfg(feature = "password")]
    Hash(Option<UserName>),
    /// Make a key for a client, and write it into this file.
    #[cfg(feature = "client")]
    Keygen(PathBuf),
    /// Print a key for a private service.
    #[cfg(feature = "p2p")]
    SharedKey,
    /// Print the configuration of another program as gt's.
    Import(ImportRequest),
}

/// Parses the subcommand at the beginning of the arguments, if there is one. `role` is the role
/// given before it. The error suggests the nearest subcommand.
pub fn word(
    arguments: &[String],
    role: Option<RoleName>,
) -> Result<Option<Subcommand>, ConfigError> {
    let Some((first, rest)) = arguments.split_first() else {
        return Ok(None);
    };
    let of = match rest.first().map(String::as_str) {
        Some("server") => Some(RoleName::Server),
        Some("client") => Some(RoleName::Client),
        _ => role,
    };
    match first.as_str() {
        "help" => match of {
            Some(role) if !role.built() => Err(ConfigError::new(format!(
                "This gt was built without the {role}."
            ))),
            of => Ok(Some(Subcommand::Help(of))),
        },
        "version" => Ok(Some(Subcommand::Version)),
        #[cfg(feature = "client")]
        "bans" => BanRequest::from_words(rest)
            .map(|request| Some(Subcommand::Bans(request)))
            .map_err(ConfigError::new),
        #[cfg(any(feature = "client", feature = "web"))]
        "status" => match rest {
            [] => Ok(Some(Subcommand::Status { is_json: false })),
            [flag] if matches!(flag.as_str(), "-json" | "--json") => {
                Ok(Some(Subcommand::Status { is_json: true }))
            }
            _ => Err(ConfigError::new("Write gt status or gt status -json.")),
        },
        #[cfg(feature = "password")]
        "hash" => user(rest)
            .map(|user| Some(Subcommand::Hash(user)))
            .map_err(ConfigError::new),
        #[cfg(feature = "p2p")]
        "keygen" if matches!(rest, [flag] if flag == "-shared") => Ok(Some(Subcommand::SharedKey)),
        #[cfg(feature = "client")]
        "keygen" => key_file(rest)
            .map(|file| Some(Subcommand::Keygen(file)))
            .map_err(ConfigError::new),
        "import" if is_help(rest) => Ok(Some(Subcommand::HelpAbout(ImportRequest::HELP))),
        "import" => ImportRequest::from_words(rest, role)
            .map(|request| Some(Subcommand::Import(request)))
            .map_err(ConfigError::new),
        flag if flag.is_empty() || flag.starts_with('-') => Ok(None),
        word => Err(ConfigError::new(format!(
            "\"{word}\" is not a command of gt{}",
            hint(word)
        ))),
    }
}

/// Whether the words behind a subcommand ask for its help.
fn is_help(words: &[String]) -> bool {
    matches!(words, [word] if matches!(word.as_str(), "-h" | "-help" | "--help"))
}

/// Reads the words of the command line behind `hash`.
#[cfg(feature = "password")]
fn user(words: &[String]) -> Result<Option<UserName>, String> {
    match words {
        [] => Ok(None),
        [user] if user.starts_with('-') => {
            Err("gt hash has no flags: write gt hash or gt hash USER.".to_owned())
        }
        [user] => user
            .parse()
            .map(Some)
            .map_err(|why| format!("The name is not right: {why}.")),
        // Perhaps a password.
        _ => Err("Write gt hash or gt hash USER; gt asks for the password.".to_owned()),
    }
}

/// Reads the words of the command line behind `keygen`.
#[cfg(feature = "client")]
fn key_file(words: &[String]) -> Result<PathBuf, String> {
    match words {
        [] => Ok(PathBuf::from("gt.key")),
        [file] if !file.is_empty() && !file.starts_with('-') => Ok(PathBuf::from(file)),
        _ => Err("Write gt keygen, which writes gt.key, or gt keygen FILE.".to_owned()),
    }
}

/// Returns the end of the error message about an unknown subcommand: a suggestion.
fn hint(word: &str) -> String {
    let extension = Path::new(word).extension().and_then(|it| it.to_str());
    if matches!(extension, Some("yaml" | "yml")) {
        return format!(": did you mean gt -config {word}?");
    }
    let signals = ["reload", "wake", "restart", "stop", "kill"];
    let commands = [
        "server",
        "client",
        "check",
        "fingerprint",
        "bans",
        "status",
        "hash",
        "keygen",
        "import",
        "help",
        "version",
    ];
    match nearest(word, commands.iter().chain(&signals).copied()) {
        Some(signal) if signals.contains(&signal) => format!(
            ": did you mean gt -s {signal}, which signals the gt that runs? gt help lists the \
             commands."
        ),
        Some(command) => format!(": did you mean gt {command}? gt help lists the commands."),
        None => ": gt help lists the commands.".to_owned(),
    }
}

/// Returns the name nearest to a mistyped word, if it differs in at most two letters.
pub fn nearest<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    const LONGEST: usize = 40;
    let most = (word.len() + 1) / 3;
    names
        .filter(|_| word.len() <= LONGEST)
        .map(|name| (distance(word, name), name))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= most.min(2))
        .map(|(_, name)| name)
}

/// Returns the edit distance of two words, ignoring case.
fn distance(one: &str, other: &str) -> usize {
    let lower = |byte: u8| byte.to_ascii_lowercase();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut before = i + 1;
        let mut next = vec![before];
        for ((b, diagonal), above) in other.bytes().zip(&row).zip(row.iter().skip(1)) {
            let change = diagonal + usize::from(lower(a) != lower(b));
            before = change.min(above + 1).min(before + 1);
            next.push(before);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_counts_letters() {
        for (one, other, count) in [
            ("", "", 0),
            ("abc", "ABC", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("sever", "server", 1),
            ("srever", "server", 2),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(one, other), count, "{one} {other}");
        }
    }

    #[test]
    fn the_nearest_name_is_one_that_can_be_meant() {
        let names = ["server", "client", "stop"];
        for (word, name) in [
            ("sever", Some("server")),
            ("clinet", Some("client")),
            ("stopp", Some("stop")),
            ("step", Some("stop")),
            ("st", None),
            ("run", None),
            ("s", None),
        ] {
            assert_eq!(nearest(word, names.into_iter()), name, "{word}");
        }
    }
}
