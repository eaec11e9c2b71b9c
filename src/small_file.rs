//! Files that hold a secret or a key. Not what is in them.

use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Maximum length of such a file in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// Reads a regular file of at most 64 KiB. Does not wait for the writer of a FIFO, and does not read a device,
/// which may have no end.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_up_to(path, MAX_FILE)
}

/// Reads a regular file like [`read`], of at most `most` bytes.
pub(crate) fn read_up_to(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    // Opening a device may have an effect, so this comes before it.
    check_kind(fs::metadata(path)?.is_file())?;
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    check_kind(file.metadata()?.is_file())?;
    read_all(file, most)
}

fn check_kind(is_file: bool) -> io::Result<()> {
    match is_file {
        true => Ok(()),
        false => Err(invalid("it is not a regular file")),
    }
}

fn read_all(file: File, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let length = file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    match length as u64 > most {
        true => Err(invalid(&format!(
            "it is too long, more than {} KiB",
            most / 1024
        ))),
        false => Ok(bytes),
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Whether a path is more likely one than the content of the file, set by mistake: it exists, or the folder that it
/// names does. Base64 contains slashes, too.
pub(crate) fn is_path(path: &Path) -> bool {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    path.exists() || path.is_absolute() || folder.is_some_and(Path::exists)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_dir::scratch;
    use std::process::Command;

    #[test]
    fn fifos_devices_and_long_files_are_not_read() {
        let folder = scratch("small-file");
        fs::create_dir_all(&folder).unwrap();
        let fifo = folder.join("fifo");
        assert!(Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success());
        let long = folder.join("long");
        fs::write(&long, [b'x'; 64 * 1024 + 1]).unwrap();
        for (path, word) in [
            (fifo.as_path(), "regular"),
            (Path::new("/dev/zero"), "regular"),
            (&folder, "regular"),
            (&long, "too long"),
        ] {
            let why = read(path).unwrap_err().to_string();
            assert!(why.contains(word), "{}: {why}", path.display());
        }
        fs::write(&long, [b'x'; 64 * 1024]).unwrap();
        assert_eq!(read(&long).unwrap().len(), 64 * 1024);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn content_in_place_of_a_path_is_told_from_a_path() {
        for (text, is_one) in [
            ("MC4CAQAwBQYDK2VwBCIEIBwcHBwc", false),
            ("MC4CAQAwBQYDK2VwBCIEIBwcH/wc", false),
            ("hunter2", false),
            ("/run/none.key", true),
            ("src/none.key", true),
            ("Cargo.toml", true),
        ] {
            assert_eq!(is_path(Path::new(text)), is_one, "{text}");
        }
    }
}
