//! HTTP/1.1 as seen on one connection between a visitor and a service: finds where each request and
//! response ends, and edits the heads of requests. It touches no socket: bytes go in, steps come
//! out.
//!
//! Memory is bounded: at most one head and the kinds of the requests that wait for a response are
//! held, never a body. Where a request ends does not depend on how its bytes are cut. A request
//! that two readers could frame differently is refused (RFC 9112, sections 5 to 7 and 11.2).

mod head;
mod requests;
mod responses;
mod section;
#[cfg(test)]
mod tests;

pub use head::{Edits, HeadField, RequestHead};
pub use requests::{ExpectedResponse, RequestRule, RequestStep, Requests, RuleDecision};
pub use responses::Responses;
#[cfg(any(test, fuzzing))]
pub use section::MAX_HEAD;

use super::http::reply;

/// Maximum number of requests without a response before the next one has to wait.
const MAX_PIPELINED: usize = 1024;

/// The status and text of a response that ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpRefusal {
    /// The status line without its version.
    pub status: &'static str,
    /// The explanation in the body.
    pub why: &'static str,
    /// Further fields, as whole lines.
    pub fields: &'static str,
}

impl HttpRefusal {
    /// Creates a refusal.
    pub fn new(status: &'static str, why: &'static str) -> Self {
        Self {
            status,
            why,
            fields: "",
        }
    }

    /// Creates a refusal with status 400.
    pub fn bad_request(why: &'static str) -> Self {
        Self::new("400 Bad Request", why)
    }

    /// Creates a refusal with status 431 (RFC 6585, section 5).
    pub fn head_too_large(why: &'static str) -> Self {
        Self::new("431 Request Header Fields Too Large", why)
    }

    /// Whether the status is 431.
    pub fn is_head_too_large(self) -> bool {
        self.status.starts_with("431")
    }

    /// Returns the bytes of the response. A response to HEAD has no body.
    pub fn page(self, to_head: bool) -> String {
        let Self {
            status,
            why,
            fields,
        } = self;
        let length = status.len() + why.len() + 3;
        let fields = format!("Content-Type: text/plain\r\n{fields}");
        let head = reply::head(status, &fields, Some(length));
        match to_head {
            true => head,
            false => format!("{head}{status}: {why}\n"),
        }
    }
}

/// Whether a request that begins with `bytes` is a HEAD. Empty lines before it are skipped.
pub fn is_head_request(bytes: &[u8]) -> bool {
    let blank = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n'));
    let begin = blank.count();
    bytes
        .get(begin..)
        .is_some_and(|rest| rest.starts_with(b"HEAD "))
}

/// The state of both directions of one connection.
#[derive(Debug, Default)]
pub struct Exchange {
    requests: Requests,
    responses: Responses,
    /// The response to a request that was refused, until it may be sent.
    refused: Option<String>,
    /// Whether the service waits for the rest of a request that will not come, or sends bytes that
    /// no request has asked for.
    broken_off: bool,
}

impl Exchange {
    /// Processes the visitor's next bytes, at least one.
    pub fn request(&mut self, bytes: &[u8], rule: &dyn RequestRule) -> RequestStep {
        let is_full = self.responses.waiting() >= MAX_PIPELINED;
        if is_full && self.requests.is_between() {
            return RequestStep::Wait;
        }
        let in_body = self.requests.is_in_body();
        let step = self.requests.take(bytes, rule);
        match &step {
            RequestStep::Send {
                begins: Some(asks), ..
            } => self.responses.expect(*asks),
            RequestStep::Refuse(refusal, to_head) => {
                // The service does not answer an incomplete request.
                let begun = in_body && !self.responses.withdraw();
                let page = refusal.page(*to_head);
                self.broken_off = in_body || self.responses.is_unbounded();
                self.refused = Some(if begun { String::new() } else { page });
            }
            RequestStep::Pass(_)
            | RequestStep::Keep(_)
            | RequestStep::Send { .. }
            | RequestStep::Undecided
            | RequestStep::Wait => {}
        }
        step
    }

    /// Processes the service's next bytes. True if a visitor's direction that had to wait may go
    /// on.
    pub fn response(&mut self, bytes: &[u8]) -> bool {
        let was_full = self.responses.waiting() >= MAX_PIPELINED;
        let decided = self.responses.take(bytes);
        if let Some(switches) = decided {
            self.requests.switch(switches);
        }
        decided.is_some() || was_full && self.responses.waiting() < MAX_PIPELINED
    }

    /// Returns the status of the first response that is not provisional, once its head has come.
    pub fn first_status(&self) -> Option<u16> {
        self.responses.first_status()
    }

    /// Notes that the visitor has ended its direction.
    pub fn end(&mut self) {
        self.refuse_head(HttpRefusal::bad_request("the request is cut short"));
    }

    /// Refuses a request whose head has not been consumed as a whole, if there is one.
    pub fn refuse_head(&mut self, refusal: HttpRefusal) {
        if self.refused.is_none() && self.requests.is_in_head() {
            self.refused = Some(refusal.page(false));
            self.requests = Requests::refused();
        }
    }

    /// Whether the visitor's next byte begins a request.
    pub fn is_between(&self) -> bool {
        self.requests.is_between()
    }

    /// Whether any request has begun.
    pub fn has_begun(&self) -> bool {
        self.requests.has_begun()
    }

    /// Whether the visitor has to wait until the service accepts or declines a protocol switch.
    pub fn is_switching(&self) -> bool {
        self.requests.is_switching()
    }

    /// Whether every request has its whole response.
    pub fn is_idle(&self) -> bool {
        self.responses.is_idle()
    }

    /// Whether nothing more from the visitor goes to the service.
    pub fn is_refused(&self) -> bool {
        self.requests.is_refused()
    }

    /// Whether the service has to be told that nothing follows, since it would wait for more.
    pub fn has_broken_off(&self) -> bool {
        self.broken_off
    }

    /// Whether the response to a refused request is due: all requests before it have been answered.
    pub fn is_answer_due(&self) -> bool {
        self.refused.is_some() && self.responses.is_idle()
    }

    /// Returns the response to a refused request once it is due, and only once. It is empty if the
    /// service has begun to answer the same request.
    pub fn take_answer(&mut self) -> Option<String> {
        if !self.is_answer_due() {
            return None;
        }
        self.refused.take()
    }
}
