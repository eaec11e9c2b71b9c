//! Visitors that come all the time; each must be served.

use super::eventually;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;

/// One visit, repeated. It panics if it is not served.
pub type Visitor = Box<dyn FnMut() + Send>;

/// Visitors, each on a thread of its own, until `end`.
pub struct Crowd {
    stop: Arc<AtomicBool>,
    threads: Vec<(Arc<AtomicUsize>, JoinHandle<()>)>,
}

impl Crowd {
    /// Starts four visitors that do the same.
    pub fn start(visit: impl Fn() + Send + Sync + 'static) -> Crowd {
        let visit = Arc::new(visit);
        let visitors = (0..4).map(|_| {
            let visit = visit.clone();
            Box::new(move || visit()) as Visitor
        });
        Crowd::of(visitors.collect())
    }

    pub fn of(visitors: Vec<Visitor>) -> Crowd {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = visitors.into_iter().map(|mut visit| {
            let served = Arc::new(AtomicUsize::new(0));
            let (stop, count) = (stop.clone(), served.clone());
            let thread = std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    visit();
                    count.fetch_add(1, Ordering::SeqCst);
                }
            });
            (served, thread)
        });
        let threads = threads.collect();
        let crowd = Crowd { stop, threads };
        crowd.more();
        crowd
    }

    /// Waits until each visitor has been served five more times.
    pub fn more(&self) {
        for (served, _) in &self.threads {
            let goal = served.load(Ordering::SeqCst) + 5;
            eventually("visitors to be served", || {
                assert!(
                    !self.threads.iter().any(|(_, thread)| thread.is_finished()),
                    "a visitor was not served"
                );
                (served.load(Ordering::SeqCst) >= goal).then_some(())
            });
        }
    }

    /// Stops the visitors and returns how often they were served.
    pub fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        let served = self.threads.into_iter().map(|(served, thread)| {
            thread.join().expect("every visitor is served");
            served.load(Ordering::SeqCst)
        });
        served.sum()
    }
}
