//! Follows HTTP/1.1 on one connection: where each request and each answer ends, and what is sent
//! in place of a request's head. It reads and writes no socket; bytes go in, steps come out.
//!
//! Memory is bounded: at most one head and the kinds of the requests that wait for an answer are
//! held, never a body. Where a request ends does not depend on how its bytes are cut. A request
//! that two readers could frame differently is refused (RFC 9112, sections 5 to 7 and 11.2).

mod chunks;
mod head;
mod requests;
mod responses;
mod section;
#[cfg(test)]
mod tests;

pub use head::{Edits, Field, RequestHead};
pub use requests::{ExpectedResponse, RequestRule, RequestStep, Requests, RuleDecision};
pub use responses::Responses;
#[cfg(any(test, fuzzing))]
pub use section::MAX_HEAD;

/// Requests that may wait for their answer before the next one is taken.
const MAX_PIPELINED: usize = 1024;

/// The status and text of an answer that ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpRefusal {
    /// The status line without its version.
    pub status: &'static str,
    pub why: &'static str,
}

impl HttpRefusal {
    pub fn bad_request(why: &'static str) -> Self {
        Self {
            status: "400 Bad Request",
            why,
        }
    }

    pub fn head_too_large(why: &'static str) -> Self {
        Self {
            status: "431 Request Header Fields Too Large",
            why,
        }
    }

    pub fn is_head_too_large(self) -> bool {
        self.status.starts_with("431")
    }

    /// The answer's bytes. An answer to HEAD has no body.
    pub fn page(self, to_head: bool) -> String {
        let Self { status, why } = self;
        let length = status.len() + why.len() + 3;
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n"
        );
        match to_head {
            true => head,
            false => format!("{head}{status}: {why}\n"),
        }
    }
}

/// Whether a request that begins with `bytes` is a HEAD. Empty lines before it are passed over.
pub fn is_head_request(bytes: &[u8]) -> bool {
    let blank = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n'));
    let begin = blank.count();
    bytes
        .get(begin..)
        .is_some_and(|rest| rest.starts_with(b"HEAD "))
}

/// Both directions of one connection.
#[derive(Debug, Default)]
pub struct Exchange {
    requests: Requests,
    responses: Responses,
    /// The answer to a request that was refused, until it may be sent.
    refused: Option<String>,
    /// The service waits for the rest of a request that does not come, or says what nobody asked for.
    broken_off: bool,
}

impl Exchange {
    /// Takes the visitor's next bytes, of which there is at least one.
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
                // The service does not answer a request that stays incomplete.
                let begun = in_body && !self.responses.withdraw();
                let page = refusal.page(*to_head);
                self.broken_off = in_body || self.responses.is_unbounded();
                self.refused = Some(if begun { String::new() } else { page });
            }
            RequestStep::Pass(_)
            | RequestStep::Keep(_)
            | RequestStep::Send { .. }
            | RequestStep::Wait => {}
        }
        step
    }

    /// Takes the service's next bytes. True if that lets the visitor go on.
    pub fn response(&mut self, bytes: &[u8]) -> bool {
        let was_full = self.responses.waiting() >= MAX_PIPELINED;
        let decided = self.responses.take(bytes);
        if let Some(switches) = decided {
            self.requests.switch(switches);
        }
        decided.is_some() || was_full && self.responses.waiting() < MAX_PIPELINED
    }

    /// No more bytes come from the visitor.
    pub fn end(&mut self) {
        if self.refused.is_none() && self.requests.is_in_head() {
            let why = HttpRefusal::bad_request("the request is cut short");
            self.refused = Some(why.page(false));
            self.requests = Requests::refused();
        }
    }

    /// Whether the next byte of the visitor begins a request.
    pub fn is_between(&self) -> bool {
        self.requests.is_between()
    }

    /// Whether a request has begun, the present one or one before it.
    pub fn has_begun(&self) -> bool {
        self.requests.has_begun()
    }

    /// Whether the service has to decide about another protocol before the visitor goes on.
    pub fn is_switching(&self) -> bool {
        self.requests.is_switching()
    }

    /// Whether every request has its whole answer.
    pub fn is_idle(&self) -> bool {
        self.responses.is_idle()
    }

    /// Whether nothing more of the visitor goes to the service.
    pub fn is_refused(&self) -> bool {
        self.requests.is_refused()
    }

    /// Whether the service would wait in vain for more: it has to be told that nothing follows.
    pub fn has_broken_off(&self) -> bool {
        self.broken_off
    }

    /// Whether the answer to a refused request is due: all those before it have been answered.
    pub fn is_answer_due(&self) -> bool {
        self.refused.is_some() && self.responses.is_idle()
    }

    /// That answer, once; it may be empty if the service has begun to answer the same request.
    pub fn take_answer(&mut self) -> Option<String> {
        if !self.is_answer_due() {
            return None;
        }
        self.refused.take()
    }
}
