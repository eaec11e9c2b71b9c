//! The visitors that are connected at the moment, for the web page. They are listed only while there is a
//! page. Builds without it have `no_live_visitors`.

use super::registry::Registry;
use crate::collections::HashMap;
use crate::logging::{AccessLog, Visit, Way};
use crate::sync::Mutex;
use crate::tunnel::StreamRecord;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::SystemTime;

/// The visitors of a server.
#[derive(Default)]
pub struct LiveVisitors {
    is_on: AtomicBool,
    table: Arc<Mutex<VisitorTable>>,
}

#[derive(Default)]
struct VisitorTable {
    /// By number.
    visitors: HashMap<u32, Arc<LiveVisitor>>,
    /// The last number; they begin again after the highest one.
    last: u32,
}

/// A connected visitor.
pub struct LiveVisitor {
    /// The number by which it can be cut.
    pub number: u32,
    /// The client's id.
    pub id: Option<Box<str>>,
    /// The host prefix, the domain or the port.
    pub service: String,
    pub way: Way,
    /// `None` if it is unknown.
    pub visitor: Option<SocketAddr>,
    pub since: SystemTime,
    pub stream: Arc<StreamRecord>,
    is_cut: AtomicBool,
}

/// Lists a visitor until it is dropped.
pub struct Listed {
    entry: Arc<LiveVisitor>,
    table: Arc<Mutex<VisitorTable>>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.table.lock().visitors.remove(&self.entry.number);
    }
}

impl LiveVisitors {
    /// Sets whether visitors that come from now on are listed.
    pub fn watch(&self, is_on: bool) {
        self.is_on.store(is_on, Ordering::Relaxed);
    }

    /// Begins to record a visit, if it is logged or listed.
    pub fn visit(
        &self,
        log: Option<&AccessLog>,
        id: impl FnOnce() -> Option<Box<str>>,
        service: impl FnOnce() -> String,
        way: Way,
    ) -> Option<Visit> {
        match log {
            Some(log) => Some(log.visit(id().as_deref(), service(), way)),
            None if self.is_on.load(Ordering::Relaxed) => {
                Some(Visit::unlogged(id().as_deref(), service(), way))
            }
            None => None,
        }
    }

    /// Lists a visitor whose visit is recorded, if visitors are listed.
    pub fn list(&self, visit: Option<&Visit>) -> Option<Listed> {
        if !self.is_on.load(Ordering::Relaxed) {
            return None;
        }
        let visit = visit?;
        let (id, service, way, visitor) = visit.parts();
        let mut table = self.table.lock();
        let mut number = table.last.wrapping_add(1);
        while table.visitors.contains_key(&number) {
            number = number.wrapping_add(1);
        }
        table.last = number;
        let entry = Arc::new(LiveVisitor {
            number,
            id: id.map(Into::into),
            service: service.to_owned(),
            way,
            visitor,
            since: crate::net::clock::time_of_day(),
            stream: visit.stream(),
            is_cut: AtomicBool::new(false),
        });
        table.visitors.insert(number, entry.clone());
        drop(table);
        Some(Listed {
            entry,
            table: self.table.clone(),
        })
    }

    /// Returns the visitors of a client, oldest first, at most `most`, and the number of all.
    pub fn of_client(&self, id: &str, most: usize) -> (Vec<Arc<LiveVisitor>>, usize) {
        let table = self.table.lock();
        let its = table
            .visitors
            .values()
            .filter(|it| it.id.as_deref() == Some(id));
        let mut its: Vec<_> = its.cloned().collect();
        drop(table);
        let count = its.len();
        its.sort_unstable_by_key(|it| (it.since, it.number));
        its.truncate(most);
        (its, count)
    }

    /// Cuts a visitor. Returns it, if there is one with this number.
    pub fn cut(&self, number: u32, registry: &Registry) -> Option<Arc<LiveVisitor>> {
        let entry = self.table.lock().visitors.get(&number).cloned()?;
        entry.is_cut.store(true, Ordering::Relaxed);
        let id = entry.id.as_deref().unwrap_or_default();
        registry
            .tunnels_of(id)
            .iter()
            .for_each(|it| it.wake_streams());
        Some(entry)
    }
}

impl Listed {
    /// Whether the visitor may stay.
    pub fn may_stay(listed: &Option<Self>) -> bool {
        listed
            .as_ref()
            .is_none_or(|it| !it.entry.is_cut.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_is_listed_while_it_is_there_and_nothing_is_kept_without_a_page() {
        let live = LiveVisitors::default();
        assert!(live
            .visit(None, || Some("a".into()), || "web".to_owned(), Way::Http)
            .is_none());
        live.watch(true);
        let visit = |id: &str| {
            live.visit(None, || Some(id.into()), || "web".to_owned(), Way::Http)
                .unwrap()
        };
        let one = live.list(Some(&visit("a")));
        let other = live.list(Some(&visit("b")));
        assert!(live.list(None).is_none());
        let (its, count) = live.of_client("a", 10);
        assert_eq!((its.len(), count), (1, 1));
        assert_eq!(live.of_client("a", 0).1, 1);
        let registry = Registry::default();
        assert!(live.cut(its[0].number, &registry).is_some());
        assert!(!Listed::may_stay(&one) && Listed::may_stay(&other) && Listed::may_stay(&None));
        drop(one);
        assert!(live.of_client("a", 10).0.is_empty());
        assert!(live.cut(its[0].number, &registry).is_none());
        drop(other);
        assert!(live.table.lock().visitors.is_empty());
    }
}
