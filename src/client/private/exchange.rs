//! The exchange of proofs at the beginning of a connection to a private service.

use super::lockout::PeerRefusal;
use super::proof::{is_proof, prove, Carried, ChannelBinding, ProvingEnd, MESSAGE};
use crate::config::Secret;
use crate::net::timeout;
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use std::fmt;
use std::io;
use std::time::Duration;

/// Time that the other end has for its proof.
const PROOF_TIMEOUT: Duration = Duration::from_secs(10);

/// What an end with private services says in place of a proof, before it closes the connection: a zero, the reason,
/// and for how long it holds in seconds (docs/p2p.md, "The proof of a key").
const REFUSAL: usize = 6;
const NO_PROOF: u8 = 0;
const UNKNOWN_KEY: u8 = 1;
const LOCKED_OUT: u8 = 2;
const TOO_MANY: u8 = 3;
const NOT_ALLOWED: u8 = 4;

/// Why a private service cannot be used by a connection.
#[derive(Debug)]
pub enum ProofError {
    /// The connection has failed.
    Io(io::Error),
    /// The other end has no proof, or that of another key.
    Wrong,
    /// The other end has closed the connection in place of a proof.
    Refused,
    /// The end with private services has none with this key.
    UnknownKey,
    /// The end with private services does not look at proofs of this end's address, for a time that it may have told.
    LockedOut(Option<Duration>),
    /// This end's address has too many connections to the private services of the other end.
    TooMany,
    /// The key is right, and the rules of the service do not admit this end's address.
    NotAllowed,
    /// This end does not try the key again before this time has passed.
    Paused(Duration),
}

impl ProofError {
    /// Whether the other end has said it. The connection has failed otherwise.
    pub fn is_answer(&self) -> bool {
        match self {
            Self::Wrong
            | Self::UnknownKey
            | Self::LockedOut(_)
            | Self::TooMany
            | Self::NotAllowed => true,
            Self::Io(_) | Self::Refused | Self::Paused(_) => false,
        }
    }
}

impl fmt::Display for ProofError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) => write!(f, "the proof of the key: {e}"),
            Self::Wrong => f.write_str("the other end does not have the key"),
            Self::Refused => f.write_str(
                "the connection ended in place of an answer to the key: the server has cut it, or the other client \
                 is an older gt that refuses the key or this address",
            ),
            Self::UnknownKey => f.write_str(
                "the key is wrong: it is not that of one of the other client's private services",
            ),
            Self::LockedOut(left) => {
                f.write_str("wrong keys came from this address too often: the other client refuses it ")?;
                match left {
                    Some(left) => write!(f, "for {} s more", left.as_secs())?,
                    None => f.write_str("for up to 10 minutes")?,
                }
                f.write_str(", or until its key changes")
            }
            Self::TooMany => f.write_str(
                "this address has too many connections to the other client's private services; \
                 others are possible when some of them have ended",
            ),
            Self::NotAllowed => f.write_str(
                "the key is right, but the service's allow, deny or visitorRate does not admit this address",
            ),
            Self::Paused(left) => write!(
                f,
                "the key was wrong, so it is not tried again for {} s; a reload with another key tries that at once",
                left.as_secs()
            ),
        }
    }
}

impl std::error::Error for ProofError {}

impl From<io::Error> for ProofError {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => Self::Refused,
            _ => Self::Io(e),
        }
    }
}

async fn read(conn: &mut (impl AsyncRead + Unpin)) -> Result<[u8; MESSAGE], ProofError> {
    let mut message = [0; MESSAGE];
    let reading = timeout(PROOF_TIMEOUT, conn.read_exact(&mut message));
    reading
        .await
        .unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
    Ok(message)
}

