//! Ways through NATs that use another port for each destination (docs/p2p.md, "Hard NATs"): one end opens many ports of
//! its NAT, the other one tries many. What gets through is a check of ICE, which does the rest.

mod limit;
mod plan;
mod spray;

pub use limit::PunchLimit;

use super::checks::IceRole;
use super::endpoint::Endpoint;
use super::link::PeerHandle;
use super::peer::PeerState;
use super::socket::Datagram;
use crate::net::{clock, random, timeout, Timer};
use bytes::BytesMut;
use futures_lite::future;
use limit::PunchFor;
use plan::PunchPlan;
use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

/// Interval in which a peer that is not connected is looked at.
const STEP: Duration = Duration::from_millis(100);
/// Number of steps in which both ends tell what they know; then the server is used.
const STEPS: u32 = 80;
/// Number of steps that the usual checks have before.
const HEAD_START: u32 = 4;
/// Time in which the other end opens its ports.
const OPENING_TIME: Duration = Duration::from_millis(200);
/// Time up to which sockets stay open, and ports are tried.
const PUNCH_TIME: Duration = Duration::from_secs(5);
/// Datagrams of a burst, and the pause after it: 800 a second, 90 KB/s.
const BURST: usize = 16;
const BURST_PAUSE: Duration = Duration::from_millis(20);

/// Waits for the usual checks of a peer to fail, then looks for a way through its NAT and this end's, if there is one.
pub async fn run(link: PeerHandle, endpoint: Arc<Endpoint>, role: IceRole, limit: PunchLimit) {
    let mut known_for = 0;
    for _ in 0..STEPS {
        if timeout(STEP, link.connected()).await.is_some() {
            return;
        }
        let theirs = link.lock().nat();
        let (Some(ours), Some(theirs)) = (endpoint.nat(), theirs) else {
            continue;
        };
        known_for += 1;
        if known_for < HEAD_START {
            continue;
        }
        let Some(plan) = PunchPlan::new(ours, theirs, role.offers(), random) else {
            return;
        };
        let to = match role {
            IceRole::Dials => PunchFor::Dialled,
            IceRole::Answers | IceRole::Offers => PunchFor::Visitor(*theirs.addr.ip()),
        };
        let Some(permit) = limit.acquire(to, clock::now()) else {
            continue;
        };
        let begun = clock::now();
        let (what, done) = match plan {
            PunchPlan::Spray(to) => ("open ports for", spray::run(&endpoint, &link, to)),
            PunchPlan::Scan(ports) => ("try ports of", boxed_scan(&endpoint, &link, ports)),
        };
        log::debug!(
            "hard NAT: begin to {what} {} ({:?}, {:?} here)",
            theirs.addr.ip(),
            theirs.kind,
            ours.kind
        );
        let settled = async {
            link.connected().await;
        };
        timeout(PUNCH_TIME, future::or(settled, done)).await;
        let is_connected = *link.lock().state() == PeerState::Connected;
        log::debug!(
            "hard NAT: {} after {:.0?}",
            if is_connected {
                "connected"
            } else {
                "not connected"
            },
            clock::since(begun)
        );
        drop(permit);
        return;
    }
}

type Punch<'a> = std::pin::Pin<Box<dyn std::future::Future<Output = ()> + Send + 'a>>;

fn boxed_scan<'a>(
    endpoint: &'a Endpoint,
    link: &'a PeerHandle,
    ports: Vec<SocketAddrV4>,
) -> Punch<'a> {
    Box::pin(scan(endpoint, link, ports))
}

/// Sends the peer's check to each of these ports once, until one has answered.
async fn scan(endpoint: &Endpoint, link: &PeerHandle, ports: Vec<SocketAddrV4>) {
    let Some(probe) = link.lock().probe() else {
        return;
    };
    Timer::after(OPENING_TIME).await;
    for burst in ports.chunks(BURST) {
        // Once the peer is heard from elsewhere, the usual checks go on.
        if link.lock().has_been_heard() {
            break;
        }
        let datagrams = burst.iter().map(|to| Datagram {
            to: (*to).into(),
            bytes: BytesMut::from(&probe[..]),
        });
        let mut queue: VecDeque<_> = datagrams.collect();
        std::future::poll_fn(|cx| endpoint.socket.poll_send(cx, &mut queue)).await;
        Timer::after(BURST_PAUSE).await;
    }
    // The check that has got through is answered.
    future::pending().await
}
