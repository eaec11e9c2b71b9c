//! What to log, where to, and what goes to Sentry. Not the logger.

use std::path::PathBuf;

use log::LevelFilter;

use super::options::CommonOptions;
use super::value::{all, given, Scalar};
use super::Secret;

/// Where log lines go.
#[derive(Clone, Debug, PartialEq)]
pub struct Logging {
    /// What was asked for: `disable` is `Off`, `fatal` and `panic` are `Error`; `None` means the
    /// default, see [`Logging::level`].
    pub level: Option<LevelFilter>,
    /// `None` logs to stderr alone.
    pub file: Option<PathBuf>,
    /// Bytes at which the file is rotated.
    pub max_size: u64,
    /// Files to keep.
    pub max_count: u32,
}

impl Logging {
    /// The level to use: `info` unless another was asked for.
    pub fn level(&self) -> LevelFilter {
        self.level.unwrap_or(LevelFilter::Info)
    }
}

/// Where and what to report.
#[derive(Clone, Debug, PartialEq)]
pub struct Sentry {
    /// The project's address at Sentry, a URL that holds a key.
    pub dsn: Secret,
    /// Which levels are reported; `fatal` and `panic` are levels of their own here.
    pub levels: Vec<LogLevel>,
    /// The part of all events to report, 0.0 to 1.0.
    pub sample_rate: f32,
    /// Sent along with each event; `None` means the program's version.
    pub release: Option<String>,
    /// Sent along with each event.
    pub environment: Option<String>,
    /// Sent along with each event.
    pub server_name: Option<String>,
    /// Makes the Sentry client itself tell what it does.
    pub debug: bool,
}

/// The levels as options name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl CommonOptions {
    pub(super) fn logging(&self) -> Logging {
        Logging {
            level: given(self.log_level.clone()).map(LogLevel::filter),
            file: given(self.log_file.clone()),
            max_size: given(self.log_file_max_size.clone()).unwrap_or(536_870_912),
            max_count: given(self.log_file_max_count.clone()).unwrap_or(7),
        }
    }

    pub(super) fn sentry(&self) -> Option<Sentry> {
        let levels = all(self.sentry_level.clone());
        Some(Sentry {
            dsn: given(self.sentry_dsn.clone())?,
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

    pub(super) fn threads(&self) -> usize {
        let threads = given(self.threads.clone()).map_or(1, |threads| threads.0);
        usize::try_from(threads).unwrap_or(1)
    }
}
