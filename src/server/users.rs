//! The users of a server: which clients may connect, and with which limits.

use super::auth_api::AuthApi;
use super::first_secrets::{FirstSecretLease, FirstSecrets};
use crate::collections::HashMap;
use crate::config::label::ascii;
use crate::config::{self, AnyClient, Limits, Secret, User};
use crate::keys::{AuthorizedKey, Challenge, PublicKey};
use crate::net::Conn;
use crate::wire::hello::Proof;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// The configured users, and how unknown ids are treated.
pub struct Users {
    known: HashMap<Box<str>, KnownUser>,
    /// Whether a user has a key.
    have_keys: bool,
    /// The host prefixes of known ids whose spelling differs from the id, for example in case.
    prefixes: HashMap<Box<str>, Arc<Limits>>,
    unknown_ids: UnknownIds,
    /// The limits of clients with unknown ids.
    limits: Arc<Limits>,
}

/// A configured user.
struct KnownUser {
    secret: Option<Secret>,
    keys: Box<[AuthorizedKey]>,
    limits: Arc<Limits>,
}

impl KnownUser {
    /// Whether this proves that a client is this user. Compares secrets in constant time.
    fn accepts(&self, authenticator: &Authenticator) -> bool {
        match (authenticator, &self.secret) {
            (Authenticator::Secret(secret), Some(right)) => *right == Secret::new(&**secret),
            (Authenticator::Secret(_), None) => false,
            (Authenticator::Key(key), _) => self.keys.iter().any(|known| known.key == *key),
        }
    }
}

/// The authenticator of a client: a secret, or a key with which it has signed the challenge. The signature has been
/// checked, so that the key is the client's.
#[derive(Clone, PartialEq, Eq)]
pub enum Authenticator {
    /// A secret, which may be wrong.
    Secret(Box<[u8]>),
    /// A key, which may be that of another client.
    Key(PublicKey),
}

impl Authenticator {
    /// Takes the proof of a hello on a connection, with the challenge that the server has sent there.
    /// `None` if the signature is wrong or missing.
    pub fn verify(
        id: &str,
        proof: &Proof,
        challenge: Option<&Challenge>,
        conn: &Conn,
    ) -> Option<Self> {
        match proof {
            Proof::Secret(secret) => Some(Self::Secret(secret.clone())),
            Proof::Key(signed) => {
                let (signature, binding) = (signed.signature.as_ref()?, conn.binding()?);
                let key = signed.key;
                let is_signed = challenge?.is_signed(&key, signature, &binding, id);
                is_signed.then_some(Self::Key(key))
            }
        }
    }

    /// Whether the proof of a later message in the same tunnel has the same secret or key. Compares
    /// secrets of one length in constant time.
    pub fn is_that_of(&self, proof: &Proof) -> bool {
        match (self, proof) {
            (Self::Secret(known), Proof::Secret(secret)) => known.ct_eq(secret).into(),
            (Self::Key(known), Proof::Key(signed)) => *known == signed.key,
            _ => false,
        }
    }

    /// Whether both authenticators are the same. Compares secrets of one length in constant time.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Secret(one), Self::Secret(other)) => one.ct_eq(other).into(),
            (Self::Key(one), Self::Key(other)) => one == other,
            _ => false,
        }
    }

    /// Returns the secret; `None` if there is a key.
    pub fn secret(&self) -> Option<Secret> {
        match self {
            Self::Secret(secret) => Some(Secret::new(&**secret)),
            Self::Key(_) => None,
        }
    }
}

/// The treatment of unknown ids.
pub enum UnknownIds {
    /// Reject them.
    Refused,
    /// Admit each with the secret of its first login (allowAnyClient).
    Admitted(Arc<FirstSecrets>),
    /// Ask the authAPI, even if allowAnyClient is set.
    AuthApi(Arc<AuthApi>),
}

/// The result of checking an id and secret without the authAPI.
pub enum LoginVerdict {
    /// The client may connect.
    Admitted(Admission),
    /// The secret does not belong to the id.
    Refused,
    /// The authAPI decides; these limits apply if it grants access.
    Ask(Arc<AuthApi>, Arc<Limits>),
}

/// The way in which a client has proven that its id belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginProof {
    /// As the server's self test. Snapshots leave it out, and nothing is reserved for it.
    SelfTest,
    /// Not at all: the id was free, and any client is admitted (allowAnyClient).
    Stranger,
    /// With a secret that the configuration or the authAPI knows.
    Known,
}

