//! The sessions of those that have signed in: a cookie for each, and a token that shows that the page itself
//! sends a request. Not the login.

use crate::net::clock;
use crate::net::tls::fill_random;
use crate::sync::Mutex;
use ring::digest::{digest, SHA256};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::io;
use std::time::{Duration, UNIX_EPOCH};
use subtle::ConstantTimeEq;

/// Maximum number of sessions. The one that was used longest ago makes way.
const MAX_SESSIONS: usize = 32;
/// Time without a request after which a session ends.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2 * 3600);
/// Time after which a session ends in any case.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// All sessions.
#[derive(Default)]
pub struct Sessions(Mutex<Vec<Session>>);

/// A session as it is kept, and handed over to another process. The times are Unix times in seconds.
#[derive(Clone, Serialize, Deserialize)]
struct Session {
    /// The digest of the cookie's value, which is not kept.
    digest: String,
    csrf: String,
    begun: u64,
    used: u64,
}

/// What the browser gets that has signed in.
pub struct NewSession {
    /// The value of the cookie.
    pub cookie: String,
    /// The token for requests that change something.
    pub csrf: String,
}

impl Sessions {
    /// Begins a session. Fails if the system has no random numbers.
    pub fn begin(&self) -> io::Result<NewSession> {
        let (cookie, csrf) = (random_text()?, random_text()?);
        let now = now();
        let mut sessions = self.0.lock();
        sessions.retain(|session| session.lasts(now));
        if sessions.len() >= MAX_SESSIONS {
            let oldest = (0..).zip(sessions.iter()).min_by_key(|(_, it)| it.used);
            if let Some((at, _)) = oldest {
                sessions.remove(at);
            }
        }
        sessions.push(Session {
            digest: digest_of(&cookie),
            csrf: csrf.clone(),
            begun: now,
            used: now,
        });
        Ok(NewSession { cookie, csrf })
    }

    /// Returns the CSRF token of the session with this cookie, and notes that it is used.
    pub fn resume(&self, cookie: &str) -> Option<String> {
        let (digest, now) = (digest_of(cookie), now());
        let mut sessions = self.0.lock();
        sessions.retain(|session| session.lasts(now));
        let mut all = sessions.iter_mut();
        let session = all.find(|it| it.digest.as_bytes().ct_eq(digest.as_bytes()).into())?;
        session.used = now;
        Some(session.csrf.clone())
    }

    /// Ends the session with this cookie.
    pub fn end(&self, cookie: &str) {
        let digest = digest_of(cookie);
        self.0.lock().retain(|session| session.digest != digest);
    }

    /// Ends all sessions.
    pub fn end_all(&self) {
        self.0.lock().clear();
    }

    /// Returns the sessions for another process.
    pub fn export(&self) -> Vec<u8> {
        let sessions = self.0.lock();
        // Cannot fail: there are only texts and numbers.
        serde_json::to_vec(&*sessions).unwrap_or_default()
    }

    /// Takes over the sessions of another process.
    pub fn import(&self, exported: &[u8]) {
        if let Ok(mut sessions) = serde_json::from_slice::<Vec<Session>>(exported) {
            sessions.truncate(MAX_SESSIONS);
            *self.0.lock() = sessions;
        }
    }
}

impl Session {
    fn lasts(&self, now: u64) -> bool {
        let is_young = |since: u64, limit: Duration| now.saturating_sub(since) < limit.as_secs();
        is_young(self.used, IDLE_TIMEOUT) && is_young(self.begun, MAX_AGE)
    }
}

fn now() -> u64 {
    let time = clock::time_of_day().duration_since(UNIX_EPOCH);
    time.unwrap_or_default().as_secs()
}

/// Returns 192 random bits as text.
pub fn random_text() -> io::Result<String> {
    let mut bytes = [0; 24];
    fill_random(&mut bytes)?;
    Ok(hex(&bytes))
}

/// Returns the digest of a value that is not kept itself.
pub fn digest_of(value: &str) -> String {
    hex(digest(&SHA256, value.as_bytes()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_lasts_until_it_ends() {
        let sessions = Sessions::default();
        let one = sessions.begin().unwrap();
        let other = sessions.begin().unwrap();
        assert_eq!(sessions.resume(&one.cookie), Some(one.csrf));
        assert_eq!(sessions.resume("no such cookie"), None);
        let successor = Sessions::default();
        successor.import(&sessions.export());
        sessions.end(&one.cookie);
        assert_eq!(sessions.resume(&one.cookie), None);
        assert!(sessions.resume(&other.cookie).is_some());
        assert!(successor.resume(&one.cookie).is_some());
        successor.import(b"no sessions");
        successor.end_all();
        assert!(successor.resume(&one.cookie).is_none());
    }

    #[test]
    fn many_sessions_take_bounded_memory_and_old_ones_end() {
        let sessions = Sessions::default();
        let first = sessions.begin().unwrap();
        for _ in 0..100 {
            sessions.begin().unwrap();
        }
        assert_eq!(sessions.0.lock().len(), MAX_SESSIONS);
        assert_eq!(sessions.resume(&first.cookie), None);
        let last = sessions.begin().unwrap();
        sessions
            .0
            .lock()
            .iter_mut()
            .for_each(|it| it.used -= IDLE_TIMEOUT.as_secs());
        assert_eq!(sessions.resume(&last.cookie), None);
        assert!(sessions.0.lock().is_empty());
        let last = sessions.begin().unwrap();
        sessions
            .0
            .lock()
            .iter_mut()
            .for_each(|it| it.begun -= MAX_AGE.as_secs());
        assert_eq!(sessions.resume(&last.cookie), None);
    }
}
