//! Admission of a client whose hello has been read, and the refusal of one.

use super::auth_api::{AuthApi, AuthDecision, GrantedPrefixes};
use super::handshake::LoginRejection;
use super::users::{Admission, LoginVerdict};
use super::ServerState;
use crate::net::{timeout, Conn};
use crate::wire::frame::{RejectCode, Signal};
use crate::wire::hello::{Hello, ServiceSpec};
use crate::wire::Version;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long a client has for reading a refusal.
const REFUSAL_READ_TIMEOUT: Duration = Duration::from_secs(15);
/// How long it may take to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A client that may come in.
pub struct Authenticated {
    pub id: Box<str>,
    pub secret: Box<[u8]>,
    pub admission: Admission,
    /// Who has admitted it if the configuration did not, and the prefixes it may have.
    pub judge: Option<(Arc<AuthApi>, GrantedPrefixes)>,
    pub offers: Vec<Option<ServiceSpec>>,
    /// All that it asked for, where that had to be judged.
    pub asked: Vec<ServiceSpec>,
    /// What may go on a new stream before the client gives credit.
    pub window: u32,
}

/// Asks about the credentials where that is needed.
pub async fn admit(
    state: &ServerState,
    peer: SocketAddr,
    hello: Hello,
    verdict: LoginVerdict,
) -> Result<Authenticated, LoginRejection> {
    let Hello {
        id,
        secret,
        offers,
        window,
    } = hello;
    let mut asked = Vec::new();
    let (admission, judge, offers) = match verdict {
        LoginVerdict::Admitted(admission) => (admission, None, all(offers)),
        LoginVerdict::Ask(api, limits) => {
            let judging = Box::pin(api.judge(&id, &secret, &offers));
            let judgement = judging.await;
            if let Some(left) = state.guard.lockout(peer.ip()) {
                // Others that were judged meanwhile have failed: it is not told of a success.
                return Err(LoginRejection::LockedOut(left));
            }
            match judgement {
                AuthDecision::Granted(grant) => {
                    asked = offers.clone();
                    let offers = grant.of(&id, offers);
                    (Admission::new(limits), Some((api, grant)), offers)
                }
                AuthDecision::Denied => {
                    return Err(LoginRejection::Refused(id, RejectCode::BadCredentials))
                }
                AuthDecision::Failed => {
                    return Err(LoginRejection::Unheard("the authAPI has failed"))
                }
            }
        }
        LoginVerdict::Refused => {
            return Err(LoginRejection::Refused(id, RejectCode::BadCredentials))
        }
    };
    Ok(Authenticated {
        id,
        secret,
        admission,
        judge,
        offers,
        asked,
        window,
    })
}

/// All services of a hello, as granted.
pub fn all(offers: Vec<ServiceSpec>) -> Vec<Option<ServiceSpec>> {
    offers.into_iter().map(Some).collect()
}

/// Tells a client why it may not come in, and lets it read that.
pub async fn refuse(conn: &Conn, version: Version, refusal: RejectCode) {
    let signal = version.encode(Signal::Error(refusal));
    let telling = async {
        if conn.write_all(signal.as_slice()).await.is_ok() {
            conn.linger(CLOSE_TIMEOUT).await;
        }
    };
    timeout(REFUSAL_READ_TIMEOUT, telling).await;
}
