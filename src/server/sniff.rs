//! Sniffing of a connection's first bytes: reads just enough to tell a tunnel from a visitor and to
//! find the visitor's destination.

use super::acme::TlsPurpose;
use super::client_hello::HelloFacts;
use super::error_page::ErrorPage;
use super::handshake::Handshake;
use super::incoming::{read_more, AcceptedConn, Incoming, ListenerKind};
use super::registry::{domain_of, HostKind};
use super::settings::Settings;
use super::state::ServerState;
use super::upgrade::{self, Upgrade};
use super::visitor_authorities::VisitorAuthority;
use super::{client_hello, error_page, http_head, quic, session};
use crate::config::label::ascii;
use crate::net::tls::{self, Acceptor};
use crate::net::{timeout_at, Conn, Socket};
use crate::wire::{Version, MAGIC};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The byte that the original GT's probe of the line has in place of a version (docs/wire.md, "QUIC").
const PROBE: u8 = 2;
/// Time that an authority has to close the connection of its validation.
const VALIDATION_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum bytes of the first read: an ordinary request head fits.
const FIRST_READ: usize = 2048;

/// Serves one accepted connection.
pub fn serve_connection(
    state: Arc<ServerState>,
    accepted: AcceptedConn,
    kind: ListenerKind,
) -> impl Future<Output = ()> {
    let (incoming, socket) = Incoming::of(state, accepted, kind);
    incoming.serve(Arc::new(Conn::from(socket)))
}

/// Serves one accepted connection after a TLS handshake.
pub fn serve_tls(
    state: Arc<ServerState>,
    accepted: AcceptedConn,
    acceptor: Acceptor,
) -> impl Future<Output = ()> {
    let (incoming, socket) = Incoming::of(state, accepted, ListenerKind::Https);
    incoming.serve_tls(socket, acceptor)
}

/// Serves the stream of a connection of QUIC.
#[cfg(feature = "quic")]
pub fn serve_quic(incoming: Incoming, conn: Conn) -> impl Future<Output = ()> {
    incoming.serve(Arc::new(conn))
}

/// The result of sniffing a connection.
enum Sniffed {
    Tunnel(Version),
    /// A tunnel in a WebSocket.
    Upgrade(Upgrade),
    /// The original GT's probe of the line over QUIC.
    Probe,
    Visitor(VisitorRequest),
}

/// The destination that a visitor asks for, or why it has none.
enum VisitorRequest {
    /// A host prefix.
    Host(HostKind, String),
    /// An HTTP request that cannot be served.
    Invalid(ErrorPage),
    /// A TLS handshake without a server name.
    Nameless,
    /// A validation by an authority, with the response.
    Validation(String),
    /// Bytes that cannot be answered, for this reason; it is for the log.
    Unroutable(&'static str),
}

impl Incoming {
    async fn serve_tls(mut self, socket: Socket, acceptor: Acceptor) {
        let (peer, deadline) = (self.peer, self.deadline);
        let handshake = async {
            let is_read = self.settings.reads_hello();
            let read = |bytes: &[u8]| {
                let facts = is_read.then(|| HelloFacts::of(bytes));
                (bytes.first().copied(), facts.map(Box::new))
            };
            let (first, facts) = tls::client_hello(&socket, read).await?;
            if tls::is_plain_http(first) {
                Box::pin(self.answer_plain(Conn::from(socket))).await;
                return Ok(None);
            }
            let mut acceptor = acceptor;
            if let Some(facts) = facts {
                let settings = self.settings.acme.as_deref();
                if let TlsPurpose::Validation(answer) =
                    self.state
                        .acme
                        .purpose(settings, &self.state.registry, &facts)
                {
                    Box::pin(validate(socket, answer)).await?;
                    return Ok(None);
                }
                if let Some(authority) = self.authority_of_host(&facts) {
                    acceptor = authority.acceptor(facts.protocols.is_empty());
                    self.authority = Some(authority.file.clone());
                }
            }
            acceptor.accept(socket).await.map(Some)
        };
        match timeout_at(deadline, handshake).await {
            Some(Ok(Some(conn))) => {
                self.is_certified = conn.client_certificate().is_some();
                Box::pin(self.serve(Arc::new(conn))).await;
            }
            Some(Ok(None)) => {}
            Some(Err(e)) => log::debug!("{peer}: TLS handshake: {e}"),
            None => log::debug!("{peer}: the TLS handshake took too long"),
        }
    }

