//! The built-in file service, `-local file:///path`: a folder as a small, read-only web server. It
//! is not a proxy and never writes to the disk.
//!
//! A request passes through `head` (its method and fields), the check of its password, `target` (its path), `root` (opening
//! that path, and nothing outside the folder), `response` (status and fields) and `body` (reading
//! the file in pieces). Everything that touches the disk runs on a blocking thread.

mod body;
pub(crate) mod date;
pub(crate) mod head;
mod listing;
pub(crate) mod range;
mod response;
mod root;
mod status;
pub(crate) mod target;
#[cfg(test)]
mod tests;
mod types;

pub use root::FolderRoot;

use super::passwords::{PasswordCheck, PasswordVerdict};
use crate::logging::{held_back, FirstRequest, LogThrottle};
use crate::net::{timeout, DISK};
use body::FileBody;
use futures_lite::{AsyncRead, AsyncWrite, AsyncWriteExt};
use head::{After, FileRequest, HEAD_MAX};
use response::FileResponse;
use status::FileStatus;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Poll};
use std::time::Duration;

/// Maximum bytes of one read from a connection.
const MAX_READ: usize = 2 * 1024;

/// Maximum bytes read and dropped after the last response.
const DRAIN_MAX: usize = 256 * 1024;
/// Time in which they are. Over GT/1 the visitor does not learn that nothing more is answered.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What is known of the connection of a visitor.
#[derive(Default)]
pub struct FileVisitor {
    /// The check of its requests; `None` if it needs no password.
    pub password: Option<PasswordCheck>,
    /// The record of its first request, if the visit is logged.
    pub first: Option<Arc<FirstRequest>>,
    /// What was read from the connection before.
    pub inbox: Vec<u8>,
}

/// Serves the files below `root` on one connection, HTTP/1.1 or 1.0, until either end closes it.
///
/// There is no timeout: the caller limits idle time by dropping this future. An error means that
/// the connection failed, or that a file could not be sent as announced; `conn` must then be cut,
/// not closed gracefully.
pub async fn serve<C>(root: &FolderRoot, mut conn: C, visitor: FileVisitor) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let FileVisitor {
        password,
        first,
        mut inbox,
    } = visitor;
    loop {
        let (length, response) = match next_head(&mut conn, &mut inbox).await? {
            NextRequest::End => return conn.close().await,
            NextRequest::Refused(status) => (inbox.len(), FileResponse::refusal(status)),
            NextRequest::Head(length) => {
                match FileRequest::parse(inbox.get(..length).unwrap_or_default()) {
                    Ok(request) => {
                        if let Some(first) = &first {
                            first.request(request.method_name.as_bytes(), request.target);
                        }
                        (length, answer(root, &request, password.as_ref()).await)
                    }
                    Err(status) => (length, FileResponse::refusal(status)),
                }
            }
        };
        // Freed before the body takes its own memory, and before the connection idles.
        inbox.drain(..length.min(inbox.len()));
        inbox.shrink_to_fit();
        if let Some(first) = &first {
            first.status(response.code);
        }
        let after = response.after;
        send(&mut conn, response).await?;
        match after {
            After::Next | After::NextOld => {}
            After::Close => return conn.close().await,
            After::Drain => {
                conn.close().await?;
                let drained = timeout(DRAIN_TIMEOUT, drain(&mut conn, &mut inbox)).await;
                return drained.unwrap_or(Ok(()));
            }
        }
    }
}

async fn answer(
    root: &FolderRoot,
    request: &FileRequest<'_>,
    password: Option<&PasswordCheck>,
) -> FileResponse {
    let verdict = match password {
        Some(check) => check.wait(&request.authorization).await,
        None => PasswordVerdict::NotNeeded,
    };
    match verdict {
        PasswordVerdict::Right | PasswordVerdict::NotNeeded => {
            FileResponse::find(root, request).await
        }
        PasswordVerdict::Wrong => FileResponse::status(status::NO_PASSWORD, request),
        PasswordVerdict::Busy => FileResponse::status(status::UNAVAILABLE, request),
    }
}

