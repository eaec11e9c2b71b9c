//! The turns in which the attempts of one race send their hellos: each hello that the server answers makes a
//! tunnel, and one is enough. Not the race, see `pool::better_way`.

use crate::net::timeout;
use async_lock::{Mutex, MutexGuardArc};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// Time that the server has to answer a hello before the next one is sent beside it, over another way. A captive
/// portal, for example, accepts connections and never answers.
const HEAD_START: Duration = Duration::from_secs(1);

/// The lock that the attempts of one race share: its holder sends a hello.
pub type Race = Arc<Mutex<()>>;

/// The turn of one attempt to send its hello.
#[derive(Default)]
pub struct HelloTurn {
    race: Option<Race>,
    is_taken: AtomicBool,
}

/// A turn that has been taken. It ends when this is dropped, with the answer to the hello.
pub struct TakenTurn<'a> {
    turn: &'a HelloTurn,
    _first: Option<MutexGuardArc<()>>,
}

impl HelloTurn {
    /// Creates the turn of an attempt in a race.
    pub fn of(race: &Race) -> Self {
        Self {
            race: Some(race.clone()),
            is_taken: AtomicBool::new(false),
        }
    }

    /// Waits until the hello may be sent.
    pub async fn take(&self) -> TakenTurn<'_> {
        let first = match &self.race {
            Some(race) => timeout(HEAD_START, race.lock_arc()).await,
            None => None,
        };
        self.is_taken.store(true, Ordering::Relaxed);
        TakenTurn {
            turn: self,
            _first: first,
        }
    }

    /// Whether a hello is on its way, which the server may answer.
    pub fn is_taken(&self) -> bool {
        self.is_taken.load(Ordering::Relaxed)
    }
}

impl Drop for TakenTurn<'_> {
    fn drop(&mut self) {
        self.turn.is_taken.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_std::task::block_on;
    use futures_lite::future::poll_once;
    use std::pin::pin;

    #[test]
    fn a_hello_waits_for_the_end_of_the_one_before() {
        let race = Race::default();
        let (one, other) = (HelloTurn::of(&race), HelloTurn::of(&race));
        let first = block_on(one.take());
        assert!(one.is_taken() && !other.is_taken());
        let mut second = pin!(other.take());
        assert!(block_on(poll_once(&mut second)).is_none());
        drop(first);
        assert!(block_on(poll_once(&mut second)).is_some());
        assert!(!one.is_taken());
    }

    #[test]
    fn a_hello_that_is_not_answered_holds_the_next_one_up_for_a_while_only() {
        let race = Race::default();
        let (one, other) = (HelloTurn::of(&race), HelloTurn::of(&race));
        let _first = block_on(one.take());
        // Without the head start this would not end.
        let _second = block_on(other.take());
        assert!(one.is_taken() && other.is_taken());
    }

    #[test]
    fn an_attempt_alone_waits_for_nothing() {
        let turn = HelloTurn::default();
        assert!(block_on(poll_once(turn.take())).is_some());
    }
}
