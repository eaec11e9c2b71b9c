//! The passwords of a service's visitors, and the check of the one that a request has (Basic
//! authentication, RFC 7617). Not the requests: see `request_edits` and `files`. Builds without passwords
//! have `no_passwords`.

pub use super::password_verdict::PasswordVerdict;
use super::visitor_rules::VisitorRules;
use crate::config::{Local, ServiceConfig, UserPassword};
use crate::encoding::BASE64;
use crate::net::{timeout, PASSWORDS};
pub(super) use crate::passwords::PasswordQueue;
use crate::passwords::QueuePlace;
use crate::sync::Mutex;
use crate::wire::origin::VisitorOrigin;
use base64::Engine;
use ring::hmac;
use ring::rand::SystemRandom;
use std::future::{poll_fn, Future};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use subtle::ConstantTimeEq;

/// Time after which a request whose password is not checked yet is refused. Services close connections
/// on which nothing comes for a minute or less. A right password that is checked later is remembered, so
/// that the next request succeeds.
const CHECK_TIMEOUT: Duration = Duration::from_secs(20);

/// The passwords of one service.
pub struct Passwords {
    users: Vec<KnownUser>,
    /// The key of the digests of credentials; `None` if the system has no random numbers.
    key: Option<hmac::Key>,
}

struct KnownUser {
    password: UserPassword,
    /// The digest of the name and the right password, once they have been given. Deriving a key from
    /// them again would take a router seconds for each connection.
    remembered: Mutex<Option<hmac::Tag>>,
}

/// The check of the requests of one connection.
pub struct PasswordCheck {
    rules: Arc<VisitorRules>,
    service: Arc<ServiceConfig>,
    /// The passwords that the service had at the beginning.
    passwords: Arc<Passwords>,
    /// `None` if it is unknown.
    visitor: Option<IpAddr>,
    /// Whether others on the visitor's way can read what it sends, as far as anyone knows.
    is_readable: bool,
    state: Mutex<CheckState>,
}

/// The check of one request.
enum CheckState {
    None,
    Running(hmac::Tag, CheckTask),
    Done(hmac::Tag, PasswordVerdict),
}

type CheckTask = Pin<Box<dyn Future<Output = PasswordVerdict> + Send>>;

/// A name and a password as a request has them.
struct Credentials {
    text: Vec<u8>,
    /// The place of the colon.
    colon: usize,
}

impl Passwords {
    /// Returns the passwords of a service; `None` if its visitors need none.
    pub fn of(service: &ServiceConfig) -> Option<Arc<Self>> {
        if service.passwords.is_empty() {
            return None;
        }
        let users = service.passwords.iter().map(|password| KnownUser {
            password: password.clone(),
            remembered: Mutex::new(None),
        });
        Some(Arc::new(Self {
            users: users.collect(),
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok(),
        }))
    }

    /// Whether these are the passwords of a service.
    pub fn are_of(&self, service: &ServiceConfig) -> bool {
        self.users
            .iter()
            .map(|user| &user.password)
            .eq(&service.passwords)
    }

    /// Whether everyone who has one of `others` has it still.
    pub fn contain(&self, others: &Self) -> bool {
        let has = |other: &KnownUser| {
            self.users
                .iter()
                .any(|user| user.password == other.password)
        };
        others.users.iter().all(has)
    }

    fn user(&self, credentials: &Credentials) -> Option<&KnownUser> {
        let name = credentials.name();
        self.users
            .iter()
            .find(|user| user.password.user.as_str().as_bytes() == name)
    }

    fn remembers(&self, digest: hmac::Tag, credentials: &Credentials) -> bool {
        let user = self.user(credentials);
        let remembered = user.and_then(|user| *user.remembered.lock());
        remembered.is_some_and(|known| is_same(&known, &digest))
    }

    /// Derives the key, which takes long.
    fn verify(&self, digest: hmac::Tag, credentials: &Credentials) -> bool {
        let hashes = self.users.iter().map(|user| &user.password.hash);
        let Some(longest) = hashes.max_by_key(|hash| hash.rounds()) else {
            return false;
        };
        let user = self.user(credentials);
        let hash = user.map_or(longest, |user| &user.password.hash);
        let is_right = hash.is_of(credentials.password());
        match user.filter(|_| is_right) {
            Some(user) => {
                *user.remembered.lock() = Some(digest);
                true
            }
            None => {
                // As long for each name, also one that does not exist.
                hash.take_as_long_as(longest);
                false
            }
        }
    }
}

