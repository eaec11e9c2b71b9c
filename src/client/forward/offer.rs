//! The offer of a peer-to-peer connection to the other client, as the end that dials (docs/p2p.md,
//! "Signaling").

use super::error::ForwardError;
use super::other_client::OtherClient;
use crate::client::p2p::checks::IceRole;
use crate::client::p2p::endpoint::Endpoint;
use crate::client::p2p::link::PeerHandle;
use crate::client::p2p::message::{MessageReader, SignalingMessage};
use crate::client::p2p::sdp::{self, Description};
use crate::client::p2p::signaling::{chunk, PublicCandidates, SignalingResponse, CANDIDATES, PEER};
use crate::client::p2p::{begin, host_candidates};
use crate::net::{clock, timeout, Conn, Timer};
use futures_lite::future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The end of a request's body: of the messages' own chunks, and of HTTP's.
const REQUEST_END: &[u8] = b"5\r\n0\r\n\r\n\r\n0\r\n\r\n";

/// Time for an exchange of addresses with a peer that does not answer any more, and the pause before the next one.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(8);
const EXCHANGE_PAUSE: Duration = Duration::from_secs(2);

impl OtherClient {
    /// Offers a P2P connection through the server, and waits until it is up.
    pub async fn connect(&self) -> Result<(PeerHandle, Arc<Endpoint>), ForwardError> {
        let endpoint = self.p2p.endpoint_of_one().map_err(ForwardError::Peer)?;
        let begun = begin(
            &self.p2p,
            endpoint.clone(),
            IceRole::Dials,
            None,
            |peer, identity| Ok(peer.describe(identity, sdp::offer)),
        );
        let (link, hosts, offer) = begun.map_err(ForwardError::Peer)?;
        // Ends the peer if the caller stops waiting.
        let mut undecided = PendingVisit(Some(link.clone()));
        let (conn, host) = self.visit().await?;
        let head = format!(
            "XP / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\
             Connection: close\r\n\r\n"
        );
        conn.write_all(head.as_bytes()).await?;
        send_message(&conn, SignalingMessage::Offer(offer)).await?;
        let telling = async {
            for host in hosts {
                send_message(&conn, SignalingMessage::Candidate(host)).await?;
            }
            let mut public = PublicCandidates::new(&self.p2p, &endpoint);
            while let Some(candidate) = public.next().await {
                send_message(&conn, SignalingMessage::Candidate(candidate)).await?;
            }
            Ok(conn.write_all(REQUEST_END).await?)
        };
        let hearing = self.read_answer(&conn, &endpoint, &link);
        let talking = async {
            // An early end of the answer must not end this end's messages.
            let (told, heard) = future::zip(telling, hearing).await;
            heard.and(told)?;
            future::pending::<Result<(), ForwardError>>().await
        };
        let connected = async {
            match link.connected().await {
                true => Ok(()),
                false => Err(ForwardError::Unconnected),
            }
        };
        future::or(connected, talking).await?;
        undecided.0 = None;
        Ok((link, endpoint))
    }

    /// Tells the other end this end's addresses, and asks for its, whenever a peer is connected and none of those that
    /// are known answers (docs/p2p.md, "The path"). Ends with the peer.
    pub async fn follow(&self, link: &PeerHandle, endpoint: &Endpoint) {
        while link.lost().await.is_some() {
            log::debug!(
                "{} does not answer any more; addresses are exchanged",
                self.host_prefix
            );
            let exchanged = timeout(EXCHANGE_TIMEOUT, self.exchange_addresses(link, endpoint));
            match exchanged.await {
                Some(Ok(())) => {}
                Some(Err(e)) => log::debug!("exchanging addresses with {}: {e}", self.host_prefix),
                None => log::debug!("exchanging addresses with {} takes long", self.host_prefix),
            }
            Timer::after(EXCHANGE_PAUSE).await;
        }
    }

    async fn exchange_addresses(
        &self,
        link: &PeerHandle,
        endpoint: &Endpoint,
    ) -> Result<(), ForwardError> {
        let theirs = link.lock().their_ufrag().unwrap_or_default().to_owned();
        endpoint.forget_reflexive();
        let (conn, host) = self.visit().await?;
        let head = format!(
            "XP / HTTP/1.1\r\nHost: {host}\r\nWebRTC-OP: {CANDIDATES}\r\n{PEER}: {theirs}\r\n\
             Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        );
        conn.write_all(head.as_bytes()).await?;
        let telling = async {
            for host in host_candidates(endpoint) {
                send_message(&conn, SignalingMessage::Candidate(host)).await?;
            }
            let mut public = PublicCandidates::new(&self.p2p, endpoint);
            while let Some(candidate) = public.next().await {
                send_message(&conn, SignalingMessage::Candidate(candidate)).await?;
            }
            Ok(conn.write_all(REQUEST_END).await?)
        };
        let hearing = async {
            let mut answer = SignalingResponse::read(&conn).await?;
            if answer.status != 200 {
                return Err(ForwardError::Status(answer.status));
            }
            let mut reader = MessageReader::default();
            while let Some(message) = answer.next(&conn, &mut reader).await? {
                if let SignalingMessage::Candidate(candidate) = message {
                    link.with(|peer| peer.add_remote(&candidate, clock::now()));
                }
            }
            Ok(())
        };
        future::try_zip(telling, hearing).await.map(drop)
    }

    /// Reads the other client's answer and its candidates.
    async fn read_answer(
        &self,
        conn: &Conn,
        endpoint: &Endpoint,
        link: &PeerHandle,
    ) -> Result<(), ForwardError> {
        let mut answer = SignalingResponse::read(conn).await?;
        if answer.status != 200 {
            return Err(ForwardError::Status(answer.status));
        }
        let mut reader = MessageReader::default();
        let mut is_answered = false;
        while let Some(message) = answer.next(conn, &mut reader).await? {
            match message {
                SignalingMessage::Answer(sdp) => {
                    is_answered = true;
                    let description = Description::parse(&sdp);
                    let description = description.map_err(ForwardError::BadAnswer)?;
                    let side = description.side_of_offer();
                    let now = clock::now();
                    link.with(|peer| peer.connect(&endpoint.identity, &description, side, now))
                        .map_err(ForwardError::Peer)?;
                }
                SignalingMessage::Candidate(candidate) => {
                    link.with(|peer| peer.add_remote(&candidate, clock::now()));
                }
                SignalingMessage::Offer(_) => {
                    return Err(ForwardError::BadAnswer(
                        "the other client answered with an offer",
                    ))
                }
            }
        }
        match is_answered {
            true => Ok(()),
            false => Err(ForwardError::BadAnswer(
                "the other client answered with an empty page",
            )),
        }
    }
}

/// A peer that is ended on drop unless it was confirmed.
struct PendingVisit(Option<PeerHandle>);

impl Drop for PendingVisit {
    fn drop(&mut self) {
        if let Some(link) = self.0.take() {
            link.with(|peer| peer.close(clock::now()));
        }
    }
}

/// Sends a message of a request's body, framed twice: the original's clients read messages only in
/// chunks of their own within the body, and answer other requests with an empty 200.
async fn send_message(conn: &Conn, message: SignalingMessage) -> io::Result<()> {
    conn.write_all(&chunk(&chunk(&message.write()))).await
}
