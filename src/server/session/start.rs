//! The start of a session: its client is admitted or rejected, and what another process had is adopted.

use super::{ApiGrant, AuthState, ServerSession};
use crate::handover::MovedTunnel;
use crate::net::{self, Conn, ShardId, Socket, TaskGuard};
use crate::server::connection_limit::Permit;
use crate::server::handshake::{LoginRejection, VerifiedHello};
use crate::server::incoming::Incoming;
use crate::server::login::{admit, reject, Authenticated};
use crate::server::quic;
use crate::server::registry::client_key;
use crate::server::settings::Settings;
use crate::server::state::ServerState;
use crate::server::users::{Authenticator, Credentials, LoginProof};
use crate::sync::Mutex;
use crate::tunnel::{PeerRole, Policy, Tunnel};
use crate::wire::codec::HelloReader;
use crate::wire::frame::{RejectCode, StreamId};
use crate::wire::hello::Hello;
use crate::wire::Version;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU32;
use std::sync::Arc;
use std::time::Duration;

/// Admits a client and serves its tunnel, or rejects it. `verified` is `None` if the hello timed out.
pub async fn serve(
    incoming: Incoming,
    conn: Arc<Conn>,
    version: Version,
    verified: Option<VerifiedHello>,
) {
    let Incoming {
        state,
        settings,
        peer,
        head: rest,
        handshake_guard,
        permit,
        ..
    } = incoming;
    let verified = verified.unwrap_or(Err(LoginRejection::Silent));
    let authenticated = match verified {
        Ok((hello, authenticator, verdict)) => {
            if hello.bbr {
                quic::use_bbr(&conn);
            }
            admit(&state, peer, hello, authenticator, verdict).await
        }
        Err(rejected) => Err(rejected),
    };
    let connection = Connection {
        conn,
        peer,
        version,
        rest,
        origin: TunnelOrigin::Client,
        handshake_guard,
        held: (state.serving.begin(), permit),
    };
    start(state, settings, connection, authenticated).await;
}

/// Serves a tunnel that another process has served before.
pub async fn adopt(state: Arc<ServerState>, moved: MovedTunnel, socket: Socket) {
    let (serving, handshake_guard) = (state.serving.begin(), state.handshakes.begin());
    let peer = moved.peer.map_or_else(|| socket.peer_addr(), Ok);
    let (Some(hello), Ok(peer)) = (read_registration(&moved.hello), peer) else {
        return log::warn!("a tunnel moved from another process is invalid and was closed");
    };
    // It may be one too many.
    let permit = state.connection_limit.take(peer.ip());
    let permit = permit.unwrap_or(Permit::UNCOUNTED);
    let settings = state.settings.get();
    // Tunnels with keys are of GT/2, and do not move.
    let secret = hello.proof.secret().unwrap_or_default();
    let authenticator = Authenticator::Secret(secret.into());
    let verdict = settings.users.check_login(&hello.id, &authenticator);
    let authenticated = admit(&state, peer, hello, authenticator, verdict).await;
    let connection = Connection {
        conn: Arc::new(socket.into()),
        peer,
        version: Version::One,
        rest: moved.unread,
        origin: match moved.is_ready {
            true => TunnelOrigin::Process {
                last_stream: moved.last_stream,
            },
            false => TunnelOrigin::Client,
        },
        handshake_guard,
        held: (serving, permit),
    };
    start(state, settings, connection, authenticated).await;
}

/// Parses the hello of a moved tunnel.
fn read_registration(bytes: &[u8]) -> Option<Hello> {
    let (mut reader, mut used) = (HelloReader::registration(), 0);
    loop {
        // The reader stops once, after the credentials.
        let n = reader.feed(bytes.get(used..)?).ok()?;
        used += n;
        match reader.finish() {
            Ok(hello) => return Some(hello),
            Err(_) if n == 0 => return None,
            Err(unfinished) => reader = unfinished,
        }
    }
}

/// A connection whose hello has been read.
struct Connection {
    conn: Arc<Conn>,
    peer: SocketAddr,
    version: Version,
    /// Bytes read after the hello.
    rest: Vec<u8>,
    origin: TunnelOrigin,
    /// Held until the tunnel is registered or rejected.
    handshake_guard: TaskGuard,
    /// Held until the connection is closed.
    held: Held,
}

