//! The login of the server's self test, generated for each test. `api::health_check` runs the test.

use super::users::Admission;
use crate::config::{AddressRules, HostRules, Limits, PortLimits, Secret};
use crate::net::tls;
use crate::sync::{Mutex, MutexGuard};
use std::io;
use std::sync::Arc;

/// The id and secret that the running self test uses, if there is one. They are valid for one
/// tunnel.
pub struct SelfTest {
    /// The prefix of all self test ids. An expired one must not be taken for a client, where any
    /// client may connect.
    id_prefix: String,
    expected: Mutex<Option<(Box<str>, Secret)>>,
}

/// An id and a secret that only this process knows. They are valid until this is dropped.
pub struct SelfTestLogin<'a> {
    self_test: &'a SelfTest,
    /// The id.
    pub id: String,
    /// The secret.
    pub secret: Secret,
}

/// The origin of a login: the server's self test or a client.
pub enum LoginOrigin {
    /// The self test, which is admitted.
    SelfTest(Admission),
    /// A self test whose login has expired or was used before.
    Expired,
    /// A client.
    Client,
}

impl SelfTest {
    /// Creates the state. Fails if the system has no random numbers.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            id_prefix: random_hex()?,
            expected: Mutex::default(),
        })
    }

    /// Generates an id and a secret, and invalidates the previous ones.
    pub fn create_login(&self) -> io::Result<SelfTestLogin<'_>> {
        let id = format!("{}{}", self.id_prefix, random_hex()?);
        let secret = Secret::new(random_hex()? + &random_hex()?);
        *self.lock() = Some((id.as_str().into(), secret.clone()));
        Ok(SelfTestLogin {
            self_test: self,
            id,
            secret,
        })
    }

    /// Whether a self test is running.
    pub fn is_expected(&self) -> bool {
        self.lock().is_some()
    }

    /// Whether a visitor with this host prefix is the self test, or pretends to be it, in vain.
    pub fn has_prefix(&self, prefix: &str) -> bool {
        prefix.starts_with(&self.id_prefix)
    }

    /// Returns the origin of a login. Admits the self test once.
    pub fn origin_of(&self, id: &str, secret: &[u8]) -> LoginOrigin {
        if !id.starts_with(&self.id_prefix) {
            return LoginOrigin::Client;
        }
        let right = |(expected, word): &mut (Box<str>, Secret)| {
            **expected == *id && *word == Secret::new(secret)
        };
        if self.lock().take_if(right).is_none() {
            return LoginOrigin::Expired;
        }
        LoginOrigin::SelfTest(Admission::self_test(Arc::new(Limits {
            tcp: PortLimits::default(),
            udp: PortLimits::default(),
            from: AddressRules::default(),
            speed: 0,
            connections: 1,
            hosts: HostRules {
                number: 1,
                regex: Vec::new(),
                with_id: false,
            },
            domains: Vec::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Box<str>, Secret)>> {
        self.expected.lock()
    }
}

impl Drop for SelfTestLogin<'_> {
    fn drop(&mut self) {
        self.self_test.lock().take_if(|(id, _)| **id == *self.id);
    }
}

/// Returns 64 random bits in hexadecimal.
pub fn random_hex() -> io::Result<String> {
    let mut bytes = [0; 8];
    tls::fill_random(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_late(self_test: &SelfTest, id: &str, secret: &[u8]) -> bool {
        matches!(self_test.origin_of(id, secret), LoginOrigin::Expired)
    }

    #[test]
    fn a_login_admits_one_tunnel_with_its_secret() {
        let self_test = SelfTest::new().unwrap();
        let invitation = self_test.create_login().unwrap();
        let (id, secret) = (invitation.id.as_str(), invitation.secret.as_bytes());
        assert!(matches!(
            self_test.origin_of("id1", secret),
            LoginOrigin::Client
        ));
        assert!(is_late(&self_test, id, b""));
        assert!(
            matches!(self_test.origin_of(id, secret), LoginOrigin::SelfTest(admission) if admission.is_self_test)
        );
        assert!(is_late(&self_test, id, secret));
    }

    #[test]
    fn a_login_ends_with_its_test_or_the_next_one() {
        let self_test = SelfTest::new().unwrap();
        let first = self_test.create_login().unwrap();
        let second = self_test.create_login().unwrap();
        assert!(is_late(&self_test, &first.id, first.secret.as_bytes()));
        drop(first);
        let (id, secret) = (second.id.clone(), second.secret.clone());
        drop(second);
        assert!(is_late(&self_test, &id, secret.as_bytes()));
    }
}
