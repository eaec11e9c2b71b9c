//! The visitor's direction of a followed connection: a sequence of requests.

use super::head::{check_trailers, request_line, Edits, RequestHead, MAX_FIELDS};
use super::section::{Complete, HeaderSection};
use super::{is_head_request, HttpRefusal};
use crate::net::http::chunked::{within, Chunks};
use std::task::{Context, Poll};

/// A rule that decides about each request of a connection.
pub trait RequestRule: Send + Sync {
    /// Decides about the request with this head.
    fn decide(&self, head: &RequestHead<'_>) -> RuleDecision;

    /// Waits until a decision that was put off ([`RuleDecision::Later`]) can be made. A rule that puts
    /// decisions off must have this.
    fn poll_decision(&self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    /// Whether a request may have a trailer with this name behind its body. One that must not is
    /// refused, since a service may merge trailers into the head.
    fn allows_trailer(&self, _name: &[u8]) -> bool {
        true
    }
}

/// The decision about a request.
#[derive(Debug)]
pub enum RuleDecision {
    /// The request goes to the service with its head edited.
    Forward(Edits),
    /// The request is answered here, and the connection is closed.
    Refuse(HttpRefusal),
    /// The decision takes longer. The rule is asked again about the same head.
    Later,
}

/// The kind of response that a request has, which determines where the response ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedResponse {
    /// A response whose head tells where it ends.
    Ordinary,
    /// A response to HEAD, which has no body.
    Head,
    /// A response that may be 101, which switches to another protocol.
    Upgrade,
    /// A response to CONNECT; one with a 2xx status starts a tunnel.
    Connect,
}

/// An instruction to the caller: what to do with the next bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum RequestStep {
    /// This many bytes, at least one, go to the service unchanged.
    Pass(usize),
    /// This many bytes have been consumed; nothing goes to the service yet.
    Keep(usize),
    /// Bytes have been consumed, and others go to the service in their place.
    Send {
        /// Number of bytes that have been consumed.
        taken: usize,
        /// The bytes for the service.
        bytes: Vec<u8>,
        /// The response to expect, if `bytes` begin a request.
        begins: Option<ExpectedResponse>,
    },
    /// No bytes are consumed before the service has answered more.
    Wait,
    /// No bytes are consumed before the rule can decide.
    Undecided,
    /// No bytes go to the service, now or later. True if the request is a HEAD.
    Refuse(HttpRefusal, bool),
}

/// The part of the stream that the next byte belongs to.
#[derive(Debug)]
enum RequestState {
    Head(HeaderSection),
    Length(u64),
    Chunked(Chunks),
    Trailers(HeaderSection),
    /// Behind a request to switch protocols, until the service has decided.
    Switching,
    /// Another protocol than HTTP/1.
    Opaque,
    Refused,
}

/// The state of a request to switch to another protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProtocolSwitch {
    NotAsked,
    Asked,
    Granted,
}

/// How a request's body is framed.
enum BodyLength {
    Length(u64),
    Chunked,
}

/// The state of the visitor's direction.
#[derive(Debug)]
pub struct Requests {
    state: RequestState,
    switch: ProtocolSwitch,
    begun: bool,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            state: RequestState::Head(HeaderSection::default()),
            switch: ProtocolSwitch::NotAsked,
            begun: false,
        }
    }
}

impl Requests {
    /// Creates a state that takes no more requests.
    pub fn refused() -> Self {
        Self {
            state: RequestState::Refused,
            switch: ProtocolSwitch::NotAsked,
            begun: false,
        }
    }

    /// Whether no more requests are taken.
    pub fn is_refused(&self) -> bool {
        matches!(self.state, RequestState::Refused)
    }

    /// Whether a whole head has been consumed.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether a request to switch protocols awaits the service's decision.
    pub fn is_switching(&self) -> bool {
        matches!(self.state, RequestState::Switching)
    }

    /// Whether the next byte begins a request.
    pub fn is_between(&self) -> bool {
        matches!(&self.state, RequestState::Head(head) if head.is_empty())
    }

    /// Whether a head is incomplete.
    pub fn is_in_head(&self) -> bool {
        matches!(&self.state, RequestState::Head(head) if !head.is_empty())
    }

