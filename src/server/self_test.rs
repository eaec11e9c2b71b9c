//! The one login that is nobody's: the server's own, for a look at itself. Not the look, see
//! `api::check`.

use super::users::Admission;
use crate::config::{HostRules, Limits, Secret};
use crate::net::tls;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who is expected, if anybody. An invitation is good for one tunnel.
pub struct SelfTest {
    /// How every id of a guest begins. One that comes too late must not be taken for a client,
    /// where any client may come.
    start: String,
    expected: Mutex<Option<(Box<str>, Secret)>>,
}

/// An id and a secret that nobody else can know. They are worth nothing once it is dropped.
pub struct SelfTestLogin<'a> {
    guest: &'a SelfTest,
    pub id: String,
    pub secret: Secret,
}

/// Who somebody is.
pub enum LoginOrigin {
    Guest(Admission),
    /// Its invitation has run out, or it was let in already.
    TooLate,
    SomebodyElse,
}

impl SelfTest {
    /// The error says that there are no random numbers.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            start: random_word()?,
            expected: Mutex::default(),
        })
    }

    /// Makes up an id and a secret; those from before are worth nothing any more.
    pub fn invite(&self) -> io::Result<SelfTestLogin<'_>> {
        let id = format!("{}{}", self.start, random_word()?);
        let secret = Secret::new(random_word()? + &random_word()?);
        *self.lock() = Some((id.as_str().into(), secret.clone()));
        Ok(SelfTestLogin {
            guest: self,
            id,
            secret,
        })
    }

    /// Whether a tunnel that comes now may be the guest's.
    pub fn is_expected(&self) -> bool {
        self.lock().is_some()
    }

    /// Lets the guest in, once.
    pub fn origin_of(&self, id: &str, secret: &[u8]) -> LoginOrigin {
        if !id.starts_with(&self.start) {
            return LoginOrigin::SomebodyElse;
        }
        let right = |(expected, word): &mut (Box<str>, Secret)| {
            **expected == *id && *word == Secret::new(secret)
        };
        if self.lock().take_if(right).is_none() {
            return LoginOrigin::TooLate;
        }
        LoginOrigin::Guest(Admission::of_guest(Arc::new(Limits {
            tcp: Vec::new(),
            tcp_total: 0,
            speed: 0,
            connections: 1,
            hosts: HostRules {
                number: 1,
                regex: Vec::new(),
                with_id: false,
            },
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Box<str>, Secret)>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SelfTestLogin<'_> {
    fn drop(&mut self) {
        self.guest.lock().take_if(|(id, _)| **id == *self.id);
    }
}

/// 64 random bits in hexadecimal.
pub fn random_word() -> io::Result<String> {
    let mut bytes = [0; 8];
    tls::fill_random(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_late(guest: &SelfTest, id: &str, secret: &[u8]) -> bool {
        matches!(guest.origin_of(id, secret), LoginOrigin::TooLate)
    }

    #[test]
    fn an_invitation_is_good_for_one_tunnel_with_its_secret() {
        let guest = SelfTest::new().unwrap();
        let invitation = guest.invite().unwrap();
        let (id, secret) = (invitation.id.as_str(), invitation.secret.as_bytes());
        assert!(matches!(
            guest.origin_of("id1", secret),
            LoginOrigin::SomebodyElse
        ));
        assert!(is_late(&guest, id, b""));
        assert!(
            matches!(guest.origin_of(id, secret), LoginOrigin::Guest(admission) if admission.guest)
        );
        assert!(is_late(&guest, id, secret));
    }

    #[test]
    fn an_invitation_ends_with_the_look_or_with_the_next_one() {
        let guest = SelfTest::new().unwrap();
        let first = guest.invite().unwrap();
        let second = guest.invite().unwrap();
        assert!(is_late(&guest, &first.id, first.secret.as_bytes()));
        drop(first);
        let (id, secret) = (second.id.clone(), second.secret.clone());
        drop(second);
        assert!(is_late(&guest, &id, secret.as_bytes()));
    }
}