/// Compares in constant time.
fn is_same(one: &hmac::Tag, other: &hmac::Tag) -> bool {
    one.as_ref().ct_eq(other.as_ref()).into()
}

impl Credentials {
    /// Reads the value of an Authorization field; `None` if it is not one of Basic authentication.
    fn parse(field: &[u8]) -> Option<Self> {
        let space = field.iter().position(|b| *b == b' ')?;
        let (scheme, rest) = field.split_at(space);
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return None;
        }
        let text = BASE64.decode(rest.trim_ascii()).ok()?;
        let colon = text.iter().position(|b| *b == b':')?;
        Some(Self { text, colon })
    }

    fn of(user: &[u8], password: &[u8]) -> Self {
        Self {
            text: [user, b":", password].concat(),
            colon: user.len(),
        }
    }

    fn name(&self) -> &[u8] {
        self.text.get(..self.colon).unwrap_or_default()
    }

    fn password(&self) -> &[u8] {
        self.text
            .get(self.colon.saturating_add(1)..)
            .unwrap_or_default()
    }
}

impl PasswordCheck {
    /// Begins to check the requests of a visitor, if the service has passwords.
    pub fn new(
        rules: &Arc<VisitorRules>,
        service: &Arc<ServiceConfig>,
        origin: Option<&VisitorOrigin>,
    ) -> Option<Self> {
        let visitor = origin.and_then(VisitorOrigin::visitor);
        Self::of_visitor(rules, service, visitor, origin.is_some_and(is_readable))
    }

    /// Begins to check the requests of a peer at this address, if the service has passwords.
    #[cfg(feature = "p2p")]
    pub fn of_peer(
        rules: &Arc<VisitorRules>,
        service: &Arc<ServiceConfig>,
        peer: IpAddr,
    ) -> Option<Self> {
        Self::of_visitor(rules, service, Some(peer), false)
    }

    fn of_visitor(
        rules: &Arc<VisitorRules>,
        service: &Arc<ServiceConfig>,
        visitor: Option<IpAddr>,
        is_readable: bool,
    ) -> Option<Self> {
        let passwords = rules.passwords(service, None)?;
        Some(Self {
            rules: rules.clone(),
            service: service.clone(),
            passwords,
            visitor,
            is_readable,
            state: Mutex::new(CheckState::None),
        })
    }

