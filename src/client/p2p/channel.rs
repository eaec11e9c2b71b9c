//! A data channel as a stream of bytes, and the connection that it stands for.

use super::link::Link;
use super::MAX_MESSAGE_OUT;
use crate::net::{with_scratch, Conn};
use bytes::{Bytes, BytesMut};
use futures_lite::{future, AsyncRead, AsyncWrite};
use std::future::{poll_fn, Future};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::Instant;

/// One end of a channel. Dropping it ends the channel, behind all that was written.
pub struct Channel {
    link: Link,
    id: u16,
}

impl Channel {
    pub fn new(link: Link, id: u16) -> Self {
        Self { link, id }
    }

    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<BytesMut>> {
        self.link
            .with(|peer| peer.poll_read(self.id, cx, Instant::now()))
    }

    fn give_back(&self, bytes: BytesMut) {
        self.link.lock().unread(self.id, bytes);
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let room = ready!(self.link.lock().poll_room(self.id, cx));
        Poll::Ready(room.ok_or_else(|| io::ErrorKind::BrokenPipe.into()))
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let bytes = Bytes::copy_from_slice(bytes);
        let sent = self
            .link
            .with(|peer| peer.write(self.id, bytes, Instant::now()));
        sent.then_some(())
            .ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// Waits until bytes that were to come are lost.
    fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.link.lock().poll_cut(self.id, cx)
    }

    /// Does something for the channel, unless bytes that were to come are lost meanwhile.
    pub async fn unless_cut<T>(&self, task: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let cut = async {
            poll_fn(|cx| self.poll_cut(cx)).await;
            Err(io::ErrorKind::ConnectionReset.into())
        };
        future::or(task, cut).await
    }

    fn finish(&self) {
        self.link.with(|peer| peer.finish(self.id));
    }

    /// Waits until the peer has ended it too, or is gone.
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

impl Drop for Channel {
    fn drop(&mut self) {
        self.link
            .with(|peer| peer.drop_channel(self.id, Instant::now()));
    }
}

impl AsyncRead for Channel {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Some(mut bytes) = ready!(self.poll_take(cx)) else {
            return Poll::Ready(Ok(0));
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

impl AsyncWrite for Channel {
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

/// Moves bytes between a channel and a connection until either has ended.
pub struct Carry {
    channel: Channel,
    conn: Arc<Conn>,
    /// What the connection has not taken yet.
    stuck: BytesMut,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Both,
    /// The connection has ended; the channel ends when its peer has all.
    Close,
    /// The channel has ended; the connection is told.
    Shutdown,
}

impl Carry {
    pub fn new(channel: Channel, conn: Arc<Conn>) -> Self {
        Self {
            channel,
            conn,
            stuck: BytesMut::new(),
            state: State::Both,
        }
    }

    /// From the channel to the connection. Ready when the channel has ended.
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
            }
        }
    }

    /// The connection misses bytes: it must not look as if it had ended well.
    fn cut(&self) -> io::Result<()> {
        self.conn.reset_on_close();
        Err(io::ErrorKind::ConnectionReset.into())
    }

    /// From the connection to the channel, for a turn. Ready when the connection has ended.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..4 {
            ready!(self.conn.poll_readable(cx))?;
            let room = ready!(self.channel.poll_room(cx))?.min(MAX_MESSAGE_OUT);
            let n = with_scratch(|buffer| {
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

impl Future for Carry {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.state {
                State::Both => {
                    if let Poll::Ready(result) = self.poll_in(cx) {
                        result?;
                        self.state = State::Shutdown;
                        continue;
                    }
                    ready!(self.poll_out(cx))?;
                    self.channel.finish();
                    self.state = State::Close;
                }
                State::Close => {
                    ready!(self.channel.poll_closed(cx));
                    return Poll::Ready(Ok(()));
                }
                State::Shutdown => {
                    ready!(self.conn.poll_flush(cx))?;
                    ready!(self.conn.poll_shutdown(cx))?;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}
