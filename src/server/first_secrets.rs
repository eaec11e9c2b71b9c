//! First secrets of unknown ids, on a server that admits any client (allowAnyClient). A first secret is
//! valid while a tunnel of its id holds a lease.

use crate::collections::HashMap;
use crate::config::Secret;
use crate::sync::{Mutex, MutexGuard};
use std::sync::Arc;

/// The first secrets with the number of their leases.
#[derive(Default)]
pub struct FirstSecrets(Mutex<HashMap<Box<str>, (Secret, usize)>>);

/// A tunnel's lease on the first secret of its id.
pub struct FirstSecretLease {
    secrets: Arc<FirstSecrets>,
    id: Box<str>,
}

impl FirstSecrets {
    /// Returns a lease for the id, or `None` if it is leased with another secret. Compares secrets
    /// in constant time.
    pub fn lease(self: &Arc<Self>, id: &str, secret: &[u8]) -> Option<FirstSecretLease> {
        let mut secrets = self.lock();
        let (first, holders) = secrets
            .entry(id.into())
            .or_insert_with(|| (Secret::new(secret), 0));
        if *first != Secret::new(secret) {
            return None;
        }
        *holders += 1;
        Some(FirstSecretLease {
            secrets: self.clone(),
            id: id.into(),
        })
    }

    /// Returns all leased ids with their secrets.
    pub fn held(&self) -> Vec<(Box<str>, Secret)> {
        let secrets = self.lock();
        let held = secrets.iter();
        held.map(|(id, (secret, _))| (id.clone(), secret.clone()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, (Secret, usize)>> {
        self.0.lock()
    }
}

impl Drop for FirstSecretLease {
    fn drop(&mut self) {
        let mut secrets = self.secrets.lock();
        if let Some((_, holders)) = secrets.get_mut(&self.id) {
            *holders -= 1;
            if *holders == 0 {
                secrets.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_secret_is_valid_until_its_last_lease_ends() {
        let secrets = Arc::new(FirstSecrets::default());
        let first = secrets.lease("id1", b"one").unwrap();
        assert!(secrets.lease("id1", b"two").is_none());
        let second = secrets.lease("id1", b"one").unwrap();
        drop(first);
        assert!(secrets.lease("id1", b"two").is_none());
        assert_eq!(secrets.held(), [("id1".into(), Secret::new("one"))]);
        drop(second);
        assert!(secrets.held().is_empty(), "nothing is left of it");
        assert!(secrets.lease("id1", b"two").is_some());
    }
}
