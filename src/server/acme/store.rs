//! What a server keeps about its certificates, in the folder `acme` of its `stateDir`: its account, its recent
//! orders, and a file for each name. Not when they change.

use super::budget::Budget;
use super::jws::AccountKey;
use super::ChallengeKind;
use crate::state_dir::{StateDir, StateLock};
use base64::prelude::{Engine, BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The folder in the `stateDir`.
const FOLDER: &str = "acme";
const ACCOUNT: &str = "account.json";
const BUDGET: &str = "orders.json";
/// The end of the files of names.
const OF_NAME: &str = ".pem";
/// Maximum length of a name in bytes, so that its file can have its name.
pub const MAX_NAME: usize = 200;
/// Maximum number of names that are kept.
pub const MAX_NAMES: usize = 10_000;
/// Maximum length in bytes of a file.
const MAX_FILE: u64 = 256 * 1024;

/// The account of a server at an authority.
#[derive(Clone)]
pub struct Account {
    pub key: Arc<AccountKey>,
    /// The URL of the account; `None` until it has been made.
    pub url: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AccountFile {
    /// The URL of the authority's directory.
    directory: String,
    /// The key in PKCS #8, as base64.
    key: String,
    #[serde(default)]
    url: Option<String>,
}

/// What is known of the certificate of a name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NameState {
    /// The URL of the directory of the authority.
    pub directory: String,
    /// The URL of the order that is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// How often that order has been taken up again.
    pub resumed: u32,
    /// Whether an attempt is under way: still so at a start of gt if it did not end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub under_way: bool,
    /// Number of attempts since the last certificate.
    pub failures: u32,
    /// The earliest time of the next attempt, in seconds since 1970.
    pub next: i64,
    /// Why the last attempt has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The way to prove the name that is tried first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub challenge: Option<ChallengeKind>,
    /// The time that the authority suggests for the renewal, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renew: Option<i64>,
    /// When to ask the authority about that again, in seconds since 1970.
    pub ask: i64,
    /// The certificates, in PEM; empty without.
    #[serde(skip)]
    pub chain: Vec<u8>,
}

/// The folder.
pub struct Store {
    state: StateDir,
    path: PathBuf,
}

/// Returns the folder in a `stateDir`.
pub fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join(FOLDER)
}

impl Store {
    /// Opens the folder, which is made if it is missing. The error names it.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        Ok(Self {
            state: StateDir::open(state_dir)?.inner(FOLDER)?,
            path: folder(state_dir),
        })
    }

    /// Locks the folder; fails with `TimedOut` if another process has.
    pub fn lock(&self) -> io::Result<StateLock> {
        self.state.lock(Duration::ZERO)
    }

    /// Reads the account at an authority; makes and writes a key if there is none.
    pub fn account(&self, directory: &str) -> io::Result<Account> {
        if let Some(text) = self.state.read(ACCOUNT)? {
            let file: AccountFile = self.parse(ACCOUNT, &text)?;
            let key = BASE64_STANDARD.decode(&file.key).ok();
            let key = key.and_then(|der| AccountKey::from_der(&der));
            let key = key.ok_or_else(|| self.damaged(ACCOUNT))?;
            // Another authority may have the same key, but not the same account.
            let url = file.url.filter(|_| file.directory == directory);
            let key = Arc::new(key);
            return Ok(Account { key, url });
        }
        let account = Account {
            key: Arc::new(AccountKey::generate()?),
            url: None,
        };
        self.write_account(directory, &account)?;
        Ok(account)
    }

    /// Writes the account.
    pub fn write_account(&self, directory: &str, account: &Account) -> io::Result<()> {
        let file = AccountFile {
            directory: directory.to_owned(),
            key: BASE64_STANDARD.encode(account.key.der()),
            url: account.url.clone(),
        };
        self.state.write(ACCOUNT, &serde_json::to_vec(&file)?)
    }

    /// Reads the recent orders; none if there is no file.
    pub fn budget(&self) -> io::Result<Budget> {
        match self.state.read(BUDGET)? {
            Some(text) => self.parse(BUDGET, &text),
            None => Ok(Budget::default()),
        }
    }

    /// Writes the recent orders.
    pub fn write_budget(&self, budget: &Budget) -> io::Result<()> {
        self.state.write(BUDGET, &serde_json::to_vec(budget)?)
    }

    /// Writes what is known of a name.
    pub fn write(&self, name: &str, state: &NameState) -> io::Result<()> {
        let mut text = serde_json::to_vec(state)?;
        text.push(b'\n');
        text.extend_from_slice(&state.chain);
        self.state.write(&file_of(name), &text)
    }

    /// Removes the file of a name.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(file_of(name)))
    }

    fn parse<T: for<'a> Deserialize<'a>>(&self, file: &str, text: &[u8]) -> io::Result<T> {
        serde_json::from_slice(text).map_err(|_| self.damaged(file))
    }

    fn damaged(&self, file: &str) -> io::Error {
        let path = self.state.file(file);
        let why = format!(
            "{} is not what gt has written there; restore it, or delete it to begin anew",
            path.display()
        );
        io::Error::new(io::ErrorKind::InvalidData, why)
    }
}

