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

/// Pause between tries of a wrong key on one way. A client with private services refuses an address for 10 minutes after
/// 5 wrong proofs, and a corrected key must not have to wait for that.
const WRONG_PAUSE: Duration = Duration::from_secs(300);

/// The way on which a key is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyWay {
    Direct,
    /// Through the server, which could answer in place of the other client.
    Relay,
}

/// When the other end has said on each way that a key is wrong. A key that is configured anew starts without any.
#[derive(Default)]
pub struct KeyTrials(Mutex<WrongKey>);

#[derive(Default)]
struct WrongKey {
    directly: Option<Instant>,
    relayed: Option<Instant>,
}

impl KeyTrials {
    /// Returns why the key is not tried now on this way; `None` if it may be.
    pub fn pause(&self, way: KeyWay, now: Instant) -> Option<ProofError> {
        let trials = self.0.lock();
        let wrong = match way {
            KeyWay::Direct => trials.directly,
            KeyWay::Relay => trials.relayed,
        };
        let left = (wrong? + WRONG_PAUSE).saturating_duration_since(now);
        (!left.is_zero()).then_some(ProofError::Paused(left))
    }

    /// Notes what has come of a proof.
    fn tried<T>(&self, way: KeyWay, proved: &Result<T, ProofError>, now: Instant) {
        let mut trials = self.0.lock();
        match (proved, way) {
            // A key that is right on one way is right on the other.
            (Ok(_), _) => *trials = WrongKey::default(),
            // An older gt does not tell why it refuses, and a connection may have ended for any reason.
            (Err(ProofError::UnknownKey), KeyWay::Direct) => trials.directly = Some(now),
            (Err(ProofError::UnknownKey), KeyWay::Relay) => trials.relayed = Some(now),
            (Err(_), _) => {}
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
    /// Whether connections may go through the server.
    pub may_relay: bool,
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
        self.trials.tried(KeyWay::Relay, &proved, clock::now());
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
        self.trials.tried(KeyWay::Direct, &proved, clock::now());
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
    fn a_wrong_key_pauses_on_its_way_alone_and_not_after_other_failures() {
        use KeyWay::{Direct, Relay};
        let (trials, now) = (KeyTrials::default(), clock::now());
        // What fails otherwise says nothing about the key.
        for _ in 0..10 {
            for way in [Direct, Relay] {
                trials.tried(way, &Err::<(), _>(ProofError::Refused), now);
                trials.tried(way, &Err::<(), _>(ProofError::LockedOut(None)), now);
                trials.tried(way, &Err::<(), _>(ProofError::TooMany), now);
                assert!(trials.pause(way, now).is_none());
            }
        }
        trials.tried(Relay, &Err::<(), _>(ProofError::UnknownKey), now);
        let pause = trials.pause(Relay, now + WRONG_PAUSE / 2);
        assert!(matches!(pause, Some(ProofError::Paused(left)) if left == WRONG_PAUSE / 2));
        assert!(trials.pause(Direct, now).is_none(), "a server may lie");
        assert!(trials.pause(Relay, now + WRONG_PAUSE).is_none());
        trials.tried(Direct, &Err::<(), _>(ProofError::UnknownKey), now);
        assert!(trials.pause(Direct, now).is_some());
        trials.tried(Direct, &Ok(()), now);
        for way in [Direct, Relay] {
            assert!(trials.pause(way, now).is_none(), "it was proved");
        }
    }
}
