//! A connection to a service on which a rule edits every request. Requests that cannot be followed
//! with certainty are answered with 400 or 431, and the connection is closed.

use super::request_edits::TOO_MANY_PASSWORDS;
use crate::logging::FirstRequest;
use crate::net::follow::{Exchange, RequestRule, RequestStep};
use crate::net::{Conn, ConnLayer};
use crate::sync::{Mutex, MutexGuard};
use std::sync::Arc;
use std::task::{ready, Context, Poll, Waker};
use std::{fmt, io};

/// Maximum bytes taken from a visitor at a time.
const MAX_READ: usize = 16 * 1024;
/// Maximum bytes that are read from a refused visitor and dropped. Closing with unread bytes would
/// reset the connection, and the visitor could lose the response.
const MAX_DISCARDED: usize = 256 * 1024;
/// Maximum bytes that are held while the rule cannot decide yet, of a visitor that cannot be made to wait.
const MAX_HELD: usize = 64 * 1024;

/// The connection to the service. Written bytes come from the visitor, read bytes go to it.
pub struct RewritingConn {
    conn: Conn,
    rule: Box<dyn RequestRule>,
    /// Whether the visitor can be made to wait, without others of its tunnel (GT/1).
    has_window: bool,
    inner: Mutex<RewriteState>,
}

struct RewriteState {
    exchange: Exchange,
    /// Bytes of the visitor that were read before and are not processed yet.
    early: Vec<u8>,
    /// Bytes that the service has not taken yet.
    out: Vec<u8>,
    /// Whether the service's direction ends behind `out`.
    service_ended: bool,
    /// Bytes of this end's own response that the visitor has not read yet.
    answer: Vec<u8>,
    /// Whether the visitor's direction ends behind `answer`.
    finished: bool,
    /// Number of bytes of a refused visitor that were read and dropped.
    forgotten: usize,
    /// Whether the rule cannot decide yet.
    is_undecided: bool,
    /// The writer's waker, while it waits for the service's response.
    writer: Option<Waker>,
    /// The reader's waker.
    reader: Option<Waker>,
    /// The record of the first request, until its response has come.
    first: Option<Arc<FirstRequest>>,
}

impl RewritingConn {
    /// Wraps a connection to the service. `early` was read from the visitor before.
    /// `first` is the record that the status of the first response is for, `has_window` whether the
    /// visitor can be made to wait.
    pub fn start(
        conn: Conn,
        rule: impl RequestRule + 'static,
        early: Vec<u8>,
        first: Option<Arc<FirstRequest>>,
        has_window: bool,
    ) -> Conn {
        let layer: Box<dyn ConnLayer> = Box::new(Self {
            conn,
            rule: Box::new(rule),
            has_window,
            inner: Mutex::new(RewriteState {
                exchange: Exchange::default(),
                early,
                out: Vec::new(),
                service_ended: false,
                answer: Vec::new(),
                finished: false,
                forgotten: 0,
                is_undecided: false,
                writer: None,
                reader: None,
                first,
            }),
        });
        Conn::from(layer)
    }

    fn lock(&self) -> MutexGuard<'_, RewriteState> {
        self.inner.lock()
    }
}

impl fmt::Debug for RewritingConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rewriting")
            .field("conn", &self.conn)
            .finish_non_exhaustive()
    }
}

