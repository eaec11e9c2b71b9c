//! Who may connect, and what is allowed to whom.

use crate::config::{Limits, Secret, User};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub struct Users {
    known: HashMap<Box<str>, (Secret, Arc<Limits>)>,
    /// With allowAnyClient: what is allowed to those that are not known.
    any: Option<Arc<Limits>>,
    /// With allowAnyClient: the secret that an unknown id came with first, and how many
    /// connections hold it.
    claimed: Mutex<HashMap<Box<str>, (Secret, usize)>>,
}

/// A login that succeeded. An unknown id's secret holds while one of these is there.
pub struct Admission {
    pub limits: Arc<Limits>,
    /// It is the server's own look at itself, not a client.
    pub guest: bool,
    claim: Option<(Arc<Users>, Box<str>)>,
}

impl Users {
    pub fn new(users: &[User], allow_any_client: bool, global: &Limits) -> Self {
        let known = users.iter().map(|user| {
            let limits = Arc::new(user.limits.clone());
            (user.id.as_str().into(), (user.secret.clone(), limits))
        });
        Self {
            known: known.collect(),
            any: allow_any_client.then(|| Arc::new(global.clone())),
            claimed: Mutex::default(),
        }
    }

    /// `None` if the id and the secret do not belong together. Secrets are compared in
    /// constant time.
    pub fn admit(self: &Arc<Self>, id: &str, secret: &[u8]) -> Option<Admission> {
        if let Some((right, limits)) = self.known.get(id) {
            return (*right == Secret::new(secret)).then(|| Admission {
                limits: limits.clone(),
                guest: false,
                claim: None,
            });
        }
        let limits = self.any.clone()?;
        let mut claimed = self.claimed();
        let (first, holders) = claimed
            .entry(id.into())
            .or_insert_with(|| (Secret::new(secret), 0));
        if *first != Secret::new(secret) {
            return None;
        }
        *holders += 1;
        let claim = Some((self.clone(), id.into()));
        Some(Admission {
            limits,
            guest: false,
            claim,
        })
    }

    fn claimed(&self) -> MutexGuard<'_, HashMap<Box<str>, (Secret, usize)>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admission {
    pub fn of_guest(limits: Arc<Limits>) -> Self {
        Self {
            limits,
            guest: true,
            claim: None,
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some((users, id)) = self.claim.take() {
            let mut claimed = users.claimed();
            if let Some((_, holders)) = claimed.get_mut(&id) {
                *holders -= 1;
                if *holders == 0 {
                    claimed.remove(&id);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HostRules;

    fn limits() -> Limits {
        Limits {
            tcp: Vec::new(),
            tcp_total: 0,
            speed: 0,
            connections: 0,
            hosts: HostRules {
                number: 1,
                regex: Vec::new(),
                with_id: false,
            },
        }
    }

    fn users(any: bool) -> Arc<Users> {
        let known = User {
            id: "known".into(),
            secret: Secret::new("right"),
            limits: limits(),
        };
        Arc::new(Users::new(&[known], any, &limits()))
    }

    #[test]
    fn only_the_right_secret_is_admitted() {
        let users = users(false);
        assert!(users.admit("known", b"right").is_some());
        assert!(users.admit("known", b"wrong").is_none());
        assert!(users.admit("unknown", b"right").is_none());
    }

    #[test]
    fn the_first_secret_of_an_unknown_id_holds_until_its_last_connection_is_gone() {
        let users = users(true);
        let first = users.admit("unknown", b"one").unwrap();
        assert!(users.admit("unknown", b"two").is_none());
        let second = users.admit("unknown", b"one").unwrap();
        drop(first);
        assert!(users.admit("unknown", b"two").is_none());
        drop(second);
        assert!(users.admit("unknown", b"two").is_some());
        assert!(
            users.admit("known", b"two").is_none(),
            "known ids are not up for grabs"
        );
    }
}