    // An `async fn` would hold its arguments twice.
    #[allow(clippy::manual_async_fn)]
    fn serve(mut self, conn: Arc<Conn>) -> impl Future<Output = ()> {
        async move {
            let (conn, version) = match timeout_at(self.deadline, self.sniff(&conn)).await {
                Some(Sniffed::Tunnel(version)) => (conn, version),
                Some(Sniffed::Upgrade(upgrade)) => {
                    match Box::pin(self.upgrade(conn, upgrade)).await {
                        Some(begun) => begun,
                        None => return,
                    }
                }
                Some(Sniffed::Probe) => {
                    let _ = timeout_at(self.deadline, Box::pin(quic::answer_probe(&conn))).await;
                    return;
                }
                visitor => {
                    let request = match visitor {
                        Some(Sniffed::Visitor(request)) => request,
                        _ if self.is_http() && !self.head.is_empty() => {
                            VisitorRequest::Invalid(ErrorPage::TimedOutReading)
                        }
                        _ => {
                            VisitorRequest::Unroutable("timed out before its destination was known")
                        }
                    };
                    let request = match self.lacks_certificate(&conn, &request) {
                        true => VisitorRequest::Invalid(ErrorPage::NoCertificate),
                        false => request,
                    };
                    return Box::pin(self.forward_or_answer(conn, request)).await;
                }
            };
            // Here, and not in a function of its own, whose future would hold everything a second time.
            self.head.drain(..2);
            let mut handshake = Box::new(Handshake::new(version));
            let hello = timeout_at(self.deadline, handshake.read_hello(&mut self, &conn)).await;
            drop(handshake);
            Box::pin(session::serve(self, conn, version, hello)).await;
        }
    }

    /// Returns the authority of the user that has the host of a ClientHello, if it has one of its own.
    fn authority_of_host(&self, hello: &HelloFacts) -> Option<Arc<VisitorAuthority>> {
        let host = hello.name.as_deref()?;
        if self.settings.authorities.is_empty() {
            return None;
        }
        let name = self.name_of(HostKind::Http, host);
        // Without one, the requests of the connection are refused.
        let its = self.settings.authority_of(&self.state.registry, &name);
        its.ok().flatten()
    }

    /// Whether a visitor needs a certificate and has none. A wrong one has been refused in the handshake.
    fn lacks_certificate(&self, conn: &Conn, request: &VisitorRequest) -> bool {
        let is_self_test = match request {
            VisitorRequest::Host(_, name) => self.state.self_test.has_prefix(name),
            _ => false,
        };
        self.settings.certified_visitors
            && self.kind == ListenerKind::Https
            && !is_self_test
            && conn.client_certificate().is_none()
    }

    /// Answers a plain HTTP request on a TLS listener with an error.
    async fn answer_plain(&mut self, conn: Conn) {
        if read_plain_request(&conn, &mut self.head).await.is_ok() {
            self.answer(&conn, ErrorPage::BadRequest(PLAIN_HTTP)).await;
        }
    }

    async fn sniff(&mut self, conn: &Conn) -> Sniffed {
        loop {
            if let Some(sniffed) = self.parse() {
                let is_of_one_stream =
                    matches!(sniffed, Sniffed::Tunnel(Version::One) | Sniffed::Probe);
                if is_of_one_stream && quic::has_streams(conn) {
                    let why = "a tunnel of GT/1 in a connection with the protocol gt/2";
                    return Sniffed::Visitor(VisitorRequest::Unroutable(why));
                }
                return sniffed;
            }
            let most = if self.head.is_empty() {
                FIRST_READ
            } else {
                client_hello::MAX_CLIENT_HELLO
            };
            let nowhere = match read_more(conn, &mut self.head, most).await {
                Ok(1..) => continue,
                Ok(0) if self.head.is_empty() => {
                    VisitorRequest::Unroutable("closed without sending")
                }
                Ok(0) if self.is_http() => {
                    VisitorRequest::Invalid(ErrorPage::BadRequest("the request is cut short"))
                }
                _ => VisitorRequest::Unroutable("closed before its destination was known"),
            };
            return Sniffed::Visitor(nowhere);
        }
    }

    /// Returns the name under which a host is registered.
    fn name_of(&self, kind: HostKind, host: &str) -> String {
        let prefix = visited_prefix(http_head::host_prefix(host));
        self.state.registry.name_of(kind, host, prefix)
    }

