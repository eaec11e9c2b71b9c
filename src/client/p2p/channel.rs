//! A data channel as a stream of bytes, and its relay to a connection.

use super::duplex::DuplexRelay;
use super::link::PeerHandle;
use super::MAX_MESSAGE_OUT;
use crate::client::private::ChannelBinding;
use crate::net::{clock, poll_stalled, with_read_buf, Conn, Timer};
use crate::tunnel::{CLOSE_TIMEOUT, DRAIN_TIMEOUT};
use bytes::Bytes;
use futures_lite::{future, AsyncRead, AsyncWrite};
use std::future::{poll_fn, Future};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::Duration;

/// One end of a channel. Dropping it cuts the channel, unless its end was written (`poll_close`).
pub struct ChannelConn {
    pub(super) link: PeerHandle,
    pub(super) id: u16,
}

impl ChannelConn {
    /// Opens a channel to the peer; `None` if it is not connected or has its maximum of channels.
    pub fn open(link: &PeerHandle, label: &str) -> Option<Self> {
        let id = link.with(|peer| peer.open(label, clock::now()))?;
        Some(Self::new(link.clone(), id))
    }

    /// Waits until the peer has answered the opening of the channel; false if it has ended.
    pub async fn answered(&self) -> bool {
        poll_fn(|cx| self.link.lock().poll_answered(self.id, cx)).await
    }

    /// Waits until the other end has been silent for so long that datagrams are better sent another way, or has ended.
    pub async fn silent(&self) {
        self.link.silent().await;
    }

    /// Returns what binds a proof to the connection of the channel; `None` if that has ended.
    pub fn binding(&self) -> Option<ChannelBinding> {
        self.link.lock().binding()
    }

    /// Returns the address of the other end, if it is connected. It has answered a check.
    pub fn peer(&self) -> Option<SocketAddr> {
        let addr = self.link.lock().address()?;
        Some(SocketAddr::new(addr.ip().to_canonical(), addr.port()))
    }

    /// Wraps the channel with this number.
    pub fn new(link: PeerHandle, id: u16) -> Self {
        Self { link, id }
    }

    /// Copies received bytes, as many as there are: zero at the end. For channels of QUIC.
    pub(super) fn poll_read_to(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.link.with(|peer| {
            let count = ready!(peer.poll_read_to(self.id, cx, buffer, clock::now()));
            match count == 0 && peer.is_cut(self.id) {
                true => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                false => Poll::Ready(Ok(count)),
            }
        })
    }

    /// Notes that bytes that were read are being consumed.
    pub(super) fn goes_on(&self) {
        self.link.lock().goes_on(self.id, clock::now());
    }

    /// Returns the idle limit of the channel.
    pub(super) fn idle_limit(&self) -> Option<Duration> {
        self.link.lock().idle_limit(self.id)
    }

    /// Waits until the peer has everything that was written before the end, or wants nothing more.
    /// For channels of QUIC.
    pub(super) fn poll_delivered(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.link.lock().poll_delivered(self.id, cx)
    }

