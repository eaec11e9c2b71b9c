//! The access to a private service: its key, and whether it still counts.

use crate::config::Secret;
use crate::net::Shutdown;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

/// How many keys of this process have been changed or removed. May wrap.
static KEY_CHANGES: AtomicU32 = AtomicU32::new(0);

/// Returns a number that is another one after a key has been changed or removed.
#[cfg(feature = "p2p")]
pub fn key_changes() -> u32 {
    KEY_CHANGES.load(Ordering::Relaxed)
}

/// The access to a private service by its present key.
#[derive(Clone)]
pub struct PrivateAccess(Arc<AccessState>);

struct AccessState {
    #[cfg_attr(not(feature = "p2p"), allow(dead_code))]
    key: Secret,
    /// Triggered when the key counts no longer.
    revoked: Shutdown,
}

impl PrivateAccess {
    /// Creates the access by this key.
    pub fn new(key: &Secret) -> Self {
        Self(Arc::new(AccessState {
            key: key.clone(),
            revoked: Shutdown::default(),
        }))
    }

    /// Returns the key; `None` if it counts no longer.
    #[cfg(feature = "p2p")]
    pub fn key(&self) -> Option<&Secret> {
        (!self.0.revoked.is_triggered()).then_some(&self.0.key)
    }

    /// Waits until the key counts no longer.
    #[cfg(feature = "p2p")]
    pub async fn revoked(&self) {
        self.0.revoked.wait().await;
    }

    /// Ends the connections by this key.
    pub fn revoke(&self) {
        KEY_CHANGES.fetch_add(1, Ordering::Relaxed);
        self.0.revoked.trigger();
    }
}