    /// Parses the bytes read so far; `None` if more are needed.
    fn parse(&self) -> Option<Sniffed> {
        if self.kind == ListenerKind::Quic {
            match self.head.as_slice() {
                [MAGIC, PROBE] => return None,
                [MAGIC, PROBE, 0, ..] => return Some(Sniffed::Probe),
                _ => {}
            }
        }
        if matches!(self.head.as_slice(), [] | [MAGIC, ..]) {
            let unknown = VisitorRequest::Unroutable("a tunnel of a version that is not enabled");
            let version = tunnel_version(&self.head, &self.settings)?;
            return Some(version.map_or(Sniffed::Visitor(unknown), Sniffed::Tunnel));
        }
        if self.kind == ListenerKind::Quic {
            let why = "a visitor, over QUIC, which is for tunnels";
            return Some(Sniffed::Visitor(VisitorRequest::Unroutable(why)));
        }
        let request = if self.is_http() {
            let found = http_head::find(&self.head, &self.settings.mux_header);
            if found != http_head::HeadResult::More {
                if let Some(response) = self.state.acme.response(&self.head) {
                    return Some(Sniffed::Visitor(VisitorRequest::Validation(response)));
                }
                match upgrade::requested(&self.head, self.settings.ws.as_ref()) {
                    Some(Ok(upgrade)) => return Some(Sniffed::Upgrade(upgrade)),
                    Some(Err(why)) => {
                        let bad = VisitorRequest::Invalid(ErrorPage::BadRequest(why));
                        return Some(Sniffed::Visitor(bad));
                    }
                    None => {}
                }
            }
            match found {
                http_head::HeadResult::More => return None,
                http_head::HeadResult::Value(value) => {
                    let name = match self.settings.routes_by_host() {
                        true => self.name_of(HostKind::Http, http_head::host_name(value)),
                        false => visited_prefix(ascii(value).into_owned()),
                    };
                    VisitorRequest::Host(HostKind::Http, name)
                }
                http_head::HeadResult::TooLong => VisitorRequest::Invalid(ErrorPage::HeadTooLong),
                http_head::HeadResult::Bad(why) => {
                    VisitorRequest::Invalid(ErrorPage::BadRequest(why))
                }
            }
        } else {
            match client_hello::server_name(&self.head) {
                client_hello::HelloResult::More => return None,
                client_hello::HelloResult::Name(name) => {
                    VisitorRequest::Host(HostKind::Tls, self.name_of(HostKind::Tls, &name))
                }
                client_hello::HelloResult::Nameless => VisitorRequest::Nameless,
                client_hello::HelloResult::Bad => {
                    VisitorRequest::Unroutable("neither a tunnel nor TLS")
                }
            }
        };
        Some(Sniffed::Visitor(request))
    }

    /// Forwards the visitor to its destination, or answers with an error.
    async fn forward_or_answer(self, conn: Arc<Conn>, request: VisitorRequest) {
        let peer = self.peer;
        match request {
            VisitorRequest::Host(kind, prefix) => self.forward(conn, kind, &prefix).await,
            VisitorRequest::Invalid(answer) => self.answer(&conn, answer).await,
            VisitorRequest::Validation(response) => {
                log::debug!("{peer}: a validation by an authority");
                error_page::send(&conn, response.as_bytes()).await;
            }
            VisitorRequest::Nameless => error_page::no_such_server_name(&conn).await,
            VisitorRequest::Unroutable(why) => log::debug!("{peer}: {why}"),
        }
    }
}

/// Answers a validation by an authority over TLS, or refuses one that is not awaited.
async fn validate(socket: Socket, answer: Option<Acceptor>) -> io::Result<()> {
    match answer {
        // The handshake is all that it needs (RFC 8737, section 3).
        Some(acceptor) => {
            let conn = acceptor.accept(socket).await?;
            conn.linger(VALIDATION_TIMEOUT).await;
        }
        None => error_page::no_such_server_name(&Conn::from(socket)).await,
    }
    Ok(())
}

/// Returns the version of a tunnel that begins with these bytes; `None` if more are needed, `Some(None)`
/// if they are not a tunnel's, or its version is not enabled.
pub fn tunnel_version(head: &[u8], settings: &Settings) -> Option<Option<Version>> {
    match head {
        [] | [MAGIC] => None,
        [MAGIC, version, ..] => {
            let version = Version::from_byte(*version);
            Some(version.filter(|version| settings.wire.allows(*version)))
        }
        _ => Some(None),
    }
}

/// The error for plain HTTP on a TLS listener.
pub const PLAIN_HTTP: &str = "The plain HTTP request was sent to HTTPS port; use https://";

/// Returns a host prefix as a visitor has written it, or none for a name that no prefix can be: the
/// registry's domains have such names.
fn visited_prefix(prefix: String) -> String {
    match domain_of(&prefix) {
        Some(_) => String::new(),
        None => prefix,
    }
}

/// Reads a plain HTTP request up to the end of its first line. Fails if nothing arrives.
pub async fn read_plain_request(conn: &Conn, bytes: &mut Vec<u8>) -> io::Result<()> {
    while !bytes.contains(&b'\n') && bytes.len() < FIRST_READ {
        if read_more(conn, bytes, FIRST_READ).await? == 0 {
            break;
        }
    }
    Ok(())
}
