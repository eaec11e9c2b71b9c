//! What a visitor is told when nobody else will answer.

use crate::net::follow::HttpRefusal;
use crate::net::{timeout, Conn};
use std::time::Duration;

/// How long the visitor has to read it.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// A fatal alert: unrecognized_name (RFC 6066, 3).
const UNRECOGNIZED_NAME: &[u8] = &[21, 3, 1, 0, 2, 2, 112];

/// A small HTTP answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorPage {
    BadRequest(&'static str),
    NoSuchHost,
    TimedOutReading,
    HeadTooLong,
    NotReached,
    NoTunnel,
    TimedOut,
}

impl ErrorPage {
    /// One of each.
    #[cfg(test)]
    pub const ALL: [Self; 7] = [
        Self::BadRequest("why"),
        Self::NoSuchHost,
        Self::TimedOutReading,
        Self::HeadTooLong,
        Self::NotReached,
        Self::NoTunnel,
        Self::TimedOut,
    ];

    /// The status line without its version, and what to say of it.
    pub fn status(self) -> (&'static str, &'static str) {
        match self {
            Self::BadRequest(why) => ("400 Bad Request", why),
            Self::NoSuchHost => ("404 Not Found", "there is no such host here"),
            Self::TimedOutReading => ("408 Request Timeout", "the request did not come in time"),
            Self::HeadTooLong => (
                "431 Request Header Fields Too Large",
                "the head of the request is longer than 16 KiB",
            ),
            Self::NotReached => ("502 Bad Gateway", "the service could not be reached"),
            Self::NoTunnel => (
                "503 Service Unavailable",
                "the service is not connected at the moment",
            ),
            Self::TimedOut => ("504 Gateway Timeout", "the service did not answer in time"),
        }
    }

    fn bytes(self, to_head: bool) -> String {
        let (status, why) = self.status();
        HttpRefusal { status, why }.page(to_head)
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

/// Sends the answer and closes. A visitor that does not read it loses it. The answer to a HEAD has
/// no body.
pub async fn http(conn: &Conn, answer: ErrorPage, to_head: bool) {
    send(conn, answer.bytes(to_head).as_bytes()).await;
}

/// Tells a TLS visitor that there is no such host, and closes.
pub async fn no_such_server_name(conn: &Conn) {
    send(conn, UNRECOGNIZED_NAME).await;
}

async fn send(conn: &Conn, bytes: &[u8]) {
    if let Some(Ok(())) = timeout(READ_TIMEOUT, conn.write_all(bytes)).await {
        conn.linger(READ_TIMEOUT).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_an_answer_is_its_length() {
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
