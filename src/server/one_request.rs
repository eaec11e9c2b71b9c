//! A layer that limits a visitor's connection to one request, for connections from proxies. A proxy
//! sends requests of several visitors, also for different hosts, over one connection, while gt
//! routes a connection by its first request. The service is asked to close after its answer, and in
//! any case nothing after the first request reaches it.

use crate::net::follow::{
    Edits, Exchange, HttpRefusal, RequestHead, RequestRule, RequestStep, RuleDecision,
};
use crate::net::{with_read_buf, Conn, ConnLayer};
use crate::sync::{Mutex, MutexGuard};
use std::io;
use std::sync::Arc;
use std::task::{ready, Context, Poll, Waker};

/// Maximum number of bytes read from a visitor at a time.
const MAX_READ: usize = 16 * 1024;
/// Number of reads without bytes for the service before other tasks run.
const TURN: usize = 4;

/// A rule that asks the service to close the connection after its answer, unless the request asks
/// to switch to another protocol.
struct CloseBehind;

impl RequestRule for CloseBehind {
    fn decide(&self, head: &RequestHead<'_>) -> RuleDecision {
        let mut edits = Edits::default();
        if !head.fields().any(|field| field.is("upgrade")) {
            let connection = head.fields().filter(|field| field.is("connection"));
            connection.for_each(|field| edits.remove(&field));
            edits.add(head, "Connection", "close");
        }
        RuleDecision::Forward(edits)
    }
}

/// A connection to a visitor that ends, for its reader, after the first request.
#[derive(Debug)]
pub struct OneRequest {
    conn: Arc<Conn>,
    inner: Mutex<OneRequestState>,
}

#[derive(Debug, Default)]
struct OneRequestState {
    exchange: Exchange,
    /// Bytes for the service that have not been read yet.
    out: Vec<u8>,
    /// Bytes to process once the service has decided about a protocol switch.
    early: Vec<u8>,
    /// The reader's waker, while it waits for the service.
    reader: Option<Waker>,
}

/// Whether bytes of the visitor may go to the service.
enum Gate {
    /// The bytes go to the service.
    Open,
    /// The bytes wait until the service has decided about a protocol switch.
    Waits,
    /// The bytes are dropped.
    Shut,
}

impl OneRequest {
    /// Wraps a connection of which `begin` has been read, at least a complete head. Returns the bytes
    /// for the service and the wrapped connection. The error is the answer to send.
    pub fn start(conn: Arc<Conn>, begin: &[u8]) -> Result<(Vec<u8>, Arc<Conn>), HttpRefusal> {
        let mut inner = OneRequestState::default();
        inner.take(begin)?;
        let first = std::mem::take(&mut inner.out);
        let inner = Mutex::new(inner);
        let layer: Box<dyn ConnLayer> = Box::new(Self { conn, inner });
        Ok((first, Arc::new(Conn::from(layer))))
    }

    fn lock(&self) -> MutexGuard<'_, OneRequestState> {
        self.inner.lock()
    }
}

impl OneRequestState {
    /// Returns the state of the gate. Before the first request begins it is open.
    fn gate(&self) -> Gate {
        if self.exchange.has_begun() && self.exchange.is_between() {
            Gate::Shut
        } else if self.exchange.is_switching() {
            Gate::Waits
        } else {
            Gate::Open
        }
    }

    /// Processes the visitor's next bytes.
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), HttpRefusal> {
        while !bytes.is_empty() {
            match self.gate() {
                Gate::Open => {}
                Gate::Waits => {
                    self.early.extend_from_slice(bytes);
                    return Ok(());
                }
                Gate::Shut => return Ok(()),
            }
            let taken = match self.exchange.request(bytes, &CloseBehind) {
                RequestStep::Pass(n) => {
                    let part = bytes.get(..n).unwrap_or_default();
                    self.out.extend_from_slice(part);
                    n
                }
                RequestStep::Keep(n) => n,
                RequestStep::Send {
                    taken, bytes: head, ..
                } => {
                    self.out.extend_from_slice(&head);
                    taken
                }
                RequestStep::Wait | RequestStep::Undecided => 0,
                RequestStep::Refuse(refusal, _) => return Err(refusal),
            };
            bytes = bytes.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    fn keep_reader(&mut self, cx: &Context<'_>) {
        self.reader = Some(cx.waker().clone());
    }
}

impl ConnLayer for OneRequest {
    fn below(&self) -> &Conn {
        &self.conn
    }

    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.lock();
        for _ in 0..TURN {
            let n = inner.out.len().min(buf.len());
            if n > 0 {
                if let (Some(to), Some(from)) = (buf.get_mut(..n), inner.out.get(..n)) {
                    to.copy_from_slice(from);
                }
                inner.out.drain(..n);
                return Poll::Ready(Ok(n));
            }
            inner.keep_reader(cx);
            match inner.gate() {
                Gate::Waits => return Poll::Pending,
                // The answer is complete: end the connection even if the service keeps it open.
                Gate::Shut if inner.exchange.is_idle() => return Poll::Ready(Ok(0)),
                Gate::Shut | Gate::Open => {}
            }
            let mut incoming = std::mem::take(&mut inner.early);
            if incoming.is_empty() {
                let read = with_read_buf(|buffer| {
                    let buffer = buffer.get_mut(..MAX_READ).unwrap_or_default();
                    let n = ready!(self.conn.poll_read(cx, buffer))?;
                    incoming.extend_from_slice(buffer.get(..n).unwrap_or_default());
                    Poll::Ready(io::Result::Ok(n))
                });
                if ready!(read)? == 0 {
                    return Poll::Ready(Ok(0));
                }
            }
            if let Err(refusal) = inner.take(&incoming) {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refusal.why)));
            }
        }
        // A visitor that keeps sending must not starve other tasks.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.lock();
        inner.keep_reader(cx);
        let ready = match inner.gate() {
            Gate::Waits => false,
            Gate::Shut => inner.exchange.is_idle(),
            Gate::Open => !inner.early.is_empty(),
        };
        if ready || !inner.out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        match inner.gate() {
            Gate::Waits => Poll::Pending,
            Gate::Shut | Gate::Open => self.conn.poll_readable(cx),
        }
    }

    fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let n = ready!(self.conn.poll_write(cx, buf))?;
        let mut inner = self.lock();
        let decided = inner.exchange.response(buf.get(..n).unwrap_or_default());
        if decided || inner.exchange.is_idle() {
            if let Some(reader) = inner.reader.take() {
                reader.wake();
            }
        }
        Poll::Ready(Ok(n))
    }

    fn holds_back(&self) -> bool {
        self.conn.holds_back()
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.conn.poll_flush(cx)
    }

    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.conn.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Flood, WakeCount};

    #[test]
    fn a_visitor_that_keeps_sending_after_its_request_yields_to_other_tasks() {
        // It ends after so many reads, so that a failing test does.
        let flood = Flood::new(10_000);
        let visitor = Arc::new(flood.conn());
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let (_, conn) = OneRequest::start(visitor, request).unwrap();
        let wakes = Arc::<WakeCount>::default();
        let waker = wakes.clone().into();
        let mut cx = Context::from_waker(&waker);
        for turn in 1..=10 {
            assert!(conn.poll_read(&mut cx, &mut [0; 100]).is_pending());
            assert_eq!(flood.reads(), u32::try_from(turn * TURN).unwrap());
            assert_eq!(wakes.get(), turn, "it wakes itself");
        }
    }
}