fn file_of(name: &str) -> String {
    format!("{name}{OF_NAME}")
}

/// Reads what is known of each name in the folder; nothing if there is no folder. Files that cannot be read
/// are left out, with a warning. Changes nothing.
pub fn read_names(state_dir: &Path) -> io::Result<Vec<(Box<str>, NameState)>> {
    let path = folder(state_dir);
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => {
            let text = format!("reading {}: {e}", path.display());
            return Err(io::Error::new(e.kind(), text));
        }
    };
    let mut names = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        let file = entry.file_name();
        let name = file.to_str().and_then(|file| file.strip_suffix(OF_NAME));
        // A file that is not renamed yet begins with a dot.
        let Some(name) = name.filter(|name| is_certifiable(name)) else {
            continue;
        };
        match read_name(&entry.path()) {
            Ok(state) => names.push((name.into(), state)),
            Err(e) => log::warn!(
                "reading {}: {e}; gt gets another certificate",
                entry.path().display()
            ),
        }
        if names.len() >= MAX_NAMES {
            log::warn!("{} has more than {MAX_NAMES} certificates", path.display());
            break;
        }
    }
    Ok(names)
}

fn read_name(path: &Path) -> io::Result<NameState> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    if fs::metadata(path)?.len() > MAX_FILE {
        return Err(invalid("it is too long"));
    }
    let text = fs::read(path)?;
    let end = text.iter().position(|byte| *byte == b'\n');
    let end = end.ok_or_else(|| invalid("it is not what gt has written there"))?;
    let (first, chain) = text.split_at(end);
    let mut state: NameState = serde_json::from_slice(first)
        .map_err(|_| invalid("its first line is not what gt has written there"))?;
    state.chain = chain.get(1..).unwrap_or_default().to_vec();
    Ok(state)
}

/// Whether an authority may issue a certificate for a name: host names in lower case of at least two labels,
/// without underscores.
pub fn is_certifiable(name: &str) -> bool {
    let is_label = |label: &str| {
        let usual = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let edges = !label.starts_with('-') && !label.ends_with('-');
        (1..=63).contains(&label.len()) && edges && label.bytes().all(usual)
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    name.len() <= MAX_NAME && name.contains('.') && !is_number && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_dir::scratch;

    #[test]
    fn what_was_written_is_read_again_and_a_damaged_file_is_left_out() {
        let path = scratch("acme-store");
        assert!(read_names(&path).unwrap().is_empty() && !path.exists());
        let store = Store::open(&path).unwrap();
        let state = NameState {
            directory: "https://h/".to_owned(),
            order: Some("https://h/1".to_owned()),
            failures: 2,
            next: 7,
            challenge: Some(ChallengeKind::Http),
            chain: b"-----BEGIN\nlines\n".to_vec(),
            ..NameState::default()
        };
        store.write("a.example.com", &state).unwrap();
        store.write("b.example.com", &NameState::default()).unwrap();
        let mut names = read_names(&path).unwrap();
        names.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(*names[0].0, *"a.example.com");
        assert_eq!(names[0].1, state);
        assert_eq!(names.len(), 2);
        for (content, left) in [(&b"{}"[..], 1), (b"", 1), (b"no\n", 1), (b"{}\n", 2)] {
            fs::write(folder(&path).join("b.example.com.pem"), content).unwrap();
            assert_eq!(read_names(&path).unwrap().len(), left);
        }
        store.remove("b.example.com").unwrap();
        assert_eq!(read_names(&path).unwrap().len(), 1);
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn an_account_stays_and_its_url_belongs_to_one_authority() {
        let path = scratch("acme-account");
        let store = Store::open(&path).unwrap();
        let mut account = store.account("https://one/").unwrap();
        account.url = Some("https://one/1".to_owned());
        store.write_account("https://one/", &account).unwrap();
        let again = store.account("https://one/").unwrap();
        assert_eq!(again.key.der(), account.key.der());
        assert_eq!(again.url, account.url);
        assert_eq!(store.account("https://two/").unwrap().url, None);
        fs::write(folder(&path).join(ACCOUNT), "{}").unwrap();
        let why = store.account("https://one/").err().unwrap().to_string();
        assert!(
            why.contains("account.json is not what gt has written"),
            "{why}"
        );
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn only_host_names_are_certified() {
        for (name, is) in [
            ("a.example.com", true),
            ("a-1.example", true),
            ("example", false),
            ("a_b.example.com", false),
            ("-a.example.com", false),
            ("*.example.com", false),
            ("a..com", false),
            (".example.com", false),
            ("A.example.com", false),
            ("../a.b", false),
            ("a/b.example", false),
            ("192.0.2.1", false),
            ("", false),
        ] {
            assert_eq!(is_certifiable(name), is, "{name}");
        }
    }
}
