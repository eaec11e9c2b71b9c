//! The server's self test: opens a tunnel to its own listener, connects as a visitor, and compares
//! the bytes sent and received. Everything goes through real sockets.

use crate::net::tls::{Connector, ServerTrust};
use crate::net::{self, Conn};
use crate::server::client_hello;
use crate::server::incoming::{read_more, ListenerKind};
use crate::server::self_test::random_hex;
use crate::server::state::ServerState;
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

/// Maximum time of the whole test.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that the tunnel has to end after the test.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum length of an answer in bytes.
const MAX_ANSWER: usize = 4096;

/// The listener that the self test connects to.
pub struct ProbeTarget {
    host: String,
    port: u16,
    kind: ListenerKind,
    /// The connector for a listener with TLS. It verifies nothing: the test connects to the server's
    /// own address, which the certificate need not name.
    connector: Option<Connector>,
}

/// The request of the test's visitor and the answer that it expects.
struct ProbeExchange {
    question: Vec<u8>,
    answer: Vec<u8>,
}

impl ProbeTarget {
    /// Creates the target for the listener at `addr`.
    pub fn new(addr: SocketAddr, kind: ListenerKind) -> io::Result<Self> {
        // A listener on all addresses accepts on this one, too, even with IPv6.
        let host = match addr {
            addr if addr.ip().is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
            SocketAddr::V6(addr) if addr.scope_id() != 0 => {
                format!("{}%{}", addr.ip(), addr.scope_id())
            }
            addr => addr.ip().to_string(),
        };
        let connector = match kind {
            ListenerKind::Https => Some(Connector::new(ServerTrust::Nobody)?),
            ListenerKind::Http | ListenerKind::Sni => None,
        };
        Ok(Self {
            host,
            port: addr.port(),
            kind,
            connector,
        })
    }

    /// Runs the self test. The error says what failed.
    pub async fn check(&self, state: &ServerState) -> Result<(), String> {
        let deadline = Instant::now() + PROBE_TIMEOUT;
        let no_random = |e| format!("creating a login: {e}");
        let login = state.self_test.create_login().map_err(no_random)?;
        let exchange = self.new_exchange(state, &login.id).map_err(no_random)?;

        let conn = by(deadline, "opening its own tunnel", self.connect()).await?;
        let peer = PeerRole::Server { streams: 1 };
        let policy = Policy::new(Version::One, peer, PROBE_TIMEOUT);
        let (tunnel, mut inbox) = Tunnel::new(Arc::new(conn), Vec::new(), policy);
        let hello = Hello {
            id: login.id.as_str().into(),
            secret: login.secret.as_bytes().into(),
            offers: vec![ServiceSpec::Host {
                tls: self.kind == ListenerKind::Sni,
                prefix: None,
            }],
            window: 0,
        };
        tunnel.send_bytes(&hello.encode(Version::One));
        let exchange = Arc::new(exchange);
        let testing = async {
            by(deadline, "opening its own tunnel", ready(&mut inbox)).await?;
            let visit = by(deadline, "connecting as a visitor", self.visit(&exchange));
            future::or(visit, serve(&mut inbox, &exchange)).await
        };
        let verdict = testing.await;
        tunnel.close();
        crate::spawn(async move {
            net::timeout(CLOSE_TIMEOUT, async {
                while !matches!(inbox.next().await, Event::End(_)) {}
            })
            .await;
        });
        verdict
    }

    /// Creates an exchange with random content.
    fn new_exchange(&self, state: &ServerState, prefix: &str) -> io::Result<ProbeExchange> {
        let (word, back) = (random_hex()?, random_hex()?);
        if self.kind == ListenerKind::Sni {
            return Ok(ProbeExchange {
                question: client_hello::asking_for(&format!("{prefix}.status.invalid")),
                answer: back.into_bytes(),
            });
        }
        let name = &state.settings.get().mux_header;
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

    /// Connects as a visitor and checks the answer.
    async fn visit(&self, exchange: &ProbeExchange) -> Result<(), String> {
        let conn = self.connect().await?;
        let failed = |e: io::Error| format!("the visitor's connection: {e}");
        conn.write_all(&exchange.question).await.map_err(failed)?;
        let mut answer = Vec::new();
        while answer.len() < exchange.answer.len() {
            match read_more(&conn, &mut answer, MAX_ANSWER).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(e) => return Err(failed(e)),
            }
        }
        if answer == exchange.answer {
            return Ok(());
        }
        let line = answer.split(|byte| *byte == b'\r').next();
        let line = String::from_utf8_lossy(line.unwrap_or_default());
        Err(match (self.kind, &*line) {
            (_, "") => "the visitor got no answer".to_owned(),
            (ListenerKind::Sni, _) => "the visitor got an unexpected answer".to_owned(),
            (_, line) => format!("the visitor got an unexpected answer: {line}"),
        })
    }
}

