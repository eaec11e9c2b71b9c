//! The end whose NAT has random ports: many sockets, each of which opens a port for the other end's checks. The first
//! socket that hears one becomes the peer's.

use super::plan::SOCKETS;
use super::Punch;
use crate::client::p2p::endpoint::Endpoint;
use crate::client::p2p::link::PeerHandle;
use crate::client::p2p::socket::{Datagram, PeerSocket};
use bytes::BytesMut;
use futures_lite::future;
use std::collections::VecDeque;
use std::future::{poll_fn, Future};
use std::net::{SocketAddr, SocketAddrV4};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

/// A binding indication of STUN (RFC 8489, section 5) without attributes, which no end answers. Its transaction does not
/// matter.
const OPENER: [u8; 20] = [
    0, 0x11, 0, 0, 0x21, 0x12, 0xA4, 0x42, b'o', b'p', b'e', b'n', b's', b' ', b'a', b' ', b'p',
    b'o', b'r', b't',
];

/// A socket that has heard the other end, with the datagram.
type Heard = (Arc<PeerSocket>, Vec<u8>);

/// Opens ports for `to`, and waits for a check from there.
pub fn run<'a>(endpoint: &'a Arc<Endpoint>, link: &'a PeerHandle, to: SocketAddrV4) -> Punch<'a> {
    Box::pin(async move {
        let to = SocketAddr::from(to);
        let mut waiting: Vec<Pin<Box<dyn Future<Output = Heard> + Send>>> = Vec::new();
        for _ in 0..SOCKETS {
            // Where descriptors run out, fewer have to do.
            let Ok(socket) = PeerSocket::opening() else {
                break;
            };
            let mut queue = VecDeque::from([Datagram {
                to,
                bytes: BytesMut::from(&OPENER[..]),
            }]);
            poll_fn(|cx| socket.poll_send(cx, &mut queue)).await;
            waiting.push(Box::pin(hear(Arc::new(socket), to)));
            if waiting.len().is_multiple_of(32) {
                future::yield_now().await;
            }
        }
        let heard = poll_fn(|cx| {
            for one in &mut waiting {
                if let Poll::Ready(heard) = one.as_mut().poll(cx) {
                    return Poll::Ready(heard);
                }
            }
            Poll::Pending
        });
        let (socket, check) = heard.await;
        drop(waiting);
        endpoint.detour(to, socket, link.clone());
        endpoint.dispatch(to, &check);
        future::pending().await
    })
}

/// Waits for a datagram from `from`.
async fn hear(socket: Arc<PeerSocket>, from: SocketAddr) -> Heard {
    let mut heard = None;
    loop {
        let take = |source: SocketAddr, bytes: &[u8]| {
            if source == from && heard.is_none() {
                heard = Some(bytes.to_vec());
            }
        };
        if socket.receive(take).await.is_err() {
            return future::pending().await;
        }
        if let Some(bytes) = heard.take() {
            return (socket, bytes);
        }
    }
}
