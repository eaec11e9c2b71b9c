//! Connections from a proxy in front of the server that begin with a header of the PROXY protocol
//! (`acceptProxy`): reads the header, so that they are their visitors' from then on.

use super::incoming::AcceptedConn;
use super::state::ServerState;
use crate::logging::held_back;
use crate::net::{clock, timeout_at, with_read_buf, Socket};
use crate::wire::origin::VisitorOrigin;
use crate::wire::proxy_protocol::parse::{parse, BadHeader, ProxyHeader, MAX_HEADER};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Time that a front has to send the header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the header of a connection from a front, and takes the visitor's permit. `None` if the
/// connection is refused.
pub async fn introduce(
    state: &ServerState,
    socket: Socket,
    front: SocketAddr,
) -> Option<AcceptedConn> {
    let deadline = clock::now() + HEADER_TIMEOUT;
    let origin = match timeout_at(deadline, read_header(&socket)).await {
        Some(Ok(origin)) => origin,
        Some(Err(e)) => {
            warn(state, front, &e);
            return None;
        }
        None => {
            warn(state, front, &"no whole PROXY header within 5 s");
            return None;
        }
    };
    let peer = origin.as_ref().map_or(front, |origin| origin.source);
    let permit = state.connection_limit.take(peer.ip())?;
    Some(AcceptedConn {
        socket,
        peer,
        origin: origin.map(Box::new),
        permit,
    })
}

/// Reads the header, and nothing behind it.
async fn read_header(socket: &Socket) -> io::Result<Option<VisitorOrigin>> {
    let mut header = Ok(None);
    let (mut before, mut same) = (0, 0);
    let mut is_enough = |there: &[u8]| {
        // At the end of the stream no more bytes come; see `tls::client_hello`.
        same = if there.len() == before { same + 1 } else { 0 };
        before = there.len();
        header = parse(there);
        same > 1 || !matches!(header, Ok(None))
    };
    let peeking = std::future::poll_fn(|cx| {
        with_read_buf(|buf| {
            let buf = buf.get_mut(..MAX_HEADER).unwrap_or_default();
            socket.poll_peek(cx, buf, &mut is_enough)
        })
    });
    peeking.await?;
    let invalid = |e: BadHeader| io::Error::new(io::ErrorKind::InvalidData, e.to_string());
    let Some(ProxyHeader { length, origin }) = header.map_err(invalid)? else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let mut left = length;
    while left > 0 {
        let read = std::future::poll_fn(|cx| {
            with_read_buf(|buf| socket.poll_read(cx, buf.get_mut(..left).unwrap_or_default()))
        });
        match read.await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => left = left.saturating_sub(n),
        }
    }
    Ok(origin)
}

/// Says that a front's connection is refused: a wrong configuration of the front refuses all of them.
fn warn(state: &ServerState, front: SocketAddr, why: &dyn std::fmt::Display) {
    if let Some(lines) = state.front_warnings.allow() {
        let more = held_back(lines);
        log::warn!(
            "a connection from {front}, which acceptProxy names, is refused: {why}{more}; have \
             the proxy send the PROXY protocol, or remove it from acceptProxy"
        );
    }
}
