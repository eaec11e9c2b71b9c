//! A log file that is rotated by size. [`super::output`] decides what is written to it.
//!
//! The size is read from the file system each time, because another process may write to the file
//! too (the other gt during a restart) and because the file may be truncated at any time.

use crate::config::LoggingConfig;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A log file `gt.log` with its rotated files `gt.log.1`, `gt.log.2` …, oldest last.
pub struct LogFile {
    /// The path without symbolic links: rotation renames the file, not a link to it.
    path: PathBuf,
    file: File,
    /// Size in bytes at which to rotate; 0 for never, and for anything but a regular file.
    max_size: u64,
    /// Maximum number of files, the current one included; 0 for no limit.
    max_count: u32,
    /// Size below which a failed rotation is not tried again, so that not every line tries.
    retry_size: u64,
}

/// How a log file is opened. A new one is not for all users of the machine: it has addresses of visitors in it, and the
/// link of the web page that signs in once.
fn appending() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o640);
    options
}

impl LogFile {
    /// Opens or creates the file; existing content stays.
    pub fn open(path: &Path, config: &LoggingConfig) -> io::Result<Self> {
        let file = appending().open(path)?;
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
            retry_size: 0,
        })
    }

    /// Rotates the file if a line of `length` bytes would exceed the maximum size. After an error
    /// lines still go to the current file.
    pub fn rotate_if_full(&mut self, length: usize) -> io::Result<()> {
        if self.max_size == 0 {
            return Ok(());
        }
        let size = self.file.metadata()?.len();
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let fits = size.saturating_add(length) <= self.max_size;
        if size == 0 || fits || size < self.retry_size {
            return Ok(());
        }
        let rotated = self.rotate();
        self.retry_size = match rotated {
            Ok(()) => 0,
            Err(_) => size.saturating_add(self.max_size),
        };
        rotated
    }

    /// Writes a whole line, or nothing as far as the system allows.
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
            self.truncate_partial(line.len().saturating_sub(rest.len()));
            return Err(failure);
        }
        Ok(())
    }

    /// Truncates a partially written line.
    fn truncate_partial(&self, written: usize) {
        let written = u64::try_from(written).unwrap_or(0);
        if let (1.., Ok(now)) = (written, self.file.metadata()) {
            if now.is_file() {
                let _ = self.file.set_len(now.len().saturating_sub(written));
            }
        }
    }

    /// Rotates the files. Creates the new file before it renames any, so that a full disk or
    /// missing permissions change nothing.
    fn rotate(&mut self) -> io::Result<()> {
        let mine = self.file.metadata()?;
        match fs::symlink_metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == (mine.dev(), mine.ino()) => {}
            // Another process has rotated or removed the file.
            _ => {
                self.file = appending().open(&self.path)?;
                return Ok(());
            }
        }
        let new = self.sibling("new");
        match fs::remove_file(&new) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = appending().create_new(true).open(&new)?;
        let _ = file.set_permissions(mine.permissions());
        if let Err(e) = self.shift().and_then(|()| fs::rename(&new, &self.path)) {
            let _ = fs::remove_file(&new);
            return Err(e);
        }
        self.file = file;
        Ok(())
    }

    /// Renames each old file to the next number, up to the maximum.
    fn shift(&self) -> io::Result<()> {
        let last = match self.max_count {
            0 => u32::MAX,
            count => count.saturating_sub(1),
        };
        // Remove files left over from a higher maximum.
        if self.max_count != 0 {
            let beyond = last.saturating_add(1)..u32::MAX;
            let _ = beyond
                .map(|n| fs::remove_file(self.rotated_path(n)))
                .take_while(Result::is_ok)
                .count();
        }
        if last == 0 {
            return Ok(());
        }
        let free = (1..last).find(|n| fs::symlink_metadata(self.rotated_path(*n)).is_err());
        for n in (1..free.unwrap_or(last)).rev() {
            fs::rename(self.rotated_path(n), self.rotated_path(n.saturating_add(1)))?;
        }
        fs::rename(&self.path, self.rotated_path(1))
    }

    fn rotated_path(&self, n: u32) -> PathBuf {
        self.sibling(&n.to_string())
    }

    fn sibling(&self, extension: &str) -> PathBuf {
        let mut path = OsString::from(&self.path);
        path.push(".");
        path.push(extension);
        PathBuf::from(path)
    }
}
