//! The rules about visitors of a service, for peers: their addresses are those of the direct path.

use crate::common::gt::{client, client_of_id1, server, Gt};
use crate::common::service::{self, assert_echo, Service};
use crate::common::visitor::connect;
use std::io::{Read, Write};
use std::net::SocketAddr;

/// A server, a client with an echo service that has `rules`, and one that forwards to it.
struct Ends {
    forwarding: Gt,
    /// The forwarding address.
    addr: SocketAddr,
    _others: (Gt, Gt, Service),
}

const KEY: &str = "WyQk0vWSTl4Ei7CqYqCRPh9T1Q4mXc2a";

fn ends(rules: &str) -> Ends {
    ends_with(rules, "")
}

fn ends_with(rules: &str, of_forward: &str) -> Ends {
    let echo = service::echo();
    let mut server = server(
        "-addr 127.0.0.1:0 -id id1 -secret secret1 -id id2 -secret secret2 -stunAddr 127.0.0.1:0",
    );
    let (remote, stun) = (server.addr(), server.stun_addr());
    let local = format!(
        "-local http://{} {rules} -remoteSTUN stun:{stun}",
        echo.addr
    );
    let serving = client_of_id1(remote, &local);
    let mut forwarding = client(&format!(
        "-remote tcp://{remote} -id id2 -secret secret2 -remoteSTUN stun:{stun} \
         -tcpForwardAddr 127.0.0.1:0 -tcpForwardHostPrefix id1 {of_forward}"
    ));
    let addr = forwarding.forward_addr();
    Ends {
        forwarding,
        addr,
        _others: (server, serving, echo),
    }
}

impl Ends {
    /// Whether a connection is answered.
    fn is_answered(&self) -> bool {
        let mut visitor = connect(self.addr);
        let sent = visitor.write_all(b"hello");
        sent.and_then(|()| visitor.read_exact(&mut [0; 5])).is_ok()
    }
}

#[test]
fn a_service_with_allow_is_reached_through_the_server_and_directly() {
    let mut ends = ends("-allow 0.0.0.0/0 -allow ::/0");
    assert_echo(&mut connect(ends.addr), b"through the server");
    ends.forwarding.wait_for_direct_way();
    assert_echo(&mut connect(ends.addr), b"directly");
}

#[test]
fn a_peer_from_an_address_that_is_not_allowed_is_refused() {
    // Peers are introduced at the client's id, which has no rules.
    let mut ends = ends_with(
        &format!("-private {KEY} -allow 192.0.2.1"),
        &format!("-tcpForwardKey {KEY}"),
    );
    assert!(!ends.is_answered());
    ends.forwarding.wait_for_direct_way();
    assert!(!ends.is_answered());
}

#[test]
fn connections_of_a_peer_are_counted() {
    let mut ends = ends("-visitorRate 5/1h");
    assert!(ends.is_answered(), "through the server");
    ends.forwarding.wait_for_direct_way();
    // The path may have any of the machine's addresses, and change while it is new.
    let answered = (0..50).take_while(|_| ends.is_answered()).count();
    assert!((1..50).contains(&answered), "{answered} of 50");
}