/// The id and the secret or key that a client has logged in with.
pub struct Credentials {
    /// The client's id.
    pub id: Box<str>,
    /// The client's secret or key.
    pub authenticator: Authenticator,
    /// The key of the client's registration; `None` for its id.
    pub key: Option<Box<str>>,
}

impl Credentials {
    /// Returns the key of the client's registration.
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap_or(&self.id)
    }
}

/// A successful login.
pub struct Admission {
    /// The limits of the client.
    pub limits: Arc<Limits>,
    /// Whether this is the login of the server's self test.
    pub is_self_test: bool,
    /// The lease on an unknown id's first secret.
    lease: Option<FirstSecretLease>,
}

impl Admission {
    /// Creates an admission without a lease on the id.
    pub fn new(limits: Arc<Limits>) -> Self {
        Self {
            limits,
            is_self_test: false,
            lease: None,
        }
    }

    /// Creates the admission of the server's self test.
    pub fn self_test(limits: Arc<Limits>) -> Self {
        Self {
            limits,
            is_self_test: true,
            lease: None,
        }
    }

    /// Whether the client's tunnels may come from this address.
    pub fn admits(&self, peer: IpAddr) -> bool {
        self.limits.from.admit(peer)
    }

    /// Ends the lease of a tunnel that no longer counts, so that its id may go to another client.
    pub fn end_lease(&mut self) {
        self.lease = None;
    }

    /// Returns how the client has proven its authenticator. A first secret proves nothing: any client
    /// can use a new id.
    pub fn proof(&self) -> LoginProof {
        match (self.is_self_test, &self.lease) {
            (true, _) => LoginProof::SelfTest,
            (false, Some(_)) => LoginProof::Stranger,
            (false, None) => LoginProof::Known,
        }
    }
}

impl Users {
    /// Creates the table of users. `global` are the limits of clients with unknown ids.
    pub fn new(users: &[User], unknown_ids: UnknownIds, global: &Limits) -> Self {
        let mut prefixes = HashMap::default();
        let known = users.iter().map(|user| {
            let limits = Arc::new(user.limits.clone());
            let prefix = ascii(&user.id);
            if prefix != user.id {
                prefixes.insert(prefix.into(), limits.clone());
            }
            let known = KnownUser {
                secret: user.secret.clone(),
                keys: user.keys.clone().into(),
                limits,
            };
            (user.id.as_str().into(), known)
        });
        Self {
            known: known.collect(),
            have_keys: users.iter().any(|user| !user.keys.is_empty()),
            prefixes,
            unknown_ids,
            limits: Arc::new(global.clone()),
        }
    }

    /// Whether a host prefix belongs to a configured user: it is the user's id, or begins with the
    /// id of a user whose prefixes include it.
    pub fn expects(&self, prefix: &str) -> bool {
        self.limits_of(prefix).is_some() || self.has_namespace(prefix)
    }

    /// Whether the prefix is the id of this configured user.
    pub fn owns(&self, prefix: &str, id: &str) -> bool {
        self.known.contains_key(id) && ascii(id) == prefix
    }

    /// Whether the prefix belongs to a configured user other than `id`.
    pub fn reserves(&self, prefix: &str, id: &str) -> bool {
        if self.limits_of(prefix).is_some() {
            return !self.owns(prefix, id);
        }
        let own = self.known.get(id).filter(|user| user.limits.hosts.with_id);
        let rest = own.and_then(|_| prefix.strip_prefix(ascii(id).as_ref()));
        self.has_namespace(prefix) && !rest.is_some_and(|rest| rest.starts_with('-'))
    }

    /// Returns the limits of the configured user whose id is this prefix.
    fn limits_of(&self, prefix: &str) -> Option<&Arc<Limits>> {
        let known = self.known.get(prefix).map(|user| &user.limits);
        known.or_else(|| self.prefixes.get(prefix))
    }

    /// Whether the prefix begins with the id of a user whose prefixes include the id.
    fn has_namespace(&self, prefix: &str) -> bool {
        let ids = prefix
            .match_indices('-')
            .filter_map(|(at, _)| prefix.get(..at));
        let mut limits = ids.filter_map(|id| self.limits_of(id));
        limits.any(|limits| limits.hosts.with_id)
    }

    /// Whether an id is that of a configured user.
    #[cfg(feature = "web")]
    pub fn knows(&self, id: &str) -> bool {
        self.known.contains_key(id)
    }

