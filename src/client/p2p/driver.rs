//! The task of a peer: it sends the peer's datagrams after every event, and wakes at its deadlines.

use super::channel::ChannelConn;
use super::endpoint::Endpoint;
use super::link::PeerHandle;
use super::peer::{OpenedChannel, Peer, PeerState};
use crate::net::{clock, Timer};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Time that a peer has to connect (docs/p2p.md, "Signaling").
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(120);
/// Time that a peer has to answer an offer, including its wait for a STUN server.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// The task of one peer. `accept` takes the channels that the peer opens.
pub struct PeerDriver<F> {
    link: PeerHandle,
    endpoint: Arc<Endpoint>,
    accept: F,
    timer: Timer,
    /// When `timer` fires.
    due: Option<Instant>,
    begun: Instant,
    idle: Duration,
    state: PeerState,
    /// Whether no address of the peer answers.
    is_lost: bool,
}

impl<F: FnMut(ChannelConn, OpenedChannel) + Unpin> PeerDriver<F> {
    /// Creates the task. A peer without channels is ended after `idle`.
    pub fn new(link: PeerHandle, endpoint: Arc<Endpoint>, idle: Duration, accept: F) -> Self {
        Self {
            link,
            endpoint,
            accept,
            timer: Timer::never(),
            due: None,
            begun: clock::now(),
            idle,
            state: PeerState::Connecting,
            is_lost: false,
        }
    }

    /// Returns the time up to which a peer may stay unconnected or without channels, and the reason
    /// for its end then.
    fn limit(&self, peer: &Peer) -> Option<(Instant, &'static str)> {
        match peer.state() {
            PeerState::Connecting if !peer.is_described() => Some((
                self.begun + ANSWER_TIMEOUT,
                "it did not answer the offer in time",
            )),
            PeerState::Connecting => {
                Some((self.begun + CONNECT_TIMEOUT, "it did not connect in time"))
            }
            PeerState::Connected if peer.is_retired() => {
                let idle = peer.idle_since();
                idle.map(|since| (since, "it is not needed any more"))
            }
            PeerState::Connected if self.idle.is_zero() => None,
            PeerState::Connected => peer
                .idle_since()
                .map(|since| (since + self.idle, "it was idle")),
            PeerState::Over(_) => None,
        }
    }
}

/// Ends the peer with its task, even if that panics.
impl<F> Drop for PeerDriver<F> {
    fn drop(&mut self) {
        self.link.lock().end("its task is gone");
        self.endpoint.remove(&self.link);
        self.link.state_changed();
    }
}

impl<F: FnMut(ChannelConn, OpenedChannel) + Unpin> Future for PeerDriver<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            let now = clock::now();
            this.link.set_driver(cx.waker());
            let mut peer = this.link.lock();
            if let Some((_, why)) = this.limit(&peer).filter(|(end, _)| *end <= now) {
                log::debug!("a peer is ended: {why}");
                peer.close(now);
            }
            peer.memory().set_driver(cx.waker());
            peer.pump(now);
            let is_sent = this.endpoint.poll_send(cx, peer.out()).is_ready();
            let mut opened = Vec::new();
            while let Some(next) = peer.opened() {
                opened.push(next);
            }
            if peer.is_lost() != this.is_lost {
                this.is_lost = !this.is_lost;
                this.link.state_changed();
            }
            if *peer.state() != this.state {
                this.state = peer.state().clone();
                match &this.state {
                    PeerState::Connecting => {}
                    PeerState::Connected => log::info!(
                        "peer connected in {:.1?} over {}, peers={} way={}",
                        clock::since(this.begun),
                        peer.over(),
                        this.endpoint.peers(),
                        peer.way().map_or_else(String::new, |way| way.to_string())
                    ),
                    PeerState::Over(why) => log::info!("peer gone: {why}"),
                }
                this.link.state_changed();
            }
            if matches!(this.state, PeerState::Over(_)) {
                drop(peer);
                this.endpoint.remove(&this.link);
                return Poll::Ready(());
            }
            let deadline = peer.deadline();
            let patience = this.limit(&peer).map(|(end, _)| end);
            drop(peer);
            let is_more = !opened.is_empty();
            for next in opened {
                let channel = ChannelConn::new(this.link.clone(), next.id);
                (this.accept)(channel, next);
            }
            let due = [deadline, patience].into_iter().flatten().min();
            if due != this.due {
                this.due = due;
                match due {
                    Some(due) => this.timer.set_at(due),
                    None => this.timer.set_after(Duration::from_secs(3600)),
                }
            }
            // A full socket wakes the task when it has room.
            let rings = Pin::new(&mut this.timer).poll(cx).is_ready();
            if rings {
                this.due = None;
            }
            if !rings && !is_more || !is_sent {
                return Poll::Pending;
            }
        }
    }
}

#[cfg(test)]
mod tests;
