//! Opens one tunnel: hello and the server's answer on a connection. Not how the server is reached, see
//! `reach`, nor the life of the tunnel after that, see `session`.

use super::context::ClientContext;
use super::hello_turn::HelloTurn;
use super::offered_services::OfferedServices;
use super::other_protocol::OtherProtocol;
use super::reach::{reach, silence, Reached};
use super::services::{ServerAbility, Services};
use crate::config::Remote;
use crate::keys::PrivateKey;
use crate::net::http::ApiError;
use crate::net::{timeout, tls, Conn, LinkUse, Timer};
use crate::tunnel::{Event, Inbox, PeerRole, Policy, Tunnel};
use crate::wire::codec::{self, HelloAnswer};
use crate::wire::frame::{PortCause, RejectCode, ServiceIndex, Signal};
use crate::wire::hello::{Proof, ServiceKinds, SignedKey};
use crate::wire::{Version, MAGIC};
use futures_lite::future;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

/// Maximum number of streams of one tunnel; further ones are refused.
const MAX_STREAMS: u32 = 16 * 1024;
/// Time that a server has to answer a GT/2 hello before GT/1 is tried (docs/wire.md, "Version
/// detection").
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that a server has to answer a hello after the client was told to stop. Once the hello is on its
/// way, the server may open streams for visitors in the tunnel, which would be cut without this.
const STOPPING_TIMEOUT: Duration = Duration::from_secs(2);
/// Time that another program has to complete the line that tells its protocol.
const LINE_TIMEOUT: Duration = Duration::from_secs(1);

/// The reason why no tunnel could be opened.
#[derive(Debug)]
pub enum ConnectFailure {
    /// The remoteAPI does not know the server's address.
    UnknownAddress(ApiError),
    /// The server cannot be reached.
    Unreachable(io::Error),
    /// The TLS handshake has failed.
    Tls(io::Error),
    /// The server has not granted the WebSocket for the tunnel, for this reason.
    NoWebSocket(String),
    /// The server does not support this version of the wire protocol.
    WrongVersion,
    /// The server takes no logins with keys, as its answer says.
    TakesNoKeys,
    /// The beginning of a login with a key had no answer of GT/2.
    NoChallenge,
    /// The connection has nothing that a login with a key could be bound to.
    Unbound,
    /// The server cannot publish all kinds of services that the hello has, but these.
    LacksKinds(ServiceKinds),
    /// The other end is not a gt server.
    OtherProtocol(OtherProtocol),
    /// The connection ended during the hello.
    Ended(io::Error),
    /// The server has not answered within this time.
    Silent(Duration),
    /// One way of several had no result within this time.
    NoAnswer(Duration),
    /// The server has refused the client, or one of its services, with this code; the text names
    /// it.
    Refused(RejectCode, String),
    /// The server speaks GT/1, over which no service of this client can be published.
    NothingToPublish,
    /// None of the ways to the server works.
    NoWay(Vec<(Remote, ConnectFailure)>),
    /// The client is stopping.
    Stopped,
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownAddress(e) => {
                write!(f, "cannot get the server's address from remoteAPI: {e}")
            }
            Self::Unreachable(e) => write!(f, "cannot reach the server: {e}"),
            Self::Tls(e) => write!(f, "cannot speak TLS with the server: {e}{}", tls::advice(e)),
            Self::NoWebSocket(why) => write!(
                f,
                "cannot open a WebSocket to the server: {why}; check that the path in remote is the server's \
                 wsPath, and that proxies on the way let WebSockets through"
            ),
            Self::WrongVersion => f.write_str(
                "the server does not speak GT/2, and wire is 2; set it to auto, or to 1",
            ),
            Self::TakesNoKeys => f.write_str(
                "the server takes no logins with keys: its gt is too old, or none of its users has a \
                 publicKey; set secret instead of key, or change the server",
            ),
            Self::NoChallenge => f.write_str(
                "the server closed the connection, was silent, or does not speak GT/2, which a login with a key \
                 needs: perhaps another program is at this address, a proxy or a limit of connections is in the \
                 way, or the server's gt is too old",
            ),
            Self::Unbound => f.write_str(
                "a login with a key needs TLS 1.3, which the server or a proxy before it does not speak",
            ),
            Self::LacksKinds(_) => {
                f.write_str("the server's version of gt cannot publish all of the services")
            }
            Self::OtherProtocol(other) => write!(f, "not a gt server: {other}"),
            Self::Ended(e) => write!(f, "the server ended the hello: {e}"),
            Self::Silent(patience) => {
                write!(f, "the server did not answer the hello within {patience:?}")
            }
            Self::NoAnswer(patience) => write!(f, "no answer within {patience:?}"),
            Self::Refused(refusal, whom) => {
                write!(f, "the server refused {whom}: {refusal}")?;
                match refusal {
                    RejectCode::BadCredentials => f.write_str(
                        "; check id and secret (some servers also say this to an address that \
                         they have locked out after failed logins)",
                    ),
                    RejectCode::LockedOut(_) => f.write_str("; check id and secret meanwhile"),
                    RejectCode::PortNotOpened(_) => f.write_str(
                        "; ask for another remoteTCPPort (remoteUDPPort), or set remoteTCPRandom \
                         (remoteUDPRandom), or have the server allow it",
                    ),
                    RejectCode::HostConflict => f.write_str(
                        "; the server's log names it: choose another hostPrefix or domain, give all members of a \
                         serviceGroup the same groupKey, or wait a minute if that client has stopped",
                    ),
                    RejectCode::HostNotAllowed => f.write_str(
                        "; the server's log names it: choose another hostPrefix or domain, or have \
                         the server allow it",
                    ),
                    RejectCode::OtherClientConnected => {
                        f.write_str("; stop the other one or use another id")
                    }
                    _ => Ok(()),
                }
            }
            Self::NothingToPublish => f.write_str(
                "the server cannot publish any of the services (GT/1 does not tell where visitors come \
                 from, for allow and deny, and has no domains, UDP or groups; nor have earlier versions of gt); \
                 update the server, or remove these options",
            ),
            Self::NoWay(failures) => {
                f.write_str("no way to the server works")?;
                by_text(failures)
                    .iter()
                    .try_for_each(|(ways, failure)| write!(f, "; {ways}: {failure}"))
            }
            Self::Stopped => f.write_str("stopping"),
        }
    }
}

