//! Tunnels in WebSockets (docs/wire.md, "WebSocket"): a layer that carries the bytes of a connection
//! in binary messages. Not the requests before them, see `handshake`.

mod frames;
mod handshake;
mod mask;
#[cfg(test)]
mod tests;

#[cfg(test)]
use frames::Violation;
pub use frames::{FrameReader, FramesEnd};
#[cfg(feature = "server")]
pub use handshake::{response, UpgradeRequest};
#[cfg(feature = "client")]
pub use handshake::{ClientHandshake, UpgradeAnswer, UpgradeRefusal};

use super::{with_read_buf, Conn, ConnLayer};
use crate::sync::Mutex;
use frames::MAX_HEADER;
use mask::{Mask, Masks};
use smallvec::SmallVec;
use std::io;
use std::sync::Arc;
use std::task::{ready, Context, Poll, Waker};
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::FrameHeader;

/// Maximum payload of a message that this end sends: as much as a tunnel writes at a time.
const MAX_MESSAGE: usize = 128 * 1024;
/// Maximum bytes that are copied behind a header, so that both are written by one call, where the
/// payload needs no mask. The rest is written from where it is.
const COPIED: usize = 16 * 1024;
/// Reads without payload in a row before other tasks run.
const MAX_READS_IN_A_ROW: u32 = 4;
/// The codes of close frames for the usual end and for a violation (RFC 6455, section 7.4.1).
const NORMAL: u16 = 1000;
const PROTOCOL_ERROR: u16 = 1002;

/// An end of a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
// A program of one role is one end of all of its WebSockets.
#[cfg_attr(not(all(feature = "server", feature = "client")), allow(dead_code))]
pub enum Side {
    /// The end that has connected, which masks what it sends.
    Client,
    /// The end that has accepted.
    Server,
}

/// A WebSocket as a connection. Messages have no meaning: it writes the bytes of each write as one,
/// and reads payload as it arrives.
#[derive(Debug)]
struct WebSocketConn {
    below: Arc<Conn>,
    reading: Mutex<Reading>,
    /// Locked after `reading`.
    writing: Mutex<Writing>,
}

#[derive(Debug)]
struct Reading {
    frames: FrameReader,
    /// Bytes that were read before and are not decoded yet.
    early: Vec<u8>,
    end: Option<FramesEnd>,
}

#[derive(Debug)]
struct Writing {
    /// The masks of a client's frames.
    masks: Option<Box<Masks>>,
    /// Bytes of the current message that were announced in its header and are not written yet.
    left: usize,
    /// The mask of the current message, at its next byte.
    mask: Option<Mask>,
    /// The rest of a header or of a control frame that the connection below has not taken yet.
    out: SmallVec<[u8; MAX_HEADER]>,
    /// The payload of the ping to answer behind the current message.
    ping: Option<Vec<u8>>,
    close: CloseState,
    /// The code of the close frame.
    code: u16,
    /// Whether the task that writes waits for the connection below, and will write again.
    is_waiting: bool,
}

/// The state of this end's close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CloseState {
    Open,
    /// It is due behind the current message.
    Due,
    /// It has been written, or is in `out`.
    Sent,
}

/// Returns a connection in a WebSocket that has been agreed on. `early` are the bytes of the peer that
/// were read before.
pub fn start(below: Arc<Conn>, side: Side, early: Vec<u8>) -> Conn {
    let layer: Box<dyn ConnLayer> = Box::new(WebSocketConn {
        below,
        reading: Mutex::new(Reading {
            frames: FrameReader::new(side),
            early,
            end: None,
        }),
        writing: Mutex::new(Writing {
            masks: (side == Side::Client).then(Box::default),
            left: 0,
            mask: None,
            out: SmallVec::new(),
            ping: None,
            close: CloseState::Open,
            code: NORMAL,
            is_waiting: false,
        }),
    });
    Conn::from(layer)
}

/// Returns the header of a frame.
fn header(opcode: OpCode, length: usize, mask: Option<[u8; 4]>) -> SmallVec<[u8; MAX_HEADER]> {
    let header = FrameHeader {
        opcode,
        mask,
        ..FrameHeader::default()
    };
    let mut bytes = SmallVec::new();
    // Writing to memory does not fail.
    let _ = header.format(length as u64, &mut bytes);
    bytes
}

