//! Error answers to visitors that cannot be served.

use crate::net::follow::HttpRefusal;
use crate::net::{timeout, Conn};
use std::time::Duration;

/// Time that the visitor has to read the answer.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// A fatal TLS alert, unrecognized_name (RFC 6066, section 3).
const UNRECOGNIZED_NAME: &[u8] = &[21, 3, 1, 0, 2, 2, 112];

/// An HTTP error answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorPage {
    /// 400: the request is malformed, for this reason.
    BadRequest(&'static str),
    /// 403: the visitor's address may not use the service.
    NotAllowed,
    /// 403: the visitor has no certificate, and needs one.
    NoCertificate,
    /// 421: the name needs another certificate than that which the connection was asked for.
    Misdirected,
    /// 404: no client has the host prefix.
    NoSuchHost,
    /// 408: the request did not arrive in time.
    TimedOutReading,
    /// 431: the head of the request is too long.
    HeadTooLong,
    /// 502: the client cannot reach the service.
    NotReached,
    /// 503: the client of the host prefix is not connected.
    NoTunnel,
    /// 503: the service is down, as its client has found.
    Down,
    /// 504: the service did not answer in time.
    TimedOut,
}

impl ErrorPage {
    /// All variants.
    #[cfg(test)]
    pub const ALL: [Self; 11] = [
        Self::BadRequest("why"),
        Self::NotAllowed,
        Self::NoCertificate,
        Self::Misdirected,
        Self::NoSuchHost,
        Self::TimedOutReading,
        Self::HeadTooLong,
        Self::NotReached,
        Self::NoTunnel,
        Self::Down,
        Self::TimedOut,
    ];

    /// Returns the status (code and reason phrase) and an explanation.
    pub fn status(self) -> (&'static str, &'static str) {
        match self {
            Self::BadRequest(why) => ("400 Bad Request", why),
            Self::NotAllowed => ("403 Forbidden", "your address may not use this service"),
            Self::NoCertificate => (
                "403 Forbidden",
                "this server needs a certificate from its visitors",
            ),
            Self::Misdirected => (
                "421 Misdirected Request",
                "this host needs a connection of its own, for its name",
            ),
            Self::NoSuchHost => ("404 Not Found", "no such host on this server"),
            Self::TimedOutReading => ("408 Request Timeout", "the request did not arrive in time"),
            Self::HeadTooLong => (
                "431 Request Header Fields Too Large",
                "the head of the request is longer than 16 KiB",
            ),
            Self::NotReached => ("502 Bad Gateway", "the service could not be reached"),
            Self::NoTunnel => (
                "503 Service Unavailable",
                "the service is not connected at the moment",
            ),
            Self::Down => (
                "503 Service Unavailable",
                "the service is down at the moment",
            ),
            Self::TimedOut => ("504 Gateway Timeout", "the service did not answer in time"),
        }
    }

    fn bytes(self, to_head: bool) -> String {
        let (status, why) = self.status();
        HttpRefusal::new(status, why).page(to_head)
    }
}

impl From<HttpRefusal> for ErrorPage {
    fn from(refusal: HttpRefusal) -> Self {
        match refusal.is_head_too_large() {
            true => Self::HeadTooLong,
            false => Self::BadRequest(refusal.why),
        }
    }
}

/// Sends an error answer and closes the connection, even if the visitor does not read it. The answer
/// to a HEAD request has no body.
pub async fn http(conn: &Conn, answer: ErrorPage, to_head: bool) {
    send(conn, answer.bytes(to_head).as_bytes()).await;
}

/// Sends a TLS alert that there is no such host, and closes the connection.
pub async fn no_such_server_name(conn: &Conn) {
    send(conn, UNRECOGNIZED_NAME).await;
}

/// Sends bytes and closes the connection, even if the visitor does not read them.
pub async fn send(conn: &Conn, bytes: &[u8]) {
    if let Some(Ok(())) = timeout(READ_TIMEOUT, conn.write_all(bytes)).await {
        conn.linger(READ_TIMEOUT).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_length_matches_the_body() {
        for answer in ErrorPage::ALL {
            let bytes = answer.bytes(false);
            let (head, body) = bytes.split_once("\r\n\r\n").unwrap();
            assert_eq!(answer.bytes(true), format!("{head}\r\n\r\n"));
            assert!(
                head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())),
                "{bytes}"
            );
        }
    }
}