    /// Cuts the channel: the other end sees no graceful end, as far as it can be told.
    pub(super) fn abort(&self) {
        self.link.with(|peer| peer.abort(self.id, clock::now()));
    }

    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.link
            .with(|peer| peer.poll_read(self.id, cx, clock::now()))
    }

    fn give_back(&self, bytes: Bytes) {
        self.link.lock().unread(self.id, bytes);
    }

    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let room = ready!(self.link.lock().poll_room(self.id, cx));
        Poll::Ready(room.ok_or_else(|| io::ErrorKind::BrokenPipe.into()))
    }

    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let bytes = Bytes::copy_from_slice(bytes);
        let sent = self
            .link
            .with(|peer| peer.write(self.id, bytes, clock::now()));
        sent.then_some(())
            .ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// Ends the channel when nothing has moved in it for `limit`.
    pub fn limit_idle(&self, limit: Option<Duration>) {
        self.link.lock().limit_idle(self.id, limit, clock::now());
    }

    /// Whether the peer sends nothing more and nothing can be sent to it.
    fn has_ended(&self) -> bool {
        self.link.lock().has_ended(self.id)
    }

    /// Waits until received bytes of the channel are discarded.
    pub fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.link.lock().poll_cut(self.id, cx)
    }

    /// Runs `task`, unless received bytes of the channel are discarded meanwhile.
    pub async fn unless_cut<T>(&self, task: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let cut = async {
            poll_fn(|cx| self.poll_cut(cx)).await;
            Err(io::ErrorKind::ConnectionReset.into())
        };
        future::or(task, cut).await
    }

    pub(super) fn finish(&self) {
        self.link.with(|peer| peer.finish(self.id));
    }

    /// Waits for the end of a channel on which nothing more is said.
    pub(super) async fn ended(&self) {
        poll_fn(|cx| self.poll_closed(cx)).await;
    }

    /// Waits until the peer has ended the channel too, or is gone.
    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(self.poll_take(cx)) {
            Some(_) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

impl Drop for ChannelConn {
    fn drop(&mut self) {
        self.link
            .with(|peer| peer.drop_channel(self.id, clock::now()));
    }
}

impl AsyncRead for ChannelConn {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Some(mut bytes) = ready!(self.poll_take(cx)) else {
            let is_cut = self.link.lock().is_cut(self.id);
            return match is_cut {
                true => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                false => Poll::Ready(Ok(0)),
            };
        };
        let n = bytes.len().min(buf.len());
        if let Some(to) = buf.get_mut(..n) {
            to.copy_from_slice(&bytes.split_to(n));
        }
        if !bytes.is_empty() {
            self.give_back(bytes);
        }
        Poll::Ready(Ok(n))
    }
}

impl AsyncWrite for ChannelConn {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let room = ready!(self.poll_room(cx))?;
        let bytes = bytes.get(..room).unwrap_or(bytes);
        self.send(bytes)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

/// Moves bytes between a channel and a connection until either has ended, and then passes the end
/// on.
pub async fn carry(channel: ChannelConn, conn: Arc<Conn>) -> io::Result<()> {
    let is_quic = channel.link.lock().is_quic();
    match is_quic {
        true => DuplexRelay::new(channel, conn.clone()).await?,
        false => ChannelRelay::new(channel, conn.clone()).await?,
    }
    // Closing with unread bytes would discard what the connection's peer has not read yet.
    conn.linger(CLOSE_TIMEOUT).await;
    Ok(())
}

/// The relay between a channel of SCTP and a connection. Dropped before its end, it cuts both.
struct ChannelRelay {
    channel: ChannelConn,
    conn: Arc<Conn>,
    /// Bytes that the connection has not taken yet.
    stuck: Bytes,
    state: CarryState,
    timer: Option<Timer>,
    /// Whether both sides have ended in good order.
    is_whole: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CarryState {
    Both,
    /// The connection has ended; the channel ends when its peer has everything. Holds the
    /// unacknowledged bytes at the time the timer was set.
    Close(usize),
    /// The channel has ended, and the connection has not taken everything yet.
    Rest,
    /// The channel has ended; the end is being passed on to the connection.
    Shutdown,
}

impl ChannelRelay {
    fn new(channel: ChannelConn, conn: Arc<Conn>) -> Self {
        Self {
            channel,
            conn,
            stuck: Bytes::new(),
            state: CarryState::Both,
            timer: None,
            is_whole: false,
        }
    }

    /// Changes the state. Each has its own deadline.
    fn go(&mut self, state: CarryState) {
        (self.state, self.timer) = (state, None);
    }

    /// Moves bytes from the channel to the connection. Ready when the channel has ended.
    fn poll_in(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.stuck.is_empty() {
                match self.channel.poll_take(cx) {
                    Poll::Ready(Some(bytes)) => self.stuck = bytes,
                    Poll::Ready(None) if self.channel.link.lock().is_cut(self.channel.id) => {
                        return Poll::Ready(self.cut());
                    }
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Pending => {
                        ready!(self.conn.poll_flush(cx))?;
                        return Poll::Pending;
                    }
                }
            }
            while !self.stuck.is_empty() {
                let Poll::Ready(n) = self.conn.poll_write(cx, &self.stuck)? else {
                    ready!(self.channel.poll_cut(cx));
                    return Poll::Ready(self.cut());
                };
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                drop(self.stuck.split_to(n));
                if !self.stuck.is_empty() {
                    let mut peer = self.channel.link.lock();
                    peer.goes_on(self.channel.id, clock::now());
                }
            }
        }
    }

