//! The directory in which gt keeps what has to survive a restart (`stateDir`). Not what its files
//! contain.

use rustix::fs::{access, Access};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{fchown, DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// The file that a process of gt locks while it changes the directory. Others cannot open it, and so not lock it.
const LOCK: &str = ".lock";
/// The file with the certificate and the key that a server has made.
pub const IDENTITY: &str = "identity.pem";
/// Time between two attempts to lock the directory.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// An existing directory.
pub struct StateDir {
    path: PathBuf,
    directory: File,
}

/// While it exists, no other process of gt changes the directory.
#[must_use]
pub struct StateLock {
    _file: File,
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
        Ok(Self {
            path: path.to_owned(),
            directory: File::open(path).map_err(explain)?,
        })
    }

    /// Opens a directory in this one, which is created with mode 0700, for the owner of this one, if it is missing.
    /// The error names it.
    #[cfg_attr(not(feature = "acme"), allow(dead_code))]
    pub fn inner(&self, name: &str) -> io::Result<Self> {
        let path = self.file(name);
        let explain = |e: io::Error| {
            let text = format!("opening {}: {e}", path.display());
            io::Error::new(e.kind(), text)
        };
        let created = match DirBuilder::new().mode(0o700).create(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            other => other.map(|()| true),
        };
        let created = created.map_err(explain)?;
        let directory = File::open(&path).map_err(explain)?;
        if created {
            self.give_to_owner(&directory).map_err(explain)?;
        }
        Ok(Self { path, directory })
    }

    /// Waits up to `patience` until no other process of gt changes the directory. Reading needs no lock, since
    /// files are replaced as a whole. The error names the file that is locked.
    pub fn lock(&self, patience: Duration) -> io::Result<StateLock> {
        let path = self.file(LOCK);
        let explain = |e: io::Error| {
            let text = format!("locking {}: {e}", path.display());
            io::Error::new(e.kind(), text)
        };
        let mut options = OpenOptions::new();
        // Of a FIFO, opening for reading and writing does not wait.
        let options = options.read(true).write(true).create(true).mode(0o600);
        let file = options.open(&path).map_err(explain)?;
        self.give_to_owner(&file).map_err(explain)?;
        let mut waited = Duration::ZERO;
        while let Err(TryLockError::WouldBlock) = file.try_lock() {
            if waited >= patience {
                let why = format!(
                    "another process has held the lock for {patience:?}; end it, and try again"
                );
                return Err(explain(io::Error::new(io::ErrorKind::TimedOut, why)));
            }
            thread::sleep(LOCK_PAUSE);
            waited = waited.saturating_add(LOCK_PAUSE);
        }
        // Some file systems have no locks. Only processes that start at the same time need them.
        Ok(StateLock { _file: file })
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
    /// of the directory, so that gt can read it after it has become another user. The caller has the lock.
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
        self.give_to_owner(&file)?;
        file.write_all(content)?;
        file.sync_all()
    }

    /// Gives a file to the owner of the directory.
    fn give_to_owner(&self, file: &File) -> io::Result<()> {
        let owner = self.directory.metadata()?;
        match file.metadata()?.uid() == owner.uid() {
            true => Ok(()),
            false => fchown(file, Some(owner.uid()), Some(owner.gid())),
        }
    }
}

/// Makes the directory, and those on the way to it, for a user that gt will become: with mode 0700, unless they are
/// there. The error names the one that cannot be made.
pub fn make_for(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
        .collect();
    let explain = |folder: &Path, e: io::Error| {
        let text = format!("making the stateDir {}: {e}", folder.display());
        io::Error::new(e.kind(), text)
    };
    for folder in missing.iter().rev() {
        let made = DirBuilder::new().mode(0o700).create(folder);
        made.map_err(|e| explain(folder, e))?;
    }
    // The innermost first: until then, the user can exchange nothing on the way to it.
    for folder in missing {
        let given = File::open(folder).and_then(|it| fchown(it, Some(uid), Some(gid)));
        given.map_err(|e| explain(folder, e))?;
    }
    Ok(())
}

