//! First secrets of unknown ids, on a server that admits any client (allowAnyClient). A first secret is
//! valid while a tunnel of its id holds a lease.

use crate::collections::HashMap;
use crate::config::Secret;
use crate::sync::{Mutex, MutexGuard};
use std::sync::{Arc, Weak};

/// The first secrets of ids with tunnels.
#[derive(Default)]
pub struct FirstSecrets(Mutex<HashMap<Box<str>, Weak<FirstSecret>>>);

/// A tunnel's lease on the first secret of its id.
pub struct FirstSecretLease {
    _first: Arc<FirstSecret>,
}

/// The first secret of one id, which is forgotten with its last lease.
struct FirstSecret {
    secrets: Arc<FirstSecrets>,
    id: Box<str>,
    secret: Secret,
}

impl FirstSecrets {
    /// Returns a lease for the id, or `None` if it is leased with another secret. Compares secrets
    /// in constant time.
    pub fn lease(self: &Arc<Self>, id: &str, secret: &[u8]) -> Option<FirstSecretLease> {
        let secret = Secret::new(secret);
        let mut secrets = self.lock();
        let first = match secrets.get(id).and_then(Weak::upgrade) {
            Some(first) => first,
            None => {
                let first = Arc::new(FirstSecret {
                    secrets: self.clone(),
                    id: id.into(),
                    secret: secret.clone(),
                });
                secrets.insert(id.into(), Arc::downgrade(&first));
                first
            }
        };
        // Dropping a lease takes the lock.
        drop(secrets);
        (first.secret == secret).then_some(FirstSecretLease { _first: first })
    }

    /// Returns all leased ids with their secrets.
    pub fn held(&self) -> Vec<(Box<str>, Secret)> {
        let held: Vec<_> = self.lock().values().filter_map(Weak::upgrade).collect();
        let held = held.iter();
        held.map(|first| (first.id.clone(), first.secret.clone()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Weak<FirstSecret>>> {
        self.0.lock()
    }
}

impl Drop for FirstSecret {
    fn drop(&mut self) {
        let mut secrets = self.secrets.lock();
        // Another first secret may have taken its place meanwhile.
        let is_over = |first: &Weak<FirstSecret>| first.strong_count() == 0;
        if secrets.get(&self.id).is_some_and(is_over) {
            secrets.remove(&self.id);
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
