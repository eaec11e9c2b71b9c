//! The request of a visitor of an HTTP proxy: CONNECT (RFC 9110, section 9.3.6), or one with a whole URL
//! as its target (RFC 9112, section 3.2.2), and how that one is passed on. It touches no connection.

use super::destination::Destination;
use crate::net::follow::{
    Edits, HeadField, HttpRefusal, RequestHead, RequestRule, RequestStep, Requests, RuleDecision,
};
use crate::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// The field with the password of the proxy, which hosts do not get.
const AUTHORIZATION: &str = "Proxy-Authorization";

/// The answer to a request without a right password.
pub(crate) const NO_PASSWORD: HttpRefusal = HttpRefusal {
    status: "407 Proxy Authentication Required",
    why: "this proxy needs a name and a password",
    fields: "Proxy-Authenticate: Basic realm=\"gt\", charset=\"UTF-8\"\r\n",
};
/// The answer to a request that takes too long.
pub(crate) const TOO_LATE: HttpRefusal = HttpRefusal {
    status: "408 Request Timeout",
    why: "the request did not come in time",
    fields: "",
};
/// The answer to a connection that ends within a request.
pub(crate) const CUT_SHORT: HttpRefusal = HttpRefusal {
    status: "400 Bad Request",
    why: "the request is cut short",
    fields: "",
};
/// The answer to a request behind the first one, which its host would take for its own.
const NO_MORE: HttpRefusal = HttpRefusal {
    status: "421 Misdirected Request",
    why: "this proxy takes one request on a connection",
    fields: "",
};

/// The answer to a CONNECT behind which the tunnel begins.
pub(crate) const CONNECTED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// What a visitor asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProxyRequest {
    /// Where it goes.
    pub(crate) destination: Destination,
    /// Whether all that follows is for the destination (CONNECT); else the head is, too.
    pub(crate) is_connect: bool,
    /// Whether it is a HEAD.
    pub(crate) is_head: bool,
    /// The values of its Proxy-Authorization fields.
    pub(crate) authorization: Vec<Vec<u8>>,
    /// Its method and its target, for the log.
    pub(crate) line: (Vec<u8>, Vec<u8>),
}

impl ProxyRequest {
    fn of(head: &RequestHead<'_>) -> Result<Self, HttpRefusal> {
        let bad = HttpRefusal::bad_request;
        let target = head.target();
        let is_connect = head.method() == b"CONNECT";
        if head.fields().filter(|field| field.is("host")).count() > 1 {
            return Err(bad("two hosts"));
        }
        let has_body = |field: HeadField<'_>| {
            field.is("transfer-encoding") || field.is("content-length") && field.value != b"0"
        };
        let destination = if is_connect {
            if head.fields().any(has_body) {
                return Err(bad("a CONNECT with a body"));
            }
            Destination::parse(target, None)
        } else {
            let Some(authority) = head.authority() else {
                return Err(bad(
                    "this is a proxy: requests must name a whole URL, http://…",
                ));
            };
            let scheme = target.get(..authority.start).unwrap_or_default();
            if !scheme.eq_ignore_ascii_case(b"http://") {
                return Err(bad(
                    "this proxy passes on requests for http:// alone; use CONNECT",
                ));
            }
            Destination::parse(target.get(authority).unwrap_or_default(), Some(80))
        };
        let passwords = head.fields().filter(|field| field.is(AUTHORIZATION));
        Ok(Self {
            destination: destination
                .ok_or_else(|| bad("no host and port that could be reached"))?,
            is_connect,
            is_head: head.method() == b"HEAD",
            authorization: passwords.map(|field| field.value.to_vec()).collect(),
            line: (head.method().to_vec(), target.to_vec()),
        })
    }
}

/// A reader of the head of a request.
#[derive(Default)]
pub(crate) struct HeadReader {
    requests: Requests,
    rule: HeadRule,
}

/// What a reader has found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ProxyHead {
    /// The head goes on behind all of these bytes.
    Part,
    /// A request, its head, and the number of bytes that were taken.
    Whole(Box<ProxyRequest>, Vec<u8>, usize),
    /// A request that can only be refused. True if it is a HEAD.
    Refused(HttpRefusal, bool),
}

impl HeadReader {
    /// Processes the next bytes, at least one. After a request, nothing more may come.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> ProxyHead {
        match self.requests.take(bytes, &self.rule) {
            RequestStep::Send { taken, bytes, .. } => match self.rule.0.lock().take() {
                Some(request) => ProxyHead::Whole(request, bytes, taken),
                None => ProxyHead::Part,
            },
            RequestStep::Refuse(refusal, to_head) => ProxyHead::Refused(refusal, to_head),
            RequestStep::Pass(_)
            | RequestStep::Keep(_)
            | RequestStep::Wait
            | RequestStep::Undecided => ProxyHead::Part,
        }
    }
}

/// A rule that keeps what a request asks for.
#[derive(Default)]
struct HeadRule(Mutex<Option<Box<ProxyRequest>>>);

