//! The files of the configuration, which the page shows without secrets and changes: the file of a role, and
//! its file of users. No other file can be reached. Everything here blocks.

use super::answer::Answer;
use crate::cli;
use crate::config::file::Document;
use crate::config::foreign::Content;
use crate::config::{edit, masked, ConfigError, RoleConfig};
use ring::digest::{digest, SHA256};
use serde_json::json;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{fchown, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Maximum length of a file that the page shows or changes.
const MAX_FILE: u64 = 1024 * 1024;

/// Checks whether a role could run with the files and directories that it names. The error is a sentence.
pub type CheckRole = fn(&RoleConfig) -> Result<(), String>;

/// A file, and what it says at the moment.
pub struct ConfigFile {
    path: PathBuf,
    content: Content,
    /// The text of the file.
    pub text: String,
}

/// Why a file cannot be shown or changed.
#[derive(Debug)]
pub enum FileError {
    /// The file cannot be read or written.
    Io(String),
    /// The text is not a right configuration.
    Wrong(String),
    /// The file has been changed by others since it was read.
    Changed,
}

impl From<ConfigError> for FileError {
    fn from(e: ConfigError) -> Self {
        Self::Wrong(e.to_string())
    }
}

impl FileError {
    /// Returns the answer to the call that has failed.
    pub fn answer(self) -> Answer {
        match self {
            Self::Io(why) => Answer::error(500, why),
            Self::Wrong(why) => {
                let line = line_of(&why);
                Answer::json(422, &json!({"error": why, "line": line}))
            }
            Self::Changed => Answer::error(
                412,
                "The configuration has been changed meanwhile: load it again.",
            ),
        }
    }
}

/// Returns the line that an error names.
pub fn line_of(why: &str) -> Option<u32> {
    let (_, rest) = why.split_once("line ")?;
    let (line, _) = rest.split_once(':')?;
    line.parse().ok()
}

impl ConfigFile {
    /// Reads the file of a role.
    pub fn of_role(path: &Path) -> Result<Self, FileError> {
        Self::read(path, Content::Configuration)
    }

    /// Reads the file of users that the configuration names, if it does.
    pub fn of_users(&self) -> Result<Option<Self>, FileError> {
        let path = self.users_named_by(&self.text)?;
        path.map(|path| Self::read(&path, Content::Users))
            .transpose()
    }

    /// Returns the file of users that a text of the configuration names.
    fn users_named_by(&self, text: &str) -> Result<Option<PathBuf>, FileError> {
        let document = Document::parse(&self.path, text.to_owned(), Content::Configuration)?;
        let named = document.node(&["options", "users"]);
        let path = named.and_then(|node| node.texts().into_iter().next().map(PathBuf::from));
        Ok(path.filter(|path| !path.as_os_str().is_empty()))
    }

    /// Fails if a new text names another file of users: the page shows what is in it, and so do errors about it, so
    /// it could show any file.
    fn require_same_users(&self, text: &str) -> Result<(), FileError> {
        match self.users_named_by(text)? {
            Some(path) if self.users_named_by(&self.text)?.as_ref() != Some(&path) => {
                let line = (1..).zip(text.lines()).find(|(_, line)| {
                    let line = line.trim_start().trim_start_matches(['"', '\'']);
                    line.starts_with("users") && line.contains(&*path.to_string_lossy())
                });
                let line = line.map_or(String::new(), |(line, _)| format!(" line {line}:"));
                Err(FileError::Wrong(format!(
                    "{}:{line} options.users: The page opens no other file of users than before: name {} in the file \
                     on the machine itself, and reload.",
                    self.path.display(),
                    path.display()
                )))
            }
            _ => Ok(()),
        }
    }

    fn read(path: &Path, content: Content) -> Result<Self, FileError> {
        let failed = |e: io::Error| FileError::Io(format!("Reading {}: {e}.", path.display()));
        let mut text = String::new();
        let file = File::open(path).map_err(failed)?;
        let length = file
            .take(MAX_FILE + 1)
            .read_to_string(&mut text)
            .map_err(failed)?;
        if length as u64 > MAX_FILE {
            let shown = path.display();
            return Err(FileError::Io(format!(
                "{shown} is longer than 1 MiB: edit it by hand."
            )));
        }
        Ok(Self {
            path: path.to_owned(),
            content,
            text,
        })
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what tells this version of the file from others.
    pub fn etag(&self) -> String {
        etag(&self.text)
    }

    /// Fails if the file is not of this version.
    pub fn require(&self, etag: &str) -> Result<(), FileError> {
        match etag == "*" || etag == self.etag() {
            true => Ok(()),
            false => Err(FileError::Changed),
        }
    }

    /// Returns the text without secrets.
    pub fn masked(&self) -> Result<String, FileError> {
        Ok(masked::mask(&self.path, &self.text, self.content)?)
    }

    /// Returns an edited text with the secrets of the file.
    pub fn unmasked(&self, edited: &str) -> Result<String, FileError> {
        let text = masked::unmask(&self.path, &self.text, edited, self.content)?;
        Ok(edit::with_ends_of(&self.text, text))
    }

    /// Reads a new text of the role's file as a start of gt would, and returns the role that it makes. The error
    /// names the line.
    pub fn role_of(&self, text: &str) -> Result<RoleConfig, FileError> {
        self.role(text, None)
    }

    /// Returns the role that the file makes with a new text of its file of users, which is not written yet.
    pub fn role_with_users(&self, users: &Self, text: &str) -> Result<RoleConfig, FileError> {
        self.role(&self.text, Some((users.path.clone(), text.to_owned())))
    }

    fn role(&self, text: &str, users: Option<(PathBuf, String)>) -> Result<RoleConfig, FileError> {
        self.require_same_users(text)?;
        let argv = std::env::args_os().map(|it| it.to_string_lossy().into_owned());
        let argv: Vec<String> = argv.collect();
        Ok(cli::role_of_text(
            &argv,
            &self.path,
            text.to_owned(),
            users,
        )?)
    }

    /// Parses a text of the file.
    pub fn document(&self, text: &str) -> Result<Document, FileError> {
        Ok(Document::parse(&self.path, text.to_owned(), self.content)?)
    }

    /// Replaces the file by one with another text, or leaves it as it was if that fails. The former one is
    /// kept beside it, with `.bak` at the end of its name.
    pub fn write(&self, text: &str) -> Result<(), FileError> {
        // A link stays one.
        let target = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let written = self.unchanged(&target).and_then(|()| {
            let before = fs::metadata(&target)?;
            replace(&with_suffix(&target, ".bak"), self.text.as_bytes(), &before)?;
            replace(&target, text.as_bytes(), &before)
        });
        written.map_err(|e| match e.kind() {
            io::ErrorKind::StaleNetworkFileHandle => FileError::Changed,
            _ => FileError::Io(format!(
                "Writing {}: {e}{}.",
                target.display(),
                advice(e.kind())
            )),
        })
    }

    /// Fails if the file is not what was read.
    fn unchanged(&self, target: &Path) -> io::Result<()> {
        match fs::read(target)? == self.text.as_bytes() {
            true => Ok(()),
            false => Err(io::ErrorKind::StaleNetworkFileHandle.into()),
        }
    }
}

/// Returns what to do about an error of writing; empty if that is not known.
fn advice(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::PermissionDenied => {
            "; give the user that gt runs as the right to write the file and its directory (of its own, as /etc/gt)"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "; gt may write nothing there: under systemd, allow it by ReadWritePaths= with the directory of the file \
             (systemctl edit gt); in a container, mount that directory without \"ro\""
        }
        io::ErrorKind::ResourceBusy => {
            "; the file is mounted by itself, so it cannot be replaced: let the container mount its directory instead"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; make room on the disk",
        _ => "",
    }
}

/// Returns what tells a text from others.
pub fn etag(text: &str) -> String {
    let digest = digest(&SHA256, text.as_bytes());
    let first = digest.as_ref().iter().take(8);
    first.map(|byte| format!("{byte:02x}")).collect()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Replaces a file as a whole by one with the mode and, where that is allowed, the owner of another one.
fn replace(path: &Path, content: &[u8], like: &fs::Metadata) -> io::Result<()> {
    let new = with_suffix(path, ".new");
    // A process that was killed may have left such a file.
    let _ = fs::remove_file(&new);
    let written = (|| {
        let mode = like.permissions().mode() & 0o777;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        let _ = fchown(&file, Some(like.uid()), Some(like.gid()));
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    if let Some(directory) = path.parent().and_then(|it| File::open(it).ok()) {
        // The name must be on the disk, too; not every file system can promise that.
        let _ = directory.sync_all();
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_dir::scratch;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_the_former_one_is_kept() {
        let folder = scratch("web-config");
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("gt.yaml");
        fs::write(&path, "id: one\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let link = folder.join("link.yaml");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let file = ConfigFile::of_role(&link).unwrap();
        assert!(file.require("other").is_err() && file.require(&file.etag()).is_ok());
        file.write("id: two\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "id: two\n");
        assert_eq!(
            fs::read_to_string(folder.join("gt.yaml.bak")).unwrap(),
            "id: one\n"
        );
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
        // Someone else has changed it since.
        let late = file.write("id: three\n");
        assert!(matches!(late, Err(FileError::Changed)), "{late:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "id: two\n");
        assert_eq!(
            fs::read_dir(&folder).unwrap().count(),
            3,
            "nothing else is left"
        );
        fs::write(&path, vec![b'a'; 1 << 20]).unwrap();
        assert!(ConfigFile::of_role(&path).is_ok());
        fs::write(&path, vec![b'a'; (1 << 20) + 1]).unwrap();
        assert!(ConfigFile::of_role(&path).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn errors_of_writing_say_what_to_do() {
        for (kind, word) in [
            (io::ErrorKind::PermissionDenied, "/etc/gt"),
            (io::ErrorKind::ReadOnlyFilesystem, "ReadWritePaths="),
            (io::ErrorKind::ResourceBusy, "mount its directory"),
        ] {
            assert!(advice(kind).contains(word), "{kind}");
        }
        // EROFS, EBUSY and EACCES of Linux.
        for (number, kind) in [
            (30, io::ErrorKind::ReadOnlyFilesystem),
            (16, io::ErrorKind::ResourceBusy),
            (13, io::ErrorKind::PermissionDenied),
        ] {
            assert_eq!(io::Error::from_raw_os_error(number).kind(), kind);
        }
    }

    #[test]
    fn an_error_names_its_line() {
        assert_eq!(line_of("gt.yaml: line 12: options.id: wrong"), Some(12));
        assert_eq!(line_of("There is no id."), None);
    }
}