impl RewriteState {
    /// Writes the bytes of `out` to the service.
    fn poll_out(&mut self, cx: &mut Context<'_>, conn: &Conn) -> Poll<io::Result<()>> {
        let mut sent = 0;
        let result = loop {
            let left = self.out.get(sent..).unwrap_or_default();
            if left.is_empty() {
                break Poll::Ready(Ok(()));
            }
            match conn.poll_write(cx, left) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => sent = sent.saturating_add(n),
                Poll::Ready(Err(e)) => break Poll::Ready(Err(e)),
                Poll::Pending => break Poll::Pending,
            }
        };
        self.out.drain(..sent.min(self.out.len()));
        if self.out.is_empty() {
            self.out = Vec::new();
            if std::mem::take(&mut self.service_ended) {
                return conn.poll_shutdown(cx);
            }
        }
        result
    }

    /// Processes bytes of the visitor behind those that were read before.
    fn poll_push(
        &mut self,
        cx: &mut Context<'_>,
        conn: &Conn,
        rule: &dyn RequestRule,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_out(cx, conn))?;
            if self.early.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let mut early = std::mem::take(&mut self.early);
            let taken = self.poll_take(cx, conn, rule, &early);
            if let Poll::Ready(Ok(n)) = &taken {
                early.drain(..(*n).min(early.len()));
            }
            self.early = early;
            ready!(taken)?;
        }
    }

    /// Processes some of the visitor's bytes; nothing must wait before them.
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        conn: &Conn,
        rule: &dyn RequestRule,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let bytes = bytes.get(..MAX_READ).unwrap_or(bytes);
        if self.exchange.is_refused() {
            self.forgotten = self.forgotten.saturating_add(bytes.len());
            if self.forgotten > MAX_DISCARDED {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            return Poll::Ready(Ok(bytes.len()));
        }
        let step = loop {
            let step = self.exchange.request(bytes, rule);
            self.is_undecided = step == RequestStep::Undecided;
            if !self.is_undecided {
                break step;
            }
            ready!(rule.poll_decision(cx));
        };
        match step {
            RequestStep::Pass(n) => {
                let piece = bytes.get(..n).unwrap_or_default();
                let written = match conn.poll_write(cx, piece) {
                    Poll::Ready(result) => result?,
                    Poll::Pending => 0,
                };
                let rest = piece.get(written..).unwrap_or_default();
                self.out.extend_from_slice(rest);
                Poll::Ready(Ok(n))
            }
            RequestStep::Keep(n) => Poll::Ready(Ok(n)),
            RequestStep::Send { taken, bytes, .. } => {
                self.out = bytes;
                match self.poll_out(cx, conn) {
                    Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
                    _ => Poll::Ready(Ok(taken)),
                }
            }
            RequestStep::Wait | RequestStep::Undecided => {
                keep(&mut self.writer, cx);
                Poll::Pending
            }
            RequestStep::Refuse(refusal, _) => {
                log::debug!("a visitor's request was refused: {}", refusal.why);
                let status = refusal.status.split(' ').next();
                let status = status.and_then(|status| status.parse().ok());
                if let (Some(first), Some(status)) = (self.first.take(), status) {
                    first.status(status);
                }
                self.service_ended = self.exchange.has_broken_off();
                self.wake_reader();
                Poll::Ready(Ok(bytes.len()))
            }
        }
    }

    /// Takes bytes of a visitor that cannot be made to wait while the rule cannot decide yet. If there
    /// are too many, its request is refused.
    fn hold(&mut self, bytes: &[u8]) -> usize {
        if self.early.len().saturating_add(bytes.len()) <= MAX_HELD {
            self.early.extend_from_slice(bytes);
            return bytes.len();
        }
        self.is_undecided = false;
        self.early = Vec::new();
        self.exchange.refuse_head(TOO_MANY_PASSWORDS);
        if let Some(first) = self.first.take() {
            first.status(503);
        }
        self.wake_reader();
        bytes.len()
    }

    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Queues this end's own response behind those of the service, once it is due.
    fn take_answer(&mut self) {
        if let Some(answer) = self.exchange.take_answer() {
            self.answer = answer.into_bytes();
            self.finished = true;
        }
    }

    /// Whether a read returns something that the service has not sent.
    fn has_own(&self) -> bool {
        self.finished || self.exchange.is_answer_due()
    }
}

fn keep(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *place = Some(cx.waker().clone()),
    }
}

impl ConnLayer for RewritingConn {
    fn below(&self) -> &Conn {
        &self.conn
    }

    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.lock();
        inner.take_answer();
        if inner.finished {
            let n = inner.answer.len().min(buf.len());
            if let (Some(to), Some(from)) = (buf.get_mut(..n), inner.answer.get(..n)) {
                to.copy_from_slice(from);
            }
            inner.answer.drain(..n);
            return Poll::Ready(Ok(n));
        }
        keep(&mut inner.reader, cx);
        let n = ready!(self.conn.poll_read(cx, buf))?;
        let may_go_on = inner.exchange.response(buf.get(..n).unwrap_or_default());
        if let (Some(first), Some(status)) = (&inner.first, inner.exchange.first_status()) {
            first.status(status);
            inner.first = None;
        }
        if may_go_on {
            if let Some(writer) = inner.writer.take() {
                writer.wake();
            }
        }
        Poll::Ready(Ok(n))
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.lock();
        if inner.has_own() {
            return Poll::Ready(Ok(()));
        }
        keep(&mut inner.reader, cx);
        self.conn.poll_readable(cx)
    }

    fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.lock();
        let mut taken = inner.poll_push(cx, &self.conn, &*self.rule).map_ok(|()| 0);
        if matches!(taken, Poll::Ready(Ok(_))) && !buf.is_empty() {
            taken = inner.poll_take(cx, &self.conn, &*self.rule, buf);
        }
        match taken {
            Poll::Pending if inner.is_undecided && !self.has_window && !buf.is_empty() => {
                Poll::Ready(Ok(inner.hold(buf)))
            }
            taken => taken,
        }
    }

    fn holds_back(&self) -> bool {
        let inner = self.lock();
        !inner.out.is_empty() || !inner.early.is_empty() || inner.service_ended
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().poll_push(cx, &self.conn, &*self.rule)
    }

    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.lock();
        ready!(inner.poll_push(cx, &self.conn, &*self.rule))?;
        inner.exchange.end();
        inner.wake_reader();
        self.conn.poll_shutdown(cx)
    }
}