/// What counts a tunnel's connection.
pub(super) type Held = (TaskGuard, Permit);

/// The origin of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TunnelOrigin {
    /// The tunnel's client, which waits for the ready signal.
    Client,
    /// Another process, in which `last_stream` was the id of its last stream.
    Process { last_stream: StreamId },
}

/// Spawns the session of an admitted client, or rejects the client.
async fn start(
    state: Arc<ServerState>,
    settings: Arc<Settings>,
    connection: Connection,
    authenticated: Result<Authenticated, LoginRejection>,
) {
    let Connection {
        conn,
        peer,
        version,
        rest,
        origin,
        handshake_guard,
        held,
    } = connection;
    let handshake_guard = authenticated.is_ok().then_some(handshake_guard);
    match authenticated {
        Ok(authenticated) => {
            quic::raise_window(&conn);
            if authenticated.admission.proof() == LoginProof::Known {
                state.auth_lockout.succeeded(peer.ip());
            }
            let shortest = settings.timeout.unwrap_or(Duration::from_secs(60));
            let shortest = shortest.min(settings.udp_timeout);
            let speed = state
                .rate_limits
                .for_user(&authenticated.id, authenticated.admission.limits.speed);
            let policy = Policy {
                speed: Some(speed),
                credit: authenticated.window,
                origins: authenticated.origins,
                ..Policy::new(version, PeerRole::Client, shortest)
            };
            let requested = authenticated.requested;
            let api_grant = authenticated.api_grant.map(|(api, prefixes)| {
                Box::new(ApiGrant {
                    api,
                    prefixes,
                    requested,
                })
            });
            let thread = ShardId::next();
            if let Err(e) = conn.move_to(thread) {
                return log::warn!("serving the tunnel of {peer}: {e}");
            }
            let key = client_key(&authenticated.id, authenticated.instance);
            let credentials = Credentials {
                key: Some(key).filter(|key| *key != authenticated.id),
                id: authenticated.id,
                authenticator: authenticated.authenticator,
            };
            let credentials = state.registry.share_credentials(credentials);
            let (tunnel, inbox) = Tunnel::on(thread, conn, rest, policy);
            let session = ServerSession {
                state,
                peer,
                credentials,
                is_self_test: authenticated.admission.is_self_test,
                pending_changes: AtomicU32::new(0),
                auth_state: Mutex::new(AuthState {
                    settings,
                    admission: authenticated.admission,
                    api_grant,
                }),
                tunnel,
            };
            let services = authenticated.services;
            if let Some(inbox) = session.join(services, inbox, origin, handshake_guard).await {
                // A task of its own: nothing of the handshake stays in memory.
                net::spawn_unboxed_on(thread, session.run(inbox, held));
            }
        }
        Err(LoginRejection::Silent) => log::debug!("{peer}: no hello of a tunnel arrived in time"),
        Err(LoginRejection::SelfTestExpired) => log::debug!("{peer}: the self test has ended"),
        Err(LoginRejection::Malformed(e)) => log::debug!("{peer}: bad hello: {e}"),
        Err(LoginRejection::Unchecked(why)) => {
            state.counters.refused(RejectCode::BadCredentials);
            log::debug!("{peer}: a tunnel is refused: {why}");
            reject(&conn, version, RejectCode::BadCredentials).await;
        }
        Err(LoginRejection::LockedOut(left)) => {
            let whole = left.as_secs();
            let seconds = whole.saturating_add(u64::from(left.subsec_nanos() > 0));
            let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
            let code = RejectCode::LockedOut(seconds);
            state.counters.refused(code);
            log::debug!(
                "{peer}: a tunnel is refused: its address failed to authenticate too often, \
                 {seconds} s left"
            );
            reject(&conn, version, code).await;
        }
        Err(LoginRejection::Refused(id, code)) => {
            state.counters.refused(code);
            log::warn!("refused a client id={id} addr={peer}: {code}");
            if code == RejectCode::BadCredentials {
                if let Some(lockout) = state.auth_lockout.failed(peer.ip()) {
                    log::warn!(
                        "{lockout}; its tunnels are refused for {:?} (reconnectTimes, \
                         reconnectDuration)",
                        lockout.left
                    );
                }
            }
            reject(&conn, version, code).await;
        }
    }
}
