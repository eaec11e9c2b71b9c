//! Parking of a tunnel, so that its connection can move to another process. The transfer itself is
//! in `handover`.

use super::closing::Closing;
use super::inbox::Inbox;
use super::tunnel_state::{Parking, TunnelState};
use super::{lock, Tunnel};
use crate::net::kernel::OwnedFd;
use crate::net::Conn;
use std::io;
use std::task::Poll;

impl Tunnel {
    /// Waits until the only open streams are those whose visitors have ended their direction. From
    /// then on the tunnel takes no new ones.
    pub async fn park(&self) {
        self.wait(|state| {
            if state.parking == Parking::None {
                state.parking = Parking::Due;
                state.park_if_due();
            }
            state.parking == Parking::Parked
        })
        .await;
    }

    /// Waits until no stream is open.
    pub async fn unused(&self) {
        self.wait(|state| state.is_unused()).await;
    }

    async fn wait(&self, is_over: impl Fn(&mut TunnelState) -> bool) {
        std::future::poll_fn(|cx| {
            let mut state = lock(&self.0);
            if is_over(&mut state) {
                return Poll::Ready(());
            }
            state.parker = Some(Box::new(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Whether the tunnel is parked.
    pub fn is_parked(&self) -> bool {
        let state = lock(&self.0);
        state.parking == Parking::Parked && !state.over && state.closing == Closing::Open
    }

    /// Lets the tunnel take new streams again.
    pub fn unpark(&self) {
        lock(&self.0).parking = Parking::None;
    }

    /// Cuts all streams; the tunnel stays open.
    pub fn cut_streams(&self) {
        lock(&self.0).cut_streams();
    }
}

impl TunnelState {
    /// Whether the tunnel is open and has no streams.
    fn is_unused(&self) -> bool {
        !self.over && self.closing == Closing::Open && self.streams.is_empty()
    }
}

impl Inbox {
    /// Whether the connection can continue in another process.
    pub fn is_movable(&self) -> bool {
        matches!(**self.conn(), Conn::Plain(_))
    }

    /// Takes the connection out of a parked tunnel and ends the tunnel: the socket, and the bytes
    /// that were read and not parsed. `None`, with nothing changed, if the tunnel is not parked or
    /// is within a frame.
    pub fn take_conn(&mut self) -> Option<io::Result<(OwnedFd, Vec<u8>)>> {
        let Conn::Plain(socket) = &**self.conn() else {
            return None;
        };
        let unread = self.unread()?;
        let mut state = lock(&self.tunnel().0);
        let parked = state.is_unused() && state.parking == Parking::Parked;
        if !parked || !state.outbox.is_idle() {
            return None;
        }
        state.over = true;
        state.closing = Closing::Over;
        // The writer must end without closing the stream of bytes.
        state.outbox.fail();
        drop(state);
        Some(socket.give_away().map(|socket| (socket, unread)))
    }
}
