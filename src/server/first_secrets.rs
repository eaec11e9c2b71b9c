//! Where any client may come (allowAnyClient): the secret that an unknown id came with first.
//! It holds until nobody holds the claim any more.

use crate::config::Secret;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
pub struct FirstSecrets(Mutex<HashMap<Box<str>, (Secret, usize)>>);

/// One tunnel's hold on its id.
pub struct FirstSecretLease {
    claims: Arc<FirstSecrets>,
    id: Box<str>,
}

impl FirstSecrets {
    /// `None` if others hold the id with another secret. Secrets are compared in constant
    /// time.
    pub fn claim(self: &Arc<Self>, id: &str, secret: &[u8]) -> Option<FirstSecretLease> {
        let mut claims = self.lock();
        let (first, holders) = claims
            .entry(id.into())
            .or_insert_with(|| (Secret::new(secret), 0));
        if *first != Secret::new(secret) {
            return None;
        }
        *holders += 1;
        Some(FirstSecretLease {
            claims: self.clone(),
            id: id.into(),
        })
    }

    /// All ids that are held, with their secrets.
    pub fn held(&self) -> Vec<(Box<str>, Secret)> {
        let claims = self.lock();
        let held = claims.iter();
        held.map(|(id, (secret, _))| (id.clone(), secret.clone()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, (Secret, usize)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FirstSecretLease {
    fn drop(&mut self) {
        let mut claims = self.claims.lock();
        if let Some((_, holders)) = claims.get_mut(&self.id) {
            *holders -= 1;
            if *holders == 0 {
                claims.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_secret_of_an_id_holds_until_its_last_claim_is_gone() {
        let claims = Arc::new(FirstSecrets::default());
        let first = claims.claim("id1", b"one").unwrap();
        assert!(claims.claim("id1", b"two").is_none());
        let second = claims.claim("id1", b"one").unwrap();
        drop(first);
        assert!(claims.claim("id1", b"two").is_none());
        assert_eq!(claims.held(), [("id1".into(), Secret::new("one"))]);
        drop(second);
        assert!(claims.held().is_empty(), "nothing is left of it");
        assert!(claims.claim("id1", b"two").is_some());
    }
}
