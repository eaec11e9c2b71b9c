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
use super::{Conn, Dial, Direct};
use crate::net::Timer;
use futures_lite::future;
use idle::IdleConnections;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

/// Why a request to an API has no usable answer. The text does not name the API.
#[derive(Debug)]
pub enum ApiError {
    /// The connection or its TLS could not be set up.
    Unreachable(io::Error),
    /// The connection ended (`None`) or failed before the first byte of a response. A kept
    /// connection may have been closed meanwhile, so another attempt makes sense.
    NoResponse(Option<io::Error>),
    /// The connection failed within the response.
    Lost(io::Error),
    /// The other end does not speak HTTP.
    NotHttp(httparse::Error),
    /// The response breaks RFC 9112, is cut short or exceeds a limit.
    Malformed(&'static str),
    /// No whole response came within this time.
    Timeout(Duration),
    /// A status other than 200.
    Status(u16),
    /// The body is not what the API should answer.
    Unexpected(String),
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(e) | Self::NoResponse(Some(e)) | Self::Lost(e) => e.fmt(f),
            Self::NoResponse(None) => f.write_str("it closed the connection without an answer"),
            Self::NotHttp(e) => write!(f, "this is not HTTP: {e}"),
            Self::Malformed(what) => f.write_str(what),
            Self::Timeout(patience) => write!(f, "no answer within {patience:?}"),
            Self::Status(status) => write!(f, "it answered with status {status}"),
            Self::Unexpected(why) => write!(f, "unexpected answer: {why}"),
        }
    }
}

impl From<serde_json::Error> for ApiError {
    /// Describes a body that is not as expected. Does not quote a value of the wrong kind, which may
    /// be a secret.
    fn from(e: serde_json::Error) -> Self {
        let (text, line, column) = (e.to_string(), e.line(), e.column());
        let quotes = e.is_data() && text.starts_with("invalid");
        Self::Unexpected(match quotes {
            true => format!("a value of the wrong kind at line {line} column {column}"),
            false => text,
        })
    }
}

/// A client of one API. Keeps connections for later requests.
pub struct ApiClient {
    connector: Option<Connector>,
    host: String,
    port: u16,
    dialer: Arc<dyn Dial>,
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
            dialer: Arc::new(Direct),
            idle: Arc::default(),
        })
    }

    /// Has the client connect to the API by this dialer, instead of directly.
    #[cfg(feature = "client")]
    pub fn by(self, dialer: Arc<dyn Dial>) -> Self {
        Self { dialer, ..self }
    }

    /// Sends a request and returns the body of the response, within `patience`. A request that finds
    /// its kept connection dead is sent once more over a new one, so it must be idempotent.
    pub async fn send(
        &self,
        request: &ApiRequest<'_>,
        patience: Duration,
    ) -> Result<Vec<u8>, ApiError> {
        let asking = async {
            let bytes = self.encode(request);
            let mut kept = self.idle.take();
            loop {
                let was_kept = kept.is_some();
                let conn = match kept.take() {
                    Some(conn) => conn,
                    None => {
                        let connecting = self.connect(patience);
                        connecting.await.map_err(ApiError::Unreachable)?
                    }
                };
                match self.exchange(conn, &bytes).await {
                    Err(ApiError::NoResponse(_)) if was_kept => {}
                    Ok(Response { status: 200, body }) => return Ok(body),
                    Ok(Response { status, .. }) => return Err(ApiError::Status(status)),
                    Err(e) => return Err(e),
                }
            }
        };
        let timeout = async {
            Timer::after(patience).await;
            Err(ApiError::Timeout(patience))
        };
        future::or(asking, timeout).await
    }

    async fn connect(&self, patience: Duration) -> io::Result<Conn> {
        let socket = self.dialer.dial(&self.host, self.port, patience).await?;
        match &self.connector {
            Some(connector) => connector
                .connect(&self.host, socket)
                .await
                .map_err(|e| io::Error::new(e.kind(), format!("TLS with {}: {e}", self.host))),
            None => Ok(socket.into()),
        }
    }

    async fn exchange(&self, conn: Conn, request: &[u8]) -> Result<Response, ApiError> {
        let no_response = |e| ApiError::NoResponse(Some(e));
        conn.write_all(request).await.map_err(no_response)?;
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
