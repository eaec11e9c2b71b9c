//! The keys that servers have shown first, which a client remembers (`remoteKey: first`). Not the
//! check of signatures.

use crate::keys::Fingerprint;
use crate::state_dir::StateDir;
use crate::sync::Mutex;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file in `stateDir`: a line for each host, of its name and the fingerprint of its key.
const FILE: &str = "known_servers";
/// Maximum number of keys that are remembered between the certificate and the signature of a handshake.
const MAX_UNSIGNED: usize = 64;

/// Time that another process has to remember a key. It is short, since tunnels of other servers wait meanwhile.
const LOCK_PATIENCE: Duration = Duration::from_millis(100);

/// The remembered keys. The file is read for each handshake, so that a line that a user deletes or another process
/// adds takes effect at once.
#[derive(Debug)]
pub struct KnownServers {
    directory: PathBuf,
    /// Keys that hosts have shown for the first time, and have not signed with yet.
    unsigned: Mutex<Vec<(String, Fingerprint)>>,
}

impl KnownServers {
    /// Refers to the keys that are remembered in this directory.
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            unsigned: Mutex::default(),
        }
    }

    /// Checks the key of a host against the remembered one. The error is for the user.
    pub fn check(&self, host: &str, key: Fingerprint) -> Result<(), String> {
        if !self.directory.exists() {
            return self.first(host, key);
        }
        let state = StateDir::open(&self.directory).map_err(|e| e.to_string())?;
        match known(&self.read(&state)?, host) {
            None => self.first(host, key),
            Some(text) if text.parse() == Ok(key) => Ok(()),
            Some(text) => {
                let file = state.file(FILE);
                let file = file.display();
                Err(format!(
                    "the key of {host} is {key}, and was {text} at the first connection, as {file} \
                     says; if the server has got another key, which gt fingerprint prints there, \
                     delete the line of {host} in {file}; otherwise this is another server"
                ))
            }
        }
    }

    /// Notes that the host has shown this key, until the server has signed with it.
    fn first(&self, host: &str, key: Fingerprint) -> Result<(), String> {
        let mut unsigned = self.unsigned.lock();
        if unsigned.len() >= MAX_UNSIGNED {
            unsigned.remove(0);
        }
        unsigned.push((host.to_owned(), key));
        Ok(())
    }

    /// Remembers the key for the hosts that have shown it for the first time: the server has signed
    /// with it. The error is for the user; nothing is remembered then.
    pub fn remember(&self, key: Fingerprint) -> Result<(), String> {
        let hosts: Vec<String> = {
            let mut unsigned = self.unsigned.lock();
            let hosts = unsigned.iter().filter(|(_, shown)| *shown == key);
            let hosts = hosts.map(|(host, _)| host.clone()).collect();
            unsigned.retain(|(_, shown)| *shown != key);
            hosts
        };
        if hosts.is_empty() {
            return Ok(());
        }
        let state = StateDir::open(&self.directory).map_err(|e| e.to_string())?;
        let _lock = state.lock(LOCK_PATIENCE).map_err(|e| e.to_string())?;
        let mut text = self.read(&state)?;
        let before = text.len();
        for host in hosts {
            // Another tunnel may have remembered a key meanwhile.
            match known(&text, &host) {
                Some(known) if known.parse() == Ok(key) => {}
                Some(known) => {
                    return Err(format!(
                    "{host} has shown two keys at once, {key} and {known}; set remoteKey to what \
                         gt fingerprint prints at the server"
                ))
                }
                None => {
                    log::info!("remembering the key of {host}, {key} (remoteKey is first)");
                    if !text.is_empty() && !text.ends_with('\n') {
                        text.push('\n');
                    }
                    text.push_str(&format!("{host} {key}\n"));
                }
            }
        }
        match text.len() > before {
            true => state
                .write(FILE, text.as_bytes())
                .map_err(|e| e.to_string()),
            false => Ok(()),
        }
    }

    fn read(&self, state: &StateDir) -> Result<String, String> {
        let bytes = state.read(FILE).map_err(|e| e.to_string())?;
        Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
    }
}

/// Returns what the file says of the key of a host. A damaged line is not the same as none.
fn known<'t>(text: &'t str, host: &str) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let is_its = words.next() == Some(host);
        is_its.then(|| words.next().unwrap_or("not readable"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_dir::scratch;
    use std::fs;

    #[test]
    fn a_key_is_remembered_once_the_server_has_signed_with_it() {
        let path = scratch("known-servers-signed");
        let servers = KnownServers::new(&path);
        let [one, other] = [Fingerprint::of(b"one"), Fingerprint::of(b"other")];
        servers.check("host", one).unwrap();
        assert!(!path.exists(), "an unsigned key counts for nothing");
        servers.check("host", other).unwrap();
        servers.remember(other).unwrap();
        servers.check("host", other).unwrap();
        let why = servers.check("host", one).unwrap_err();
        assert!(why.contains(&one.to_string()) && why.contains(&other.to_string()));
        assert!(servers.remember(one).is_err(), "it has shown two keys");
        servers.check("host2", one).unwrap();
        servers.remember(one).unwrap();
        let text = fs::read_to_string(path.join(FILE)).unwrap();
        assert_eq!(text, format!("host {other}\nhost2 {one}\n"));
        let later = KnownServers::new(&path);
        assert!(later.check("host", one).is_err());
        fs::write(path.join(FILE), format!("host2 {one}")).unwrap();
        later.check("host", one).unwrap();
        later.remember(one).unwrap();
        assert!(later.check("host", other).is_err());
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_damaged_line_is_refused_and_not_replaced() {
        let path = scratch("known-servers-damaged");
        fs::create_dir_all(&path).unwrap();
        for text in ["host", "host SHA256:AAAA", "host \u{0}\n"] {
            fs::write(path.join(FILE), text).unwrap();
            let servers = KnownServers::new(&path);
            assert!(servers.check("host", Fingerprint::of(b"one")).is_err());
            assert_eq!(fs::read_to_string(path.join(FILE)).unwrap(), text);
        }
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn what_cannot_be_remembered_is_not_trusted() {
        let servers = KnownServers::new(Path::new("/proc/gt"));
        let key = Fingerprint::of(b"one");
        servers.check("host", key).unwrap();
        assert!(servers
            .remember(key)
            .unwrap_err()
            .contains("stateDir /proc/gt"));
    }
}
