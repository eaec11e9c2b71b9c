//! The server's self test: opens a tunnel to its own listener, connects as a visitor, and compares
//! the bytes sent and received. Everything goes through real sockets.

use crate::net::tls::{Connector, ServerTrust};
use crate::net::{self, clock, Conn, Timer};
use crate::server::client_hello;
use crate::server::incoming::{read_more, ListenerKind};
use crate::server::self_test::random_hex;
use crate::server::state::ServerState;
use crate::tunnel::{Event, Inbox, PeerRole, Policy, Stream, Tunnel};
use crate::wire::frame::{RejectCode, Signal};
use crate::wire::hello::{Hello, Proof, ServiceSpec};
use crate::wire::proxy_protocol::ProxyVersion;
use crate::wire::Version;
use futures_lite::{future, AsyncReadExt, AsyncWriteExt};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io};

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

/// A step of the self test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeStep {
    Prepare,
    OpenTunnel,
    Visit,
}

/// The reason why the self test has failed, and the step.
#[derive(Debug)]
pub struct ProbeFailure {
    step: ProbeStep,
    cause: ProbeError,
}

/// The failure of one step of the self test.
#[derive(Debug)]
pub enum ProbeError {
    /// The system has no random numbers.
    NoRandom(io::Error),
    /// The listener cannot be reached, or its TLS fails.
    Unreachable(io::Error),
    /// The step has taken longer than [`PROBE_TIMEOUT`].
    Timeout,
    /// The server refused the tunnel.
    Refused(RejectCode),
    /// The server closed the tunnel (`None`), or it was lost.
    TunnelEnded(Option<io::Error>),
    /// The visitor's connection failed.
    VisitorLost(io::Error),
    /// The visitor's connection ended without an answer.
    NoAnswer,
    /// The visitor got another answer than the client gave; of HTTP, its first line.
    WrongAnswer(Option<String>),
}

impl fmt::Display for ProbeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.step {
            ProbeStep::Prepare => "creating a login: ",
            ProbeStep::OpenTunnel => "opening its own tunnel: ",
            ProbeStep::Visit => "connecting as a visitor: ",
        })?;
        match &self.cause {
            ProbeError::NoRandom(e) | ProbeError::Unreachable(e) => e.fmt(f),
            ProbeError::Timeout => write!(f, "not done within {PROBE_TIMEOUT:?}"),
            ProbeError::Refused(code) => write!(f, "refused: {code}"),
            ProbeError::TunnelEnded(None) => f.write_str("the server has closed the tunnel"),
            ProbeError::TunnelEnded(Some(e)) => write!(f, "the tunnel was lost: {e}"),
            ProbeError::VisitorLost(e) => write!(f, "the visitor's connection: {e}"),
            ProbeError::NoAnswer => f.write_str("the visitor got no answer"),
            ProbeError::WrongAnswer(line) => {
                f.write_str("the visitor got an unexpected answer")?;
                line.iter().try_for_each(|line| write!(f, ": {line}"))
            }
        }
    }
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
            ListenerKind::Http | ListenerKind::Sni | ListenerKind::Quic => None,
        };
        Ok(Self {
            host,
            port: addr.port(),
            kind,
            connector,
        })
    }

    /// Runs the self test.
    pub async fn check(&self, state: &ServerState) -> Result<(), ProbeFailure> {
        let deadline = clock::now() + PROBE_TIMEOUT;
        let no_random = |e| ProbeFailure {
            step: ProbeStep::Prepare,
            cause: ProbeError::NoRandom(e),
        };
        let login = state.self_test.create_login().map_err(no_random)?;
        let exchange = self.new_exchange(state, &login.id).map_err(no_random)?;

        let conn = by(deadline, ProbeStep::OpenTunnel, self.connect(state)).await?;
        let peer = PeerRole::Server { streams: 1 };
        let policy = Policy::new(Version::One, peer, PROBE_TIMEOUT);
        let (tunnel, mut inbox) = Tunnel::new(Arc::new(conn), Vec::new(), policy);
        let hello = Hello {
            id: login.id.as_str().into(),
            proof: Proof::Secret(login.secret.as_bytes().into()),
            services: vec![ServiceSpec::Host {
                tls: self.kind == ListenerKind::Sni,
                prefix: None,
            }],
            window: 0,
            origins: false,
            bbr: false,
            instance: None,
        };
        tunnel.send_bytes(&hello.encode(Version::One));
        let exchange = Arc::new(exchange);
        let testing = async {
            by(deadline, ProbeStep::OpenTunnel, ready(&mut inbox)).await?;
            let visit = by(deadline, ProbeStep::Visit, self.visit(state, &exchange));
            let serving = by(deadline, ProbeStep::Visit, serve(&mut inbox, &exchange));
            future::or(visit, serving).await
        };
        let verdict = testing.await;
        tunnel.close();
        crate::net::spawn(async move {
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
        // The server's own address may be one of `frontProxies`. Requests of proxies get this header.
        let routing = format!("{routing}\r\nConnection: close");
        Ok(ProbeExchange {
            question: format!("GET /{word} HTTP/1.1\r\n{routing}\r\n\r\n").into_bytes(),
            answer: format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n{back}").into_bytes(),
        })
    }

    async fn connect(&self, state: &ServerState) -> Result<Conn, ProbeError> {
        let (host, port) = (&self.host, self.port);
        let dialing = net::dial(host, port, PROBE_TIMEOUT);
        let socket = dialing.await.map_err(ProbeError::Unreachable)?;
        let own = socket.local_addr().map_err(ProbeError::Unreachable)?;
        // The server's own address may be one of `acceptProxy`.
        if state.settings.get().accepts_proxy_header(own.ip()) {
            let header = ProxyVersion::One.encode(None);
            // There is room for it in a new connection.
            socket.try_write(&header).map_err(ProbeError::Unreachable)?;
        }
        match &self.connector {
            Some(connector) => connector.connect("localhost", socket).await.map_err(|e| {
                let e = io::Error::new(e.kind(), format!("TLS with {host}:{port}: {e}"));
                ProbeError::Unreachable(e)
            }),
            None => Ok(Conn::from(socket)),
        }
    }

    /// Connects as a visitor and checks the answer.
    async fn visit(&self, state: &ServerState, exchange: &ProbeExchange) -> Result<(), ProbeError> {
        let conn = self.connect(state).await?;
        let failed = ProbeError::VisitorLost;
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
            (_, "") => ProbeError::NoAnswer,
            (ListenerKind::Sni, _) => ProbeError::WrongAnswer(None),
            (_, line) => ProbeError::WrongAnswer(Some(line.to_owned())),
        })
    }
}

