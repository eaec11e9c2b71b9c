//! What to log, where to, and what goes to Sentry. Not the logger.

use std::path::PathBuf;

use log::LevelFilter;

use super::options::CommonOptions;
use super::value::{all, given, Scalar};
use super::{RoleConfig, Secret, Wire};

/// Where log lines go; `None` means that nothing was said, and the default stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoggingConfig {
    /// The lowest level that is logged.
    pub level: Option<LogLevel>,
    /// The file to log to instead of stderr.
    pub file: Option<PathBuf>,
    /// Bytes at which the file is rotated; 0 means any.
    pub max_size: Option<u64>,
    /// Files to keep, the one that is written to included; 0 means any number.
    pub max_count: Option<u32>,
}

impl LoggingConfig {
    /// The level to use: `info` unless another was asked for.
    pub fn level(&self) -> LogLevel {
        self.level.unwrap_or(LogLevel::Info)
    }

    /// The size to use: 512 MiB unless another was asked for.
    pub fn max_size(&self) -> u64 {
        self.max_size.unwrap_or(536_870_912)
    }

    /// The number to use: 7 unless another was asked for.
    pub fn max_count(&self) -> u32 {
        self.max_count.unwrap_or(7)
    }
}

/// What there is once in a process, while each of its roles may say something about it: the log and
/// Sentry. Of each option the first that is set counts; the sentences warn of those that differ.
pub fn common(roles: &[RoleConfig]) -> (LoggingConfig, Option<&SentryConfig>, Vec<String>) {
    let mut warnings = Vec::new();
    let mut logging = LoggingConfig::default();
    let mut sentry: Option<&SentryConfig> = None;
    let mut user: Option<String> = None;
    for loaded in roles {
        let mut told = |name: &str, heeded: bool| {
            if !heeded {
                let source = match &loaded.source {
                    Some(file) => file.display().to_string(),
                    None => format!("the {}", loaded.name()),
                };
                warnings.push(format!(
                    "{source}: {name} is ignored: another role of this process has set it \
                     otherwise, and there is but one for all"
                ));
            }
        };
        let theirs = loaded.logging();
        told("logLevel", first(&mut logging.level, &theirs.level));
        told("logFile", first(&mut logging.file, &theirs.file));
        told(
            "logFileMaxSize",
            first(&mut logging.max_size, &theirs.max_size),
        );
        told(
            "logFileMaxCount",
            first(&mut logging.max_count, &theirs.max_count),
        );
        told("sentryDSN", first(&mut sentry, &loaded.sentry()));
        told("user", first(&mut user, &loaded.account().user));
    }
    (logging, sentry, warnings)
}

/// Whether `theirs` is what counts then.
fn first<T: Clone + PartialEq>(counts: &mut Option<T>, theirs: &Option<T>) -> bool {
    if counts.is_none() {
        counts.clone_from(theirs);
    }
    theirs.is_none() || counts == theirs
}

/// Where and what to report.
#[derive(Clone, Debug, PartialEq)]
pub struct SentryConfig {
    /// The project's address at Sentry, a URL that holds a key.
    pub dsn: Secret,
    /// Which levels are reported; `fatal` and `panic` are levels of their own here.
    pub levels: Vec<LogLevel>,
    /// The part of all events to report, 0.0 to 1.0.
    pub sample_rate: f64,
    /// Sent along with each event; `None` means the program's version.
    pub release: Option<String>,
    /// Sent along with each event.
    pub environment: Option<String>,
    /// Sent along with each event.
    pub server_name: Option<String>,
    /// Makes the Sentry client itself tell what it does.
    pub debug: bool,
}

/// The levels as options name them, the most talkative first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Fatal,
    Panic,
    Disable,
}

impl LogLevel {
    /// The nearest that there is in the `log` crate.
    pub fn filter(self) -> LevelFilter {
        match self {
            LogLevel::Trace => LevelFilter::Trace,
            LogLevel::Debug => LevelFilter::Debug,
            LogLevel::Info => LevelFilter::Info,
            LogLevel::Warn => LevelFilter::Warn,
            LogLevel::Error | LogLevel::Fatal | LogLevel::Panic => LevelFilter::Error,
            LogLevel::Disable => LevelFilter::Off,
        }
    }
}

impl Scalar for LogLevel {
    fn read(text: &str) -> Result<Self, String> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "trace" => LogLevel::Trace,
            "debug" => LogLevel::Debug,
            "info" => LogLevel::Info,
            "warn" => LogLevel::Warn,
            "error" => LogLevel::Error,
            "fatal" => LogLevel::Fatal,
            "panic" => LogLevel::Panic,
            "disable" => LogLevel::Disable,
            _ => {
                return Err(format!(
                    "\"{text}\" is not a level: write trace, debug, info, warn, error, fatal, \
                         panic or disable."
                ))
            }
        })
    }
}

/// A level that Sentry knows: `disable` is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentryLevel(pub LogLevel);

impl Scalar for SentryLevel {
    fn read(text: &str) -> Result<Self, String> {
        match LogLevel::read(text) {
            Ok(level) if level != LogLevel::Disable => Ok(SentryLevel(level)),
            _ => Err(format!(
                "\"{text}\" is not a level for Sentry: write trace, debug, info, warn, error, \
                     fatal or panic."
            )),
        }
    }
}

/// The address of a project at Sentry, with the key in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Dsn(pub Secret);

impl Scalar for Dsn {
    fn read(text: &str) -> Result<Self, String> {
        let rest = text
            .strip_prefix("https://")
            .or(text.strip_prefix("http://"));
        let parts = rest
            .and_then(|rest| rest.split_once('@'))
            .and_then(|(key, rest)| Some((key, rest.split_once('/')?)));
        match parts {
            Some((key, (host, project)))
                if !key.is_empty() && !host.is_empty() && !project.is_empty() =>
            {
                Ok(Dsn(Secret::new(text)))
            }
            // Not quoted: there may be a key in it.
            _ => Err(
                "this is not the address of a project at Sentry: write it like \
                 https://key@host/number."
                    .to_owned(),
            ),
        }
    }
}

impl CommonOptions {
    pub(super) fn logging(&self) -> LoggingConfig {
        LoggingConfig {
            level: given(self.log_level.clone()),
            file: given(self.log_file.clone()),
            max_size: given(self.log_file_max_size.clone()),
            max_count: given(self.log_file_max_count.clone()),
        }
    }

    pub(super) fn sentry(&self) -> Option<SentryConfig> {
        let levels = all(self.sentry_level.clone());
        Some(SentryConfig {
            dsn: given(self.sentry_dsn.clone())?.0,
            levels: if levels.is_empty() {
                vec![LogLevel::Error, LogLevel::Fatal, LogLevel::Panic]
            } else {
                levels.into_iter().map(|level| level.0).collect()
            },
            sample_rate: given(self.sentry_sample_rate.clone()).map_or(1.0, |share| share.0),
            release: given(self.sentry_release.clone()),
            environment: given(self.sentry_environment.clone()),
            server_name: given(self.sentry_server_name.clone()),
            debug: given(self.sentry_debug.clone()).unwrap_or(false),
        })
    }

    pub(super) fn wire(&self) -> Wire {
        given(self.wire.clone()).unwrap_or_default()
    }

    pub(super) fn threads(&self) -> usize {
        let threads = given(self.threads.clone()).map_or(1, |threads| threads.0);
        usize::try_from(threads).unwrap_or(1)
    }
}
