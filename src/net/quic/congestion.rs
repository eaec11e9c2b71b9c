//! The congestion control of a connection, which may change after the connection was created: a server chooses it
//! when it knows the client's application protocol (`setup::BBR_PROTOCOL`).

use quinn_proto::congestion::{Bbr, BbrConfig, Controller, ControllerFactory, CubicConfig};
use quinn_proto::RttEstimator;
use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Instant;

/// The choice of a connection's congestion control. Clones refer to the same connection.
#[derive(Clone, Debug, Default)]
pub struct CongestionChoice(Arc<AtomicBool>);

impl CongestionChoice {
    /// Chooses BBR (`true`) or CUBIC (RFC 9438).
    pub fn new(bbr: bool) -> Self {
        Self(Arc::new(AtomicBool::new(bbr)))
    }

    /// Changes the choice to BBR.
    pub fn set_bbr(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns the name of the chosen congestion control.
    #[cfg(feature = "server")]
    pub fn name(&self) -> &'static str {
        match self.is_bbr() {
            true => "bbr",
            false => "cubic",
        }
    }

    fn is_bbr(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl ControllerFactory for CongestionChoice {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        let inner = match self.is_bbr() {
            true => bbr(now, mtu),
            false => Arc::new(CubicConfig::default()).build(now, mtu),
        };
        Box::new(Chosen {
            is_bbr: self.is_bbr(),
            choice: (*self).clone(),
            mtu,
            inner,
        })
    }
}

fn bbr(_: Instant, mtu: u16) -> Box<dyn Controller> {
    Box::new(Bbr::new(Arc::new(BbrConfig::default()), mtu))
}

/// The congestion control that the choice asks for.
struct Chosen {
    choice: CongestionChoice,
    is_bbr: bool,
    mtu: u16,
    inner: Box<dyn Controller>,
}

impl Controller for Chosen {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        if !self.is_bbr && self.choice.is_bbr() {
            self.inner = bbr(now, self.mtu);
            self.is_bbr = true;
        }
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        let largest = largest_packet_num_acked;
        self.inner.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        let persistent = is_persistent_congestion;
        self.inner
            .on_congestion_event(now, sent, persistent, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu;
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.inner.window()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            choice: self.choice.clone(),
            is_bbr: self.is_bbr,
            mtu: self.mtu,
            inner: self.inner.clone_box(),
        })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_goes_over_to_bbr_when_its_peer_asks_for_it() {
        let now = Instant::now();
        let choice = CongestionChoice::new(false);
        let cubic = Arc::new(choice.clone()).build(now, 1200);
        choice.set_bbr();
        let mut chosen = cubic.clone_box();
        chosen.on_sent(now, 1200, 0);
        let is_bbr = |controller: Box<dyn Controller>| {
            let chosen = controller.into_any().downcast::<Chosen>().unwrap();
            chosen.inner.into_any().is::<Bbr>()
        };
        assert!(!is_bbr(cubic) && is_bbr(chosen));
        #[cfg(feature = "server")]
        assert_eq!(
            (CongestionChoice::new(false).name(), choice.name()),
            ("cubic", "bbr")
        );
        assert!(is_bbr(Arc::new(choice).build(now, 1200)));
    }
}
