//! Settings of the log and of reports to Sentry. Not the logger.

use std::path::PathBuf;

use log::LevelFilter;

use super::layers::Given;
use super::value::Scalar;
use super::{RoleConfig, Secret};

/// The log's level, file and rotation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoggingConfig {
    /// The lowest level that is logged.
    pub level: Given<LogLevel>,
    /// The file to log to instead of stderr.
    pub file: Option<PathBuf>,
    /// The size in bytes at which the file is rotated; 0 for never.
    pub max_size: Given<u64>,
    /// The number of files to keep, the current one included; 0 for no limit.
    pub max_count: Given<u32>,
}

/// The log of visitors.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLogConfig {
    /// Where its lines go.
    pub target: AccessLogTarget,
    /// The log, whose rotation is that of the file.
    pub rotation: LoggingConfig,
}

/// Where the lines about visitors go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// To the log.
    Log,
    /// To this file.
    File(PathBuf),
}

impl Scalar for AccessLogTarget {
    fn read(text: &str) -> Result<Self, String> {
        Ok(match text {
            "-" => Self::Log,
            path => Self::File(path.into()),
        })
    }
}

impl LoggingConfig {
    /// Returns the lowest level that is logged.
    pub fn level(&self) -> LogLevel {
        self.level.value
    }

    /// Returns the size in bytes at which the file is rotated; 0 for never.
    pub fn max_size(&self) -> u64 {
        self.max_size.value
    }

    /// Returns the number of files to keep, the current one included; 0 for no limit.
    pub fn max_count(&self) -> u32 {
        self.max_count.value
    }
}

/// Returns the settings that a process has once although each of its roles may set them: those of
/// the log and of Sentry, and a warning for each conflict between roles in them or in the user. The
/// first role that sets one decides.
pub fn common(roles: &[RoleConfig]) -> (LoggingConfig, Option<&SentryConfig>, Vec<String>) {
    let mut warnings = Vec::new();
    // The first role has a value for everything.
    let mut logging = LoggingConfig::default();
    let mut sentry: Option<&SentryConfig> = None;
    let mut user: Option<String> = None;
    for loaded in roles {
        let mut check = |name: &str, agrees: bool| {
            if !agrees {
                let source = match &loaded.source {
                    Some(file) => file.display().to_string(),
                    None => format!("the {}", loaded.name()),
                };
                warnings.push(format!(
                    "{source}: {name} is ignored: another role of this process has set \
                     another value, and a process has one"
                ));
            }
        };
        let theirs = loaded.logging();
        check("logLevel", logging.level.agree(&theirs.level));
        check("logFile", agree(&mut logging.file, &theirs.file));
        check("logFileMaxSize", logging.max_size.agree(&theirs.max_size));
        check(
            "logFileMaxCount",
            logging.max_count.agree(&theirs.max_count),
        );
        check("sentryDSN", agree(&mut sentry, &loaded.sentry()));
        check("user", agree(&mut user, &loaded.account().user));
    }
    (logging, sentry, warnings)
}

/// Takes the other value if there is none yet. Returns whether the two agree.
fn agree<T: Clone + PartialEq>(value: &mut Option<T>, other: &Option<T>) -> bool {
    if value.is_none() {
        value.clone_from(other);
    }
    other.is_none() || value == other
}

/// Settings of error reports to Sentry.
#[derive(Clone, Debug, PartialEq)]
pub struct SentryConfig {
    /// Address of the project at Sentry, a URL with a key.
    pub dsn: Secret,
    /// Levels that are reported; `fatal` and `panic` are separate levels.
    pub levels: Vec<LogLevel>,
    /// Fraction of events to report, 0.0 to 1.0.
    pub sample_rate: f64,
    /// Release to report; `None` for the program's version.
    pub release: Option<String>,
    /// Environment to report.
    pub environment: Option<String>,
    /// Server name to report.
    pub server_name: Option<String>,
    /// Whether the Sentry client prints what it does.
    pub debug: bool,
}

/// Log levels by the names of the options, the most detailed first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum LogLevel {
    #[default]
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
    /// Returns the nearest level of the `log` crate.
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

/// A log level that can be reported to Sentry: any but `disable`.
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

/// The address of a project at Sentry, with its key.
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
            // The text is not quoted: it may contain a key.
            _ => Err(
                "this is not the address of a project at Sentry: write it like \
                 https://key@host/number."
                    .to_owned(),
            ),
        }
    }
}
