//! Reading of one small HTTP response (RFC 9112), without interpreting it.

use super::chunked::Chunks;
use super::ApiError;
use crate::net::with_read_buf;
use std::io;
use std::task::{ready, Context, Poll};

/// Maximum length of a head, and of trailers, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Maximum length of a body, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// Maximum number of header fields.
const MAX_FIELDS: usize = 100;

/// The response of an API.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code, 200 to 999; interim responses are skipped.
    pub status: u16,
    /// The body without its framing, at most 64 KiB.
    pub body: Vec<u8>,
    /// The fields of the head that were asked for: their names, as they were asked for, and their values.
    pub fields: Vec<(&'static str, String)>,
}

impl Response {
    /// Returns the first value of a field that was asked for.
    #[cfg_attr(not(feature = "acme"), allow(dead_code))]
    pub fn field(&self, name: &str) -> Option<&str> {
        let field = self.fields.iter().find(|(other, _)| *other == name);
        field.map(|(_, value)| value.as_str())
    }
}

fn malformed(what: &'static str) -> ApiError {
    ApiError::Malformed(what)
}

/// How a body is framed.
#[derive(Clone, Copy)]
enum Framing {
    Length(usize),
    Chunked,
    /// Up to the end of the connection.
    ToEnd,
}

struct ParsedHead {
    /// Length of the head in bytes, with the empty line.
    length: usize,
    status: u16,
    framing: Framing,
    /// Whether another request may follow.
    persistent: bool,
    fields: Vec<(&'static str, String)>,
}

/// Reads a response from its first byte on, with these fields of its head, in lower case, and returns whether
/// the connection behind `poll_read` can be used again.
pub async fn read<P>(poll_read: P, fields: &[&'static str]) -> Result<(Response, bool), ApiError>
where
    P: FnMut(&mut Context<'_>, &mut [u8]) -> Poll<io::Result<usize>>,
{
    let mut reader = ResponseReader {
        poll_read,
        held: Vec::new(),
    };
    let mut begun = false;
    let head = loop {
        match parse(&reader.held, fields)? {
            Some(head) if head.length > MAX_HEAD => return Err(malformed("its head is too long")),
            Some(head) if head.status == 101 => return Err(malformed("it switches protocols")),
            Some(head) if head.status < 200 => {
                reader.skip(head.length);
                continue;
            }
            Some(head) => break head,
            None if reader.held.len() >= MAX_HEAD => return Err(malformed("its head is too long")),
            None => {}
        }
        match reader.more().await {
            Ok(0) if begun => return Err(malformed("the answer is cut short")),
            Err(e) if begun => return Err(ApiError::Lost(e)),
            Ok(0) => return Err(ApiError::NoResponse(None)),
            Err(e) => return Err(ApiError::NoResponse(Some(e))),
            Ok(_) => begun = true,
        }
    };
    reader.skip(head.length);
    let body = match head.framing {
        Framing::Length(length) => reader.take(length).await?,
        Framing::Chunked => reader.take_chunks().await?,
        Framing::ToEnd => reader.take_to_end().await?,
    };
    let response = Response {
        status: head.status,
        body,
        fields: head.fields,
    };
    // Surplus bytes would be taken for the next response.
    let reusable = head.persistent && reader.held.is_empty();
    Ok((response, reusable))
}

/// Parses the head at the start of `bytes`; `None` while it is incomplete.
fn parse(bytes: &[u8], wanted: &[&'static str]) -> Result<Option<ParsedHead>, ApiError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(e) => return Err(ApiError::NotHttp(e)),
    };
    let (Some(status), Some(minor)) = (head.code, head.version) else {
        return Ok(None);
    };
    let mut framing = Framing::ToEnd;
    let mut persistent = minor >= 1;
    let mut kept = Vec::new();
    for field in head.headers.iter() {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        let text = || std::str::from_utf8(field.value).unwrap_or_default().trim();
        if let Some(name) = wanted.iter().find(|name| is(name)) {
            kept.push((*name, text().to_owned()));
        }
        if is("transfer-encoding") {
            if !text().eq_ignore_ascii_case("chunked") {
                return Err(malformed("its transfer coding is unknown"));
            }
            framing = Framing::Chunked;
        } else if is("content-length") {
            let digits = text();
            if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
                return Err(malformed("its length is not a number"));
            }
            let length = digits.parse().unwrap_or(usize::MAX);
            match framing {
                Framing::ToEnd => framing = Framing::Length(length),
                Framing::Length(other) if other == length => {}
                Framing::Length(_) => return Err(malformed("it has two lengths")),
                // The coding takes precedence, and the connection is not to be trusted (RFC 9112,
                // section 6.3).
                Framing::Chunked => persistent = false,
            }
        } else if is("connection") {
            let mut options = text().split(',');
            persistent &= !options.any(|option| option.trim().eq_ignore_ascii_case("close"));
        }
    }
    if status < 200 || matches!(status, 204 | 304) {
        framing = Framing::Length(0);
    }
    Ok(Some(ParsedHead {
        length,
        status,
        framing,
        persistent: persistent && !matches!(framing, Framing::ToEnd),
        fields: kept,
    }))
}

struct ResponseReader<P> {
    poll_read: P,
    /// Bytes that were read and not consumed yet.
    held: Vec<u8>,
}

impl<P> ResponseReader<P>
where
    P: FnMut(&mut Context<'_>, &mut [u8]) -> Poll<io::Result<usize>>,
{
    /// Reads available bytes. 0 is the end.
    async fn more(&mut self) -> io::Result<usize> {
        std::future::poll_fn(|cx| {
            with_read_buf(|scratch| {
                let n = ready!((self.poll_read)(cx, scratch))?;
                self.held
                    .extend_from_slice(scratch.get(..n).unwrap_or_default());
                Poll::Ready(Ok(n))
            })
        })
        .await
    }

    async fn need_more(&mut self) -> Result<(), ApiError> {
        match self.more().await {
            Ok(0) => Err(malformed("the answer is cut short")),
            Ok(_) => Ok(()),
            Err(e) => Err(ApiError::Lost(e)),
        }
    }

    fn skip(&mut self, n: usize) {
        self.held.drain(..n.min(self.held.len()));
    }

    async fn take(&mut self, n: usize) -> Result<Vec<u8>, ApiError> {
        if n > MAX_BODY {
            return Err(too_large());
        }
        while self.held.len() < n {
            self.need_more().await?;
        }
        Ok(self.held.drain(..n).collect())
    }

    async fn take_chunks(&mut self) -> Result<Vec<u8>, ApiError> {
        let (mut chunks, mut body) = (Chunks::new(), Vec::new());
        loop {
            let mut rest = self.held.as_slice();
            while !rest.is_empty() && chunks != Chunks::Last {
                let data = chunks.data(&mut rest);
                body.extend_from_slice(data.map_err(|_| malformed("its chunks are malformed"))?);
                if body.len() > MAX_BODY {
                    return Err(too_large());
                }
            }
            let used = self.held.len().saturating_sub(rest.len());
            self.skip(used);
            if chunks == Chunks::Last {
                self.skip_trailers().await?;
                return Ok(body);
            }
            self.need_more().await?;
        }
    }

    async fn take_to_end(&mut self) -> Result<Vec<u8>, ApiError> {
        while self.held.len() <= MAX_BODY {
            if self.more().await.map_err(ApiError::Lost)? == 0 {
                return Ok(std::mem::take(&mut self.held));
            }
        }
        Err(too_large())
    }

    /// Skips everything up to an empty line.
    async fn skip_trailers(&mut self) -> Result<(), ApiError> {
        loop {
            if self.held.starts_with(b"\r\n") {
                self.skip(2);
                return Ok(());
            }
            let at = self.held.windows(4).position(|four| four == b"\r\n\r\n");
            match at.map(|at| at.saturating_add(4)) {
                Some(end) if end <= MAX_HEAD => {
                    self.skip(end);
                    return Ok(());
                }
                None if self.held.len() < MAX_HEAD => self.need_more().await?,
                _ => return Err(malformed("its trailers are too long")),
            }
        }
    }
}

fn too_large() -> ApiError {
    malformed("the answer is larger than 64 KiB")
}
