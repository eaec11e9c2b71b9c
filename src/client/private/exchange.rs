//! The exchange of proofs at the beginning of a connection to a private service.

use super::proof::{is_proof, prove, Carried, ChannelBinding, ProvingEnd, MESSAGE};
use crate::config::Secret;
use crate::net::timeout;
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use std::fmt;
use std::io;
use std::time::Duration;

/// Time that the other end has for its proof.
const PROOF_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a private service cannot be used by a connection.
#[derive(Debug)]
pub enum ProofError {
    /// The connection has failed.
    Io(io::Error),
    /// The other end has no proof, or that of another key.
    Wrong,
    /// The other end has closed the connection in place of a proof.
    Refused,
}

impl fmt::Display for ProofError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) => write!(f, "the proof of the key: {e}"),
            Self::Wrong => f.write_str("the other end does not have the key"),
            Self::Refused => f.write_str(
                "the other client closed the connection: the key is not that of one of its private services, \
                 or it has given wrong keys too often",
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
    conn.write_all(&prove(key, ProvingEnd::Dialling, carried, binding))
        .await?;
    conn.flush().await?;
    let answer = read(conn).await?;
    match is_proof(&answer, key, ProvingEnd::Serving, carried, binding) {
        true => Ok(()),
        false => Err(ProofError::Wrong),
    }
}

/// Checks the proof of the end that has dialled, and proves the same one of these keys. Returns what was given with
/// that key. An end without a key learns nothing.
pub async fn serve<'a, T>(
    conn: &mut (impl AsyncRead + AsyncWrite + Unpin),
    keys: impl Iterator<Item = (T, &'a Secret)>,
    carried: Carried,
    binding: &ChannelBinding,
) -> Result<T, ProofError> {
    let message = read(conn).await?;
    let mut proved = None;
    // All keys, so that the time does not tell which one.
    for (of_key, key) in keys {
        if is_proof(&message, key, ProvingEnd::Dialling, carried, binding) {
            proved = Some((of_key, key));
        }
    }
    let (of_key, key) = proved.ok_or(ProofError::Wrong)?;
    conn.write_all(&prove(key, ProvingEnd::Serving, carried, binding))
        .await?;
    conn.flush().await?;
    Ok(of_key)
}