/// The next request on a connection, or its end.
enum NextRequest {
    /// A whole head of this many bytes.
    Head(usize),
    /// A request that can only be refused, with this status.
    Refused(FileStatus),
    /// The client has closed the connection.
    End,
}

async fn next_head<C>(conn: &mut C, inbox: &mut Vec<u8>) -> io::Result<NextRequest>
where
    C: AsyncRead + Unpin,
{
    let mut searched = 0_usize;
    loop {
        // Empty lines before a request are skipped (RFC 9112, section 2.2).
        let blank = inbox
            .iter()
            .take_while(|byte| matches!(byte, b'\r' | b'\n'))
            .count();
        if blank > 0 {
            inbox.drain(..blank);
            searched = 0;
        }
        match head::end(inbox, searched.saturating_sub(3)) {
            Some(length) if length <= HEAD_MAX => return Ok(NextRequest::Head(length)),
            None if inbox.len() < HEAD_MAX => {}
            _ => return Ok(NextRequest::Refused(status::HEAD_TOO_LARGE)),
        }
        // No request begins like this, but a TLS handshake does; its end would never come.
        if inbox.first().is_some_and(|byte| !byte.is_ascii_graphic()) {
            return Ok(NextRequest::Refused(status::BAD_REQUEST));
        }
        searched = inbox.len();
        if inbox.is_empty() {
            *inbox = Vec::new();
        }
        if read(conn, inbox).await? == 0 {
            // A truncated head still gets a response.
            return Ok(if inbox.is_empty() {
                NextRequest::End
            } else {
                NextRequest::Refused(status::BAD_REQUEST)
            });
        }
    }
}

/// Appends available bytes to `inbox` and returns their number; 0 is the end. Waiting takes no
/// memory: the buffer exists only while it is being filled.
async fn read<C>(conn: &mut C, inbox: &mut Vec<u8>) -> io::Result<usize>
where
    C: AsyncRead + Unpin,
{
    poll_fn(|context| {
        let mut buffer = [0; MAX_READ];
        let count = ready!(Pin::new(&mut *conn).poll_read(context, &mut buffer))?;
        inbox.extend_from_slice(buffer.get(..count).unwrap_or_default());
        Poll::Ready(Ok(count))
    })
    .await
}

/// Sends a response. The first piece of the body goes out together with the head.
async fn send<C>(conn: &mut C, answer: FileResponse) -> io::Result<()>
where
    C: AsyncWrite + Unpin,
{
    let FileResponse {
        head: mut piece,
        mut body,
        ..
    } = answer;
    loop {
        if !matches!(body, FileBody::Done) {
            let read;
            let reading = DISK.run(move || {
                let read = body.read(&mut piece);
                (body, piece, read)
            });
            (body, piece, read) = reading.await;
            if let Err(error) = read {
                static LINES: LogThrottle = LogThrottle::new();
                if let Some(others) = LINES.allow() {
                    log::warn!("{error}{}", held_back(others));
                }
                return Err(error);
            }
        }
        conn.write_all(&piece).await?;
        piece.clear();
        if matches!(body, FileBody::Done) {
            return conn.flush().await;
        }
    }
}

/// Reads and drops the bytes that a client still sends, so that a reset does not discard the
/// response that it has not read yet. Gives up after [`DRAIN_MAX`] bytes.
async fn drain<C>(conn: &mut C, inbox: &mut Vec<u8>) -> io::Result<()>
where
    C: AsyncRead + Unpin,
{
    let mut left = DRAIN_MAX;
    loop {
        inbox.clear();
        match read(conn, inbox).await {
            Ok(1..) if left > 0 => left = left.saturating_sub(inbox.len()),
            // The response is sent; how the client closes does not matter.
            _ => return Ok(()),
        }
    }
}