    /// Returns the verdict about a request with these Authorization fields; `None` if it takes longer:
    /// see [`PasswordCheck::poll_done`].
    pub fn verdict<'f>(
        &self,
        mut fields: impl Iterator<Item = &'f [u8]>,
    ) -> Option<PasswordVerdict> {
        let (field, more) = (fields.next(), fields.next());
        let field = field.filter(|_| more.is_none());
        self.verdict_of(&|| field.and_then(Credentials::parse))
    }

    fn verdict_of(
        &self,
        credentials: &(dyn Fn() -> Option<Credentials> + Sync),
    ) -> Option<PasswordVerdict> {
        let passwords = self.rules.passwords(&self.service, Some(&self.passwords));
        let Some(passwords) = passwords else {
            return Some(PasswordVerdict::NotNeeded);
        };
        let credentials = credentials();
        let (Some(credentials), Some(key)) = (credentials, &passwords.key) else {
            return Some(PasswordVerdict::Wrong);
        };
        if self.is_readable {
            self.warn();
        }
        let digest = hmac::sign(key, &credentials.text);
        if passwords.remembers(digest, &credentials) {
            return Some(PasswordVerdict::Right);
        }
        let mut state = self.state.lock();
        match &*state {
            CheckState::Running(of, _) if is_same(of, &digest) => None,
            CheckState::Done(of, verdict) if is_same(of, &digest) => {
                let verdict = *verdict;
                *state = CheckState::None;
                Some(verdict)
            }
            _ => {
                let queue = self.rules.password_queue();
                let Some(place) = queue.enter(self.visitor) else {
                    return Some(PasswordVerdict::Busy);
                };
                let (rules, service) = (self.rules.clone(), self.service.clone());
                let visitor = self.visitor;
                let count_failure = move || {
                    rules.count(&service, visitor);
                };
                let checking = check(passwords, digest, credentials, place, count_failure);
                let task = async {
                    let verdict = timeout(CHECK_TIMEOUT, checking).await;
                    verdict.unwrap_or(PasswordVerdict::Busy)
                };
                let task = Box::pin(task);
                *state = CheckState::Running(digest, task);
                None
            }
        }
    }

    /// Whether a request needs a password.
    pub fn is_needed(&self) -> bool {
        let passwords = self.rules.passwords(&self.service, Some(&self.passwords));
        passwords.is_some()
    }

    /// Waits until there is a verdict that was put off.
    pub fn poll_done(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        let CheckState::Running(digest, task) = &mut *state else {
            return Poll::Ready(());
        };
        let digest = *digest;
        task.as_mut().poll(cx).map(|verdict| {
            *state = CheckState::Done(digest, verdict);
        })
    }

    /// Returns the verdict about a request with these Authorization fields.
    pub async fn wait(&self, fields: &[&[u8]]) -> PasswordVerdict {
        let field = match fields {
            [field] => Some(*field),
            _ => None,
        };
        self.wait_for(&|| field.and_then(Credentials::parse)).await
    }

    /// Returns the verdict about a name and a password.
    #[cfg_attr(not(feature = "proxy"), allow(dead_code))]
    pub async fn wait_pair(&self, user: &[u8], password: &[u8]) -> PasswordVerdict {
        self.wait_for(&|| Some(Credentials::of(user, password)))
            .await
    }

    async fn wait_for(
        &self,
        credentials: &(dyn Fn() -> Option<Credentials> + Sync),
    ) -> PasswordVerdict {
        loop {
            if let Some(verdict) = self.verdict_of(credentials) {
                return verdict;
            }
            poll_fn(|cx| self.poll_done(cx)).await;
        }
    }

    fn warn(&self) {
        static SAID: AtomicBool = AtomicBool::new(false);
        if !SAID.swap(true, Ordering::Relaxed) {
            log::warn!(
                "a visitor of {} has sent its password readable, so that others on its way can read it: {}",
                self.service.local,
                match self.service.local {
                    Local::Proxy(_) => "have visitors come by gt (hostPrefix and tcpForwardAddr), or give \
                                        them a password that is for nothing else",
                    _ => "give visitors an https:// address (tlsAddr of the server, or a proxy before it)",
                }
            );
        }
    }
}

/// Whether a visitor has come by the internet over plain HTTP, as far as anyone knows.
fn is_readable(origin: &VisitorOrigin) -> bool {
    let is_local = |addr: IpAddr| addr.to_canonical().is_loopback();
    !origin.is_decrypted && !origin.is_told && !origin.visitor().is_some_and(is_local)
}