impl Reading {
    /// Reads bytes that came before, or from the connection below.
    fn poll_bytes(
        &mut self,
        cx: &mut Context<'_>,
        below: &Conn,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.early.is_empty() {
            return below.poll_read(cx, buf);
        }
        let n = self.early.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), self.early.get(..n)) {
            to.copy_from_slice(from);
        }
        self.early.drain(..n);
        if self.early.is_empty() {
            self.early = Vec::new();
        }
        Poll::Ready(Ok(n))
    }
}

impl Writing {
    fn next_mask(&mut self) -> io::Result<Option<[u8; 4]>> {
        self.masks.as_mut().map(|masks| masks.next()).transpose()
    }

    /// Appends a control frame to what goes out.
    fn push_control(&mut self, control: Control, payload: &[u8]) -> io::Result<()> {
        let key = self.next_mask()?;
        self.out = header(OpCode::Control(control), payload.len(), key);
        let begin = self.out.len();
        self.out.extend_from_slice(payload);
        if let (Some(key), Some(masked)) = (key, self.out.get_mut(begin..)) {
            Mask::new(key).apply_into(payload, masked);
        }
        Ok(())
    }

    /// Writes what has to be written before the next message, or the rest of the current one.
    fn poll_out(&mut self, cx: &mut Context<'_>, below: &Conn) -> Poll<io::Result<()>> {
        loop {
            while !self.out.is_empty() {
                let n = ready!(below.poll_write(cx, &self.out))?;
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.out.drain(..n.min(self.out.len()));
            }
            if self.left > 0 || self.close == CloseState::Sent {
                return Poll::Ready(Ok(()));
            }
            if let Some(ping) = self.ping.take() {
                self.push_control(Control::Pong, &ping)?;
            } else if self.close == CloseState::Due {
                self.close = CloseState::Sent;
                self.push_control(Control::Close, &self.code.to_be_bytes())?;
            } else {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Writes some of `buf`, in the current message or in a new one.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        below: &Conn,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.close != CloseState::Open {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        loop {
            ready!(self.poll_out(cx, below))?;
            let written = match self.left {
                0 => ready!(self.poll_begin(cx, below, buf))?,
                _ => ready!(self.poll_continue(cx, below, buf))?,
            };
            // A message may have begun with a part of its header alone.
            if written > 0 {
                return Poll::Ready(Ok(written));
            }
        }
    }

    /// Begins a message of `buf`. Returns how much of its payload was written; `out` may have the rest
    /// of its header then.
    fn poll_begin(
        &mut self,
        cx: &mut Context<'_>,
        below: &Conn,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let length = buf.len().min(MAX_MESSAGE);
        let key = self.next_mask()?;
        let header = header(OpCode::Data(Data::Binary), length, key);
        let mask = key.map(Mask::new);
        let most = mask.map_or(COPIED, |_| usize::MAX);
        let written = with_read_buf(|scratch| {
            let (head, payload) = scratch.split_at_mut_checked(header.len())?;
            head.copy_from_slice(&header);
            let copied = length.min(most).min(payload.len());
            let payload = payload.get_mut(..copied)?;
            let bytes = buf.get(..copied)?;
            match mask {
                Some(mut mask) => mask.apply_into(bytes, payload),
                None => payload.copy_from_slice(bytes),
            }
            let frame = scratch.get(..header.len().saturating_add(copied))?;
            Some(below.poll_write(cx, frame))
        });
        // The buffer is larger than a header.
        let written = ready!(written.unwrap_or(Poll::Ready(Ok(0))))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let payload = written.saturating_sub(header.len());
        self.out = header.get(written..).unwrap_or_default().into();
        self.left = length.saturating_sub(payload);
        self.mask = mask;
        self.skip(payload);
        Poll::Ready(Ok(payload))
    }

    /// Writes more of the current message.
    fn poll_continue(
        &mut self,
        cx: &mut Context<'_>,
        below: &Conn,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let payload = buf.get(..self.left).unwrap_or(buf);
        let written = match self.mask {
            None => below.poll_write(cx, payload),
            Some(mut mask) => with_read_buf(|scratch| {
                let length = payload.len().min(scratch.len());
                let (to, from) = (scratch.get_mut(..length), payload.get(..length));
                let (Some(to), Some(from)) = (to, from) else {
                    return Poll::Ready(Ok(0));
                };
                mask.apply_into(from, to);
                below.poll_write(cx, to)
            }),
        };
        let written = ready!(written)?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.left = self.left.saturating_sub(written);
        self.skip(written);
        Poll::Ready(Ok(written))
    }

    fn skip(&mut self, payload: usize) {
        if let Some(mask) = &mut self.mask {
            mask.skip(payload);
        }
    }

    /// Writes what is due, and flushes the connection below.
    fn poll_flush(&mut self, cx: &mut Context<'_>, below: &Conn) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx, below))?;
        below.poll_flush(cx)
    }

    /// Notes whether a write has to wait, by its result.
    fn noting<T>(&mut self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.is_waiting = result.is_pending();
        result
    }
}

impl WebSocketConn {
    /// Answers a ping: at once if no write is going on, otherwise after the current message.
    fn answer(&self, ping: Vec<u8>) {
        let mut writing = self.writing.lock();
        writing.ping = Some(ping);
        if !writing.is_waiting {
            // A waker of the reader would take the place of that of the task that writes. What does
            // not go out now goes with the next write.
            let mut cx = Context::from_waker(Waker::noop());
            let _ = writing.poll_flush(&mut cx, &self.below);
        }
    }

    /// Notes the end of what the peer sends.
    fn end(&self, end: FramesEnd) {
        if let FramesEnd::Violated(violation) = end {
            if let Ok(peer) = self.below.peer_addr() {
                log::debug!("{peer}: {violation}");
            }
            self.writing.lock().code = PROTOCOL_ERROR;
        }
    }
}

impl ConnLayer for WebSocketConn {
    fn below(&self) -> &Conn {
        &self.below
    }

    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut reading = self.reading.lock();
        for _ in 0..MAX_READS_IN_A_ROW {
            match reading.end {
                Some(FramesEnd::Closed) => return Poll::Ready(Ok(0)),
                Some(FramesEnd::Violated(violation)) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, violation.to_string());
                    return Poll::Ready(Err(error));
                }
                None => {}
            }
            let n = ready!(reading.poll_bytes(cx, &self.below, buf))?;
            if n == 0 {
                // Many peers close without a close frame. The tunnel knows whether it was cut.
                return Poll::Ready(Ok(0));
            }
            let decoded = reading.frames.decode(buf.get_mut(..n).unwrap_or_default());
            reading.end = decoded.end;
            decoded.end.into_iter().for_each(|end| self.end(end));
            if let Some(ping) = decoded.ping {
                self.answer(ping);
            }
            if decoded.payload > 0 {
                return Poll::Ready(Ok(decoded.payload));
            }
        }
        // A peer that sends frames without payload must not keep other tasks from running.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let reading = self.reading.lock();
        if !reading.early.is_empty() || reading.end.is_some() {
            return Poll::Ready(Ok(()));
        }
        self.below.poll_readable(cx)
    }

    fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut writing = self.writing.lock();
        let written = writing.poll_write(cx, &self.below, buf);
        writing.noting(written)
    }

    fn holds_back(&self) -> bool {
        let writing = self.writing.lock();
        let is_due = writing.left == 0 && writing.ping.is_some();
        is_due || !writing.out.is_empty() || self.below.holds_back()
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut writing = self.writing.lock();
        let flushed = writing.poll_flush(cx, &self.below);
        writing.noting(flushed)
    }

    /// Sends a close frame, which ends this direction. The connection below stays open for what the
    /// peer still sends: proxies on the way may close both directions when one ends.
    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut writing = self.writing.lock();
        if writing.left > 0 {
            // A message was cut, so no frame can follow.
            return self.below.poll_shutdown(cx);
        }
        if writing.close == CloseState::Open {
            writing.close = CloseState::Due;
        }
        let flushed = writing.poll_flush(cx, &self.below);
        writing.noting(flushed)
    }
}
