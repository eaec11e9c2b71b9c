//! The shared folder, and opening what is below it without ever leaving it. No HTTP.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{open, openat, openat2, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// Maximum number of calls of openat2 when concurrent renames make it fail.
const MAX_RACES: usize = 16;

/// A shared folder. Cheap to clone.
///
/// The folder is kept as a path and opened for every request: a held descriptor would keep a USB
/// disk from being unmounted, and would still show the empty mount point after a disk was plugged
/// in. Within a request everything is opened relative to one descriptor.
#[derive(Clone, Debug)]
pub struct FolderRoot {
    path: Arc<Path>,
    links: LinkPolicy,
}

/// The treatment of symbolic links below the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkPolicy {
    /// Followed if the kernel guarantees that they stay below the root (`openat2`, Linux 5.6).
    Beneath,
    /// Never followed, since the kernel cannot guarantee it.
    Refused,
    /// Followed wherever they lead (followLinksOutside).
    Anywhere,
}

impl FolderRoot {
    /// Checks that `path` is a folder. Blocks briefly. `outside` allows links that lead out of the
    /// folder. The error names the path and says what to do.
    pub fn open(path: &Path, outside: bool) -> io::Result<FolderRoot> {
        let explain = |error: io::Error| {
            let hint = match Errno::from_io_error(&error) {
                Some(Errno::NOENT) => "; create it, or correct the path after file://",
                Some(Errno::NOTDIR) => "; give the folder that holds the file",
                Some(Errno::ACCESS) => "; let the user that runs gt enter it",
                _ => "",
            };
            let text = format!("cannot share the folder {}: {error}{hint}", path.display());
            io::Error::new(error.kind(), text)
        };
        // Absolute, so that a later change of the working directory has no effect.
        let absolute = std::path::absolute(path).map_err(explain)?;
        let mut root = FolderRoot {
            path: absolute.into(),
            links: LinkPolicy::Beneath,
        };
        let tree = root.tree().map_err(explain)?;
        if outside {
            root.links = LinkPolicy::Anywhere;
            return Ok(root);
        }
        match tree.open_beneath(b".", OFlags::PATH) {
            Ok(_) => {}
            // An old kernel, or a sandbox that blocks the call.
            Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => root.links = LinkPolicy::Refused,
            Err(error) => return Err(explain(error.into())),
        }
        Ok(root)
    }

    /// Opens the folder as it is now. Blocks.
    pub(super) fn tree(&self) -> io::Result<FolderTree> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = open(self.path.as_ref(), flags, Mode::empty())?;
        Ok(FolderTree {
            top,
            links: self.links,
        })
    }

    #[cfg(test)]
    pub(super) fn set_links(&mut self, links: LinkPolicy) {
        self.links = links;
    }

    #[cfg(test)]
    pub(super) fn links(&self) -> LinkPolicy {
        self.links
    }
}

/// The shared folder during one request. Paths are names joined by `/`, as in `RequestTarget`; an
/// empty one is the folder itself. All methods block.
pub(super) struct FolderTree {
    top: OwnedFd,
    links: LinkPolicy,
}

/// A file or folder that may be served, opened for reading.
pub(super) enum FolderNode {
    File(File, Metadata),
    Folder(OwnedFd),
}

impl FolderTree {
    /// Opens a file or folder. Anything else counts as missing.
    pub(super) fn open(&self, path: &[u8]) -> io::Result<FolderNode> {
        // Checked before it is opened for reading: opening a device can have side effects.
        let seen = self.look(path)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        if seen.is_dir() {
            let folder = self.open_at(path, flags | OFlags::DIRECTORY)?;
            return Ok(FolderNode::Folder(folder));
        }
        let file = File::from(self.open_at(path, flags)?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(Errno::NOENT.into());
        }
        Ok(FolderNode::File(file, metadata))
    }

    /// Returns the metadata of a file or folder; links are followed as the policy allows.
    pub(super) fn look(&self, path: &[u8]) -> io::Result<Metadata> {
        let metadata = File::from(self.open_at(path, OFlags::PATH)?).metadata()?;
        if !metadata.is_file() && !metadata.is_dir() {
            return Err(Errno::NOENT.into());
        }
        Ok(metadata)
    }

    fn open_at(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let opened = match self.links {
            LinkPolicy::Beneath => self.open_beneath(path, flags),
            LinkPolicy::Refused => self.walk(path, flags),
            LinkPolicy::Anywhere => openat(&self.top, path, flags | OFlags::CLOEXEC, Mode::empty()),
        };
        Ok(opened?)
    }

    fn open_beneath(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mut flags = flags | OFlags::CLOEXEC;
        if !flags.contains(OFlags::PATH) {
            // Unlike openat, openat2 does not set this by itself, and rejects it with PATH.
            flags |= OFlags::LARGEFILE;
        }
        for _ in 0..MAX_RACES {
            match openat2(&self.top, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                done => return done,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Opens the path name by name without following links. The names contain no `..`, so no step
    /// leads up.
    fn walk(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let step = |fd: BorrowedFd<'_>, name: &[u8], flags: OFlags| {
            openat(
                fd,
                name,
                flags | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )
        };
        let Some(slash) = path.iter().rposition(|byte| *byte == b'/') else {
            return step(self.top.as_fd(), path, flags);
        };
        let (above, last) = path.split_at(slash);
        let mut folder: Option<OwnedFd> = None;
        for name in above.split(|byte| *byte == b'/') {
            let fd = folder.as_ref().unwrap_or(&self.top).as_fd();
            folder = Some(step(fd, name, OFlags::PATH | OFlags::DIRECTORY)?);
        }
        let fd = folder.as_ref().unwrap_or(&self.top).as_fd();
        step(fd, last.get(1..).unwrap_or_default(), flags)
    }
}

/// Returns the metadata of a name in an open folder, without following a link. Blocks.
pub(super) fn look_in(folder: &OwnedFd, name: &[u8]) -> io::Result<Metadata> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    File::from(openat(folder, name, flags, Mode::empty())?).metadata()
}

/// Returns the time of the last change: seconds since 1970, and nanoseconds.
pub(super) fn changed(metadata: &Metadata) -> (i64, i64) {
    (metadata.mtime(), metadata.mtime_nsec())
}