    /// Whether a request's body is incomplete.
    pub fn is_in_body(&self) -> bool {
        let (RequestState::Length(_) | RequestState::Chunked(_) | RequestState::Trailers(_)) =
            self.state
        else {
            return false;
        };
        true
    }

    /// Notes the service's decision about a switch.
    pub fn switch(&mut self, granted: bool) {
        self.switch = match granted {
            true => ProtocolSwitch::Granted,
            false => ProtocolSwitch::NotAsked,
        };
        if matches!(self.state, RequestState::Switching) {
            self.state = self.behind_body();
        }
    }

    /// Processes the next bytes, at least one.
    pub fn take(&mut self, bytes: &[u8], rule: &dyn RequestRule) -> RequestStep {
        match self.step(bytes, rule) {
            Ok(step) => step,
            Err((refusal, to_head)) => {
                *self = Self::refused();
                RequestStep::Refuse(refusal, to_head)
            }
        }
    }

    fn step(
        &mut self,
        bytes: &[u8],
        rule: &dyn RequestRule,
    ) -> Result<RequestStep, (HttpRefusal, bool)> {
        match &mut self.state {
            RequestState::Opaque => Ok(RequestStep::Pass(bytes.len())),
            RequestState::Switching => Ok(RequestStep::Wait),
            RequestState::Refused => Ok(RequestStep::Keep(bytes.len())),
            RequestState::Length(left) => {
                let (n, rest) = within(*left, bytes.len());
                *left = rest;
                if rest == 0 {
                    self.state = self.behind_body();
                }
                Ok(RequestStep::Pass(n))
            }
            RequestState::Chunked(chunks) => {
                let bad = |why| (HttpRefusal::bad_request(why), false);
                let n = chunks.take(bytes).map_err(bad)?;
                if *chunks == Chunks::Last {
                    self.state = RequestState::Trailers(HeaderSection::default());
                }
                Ok(RequestStep::Pass(n))
            }
            RequestState::Trailers(section) => {
                let mut taken: usize = 0;
                while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
                    let (count, complete) = section.push_line(rest).map_err(|e| (e, false))?;
                    taken = taken.saturating_add(count);
                    if complete == Complete::All {
                        check_trailers(section.bytes(), rule).map_err(|e| (e, false))?;
                        let send = RequestStep::Send {
                            taken,
                            bytes: section.bytes().to_vec(),
                            begins: None,
                        };
                        self.state = self.behind_body();
                        return Ok(send);
                    }
                }
                Ok(RequestStep::Keep(bytes.len()))
            }
            RequestState::Head(section) => {
                let mut taken: usize = 0;
                while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
                    let pushed = section.push_line(rest);
                    let refused = |e| (e, is_head_request(section.bytes()));
                    let (count, complete) = pushed.map_err(refused)?;
                    taken = taken.saturating_add(count);
                    match complete {
                        Complete::Nothing => {}
                        // An empty line before the request (RFC 9112, section 2.2).
                        Complete::All if section.bytes().len() == 2 => {
                            *section = HeaderSection::default();
                        }
                        Complete::Line if section.lines() == 1 => {
                            check_first_line(section.bytes()).map_err(refused)?;
                        }
                        // The first line is not a field. A head with more lines than can be parsed
                        // is refused now.
                        Complete::Line if section.lines() > MAX_FIELDS.saturating_add(1) => {
                            let why = "the request has too many header fields";
                            return Err(refused(HttpRefusal::head_too_large(why)));
                        }
                        Complete::Line => {}
                        Complete::All => {
                            let decided = decide(section.bytes(), rule).map_err(refused)?;
                            let Some((bytes, asks, body)) = decided else {
                                // The last byte stays, and with it comes the same question again.
                                section.reopen();
                                return Ok(match taken.saturating_sub(1) {
                                    0 => RequestStep::Undecided,
                                    before => RequestStep::Keep(before),
                                });
                            };
                            self.begin(asks, &body);
                            return Ok(RequestStep::Send {
                                taken,
                                bytes,
                                begins: Some(asks),
                            });
                        }
                    }
                }
                Ok(RequestStep::Keep(bytes.len()))
            }
        }
    }

    fn begin(&mut self, asks: ExpectedResponse, body: &BodyLength) {
        self.begun = true;
        self.switch = match asks {
            ExpectedResponse::Upgrade | ExpectedResponse::Connect => ProtocolSwitch::Asked,
            ExpectedResponse::Ordinary | ExpectedResponse::Head => ProtocolSwitch::NotAsked,
        };
        self.state = match body {
            BodyLength::Length(0) => self.behind_body(),
            BodyLength::Length(length) => RequestState::Length(*length),
            BodyLength::Chunked => RequestState::Chunked(Chunks::new()),
        };
    }

    fn behind_body(&self) -> RequestState {
        match self.switch {
            ProtocolSwitch::NotAsked => RequestState::Head(HeaderSection::default()),
            ProtocolSwitch::Asked => RequestState::Switching,
            ProtocolSwitch::Granted => RequestState::Opaque,
        }
    }
}

