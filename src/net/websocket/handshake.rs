//! The request that turns an HTTP connection into a WebSocket, and its answer (RFC 6455, section 4),
//! with the sub-protocol of tunnels. Not the frames that follow.

#[cfg(feature = "client")]
use crate::net::tls;
use base64::prelude::{Engine, BASE64_STANDARD};
use httparse::{Header, Status};
use ring::digest::{digest, SHA1_FOR_LEGACY_USE_ONLY};
#[cfg(feature = "server")]
use std::net::Ipv6Addr;
#[cfg(feature = "client")]
use std::{fmt, io};

/// The sub-protocol of tunnels.
const PROTOCOL: &str = "gt";
/// The text that is appended to a key before it is hashed (RFC 6455, section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Maximum number of headers of a request or an answer.
const MAX_HEADERS: usize = 64;
/// Maximum length of an answer's head in bytes.
#[cfg(feature = "client")]
const MAX_ANSWER: usize = 16 * 1024;
/// Length of a key in bytes, before it is encoded.
const KEY: usize = 16;

/// Returns the value of `Sec-WebSocket-Accept` for a key.
fn accept_of(key: &str) -> String {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    BASE64_STANDARD.encode(hash)
}

/// Returns the values of all headers with this name.
fn values<'a>(headers: &'a [Header<'a>], name: &'a str) -> impl Iterator<Item = &'a str> {
    let named = headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name));
    named
        .filter_map(|header| std::str::from_utf8(header.value).ok())
        .map(str::trim)
}

/// Returns the items of all lists with this name.
fn items<'a>(headers: &'a [Header<'a>], name: &'a str) -> impl Iterator<Item = &'a str> {
    values(headers, name)
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

fn has_item(headers: &[Header<'_>], name: &str, item: &str) -> bool {
    items(headers, name).any(|it| it.eq_ignore_ascii_case(item))
}

/// A request for a tunnel in a WebSocket.
#[cfg(feature = "server")]
#[derive(Debug, PartialEq, Eq)]
pub struct UpgradeRequest {
    /// The value of `Sec-WebSocket-Accept` in the answer.
    pub accept: String,
    /// Length of the head in bytes.
    pub length: usize,
}

#[cfg(feature = "server")]
impl UpgradeRequest {
    /// Parses a complete head. `None` if it does not ask for the sub-protocol of tunnels at this path, and of
    /// this host if there is one. All that do are taken, however broken: a service must not get what a client
    /// sends behind such a request, its secret. The error says what is wrong.
    pub fn parse(
        head: &[u8],
        path: &str,
        host: Option<&str>,
    ) -> Option<Result<Self, &'static str>> {
        // Other requests are not parsed.
        if path_of(head)? != path.as_bytes() || !asks_for_tunnel(head) {
            return None;
        }
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let Ok(Status::Complete(length)) = request.parse(head) else {
            return Some(Err(
                "a request for a WebSocket is malformed, or has more than 64 headers",
            ));
        };
        let (is_get, version) = (request.method == Some("GET"), request.version);
        let headers = &*request.headers;
        let is_asked = |host: &str| {
            let mut named = values(headers, "host");
            let name = named.next().map(without_port);
            name.is_some_and(|name| is_same_host(name, host)) && named.next().is_none()
        };
        if !host.is_none_or(is_asked) {
            return None;
        }
        if !is_get {
            return Some(Err("a request for a WebSocket is a GET"));
        }
        // A proxy that sends HTTP/1.0 or leaves the header out has not been told of WebSockets.
        if version != Some(1) || !has_item(headers, "upgrade", "websocket") {
            return Some(Err(
                "a WebSocket needs HTTP/1.1 and the header Upgrade: websocket, which a proxy before this server \
                 has to pass on",
            ));
        }
        Some(accept(headers).map(|accept| Self { accept, length }))
    }
}

/// Returns the host in the value of a header `Host`, with the brackets of an IPv6 address.
#[cfg(feature = "server")]
fn without_port(value: &str) -> &str {
    let end = match value.starts_with('[') {
        true => value.find(']').map(|at| at + 1),
        false => value.find(':'),
    };
    end.and_then(|end| value.get(..end)).unwrap_or(value)
}