/// Returns the texts of failures, each with all ways that have failed like this: those through one proxy often have one
/// reason.
fn by_text(failures: &[(Remote, ConnectFailure)]) -> Vec<(String, String)> {
    let mut texts: Vec<(String, String)> = Vec::new();
    for (way, failure) in failures {
        let text = failure.to_string();
        match texts.iter_mut().find(|(_, known)| *known == text) {
            Some((ways, _)) => *ways = format!("{ways}, {way}"),
            None => texts.push((way.to_string(), text)),
        }
    }
    texts
}

/// A tunnel that has just been opened.
pub struct Connected {
    /// The end of the tunnel that events come from.
    pub inbox: Inbox,
    /// The tunnel.
    pub tunnel: Tunnel,
    /// The services that the hello has announced, and the ports that the server has opened for them.
    pub offered: OfferedServices,
    /// What the server can publish.
    pub ability: ServerAbility,
    /// The link of this machine that the tunnel is over.
    pub link: LinkUse,
}

/// Connects, sends the hello when its turn has come, and waits until the server is ready. Returns the
/// tunnel with the services that the hello has announced.
pub async fn connect(
    context: &ClientContext,
    remote: &Remote,
    turn: &HelloTurn,
    ability: ServerAbility,
    id: u32,
) -> Result<Connected, ConnectFailure> {
    let reached = context
        .stop
        .or(reach(
            context,
            remote,
            ability.version,
            context.remote_timeout,
        ))
        .await;
    let reached = reached.unwrap_or(Err(ConnectFailure::Stopped))?;
    let _turn = turn.take().await;
    // The client does not end meanwhile.
    let _serving = context.serving.begin();
    let stopping = async {
        context.stop.wait().await;
        Timer::after(STOPPING_TIMEOUT).await;
        Err(ConnectFailure::Stopped)
    };
    future::or(introduce(context, reached, ability, id), stopping).await
}

