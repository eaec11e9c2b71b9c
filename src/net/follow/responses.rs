//! The service's direction of a followed connection: which response belongs to which request, and
//! where it ends. Its bytes are passed on in any case, so a malformed response is not refused; from
//! there on, later responses are not found.

use super::head::MAX_FIELDS;
use super::requests::ExpectedResponse;
use crate::net::http::chunked::{within, Chunks};
use std::collections::VecDeque;
use std::mem::MaybeUninit;

/// Maximum length of a response head that is parsed, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Room in bytes that is made for a head in advance.
const USUAL_HEAD: usize = 1024;

/// The part of the stream that the next byte belongs to.
#[derive(Debug)]
enum ResponseState {
    /// The bytes of a head so far.
    Head(Vec<u8>),
    Length(u64),
    Chunked(Chunks),
    /// Trailers, with the length of the current line without its end.
    Trailers(usize),
    /// The body ends with the connection, or its end is unknown.
    Unbounded,
}

/// The state of the service's direction.
#[derive(Debug)]
pub struct Responses {
    state: ResponseState,
    /// Requests without a whole response, oldest first.
    waiting: VecDeque<ExpectedResponse>,
    /// The status of the first response that is not provisional.
    first_status: Option<u16>,
}

impl Default for Responses {
    fn default() -> Self {
        Self {
            state: ResponseState::Head(Vec::new()),
            waiting: VecDeque::new(),
            first_status: None,
        }
    }
}

/// A parsed response head.
struct ResponseHead {
    status: u16,
    body: ResponseState,
}

impl Responses {
    /// Returns the number of requests without a whole response.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Returns the status of the first response that is not provisional.
    pub fn first_status(&self) -> Option<u16> {
        self.first_status
    }

    /// Notes that a request goes to the service.
    pub fn expect(&mut self, asks: ExpectedResponse) {
        if !matches!(self.state, ResponseState::Unbounded) {
            self.waiting.push_back(asks);
        }
    }

    /// Notes that the newest request will never be complete. False if its response has begun.
    pub fn withdraw(&mut self) -> bool {
        let begun = match &self.state {
            ResponseState::Head(head) => !head.is_empty(),
            ResponseState::Unbounded => return false,
            ResponseState::Length(_) | ResponseState::Chunked(_) | ResponseState::Trailers(_) => {
                true
            }
        };
        if begun && self.waiting.len() < 2 {
            return false;
        }
        self.waiting.pop_back();
        true
    }

    /// Whether the start of the next response is unknown.
    pub fn is_unbounded(&self) -> bool {
        matches!(self.state, ResponseState::Unbounded)
    }

    /// Whether every request has a whole response.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
            && matches!(&self.state, ResponseState::Head(head) if head.is_empty())
    }

    /// Processes the next bytes. Returns the service's decision about a requested switch to another
    /// protocol when they contain it.
    pub fn take(&mut self, bytes: &[u8]) -> Option<bool> {
        let (mut rest, mut decided) = (bytes, None);
        while let Some(first) = rest.first() {
            let n = match &mut self.state {
                ResponseState::Unbounded => break,
                ResponseState::Length(left) => {
                    let (n, after) = within(*left, rest.len());
                    *left = after;
                    if after == 0 {
                        self.complete();
                    }
                    n
                }
                ResponseState::Chunked(chunks) => match chunks.take(rest) {
                    Ok(n) => {
                        if *chunks == Chunks::Last {
                            self.state = ResponseState::Trailers(0);
                        }
                        n
                    }
                    Err(_) => {
                        self.lose_track();
                        break;
                    }
                },
                ResponseState::Trailers(line) => {
                    match first {
                        b'\n' if *line == 0 => self.complete(),
                        b'\n' => *line = 0,
                        b'\r' => {}
                        _ => *line = line.saturating_add(1),
                    }
                    1
                }
                ResponseState::Head(head) => {
                    if self.waiting.is_empty() || head.len() >= MAX_HEAD {
                        self.lose_track();
                        break;
                    }
                    let end = rest.iter().position(|b| *b == b'\n');
                    let line = end.map_or(rest.len(), |end| end.saturating_add(1));
                    let n = line.min(MAX_HEAD.saturating_sub(head.len()));
                    if head.is_empty() {
                        head.reserve(rest.len().min(USUAL_HEAD));
                    }
                    head.extend_from_slice(rest.get(..n).unwrap_or_default());
                    if head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n") {
                        decided = self.begin().or(decided);
                    }
                    n
                }
            };
            rest = rest.get(n..).unwrap_or_default();
        }
        decided
    }

    fn lose_track(&mut self) {
        self.state = ResponseState::Unbounded;
        self.waiting.clear();
    }

    fn complete(&mut self) {
        self.waiting.pop_front();
        self.state = ResponseState::Head(Vec::new());
    }

    /// Processes a complete head.
    fn begin(&mut self) -> Option<bool> {
        let ResponseState::Head(bytes) = &self.state else {
            return None;
        };
        let (Some(head), Some(asks)) = (parse(bytes), self.waiting.front().copied()) else {
            self.lose_track();
            return None;
        };
        if head.status == 101 || head.status >= 200 {
            self.first_status.get_or_insert(head.status);
        }
        // A response to CONNECT with a length is an ordinary one, as of a server that treats all
        // methods alike: a tunnel has no length (RFC 9110, section 9.3.6).
        let has_length = !matches!(head.body, ResponseState::Unbounded);
        match (asks, head.status) {
            (ExpectedResponse::Upgrade, 101) => {
                self.lose_track();
                return Some(true);
            }
            (ExpectedResponse::Connect, 200..=299) if !has_length => {
                self.lose_track();
                return Some(true);
            }
            (_, 101) => {
                self.lose_track();
                return None;
            }
            (_, 100..=199) => {
                self.state = ResponseState::Head(Vec::new());
                return None;
            }
            (ExpectedResponse::Head, _) | (_, 204 | 304) => self.complete(),
            _ => match head.body {
                ResponseState::Length(0) => self.complete(),
                ResponseState::Unbounded => self.lose_track(),
                body => self.state = body,
            },
        }
        matches!(asks, ExpectedResponse::Upgrade | ExpectedResponse::Connect).then_some(false)
    }
}

/// Parses the status of a response and how its body ends (RFC 9112, section 6.3).
fn parse(bytes: &[u8]) -> Option<ResponseHead> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let parsed = parser.parse_response_with_uninit_headers(&mut head, bytes, &mut fields);
    if !parsed.ok()?.is_complete() {
        return None;
    }
    let mut body = ResponseState::Unbounded;
    for field in head.headers.iter() {
        let text = || std::str::from_utf8(field.value).unwrap_or_default().trim();
        if field.name.eq_ignore_ascii_case("transfer-encoding") {
            let last = text().rsplit(',').next().unwrap_or_default().trim();
            if !last.eq_ignore_ascii_case("chunked") {
                body = ResponseState::Unbounded;
                break;
            }
            body = ResponseState::Chunked(Chunks::new());
        } else if field.name.eq_ignore_ascii_case("content-length") {
            let text = text();
            let is_number = text.bytes().all(|b| b.is_ascii_digit());
            let length = text.parse().ok().filter(|_| is_number)?;
            match body {
                ResponseState::Chunked(_) => {}
                ResponseState::Length(other) if other != length => return None,
                _ => body = ResponseState::Length(length),
            }
        }
    }
    Some(ResponseHead {
        status: head.code?,
        body,
    })
}
