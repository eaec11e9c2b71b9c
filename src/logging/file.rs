//! A log file that is rotated by its size. Not what is written to it.
//!
//! The file itself is asked for its size each time: another process may write to it too (the old
//! gt and the new one, while they hand over), and who empties it from outside confuses nobody.

use crate::config::LoggingConfig;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// `gt.log`, and `gt.log.1`, `gt.log.2` … after it, the oldest with the highest number.
pub struct LogFile {
    /// Without links: what is renamed is the file, not a link to it.
    path: PathBuf,
    file: File,
    /// Bytes; 0 means any. It is 0 for what is no plain file, such as /dev/null.
    max_size: u64,
    /// Files, this one included; 0 means any number.
    max_count: u32,
    /// Not to try again with every line what has failed.
    not_before: u64,
}

impl LogFile {
    /// Opens or creates it; what is in it already stays.
    pub fn open(path: &Path, config: &LoggingConfig) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let plain = file.metadata()?.is_file();
        let (path, max_size) = match fs::canonicalize(path) {
            Ok(path) if plain => (path, config.max_size()),
            _ => (path.to_owned(), 0),
        };
        Ok(Self {
            path,
            file,
            max_size,
            max_count: config.max_count(),
            not_before: 0,
        })
    }

    /// Makes room for a line of `length` bytes by beginning a new file, if it is time to. After
    /// an error the file goes on as it is.
    pub fn make_room(&mut self, length: usize) -> io::Result<()> {
        if self.max_size == 0 {
            return Ok(());
        }
        let size = self.file.metadata()?.len();
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let fits = size.saturating_add(length) <= self.max_size;
        if size == 0 || fits || size < self.not_before {
            return Ok(());
        }
        let rotated = self.rotate();
        self.not_before = match rotated {
            Ok(()) => 0,
            Err(_) => size.saturating_add(self.max_size),
        };
        rotated
    }

    /// Writes a line, all of it or, as far as the system allows, nothing.
    pub fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        let mut rest = line;
        while !rest.is_empty() {
            let failure = match self.file.write(rest) {
                Ok(0) => ErrorKind::WriteZero.into(),
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    continue;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => e,
            };
            self.take_back(line.len().saturating_sub(rest.len()));
            return Err(failure);
        }
        Ok(())
    }

    /// Half a line is none.
    fn take_back(&self, written: usize) {
        let written = u64::try_from(written).unwrap_or(0);
        if let (1.., Ok(now)) = (written, self.file.metadata()) {
            if now.is_file() {
                let _ = self.file.set_len(now.len().saturating_sub(written));
            }
        }
    }

    /// The new file is there before anything is renamed, so that the worst a full disk or a
    /// folder without permissions can do is that nothing happens.
    fn rotate(&mut self) -> io::Result<()> {
        let mine = self.file.metadata()?;
        match fs::symlink_metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == (mine.dev(), mine.ino()) => {}
            // Somebody else has rotated, or taken it away.
            _ => {
                let append = OpenOptions::new().append(true).create(true).to_owned();
                self.file = append.open(&self.path)?;
                return Ok(());
            }
        }
        let new = self.beside("new");
        match fs::remove_file(&new) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(&new)?;
        let _ = file.set_permissions(mine.permissions());
        if let Err(e) = self.shift().and_then(|()| fs::rename(&new, &self.path)) {
            let _ = fs::remove_file(&new);
            return Err(e);
        }
        self.file = file;
        Ok(())
    }

    /// Each old file takes the next number, as far as there is one.
    fn shift(&self) -> io::Result<()> {
        let last = match self.max_count {
            0 => u32::MAX,
            count => count.saturating_sub(1),
        };
        // What an earlier, higher count has left.
        if self.max_count != 0 {
            let beyond = last.saturating_add(1)..u32::MAX;
            let _ = beyond
                .map(|n| fs::remove_file(self.number(n)))
                .take_while(Result::is_ok)
                .count();
        }
        if last == 0 {
            return Ok(());
        }
        let free = (1..last).find(|n| fs::symlink_metadata(self.number(*n)).is_err());
        for n in (1..free.unwrap_or(last)).rev() {
            fs::rename(self.number(n), self.number(n.saturating_add(1)))?;
        }
        fs::rename(&self.path, self.number(1))
    }

    fn number(&self, n: u32) -> PathBuf {
        self.beside(&n.to_string())
    }

    fn beside(&self, extension: &str) -> PathBuf {
        let mut path = OsString::from(&self.path);
        path.push(".");
        path.push(extension);
        PathBuf::from(path)
    }
}
