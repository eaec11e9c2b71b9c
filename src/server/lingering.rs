//! Lingering tunnels: they have ended normally, and their clients still read. `registry` has the
//! draining ones.

use crate::collections::HashMap;
use crate::net::Shutdown;
use crate::sync::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::Arc;

/// The lingering tunnels of each client. Clones share them.
#[derive(Clone, Default)]
pub struct Lingering(Arc<Mutex<Table>>);

/// The lingering tunnels by client, oldest first.
type Table = HashMap<Box<str>, VecDeque<Shutdown>>;

/// One lingering tunnel, removed on drop.
pub struct Linger {
    lingering: Lingering,
    id: Box<str>,
    /// Triggered when the client has too many newer lingering tunnels.
    pub is_over: Shutdown,
}

impl Lingering {
    /// Adds a tunnel of this client. Ends the oldest ones beyond the client's maximum number of
    /// tunnels (0 for no limit).
    pub fn begin(&self, id: &str, connections: u32) -> Linger {
        let is_over = Shutdown::default();
        let mut table = self.lock();
        let tunnels = table.entry(id.into()).or_default();
        tunnels.push_back(is_over.clone());
        let most = usize::try_from(connections).unwrap_or(usize::MAX);
        while most > 0 && tunnels.len() > most {
            if let Some(oldest) = tunnels.pop_front() {
                oldest.trigger();
            }
        }
        drop(table);
        Linger {
            lingering: self.clone(),
            id: id.into(),
            is_over,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock()
    }
}

impl Drop for Linger {
    fn drop(&mut self) {
        let mut table = self.lingering.lock();
        if let Some(tunnels) = table.get_mut(&self.id) {
            tunnels.retain(|tunnel| !tunnel.is(&self.is_over));
            if tunnels.is_empty() {
                table.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_tunnels_of_a_client_end_when_there_are_too_many() {
        let lingering = Lingering::default();
        let first = lingering.begin("id1", 2);
        let second = lingering.begin("id1", 2);
        let other = lingering.begin("id2", 2);
        assert!(!first.is_over.is_triggered() && !second.is_over.is_triggered());
        let third = lingering.begin("id1", 2);
        assert!(first.is_over.is_triggered() && !second.is_over.is_triggered());
        drop((first, second));
        let fourth = lingering.begin("id1", 2);
        assert!(!third.is_over.is_triggered() && !other.is_over.is_triggered());
        drop((third, fourth, other));
        assert!(lingering.lock().is_empty(), "nothing is left of it");
        let all: Vec<_> = (0..20).map(|_| lingering.begin("id1", 0)).collect();
        assert!(all.iter().all(|linger| !linger.is_over.is_triggered()));
    }
}
