//! Who may use the page: the name and the password of the configuration, or a link in the log that signs in
//! once. Not the sessions.

use super::request::BasicLogin;
use super::sessions::{digest_of, random_text};
use crate::auth_lockout::AuthLockout;
use crate::net::{timeout, PASSWORDS};
use crate::passwords::{PasswordHash, PasswordQueue};
use crate::sync::Mutex;
use ring::hmac;
use ring::rand::SystemRandom;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;

/// Number of failed logins of an address after which it is locked out.
const MAX_FAILURES: u32 = 5;
/// Duration of a lockout.
const LOCKOUT: Duration = Duration::from_secs(300);
/// Time after which a login whose password is not checked yet is refused.
const CHECK_TIMEOUT: Duration = Duration::from_secs(20);

/// Counts failed logins, and lets passwords wait for their check.
pub struct LoginGuard {
    lockout: AuthLockout,
    queue: Arc<PasswordQueue>,
    /// The digest of the link that signs in once.
    link: Mutex<Option<String>>,
}

/// The name and the password to sign in with.
pub struct Admin {
    name: String,
    password: Option<PasswordHash>,
    /// The key of the digests of passwords; `None` if the system has no random numbers.
    key: Option<hmac::Key>,
    /// The digest of the right password, once it has been given: deriving a key from it again would take a
    /// router seconds for each request of a script.
    remembered: Mutex<Option<hmac::Tag>>,
}

/// Why a login has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginError {
    /// The name or the password is wrong, or the link has been used.
    Wrong,
    /// The address has failed too often; the time that is left.
    LockedOut(Duration),
    /// Too many passwords wait.
    Busy,
}

impl Admin {
    /// Creates the name and the password that the configuration has.
    pub fn new(name: &str, password: Option<PasswordHash>) -> Self {
        Self {
            name: name.to_owned(),
            password,
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok(),
            remembered: Mutex::new(None),
        }
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether there is a password.
    pub fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// Whether both are the same.
    pub fn is(&self, other: &Self) -> bool {
        self.name == other.name && self.password == other.password
    }

    fn digest(&self, login: &BasicLogin) -> Option<hmac::Tag> {
        let key = self.key.as_ref()?;
        Some(hmac::sign(key, &login.password))
    }

    fn remembers(&self, login: &BasicLogin) -> bool {
        let (known, digest) = (*self.remembered.lock(), self.digest(login));
        let is_same = known
            .zip(digest)
            .is_some_and(|(known, digest)| known.as_ref().ct_eq(digest.as_ref()).into());
        is_same && login.admin == self.name
    }

    /// Derives the key, which takes long, whatever the name.
    fn verify(&self, login: &BasicLogin) -> bool {
        let Some(hash) = &self.password else {
            return false;
        };
        let is_right = hash.is_of(&login.password) && login.admin == self.name;
        if is_right {
            *self.remembered.lock() = self.digest(login);
        }
        is_right
    }
}

impl Default for LoginGuard {
    fn default() -> Self {
        Self {
            lockout: AuthLockout::new(MAX_FAILURES, LOCKOUT),
            queue: Arc::default(),
            link: Mutex::new(None),
        }
    }
}

impl LoginGuard {
    /// Makes another link, and returns what it ends with. Fails if the system has no random numbers.
    pub fn new_link(&self) -> io::Result<String> {
        let text = random_text()?;
        *self.link.lock() = Some(digest_of(&text));
        Ok(text)
    }

    /// Lets no link sign in any more.
    pub fn forget_link(&self) {
        *self.link.lock() = None;
    }

    /// Signs in by a link.
    pub fn follow_link(&self, text: &str, from: IpAddr) -> Result<(), LoginError> {
        self.check_lockout(from)?;
        let digest = digest_of(text);
        let mut link = self.link.lock();
        let is_right = link
            .as_ref()
            .is_some_and(|known| known.as_bytes().ct_eq(digest.as_bytes()).into());
        if is_right {
            *link = None;
            drop(link);
            self.lockout.succeeded(from);
            return Ok(());
        }
        drop(link);
        Err(self.failed(from))
    }

