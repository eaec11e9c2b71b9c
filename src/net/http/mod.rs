//! HTTP for gt's own use: a client for small requests to one API, and the parts that other code
//! shares: the chunked coding, percent-encoding, heads of answers. The client follows no redirects.

pub mod chunked;
#[cfg(any(feature = "server", feature = "web"))]
pub mod hosts;
mod idle;
pub mod percent;
pub mod reply;
pub(crate) mod response;
#[cfg(test)]
mod tests;

pub use response::Response;

use super::tls::{self, Connector, ServerTrust};
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
    pub body: Option<RequestBody<'a>>,
    /// The media type of the answer.
    pub accept: &'a str,
    /// The fields of the answer's head that are of interest, in lower case.
    pub fields: &'a [&'static str],
}

/// The body of a request.
pub struct RequestBody<'a> {
    /// Its media type.
    pub media_type: &'a str,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// The media type of JSON (RFC 8259, section 11).
const JSON: &str = "application/json";

impl<'a> ApiRequest<'a> {
    /// Creates a request with JSON as its body, if it has one, and in the answer.
    pub fn json(
        target: &'a str,
        headers: &'a [(&'a str, &'a str)],
        body: Option<&'a [u8]>,
    ) -> Self {
        Self {
            target,
            headers,
            body: body.map(|bytes| RequestBody {
                media_type: JSON,
                bytes,
            }),
            accept: JSON,
            fields: &[],
        }
    }
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
        Ok(Self::over(connector, host, port))
    }

    /// Creates a client that uses this connector, and none for plain HTTP.
    pub fn over(connector: Option<Connector>, host: &str, port: u16) -> Self {
        Self {
            connector,
            host: host.to_owned(),
            port,
            dialer: Arc::new(Direct),
            idle: Arc::default(),
        }
    }

    /// Has the client connect to the API by this dialer, instead of directly.
    #[cfg(feature = "client")]
    pub fn by(self, dialer: Arc<dyn Dial>) -> Self {
        Self { dialer, ..self }
    }

    /// Sends a request and returns the body of the response, whose status must be 200. See
    /// [`ApiClient::ask`].
    pub async fn send(
        &self,
        request: &ApiRequest<'_>,
        patience: Duration,
    ) -> Result<Vec<u8>, ApiError> {
        match self.ask(request, patience).await? {
            Response {
                status: 200, body, ..
            } => Ok(body),
            Response { status, .. } => Err(ApiError::Status(status)),
        }
    }

    /// Sends a request and returns the response, within `patience`. A request that finds its kept
    /// connection dead is sent once more over a new one, so it must be idempotent.
    pub async fn ask(
        &self,
        request: &ApiRequest<'_>,
        patience: Duration,
    ) -> Result<Response, ApiError> {
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
                match self.exchange(conn, &bytes, request.fields).await {
                    Err(ApiError::NoResponse(_)) if was_kept => {}
                    result => return result,
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
            Some(connector) => connector.connect(&self.host, socket).await.map_err(|e| {
                let advice = tls::clock_advice(&e);
                io::Error::new(e.kind(), format!("TLS with {}: {e}{advice}", self.host))
            }),
            None => Ok(socket.into()),
        }
    }

    async fn exchange(
        &self,
        conn: Conn,
        request: &[u8],
        fields: &[&'static str],
    ) -> Result<Response, ApiError> {
        let no_response = |e| ApiError::NoResponse(Some(e));
        conn.write_all(request).await.map_err(no_response)?;
        let (answer, reusable) =
            response::read(|cx, buffer| conn.poll_read(cx, buffer), fields).await?;
        if reusable {
            self.idle.put(conn);
        }
        Ok(answer)
    }

    fn encode(&self, request: &ApiRequest<'_>) -> Vec<u8> {
        let method = match request.body {
            Some(_) => "POST",
            None => "GET",
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
             Accept: {}\r\n",
            request.target,
            env!("CARGO_PKG_VERSION"),
            request.accept,
        );
        for (name, value) in request.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(RequestBody { media_type, bytes }) = &request.body {
            let length = bytes.len();
            head.push_str(&format!(
                "Content-Type: {media_type}\r\nContent-Length: {length}\r\n"
            ));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        if let Some(body) = &request.body {
            bytes.extend_from_slice(body.bytes);
        }
        bytes
    }
}
