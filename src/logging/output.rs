//! Where lines go, stderr or a file, each line in one piece. When a line cannot be written it is
//! dropped and counted. Not the lines' shape.

use super::file::LogFile;
use super::LoggingError;
use crate::config::LoggingConfig;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The length of the time that each line begins with, in bytes.
const TIME: usize = "Sat Nov 19 20:16:33 UTC 2022".len();
/// What is kept of the buffer for a line, in bytes.
const KEPT_LINE_BUFFER: usize = 512;

/// Takes the pieces of lines that simplelog writes.
#[derive(Clone)]
pub struct LogOutput(Arc<Mutex<LineWriter>>);

struct LineWriter {
    config: LoggingConfig,
    place: LogTarget,
    line: Vec<u8>,
    /// How many lines have been dropped since the last that was written.
    lost: u32,
    /// Why the last of them was.
    why: Option<io::Error>,
}

enum LogTarget {
    Stderr,
    File(LogFile),
}

impl LogOutput {
    /// The error names the file that cannot be opened.
    pub fn open(config: &LoggingConfig) -> Result<Self, LoggingError> {
        Ok(Self(Arc::new(Mutex::new(LineWriter {
            place: LogTarget::open(config)?,
            config: config.clone(),
            line: Vec::new(),
            lost: 0,
            why: None,
        }))))
    }

    /// Opens the file again, as `config` says or, with `None`, as it did; after an error all is as
    /// it was.
    pub fn reopen(&self, config: Option<&LoggingConfig>) -> Result<(), LoggingError> {
        let mut lines = self.lock();
        let config = config.unwrap_or(&lines.config).clone();
        lines.place = LogTarget::open(&config)?;
        lines.config = config;
        Ok(())
    }

    /// Whether lines go to a file, and so are not seen by who has started gt.
    pub fn is_file(&self) -> bool {
        matches!(self.lock().place, LogTarget::File(_))
    }

    fn lock(&self) -> MutexGuard<'_, LineWriter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for LogOutput {
    /// Never fails: what cannot be written is counted.
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
    /// A line is complete.
    fn end(&mut self) {
        let line = std::mem::take(&mut self.line);
        let mut text = Vec::new();
        let mut notice = |message: fmt::Arguments<'_>| {
            text.extend_from_slice(line.get(..TIME).unwrap_or_default());
            // To a Vec it cannot fail.
            let _ = writeln!(text, " WRN {message}");
        };
        if let Some(why) = &self.why {
            let lost = self.lost;
            notice(format_args!(
                "lines of the log were lost count={lost}: {why}"
            ));
        }
        if let LogTarget::File(file) = &mut self.place {
            if let Err(e) = file.make_room(line.len()) {
                notice(format_args!(
                    "a new log file cannot be begun, so this one grows on: {e}"
                ));
            }
        }
        let written = if text.is_empty() {
            self.place.write_line(&line)
        } else {
            text.extend_from_slice(&line);
            self.place.write_line(&text)
        };
        match written {
            Ok(()) => (self.lost, self.why) = (0, None),
            Err(e) => (self.lost, self.why) = (self.lost.saturating_add(1), Some(e)),
        }
        self.line = line;
        self.line.clear();
        self.line.shrink_to(KEPT_LINE_BUFFER);
    }
}

impl LogTarget {
    fn open(config: &LoggingConfig) -> Result<Self, LoggingError> {
        let Some(path) = &config.file else {
            return Ok(LogTarget::Stderr);
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

    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            LogTarget::Stderr => io::stderr().write_all(line),
            LogTarget::File(file) => file.write_line(line),
        }
    }
}