/// Sends the hello over a connection and waits until the server is ready.
async fn introduce(
    context: &ClientContext,
    Reached { conn, link }: Reached,
    mut ability: ServerAbility,
    id: u32,
) -> Result<Connected, ConnectFailure> {
    let version = ability.version;
    let patience = context.remote_timeout;
    let all = context.services();
    all.log_unpublished(ability);
    let services = all.for_server(ability);
    if services.is_empty() {
        return Err(ConnectFailure::NothingToPublish);
    }
    let shortest = services.shortest_timeout().min(patience / 2);
    let mut policy = Policy::new(
        version,
        PeerRole::Server {
            streams: MAX_STREAMS,
        },
        shortest,
    );
    let mut hello = services.hello(&context.id, context.credential.proof());
    hello.origins = context.origins;
    hello.bbr = context.bbr;
    hello.instance = context.instance;
    let key = context.credential.key();
    let already = match version {
        Version::One if key.is_some() => return Err(ConnectFailure::NoChallenge),
        Version::One => {
            let hello = hello.encode(version);
            future::or(hello_gt1(&conn, &hello), silence(patience)).await?
        }
        Version::Two => {
            let bytes = match key {
                // The server answers these two bytes with the challenge, which the rest of the hello signs.
                Some(_) => vec![MAGIC, version.byte()],
                None => hello.encode(version),
            };
            let asking = timeout(HELLO_TIMEOUT.min(patience), hello_gt2(&conn, &bytes));
            let answered = asking.await.unwrap_or(Err(ConnectFailure::WrongVersion));
            let (answer, already) = answered.map_err(|failure| match failure {
                ConnectFailure::WrongVersion if key.is_some() => ConnectFailure::NoChallenge,
                failure => failure,
            })?;
            ability.kinds = answer.kinds;
            ability.health = answer.health;
            if !services.fit(ability) {
                return Err(ConnectFailure::LacksKinds(answer.kinds));
            }
            if let Some(key) = key {
                hello.proof = prove(key, &context.id, &answer, &conn)?;
                let hello = hello.encode(version);
                let rest = hello.get(bytes.len()..).unwrap_or_default();
                let sending = conn.write_all(rest).await;
                sending.map_err(ConnectFailure::Ended)?;
            }
            policy.origins = context.origins && answer.origins;
            already
        }
    };
    all.log_untold_health(ability);
    if context.origins && !policy.origins {
        all.log_unknown_origins(version);
    }
    let (tunnel, mut inbox) = Tunnel::new(Arc::new(conn), already, policy);
    let mut offered = OfferedServices::new(services);
    let ready = wait_until_ready(context, &mut offered, &mut inbox, id);
    future::or(ready, silence(patience)).await?;
    Ok(Connected {
        inbox,
        tunnel,
        offered,
        ability,
        link,
    })
}

/// Signs the challenge of a server's answer, for this connection alone.
fn prove(
    key: &PrivateKey,
    id: &str,
    answer: &HelloAnswer,
    conn: &Conn,
) -> Result<Proof, ConnectFailure> {
    let challenge = answer.challenge.ok_or(ConnectFailure::TakesNoKeys)?;
    let binding = conn.binding().ok_or(ConnectFailure::Unbound)?;
    Ok(Proof::Key(Box::new(SignedKey {
        key: key.public_key(),
        signature: Some(challenge.sign(key, &binding, id)),
    })))
}

/// Sends a GT/2 hello, or its beginning, and reads the answer; returns it and the bytes behind it. Reports
/// another protocol only where no GT/1 server answers like that: those close the connection, or take the
/// hello for a bad HTTP request or bad TLS.
async fn hello_gt2(conn: &Conn, hello: &[u8]) -> Result<(HelloAnswer, Vec<u8>), ConnectFailure> {
    let not_spoken = |_| ConnectFailure::WrongVersion;
    conn.write_all(hello).await.map_err(not_spoken)?;
    let mut bytes = Vec::new();
    loop {
        match codec::parse_answer(&bytes) {
            Ok(Some(answer)) => return Ok((answer, bytes.split_off(answer.length))),
            Ok(None) => {}
            Err(_) => {
                return Err(match OtherProtocol::of(&bytes) {
                    Some(stranger @ OtherProtocol::Ssh(_)) => {
                        ConnectFailure::OtherProtocol(stranger)
                    }
                    _ => ConnectFailure::WrongVersion,
                })
            }
        }
        if read_some(conn, &mut bytes).await.map_err(not_spoken)? == 0 {
            return Err(ConnectFailure::WrongVersion);
        }
    }
}

