//! Gives memory back after clients have left: what is kept for their return, and tables that have
//! become too large.

use super::state::ServerState;
use crate::net::{self, Timer};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// Interval of the checks: a little longer than reservations last.
const CHECK_INTERVAL: Duration = Duration::from_secs(61);

/// Whether a task waits to give memory back.
#[derive(Default)]
pub struct Departed(AtomicBool);

impl ServerState {
    /// Notes that a client has left.
    pub fn client_left(self: &Arc<Self>) {
        if self.departed.0.swap(true, Ordering::Relaxed) {
            return;
        }
        let state = self.clone();
        net::spawn(async move {
            let mut is_left = true;
            while is_left && state.stop.or(Timer::after(CHECK_INTERVAL)).await.is_some() {
                // A client that leaves from here on starts a task if this one ends.
                state.departed.0.store(false, Ordering::Relaxed);
                is_left = state.registry.forget_departed();
                state.rate_limits.forget_departed();
                is_left = is_left && !state.departed.0.swap(true, Ordering::Relaxed);
            }
        });
    }
}
