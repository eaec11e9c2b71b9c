//! Files that contain a secret in place of an option (`secretFile`, `passwordFile`), and a check of who can read
//! files with secrets. Not the use of the secrets.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Secret;
use crate::small_file;

/// UTF-8 byte order mark, which Windows editors put first.
const UTF8_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Reads a secret: the file without a byte order mark and the end of its line. The error is a sentence that names the
/// file.
pub fn secret(option: &str, path: &Path) -> Result<Secret, String> {
    let bytes = read(option, path)?;
    let line = bytes.strip_prefix(UTF8_MARK).unwrap_or(&bytes);
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(format!("{option}: {} is empty.", path.display()));
    }
    if line.contains(&b'\n') {
        return Err(format!(
            "{option}: {} has several lines: the secret must be the only one.",
            path.display()
        ));
    }
    Ok(Secret::new(line))
}

/// Reads the lines of a file with their numbers, without empty ones and comments (`#`). The error is a
/// sentence that names the file.
#[cfg(feature = "client")]
pub fn lines(option: &str, path: &Path) -> Result<Vec<(usize, String)>, String> {
    let text = String::from_utf8(read(option, path)?)
        .map_err(|_| format!("{option}: {} is not text in UTF-8.", path.display()))?;
    let lines = (1..).zip(text.lines().map(str::trim));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(|(at, line)| (at, line.to_owned())).collect())
}

/// Checks that the value of an option is a path. The error is a sentence without the value, which may be what the file
/// should contain.
pub fn check_path(option: &str, path: &Path) -> Result<(), String> {
    match small_file::is_path(path) {
        true => Ok(()),
        false => Err(format!(
            "{option} is not the path of a file, and not shown, since it may be the secret itself: write \
             the path of the file that contains it."
        )),
    }
}

fn read(option: &str, path: &Path) -> Result<Vec<u8>, String> {
    check_path(option, path)?;
    small_file::read(path).map_err(|e| format!("{option}: {} cannot be read: {e}.", path.display()))
}

/// Returns a warning for each of these files that every user of the machine can read.
pub fn readable_by_all(files: &[PathBuf]) -> Vec<String> {
    let mode = |path: &PathBuf| fs::metadata(path).ok().map(|it| it.permissions().mode());
    let open = files
        .iter()
        .filter(|path| mode(path).is_some_and(|mode| mode & 0o004 != 0));
    open.map(|path| {
        format!(
            "{0} contains secrets, and every user of this machine can read it: chmod o-r {0}",
            path.display()
        )
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_file_without_the_end_of_its_line() {
        let name = format!("gt-secret-file-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        for (content, secret_or_why) in [
            (&b"secret1"[..], Ok("secret1")),
            (b"secret1\n", Ok("secret1")),
            (b"secret1\r\n", Ok("secret1")),
            (b" a b \n", Ok(" a b ")),
            (b"\xEF\xBB\xBFsecret1\r\n", Ok("secret1")),
            (b"\xEF\xBB\xBF\n", Err("is empty")),
            (b"", Err("is empty")),
            (b"\n", Err("is empty")),
            (b"one\nother\n", Err("several lines")),
            (&[b'x'; 70_000], Err("too long")),
        ] {
            fs::write(&path, content).unwrap();
            match (secret("secretFile", &path), secret_or_why) {
                (Ok(read), Ok(right)) => assert_eq!(read.as_bytes(), right.as_bytes()),
                (Err(why), Err(word)) => {
                    assert!(
                        why.starts_with("secretFile: ") && why.contains(word),
                        "{why}"
                    );
                }
                (read, right) => panic!("{read:?} in place of {right:?}"),
            }
        }
        fs::remove_file(&path).unwrap();
        let why = secret("secretFile", &path).unwrap_err();
        assert!(why.contains(&*path.to_string_lossy()), "{why}");
        let why = secret("secretFile", Path::new("hunter2")).unwrap_err();
        assert!(!why.contains("hunter2"), "{why}");
    }
}
