//! More than one executor thread (`threads`): each serves its own tunnels and their visitors.

use crate::common::gt::{client_of_id1, server_of_id1, tcp_tunnel, Gt};
use crate::common::service::{assert_echo, echo, http};
use crate::common::visitor::{connect, get};

const CLIENT: &str = "-threads 2 -remoteConnections 2 -remoteIdleConnections 2";

/// How often each executor thread of a process has waited.
fn waits(gt: &Gt) -> Vec<u64> {
    let waits = gt.waits_of_threads("gt-");
    assert_eq!(waits.len(), 2, "two executor threads");
    waits
}

#[test]
fn both_threads_serve_visitors_of_a_client_with_two_tunnels() {
    let service = echo();
    let (server, client, port) = tcp_tunnel(service.addr, "-threads 2", CLIENT);
    let before = [waits(&server), waits(&client)];
    let mut visitors: Vec<_> = (0..20).map(|_| connect(port)).collect();
    for round in 0..20u8 {
        for visitor in &mut visitors {
            assert_echo(visitor, &[round; 100]);
        }
    }
    let after = [waits(&server), waits(&client)];
    for (before, after) in before.iter().flatten().zip(after.iter().flatten()) {
        assert!(after - before >= 100, "{before:?} before, {after:?} after");
    }
}

#[test]
fn a_visitor_reaches_a_tunnel_of_another_thread() {
    let service = http(0, "one");
    let mut server = server_of_id1("-threads 2");
    // One tunnel: about half of the visitors are accepted by the thread that does not have it.
    let _client = client_of_id1(server.addr(), &format!("-local http://{}", service.addr));
    let addr = server.addr();
    let before = waits(&server);
    for _ in 0..100 {
        assert_eq!(get(addr, "id1.localhost", "/").status, 200);
    }
    let after = waits(&server);
    let used = |at: usize| after[at] - before[at];
    assert!(
        used(0).max(used(1)) >= 100,
        "{before:?} before, {after:?} after"
    );
}
