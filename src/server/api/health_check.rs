//! The server's look at itself: it opens a tunnel to its own listener, comes as a visitor of
//! it, and compares what went in with what came out. All of it goes through real sockets.

use crate::net::tls::{Connector, ServerTrust};
use crate::net::{self, Conn};
use crate::server::incoming::{read_more, ListenerKind};
use crate::server::self_test::random_word;
use crate::server::{client_hello, ServerState};
use crate::tunnel::{Event, Inbox, PeerRole, Policy, Stream, Tunnel};
use crate::wire::frame::Signal;
use crate::wire::hello::{Hello, ServiceSpec};
use crate::wire::Version;
use async_io::Timer;
use futures_lite::{future, AsyncReadExt, AsyncWriteExt};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long all of it may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the end of the tunnel may take, when nobody waits for it any more.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest answer that is looked at.
const MAX_ANSWER: usize = 4096;

/// The listener that the server knocks at.
pub struct ProbeTarget {
    host: String,
    port: u16,
    door: ListenerKind,
    /// For a listener with TLS. It believes anybody: the server's certificate is for those
    /// who do not know whom they talk to.
    connector: Option<Connector>,
}

/// What the visitor says, and is to be answered.
struct ProbeExchange {
    question: Vec<u8>,
    answer: Vec<u8>,
}

impl ProbeTarget {
    /// For the listener at `addr`.
    pub fn new(addr: SocketAddr, door: ListenerKind) -> io::Result<Self> {
        // Listeners on every address have this one, those of IPv6 too.
        let host = match addr {
            addr if addr.ip().is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
            SocketAddr::V6(addr) if addr.scope_id() != 0 => {
                format!("{}%{}", addr.ip(), addr.scope_id())
            }
            addr => addr.ip().to_string(),
        };
        let connector = match door {
            ListenerKind::Https => Some(Connector::new(ServerTrust::Nobody)?),
            ListenerKind::Http | ListenerKind::Sni => None,
        };
        Ok(Self {
            host,
            port: addr.port(),
            door,
            connector,
        })
    }

    /// Says what is wrong, if something is.
    pub async fn check(&self, state: &ServerState) -> Result<(), String> {
        let deadline = Instant::now() + PROBE_TIMEOUT;
        let no_random = |e| format!("cannot make up a login: {e}");
        let guest = state.guest.invite().map_err(no_random)?;
        let talk = self.talk(state, &guest.id).map_err(no_random)?;

        let conn = by(deadline, "opening its own tunnel", self.connect()).await?;
        let peer = PeerRole::Server { streams: 1 };
        let policy = Policy::new(Version::One, peer, PROBE_TIMEOUT);
        let (tunnel, mut inbox) = Tunnel::new(Arc::new(conn), Vec::new(), policy);
        let hello = Hello {
            id: guest.id.as_str().into(),
            secret: guest.secret.as_bytes().into(),
            offers: vec![ServiceSpec::Host {
                tls: self.door == ListenerKind::Sni,
                prefix: None,
            }],
            window: 0,
        };
        tunnel.send_bytes(&hello.encode(Version::One));
        let talk = Arc::new(talk);
        let asking = async {
            by(deadline, "opening its own tunnel", ready(&mut inbox)).await?;
            let visit = by(deadline, "visiting itself", self.visit(&talk));
            future::or(visit, serve(&mut inbox, &talk)).await
        };
        let verdict = asking.await;
        tunnel.close();
        crate::spawn(async move {
            net::timeout(CLOSE_TIMEOUT, async {
                while !matches!(inbox.next().await, Event::End(_)) {}
            })
            .await;
        });
        verdict
    }

    /// Words that nobody else can know.
    fn talk(&self, state: &ServerState, prefix: &str) -> io::Result<ProbeExchange> {
        let (word, back) = (random_word()?, random_word()?);
        if self.door == ListenerKind::Sni {
            return Ok(ProbeExchange {
                question: client_hello::asking_for(&format!("{prefix}.status.invalid")),
                answer: back.into_bytes(),
            });
        }
        let name = &state.rules.get().mux_header;
        let routing = if name.eq_ignore_ascii_case("host") {
            format!("{name}: {prefix}.status.invalid")
        } else {
            format!("Host: status.invalid\r\n{name}: {prefix}")
        };
        let len = back.len();
        Ok(ProbeExchange {
            question: format!("GET /{word} HTTP/1.1\r\n{routing}\r\n\r\n").into_bytes(),
            answer: format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n{back}").into_bytes(),
        })
    }

    async fn connect(&self) -> Result<Conn, String> {
        let (host, port) = (&self.host, self.port);
        let socket = net::dial(host, port, PROBE_TIMEOUT)
            .await
            .map_err(|e| e.to_string())?;
        match &self.connector {
            Some(connector) => connector
                .connect("localhost", socket)
                .await
                .map_err(|e| format!("TLS with {host}:{port}: {e}")),
            None => Ok(Conn::from(socket)),
        }
    }

    /// Comes as a visitor.
    async fn visit(&self, talk: &ProbeExchange) -> Result<(), String> {
        let conn = self.connect().await?;
        let failed = |e: io::Error| format!("the visitor's connection: {e}");
        conn.write_all(&talk.question).await.map_err(failed)?;
        let mut answer = Vec::new();
        while answer.len() < talk.answer.len() {
            match read_more(&conn, &mut answer, MAX_ANSWER).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(e) => return Err(failed(e)),
            }
        }
        if answer == talk.answer {
            return Ok(());
        }
        let line = answer.split(|byte| *byte == b'\r').next();
        let line = String::from_utf8_lossy(line.unwrap_or_default());
        Err(match (self.door, &*line) {
            (_, "") => "the visitor got no answer".to_owned(),
            (ListenerKind::Sni, _) => "the visitor got another answer".to_owned(),
            (_, line) => format!("the visitor got another answer: {line}"),
        })
    }
}

