//! The connections of the page: bounded in number, in what they may send, and in time. Not the answers.

use super::answer::Answer;
use super::api::{self, Call, Route};
use super::files;
use super::login::LoginError;
use super::places::{Place, Places};
use super::request::{self, HeadError, RequestHead, MAX_HEAD};
use super::site::{Site, SiteSettings};
use crate::net::http::hosts::AllowedHosts;
use crate::net::tls;
use crate::net::{timeout, with_read_buf, Conn, Listener, Shutdown, Socket};
use async_lock::Semaphore;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{ready, Poll};
use std::time::Duration;

/// Maximum number of concurrent connections, with those that have made way for others and are about to close;
/// others wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// Time that a handshake of TLS has.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a connection may do.
struct Bounds {
    /// Maximum number of requests.
    requests: u32,
    /// Time that the connection may rest before its next request.
    idle: Duration,
    /// Time that a head, or a body, has to come.
    receive: Duration,
}

/// Bounds of a connection that has shown no login.
const OPEN: Bounds = Bounds {
    requests: 20,
    idle: Duration::from_secs(5),
    receive: Duration::from_secs(5),
};
/// Bounds of one that has shown a login.
const SIGNED_IN: Bounds = Bounds {
    requests: 200,
    idle: Duration::from_secs(15),
    receive: Duration::from_secs(10),
};

/// Time that an answer has to be taken.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Time that a connection has to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum length of a body in bytes of one that has not signed in.
const MAX_OPEN_BODY: usize = 4 * 1024;
/// Maximum length of a body in bytes.
const MAX_BODY: usize = 1024 * 1024;

/// The connections of a listener.
pub struct Connections {
    site: Arc<Site>,
    stop: Shutdown,
    places: Places,
}

impl Connections {
    /// Creates the state of a listener without connections.
    pub fn new(site: Arc<Site>, stop: Shutdown) -> Self {
        Self {
            site,
            stop,
            places: Places::default(),
        }
    }

    /// Accepts connections until `stop` is triggered.
    pub async fn accept(self, listener: Arc<Listener>) {
        let accepting = async {
            let open = Arc::new(Semaphore::new(MAX_CONNECTIONS));
            loop {
                let permit = open.acquire_arc().await;
                let (socket, peer) = listener.accept().await;
                let place = self.places.enter(peer.ip());
                let (site, stop) = (self.site.clone(), self.stop.clone());
                crate::net::spawn(async move {
                    let serving = Box::pin(serve(&site, socket, peer, &place, &stop));
                    match place.end.or(serving).await {
                        Some(Ok(())) => {}
                        Some(Err(e)) => log::debug!("{peer}: the web page: {e}"),
                        None => log::debug!("{peer}: the web page: made way for another one"),
                    }
                    drop((place, permit));
                });
            }
        };
        self.stop.or::<()>(accepting).await;
    }
}

async fn serve(
    site: &Arc<Site>,
    socket: Socket,
    peer: SocketAddr,
    place: &Place,
    stop: &Shutdown,
) -> io::Result<()> {
    let settings = site.settings.get();
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    let conn = match &settings.acceptor {
        None => Conn::from(socket),
        Some(acceptor) => {
            let shaking = async {
                let first = tls::client_hello(&socket, |bytes| bytes.first().copied()).await?;
                match tls::is_plain_http(first) {
                    true => Ok((Conn::from(socket), true)),
                    false => acceptor.accept(socket).await.map(|conn| (conn, false)),
                }
            };
            let (conn, is_plain) = timeout(HANDSHAKE_TIMEOUT, shaking)
                .await
                .ok_or_else(late)??;
            if is_plain {
                let why = "This page is at https:// with the same host and port.";
                send(&conn, &Answer::error(400, why).closing(), false).await?;
                conn.linger(CLOSE_TIMEOUT).await;
                return Ok(());
            }
            conn
        }
    };
    let is_tls = settings.acceptor.is_some();
    drop(settings);
    let mut held = Vec::new();
    let (mut count, mut bounds) = (0_u32, &OPEN);
    loop {
        count = count.saturating_add(1);
        if held.is_empty() {
            let resting = timeout(bounds.idle, read_more(&conn, &mut held, MAX_HEAD));
            match stop.or(resting).await.flatten() {
                Some(Ok(1..)) => {}
                Some(Err(e)) => return Err(e),
                Some(Ok(0)) | None => break,
            }
        }
        let settings = site.settings.get();
        let reading = timeout(bounds.receive, read_head(&conn, &mut held, &settings.hosts));
        let head = match reading.await {
            Some(Ok(Some(Ok(head)))) => head,
            Some(Ok(Some(Err(wrong)))) => {
                send(&conn, &Answer::of_head(wrong), false).await?;
                break;
            }
            Some(Ok(None)) => break,
            Some(Err(e)) => return Err(e),
            None => {
                let why = "The request did not come in time.";
                send(&conn, &Answer::error(408, why).closing(), false).await?;
                break;
            }
        };
        let to_head = head.method == request::Method::Head;
        let closes = head.closes || stop.is_triggered();
        let mut exchange = Exchange {
            site,
            settings: &settings,
            conn: &conn,
            peer,
            is_tls,
            place,
            bounds,
        };
        let mut answer = exchange.answer(head, &mut held).await?;
        bounds = exchange.bounds;
        answer.closes |= closes || count >= bounds.requests;
        send(&conn, &answer, to_head).await?;
        if answer.closes {
            break;
        }
    }
    conn.linger(CLOSE_TIMEOUT).await;
    Ok(())
}

