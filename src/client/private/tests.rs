//! A private service with something between its two ends: what relays the connection is the server.

use super::dialled::over_relay;
use super::exchange::{self, ProofError};
use super::lockout::PeerRefusal;
use super::proof::{Carried, ChannelBinding, MESSAGE};
use crate::config::Secret;
use crate::net::bridge::bridge;
use crate::net::{tls, Conn, Socket};
use futures_lite::{future, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// One end of a connection within this machine. Remembers what it has read.
struct End {
    conn: Arc<Conn>,
    read: Vec<u8>,
}

fn pair() -> (End, End) {
    let (near, far) = bridge().expect("a connection");
    let far = Conn::from(Socket::adopt(far).expect("the other end"));
    let end = |conn| End {
        conn: Arc::new(conn),
        read: Vec::new(),
    };
    (end(near), end(far))
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = self.conn.poll_read(cx, buf);
        if let Poll::Ready(Ok(n)) = read {
            self.read.extend_from_slice(&buf[..n]);
        }
        read
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.conn.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.conn.poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.conn.poll_shutdown(cx)
    }
}

fn key() -> Secret {
    Secret::new("the key that both ends share")
}

/// Dials as a client with this key does, and reads what comes then.
async fn dial(end: End, key: &Secret) -> Result<Vec<u8>, ProofError> {
    let (mut tls, exported) = tls::peer::dial(end).await?;
    let binding = ChannelBinding::of_session(exported);
    exchange::dial(&mut tls, key, Carried::Bytes, &binding).await?;
    tls.write_all(b"question").await?;
    tls.flush().await?;
    let mut answer = vec![0; 6];
    tls.read_exact(&mut answer).await?;
    Ok(answer)
}

/// Serves as a client with this key does.
async fn serve(end: End, key: &Secret) -> Result<Vec<u8>, ProofError> {
    let (mut tls, exported) = tls::peer::accept(end).await?;
    let binding = ChannelBinding::of_session(exported);
    let keys = [((), key)].into_iter();
    exchange::serve(&mut tls, keys, Carried::Bytes, &binding, Some).await?;
    let mut question = vec![0; 8];
    tls.read_exact(&mut question).await?;
    tls.write_all(b"answer").await?;
    tls.flush().await?;
    Ok(question)
}

/// Passes bytes on in both directions, and returns all of them.
async fn pass_on(one: End, other: End) -> Vec<u8> {
    let pass = |from: Arc<Conn>, to: Arc<Conn>| async move {
        let mut seen = Vec::new();
        let mut buf = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut buf).await {
            seen.extend_from_slice(&buf[..n]);
            if to.write_all(&buf[..n]).await.is_err() {
                break;
            }
        }
        let _ = future::poll_fn(|cx| to.poll_shutdown(cx)).await;
        seen
    };
    let (there, back) = (
        pass(one.conn.clone(), other.conn.clone()),
        pass(other.conn.clone(), one.conn.clone()),
    );
    let (mut there, back) = future::zip(there, back).await;
    there.extend(back);
    there
}

#[test]
fn two_ends_with_the_key_talk_and_what_relays_them_learns_nothing() {
    async_std::task::block_on(async {
        let ((client, near), (far, service)) = (pair(), pair());
        let key = key();
        let ends = future::zip(dial(client, &key), serve(service, &key));
        let ((answer, question), seen) = future::zip(ends, pass_on(near, far)).await;
        assert_eq!(answer.expect("an answer"), b"answer");
        assert_eq!(question.expect("a question"), b"question");
        for word in ["question", "answer", "the key"] {
            let word = word.as_bytes();
            assert!(!seen.windows(word.len()).any(|at| at == word));
        }
        assert!(seen.len() > 500, "it has relayed something");
    });
}

#[test]
fn an_end_with_another_key_is_refused_by_the_other() {
    async_std::task::block_on(async {
        let (client, service) = pair();
        let (key, other) = (key(), Secret::new("the key of another pair"));
        let (dialled, served) = future::zip(dial(client, &other), serve(service, &key)).await;
        assert!(matches!(served, Err(ProofError::Wrong)), "{served:?}");
        assert!(dialled.is_err());
    });
}

/// It ends both sessions itself, and passes the proofs on.
#[test]
fn a_server_between_two_sessions_of_its_own_gets_nowhere() {
    async_std::task::block_on(async {
        let ((client, near), (far, service)) = (pair(), pair());
        let key = key();
        let hijack = async {
            let accepting = tls::peer::accept(near);
            let dialling = tls::peer::dial(far);
            let (accepted, dialled) = future::try_zip(accepting, dialling).await?;
            let (mut accepted, mut dialled) = (accepted.0, dialled.0);
            let mut proof = [0; MESSAGE];
            accepted.read_exact(&mut proof).await?;
            dialled.write_all(&proof).await?;
            dialled.flush().await?;
            // The proof of the end with the service, if there is one, and whatever the client says then.
            let answered = dialled.read_exact(&mut proof).await;
            if answered.is_ok() {
                accepted.write_all(&proof).await?;
            }
            io::Result::Ok(answered.is_ok())
        };
        let ends = future::zip(dial(client, &key), serve(service, &key));
        let ((dialled, served), hijacked) = future::zip(ends, hijack).await;
        assert!(matches!(served, Err(ProofError::Wrong)), "{served:?}");
        assert!(dialled.is_err(), "{dialled:?}");
        assert!(!hijacked.expect("its own sessions"), "no proof came back");
    });
}