/// Runs a step until the deadline.
async fn by<T>(
    deadline: Instant,
    step: &str,
    task: impl std::future::Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let task = async { task.await.map_err(|why| format!("{step}: {why}")) };
    let timeout = async {
        Timer::at(deadline).await;
        Err(format!("{step}: not done within {PROBE_TIMEOUT:?}"))
    };
    future::or(task, timeout).await
}

/// Waits until the server has taken the tunnel.
async fn ready(inbox: &mut Inbox) -> Result<(), String> {
    loop {
        match inbox.next().await {
            Event::Signal(Signal::Ready) => return Ok(()),
            Event::Signal(Signal::Error(refusal)) => return Err(format!("refused: {refusal}")),
            Event::End(end) => return Err(ended(end)),
            _ => {}
        }
    }
}

/// Answers the question, as a client would. Only comes back when the tunnel has ended.
async fn serve(inbox: &mut Inbox, talk: &Arc<ProbeExchange>) -> Result<(), String> {
    loop {
        match inbox.next().await {
            Event::Opened(stream, _) => crate::spawn(answer(stream, talk.clone())),
            Event::End(end) => return Err(ended(end)),
            _ => {}
        }
    }
}

fn ended(end: io::Result<()>) -> String {
    match end {
        Ok(()) => "the server has closed its own tunnel".to_owned(),
        Err(e) => format!("its own tunnel was lost: {e}"),
    }
}

/// A visitor with another question, or with this one changed, gets no answer.
async fn answer(mut stream: Stream, talk: Arc<ProbeExchange>) {
    let mut question = vec![0; talk.question.len()];
    if stream.read_exact(&mut question).await.is_ok() && question == talk.question {
        // The visitor finds out whether it came.
        let _ = stream.write_all(&talk.answer).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{self, Command};
    use crate::net::Shutdown;
    use crate::server::accept_visitors;
    use crate::server::auth_lockout::AuthLockout;
    use crate::server::settings::Settings;
    use async_std::task;

    fn state() -> Arc<ServerState> {
        let line = ["gt", "server", "-id", "id1", "-secret", "secret1"];
        let Ok(Command::Run(roles)) = cli::parse(&line.map(str::to_owned)) else {
            panic!("a command line that runs");
        };
        let config = roles[0].role.server().unwrap();
        let claims = Arc::default();
        let rules = Settings::new(config, &claims, None).unwrap();
        let guard = AuthLockout::new(0, Duration::ZERO);
        Arc::new(ServerState::new(rules, claims, guard).unwrap())
    }

    fn listen() -> net::Listener {
        net::listen(Some("127.0.0.1"), 0).unwrap()
    }

    /// What a look through a door of `there` tells the server that expects a guest.
    async fn look(
        here: &ServerState,
        there: Arc<ServerState>,
        door: ListenerKind,
    ) -> Result<(), String> {
        let listener = listen();
        let front = ProbeTarget::new(listener.addr(), door).unwrap();
        let serving = async {
            accept_visitors(there, Arc::new(listener), Shutdown::default(), door).await;
            Err("it serves no more".to_owned())
        };
        future::or(front.check(here), serving).await
    }

    #[test]
    fn a_server_that_works_is_found_to() {
        task::block_on(async {
            let state = state();
            for door in [ListenerKind::Http, ListenerKind::Sni, ListenerKind::Http] {
                assert_eq!(look(&state, state.clone(), door).await, Ok(()), "{door:?}");
            }
        });
    }

    #[test]
    fn a_refused_tunnel_is_the_reason() {
        let verdict = task::block_on(look(&state(), state(), ListenerKind::Http));
        let reason = "opening its own tunnel: refused: invalid id and secret";
        assert_eq!(verdict, Err(reason.to_owned()));
    }

    #[test]
    fn a_listener_that_is_gone_is_the_reason() {
        let front = ProbeTarget::new(listen().addr(), ListenerKind::Http).unwrap();
        let reason = task::block_on(front.check(&state())).unwrap_err();
        let start = format!(
            "opening its own tunnel: connecting to 127.0.0.1:{}",
            front.port
        );
        assert!(reason.starts_with(&start), "{reason}");
    }

    #[test]
    fn another_answer_than_the_one_that_was_given_is_the_reason() {
        for (answer, reason) in [
            (
                &b"HTTP/1.1 404 Not Found\r\n\r\n"[..],
                "got another answer: HTTP/1.1 404 Not Found",
            ),
            (b"", "got no answer"),
        ] {
            let verdict = task::block_on(async {
                let listener = listen();
                let front = ProbeTarget::new(listener.addr(), ListenerKind::Http).unwrap();
                let fake = async {
                    let tunnel = Conn::from(listener.accept().await.0);
                    let ready = Version::One.encode(Signal::Ready);
                    tunnel.write_all(ready.as_slice()).await.unwrap();
                    let visitor = Conn::from(listener.accept().await.0);
                    visitor.read(&mut [0; 1024]).await.unwrap();
                    visitor.write_all(answer).await.unwrap();
                    drop(visitor);
                    future::pending().await
                };
                future::or(front.check(&state()), fake).await
            });
            assert_eq!(
                verdict,
                Err(format!("visiting itself: the visitor {reason}"))
            );
        }
    }
}