async fn send(conn: &Conn, answer: &Answer, to_head: bool) -> io::Result<()> {
    let bytes = answer.encode(to_head);
    let sent = timeout(SEND_TIMEOUT, conn.write_all(&bytes)).await;
    sent.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}

/// Reads once and appends to `bytes`, up to a total of `most`. Returns 0 at the end.
async fn read_more(conn: &Conn, bytes: &mut Vec<u8>, most: usize) -> io::Result<usize> {
    poll_fn(|cx| {
        with_read_buf(|buf| {
            let room = most.saturating_sub(bytes.len()).clamp(1, buf.len());
            let buf = buf.get_mut(..room).unwrap_or_default();
            let n = ready!(conn.poll_read(cx, buf))?;
            bytes.extend_from_slice(buf.get(..n).unwrap_or_default());
            Poll::Ready(Ok(n))
        })
    })
    .await
}

/// Reads a head and takes it from `held`; `None` if the connection ends before.
async fn read_head(
    conn: &Conn,
    held: &mut Vec<u8>,
    hosts: &AllowedHosts,
) -> io::Result<Option<Result<RequestHead, HeadError>>> {
    loop {
        match request::parse(held, hosts) {
            Some(Ok((head, length))) => {
                held.drain(..length.min(held.len()));
                return Ok(Some(Ok(head)));
            }
            Some(Err(wrong)) => return Ok(Some(Err(wrong))),
            None if read_more(conn, held, MAX_HEAD).await? == 0 => return Ok(None),
            None => {}
        }
    }
}

/// One request.
struct Exchange<'a> {
    site: &'a Arc<Site>,
    settings: &'a SiteSettings,
    conn: &'a Conn,
    peer: SocketAddr,
    is_tls: bool,
    place: &'a Place,
    bounds: &'static Bounds,
}

/// What a request shows of the one that sends it.
enum Access {
    /// Nothing; what it asks for is open to all.
    Open,
    /// A session with this cookie, and its token.
    Session(String),
    /// The name and the password.
    Password,
}

