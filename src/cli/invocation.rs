//! The role and the configuration file in the command line of another process. Not its validation.

use std::path::PathBuf;

use super::{begin, flags, program_flags, role, word};
use crate::config::RoleName;

/// The parts of a command line that identify a running gt.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Invocation {
    /// The role given by the program's name, by the first argument, or by the build.
    pub role: Option<RoleName>,
    /// The value of `-config`, as it was written.
    pub config: Option<PathBuf>,
    /// Whether the command runs no role, but prints something, checks or sends a signal.
    pub runs_nothing: bool,
}

/// Parses a command line as [`super::parse`] does; `argv[0]` is the program's name. A gt of another
/// version may have flags that are unknown here; the result then has only the role.
pub fn invocation(argv: &[String]) -> Invocation {
    if argv.is_empty() {
        // A process that is being started has no arguments yet.
        return Invocation {
            runs_nothing: true,
            ..Invocation::default()
        };
    }
    let (program, verb, arguments) = begin(argv);
    let Ok((role, rest)) = role(program, arguments) else {
        return Invocation::default();
    };
    // Without arguments gt prints its usage, also in a build of one role.
    let nothing_said = arguments.is_empty() && role.is_none();
    let runs_nothing = verb.is_some() || nothing_said || !matches!(word(rest, role), Ok(None));
    let told = Invocation {
        role: role.or(RoleName::only()),
        config: None,
        runs_nothing,
    };
    let Ok(program) = flags(rest, role).and_then(|flags| program_flags(&flags)) else {
        return told;
    };
    Invocation {
        runs_nothing: runs_nothing || program.h || program.version || program.s.is_some(),
        config: program.config,
        ..told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Invocation {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        invocation(&words)
    }

    #[test]
    fn a_command_line_that_prints_or_signals_runs_nothing() {
        for line in [
            "",
            "gt",
            "gt -h",
            "gt --help",
            "gt -version",
            "gt -s stop",
            "gt --s=reload -config x",
            "gt check -config x",
            "gt help",
            "gt help server",
            "gt version",
            "gt sever -addr 80",
        ] {
            assert!(of(line).runs_nothing, "{line}");
        }
        for line in ["gt -config x", "gt -version=false -config x"] {
            assert!(!of(line).runs_nothing, "{line}");
        }
    }

    #[test]
    fn every_form_of_the_config_flag_is_read() {
        for line in [
            "gt -config x.yaml",
            "gt -config=x.yaml",
            "gt --config x.yaml",
            "gt --config=x.yaml",
            "gt -config y.yaml -config x.yaml",
        ] {
            assert_eq!(of(line).config, Some(PathBuf::from("x.yaml")), "{line}");
        }
        assert_eq!(of("gt").config, None);
    }

    #[cfg(all(feature = "server", feature = "client"))]
    #[test]
    fn the_role_is_known_in_spite_of_unknown_flags() {
        for (line, role) in [
            ("gt server -addr 80", Some(RoleName::Server)),
            ("/usr/bin/gt client -id a", Some(RoleName::Client)),
            ("/usr/bin/gt-server", Some(RoleName::Server)),
            ("./gt-client -id a", Some(RoleName::Client)),
            ("gt server -ofTomorrow 1", Some(RoleName::Server)),
            ("gt-client -id", Some(RoleName::Client)),
            ("gt -config server", None),
            ("gt-server client", None),
        ] {
            let told = of(line);
            assert_eq!((told.role, told.runs_nothing), (role, false), "{line}");
        }
    }

    #[cfg(not(all(feature = "server", feature = "client")))]
    #[test]
    fn a_build_of_one_role_has_that_role() {
        assert_eq!(of("gt -config x").role, RoleName::only());
    }
}
