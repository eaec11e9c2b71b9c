//! A tunnel without streams that goes on in another process, with its connection. Not how it gets
//! there: see `handover`.

use super::closing::Closing;
use super::inbox::Inbox;
use super::tunnel_state::{Parking, TunnelState};
use super::{lock, Tunnel};
use crate::net::Conn;
use std::io;
use std::os::fd::OwnedFd;
use std::task::Poll;

impl Tunnel {
    /// Waits until no stream runs but those whose visitors have ended their direction. From then on
    /// the tunnel takes no new ones.
    pub async fn park(&self) {
        self.wait(|core| {
            if core.parking == Parking::None {
                core.parking = Parking::Due;
                core.park_if_due();
            }
            core.parking == Parking::Parked
        })
        .await;
    }

    /// Waits until no stream runs.
    pub async fn unused(&self) {
        self.wait(|core| core.is_unused()).await;
    }

    async fn wait(&self, is_over: impl Fn(&mut TunnelState) -> bool) {
        std::future::poll_fn(|cx| {
            let mut core = lock(&self.0);
            if is_over(&mut core) {
                return Poll::Ready(());
            }
            core.parker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Whether the tunnel is parked.
    pub fn is_parked(&self) -> bool {
        let core = lock(&self.0);
        core.parking == Parking::Parked && !core.over && core.closing == Closing::Open
    }

    /// The tunnel takes new streams again.
    pub fn unpark(&self) {
        lock(&self.0).parking = Parking::None;
    }

    /// Cuts all streams; the tunnel goes on.
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
    /// Whether the connection can go on in another process.
    pub fn is_movable(&self) -> bool {
        matches!(**self.conn(), Conn::Plain(_))
    }

    /// Takes the connection out of a parked tunnel, which is over then: its socket, and what has
    /// been read from it and not been used. `None`, and nothing has changed, if the tunnel is not
    /// parked or in the middle of something.
    pub fn take_conn(&mut self) -> Option<io::Result<(OwnedFd, Vec<u8>)>> {
        let Conn::Plain(socket) = &**self.conn() else {
            return None;
        };
        let unread = self.unread()?;
        let mut core = lock(&self.tunnel().0);
        let parked = core.is_unused() && core.parking == Parking::Parked;
        if !parked || !core.outbox.is_idle() {
            return None;
        }
        core.over = true;
        core.closing = Closing::Over;
        // Its writer ends without the end of the stream.
        core.outbox.fail();
        drop(core);
        Some(socket.give_away().map(|socket| (socket, unread)))
    }
}
