//! The log: simplelog's writer, with lines in the shape that GT's users know: time, a level
//! of three letters, the message.

use crate::config::Logging;
use log::{Level, LevelFilter, Log, Metadata, Record};
use simplelog::{ConfigBuilder, WriteLogger};
use std::fmt::{self, Write};
use std::io::Stderr;
use time::macros::format_description;

/// Starts to log, to stderr. Only the first call has an effect.
pub fn start(config: &Logging) {
    let level = config.level.unwrap_or(LevelFilter::Info);
    // The time is simplelog's; the rest of the line is ours.
    let shape = ConfigBuilder::new()
        .set_time_format_custom(format_description!(
            "[weekday repr:short] [month repr:short] [day padding:space] \
             [hour]:[minute]:[second] UTC [year]"
        ))
        .set_max_level(LevelFilter::Off)
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .build();
    let logger = Shaped(*WriteLogger::new(level, shape, std::io::stderr()));
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level);
    }
}

struct Shaped(WriteLogger<Stderr>);

impl Log for Shaped {
    /// Other crates' details are of no use to an operator.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let ours = metadata.target().starts_with("gt");
        self.0.enabled(metadata) && (ours || metadata.level() <= Level::Warn)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = short(record.level());
        let line = OneLine(record.args());
        let mut shaped = Record::builder();
        let shaped = shaped.level(record.level()).target(record.target());
        self.0
            .log(&shaped.args(format_args!("{level} {line}")).build());
    }

    fn flush(&self) {
        self.0.flush();
    }
}

fn short(level: Level) -> &'static str {
    match level {
        Level::Error => "ERR",
        Level::Warn => "WRN",
        Level::Info => "INF",
        Level::Debug => "DBG",
        Level::Trace => "TRC",
    }
}

/// A message as one line, whatever is in it: peers choose some of the names that are logged.
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
mod tests {
    use super::*;

    #[test]
    fn a_message_stays_on_its_line() {
        let name = "a\nSat INF forged\u{1b}[2J é";
        assert_eq!(
            OneLine(&format_args!("id={name}")).to_string(),
            "id=a\\nSat INF forged\\u{1b}[2J é"
        );
    }
}