    /// Checks a name and a password, after those that wait.
    pub async fn check(
        &self,
        admin: &Arc<Admin>,
        login: BasicLogin,
        from: IpAddr,
    ) -> Result<(), LoginError> {
        if !admin.has_password() {
            return Err(LoginError::Wrong);
        }
        if admin.remembers(&login) {
            return Ok(());
        }
        self.check_lockout(from)?;
        let place = self.queue.enter(Some(from)).ok_or(LoginError::Busy)?;
        let checked = async {
            let turn = place.turn().await;
            // Those before it may have failed too often.
            self.check_lockout(from)?;
            if admin.remembers(&login) {
                return Ok(true);
            }
            let admin = admin.clone();
            let verify = move || {
                // Until it is done: the other end may have gone, and come again.
                let _turn = turn;
                admin.verify(&login)
            };
            Ok(PASSWORDS.run(verify).await)
        };
        match timeout(CHECK_TIMEOUT, checked).await {
            Some(Ok(true)) => {
                self.lockout.succeeded(from);
                Ok(())
            }
            Some(Ok(false)) => Err(self.failed(from)),
            Some(Err(e)) => Err(e),
            None => Err(LoginError::Busy),
        }
    }

    fn check_lockout(&self, from: IpAddr) -> Result<(), LoginError> {
        match self.lockout.lockout(from) {
            Some(left) => Err(LoginError::LockedOut(left)),
            None => Ok(()),
        }
    }

    fn failed(&self, from: IpAddr) -> LoginError {
        log::warn!("the web page: a login from {from} has failed");
        if let Some(lockout) = self.lockout.failed(from) {
            log::warn!(
                "the web page: {lockout}; its logins are refused for {:?}",
                lockout.left
            );
        }
        LoginError::Wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::block_on;
    use std::net::Ipv4Addr;

    fn here(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(n).into()
    }

    #[test]
    fn a_link_signs_in_once_and_guesses_are_locked_out() {
        let guard = LoginGuard::default();
        assert_eq!(guard.follow_link("", here(9)), Err(LoginError::Wrong));
        let link = guard.new_link().unwrap();
        assert_eq!(guard.follow_link(&link, here(1)), Ok(()));
        assert_eq!(guard.follow_link(&link, here(1)), Err(LoginError::Wrong));
        let link = guard.new_link().unwrap();
        for _ in 0..MAX_FAILURES {
            assert_eq!(guard.follow_link("guess", here(1)), Err(LoginError::Wrong));
        }
        let late = guard.follow_link(&link, here(1));
        assert!(matches!(late, Err(LoginError::LockedOut(_))), "{late:?}");
        assert_eq!(guard.follow_link(&link, here(2)), Ok(()));
    }

    #[test]
    fn a_right_password_is_remembered_and_a_wrong_one_is_not() {
        let hash = PasswordHash::new(b"secret").unwrap();
        let admin = Arc::new(Admin::new("me", Some(hash)));
        let guard = LoginGuard::default();
        let login = |admin: &str, password: &str| BasicLogin {
            admin: admin.to_owned(),
            password: password.as_bytes().to_vec(),
        };
        let check = |it| block_on(guard.check(&admin, it, here(1)));
        assert_eq!(check(login("me", "wrong")), Err(LoginError::Wrong));
        assert_eq!(check(login("you", "secret")), Err(LoginError::Wrong));
        assert!(!admin.remembers(&login("me", "wrong")));
        assert_eq!(check(login("me", "secret")), Ok(()));
        assert!(admin.remembers(&login("me", "secret")));
        assert!(!admin.remembers(&login("you", "secret")));
        let none = Arc::new(Admin::new("me", None));
        let refused = block_on(guard.check(&none, login("me", ""), here(1)));
        assert_eq!(refused, Err(LoginError::Wrong));
    }
}
