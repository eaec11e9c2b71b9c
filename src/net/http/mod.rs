//! HTTP for gt's own use: a client for small requests to one API, and the parts that other code
//! shares: the chunked coding, percent-encoding, heads of answers. The client follows no redirects.

pub mod chunked;
mod idle;
pub mod percent;
pub mod reply;
pub(crate) mod response;
#[cfg(test)]
mod tests;

pub use response::Response;

use super::tls::{Connector, ServerTrust};
use super::{dial, Conn};
use async_io::Timer;
use futures_lite::future;
use idle::IdleConnections;
use response::RequestFailure;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Returns the error for an API response that is not as expected. It does not quote a value of the
/// wrong kind, which may be a secret.
pub fn not_understood(e: &serde_json::Error) -> io::Error {
    let (text, line, column) = (e.to_string(), e.line(), e.column());
    let quotes = e.is_data() && text.starts_with("invalid");
    let why = match quotes {
        true => format!("a value of the wrong kind at line {line} column {column}"),
        false => text,
    };
    io::Error::other(format!("unexpected answer: {why}"))
}

/// A client of one API. Keeps connections for later requests.
pub struct ApiClient {
    connector: Option<Connector>,
    host: String,
    port: u16,
    idle: Arc<IdleConnections>,
}

/// A request to an API: a GET, or a POST if there is a body.
pub struct ApiRequest<'a> {
    /// Path and query, as in the request line.
    pub target: &'a str,
    /// Fields beside those of every request. Neither name nor value may contain a line end.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub json: Option<&'a [u8]>,
}

impl ApiClient {
    /// Creates a client of the API at `host`, a name or an IP address without brackets; with `tls`
    /// it must have a certificate that the system trusts. Fails if the system has no certificate
    /// authorities.
    pub fn new(tls: bool, host: &str, port: u16) -> io::Result<Self> {
        let connector = if tls {
            Some(Connector::new(ServerTrust::System)?)
        } else {
            None
        };
        Ok(Self {
            connector,
            host: host.to_owned(),
            port,
            idle: Arc::default(),
        })
    }

    /// Sends a request and returns the response whatever its status, within `patience`. A request
    /// that finds its kept connection dead is sent once more over a new one, so it must be
    /// idempotent. Errors do not name the API.
    pub async fn send(&self, request: &ApiRequest<'_>, patience: Duration) -> io::Result<Response> {
        let asking = async {
            let bytes = self.encode(request);
            let mut kept = self.idle.take();
            loop {
                let was_kept = kept.is_some();
                let conn = match kept.take() {
                    Some(conn) => conn,
                    None => self.connect(patience).await?,
                };
                match self.exchange(conn, &bytes).await {
                    Err(RequestFailure::Dead(_)) if was_kept => {}
                    answer => return answer.map_err(RequestFailure::into),
                }
            }
        };
        let timeout = async {
            Timer::after(patience).await;
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {patience:?}"),
            ))
        };
        future::or(asking, timeout).await
    }

    async fn connect(&self, patience: Duration) -> io::Result<Conn> {
        let socket = dial(&self.host, self.port, patience).await?;
        match &self.connector {
            Some(connector) => connector
                .connect(&self.host, socket)
                .await
                .map_err(|e| io::Error::new(e.kind(), format!("TLS with {}: {e}", self.host))),
            None => Ok(socket.into()),
        }
    }

    async fn exchange(&self, conn: Conn, request: &[u8]) -> Result<Response, RequestFailure> {
        conn.write_all(request)
            .await
            .map_err(RequestFailure::Dead)?;
        let (answer, reusable) = response::read(|cx, buffer| conn.poll_read(cx, buffer)).await?;
        if reusable {
            self.idle.put(conn);
        }
        Ok(answer)
    }

    fn encode(&self, request: &ApiRequest<'_>) -> Vec<u8> {
        let method = if request.json.is_some() {
            "POST"
        } else {
            "GET"
        };
        let host = &self.host;
        // A zone identifier is local to this machine (RFC 6874, section 1).
        let host = match host.split_once('%') {
            Some((address, _)) => format!("[{address}]"),
            None if host.contains(':') => format!("[{host}]"),
            None => host.clone(),
        };
        let port = match (self.connector.is_some(), self.port) {
            (false, 80) | (true, 443) => String::new(),
            (_, port) => format!(":{port}"),
        };
        let mut head = format!(
            "{method} {} HTTP/1.1\r\nHost: {host}{port}\r\nUser-Agent: gt/{}\r\n\
             Accept: application/json\r\n",
            request.target,
            env!("CARGO_PKG_VERSION"),
        );
        for (name, value) in request.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(json) = request.json {
            let length = json.len();
            head.push_str(&format!(
                "Content-Type: application/json\r\nContent-Length: {length}\r\n"
            ));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(request.json.unwrap_or_default());
        bytes
    }
}