impl RequestRule for HeadRule {
    fn decide(&self, head: &RequestHead<'_>) -> RuleDecision {
        match ProxyRequest::of(head) {
            Ok(request) => {
                *self.0.lock() = Some(Box::new(request));
                RuleDecision::Forward(Edits::default())
            }
            Err(refusal) => RuleDecision::Refuse(refusal),
        }
    }
}

/// A rule that makes the one request of a connection one for its host, and refuses others.
#[derive(Default)]
pub(crate) struct ForwardedRequest {
    is_over: AtomicBool,
}

impl RequestRule for ForwardedRequest {
    fn decide(&self, head: &RequestHead<'_>) -> RuleDecision {
        if self.is_over.swap(true, Ordering::Relaxed) {
            return RuleDecision::Refuse(NO_MORE);
        }
        match forwarded(head) {
            Some(edits) => RuleDecision::Forward(edits),
            None => RuleDecision::Refuse(NO_MORE),
        }
    }

    fn allows_trailer(&self, name: &[u8]) -> bool {
        !name.eq_ignore_ascii_case(AUTHORIZATION.as_bytes())
    }
}

/// Returns the edits that make a request with a whole URL one for its host: its path as the target, the
/// host in the field Host, and no fields that are for the proxy alone (RFC 9110, section 7.6.1). The host
/// is asked to close the connection behind its answer.
fn forwarded(head: &RequestHead<'_>) -> Option<Edits> {
    let authority = head.authority()?;
    let target = head.target();
    let host = std::str::from_utf8(target.get(authority.clone())?).ok()?;
    let mut edits = Edits::default();
    let path = match target.get(authority.end) {
        Some(b'/') => "",
        None if head.method() == b"OPTIONS" => "*",
        _ => "/",
    };
    edits.set_target(head, 0..authority.end, path);
    let named: Vec<_> = head
        .fields()
        .filter(|field| field.is("connection") || field.is("proxy-connection"))
        .flat_map(|field| field.value.split(|b| *b == b',').map(<[u8]>::trim_ascii))
        .collect();
    let mut has_host = false;
    for field in head.fields() {
        let is_named = || {
            named
                .iter()
                .any(|name| name.eq_ignore_ascii_case(field.name))
        };
        // Without them, the host would read another request.
        let is_framing = field.is("content-length") || field.is("transfer-encoding");
        if field.is("host") {
            edits.set(&field, host);
            has_host = true;
        } else if !is_framing && (is_for_proxy(&field) || is_named()) {
            edits.remove(&field);
        }
    }
    if !has_host {
        edits.add(head, "Host", host);
    }
    let via = match head.is_http_1_0() {
        true => "1.0 gt",
        false => "1.1 gt",
    };
    edits.add(head, "Via", via);
    edits.add(head, "Connection", "close");
    Some(edits)
}