/// Proves the key to the end with the service, and checks its proof.
pub async fn dial(
    conn: &mut (impl AsyncRead + AsyncWrite + Unpin),
    key: &Secret,
    carried: Carried,
    binding: &ChannelBinding,
) -> Result<(), ProofError> {
    let sending = async {
        conn.write_all(&prove(key, ProvingEnd::Dialling, carried, binding))
            .await?;
        conn.flush().await
    };
    let sent: io::Result<()> = sending.await;
    // An end that refuses may not wait for the proof.
    let answer = match (read_answer(conn).await, sent) {
        (Ok(answer), Ok(())) => answer,
        (Err(e), _) if e.is_answer() => return Err(e),
        (_, Err(e)) => return Err(e.into()),
        (Err(e), Ok(())) => return Err(e),
    };
    match is_proof(&answer, key, ProvingEnd::Serving, carried, binding) {
        true => Ok(()),
        false => Err(ProofError::Wrong),
    }
}

/// Reads a proof, or the error that the other end says in its place.
async fn read_answer(conn: &mut (impl AsyncRead + Unpin)) -> Result<[u8; MESSAGE], ProofError> {
    let reading = async {
        let mut first = [0; REFUSAL];
        conn.read_exact(&mut first).await?;
        if let Some(refusal) = parse_refusal(first) {
            return Ok(Err(refusal));
        }
        let mut message = [0; MESSAGE];
        let (begun, rest) = message.split_at_mut(REFUSAL);
        begun.copy_from_slice(&first);
        conn.read_exact(rest).await?;
        io::Result::Ok(Ok(message))
    };
    let read = timeout(PROOF_TIMEOUT, reading).await;
    read.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?
}

/// Parses a refusal; `None` if it is the beginning of a proof.
fn parse_refusal(bytes: [u8; REFUSAL]) -> Option<ProofError> {
    let [NO_PROOF, reason, seconds @ ..] = bytes else {
        return None;
    };
    let seconds = Duration::from_secs(u32::from_be_bytes(seconds).into());
    Some(match reason {
        UNKNOWN_KEY => ProofError::UnknownKey,
        LOCKED_OUT => ProofError::LockedOut(Some(seconds)),
        TOO_MANY => ProofError::TooMany,
        NOT_ALLOWED => ProofError::NotAllowed,
        _ => ProofError::Refused,
    })
}

/// Says why there is no proof, and closes the connection. What fails here is of no interest.
async fn refuse(conn: &mut (impl AsyncWrite + Unpin), reason: u8, left: Duration) {
    let [a, b, c, d] = u32::try_from(left.as_secs())
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    let refusing = async {
        conn.write_all(&[NO_PROOF, reason, a, b, c, d]).await?;
        conn.flush().await?;
        conn.close().await
    };
    if let Some(Err(e)) = timeout(PROOF_TIMEOUT, refusing).await {
        log::debug!("refusing a peer: {e}");
    }
}

/// Tells the end that has dialled why its proof is not looked at.
pub async fn refuse_unheard(conn: &mut (impl AsyncWrite + Unpin), why: PeerRefusal) {
    match why {
        PeerRefusal::LockedOut(left) => refuse(conn, LOCKED_OUT, left).await,
        PeerRefusal::TooMany => refuse(conn, TOO_MANY, Duration::ZERO).await,
    }
}

/// Checks the proof of the end that has dialled, and proves the same one of these keys. Returns what `admit` makes of
/// what was given with that key; the end is told if that is `None`. An end without a key learns nothing but that.
pub async fn serve<'a, T, A>(
    conn: &mut (impl AsyncRead + AsyncWrite + Unpin),
    keys: impl Iterator<Item = (T, &'a Secret)>,
    carried: Carried,
    binding: &ChannelBinding,
    admit: impl FnOnce(T) -> Option<A>,
) -> Result<A, ProofError> {
    let message = read(conn).await?;
    let mut proved = None;
    // All keys, so that the time does not tell which one.
    for (of_key, key) in keys {
        if is_proof(&message, key, ProvingEnd::Dialling, carried, binding) {
            proved = Some((of_key, key));
        }
    }
    let Some((of_key, key)) = proved else {
        refuse(conn, UNKNOWN_KEY, Duration::ZERO).await;
        return Err(ProofError::Wrong);
    };
    let Some(admitted) = admit(of_key) else {
        refuse(conn, NOT_ALLOWED, Duration::ZERO).await;
        return Err(ProofError::NotAllowed);
    };
    conn.write_all(&prove(key, ProvingEnd::Serving, carried, binding))
        .await?;
    conn.flush().await?;
    Ok(admitted)
}
