//! The other client, as it is reached through the server: as a visitor of its host prefix.

use super::error::ForwardError;
use crate::client::p2p::signaling::{SignalingResponse, RELAY};
use crate::client::p2p::{ChannelConn, P2p};
use crate::client::pool::Pool;
use crate::client::private::{self, Carried, ProofError};
use crate::client::reach::reach_as_visitor;
use crate::config::Secret;
use crate::net::{clock, timeout, Conn};
use crate::sync::Mutex;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Timeout for answers of the server.
const SERVER_TIMEOUT: Duration = Duration::from_secs(20);

/// Number of wrong proofs of a key, after which it is tried rarely: a client with private services refuses an address
/// for 10 minutes after 5 wrong ones, and a corrected key must not have to wait for that.
const WRONG_AT_ONCE: u32 = 2;
/// Pause between further tries of a wrong key.
const WRONG_PAUSE: Duration = Duration::from_secs(300);

/// The wrong proofs of a key. One that is configured anew starts without any.
#[derive(Default)]
pub struct KeyTrials(Mutex<(u32, Option<Instant>)>);

impl KeyTrials {
    /// Returns why the key is not tried now; `None` if it may be.
    pub fn pause(&self, now: Instant) -> Option<ProofError> {
        let (wrong, last) = *self.0.lock();
        let due = last? + WRONG_PAUSE;
        let pauses = wrong >= WRONG_AT_ONCE && now < due;
        pauses.then(|| ProofError::Paused(due.saturating_duration_since(now)))
    }

    /// Notes what has come of a proof.
    fn tried<T>(&self, proved: &Result<T, ProofError>, now: Instant) {
        let mut trials = self.0.lock();
        match proved {
            Ok(_) => *trials = (0, None),
            // An older gt does not tell why it refuses, and may have ended.
            Err(ProofError::UnknownKey) => {
                *trials = (trials.0.saturating_add(1), Some(now));
            }
            Err(_) => {}
        }
    }
}

/// Another client of the same server.
pub struct OtherClient {
    /// The peers of this client.
    pub p2p: Arc<P2p>,
    /// The tunnels of this client, which know where the servers are.
    pub pools: Vec<Arc<Pool>>,
    /// The host prefix of the other client.
    pub host_prefix: String,
    /// The tries of the key of its private service.
    pub trials: KeyTrials,
}

/// A connection through the server that the other client relays.
pub struct RelayedConn {
    pub conn: Conn,
    /// Bytes of the service that have come already.
    pub come: Vec<u8>,
}

impl OtherClient {
    /// Connects to the server as a visitor of the other client. Also returns the host to ask for.
    pub async fn visit(&self) -> Result<(Conn, String), ForwardError> {
        let mut remote = None;
        for pool in &self.pools {
            if remote.is_none() {
                remote = pool.place().await;
            }
        }
        let remote = remote.ok_or(ForwardError::UnknownServer)?;
        let reached = reach_as_visitor(self.p2p.context(), &remote, SERVER_TIMEOUT).await;
        let conn = reached.map_err(ForwardError::Unreachable)?.conn;
        // An IP address has no subdomains, but only the first label counts.
        let host = remote.host.replace([':', '%'], "-");
        let host = format!("{}.{host}:{}", self.host_prefix, remote.port);
        Ok((conn, host))
    }

    /// Opens a connection through the server to the service of this label, or to the private one with this key, up to
    /// which it is encrypted.
    pub async fn relay_to(
        &self,
        label: &str,
        key: Option<&Secret>,
        carried: Carried,
    ) -> Result<RelayedConn, ForwardError> {
        let relayed = self.relay(label).await?;
        let Some(key) = key else {
            return Ok(relayed);
        };
        let proving = private::over_relay(relayed.conn, relayed.come, key, carried);
        let proved = timeout(SERVER_TIMEOUT, Box::pin(proving)).await;
        let proved = proved.ok_or(io::ErrorKind::TimedOut)?;
        self.trials.tried(&proved, clock::now());
        Ok(RelayedConn {
            conn: proved?,
            come: Vec::new(),
        })
    }

    /// Proves the key of a private service over a direct channel.
    pub async fn prove(
        &self,
        channel: &mut ChannelConn,
        key: &Secret,
        carried: Carried,
    ) -> Result<(), ProofError> {
        let proved = private::over_peer(channel, key, carried).await;
        self.trials.tried(&proved, clock::now());
        proved
    }

    async fn relay(&self, label: &str) -> Result<RelayedConn, ForwardError> {
        let (conn, host) = self.visit().await?;
        let request =
            format!("XP / HTTP/1.1\r\nHost: {host}\r\n{RELAY}\r\nWebRTC-Label: {label}\r\n\r\n");
        conn.write_all(request.as_bytes()).await?;
        let answer = timeout(SERVER_TIMEOUT, SignalingResponse::read(&conn)).await;
        let answer = answer.ok_or(io::ErrorKind::TimedOut)??;
        if answer.status != 200 {
            return Err(ForwardError::Status(answer.status));
        }
        // A client without relays answers 200 and an empty page.
        if !answer.relays {
            return Err(ForwardError::CannotRelay);
        }
        Ok(RelayedConn {
            conn,
            come: answer.rest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_key_is_tried_twice_and_then_rarely() {
        let (trials, now) = (KeyTrials::default(), clock::now());
        let wrong = || Err::<(), _>(ProofError::UnknownKey);
        // What fails otherwise says nothing about the key.
        for _ in 0..10 {
            trials.tried(&Err::<(), _>(ProofError::Refused), now);
            trials.tried(&Err::<(), _>(ProofError::LockedOut(None)), now);
        }
        for _ in 0..WRONG_AT_ONCE {
            assert!(trials.pause(now).is_none());
            trials.tried(&wrong(), now);
        }
        let pause = trials.pause(now + WRONG_PAUSE / 2);
        assert!(matches!(pause, Some(ProofError::Paused(left)) if left == WRONG_PAUSE / 2));
        let later = now + WRONG_PAUSE;
        assert!(trials.pause(later).is_none());
        trials.tried(&wrong(), later);
        assert!(trials.pause(later).is_some());
        trials.tried(&Ok(()), later);
        assert!(trials.pause(later).is_none());
    }
}