/// Checks credentials, after those that came before them from the same visitor.
async fn check(
    passwords: Arc<Passwords>,
    digest: hmac::Tag,
    credentials: Credentials,
    place: QueuePlace,
    count_failure: impl FnOnce() + Send + 'static,
) -> PasswordVerdict {
    let turn = place.turn().await;
    // A browser opens several connections at once, all with the same password.
    if passwords.remembers(digest, &credentials) {
        return PasswordVerdict::Right;
    }
    let verify = move || {
        // Until it is done: the visitor may have gone, and come again.
        let _turn = turn;
        let is_right = passwords.verify(digest, &credentials);
        if !is_right {
            count_failure();
        }
        is_right
    };
    match PASSWORDS.run(verify).await {
        true => PasswordVerdict::Right,
        false => PasswordVerdict::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::Scalar;
    use crate::wire::origin::Transport;
    use futures_lite::future::block_on;

    fn password(user: &str, key: char) -> UserPassword {
        let hash = format!("c29tZXNhbHRzb21l${}A", key.to_string().repeat(42));
        UserPassword::read(&format!("{user}:$pbkdf2-sha256$i=310000${hash}")).unwrap()
    }

    fn service(passwords: &[UserPassword]) -> ServiceConfig {
        let mut service = ServiceConfig::of_test(80, "web");
        service.passwords = passwords.to_vec();
        service
    }

    #[test]
    fn passwords_contain_others_that_are_the_same() {
        let (alice, changed, bob) = (
            password("alice", 'a'),
            password("alice", 'b'),
            password("bob", 'a'),
        );
        let of = |passwords: &[UserPassword]| Passwords::of(&service(passwords)).unwrap();
        let both = of(&[alice.clone(), bob.clone()]);
        let of_bob = of(std::slice::from_ref(&bob));
        assert!(both.contain(&of_bob) && both.contain(&both));
        assert!(!both.contain(&of(&[changed])));
        assert!(!of_bob.contain(&both));
        assert!(both.are_of(&service(&[alice.clone(), bob])));
        assert!(!both.are_of(&service(&[alice])));
        assert!(Passwords::of(&service(&[])).is_none());
    }

    #[test]
    fn credentials_are_a_name_and_a_password_in_base64() {
        for (field, expected) in [
            ("Basic YWxpY2U6c2VjcmV0", Some(("alice", "secret"))),
            ("bASIC  YWxpY2U6c2VjcmV0 ", Some(("alice", "secret"))),
            ("Basic YTpiOmM=", Some(("a", "b:c"))),
            ("Basic YTpiOmM", Some(("a", "b:c"))),
            ("Basic Og==", Some(("", ""))),
            ("Basic YWxpY2U", None),
            ("Basic YWxpY2U6c2VjcmV", None),
            ("Basic YWxpY2U6_", None),
            ("Basic", None),
            ("", None),
            ("Digest YWxpY2U6c2VjcmV0", None),
        ] {
            let credentials = Credentials::parse(field.as_bytes());
            let read = credentials.as_ref().map(|it| (it.name(), it.password()));
            let expected = expected.map(|(name, key)| (name.as_bytes(), key.as_bytes()));
            assert_eq!(read, expected, "{field}");
        }
    }

    #[test]
    fn a_password_that_crosses_the_internet_readable_is_noticed() {
        let readable = |source: &str, is_decrypted, is_told| {
            is_readable(&VisitorOrigin {
                transport: Transport::Tcp,
                source: source.parse().unwrap(),
                destination: "198.51.100.1:80".parse().unwrap(),
                is_decrypted,
                is_told,
                server_name: None,
                subject: None,
            })
        };
        assert!(readable("192.0.2.7:5", false, false));
        assert!(!readable("192.0.2.7:5", true, false));
        // A proxy has told of the visitor: what lies before it is not known.
        assert!(!readable("192.0.2.7:5", false, true));
        assert!(!readable("127.0.0.1:5", false, false));
        assert!(!readable("[::ffff:127.0.0.1]:5", false, false));
    }

    #[test]
    fn what_is_right_is_remembered_and_what_is_wrong_is_not() {
        let hash = crate::passwords::PasswordHash::new(b"secret").unwrap();
        let password = UserPassword::read(&format!("alice:{hash}")).unwrap();
        let service = Arc::new(service(&[password]));
        let rules = Arc::new(VisitorRules::new([&*service].into_iter()));
        let check = PasswordCheck::new(&rules, &service, None).unwrap();
        let (right, wrong) = (
            &b"Basic YWxpY2U6c2VjcmV0"[..],
            &b"Basic YWxpY2U6c2VjcmVU"[..],
        );
        let at_once = |field| check.verdict([field].into_iter());
        assert_eq!(at_once(right), None);
        assert_eq!(block_on(check.wait(&[right])), PasswordVerdict::Right);
        assert_eq!(at_once(right), Some(PasswordVerdict::Right));
        assert_eq!(block_on(check.wait(&[wrong])), PasswordVerdict::Wrong);
        assert_eq!(at_once(wrong), None);
        assert_eq!(at_once(right), Some(PasswordVerdict::Right));
        // Another request in between asks for a check of its own.
        assert_eq!(at_once(b"Basic Ym9iOng="), None);
        let other = PasswordCheck::new(&rules, &service, None).unwrap();
        assert_eq!(
            other.verdict([right].into_iter()),
            Some(PasswordVerdict::Right)
        );
        let two = [right, right].into_iter();
        assert_eq!(other.verdict(two), Some(PasswordVerdict::Wrong));
        assert_eq!(other.verdict([].into_iter()), Some(PasswordVerdict::Wrong));
    }
}
