//! The answers of the API as HTTP responses. Not the contents of its pages.

use super::request::RequestError;
use crate::net::http::reply;
use crate::server::sniff::PLAIN_HTTP;

/// One HTTP answer of the API.
#[derive(Debug)]
pub struct ApiReply {
    status: &'static str,
    /// Header lines that only this answer has.
    fields: &'static str,
    body: String,
}

const TEXT: &str = "Content-Type: text/plain; charset=utf-8\r\n";
const JSON: &str = "Content-Type: application/json\r\n";
/// Version 0.0.4 of Prometheus' text format.
const METRICS: &str = "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n";

impl ApiReply {
    /// Creates a page in JSON, with status 200 or, unless `ok`, 503.
    pub fn json(ok: bool, body: String) -> Self {
        let status = if ok {
            "200 OK"
        } else {
            "503 Service Unavailable"
        };
        Self {
            status,
            fields: JSON,
            body,
        }
    }

    /// Creates a page of metrics.
    pub fn metrics(body: String) -> Self {
        Self {
            status: "200 OK",
            fields: METRICS,
            body,
        }
    }

    /// Creates the answer to an invalid request; `None` if the connection is gone.
    pub fn invalid(wrong: RequestError) -> Option<Self> {
        let (status, why) = match wrong {
            RequestError::Gone => return None,
            RequestError::Malformed => ("400 Bad Request", "the request is not complete HTTP/1"),
            RequestError::NoSuchPage => {
                ("404 Not Found", "the pages are /status, /metrics and /clients")
            }
            RequestError::NotGet => ("405 Method Not Allowed", "the API answers only GET"),
            RequestError::OtherHost => (
                "421 Misdirected Request",
                "use an IP address or localhost; other host names of this API have to be listed in \
                 the server's option apiHosts",
            ),
            RequestError::TooLong => (
                "431 Request Header Fields Too Large",
                "the head of the request is longer than 8 KiB or 64 fields",
            ),
        };
        Some(Self::error(status, why, wrong == RequestError::NotGet))
    }

    /// Creates the answer to a plain HTTP request where TLS is expected.
    pub fn plain_http() -> Self {
        Self::error("400 Bad Request", PLAIN_HTTP, false)
    }

    /// Creates the answer to a request that did not arrive in time.
    pub fn timed_out() -> Self {
        let why = "the request did not arrive in time";
        Self::error("408 Request Timeout", why, false)
    }

    fn error(status: &'static str, why: &str, allow: bool) -> Self {
        let allow_get = "Content-Type: text/plain; charset=utf-8\r\nAllow: GET\r\n";
        Self {
            status,
            fields: if allow { allow_get } else { TEXT },
            body: format!("{status}: {why}\n"),
        }
    }

    /// Encodes the answer. The answer to a HEAD request has no body.
    pub fn bytes(&self, to_head: bool) -> String {
        let Self {
            status,
            fields,
            body,
        } = self;
        let fields = format!("{fields}Cache-Control: no-store\r\n");
        let head = reply::head(status, &fields, Some(body.len()));
        match to_head {
            true => head,
            false => head + body,
        }
    }
}