/// Runs a step of the test until the deadline.
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

/// Waits until the server has accepted the tunnel.
async fn ready(inbox: &mut Inbox) -> Result<(), String> {
    loop {
        match inbox.next().await {
            Event::Signal(Signal::Ready) => return Ok(()),
            Event::Signal(Signal::Error(code)) => return Err(format!("refused: {code}")),
            Event::End(end) => return Err(ended(end)),
            _ => {}
        }
    }
}

/// Answers the request as a client would. Returns only when the tunnel has ended.
async fn serve(inbox: &mut Inbox, exchange: &Arc<ProbeExchange>) -> Result<(), String> {
    loop {
        match inbox.next().await {
            Event::Opened(stream, _) => crate::spawn(answer(stream, exchange.clone())),
            Event::End(end) => return Err(ended(end)),
            _ => {}
        }
    }
}

fn ended(end: io::Result<()>) -> String {
    match end {
        Ok(()) => "the server has closed the tunnel".to_owned(),
        Err(e) => format!("the tunnel was lost: {e}"),
    }
}

/// Answers a stream that carries exactly the expected request.
async fn answer(mut stream: Stream, exchange: Arc<ProbeExchange>) {
    let mut question = vec![0; exchange.question.len()];
    if stream.read_exact(&mut question).await.is_ok() && question == exchange.question {
        // If this fails, the visitor reports it.
        let _ = stream.write_all(&exchange.answer).await;
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
        let first_secrets = Arc::default();
        let settings = Settings::new(config, &first_secrets, None).unwrap();
        let lockout = AuthLockout::new(0, Duration::ZERO);
        Arc::new(ServerState::new(settings, first_secrets, lockout).unwrap())
    }

    fn listen() -> net::Listener {
        net::listen(Some("127.0.0.1"), 0).unwrap()
    }

    /// Runs the self test of `here` against a listener of `there`.
    async fn test_listener(
        here: &ServerState,
        there: Arc<ServerState>,
        kind: ListenerKind,
    ) -> Result<(), String> {
        let listener = listen();
        let target = ProbeTarget::new(listener.addr(), kind).unwrap();
        let serving = async {
            accept_visitors(there, Arc::new(listener), Shutdown::default(), kind).await;
            Err("the listener stopped".to_owned())
        };
        future::or(target.check(here), serving).await
    }

    #[test]
    fn a_working_server_passes() {
        task::block_on(async {
            let state = state();
            for kind in [ListenerKind::Http, ListenerKind::Sni, ListenerKind::Http] {
                assert_eq!(
                    test_listener(&state, state.clone(), kind).await,
                    Ok(()),
                    "{kind:?}"
                );
            }
        });
    }

    #[test]
    fn a_rejected_tunnel_is_the_reason() {
        let verdict = task::block_on(test_listener(&state(), state(), ListenerKind::Http));
        let reason = "opening its own tunnel: refused: invalid id and secret";
        assert_eq!(verdict, Err(reason.to_owned()));
    }

    #[test]
    fn a_closed_listener_is_the_reason() {
        let target = ProbeTarget::new(listen().addr(), ListenerKind::Http).unwrap();
        let reason = task::block_on(target.check(&state())).unwrap_err();
        let start = format!(
            "opening its own tunnel: connecting to 127.0.0.1:{}",
            target.port
        );
        assert!(reason.starts_with(&start), "{reason}");
    }

    #[test]
    fn an_unexpected_answer_is_the_reason() {
        for (answer, reason) in [
            (
                &b"HTTP/1.1 404 Not Found\r\n\r\n"[..],
                "got an unexpected answer: HTTP/1.1 404 Not Found",
            ),
            (b"", "got no answer"),
        ] {
            let verdict = task::block_on(async {
                let listener = listen();
                let target = ProbeTarget::new(listener.addr(), ListenerKind::Http).unwrap();
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
                future::or(target.check(&state()), fake).await
            });
            assert_eq!(
                verdict,
                Err(format!("connecting as a visitor: the visitor {reason}"))
            );
        }
    }
}
