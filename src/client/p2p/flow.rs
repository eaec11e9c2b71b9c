//! A flow of datagrams over the channel of a peer, or over a connection through the server that carries them as records.

use super::channel::ChannelConn;
use crate::net::{clock, with_read_buf, Conn, RecordReader, Timer};
use futures_lite::{future, AsyncReadExt, AsyncWriteExt};
use std::future::{poll_fn, Future};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

/// What the end with the service says on the channel when datagrams may come.
const READY: u8 = 1;
/// The same, if it has no such service.
const NO_SERVICE: u8 = 2;
/// The same, if the rules of the service do not admit the other end.
const NOT_ALLOWED: u8 = 3;
/// Maximum number of datagrams that are passed on together.
const MAX_RUN: usize = 16;

/// Why a flow has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowEnd {
    /// Nothing has moved for too long.
    Idle,
    /// The way to the other end has ended.
    Way,
    /// There is a better way.
    Better,
    /// The flow's own end has ended it.
    Here,
}

/// Makes an opened channel a flow, as the end that has opened it: waits until the other end takes datagrams. The kind
/// of the error is `NotFound` if the other end has no such service, and `PermissionDenied` if its rules do not admit
/// this end.
pub async fn dial_flow(channel: &mut ChannelConn) -> io::Result<()> {
    begin(channel)?;
    let mut ready = [0; 1];
    channel.read_exact(&mut ready).await?;
    match ready {
        [READY] => Ok(()),
        [NO_SERVICE] => Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the other client has no such service",
        )),
        [NOT_ALLOWED] => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the service's allow, deny or visitorRate does not admit this address",
        )),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Makes a channel a flow, as the end with the service.
pub async fn accept_flow(channel: &mut ChannelConn) -> io::Result<()> {
    begin(channel)?;
    channel.write_all(&[READY]).await
}

impl ChannelConn {
    /// Refuses a flow, as the end without the service.
    pub async fn refuse_unknown_flow(self) {
        self.refuse_flow(NO_SERVICE).await;
    }

    /// Refuses a flow that the rules of its service do not admit.
    pub async fn deny_flow(self) {
        self.refuse_flow(NOT_ALLOWED).await;
    }

    async fn refuse_flow(mut self, why: u8) {
        let refusing = async {
            self.write_all(&[why]).await?;
            self.close().await
        };
        let refused: io::Result<()> = refusing.await;
        if let Err(e) = refused {
            log::debug!("refusing a flow: {e}");
        }
    }
}

fn begin(channel: &ChannelConn) -> io::Result<()> {
    let begun = channel.link.lock().begin_flow(channel.id);
    begun
        .then_some(())
        .ok_or_else(|| io::ErrorKind::BrokenPipe.into())
}

/// Moves datagrams between a channel and a connection of records, until either has ended, or nothing has moved for
/// `patience`.
pub async fn carry_flow(channel: &ChannelConn, conn: &Conn, patience: Duration) -> FlowEnd {
    let moved = AtomicBool::new(false);
    let to_conn = async {
        loop {
            let taking = poll_fn(|cx| {
                with_read_buf(|buf| {
                    let mut peer = channel.link.lock();
                    let taken = peer.poll_datagrams(channel.id, cx, buf);
                    taken.map(|n| buf.get(..n).unwrap_or_default().to_vec())
                })
            });
            let records = taking.await;
            if records.is_empty() {
                return FlowEnd::Way;
            }
            moved.store(true, Ordering::Relaxed);
            if conn.write_all(&records).await.is_err() {
                return FlowEnd::Here;
            }
            future::yield_now().await;
        }
    };
    let to_channel = async {
        let mut reader = RecordReader::default();
        loop {
            let records = match read_records(conn).await {
                Ok(records) if !records.is_empty() => records,
                _ => return FlowEnd::Here,
            };
            moved.store(true, Ordering::Relaxed);
            channel.link.with(|peer| {
                let now = clock::now();
                reader.feed::<MAX_RUN>(&records, |run| {
                    for datagram in run {
                        peer.send_datagram(channel.id, datagram, now);
                    }
                });
            });
            future::yield_now().await;
        }
    };
    let ended = async {
        channel.ended().await;
        FlowEnd::Way
    };
    let carrying = future::or(ended, future::or(to_conn, to_channel));
    unless_idle(carrying, &moved, patience).await
}

/// Moves records between a flow and a connection through the server, until either has ended, nothing has moved for
/// `patience`, or `better` is done. What was read of the flow is then written.
pub async fn carry_records(
    flow: &Conn,
    relayed: &Conn,
    patience: Duration,
    better: impl Future<Output = ()>,
) -> FlowEnd {
    let moved = AtomicBool::new(false);
    let mut better = std::pin::pin!(better);
    let there = async {
        loop {
            let reading = async { Some(read_records(flow).await) };
            let leaving = async {
                better.as_mut().await;
                None
            };
            let records = match future::or(leaving, reading).await {
                Some(Ok(records)) if !records.is_empty() => records,
                Some(_) => return FlowEnd::Here,
                None => return FlowEnd::Better,
            };
            moved.store(true, Ordering::Relaxed);
            if relayed.write_all(&records).await.is_err() {
                return FlowEnd::Way;
            }
            future::yield_now().await;
        }
    };
    let back = carry_answers(flow, relayed, &moved);
    unless_idle(future::or(there, back), &moved, patience).await
}

/// Moves what comes by the server to a flow that has left that way, until it ends.
pub async fn carry_last_answers(flow: &Conn, relayed: &Conn) {
    carry_answers(flow, relayed, &AtomicBool::new(false)).await;
}

async fn carry_answers(flow: &Conn, relayed: &Conn, moved: &AtomicBool) -> FlowEnd {
    loop {
        let records = match read_records(relayed).await {
            Ok(records) if !records.is_empty() => records,
            _ => return FlowEnd::Way,
        };
        moved.store(true, Ordering::Relaxed);
        if flow.write_all(&records).await.is_err() {
            return FlowEnd::Here;
        }
        future::yield_now().await;
    }
}

/// Reads what has come, with a buffer that has room for everything that waits in a flow, so that no record is cut.
async fn read_records(conn: &Conn) -> io::Result<Vec<u8>> {
    poll_fn(|cx| {
        with_read_buf(|buf| match conn.poll_read(cx, buf) {
            Poll::Ready(Ok(n)) => Poll::Ready(Ok(buf.get(..n).unwrap_or_default().to_vec())),
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => Poll::Pending,
        })
    })
    .await
}

async fn unless_idle(
    carrying: impl Future<Output = FlowEnd>,
    moved: &AtomicBool,
    patience: Duration,
) -> FlowEnd {
    let idle = async {
        loop {
            Timer::after(patience).await;
            if !moved.swap(false, Ordering::Relaxed) {
                return FlowEnd::Idle;
            }
        }
    };
    future::or(carrying, idle).await
}