/// Whether two hosts are the same name, or the same IPv6 address in brackets, however it is written.
#[cfg(feature = "server")]
fn is_same_host(one: &str, other: &str) -> bool {
    let address = |host: &str| -> Option<Ipv6Addr> {
        let bare = host.strip_prefix('[')?.strip_suffix(']')?;
        bare.parse().ok()
    };
    match (address(one), address(other)) {
        (Some(one), Some(other)) => one == other,
        _ => one.eq_ignore_ascii_case(other),
    }
}

/// Returns the path in the first line of a head, also of a target with a host and of one with a query.
#[cfg(feature = "server")]
fn path_of(head: &[u8]) -> Option<&[u8]> {
    let line = head.split(|byte| *byte == b'\n').next()?;
    let target = line.split(|byte| *byte == b' ').nth(1)?;
    let target = target
        .split(|byte| matches!(byte, b'?' | b'#' | b'\r'))
        .next()?;
    if target.first() == Some(&b'/') {
        return Some(target);
    }
    // After "http://host".
    let slashes = target.windows(3).position(|three| three == b"://")?;
    let rest = target.get(slashes + 3..)?;
    let slash = rest.iter().position(|byte| *byte == b'/')?;
    rest.get(slash..)
}

/// Whether a head names the sub-protocol of tunnels, in a header that some parser may take for that of
/// sub-protocols.
#[cfg(feature = "server")]
fn asks_for_tunnel(head: &[u8]) -> bool {
    let mut is_named = false;
    let lines = head.split(|byte| *byte == b'\n').skip(1);
    for line in lines.take_while(|line| !line.trim_ascii().is_empty()) {
        let is_continued = matches!(line.first(), Some(b' ' | b'\t'));
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let value = match (is_continued, parts.next(), parts.next()) {
            (true, ..) => line,
            (false, Some(name), Some(value)) => {
                is_named = name
                    .trim_ascii()
                    .eq_ignore_ascii_case(b"sec-websocket-protocol");
                value
            }
            (false, ..) => {
                is_named = false;
                continue;
            }
        };
        let mut items = value.split(|byte| *byte == b',');
        if is_named && items.any(|item| item.trim_ascii().eq_ignore_ascii_case(PROTOCOL.as_bytes()))
        {
            return true;
        }
    }
    false
}

/// Checks the headers of a request for a tunnel. Returns the value of `Sec-WebSocket-Accept` for its key.
#[cfg(feature = "server")]
fn accept(headers: &[Header<'_>]) -> Result<String, &'static str> {
    if !has_item(headers, "connection", "upgrade") {
        return Err("a WebSocket needs the header Connection: Upgrade");
    }
    if !values(headers, "sec-websocket-version").eq(["13"]) {
        return Err("a WebSocket needs the header Sec-WebSocket-Version: 13");
    }
    if values(headers, "content-length").any(|length| length != "0")
        || values(headers, "transfer-encoding").next().is_some()
    {
        return Err("a request for a WebSocket has no body");
    }
    let mut keys = values(headers, "sec-websocket-key");
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return Err("a WebSocket needs one header Sec-WebSocket-Key");
    };
    match BASE64_STANDARD.decode(key) {
        Ok(bytes) if bytes.len() == KEY => Ok(accept_of(key)),
        _ => Err("Sec-WebSocket-Key is not 16 bytes in base64"),
    }
}

/// Returns the answer to a request that is granted.
#[cfg(feature = "server")]
pub fn response(accept: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {PROTOCOL}\r\n\r\n"
    )
}

/// The client's side of the request.
#[cfg(feature = "client")]
pub struct ClientHandshake {
    key: String,
}

/// What a server has answered so far.
#[cfg(feature = "client")]
#[derive(Debug, PartialEq, Eq)]
pub enum UpgradeAnswer {
    /// The head is incomplete.
    More,
    /// The WebSocket begins behind this number of bytes.
    Granted(usize),
    /// There is no tunnel.
    Refused(UpgradeRefusal),
}

