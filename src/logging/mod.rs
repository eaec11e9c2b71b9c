//! The log: lines of the format that users of the original GT know (time, level of three letters,
//! message), written with simplelog to `output` and reported to `sentry` if configured. A
//! `collector` gets lines without the time.

mod collector;
mod file;
// A server reads no requests.
#[cfg_attr(not(feature = "client"), allow(dead_code))]
mod first_request;
mod output;
#[cfg_attr(not(feature = "sentry"), path = "no_sentry.rs")]
mod sentry;
#[cfg_attr(not(feature = "web"), path = "no_tail.rs")]
mod tail;
mod throttle;
mod visits;

use self::sentry::Reporter;
use crate::config::{self, LogLevel, RoleConfig};
use crate::sync::RwLock;
use collector::Collector;
use log::{Level, Log, Metadata, Record};
use output::LogOutput;
use simplelog::{ConfigBuilder, LevelFilter, WriteLogger};
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::time::Duration;
use time::macros::format_description;

#[cfg(feature = "client")]
pub use first_request::FirstRequest;
pub use tail::keep_tail;
#[cfg(feature = "web")]
pub use tail::tail_after;
pub use throttle::{held_back, LogThrottle};
pub use visits::{AccessLog, Visit, Way};

/// The log target of an error that ends the process; the `log` crate has no such level.
pub const FATAL: &str = "gt::fatal";
/// The log target of a panic.
const PANIC: &str = "gt::panic";
/// Maximum time that the process waits at its end for the last reports.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

static LOGGER: OnceLock<Logger> = OnceLock::new();
/// The most verbose level that the WebRTC crates may log at.
static WEBRTC_LEVEL: RwLock<log::LevelFilter> = RwLock::new(log::LevelFilter::Error);

fn webrtc_level() -> log::LevelFilter {
    *WEBRTC_LEVEL.read()
}

/// Sets the most verbose level of the WebRTC crates. They warn of packets that anyone can send.
#[cfg(feature = "p2p")]
pub fn set_webrtc_level(most: log::LevelFilter) {
    *WEBRTC_LEVEL.write() = most;
}

/// The reason why logging cannot start, as a sentence.
#[derive(Debug)]
pub struct LoggingError(String);

impl fmt::Display for LoggingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LoggingError {}

struct Logger {
    writer: WriteLogger<LogOutput>,
    output: LogOutput,
    level: RwLock<LogLevel>,
    reporter: Option<Reporter>,
}

/// A guard that sends the last reports when it is dropped.
pub struct LoggingGuard(());

impl Drop for LoggingGuard {
    fn drop(&mut self) {
        if let Some(reporter) = LOGGER.get().and_then(|logger| logger.reporter.as_ref()) {
            reporter.flush(FLUSH_TIMEOUT);
        }
    }
}

/// Starts logging for the given roles and warns about settings in which they differ. Only the first
/// call has an effect. Fails if the log file cannot be opened; if Sentry fails it only warns,
/// because tunnels matter more.
pub fn start(roles: &[RoleConfig]) -> Result<LoggingGuard, LoggingError> {
    let (config, sentry, mut warnings) = config::common(roles);
    keep_tail(roles.iter().any(|role| role.web().is_some()));
    let output = LogOutput::open(&config)?;
    let reporter = match sentry.map(Reporter::start) {
        Some(Err(e)) => {
            warnings.push(format!("nothing is reported to Sentry: {e}"));
            None
        }
        other => other.and_then(Result::ok),
    };
    let logger = Logger {
        writer: *WriteLogger::new(LevelFilter::Trace, line_config(), output.clone()),
        output,
        level: RwLock::new(config.level()),
        reporter,
    };
    let logger = LOGGER.get_or_init(|| logger);
    if log::set_logger(logger).is_ok() {
        logger.set_level(config.level());
        // A write beyond the limit of file sizes (ulimit -f) should be an error, as on a full
        // disk; by default SIGXFSZ ends the process.
        let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Default::default());
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            panicked(info);
            if std::env::var_os("RUST_BACKTRACE").is_some() {
                default(info);
            }
        }));
    }
    for warning in warnings {
        log::warn!("{warning}");
    }
    Ok(LoggingGuard(()))
}

/// Reopens the log file after SIGHUP, because it may have been renamed. If that fails, reports it
/// and keeps the old file. Applies the level and the file settings of `roles`, if given.
pub fn reopen(roles: Option<&[RoleConfig]>) {
    let Some(logger) = LOGGER.get() else {
        return;
    };
    let config = roles.map(|roles| config::common(roles).0);
    if let Some(config) = &config {
        logger.set_level(config.level());
    }
    if let Err(e) = logger.output.reopen(config.as_ref()) {
        log::error!("{e} Logging continues to the previous target.");
    }
}