    /// Returns the limits of the client with this id, unless an authAPI has others for it.
    #[cfg(feature = "web")]
    pub fn limits_for(&self, id: &str) -> &Limits {
        self.known.get(id).map_or(&self.limits, |user| &user.limits)
    }

    /// Returns the authAPI that decides about unknown ids, if any.
    pub fn auth_api(&self) -> Option<&Arc<AuthApi>> {
        match &self.unknown_ids {
            UnknownIds::AuthApi(api) => Some(api),
            UnknownIds::Refused | UnknownIds::Admitted(_) => None,
        }
    }

    /// Fails if a reload would leave the server without any user, as an empty or half-written users
    /// file does. `allowAnyClient` or an authAPI shows that this is intended.
    pub fn check_reload(&self, config: &config::ServerConfig) -> io::Result<()> {
        if admits_clients(config) {
            return Ok(());
        }
        let unchanged = self.known.is_empty()
            && match self.unknown_ids {
                UnknownIds::Refused => config.any_client == AnyClient::Refused,
                UnknownIds::Admitted(_) => config.any_client == AnyClient::AllowedByDefault,
                UnknownIds::AuthApi(_) => false,
            };
        if unchanged {
            return Ok(());
        }
        Err(no_users_error())
    }

    /// Whether a client may log in with a key.
    pub fn take_keys(&self) -> bool {
        self.have_keys || self.auth_api().is_some()
    }

    /// Returns the comment of a user's key, for the log; `None` if the user has no such key.
    pub fn comment(&self, id: &str, key: &PublicKey) -> Option<&str> {
        let keys = &self.known.get(id)?.keys;
        let known = keys.iter().find(|known| known.key == *key);
        known.map(|known| &*known.comment)
    }

    /// Checks the authenticator of a client for an id. For a configured id only the configured secret and keys
    /// are accepted. Compares secrets in constant time.
    pub fn check_login(&self, id: &str, authenticator: &Authenticator) -> LoginVerdict {
        if let Some(user) = self.known.get(id) {
            return match user.accepts(authenticator) {
                true => LoginVerdict::Admitted(Admission::new(user.limits.clone())),
                false => LoginVerdict::Refused,
            };
        }
        match (&self.unknown_ids, authenticator) {
            (UnknownIds::Refused, _) => LoginVerdict::Refused,
            (UnknownIds::AuthApi(api), _) => LoginVerdict::Ask(api.clone(), self.limits.clone()),
            (UnknownIds::Admitted(_), Authenticator::Key(_)) => LoginVerdict::Refused,
            (UnknownIds::Admitted(claims), Authenticator::Secret(secret)) => {
                match claims.lease(id, secret) {
                    None => LoginVerdict::Refused,
                    lease => LoginVerdict::Admitted(Admission {
                        limits: self.limits.clone(),
                        is_self_test: false,
                        lease,
                    }),
                }
            }
        }
    }
}

/// Fails if a restart with this configuration, which has no users, would lock out all clients of the
/// parent process.
pub fn check_restart(config: &config::ServerConfig) -> io::Result<()> {
    match config.any_client {
        AnyClient::Refused if !admits_clients(config) => Err(no_users_error()),
        _ => Ok(()),
    }
}

fn admits_clients(config: &config::ServerConfig) -> bool {
    let any = config.any_client == AnyClient::Allowed;
    any || !config.users.is_empty() || config.auth_api.is_some()
}

