//! The sessions of those that have signed in: a cookie for each browser, and a token for each of its tabs. Browsers
//! send the cookie to all ports of a host, so other services of the host may learn it; the token is told to the
//! page alone, and only when the session begins. Not the login.

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
    /// The digest of the cookie's value, which is not kept. The tabs of a browser have the same cookie.
    cookie: String,
    /// The digest of the token, which is not kept either.
    token: String,
    begun: u64,
    used: u64,
}

/// What the browser gets that has signed in.
pub struct NewSession {
    /// The value of the cookie.
    pub cookie: String,
    /// The token for all of its requests.
    pub csrf: String,
}

impl Sessions {
    /// Begins a session. A browser that shows the cookie of a session keeps it, so that its other tabs stay signed
    /// in. Fails if the system has no random numbers.
    pub fn begin(&self, shown: &[String]) -> io::Result<NewSession> {
        let (new, csrf) = (random_text()?, random_text()?);
        let now = now();
        let mut sessions = self.0.lock();
        sessions.retain(|session| session.lasts(now));
        let mut shown = shown.iter();
        let known = shown.find(|cookie| {
            let digest = digest_of(cookie);
            sessions.iter().any(|it| is_same(&it.cookie, &digest))
        });
        let cookie = known.cloned().unwrap_or(new);
        if sessions.len() >= MAX_SESSIONS {
            let oldest = (0..).zip(sessions.iter()).min_by_key(|(_, it)| it.used);
            if let Some((at, _)) = oldest {
                sessions.remove(at);
            }
        }
        sessions.push(Session {
            cookie: digest_of(&cookie),
            token: digest_of(&csrf),
            begun: now,
            used: now,
        });
        Ok(NewSession { cookie, csrf })
    }

    /// Whether there is a session with this cookie and token. Notes that it is used.
    pub fn resume(&self, cookie: &str, token: &str) -> bool {
        let (cookie, token, now) = (digest_of(cookie), digest_of(token), now());
        let mut sessions = self.0.lock();
        sessions.retain(|session| session.lasts(now));
        let mut all = sessions.iter_mut();
        let session = all.find(|it| is_same(&it.cookie, &cookie) & is_same(&it.token, &token));
        session.map(|it| it.used = now).is_some()
    }

    /// Ends the sessions with this cookie: those of a browser.
    pub fn end(&self, cookie: &str) {
        let digest = digest_of(cookie);
        self.0.lock().retain(|session| session.cookie != digest);
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

/// Compares digests in constant time.
fn is_same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
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
    fn a_session_lasts_until_it_ends_and_needs_its_cookie_and_its_token() {
        let sessions = Sessions::default();
        let one = sessions.begin(&[]).unwrap();
        let other = sessions.begin(&["no such cookie".to_owned()]).unwrap();
        assert!(sessions.resume(&one.cookie, &one.csrf));
        for (cookie, token) in [
            ("no such cookie", one.csrf.as_str()),
            (&one.cookie, ""),
            (&one.cookie, &other.csrf),
            (&one.cookie, &one.cookie),
            (&other.cookie, &one.csrf),
        ] {
            assert!(!sessions.resume(cookie, token));
        }
        let successor = Sessions::default();
        let exported = sessions.export();
        let text = String::from_utf8(exported.clone()).unwrap();
        assert!(!text.contains(&one.cookie) && !text.contains(&one.csrf));
        successor.import(&exported);
        sessions.end(&one.cookie);
        assert!(!sessions.resume(&one.cookie, &one.csrf));
        assert!(sessions.resume(&other.cookie, &other.csrf));
        assert!(successor.resume(&one.cookie, &one.csrf));
        successor.import(b"no sessions");
        successor.end_all();
        assert!(!successor.resume(&one.cookie, &one.csrf));
    }

    #[test]
    fn tabs_of_a_browser_share_a_cookie_and_have_their_own_tokens() {
        let sessions = Sessions::default();
        let one = sessions.begin(&[]).unwrap();
        let shown = ["that of another page".to_owned(), one.cookie.clone()];
        let two = sessions.begin(&shown).unwrap();
        assert_eq!(one.cookie, two.cookie);
        assert_ne!(one.csrf, two.csrf);
        assert!(sessions.resume(&one.cookie, &one.csrf));
        assert!(sessions.resume(&two.cookie, &two.csrf));
        sessions.end(&two.cookie);
        assert!(!sessions.resume(&one.cookie, &one.csrf));
        // A cookie without a session is not taken over.
        let three = sessions.begin(std::slice::from_ref(&one.cookie)).unwrap();
        assert_ne!(one.cookie, three.cookie);
    }

    #[test]
    fn many_sessions_take_bounded_memory_and_old_ones_end() {
        let sessions = Sessions::default();
        let first = sessions.begin(&[]).unwrap();
        for _ in 0..100 {
            sessions.begin(&[]).unwrap();
        }
        assert_eq!(sessions.0.lock().len(), MAX_SESSIONS);
        assert!(!sessions.resume(&first.cookie, &first.csrf));
        let last = sessions.begin(&[]).unwrap();
        sessions
            .0
            .lock()
            .iter_mut()
            .for_each(|it| it.used -= IDLE_TIMEOUT.as_secs());
        assert!(!sessions.resume(&last.cookie, &last.csrf));
        assert!(sessions.0.lock().is_empty());
        let last = sessions.begin(&[]).unwrap();
        sessions
            .0
            .lock()
            .iter_mut()
            .for_each(|it| it.begun -= MAX_AGE.as_secs());
        assert!(!sessions.resume(&last.cookie, &last.csrf));
    }
}