/// Rejects a first line (with its end) that is not a request line.
fn check_first_line(head: &[u8]) -> Result<(), HttpRefusal> {
    let line = head.strip_suffix(b"\r\n").unwrap_or(head);
    request_line(line).map(|_| ())
}

/// Decides what replaces a complete head, and what follows it; `None` if the rule cannot decide yet.
fn decide(
    bytes: &[u8],
    rule: &dyn RequestRule,
) -> Result<Option<(Vec<u8>, ExpectedResponse, BodyLength)>, HttpRefusal> {
    let head = RequestHead::parse(bytes)?;
    let body = body(&head)?;
    let mut edits = match rule.decide(&head) {
        RuleDecision::Forward(edits) => edits,
        RuleDecision::Refuse(refusal) => return Err(refusal),
        RuleDecision::Later => return Ok(None),
    };
    let mut asks = match head.method() {
        b"HEAD" => ExpectedResponse::Head,
        b"CONNECT" => ExpectedResponse::Connect,
        _ => ExpectedResponse::Ordinary,
    };
    let upgrades = || head.fields().filter(|field| field.is("upgrade"));
    if upgrades().next().is_some() {
        // Requests cannot be followed within HTTP/2 or TLS.
        let hides = upgrades().any(|field| offers_http(field.value));
        if asks == ExpectedResponse::Ordinary && !hides {
            asks = ExpectedResponse::Upgrade;
        } else {
            upgrades().for_each(|field| edits.remove(&field));
        }
    }
    if asks == ExpectedResponse::Connect && !matches!(body, BodyLength::Length(0)) {
        return Err(HttpRefusal::bad_request("CONNECT with a body"));
    }
    Ok(Some((edits.apply(&head), asks, body)))
}

/// Whether an Upgrade field names HTTP/2 or TLS.
fn offers_http(value: &[u8]) -> bool {
    value.split(|b| *b == b',').any(|protocol| {
        let name = protocol.split(|b| *b == b'/').next().unwrap_or_default();
        let name = name.trim_ascii();
        let known: [&[u8]; 4] = [b"h2c", b"h2", b"http", b"tls"];
        known.iter().any(|known| name.eq_ignore_ascii_case(known))
    })
}

/// Returns the framing of a request's body (RFC 9112, section 6).
fn body(head: &RequestHead<'_>) -> Result<BodyLength, HttpRefusal> {
    let mut length = None;
    let mut chunked = false;
    for field in head.fields() {
        if field.is("content-length") {
            let digits = std::str::from_utf8(field.value).unwrap_or_default();
            let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            let number = digits.parse::<u64>().ok().filter(|_| is_number);
            let Some(number) = number else {
                return Err(HttpRefusal::bad_request(
                    "a Content-Length that is no number",
                ));
            };
            if length.is_some_and(|other| other != number) {
                return Err(HttpRefusal::bad_request("two values of Content-Length"));
            }
            length = Some(number);
        } else if field.is("transfer-encoding") {
            if chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                return Err(HttpRefusal::bad_request(
                    "a Transfer-Encoding other than chunked",
                ));
            }
            chunked = true;
        }
    }
    match (length, chunked) {
        (Some(_), true) => Err(HttpRefusal::bad_request(
            "both Content-Length and Transfer-Encoding",
        )),
        (None, true) if head.is_http_1_0() => {
            Err(HttpRefusal::bad_request("Transfer-Encoding in HTTP/1.0"))
        }
        (None, true) => Ok(BodyLength::Chunked),
        (length, false) => Ok(BodyLength::Length(length.unwrap_or(0))),
    }
}