fn no_users_error() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the new configuration has no users, which would let in everybody or nobody: is the users \
         file empty or half-written? If this is intended, set allowAnyClient, or stop and start gt",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(unknown_ids: UnknownIds) -> Users {
        let known = User {
            id: "known".into(),
            secret: Some(Secret::new("right")),
            keys: Vec::new(),
            client_ca: None,
            limits: Limits::of_one_prefix(),
        };
        Users::new(&[known], unknown_ids, &Limits::of_one_prefix())
    }

    fn admit(users: &Users, id: &str, secret: &str) -> Option<Admission> {
        match users.check_login(id, &Authenticator::Secret(secret.as_bytes().into())) {
            LoginVerdict::Admitted(admission) => Some(admission),
            LoginVerdict::Refused => None,
            LoginVerdict::Ask(..) => panic!("the authAPI must not be asked about {id}"),
        }
    }

    #[test]
    fn only_the_right_secret_is_admitted() {
        let users = users(UnknownIds::Refused);
        assert!(admit(&users, "known", "right").is_some());
        assert!(admit(&users, "known", "wrong").is_none());
        assert!(admit(&users, "unknown", "right").is_none());
    }

    #[test]
    fn keys_belong_to_their_user_and_do_not_prove_an_unknown_id() {
        let [one, other] = [PublicKey([1; 32]), PublicKey([2; 32])];
        let user = |id: &str, secret: Option<&str>, key| User {
            id: id.into(),
            secret: secret.map(Secret::new),
            keys: vec![AuthorizedKey {
                key,
                comment: "home".into(),
            }],
            client_ca: None,
            limits: Limits::of_one_prefix(),
        };
        let list = [user("a", None, one), user("b", Some("s"), other)];
        let unknown = UnknownIds::Admitted(Arc::default());
        let users = Users::new(&list, unknown, &Limits::of_one_prefix());
        let admits = |id, authenticator| {
            let verdict = users.check_login(id, &authenticator);
            matches!(verdict, LoginVerdict::Admitted(_))
        };
        let secret = |bytes: &[u8]| Authenticator::Secret(bytes.into());
        assert!(admits("a", Authenticator::Key(one)) && admits("b", Authenticator::Key(other)));
        assert!(admits("b", secret(b"s")));
        for (id, authenticator) in [
            ("a", Authenticator::Key(other)),
            ("b", Authenticator::Key(one)),
            ("c", Authenticator::Key(one)),
            ("a", secret(&one.0)),
            ("a", secret(b"")),
            ("b", secret(&other.0)),
        ] {
            assert!(!admits(id, authenticator), "{id}");
        }
        assert_eq!(users.comment("a", &one), Some("home"));
        assert_eq!(users.comment("a", &other), None);
        assert!(users.take_keys());
    }

    #[test]
    fn an_unknown_id_belongs_to_its_first_client_while_connected() {
        let users = users(UnknownIds::Admitted(Arc::default()));
        let first = admit(&users, "unknown", "one").unwrap();
        assert_eq!(first.proof(), LoginProof::Stranger);
        assert!(admit(&users, "unknown", "two").is_none());
        drop(first);
        assert!(admit(&users, "unknown", "two").is_some());
        assert!(admit(&users, "known", "two").is_none());
    }

    #[test]
    fn a_known_id_is_the_prefix_of_its_user_only() {
        let user = |id: &str, with_id| {
            let mut limits = Limits::of_one_prefix();
            limits.hosts.with_id = with_id;
            User {
                id: id.into(),
                secret: Some(Secret::new("s")),
                keys: Vec::new(),
                client_ca: None,
                limits,
            }
        };
        let list = [
            user("plain", false),
            user("Müller", false),
            user("with", true),
            user("with-more", true),
        ];
        let users = Users::new(&list, UnknownIds::Refused, &Limits::of_one_prefix());
        for (prefix, owner) in [
            ("plain", "plain"),
            ("xn--mller-kva", "Müller"),
            ("with", "with"),
            ("with-shop", "with"),
            ("with-more", "with-more"),
        ] {
            assert!(users.expects(prefix), "{prefix}");
            for id in [
                "plain",
                "Plain",
                "Müller",
                "müller",
                "with",
                "with-more",
                "other",
            ] {
                assert_eq!(users.reserves(prefix, id), id != owner, "{prefix} for {id}");
                assert_eq!(users.owns(prefix, id), id == owner && prefix != "with-shop");
            }
        }
        for free in ["shop", "plain-shop", "xn--mller-kva-shop", "wit", ""] {
            assert!(!users.expects(free), "{free}");
            assert!(!users.reserves(free, "other"), "{free}");
        }
        // With '-' in ids, both users may have such a name.
        for id in ["with", "with-more"] {
            assert!(!users.reserves("with-more-shop", id));
        }
    }

    #[test]
    fn the_auth_api_is_asked_about_unknown_ids_only() {
        let url = crate::config::Url {
            tls: false,
            host: "localhost".into(),
            port: 80,
            target: "/".into(),
        };
        let api = Arc::new(AuthApi::new(&url).unwrap());
        let users = users(UnknownIds::AuthApi(api));
        assert!(admit(&users, "known", "right").is_some());
        assert!(admit(&users, "known", "wrong").is_none());
        assert!(matches!(
            users.check_login("unknown", &Authenticator::Secret((*b"s").into())),
            LoginVerdict::Ask(..)
        ));
    }
}
