//! Names without a certificate that visitors have asked for, whose turn comes first. Not the orders.

use std::time::{Duration, Instant};

/// Maximum number of names.
const MAX_NAMES: usize = 64;
/// Time after which a visit does not count any more.
const KEPT: Duration = Duration::from_secs(3600);

/// The names, each with the time of its last visit.
#[derive(Debug, Default)]
pub struct VisitedNames(Vec<(Box<str>, Instant)>);

impl VisitedNames {
    /// Notes a visit; returns whether the name is new. Of too many names, the first ones stay.
    pub fn note(&mut self, name: &str, now: Instant) -> bool {
        if let Some((_, at)) = self.0.iter_mut().find(|(other, _)| **other == *name) {
            *at = now;
            return false;
        }
        let has_room = self.0.len() < MAX_NAMES;
        if has_room {
            self.0.push((name.into(), now));
        }
        has_room
    }

    /// Forgets names that are not in use, and those whose visitors came too long ago.
    pub fn tidy(&mut self, now: Instant, is_used: impl Fn(&str) -> bool) {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < KEPT;
        self.0.retain(|(name, at)| is_recent(*at) && is_used(name));
    }

    /// Whether visitors have asked for a name.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(other, _)| **other == *name)
    }

    /// Forgets a name, whose turn it is.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(other, _)| **other != *name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::clock;

    #[test]
    fn a_visit_counts_until_the_name_has_had_its_turn_or_for_an_hour() {
        let mut visited = VisitedNames::default();
        let start = clock::now();
        assert!(visited.note("a.example.com", start));
        assert!(!visited.note("a.example.com", start));
        assert!(visited.note("b.example.com", start + KEPT / 2));
        visited.tidy(start + KEPT / 2, |_| true);
        assert!(visited.has("a.example.com"));
        visited.tidy(start + KEPT, |_| true);
        assert!(!visited.has("a.example.com") && visited.has("b.example.com"));
        visited.remove("b.example.com");
        assert!(!visited.has("b.example.com"));
        for number in 0..MAX_NAMES {
            assert!(visited.note(&format!("{number}.example.com"), start));
        }
        assert!(!visited.note("c.example.com", start), "no room");
        visited.tidy(start, |name| name != "0.example.com");
        assert!(visited.note("c.example.com", start));
    }
}
