//! The login of a client whose hello has been read: admits or rejects it.

use super::auth_api::{AuthApi, AuthDecision, GrantedPrefixes};
use super::handshake::LoginRejection;
use super::state::ServerState;
use super::users::{Admission, Authenticator, LoginVerdict};
use crate::net::{timeout, Conn};
use crate::wire::frame::{RejectCode, Signal};
use crate::wire::hello::{Hello, ServiceSpec, INSTANCE};
use crate::wire::Version;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Time that a rejected client has to read the reason.
const REFUSAL_READ_TIMEOUT: Duration = Duration::from_secs(15);
/// Time that a rejected client has to close the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// An admitted client.
pub struct Authenticated {
    /// The client's id.
    pub id: Box<str>,
    /// The client's secret or key.
    pub authenticator: Authenticator,
    /// The client's limits, and its lease if it has one.
    pub admission: Admission,
    /// The authAPI, if it has admitted the client, and the prefixes that it has granted.
    pub api_grant: Option<(Arc<AuthApi>, GrantedPrefixes)>,
    /// The services by their index; `None` for one that is not granted.
    pub services: Vec<Option<ServiceSpec>>,
    /// All requested services, if the authAPI has decided about them.
    pub requested: Vec<ServiceSpec>,
    /// Bytes that may be sent on a new stream before the client gives credit.
    pub window: u32,
    /// Whether each stream is to begin with its visitor's origin.
    pub origins: bool,
    /// What distinguishes the client from others with its id.
    pub instance: Option<[u8; INSTANCE]>,
}

/// Completes the check of the credentials, by the authAPI if needed.
pub async fn admit(
    state: &ServerState,
    peer: SocketAddr,
    hello: Hello,
    authenticator: Authenticator,
    verdict: LoginVerdict,
) -> Result<Authenticated, LoginRejection> {
    let Hello {
        id,
        proof: _,
        services,
        window,
        origins,
        bbr: _,
        instance,
    } = hello;
    let mut requested = Vec::new();
    let (admission, api_grant, services) = match verdict {
        LoginVerdict::Admitted(admission) => (admission, None, all_granted(services)),
        LoginVerdict::Ask(api, limits) => {
            let judging = Box::pin(api.authorize(&id, &authenticator, &services));
            let decision = judging.await;
            if let Some(left) = state.auth_lockout.lockout(peer.ip()) {
                // Concurrent logins have failed in the meantime: do not reveal the success.
                return Err(LoginRejection::LockedOut(left));
            }
            match decision {
                AuthDecision::Granted(grant) => {
                    requested = services.clone();
                    let services = grant.of(&id, services);
                    (Admission::new(limits), Some((api, grant)), services)
                }
                AuthDecision::Denied => {
                    return Err(LoginRejection::Refused(id, RejectCode::BadCredentials))
                }
                AuthDecision::Failed => {
                    return Err(LoginRejection::Unchecked("the authAPI has failed"))
                }
            }
        }
        LoginVerdict::Refused => {
            return Err(LoginRejection::Refused(id, RejectCode::BadCredentials))
        }
    };
    Ok(Authenticated {
        id,
        authenticator,
        admission,
        api_grant,
        services,
        requested,
        window,
        origins,
        instance,
    })
}

/// Returns all services of a hello as granted.
pub fn all_granted(services: Vec<ServiceSpec>) -> Vec<Option<ServiceSpec>> {
    services.into_iter().map(Some).collect()
}

/// Sends a client the reason why it is rejected, and gives it time to read it.
pub async fn reject(conn: &Conn, version: Version, code: RejectCode) {
    let signal = version.encode(Signal::Error(code));
    let telling = async {
        if conn.write_all(signal.as_slice()).await.is_ok() {
            conn.linger(CLOSE_TIMEOUT).await;
        }
    };
    timeout(REFUSAL_READ_TIMEOUT, telling).await;
}
