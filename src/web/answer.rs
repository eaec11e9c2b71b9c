//! The answers of the page and its API, and what every answer tells a browser. Not their contents.

use super::request::HeadError;
use serde::Serialize;
use serde_json::json;
use std::borrow::Cow;
use std::fmt::Write as _;

/// What every answer tells a browser: nothing of the page comes from elsewhere, runs inside other pages, or is
/// kept by others.
const SAFETY: &str =
    "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'\r\n\
     X-Frame-Options: DENY\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
     Cross-Origin-Opener-Policy: same-origin\r\nCross-Origin-Resource-Policy: same-origin\r\n";

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Whole header lines that only this answer has.
    fields: String,
    body: Cow<'static, [u8]>,
    /// Whether the connection closes behind it.
    pub closes: bool,
}

impl Answer {
    /// Creates an answer in JSON.
    pub fn json(status: u16, value: &impl Serialize) -> Self {
        // Cannot fail: writing to a vector succeeds, and all keys are texts.
        let mut body = serde_json::to_vec(value).unwrap_or_default();
        body.push(b'\n');
        Self {
            status,
            fields: "Content-Type: application/json\r\nCache-Control: no-store\r\n".to_owned(),
            body: body.into(),
            closes: false,
        }
    }

    /// Creates the answer that something was done.
    pub fn done() -> Self {
        Self::json(200, &json!({"ok": true}))
    }

    /// Creates an error: a sentence for people.
    pub fn error(status: u16, why: impl Into<String>) -> Self {
        Self::json(status, &json!({"error": why.into()}))
    }

    /// Creates the answer with a file of the page, compressed by gzip.
    pub fn file(kind: &str, gzipped: &'static [u8], etag: &str, is_known: bool) -> Self {
        let fields = format!(
            "Content-Type: {kind}; charset=utf-8\r\nCache-Control: no-cache\r\nETag: \"{etag}\"\r\n"
        );
        match is_known {
            true => Self {
                status: 304,
                fields,
                body: Cow::Borrowed(&[]),
                closes: false,
            },
            false => Self {
                status: 200,
                fields: format!("{fields}Content-Encoding: gzip\r\n"),
                body: Cow::Borrowed(gzipped),
                closes: false,
            },
        }
    }

    /// Creates the answer to a request whose head cannot be served, after which the connection closes.
    pub fn of_head(wrong: HeadError) -> Self {
        let (status, why) = match wrong {
            HeadError::Malformed => (400, "The request is not HTTP/1."),
            HeadError::TooLong => (
                431,
                "The head of the request is longer than 8 KiB or 64 fields.",
            ),
            HeadError::OtherHost => (
                421,
                "Use an IP address or localhost: other host names of this page have to be listed in the \
                 option webHosts.",
            ),
            HeadError::NoLength => (411, "The body needs a Content-Length."),
        };
        Self::error(status, why).closing()
    }

    /// Adds a header line; neither part has a line end.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        // Writing to a `String` cannot fail.
        let _ = write!(self.fields, "{name}: {value}\r\n");
        self
    }

    /// Lets the connection close behind the answer.
    pub fn closing(self) -> Self {
        Self {
            closes: true,
            ..self
        }
    }

    /// Encodes the answer. That to a HEAD request has no body.
    pub fn encode(&self, to_head: bool) -> Vec<u8> {
        let reason = match self.status {
            200 => "OK",
            201 => "Created",
            202 => "Accepted",
            304 => "Not Modified",
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            409 => "Conflict",
            411 => "Length Required",
            412 => "Precondition Failed",
            413 => "Content Too Large",
            415 => "Unsupported Media Type",
            421 => "Misdirected Request",
            422 => "Unprocessable Content",
            428 => "Precondition Required",
            429 => "Too Many Requests",
            431 => "Request Header Fields Too Large",
            503 => "Service Unavailable",
            _ => "Internal Server Error",
        };
        let length = match self.status {
            304 => String::new(),
            _ => format!("Content-Length: {}\r\n", self.body.len()),
        };
        let close = if self.closes {
            "Connection: close\r\n"
        } else {
            ""
        };
        let head = format!(
            "HTTP/1.1 {} {reason}\r\n{}{SAFETY}{length}{close}\r\n",
            self.status, self.fields
        );
        let mut bytes = head.into_bytes();
        if !to_head {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }

    /// Returns the body, for tests.
    #[cfg(any(test, fuzzing))]
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}
