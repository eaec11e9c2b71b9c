//! The directory in which gt keeps what has to survive a restart (`stateDir`). Not what its files
//! contain.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{fchown, DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// An existing directory that no other process of gt changes until this is dropped.
pub struct StateDir {
    path: PathBuf,
    directory: File,
}

impl StateDir {
    /// Opens the directory, which is created with mode 0700 if it is missing. The error names it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let explain = |e: io::Error| {
            let text = format!("opening the stateDir {}: {e}", path.display());
            io::Error::new(e.kind(), text)
        };
        let mut builder = DirBuilder::new();
        let created = builder.recursive(true).mode(0o700).create(path);
        created.map_err(explain)?;
        let directory = File::open(path).map_err(explain)?;
        // Some file systems have no locks. Only processes that start at the same time need them.
        let _ = directory.lock();
        Ok(Self {
            path: path.to_owned(),
            directory,
        })
    }

    /// Returns the path of a file in the directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Reads a file; `None` if there is none. The error names it.
    pub fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.file(name);
        match fs::read(&path) {
            Ok(content) => Ok(Some(content)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => {
                let text = format!("reading {}: {e}", path.display());
                Err(io::Error::new(e.kind(), text))
            }
        }
    }

    /// Replaces a file by one with this content and mode 0600, or leaves it as it was if that
    /// fails, on a full disk for example. The error names the file. The file belongs to the owner
    /// of the directory, so that gt can read it after it has become another user.
    pub fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let (path, new) = (self.file(name), self.file(&format!(".{name}.new")));
        let written = self.write_new(&new, content);
        let replaced = written.and_then(|()| fs::rename(&new, &path));
        // The name must be on the disk, too; not every file system can promise that.
        let _ = self.directory.sync_all();
        replaced.map_err(|e| {
            let _ = fs::remove_file(&new);
            let text = format!("writing {}: {e}", path.display());
            io::Error::new(e.kind(), text)
        })
    }

    fn write_new(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        // A process that was killed may have left such a file.
        let _ = fs::remove_file(path);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let owner = self.directory.metadata()?;
        if file.metadata()?.uid() != owner.uid() {
            fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
        }
        file.write_all(content)?;
        file.sync_all()
    }
}

/// Returns a path for the directory of one test, where nothing is.
#[cfg(test)]
pub(crate) fn scratch(name: &str) -> PathBuf {
    let name = format!("gt-{name}-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let _ = fs::remove_dir_all(&path);
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_their_owner_reads_the_directory_and_its_files() {
        let path = scratch("state-dir-modes").join("inner");
        let state = StateDir::open(&path).unwrap();
        assert_eq!(state.read("file").unwrap(), None);
        state.write("file", b"one").unwrap();
        state.write("file", b"two").unwrap();
        assert_eq!(state.read("file").unwrap().unwrap(), b"two");
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&state.file("file")), 0o600);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_failed_write_names_the_file_and_leaves_it_as_it_was() {
        let path = scratch("state-dir-failure");
        let state = StateDir::open(&path).unwrap();
        state.write("file", b"one").unwrap();
        // A directory at the name of the new file is what even root cannot replace.
        fs::create_dir_all(path.join(".file.new/inner")).unwrap();
        let why = state.write("file", b"two").unwrap_err().to_string();
        assert!(why.starts_with(&format!("writing {}", path.join("file").display())));
        assert_eq!(state.read("file").unwrap().unwrap(), b"one");
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_created_is_named() {
        let path = Path::new("/proc/gt/state");
        let why = StateDir::open(path).err().unwrap().to_string();
        assert!(
            why.starts_with("opening the stateDir /proc/gt/state: "),
            "{why}"
        );
    }
}