/// Why there is no tunnel in a WebSocket.
#[cfg(feature = "client")]
#[derive(Debug, PartialEq, Eq)]
pub enum UpgradeRefusal {
    /// The answer has this status in place of 101.
    Status(u16),
    /// The answer is not one of HTTP.
    NotHttp,
    /// The answer is one to another request, or of a WebSocket without tunnels.
    Other(&'static str),
}

#[cfg(feature = "client")]
impl fmt::Display for UpgradeRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "the answer was {status} in place of 101"),
            Self::NotHttp => f.write_str("the answer was not HTTP"),
            Self::Other(why) => f.write_str(why),
        }
    }
}

#[cfg(feature = "client")]
impl ClientHandshake {
    /// Generates a key. Fails if the system has no random numbers.
    pub fn new() -> io::Result<Self> {
        let mut key = [0; KEY];
        tls::fill_random(&mut key)?;
        Ok(Self {
            key: BASE64_STANDARD.encode(key),
        })
    }

    /// Returns a handshake with the key of the specification's example.
    #[cfg(any(test, fuzzing))]
    pub fn of_example() -> Self {
        Self {
            key: "dGhlIHNhbXBsZSBub25jZQ==".to_owned(),
        }
    }

    /// Returns the request, for a path of a host. `host` may have a port.
    pub fn request(&self, host: &str, path: &str) -> String {
        format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: gt\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: {}\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: {PROTOCOL}\r\n\r\n",
            self.key
        )
    }

    /// Parses the bytes of the answer that have come.
    pub fn answer(&self, bytes: &[u8]) -> UpgradeAnswer {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(bytes) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) if bytes.len() < MAX_ANSWER => return UpgradeAnswer::More,
            Ok(Status::Partial) | Err(_) => return UpgradeAnswer::Refused(UpgradeRefusal::NotHttp),
        };
        match response.code {
            Some(101) => {}
            Some(status) => return UpgradeAnswer::Refused(UpgradeRefusal::Status(status)),
            None => return UpgradeAnswer::Refused(UpgradeRefusal::NotHttp),
        }
        let headers = &*response.headers;
        if !has_item(headers, "upgrade", "websocket")
            || !values(headers, "sec-websocket-accept").eq([accept_of(&self.key).as_str()])
        {
            return UpgradeAnswer::Refused(UpgradeRefusal::Other(
                "the answer was to another request",
            ));
        }
        if !values(headers, "sec-websocket-protocol").eq([PROTOCOL]) {
            return UpgradeAnswer::Refused(UpgradeRefusal::Other(
                "its WebSocket is not for tunnels",
            ));
        }
        UpgradeAnswer::Granted(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_answered_as_the_specification_s_example() {
        // RFC 6455, section 1.3.
        let accept = accept_of("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[cfg(feature = "server")]
    #[test]
    fn the_host_of_a_request_may_be_an_ipv6_address() {
        assert_eq!(without_port("h.example.com:80"), "h.example.com");
        assert_eq!(without_port("h.example.com"), "h.example.com");
        assert_eq!(without_port("[::1]:80"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
        assert_eq!(without_port("[::1"), "[::1");
        assert!(is_same_host("[::1]", "[0:0::1]"));
        assert!(is_same_host("H.example.com", "h.example.com"));
        assert!(!is_same_host("[::1]", "[::2]") && !is_same_host("[::1]", "::1"));
    }

    #[cfg(all(feature = "client", feature = "server"))]
    #[test]
    fn a_client_s_request_is_granted_by_a_server() {
        let handshake = ClientHandshake::new().unwrap();
        let request = handshake.request("gt.example.com:8080", "/gt");
        let bytes = [request.as_bytes(), b"frames"].concat();
        for host in [None, Some("gt.example.com")] {
            let parsed = UpgradeRequest::parse(&bytes, "/gt", host).unwrap().unwrap();
            assert_eq!(parsed.length, request.len());
            let answer = response(&parsed.accept);
            for cut in 0..answer.len() {
                assert_eq!(
                    handshake.answer(&answer.as_bytes()[..cut]),
                    UpgradeAnswer::More
                );
            }
            let bytes = format!("{answer}frames");
            assert_eq!(
                handshake.answer(bytes.as_bytes()),
                UpgradeAnswer::Granted(answer.len())
            );
        }
        for (path, host) in [
            ("/g", None),
            ("/gt/", None),
            ("/", None),
            ("/gt", Some("a.example.com")),
        ] {
            assert_eq!(
                UpgradeRequest::parse(&bytes, path, host),
                None,
                "{path} {host:?}"
            );
        }
    }

    #[cfg(feature = "server")]
    #[test]
    fn only_requests_for_tunnels_are_taken_and_bad_ones_are_explained() {
        const GOOD: &str = "GET /gt HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\n\
            Connection: keep-alive, upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat, gt\r\n\r\n";
        let parse = |from: &str, to: &str| {
            assert!(GOOD.contains(from), "{from}");
            UpgradeRequest::parse(GOOD.replacen(from, to, 1).as_bytes(), "/gt", None)
        };
        assert!(parse("", "").unwrap().is_ok());
        for (from, to) in [
            ("/gt", "/gt/"),
            ("/gt", "/g"),
            ("/gt", "http://a/"),
            ("chat, gt", "chat"),
            ("chat, gt", "gtx"),
            ("Sec-WebSocket-Protocol: chat, gt\r\n", ""),
            ("Sec-WebSocket-Protocol: chat", "X: y"),
        ] {
            assert_eq!(parse(from, to), None, "{from} {to}");
        }
        // A service must not get these.
        let many = "X: y\r\n".repeat(70) + "Host: a";
        for (from, to, why) in [
            ("GET", "POST", "GET"),
            ("HTTP/1.1", "HTTP/1.0", "proxy"),
            ("WebSocket", "h2c", "proxy"),
            ("Upgrade: WebSocket\r\n", "", "proxy"),
            ("Host: a", "Host a", "malformed"),
            ("Host: a", &many, "64 headers"),
            ("Protocol: chat, gt", "Protocol: chat,\r\n gt", "malformed"),
            ("Protocol: chat, gt", "Protocol : gt", "malformed"),
            ("\r\n\r\n", "\r\n", "malformed"),
        ] {
            let refused = parse(from, to).unwrap().unwrap_err();
            assert!(refused.contains(why), "{from} {to}: {refused}");
        }
        for (from, to) in [
            ("/gt", "/gt?a"),
            ("/gt", "http://a/gt"),
            ("chat, gt", "GT"),
            ("Sec-WebSocket-Protocol", "SEC-WEBSOCKET-PROTOCOL"),
        ] {
            assert!(parse(from, to).unwrap().is_ok(), "{from} {to}");
        }
        for (from, to, why) in [
            ("keep-alive, upgrade", "keep-alive", "Connection"),
            ("13", "8", "Version"),
            ("dGhl", "dGhldGhl", "Key"),
            ("dGhl", "!", "Key"),
            ("Sec-WebSocket-Key", "X", "Key"),
            ("Host: a", "Host: a\r\nContent-Length: 5", "body"),
            ("Host: a", "Host: a\r\nTransfer-Encoding: chunked", "body"),
        ] {
            let refused = parse(from, to).unwrap().unwrap_err();
            assert!(refused.contains(why), "{from} {to}: {refused}");
        }
    }

    #[cfg(feature = "client")]
    #[test]
    fn an_answer_without_a_tunnel_is_refused_with_its_reason() {
        let handshake = ClientHandshake::of_example();
        for (answer, why) in [
            ("HTTP/1.1 404 Not Found\r\n\r\n", "404"),
            ("HTTP/1.1 502\r\nServer: x\r\n\r\n<html>", "502"),
            ("SSH-2.0-x\r\n", "not HTTP"),
            (
                "HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n",
                "another request",
            ),
            (
                "HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
                "not for tunnels",
            ),
        ] {
            let UpgradeAnswer::Refused(refusal) = handshake.answer(answer.as_bytes()) else {
                panic!("{answer}");
            };
            assert!(refusal.to_string().contains(why), "{refusal}");
        }
        let long = format!("HTTP/1.1 101 x\r\nA: {}", "x".repeat(MAX_ANSWER));
        assert_eq!(
            handshake.answer(long.as_bytes()),
            UpgradeAnswer::Refused(UpgradeRefusal::NotHttp)
        );
    }
}
