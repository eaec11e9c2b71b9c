//! Direct ways over IPv6 alone, over one of two links, and to a client on the router itself. Needs root, ip, nft and
//! curl.

use crate::common::eventually_within;
use crate::common::gt::Gt;
use crate::common::internet6::{self, Internet6};
use crate::common::links::{TwoLinks, SERVER};
use crate::common::nat::{missing, Internet, Nat, MIDDLE};
use crate::common::process::run;
use crate::common::scratch::Scratch;
use crate::common::PATIENCE;
use std::process::Command;

const TEXT: &str = "what is at home";

fn files() -> Scratch {
    let files = Scratch::new();
    files.file("it.txt", TEXT);
    files
}

fn start_server(place: &str) -> Gt {
    let line = "server -addr 8080 -stunAddr 3478 -id id1 -secret secret1 -id id2 -secret secret2";
    let mut server = Gt::within(place, line);
    server.addr();
    server.stun_addr();
    server
}

fn start_serving(place: &str, at: &str, files: &Scratch, more: &str) -> Gt {
    let line = format!(
        "client -remote tcp://{at}:8080 -remoteSTUN stun:{at}:3478 -id id1 -secret secret1 -logLevel debug \
         -local file://{} {more}",
        files.path().display()
    );
    let mut client = Gt::within(place, &line);
    client.wait_for_tunnel();
    client
}

fn start_forwarding(place: &str, at: &str) -> Gt {
    let line = format!(
        "client -remote tcp://{at}:8080 -remoteSTUN stun:{at}:3478 -id id2 -secret secret2 -logLevel debug \
         -tcpForwardAddr 127.0.0.1:8000 -tcpForwardHostPrefix id1"
    );
    let mut client = Gt::within(place, &line);
    client.forward_addr();
    client
}

/// Whether a visitor of the forwarding client gets the file within 2 s.
fn is_served(place: &str) -> bool {
    let mut visitor = Command::new("ip");
    visitor.args(["netns", "exec", place, "curl", "-sS", "--max-time", "2"]);
    let output = run(visitor.arg("http://127.0.0.1:8000/it.txt"));
    output.stdout == TEXT.as_bytes()
}

/// Whether a visitor is served while the server stands still, so directly.
fn is_served_directly(place: &str, server: &Gt) -> bool {
    server.signal("STOP");
    let is_served = is_served(place);
    server.signal("CONT");
    is_served
}

#[test]
fn clients_with_ipv6_alone_connect_directly_through_their_firewalls() {
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return;
    }
    let (internet, files) = (Internet6::new(), files());
    let server = start_server(&internet.place("middle"));
    let home = internet.place("home-b");
    let _serving = start_serving(&internet.place("home-a"), internet6::MIDDLE, &files, "");
    let mut forwarding = start_forwarding(&home, internet6::MIDDLE);
    assert!(is_served(&home));
    forwarding.wait_for_peers(1);
    let direct = || is_served_directly(&home, &server).then_some(());
    eventually_within(PATIENCE, "a direct way", direct);
}

#[test]
fn a_client_on_the_router_is_reached_at_the_ports_that_its_firewall_opens() {
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return;
    }
    let (internet, files) = (Internet::new(Nat::Symmetric, Nat::PortRestricted), files());
    // As the package does on OpenWrt.
    internet.shell(
        "ip netns exec $N-router-b nft insert rule ip filter input iifname wan udp dport 50000-50010 accept",
    );
    let server = start_server(&internet.place("middle"));
    let ports = "-webrtcMinPort 50000 -webrtcMaxPort 50010";
    let _serving = start_serving(&internet.place("router-b"), MIDDLE, &files, ports);
    let home = internet.place("home-a");
    let mut forwarding = start_forwarding(&home, MIDDLE);
    assert!(is_served(&home));
    forwarding.wait_for_peers(1);
    // The address of the WAN is one of the machine's own.
    forwarding.wait_for("way=host");
    let direct = || is_served_directly(&home, &server).then_some(());
    eventually_within(PATIENCE, "a direct way", direct);
}

#[test]
fn when_one_of_two_links_dies_new_connections_get_a_direct_way_over_the_other() {
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return;
    }
    let files = files();
    for dead in ["wan", "wanb"] {
        let links = TwoLinks::new();
        let place = links.place("server");
        let server = start_server(&place);
        let more = "-remoteBind wan -remoteBind wanb -remoteIdleConnections 2 -remoteConnections 2 -remoteTimeout 2s \
                    -reconnectDelay 200ms";
        let mut serving = start_serving(&links.place("client"), SERVER, &files, more);
        serving.wait_for_tunnels(2);
        let mut forwarding = start_forwarding(&place, SERVER);
        assert!(is_served(&place));
        forwarding.wait_for_peers(1);
        let direct = || is_served_directly(&place, &server).then_some(());
        eventually_within(PATIENCE, "a direct way", direct);

        // Nothing comes any more, and neither end is told.
        links.shell(&format!(
            "ip netns exec $N-server nft add rule ip filter input iifname to-{dead} drop"
        ));
        eventually_within(3 * PATIENCE, "a direct way over the other link", || {
            // The server is needed in between for the next attempt.
            let _ = is_served(&place);
            is_served_directly(&place, &server).then_some(())
        });
    }
}