    /// Cuts the connection, which misses bytes and must not see a graceful end.
    fn cut(&self) -> io::Result<()> {
        self.conn.reset_on_close();
        Err(io::ErrorKind::ConnectionReset.into())
    }

    /// Returns the time for which one end may take nothing when the other has ended.
    fn patience(&self) -> Duration {
        let limit = self.channel.link.lock().idle_limit(self.channel.id);
        limit.map_or(DRAIN_TIMEOUT, |limit| limit.min(DRAIN_TIMEOUT))
    }

    /// Waits until the connection has taken nothing for as long as it may. The result is an error.
    fn poll_stuck(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let patience = self.patience();
        ready!(poll_stalled(&mut self.timer, patience, cx));
        self.conn.reset_on_close();
        let why = "the service does not take the last bytes of a channel";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, why)))
    }

    /// Moves bytes from the connection to the channel, for one turn. Ready when the connection has
    /// ended.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..4 {
            ready!(self.conn.poll_readable(cx))?;
            let room = ready!(self.channel.poll_room(cx))?.min(MAX_MESSAGE_OUT);
            let n = with_read_buf(|buffer| {
                let buffer = buffer.get_mut(..room).unwrap_or_default();
                let n = ready!(self.conn.poll_read(cx, buffer))?;
                if n > 0 {
                    self.channel.send(buffer.get(..n).unwrap_or_default())?;
                }
                Poll::Ready(io::Result::Ok(n))
            });
            if ready!(n)? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for ChannelRelay {
    fn drop(&mut self) {
        if !self.is_whole {
            self.conn.reset_on_close();
        }
    }
}

impl Future for ChannelRelay {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(self.poll_relay(cx));
        self.is_whole = result.is_ok();
        Poll::Ready(result)
    }
}

impl ChannelRelay {
    fn poll_relay(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.state {
                CarryState::Both => {
                    if let Poll::Ready(result) = self.poll_in(cx) {
                        result?;
                        self.go(CarryState::Shutdown);
                        continue;
                    }
                    let out = match !self.stuck.is_empty() && self.channel.has_ended() {
                        true => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                        false => self.poll_out(cx),
                    };
                    match ready!(out) {
                        Ok(()) => {
                            self.channel.finish();
                            self.go(CarryState::Close(usize::MAX));
                        }
                        Err(_) if self.channel.has_ended() => {
                            // If this process ends first, a part must not look complete.
                            self.conn.reset_on_close();
                            self.go(CarryState::Rest);
                        }
                        Err(e) => return Poll::Ready(Err(e)),
                    }
                }
                CarryState::Close(before) => {
                    if self.channel.poll_closed(cx).is_ready() {
                        return Poll::Ready(Ok(()));
                    }
                    let patience = self.patience();
                    let timer = self.timer.get_or_insert_with(|| Timer::after(patience));
                    ready!(Pin::new(timer).poll(cx));
                    let left = self.channel.link.lock().unacknowledged(self.channel.id);
                    if left >= before {
                        // The peer gets the rest if it goes on; nothing else has to wait for that.
                        return Poll::Ready(Ok(()));
                    }
                    self.go(CarryState::Close(left));
                }
                CarryState::Rest => {
                    let Poll::Ready(result) = self.poll_in(cx) else {
                        return self.poll_stuck(cx);
                    };
                    result?;
                    self.conn.end_on_close();
                    self.go(CarryState::Shutdown);
                }
                CarryState::Shutdown => {
                    let mut told = self.conn.poll_flush(cx);
                    if let Poll::Ready(Ok(())) = told {
                        told = self.conn.poll_shutdown(cx);
                    }
                    return match told {
                        Poll::Ready(result) => Poll::Ready(result),
                        Poll::Pending => self.poll_stuck(cx),
                    };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