/// Whether a field is for this connection, or for the proxy, and not for the host.
fn is_for_proxy(field: &HeadField<'_>) -> bool {
    let known = [
        "connection",
        "proxy-connection",
        "keep-alive",
        "te",
        "upgrade",
        AUTHORIZATION,
    ];
    known.iter().any(|name| field.is(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request, its head, and what follows.
    type Read = (ProxyRequest, Vec<u8>, Vec<u8>);

    /// Reads a head in pieces of `size` bytes. The result is the request, or the status of its refusal.
    fn read(text: &[u8], size: usize) -> Option<Result<Read, String>> {
        let mut reader = HeadReader::default();
        let mut at = 0;
        for piece in text.chunks(size) {
            match reader.take(piece) {
                ProxyHead::Part => at += piece.len(),
                ProxyHead::Whole(request, head, taken) => {
                    return Some(Ok((*request, head, text[at + taken..].to_vec())));
                }
                ProxyHead::Refused(refusal, _) => return Some(Err(refusal.status[..3].to_owned())),
            }
        }
        None
    }

    fn request(text: &str) -> Result<(String, bool), String> {
        let whole = read(text.as_bytes(), usize::MAX).expect("a whole head");
        for size in 1..text.len() {
            assert_eq!(
                read(text.as_bytes(), size),
                Some(whole.clone()),
                "{text:?} in pieces of {size}"
            );
        }
        whole.map(|(request, ..)| (request.destination.to_string(), request.is_connect))
    }

    #[test]
    fn a_request_names_its_destination_however_it_is_cut() {
        for (line, expected) in [
            ("CONNECT nas.lan:22 HTTP/1.1", Ok(("nas.lan:22", true))),
            (
                "CONNECT [fd00::1]:443 HTTP/1.0",
                Ok(("[fd00::1]:443", true)),
            ),
            ("GET http://nas.lan/a?b HTTP/1.1", Ok(("nas.lan:80", false))),
            (
                "GET HTTP://nas.lan:8080 HTTP/1.1",
                Ok(("nas.lan:8080", false)),
            ),
            ("POST http://10.0.0.1/ HTTP/1.1", Ok(("10.0.0.1:80", false))),
            ("CONNECT nas.lan HTTP/1.1", Err("400")),
            ("CONNECT nas.lan:0 HTTP/1.1", Err("400")),
            ("CONNECT http://nas.lan:22/ HTTP/1.1", Err("400")),
            ("CONNECT a@nas.lan:22 HTTP/1.1", Err("400")),
            ("GET / HTTP/1.1", Err("400")),
            ("GET nas.lan/ HTTP/1.1", Err("400")),
            ("GET https://nas.lan/ HTTP/1.1", Err("400")),
            ("GET ftp://nas.lan/ HTTP/1.1", Err("400")),
            ("GET http:/nas.lan/ HTTP/1.1", Err("400")),
            ("GET http://user:key@nas.lan/ HTTP/1.1", Err("400")),
            ("GET http://nas.lan%00/ HTTP/1.1", Err("400")),
            ("GET http:///a HTTP/1.1", Err("400")),
            ("OPTIONS * HTTP/1.1", Err("400")),
            ("GET http://nas.lan/ HTTP/2", Err("400")),
            ("nonsense", Err("400")),
        ] {
            let expected = expected
                .map(|(text, is)| (text.to_owned(), is))
                .map_err(str::to_owned);
            let text = format!("{line}\r\nHost: elsewhere\r\n\r\nand what follows");
            assert_eq!(request(&text), expected, "{line}");
        }
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for (line, fields) in [
            ("CONNECT a:1", "Content-Length: 5\r\n"),
            ("CONNECT a:1", "Transfer-Encoding: chunked\r\n"),
            ("GET http://a/", "Host: a\r\nHost: b\r\n"),
            (
                "GET http://a/",
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            ),
            (
                "GET http://a/",
                "Content-Length: 5\r\nContent-Length: 6\r\n",
            ),
            ("GET http://a/", "Host : a\r\n"),
            ("GET http://a/", "A: b\n"),
        ] {
            let text = format!("{line} HTTP/1.1\r\n{fields}\r\n");
            assert_eq!(request(&text), Err("400".to_owned()), "{text:?}");
        }
        let long = format!(
            "GET http://a/ HTTP/1.1\r\nA: {}\r\n\r\n",
            "b".repeat(40_000)
        );
        assert_eq!(read(long.as_bytes(), 2048), Some(Err("431".to_owned())));
        let many = format!("GET http://a/ HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(200));
        assert_eq!(read(many.as_bytes(), 2048), Some(Err("431".to_owned())));
    }

    #[test]
    fn the_head_and_what_follows_it_are_kept() {
        let text = "CONNECT a:1 HTTP/1.1\r\nProxy-Authorization: Basic YQ==\r\n\r\nfirst bytes";
        for size in 1..=text.len() {
            let (request, head, rest) = read(text.as_bytes(), size).unwrap().unwrap();
            assert_eq!(request.authorization, [b"Basic YQ=="]);
            assert_eq!([head, rest].concat(), text.as_bytes());
        }
    }

    fn becomes(text: &str) -> String {
        let rule = ForwardedRequest::default();
        let mut requests = Requests::default();
        let RequestStep::Send { bytes, .. } = requests.take(text.as_bytes(), &rule) else {
            panic!("{text:?} is not passed on");
        };
        // Of a switch that the host cannot know of.
        requests.switch(false);
        let again = requests.take(text.as_bytes(), &rule);
        assert!(
            matches!(again, RequestStep::Refuse(..)),
            "one request a connection: {again:?}"
        );
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_host_gets_a_request_of_its_own_without_the_fields_of_the_proxy() {
        for (text, expected) in [
            (
                "GET http://Nas.lan:81/a?b HTTP/1.1\r\nHost: elsewhere\r\nAccept: x\r\n\r\n",
                "GET /a?b HTTP/1.1\r\nHost: Nas.lan:81\r\nAccept: x\r\nVia: 1.1 gt\r\nConnection: close\r\n\r\n",
            ),
            (
                "GET http://a HTTP/1.0\r\n\r\n",
                "GET / HTTP/1.0\r\nHost: a\r\nVia: 1.0 gt\r\nConnection: close\r\n\r\n",
            ),
            (
                "GET http://a?b HTTP/1.1\r\n\r\n",
                "GET /?b HTTP/1.1\r\nHost: a\r\nVia: 1.1 gt\r\nConnection: close\r\n\r\n",
            ),
            (
                "OPTIONS http://a HTTP/1.1\r\n\r\n",
                "OPTIONS * HTTP/1.1\r\nHost: a\r\nVia: 1.1 gt\r\nConnection: close\r\n\r\n",
            ),
            (
                "GET http://a/ HTTP/1.1\r\nProxy-Authorization: Basic YQ==\r\nProxy-Connection: keep-alive\r\n\
                 Connection: X, close, Content-Length, Host\r\nConnection: te\r\nx: 1\r\nTE: trailers\r\n\
                 Keep-Alive: 5\r\nContent-Length: 0\r\nAuthorization: Basic Yg==\r\n\r\n",
                "GET / HTTP/1.1\r\nContent-Length: 0\r\nAuthorization: Basic Yg==\r\nHost: a\r\nVia: 1.1 gt\r\n\
                 Connection: close\r\n\r\n",
            ),
            (
                "GET http://a/ HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 gt\r\nConnection: close\r\n\r\n",
            ),
        ] {
            assert_eq!(becomes(text), expected);
        }
    }
}