/// Runs a step of the test until the deadline.
async fn by<T>(
    deadline: Instant,
    step: ProbeStep,
    task: impl std::future::Future<Output = Result<T, ProbeError>>,
) -> Result<T, ProbeFailure> {
    let timeout = async {
        Timer::at(deadline).await;
        Err(ProbeError::Timeout)
    };
    let done = future::or(task, timeout).await;
    done.map_err(|cause| ProbeFailure { step, cause })
}

/// Waits until the server has accepted the tunnel.
async fn ready(inbox: &mut Inbox) -> Result<(), ProbeError> {
    loop {
        match inbox.next().await {
            Event::Signal(Signal::Ready) => return Ok(()),
            Event::Signal(Signal::Error(code)) => return Err(ProbeError::Refused(code)),
            Event::End(end) => return Err(ProbeError::TunnelEnded(end.err())),
            _ => {}
        }
    }
}

/// Answers the request as a client would. Returns only when the tunnel has ended.
async fn serve(inbox: &mut Inbox, exchange: &Arc<ProbeExchange>) -> Result<(), ProbeError> {
    loop {
        match inbox.next().await {
            Event::Opened(stream, _) => crate::net::spawn(answer(stream, exchange.clone())),
            Event::End(end) => return Err(ProbeError::TunnelEnded(end.err())),
            _ => {}
        }
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
    use crate::auth_lockout::AuthLockout;
    use crate::cli::{self, Command};
    use crate::net::Shutdown;
    use crate::server::accept_visitors;
    use crate::server::settings::Settings;
    use async_std::task;

    fn state() -> Arc<ServerState> {
        let line = ["gt", "server", "-id", "id1", "-secret", "secret1"];
        let Ok(Command::Run(roles)) = cli::parse(&line.map(str::to_owned)) else {
            panic!("a command line that runs");
        };
        let config = roles[0].role.server().unwrap();
        let first_secrets = Arc::default();
        let settings = Settings::new(config, None, &first_secrets, None).unwrap();
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
        let checking = async { target.check(here).await.map_err(|e| e.to_string()) };
        future::or(checking, serving).await
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
        let reason = task::block_on(target.check(&state()));
        let reason = reason.unwrap_err().to_string();
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
                let state = state();
                let checking = async { target.check(&state).await.map_err(|e| e.to_string()) };
                future::or(checking, fake).await
            });
            assert_eq!(
                verdict,
                Err(format!("connecting as a visitor: the visitor {reason}"))
            );
        }
    }
}
