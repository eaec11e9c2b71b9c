//! Delivery of a TCP socket's sent bytes, as far as the kernel knows, from Linux's sock_diag (which
//! `ss` uses). It does not tell what the peer's program has read.

use super::netlink::{self, AF_INET, AF_INET6, HEADER};
use super::Delivery;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const IPPROTO_TCP: u8 = 6;
const ALL_STATES: u32 = u32::MAX;
const NO_COOKIE: [u8; 8] = [0xFF; 8];

/// Length of the request: the header and `struct inet_diag_req_v2`.
const REQUEST: u32 = 72;
/// Offsets of `idiag_timer`, `idiag_retrans` and `idiag_wqueue` in `struct inet_diag_msg`.
const TIMER: usize = HEADER + 2;
const RETRANS: usize = HEADER + 3;
const WQUEUE: usize = HEADER + 60;

const TIMER_RETRANSMIT: u8 = 1;
const TIMER_KEEPALIVE: u8 = 2;
const TIMER_ZERO_WINDOW: u8 = 4;

/// Number of unanswered transmissions that one lost packet does not explain.
const MAX_UNANSWERED: u8 = 2;

/// Asks the kernel about a connection; `None` if it cannot be asked or does not know the
/// connection.
pub fn delivery(stream: &TcpStream) -> Option<Delivery> {
    let (local, peer) = (stream.local_addr().ok()?, stream.peer_addr().ok()?);
    let mut socket = netlink::socket(NETLINK_SOCK_DIAG).ok()?;
    socket.write_all(&request(local, peer)?).ok()?;
    let mut answer = [0; 512];
    // The kernel has answered by the time the request has been sent.
    let n = socket.read(&mut answer).ok()?;
    parse(answer.get(..n)?)
}

fn request(local: SocketAddr, peer: SocketAddr) -> Option<Vec<u8>> {
    let mut bytes = netlink::request(REQUEST, SOCK_DIAG_BY_FAMILY, 0);
    // A listener for both families reports IPv4 addresses as mapped IPv6.
    let (from, to) = (local.ip().to_canonical(), peer.ip().to_canonical());
    let (family, scope) = match (from, peer) {
        (IpAddr::V4(_), _) => (AF_INET, 0),
        (IpAddr::V6(_), SocketAddr::V6(peer)) => (AF_INET6, peer.scope_id()),
        _ => return None,
    };
    bytes.extend([family, IPPROTO_TCP, 0, 0]);
    bytes.extend(ALL_STATES.to_ne_bytes());
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(peer.port().to_be_bytes());
    bytes.extend(octets(from));
    bytes.extend(octets(to));
    bytes.extend(scope.to_ne_bytes());
    bytes.extend(NO_COOKIE);
    Some(bytes)
}

/// Writes an address into the sixteen bytes that hold either family.
fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn parse(answer: &[u8]) -> Option<Delivery> {
    let kind = u16::from_ne_bytes(*answer.get(4..)?.first_chunk()?);
    if kind != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let queued = u32::from_ne_bytes(*answer.get(WQUEUE..)?.first_chunk()?);
    let in_vain = *answer.get(RETRANS)? >= MAX_UNANSWERED;
    Some(match *answer.get(TIMER)? {
        TIMER_RETRANSMIT | TIMER_KEEPALIVE if in_vain => Delivery::Lost,
        TIMER_ZERO_WINDOW => Delivery::Blocked,
        _ if queued > 0 => Delivery::Moving,
        _ => Delivery::Acknowledged,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Returns both ends of a connection.
    fn pair(at: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(at).unwrap();
        let mut addr = listener.local_addr().unwrap();
        if addr.ip().is_unspecified() {
            addr.set_ip(IpAddr::from([127, 0, 0, 1]));
        }
        let here = TcpStream::connect(addr).unwrap();
        (here, listener.accept().unwrap().0)
    }

    fn eventually(stream: &TcpStream, delivery: Delivery) {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while super::delivery(stream) != Some(delivery) {
            assert!(
                std::time::Instant::now() < end,
                "{:?}",
                super::delivery(stream)
            );
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    #[test]
    fn delivery_reports_acknowledged_bytes_and_a_reader_that_blocks() {
        for at in ["127.0.0.1:0", "[::]:0"] {
            let (mut here, there) = pair(at);
            here.write_all(b"hello").unwrap();
            eventually(&here, Delivery::Acknowledged);
            eventually(&there, Delivery::Acknowledged);
            here.set_nonblocking(true).unwrap();
            while here.write(&[0; 65536]).is_ok() {}
            eventually(&here, Delivery::Blocked);
        }
    }

    #[test]
    fn unanswered_retransmissions_are_reported_as_lost() {
        let mut answer = [0; HEADER + 72];
        answer[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        answer[WQUEUE..WQUEUE + 4].copy_from_slice(&4u32.to_ne_bytes());
        for (timer, retrans, delivery) in [
            (TIMER_RETRANSMIT, 0, Delivery::Moving),
            (TIMER_RETRANSMIT, 1, Delivery::Moving),
            (TIMER_RETRANSMIT, 2, Delivery::Lost),
            (TIMER_KEEPALIVE, 2, Delivery::Lost),
            (TIMER_ZERO_WINDOW, 9, Delivery::Blocked),
        ] {
            (answer[TIMER], answer[RETRANS]) = (timer, retrans);
            assert_eq!(parse(&answer), Some(delivery), "{timer} {retrans}");
        }
        assert_eq!(parse(&answer[..60]), None);
    }
}