impl Exchange<'_> {
    /// Reads the body of a request, if it is needed, and answers it.
    async fn answer(&mut self, head: RequestHead, held: &mut Vec<u8>) -> io::Result<Answer> {
        let path: Vec<&str> = head.path.iter().map(String::as_str).collect();
        let route = match path.first() {
            Some(&"api") => Route::find(head.method, &path),
            _ => {
                let file = files::answer(head.method, &path, head.if_none_match.as_deref());
                return self.without_body(&head, held, file).await;
            }
        };
        let (route, arguments) = match route {
            Ok(found) => found,
            Err(answer) => return self.without_body(&head, held, answer).await,
        };
        let access = match self.admit(&head, route).await {
            Ok(access) => access,
            Err(answer) => return self.without_body(&head, held, answer).await,
        };
        let most = match &access {
            Access::Open => MAX_OPEN_BODY,
            Access::Session(_) | Access::Password => {
                self.place.sign_in();
                self.bounds = &SIGNED_IN;
                MAX_BODY
            }
        };
        if head.length > most {
            let why = format!("The body is longer than {most} bytes.");
            return Ok(Answer::error(413, why).closing());
        }
        if head.length > 0 && !head.is_json {
            let why = "The body has to be JSON (Content-Type: application/json).";
            return self
                .without_body(&head, held, Answer::error(415, why))
                .await;
        }
        let Some(body) = self.body(&head, held).await? else {
            let why = "The body did not come in time.";
            return Ok(Answer::error(408, why).closing());
        };
        let body = match body.is_empty() {
            true => serde_json::Value::Null,
            false => match serde_json::from_slice(&body) {
                Ok(body) => body,
                // The error does not quote the body, which may have a password in it.
                Err(e) => {
                    let (line, column) = (e.line(), e.column());
                    let why = format!("The body is not JSON at line {line} column {column}.");
                    return Ok(Answer::error(400, why));
                }
            },
        };
        let cookies = match access {
            Access::Session(cookie) => vec![cookie],
            // A login takes over the cookie of the browser's other tabs.
            Access::Open => self.cookies(&head).cloned().collect(),
            Access::Password => Vec::new(),
        };
        let call = Call {
            admin: self.settings.admin.clone(),
            arguments,
            query: head.query,
            body,
            if_match: head.if_match,
            cookies,
            peer: self.peer,
            is_tls: self.is_tls,
        };
        Ok(api::answer(self.site, route, call).await)
    }

    /// Returns an answer that needs no body. One that is too long to be skipped ends the connection.
    async fn without_body(
        &self,
        head: &RequestHead,
        held: &mut Vec<u8>,
        answer: Answer,
    ) -> io::Result<Answer> {
        if head.length > MAX_OPEN_BODY || head.expects_continue {
            return Ok(answer.closing());
        }
        Ok(match self.body(head, held).await? {
            Some(_) => answer,
            None => answer.closing(),
        })
    }

    /// Reads the body; `None` if it does not come in time.
    async fn body(&self, head: &RequestHead, held: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        if head.expects_continue && held.len() < head.length {
            self.conn
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .await?;
        }
        let reading = async {
            while held.len() < head.length {
                if read_more(self.conn, held, head.length).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            io::Result::Ok(())
        };
        match timeout(self.bounds.receive, reading).await {
            Some(read) => read?,
            None => return Ok(None),
        }
        let rest = held.split_off(head.length.min(held.len()));
        Ok(Some(std::mem::replace(held, rest)))
    }

    /// Decides whether a request may be answered.
    async fn admit(&self, head: &RequestHead, route: Route) -> Result<Access, Answer> {
        let is_safe = head.method.is_safe();
        if head.is_cross_site && !is_safe {
            let why = "Another site has sent this request.";
            return Err(Answer::error(403, why));
        }
        if route.is_open() {
            return Ok(Access::Open);
        }
        if head.has_authorization {
            let Some(login) = head.login.clone() else {
                let why = "The API takes the name and the password by Basic authentication.";
                return Err(Answer::error(401, why));
            };
            let guard = &self.site.login;
            let checked = guard
                .check(&self.settings.admin, login, self.peer.ip())
                .await;
            return match checked {
                Ok(()) => Ok(Access::Password),
                Err(e) => Err(refusal(e, self.settings.admin.has_password())),
            };
        }
        // Without the token, the cookie is worth nothing: other ports of the host get it, too.
        let token = head.csrf.as_deref().unwrap_or_default();
        let mut cookies = self.cookies(head);
        match cookies.find(|cookie| self.site.sessions.resume(cookie, token)) {
            Some(cookie) => Ok(Access::Session(cookie.clone())),
            None => Err(Answer::error(401, "Sign in first.")),
        }
    }

    /// Returns the values of cookies that may be those of a session. Other services of the host may have set one
    /// with the name, too.
    fn cookies<'h>(&self, head: &'h RequestHead) -> impl Iterator<Item = &'h String> + use<'h, '_> {
        let cookies = head.cookies.iter();
        let named = cookies.filter(|(name, _)| *name == self.site.cookie);
        named.map(|(_, value)| value)
    }
}

/// Returns the answer to a failed login.
pub fn refusal(wrong: LoginError, has_password: bool) -> Answer {
    match wrong {
        LoginError::Wrong if !has_password => Answer::error(
            401,
            "There is no password: follow the link in the log. Each signs in once; gt -s reload makes another one.",
        ),
        LoginError::Wrong => Answer::error(401, "The name or the password is wrong."),
        LoginError::LockedOut(left) => {
            let seconds = left.as_secs().saturating_add(1);
            let why = format!("Too many logins have failed: try again in {seconds} s.");
            Answer::error(429, why).with("Retry-After", &seconds.to_string())
        }
        LoginError::Busy => {
            let why = "Too many logins wait to be checked: try again.";
            Answer::error(503, why).with("Retry-After", "5")
        }
    }
}