/// Returns warnings about a directory that this user can neither write nor create, or that others can change.
pub fn faults(path: &Path) -> Vec<String> {
    let can_write = |folder: &Path| access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    let mut faults = writable_by_others(path);
    let shown = path.display();
    if path.exists() {
        if !can_write(path) {
            faults.push(format!(
                "this user cannot write into the stateDir {shown}: chown it to the user that gt runs as"
            ));
        }
        return faults;
    }
    let mut folders = path
        .ancestors()
        .skip(1)
        .map(|folder| match folder.as_os_str().is_empty() {
            true => Path::new("."),
            false => folder,
        });
    if !folders
        .find(|folder| folder.exists())
        .is_some_and(can_write)
    {
        faults.push(format!(
            "the stateDir {shown} does not exist, and this user cannot create it: make it, and chown it to \
             the user that gt runs as, unless gt starts as root"
        ));
    }
    faults
}

/// Returns a warning for the directory and the identity in it if others than the owner can change them, and so the
/// key of the server.
pub fn writable_by_others(path: &Path) -> Vec<String> {
    let both = [path.to_owned(), path.join(IDENTITY)];
    let open = both.iter().filter(|path| {
        let mode = fs::metadata(path).map(|it| it.mode());
        mode.is_ok_and(|mode| mode & 0o022 != 0)
    });
    open.map(|path| {
        format!(
            "others than its owner can change {0}, and so the keys that gt trusts: chmod go-w {0}",
            path.display()
        )
    })
    .collect()
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
    use std::os::unix::fs::PermissionsExt;

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
    fn a_lock_on_the_directory_itself_stops_nobody_and_that_of_gt_is_waited_for_briefly() {
        let path = scratch("state-dir-lock");
        let state = StateDir::open(&path).unwrap();
        // Whoever can read the directory can lock it.
        let reader = File::open(&path).unwrap();
        reader.lock().unwrap();
        let held = StateDir::open(&path).unwrap().lock(Duration::ZERO).unwrap();
        let mode = fs::metadata(state.file(LOCK)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        let why = state.lock(Duration::ZERO).err().unwrap().to_string();
        let named = format!("locking {}", path.join(LOCK).display());
        assert!(why.starts_with(&named), "{why}");
        drop(held);
        drop(state.lock(Duration::ZERO).unwrap());
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_directory_that_others_can_change_or_that_cannot_be_made_is_a_fault() {
        let path = scratch("state-dir-faults");
        assert_eq!(faults(&path), [""; 0]);
        let state = StateDir::open(&path).unwrap();
        state.write(IDENTITY, b"key").unwrap();
        assert_eq!(faults(&path), [""; 0]);
        let open = |path: &Path| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
            format!("chmod go-w {}", path.display())
        };
        for (number, advice) in [open(&path), open(&path.join(IDENTITY))].iter().enumerate() {
            assert!(faults(&path)[number].ends_with(advice), "{advice}");
        }
        // Not even root can write into a file as into a directory.
        let file = path.join("file");
        fs::write(&file, "").unwrap();
        assert!(faults(&file)[0].contains("cannot write"));
        assert!(faults(&file.join("state"))[0].contains("cannot create it"));
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_directory_for_another_user_is_that_users_with_all_that_is_made_on_the_way() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let outer = scratch("state-dir-user");
        let path = outer.join("inner");
        make_for(&path, 54321, 54322).unwrap();
        make_for(&path, 0, 0).unwrap();
        let state = StateDir::open(&path).unwrap();
        drop(state.lock(Duration::ZERO).unwrap());
        state.write(IDENTITY, b"key").unwrap();
        for path in [outer.clone(), path, state.file(LOCK), state.file(IDENTITY)] {
            let meta = fs::metadata(&path).unwrap();
            assert_eq!(
                (meta.uid(), meta.gid()),
                (54321, 54322),
                "{}",
                path.display()
            );
            assert_eq!(meta.mode() & 0o077, 0);
        }
        fs::remove_dir_all(&outer).unwrap();
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
