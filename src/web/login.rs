//! Who may use the page: the name and the password of the configuration, or a link in the log that signs in
//! once. Not the sessions.

use super::request::BasicLogin;
use super::sessions::{digest_of, random_text};
use crate::auth_lockout::AuthLockout;
use crate::net::{clock, network_of, timeout, PASSWORDS};
use crate::passwords::{PasswordHash, PasswordQueue};
use crate::sync::Mutex;
use ring::hmac;
use ring::rand::SystemRandom;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;

/// Number of failed logins of an address after which it is locked out.
const MAX_FAILURES: u32 = 5;
/// Duration of a lockout.
const LOCKOUT: Duration = Duration::from_secs(300);
/// Time after which a login whose password is not checked yet is refused.
const CHECK_TIMEOUT: Duration = Duration::from_secs(20);

/// Maximum number of networks that are remembered with the right password. The one that was used longest ago
/// makes way.
const MAX_KNOWN: usize = 16;
/// Time between two wrong passwords of a network that are compared with the one it has given before.
const WRONG_INTERVAL: Duration = Duration::from_secs(1);
/// Time after which a link ends.
const LINK_LIFETIME: Duration = Duration::from_secs(600);

/// Counts failed logins, and lets passwords wait for their check.
pub struct LoginGuard {
    lockout: AuthLockout,
    queue: Arc<PasswordQueue>,
    link: Mutex<Option<Link>>,
}

/// A link that signs in once.
struct Link {
    /// The digest of its end, which is not kept.
    digest: String,
    made: Instant,
}

/// The name and the password to sign in with.
pub struct Admin {
    name: String,
    password: Option<PasswordHash>,
    /// The key of the digests of passwords; `None` if the system has no random numbers.
    key: Option<hmac::Key>,
    /// The networks that have given the right password; the last one has been used last.
    known: Mutex<Vec<KnownNetwork>>,
}

/// A network that has given the right password. Deriving a key from it again would take a router seconds for
/// each request of a script.
struct KnownNetwork {
    network: IpAddr,
    /// The digest of the right password.
    digest: hmac::Tag,
    /// When a wrong password was last looked at.
    wrong: Option<Instant>,
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
            known: Mutex::default(),
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

    /// Whether the network of an address has given this login before. After a wrong password, others of the
    /// network are not looked at for a second: a digest is made so fast that passwords could be guessed, during a
    /// lockout or while too many logins wait to be checked and counted.
    fn remembers(&self, login: &BasicLogin, from: IpAddr) -> bool {
        let (network, now) = (network_of(from), clock::now());
        let mut all = self.known.lock();
        let Some(at) = all.iter().position(|it| it.network == network) else {
            return false;
        };
        let mut known = all.remove(at);
        let is_early = |wrong| now.saturating_duration_since(wrong) < WRONG_INTERVAL;
        let is_looked_at = !known.wrong.is_some_and(is_early);
        let is_right = is_looked_at
            && self.digest(login).is_some_and(|digest| {
                bool::from(known.digest.as_ref().ct_eq(digest.as_ref())) && login.admin == self.name
            });
        if is_looked_at && !is_right {
            known.wrong = Some(now);
        }
        // Guesses do not keep a network from making way.
        let place = if is_right { all.len() } else { at };
        all.insert(place, known);
        is_right
    }

    /// Remembers that the network of an address has given the right password.
    fn remember(&self, login: &BasicLogin, from: IpAddr) {
        let Some(digest) = self.digest(login) else {
            return;
        };
        let network = network_of(from);
        let mut all = self.known.lock();
        all.retain(|it| it.network != network);
        if all.len() >= MAX_KNOWN {
            all.remove(0);
        }
        all.push(KnownNetwork {
            network,
            digest,
            wrong: None,
        });
    }