/// Sends a GT/1 hello and returns the first bytes of the answer. Fails if they are of another
/// protocol.
async fn hello_gt1(conn: &Conn, hello: &[u8]) -> Result<Vec<u8>, ConnectFailure> {
    conn.write_all(hello).await.map_err(ConnectFailure::Ended)?;
    let mut bytes = Vec::new();
    read_some(conn, &mut bytes)
        .await
        .map_err(ConnectFailure::Ended)?;
    if !bytes.is_empty() {
        // Another program may begin a line and not end it.
        let line = async {
            while !OtherProtocol::is_whole(&bytes)
                && matches!(read_some(conn, &mut bytes).await, Ok(1..))
            {}
        };
        timeout(LINE_TIMEOUT, line).await;
    }
    match OtherProtocol::of(&bytes) {
        Some(stranger) => Err(ConnectFailure::OtherProtocol(stranger)),
        None => Ok(bytes),
    }
}

/// Appends available bytes; 0 is the end.
async fn read_some(conn: &Conn, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let mut piece = [0; 256];
    let n = conn.read(&mut piece).await?;
    bytes.extend_from_slice(piece.get(..n).unwrap_or_default());
    Ok(n)
}

/// Describes a refusal of this client, or of one of `services`.
pub fn refused(
    context: &ClientContext,
    services: &Services,
    refusal: RejectCode,
) -> ConnectFailure {
    let mut whom = context.id.clone();
    if let (RejectCode::BadCredentials, Some(key)) = (refusal, context.credential.key()) {
        whom = format!(
            "{whom} with the key \"{}\" (is it a publicKey of this user, and is there no proxy between \
             that ends TLS?)",
            key.public_key()
        );
    }
    if let RejectCode::PortNotOpened(service) = refusal {
        whom = format!("{whom}, {}", services.describe(service));
    }
    ConnectFailure::Refused(refusal, whom)
}

async fn wait_until_ready(
    context: &ClientContext,
    offered: &mut OfferedServices,
    inbox: &mut Inbox,
    id: u32,
) -> Result<(), ConnectFailure> {
    loop {
        match inbox.next().await {
            Event::Signal(Signal::Ready) => return Ok(()),
            Event::Signal(Signal::Error(refusal)) => {
                return Err(refused(context, offered.current(), refusal))
            }
            Event::Signal(Signal::PortOpened { service, port }) => {
                port_opened(offered, service, port, id);
            }
            Event::Signal(Signal::PortUnavailable { service, cause }) => {
                port_unavailable(offered, service, cause, id);
            }
            Event::End(Err(e)) => return Err(ConnectFailure::Ended(e)),
            Event::End(Ok(())) => {
                return Err(ConnectFailure::Ended(
                    io::ErrorKind::ConnectionAborted.into(),
                ))
            }
            // A stream before ready violates the protocol; dropping it closes it.
            Event::Signal(_)
            | Event::Ping
            | Event::Close
            | Event::Services(_)
            | Event::Opened(..)
            | Event::OpenedBefore(..)
            | Event::Notice
            | Event::Tick => {}
        }
    }
}

/// Logs and notes that the server has opened the port of a service for tunnel `id`.
pub fn port_opened(offered: &mut OfferedServices, service: ServiceIndex, port: u16, id: u32) {
    offered.note_port(service, Some(port));
    let kind = offered.next().kind_of_port(service);
    // Scripts for version 2 of the original look for the key `tcp port`.
    log::info!(
        "receive server information: {kind} port {port} opened successfully connID={id} {kind} port={port}"
    );
}

/// Logs and notes that the server cannot open the port of a service for tunnel `id`.
pub fn port_unavailable(
    offered: &mut OfferedServices,
    service: ServiceIndex,
    cause: PortCause,
    id: u32,
) {
    offered.note_port(service, None);
    let services = offered.next();
    let kind = services.kind_of_port(service).to_ascii_uppercase();
    let service = services.describe(service);
    log::warn!(
        "the server cannot open the {kind} port of {service}: {cause}; it publishes the other \
         services and goes on trying connID={id}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_that_fail_for_one_reason_share_its_text() {
        let failed = |way: &str, seconds| {
            let silent = ConnectFailure::Silent(Duration::from_secs(seconds));
            (way.parse().unwrap(), silent)
        };
        let all = [
            failed("tls://h", 1),
            failed("tcp://h", 2),
            failed("tcp://h:1", 1),
        ];
        assert_eq!(
            ConnectFailure::NoWay(all.into()).to_string(),
            "no way to the server works; tls://h:443, tcp://h:1: the server did not answer the hello within 1s; \
             tcp://h:80: the server did not answer the hello within 2s"
        );
    }
}