/// Prints an error to stderr, for the terminal or the journal that shows it.
pub fn print_error(why: &dyn fmt::Display) {
    let priority = match Collector::detect() {
        Some(Collector::Journal) => "<3>",
        _ => "",
    };
    // Failing to write to stderr does not matter: nothing else could show it.
    let _ = writeln!(std::io::stderr(), "{priority}gt: {why}");
}

/// Returns simplelog's configuration: it writes the time, this module the rest of the line.
fn line_config() -> simplelog::Config {
    ConfigBuilder::new()
        .set_time_format_custom(format_description!(
            "[weekday repr:short] [month repr:short] [day padding:space] \
             [hour]:[minute]:[second] UTC [year]"
        ))
        .set_max_level(LevelFilter::Off)
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .build()
}

fn panicked(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let message = match (
        payload.downcast_ref::<&str>(),
        payload.downcast_ref::<String>(),
    ) {
        (Some(message), _) => message,
        (None, Some(message)) => message.as_str(),
        (None, None) => "no message",
    };
    match info.location() {
        Some(place) => log::error!(target: PANIC, "panicked at {place}: {message}"),
        None => log::error!(target: PANIC, "panicked: {message}"),
    }
}

impl Logger {
    fn set_level(&self, level: LogLevel) {
        *self.level.write() = level;
        let reported = self.reporter.as_ref().map(Reporter::lowest);
        log::set_max_level(level.min(reported.unwrap_or(level)).filter());
    }

    fn level(&self) -> LogLevel {
        *self.level.read()
    }

    /// Returns whether a record goes to the log, and the reporter if it goes to Sentry, too.
    fn destinations(&self, metadata: &Metadata<'_>) -> (bool, Option<&Reporter>) {
        let level = level(metadata);
        // Details of other crates do not help an operator, and Sentry's own messages must not be
        // reported to Sentry.
        let ours = metadata.target().starts_with("gt");
        let told = match metadata.target().starts_with("rtc_") {
            true => metadata.level() <= webrtc_level(),
            false => ours || level >= LogLevel::Warn,
        };
        let logged = level >= self.level() && told;
        let reporter = self.reporter.as_ref();
        (logged, reporter.filter(|it| ours && it.wants(level)))
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let (logged, reporter) = self.destinations(metadata);
        logged || reporter.is_some()
    }

    fn log(&self, record: &Record<'_>) {
        let level = level(record.metadata());
        let (logged, reporter) = self.destinations(record.metadata());
        if logged {
            // Formatted here, outside of the writer's lock.
            let line = format!("{} {}", short(level), OneLine(record.args()));
            tail::add(&line);
            let mut shaped = Record::builder();
            let shaped = shaped.level(record.level()).target(record.target());
            self.writer
                .log(&shaped.args(format_args!("{line}")).build());
            // Also shown on the terminal that started gt.
            if level >= LogLevel::Fatal && self.output.is_file() {
                print_error(&OneLine(record.args()));
            }
        }
        if let Some(reporter) = reporter {
            reporter.report(level, record.target(), record.args());
        }
    }

    fn flush(&self) {}
}

fn level(metadata: &Metadata<'_>) -> LogLevel {
    match (metadata.level(), metadata.target()) {
        (Level::Error, FATAL) => LogLevel::Fatal,
        (Level::Error, PANIC) => LogLevel::Panic,
        (Level::Error, _) => LogLevel::Error,
        (Level::Warn, _) => LogLevel::Warn,
        (Level::Info, _) => LogLevel::Info,
        (Level::Debug, _) => LogLevel::Debug,
        (Level::Trace, _) => LogLevel::Trace,
    }
}

fn short(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Panic | LogLevel::Disable => "PNC",
        LogLevel::Fatal => "FTL",
        LogLevel::Error => "ERR",
        LogLevel::Warn => "WRN",
        LogLevel::Info => "INF",
        LogLevel::Debug => "DBG",
        LogLevel::Trace => "TRC",
    }
}

/// A message that is displayed on one line, with control characters escaped: peers choose some of
/// the names that are logged.
struct OneLine<'a>(&'a fmt::Arguments<'a>);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);
        impl fmt::Write for Escaping<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for part in text.split_inclusive(char::is_control) {
                    match part.chars().next_back() {
                        Some(last) if last.is_control() => {
                            let before = part.strip_suffix(last).unwrap_or_default();
                            self.0.write_str(before)?;
                            write!(self.0, "{}", last.escape_default())?;
                        }
                        _ => self.0.write_str(part)?,
                    }
                }
                Ok(())
            }
        }
        Escaping(f).write_fmt(*self.0)
    }
}

#[cfg(test)]
mod tests;