    /// Derives the key, which takes long, whatever the name.
    fn verify(&self, login: &BasicLogin, from: IpAddr) -> bool {
        let Some(hash) = &self.password else {
            return false;
        };
        let is_right = hash.is_of(&login.password) && login.admin == self.name;
        if is_right {
            self.remember(login, from);
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
    /// Returns the failed logins, which scripts with the password count into as well.
    pub fn lockout(&self) -> &AuthLockout {
        &self.lockout
    }

    /// Makes another link, and returns what it ends with. Fails if the system has no random numbers.
    pub fn new_link(&self) -> io::Result<String> {
        let text = random_text()?;
        *self.link.lock() = Some(Link {
            digest: digest_of(&text),
            made: clock::now(),
        });
        Ok(text)
    }

    /// Lets no link sign in any more.
    pub fn forget_link(&self) {
        *self.link.lock() = None;
    }

    /// Signs in by a link. A lockout is for passwords: a link has 192 random bits, and is all that is left to
    /// those who are locked out.
    pub fn follow_link(&self, text: &str, from: IpAddr) -> Result<(), LoginError> {
        self.follow_link_at(text, from, clock::now())
    }

    fn follow_link_at(&self, text: &str, from: IpAddr, now: Instant) -> Result<(), LoginError> {
        let digest = digest_of(text);
        let mut link = self.link.lock();
        link.take_if(|it| now.saturating_duration_since(it.made) >= LINK_LIFETIME);
        let used = link.take_if(|it| bool::from(it.digest.as_bytes().ct_eq(digest.as_bytes())));
        drop(link);
        used.map(drop).ok_or_else(|| {
            // Of those there may be any number, so they must not fill the log.
            log::debug!("the web page: a link that {from} has followed does not sign in");
            LoginError::Wrong
        })
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
        if admin.remembers(&login, from) {
            return Ok(());
        }
        self.check_lockout(from)?;
        let place = self.queue.enter(Some(from)).ok_or(LoginError::Busy)?;
        let checked = async {
            let turn = place.turn().await;
            // Those before it may have failed too often.
            self.check_lockout(from)?;
            if admin.remembers(&login, from) {
                return Ok(true);
            }
            let admin = admin.clone();
            let verify = move || {
                // Until it is done: the other end may have gone, and come again.
                let _turn = turn;
                admin.verify(&login, from)
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

    fn login(admin: &str, password: &str) -> BasicLogin {
        BasicLogin {
            admin: admin.to_owned(),
            password: password.as_bytes().to_vec(),
        }
    }

    fn admin() -> Arc<Admin> {
        let hash = PasswordHash::new(b"secret").unwrap();
        Arc::new(Admin::new("me", Some(hash)))
    }

    #[test]
    fn a_link_signs_in_once_for_ten_minutes_and_during_a_lockout() {
        let guard = LoginGuard::default();
        assert_eq!(guard.follow_link("", here(9)), Err(LoginError::Wrong));
        let link = guard.new_link().unwrap();
        assert_eq!(guard.follow_link("guess", here(1)), Err(LoginError::Wrong));
        assert_eq!(guard.follow_link(&link, here(1)), Ok(()));
        assert_eq!(guard.follow_link(&link, here(1)), Err(LoginError::Wrong));
        let link = guard.new_link().unwrap();
        for _ in 0..=MAX_FAILURES {
            assert_eq!(guard.follow_link("guess", here(1)), Err(LoginError::Wrong));
            guard.failed(here(1));
        }
        assert!(guard.check_lockout(here(1)).is_err());
        assert_eq!(guard.follow_link(&link, here(1)), Ok(()));
        let link = guard.new_link().unwrap();
        let late = clock::now() + LINK_LIFETIME;
        let followed = guard.follow_link_at(&link, here(1), late);
        assert_eq!(followed, Err(LoginError::Wrong));
        assert_eq!(guard.follow_link(&link, here(1)), Err(LoginError::Wrong));
    }

    #[test]
    fn a_right_password_is_remembered_and_a_wrong_one_is_not() {
        let admin = admin();
        let guard = LoginGuard::default();
        let check = |it| block_on(guard.check(&admin, it, here(1)));
        let remembers = |it| admin.remembers(&it, here(1));
        assert_eq!(check(login("me", "wrong")), Err(LoginError::Wrong));
        assert_eq!(check(login("you", "secret")), Err(LoginError::Wrong));
        assert!(!remembers(login("me", "wrong")));
        assert_eq!(check(login("me", "secret")), Ok(()));
        assert!(remembers(login("me", "secret")));
        assert!(!remembers(login("you", "secret")));
        // Right after a wrong one, it is checked in full.
        assert!(!remembers(login("me", "secret")));
        assert_eq!(check(login("me", "secret")), Ok(()));
        assert!(remembers(login("me", "secret")));
        let none = Arc::new(Admin::new("me", None));
        let refused = block_on(guard.check(&none, login("me", ""), here(1)));
        assert_eq!(refused, Err(LoginError::Wrong));
    }

    #[test]
    fn an_address_that_is_locked_out_learns_nothing_of_a_password_that_others_have_given() {
        let admin = admin();
        let guard = LoginGuard::default();
        let check = |password, from| block_on(guard.check(&admin, login("me", password), from));
        assert_eq!(check("secret", here(1)), Ok(()));
        for _ in 0..=MAX_FAILURES {
            guard.failed(here(1));
            guard.failed(here(2));
        }
        for password in ["wrong", "secret"] {
            let refused = check(password, here(2));
            let is_locked_out = matches!(refused, Err(LoginError::LockedOut(_)));
            assert!(is_locked_out, "{password}: {refused:?}");
        }
        // The network that knows it goes on, but has one guess a second.
        assert_eq!(check("secret", here(1)), Ok(()));
        let long_ago = clock::now().checked_sub(WRONG_INTERVAL).unwrap();
        for wrong in [None, Some(long_ago)] {
            admin.known.lock()[0].wrong = wrong;
            assert!(!admin.remembers(&login("me", "wrong"), here(1)));
            admin.known.lock()[0].wrong = Some(clock::now() + WRONG_INTERVAL);
            assert!(!admin.remembers(&login("me", "secret"), here(1)));
        }
        admin.known.lock()[0].wrong = Some(long_ago);
        assert!(admin.remembers(&login("me", "secret"), here(1)));
    }

    #[test]
    fn a_wrong_guess_is_noted() {
        let admin = admin();
        admin.remember(&login("me", "secret"), here(1));
        assert!(!admin.remembers(&login("me", "wrong"), here(1)));
        assert!(admin.known.lock()[0].wrong.is_some());
    }

    #[test]
    fn many_networks_take_bounded_memory() {
        let admin = admin();
        for n in 0..100 {
            admin.remember(&login("me", "secret"), here(n));
        }
        assert_eq!(admin.known.lock().len(), MAX_KNOWN);
        assert!(!admin.remembers(&login("me", "secret"), here(1)));
        assert!(admin.remembers(&login("me", "secret"), here(99)));
    }
}