#[test]
fn a_recorded_proof_counts_in_no_other_session() {
    async_std::task::block_on(async {
        let key = key();
        // A session in which the proof is seen in the clear, as the dialling end itself does.
        let (client, service) = pair();
        let recording = async {
            let (mut tls, exported) = tls::peer::dial(client).await?;
            let binding = ChannelBinding::of_session(exported);
            let proof = super::proof::prove(
                &key,
                super::proof::ProvingEnd::Dialling,
                Carried::Bytes,
                &binding,
            );
            tls.write_all(&proof).await?;
            tls.flush().await?;
            let mut answer = [0; MESSAGE];
            tls.read_exact(&mut answer).await?;
            io::Result::Ok(proof)
        };
        let (proof, _) = future::zip(recording, serve(service, &key)).await;
        let proof = proof.expect("the proof counts once");
        let (client, service) = pair();
        let replaying = async {
            let (mut tls, _) = tls::peer::dial(client).await?;
            tls.write_all(&proof).await?;
            tls.flush().await?;
            tls.read_exact(&mut [0; MESSAGE]).await
        };
        let (replayed, served) = future::zip(replaying, serve(service, &key)).await;
        assert!(matches!(served, Err(ProofError::Wrong)), "{served:?}");
        assert!(replayed.is_err());
    });
}

#[test]
fn a_proof_of_the_dialling_end_does_not_prove_the_other_end() {
    async_std::task::block_on(async {
        let (client, near) = pair();
        let key = key();
        let reflecting = async {
            let (mut tls, _) = tls::peer::accept(near).await?;
            let mut proof = [0; MESSAGE];
            tls.read_exact(&mut proof).await?;
            tls.write_all(&proof).await?;
            tls.flush().await?;
            // Nothing of the client follows.
            tls.read_exact(&mut [0; 1]).await
        };
        let (dialled, reflected) = future::zip(dial(client, &key), reflecting).await;
        assert!(matches!(dialled, Err(ProofError::Wrong)), "{dialled:?}");
        assert!(reflected.is_err());
    });
}

/// What a dialling client makes of a refusal in place of a proof.
async fn refusal_of(refuse: impl AsyncFnOnce(&mut tls::peer::Accepted<End>)) -> ProofError {
    let (client, near) = pair();
    let refusing = async {
        let (mut tls, _) = tls::peer::accept(near).await?;
        refuse(&mut tls).await;
        io::Result::Ok(())
    };
    let (dialled, refused) = future::zip(dial(client, &key()), refusing).await;
    refused.expect("a session");
    dialled.expect_err("a refusal")
}

#[test]
fn a_refusal_tells_its_reason_and_an_end_none() {
    async_std::task::block_on(async {
        let e = refusal_of(async |tls| exchange::refuse_unheard(tls, PeerRefusal::TooMany).await);
        assert!(matches!(e.await, ProofError::TooMany));
        let left = std::time::Duration::from_secs(7);
        let locked = PeerRefusal::LockedOut(left);
        let e = refusal_of(async |tls| exchange::refuse_unheard(tls, locked).await);
        assert!(matches!(e.await, ProofError::LockedOut(Some(it)) if it == left));
        let e = refusal_of(async |tls| tls.close().await.expect("its end"));
        assert!(matches!(e.await, ProofError::Refused));
    });
}

#[test]
fn a_client_with_the_key_that_is_not_admitted_is_told_so() {
    async_std::task::block_on(async {
        let (client, service) = pair();
        let key = key();
        let serving = async {
            let (mut tls, exported) = tls::peer::accept(service).await?;
            let binding = ChannelBinding::of_session(exported);
            let keys = [((), &key)].into_iter();
            let deny = |()| None::<()>;
            exchange::serve(&mut tls, keys, Carried::Bytes, &binding, deny).await
        };
        let (dialled, served) = future::zip(dial(client, &key), serving).await;
        assert!(matches!(served, Err(ProofError::NotAllowed)), "{served:?}");
        assert!(
            matches!(dialled, Err(ProofError::NotAllowed)),
            "{dialled:?}"
        );
    });
}

#[test]
fn an_alert_in_place_of_a_handshake_tells_why() {
    async_std::task::block_on(async {
        for alert in [tls::peer::ACCESS_DENIED, tls::peer::INTERNAL_ERROR] {
            let (near, mut far) = pair();
            let conn = Arc::into_inner(near.conn).expect("the only one");
            let refusing = async {
                far.write_all(&alert).await.expect("sent");
                far.close().await.expect("its end");
            };
            let key = key();
            let dialling = over_relay(conn, Vec::new(), &key, Carried::Bytes);
            let (dialled, ()) = future::zip(dialling, refusing).await;
            let e = dialled.expect_err("a refusal");
            let is_locked_out = matches!(e, ProofError::LockedOut(None));
            assert_eq!(is_locked_out, alert == tls::peer::ACCESS_DENIED, "{e}");
            assert!(is_locked_out || matches!(e, ProofError::TooMany), "{e}");
        }
    });
}
