//! A value that is replaced as a whole while tasks use it, such as the settings after a reload.

use crate::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

/// The value in force. A copy that a task has got stays as it is.
#[derive(Debug, Default)]
pub struct Current<T> {
    value: Mutex<Arc<T>>,
    /// Number of replacements. It may wrap.
    changes: AtomicU32,
}

/// The replacements that a task has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen(u32);

impl<T> Current<T> {
    /// Creates the value.
    pub fn new(value: T) -> Self {
        Self {
            value: Mutex::new(Arc::new(value)),
            changes: AtomicU32::new(0),
        }
    }

    /// Returns the value in force.
    pub fn get(&self) -> Arc<T> {
        self.value.lock().clone()
    }

    /// Replaces the value.
    pub fn replace(&self, value: T) {
        *self.value.lock() = Arc::new(value);
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Returns the value if it is not the one that is `known`.
    #[cfg(any(feature = "server", test))]
    pub fn newer(&self, known: &Arc<T>) -> Option<Arc<T>> {
        let value = self.value.lock();
        (!Arc::ptr_eq(&value, known)).then(|| value.clone())
    }

    /// Returns what [`Current::news`] compares with. Take it before the value itself.
    pub fn seen(&self) -> Seen {
        Seen(self.changes.load(Ordering::Acquire))
    }

    /// Returns the value if it has been replaced since, and notes that. Takes no lock otherwise.
    pub fn news(&self, seen: &mut Seen) -> Option<Arc<T>> {
        let before = std::mem::replace(seen, self.seen());
        (before != *seen).then(|| self.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_is_news_once() {
        let current = Current::new(1);
        let (known, mut seen) = (current.get(), current.seen());
        assert!(current.newer(&known).is_none());
        assert!(current.news(&mut seen).is_none());
        current.replace(2);
        assert_eq!(current.newer(&known).as_deref(), Some(&2));
        assert_eq!(current.news(&mut seen).as_deref(), Some(&2));
        assert!(current.news(&mut seen).is_none());
        assert_eq!(*known, 1, "a copy stays");
    }
}
