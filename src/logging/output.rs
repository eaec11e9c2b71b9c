//! The target of log lines: stderr, the collector that takes it, or a file. Lines that cannot be
//! written are dropped and counted. The parent module formats the lines.

use super::collector::Collector;
use super::file::LogFile;
use super::LoggingError;
use crate::config::LoggingConfig;
use crate::sync::{Mutex, MutexGuard};
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

/// Length in bytes of the time at the start of each line.
const TIME: usize = "Sat Nov 19 20:16:33 UTC 2022".len();
/// Length in bytes of the time and the space behind it.
const BEFORE_LEVEL: usize = TIME + 1;
/// Capacity in bytes that the line buffer keeps between lines.
const KEPT_LINE_BUFFER: usize = 512;

/// The writer that simplelog gives the parts of lines to. Clones share the target.
#[derive(Clone)]
pub struct LogOutput(Arc<Mutex<LineWriter>>);

struct LineWriter {
    config: LoggingConfig,
    target: LogTarget,
    line: Vec<u8>,
    /// Number of lines dropped since the last successful write.
    dropped: u32,
    /// The error for which the last dropped line could not be written.
    why: Option<io::Error>,
}

enum LogTarget {
    Stderr,
    Collector(Collector),
    File(LogFile),
}

impl LogOutput {
    /// Opens stderr or the configured file. The error names the file.
    pub fn open(config: &LoggingConfig) -> Result<Self, LoggingError> {
        Ok(Self(Arc::new(Mutex::new(LineWriter {
            target: LogTarget::open(config)?,
            config: config.clone(),
            line: Vec::new(),
            dropped: 0,
            why: None,
        }))))
    }

    /// Reopens the target with a new configuration, or with the current one for `None`. After an
    /// error the old target stays.
    pub fn reopen(&self, config: Option<&LoggingConfig>) -> Result<(), LoggingError> {
        let mut lines = self.lock();
        let config = config.unwrap_or(&lines.config).clone();
        lines.target = LogTarget::open(&config)?;
        lines.config = config;
        Ok(())
    }

    /// Whether lines go to a file, where the terminal that started gt does not show them.
    pub fn is_file(&self) -> bool {
        matches!(self.lock().target, LogTarget::File(_))
    }

    fn lock(&self) -> MutexGuard<'_, LineWriter> {
        self.0.lock()
    }
}

impl Write for LogOutput {
    /// Never fails: lines that cannot be written are counted.
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let mut lines = self.lock();
        lines.line.extend_from_slice(piece);
        if piece.ends_with(b"\n") {
            lines.end();
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LineWriter {
    /// Writes the collected line.
    fn end(&mut self) {
        let mut line = std::mem::take(&mut self.line);
        let mut text = Vec::new();
        let mut notice = |message: fmt::Arguments<'_>| {
            text.extend_from_slice(line.get(..TIME).unwrap_or_default());
            // Writing to a `Vec` cannot fail.
            let _ = writeln!(text, " WRN {message}");
        };
        if let Some(why) = &self.why {
            let lost = self.dropped;
            notice(format_args!(
                "lines of the log were lost count={lost}: {why}"
            ));
        }
        if let LogTarget::File(file) = &mut self.target {
            if let Err(e) = file.rotate_if_full(line.len()) {
                notice(format_args!(
                    "the log file cannot be rotated and keeps growing: {e}"
                ));
            }
        }
        let written = if text.is_empty() {
            self.target.write_lines(&mut line)
        } else {
            text.extend_from_slice(&line);
            self.target.write_lines(&mut text)
        };
        match written {
            Ok(()) => (self.dropped, self.why) = (0, None),
            Err(e) => (self.dropped, self.why) = (self.dropped.saturating_add(1), Some(e)),
        }
        self.line = line;
        self.line.clear();
        self.line.shrink_to(KEPT_LINE_BUFFER);
    }
}

impl LogTarget {
    fn open(config: &LoggingConfig) -> Result<Self, LoggingError> {
        let Some(path) = &config.file else {
            return Ok(Collector::detect().map_or(LogTarget::Stderr, LogTarget::Collector));
        };
        LogFile::open(path, config)
            .map(LogTarget::File)
            .map_err(|e| {
                LoggingError(format!(
                    "The log file {} cannot be opened: {e}.",
                    path.display()
                ))
            })
    }

    /// Writes whole lines. They may be changed.
    fn write_lines(&mut self, lines: &mut [u8]) -> io::Result<()> {
        match self {
            LogTarget::Stderr => io::stderr().write_all(lines),
            LogTarget::Collector(collector) => lines
                .split_inclusive_mut(|byte| *byte == b'\n')
                .try_for_each(|line| collector.write_line(line, BEFORE_LEVEL)),
            LogTarget::File(file) => file.write_line(lines),
        }
    }
}
