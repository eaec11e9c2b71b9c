//! Ports that a router opens for peers: Debian's miniupnpd by PCP, NAT-PMP and UPnP. Needs root, ip, nft and
//! miniupnpd.

use crate::common::gt::Gt;
use crate::common::miniupnpd::{self, MapProtocol};
use crate::common::nat::{missing, Internet, Nat, MIDDLE};
use crate::common::process::{run_ok, Process};
use crate::common::scratch::Scratch;
use crate::common::{eventually, eventually_within, PATIENCE};
use std::process::Command;
use std::time::{Duration, Instant};

const TEXT: &str = "what is at home";

struct Home {
    // The fields are dropped in this order.
    client: Gt,
    server: Gt,
    router: Process,
    internet: Internet,
    _files: Scratch,
}

/// Starts a server, and in home b, behind a router that speaks this protocol, a client with files whose port is to be
/// mapped; `None` where that is not possible.
fn start(a: Nat, b: Nat, protocol: MapProtocol) -> Option<Home> {
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return None;
    }
    let internet = Internet::new(a, b);
    let router = miniupnpd::start(&internet, protocol);
    let files = Scratch::new();
    files.file("it.txt", TEXT);
    let mut server = Gt::within(
        &internet.place("middle"),
        "server -addr 0.0.0.0:8080 -stunAddr 0.0.0.0:3478 -id id1 -secret secret1 \
         -id id2 -secret secret2",
    );
    server.addr();
    server.stun_addr();
    let line = format!(
        "client -remote tcp://{MIDDLE}:8080 -remoteSTUN stun:{MIDDLE}:3478 -id id1 -secret secret1 \
         -logLevel debug -webrtcPortMap -webrtcMinPort 40000 -webrtcMaxPort 40009 -local file://{}",
        files.path().display()
    );
    let mut client = Gt::within(&internet.place("home-b"), &line);
    client.wait_for_tunnel();
    Some(Home {
        client,
        server,
        router,
        internet,
        _files: files,
    })
}

impl Home {
    /// Returns the addresses in home b that the router's mappings lead to.
    fn mapped(&self) -> Vec<String> {
        let router = self.internet.place("router-b");
        let mut list = Command::new("ip");
        list.args(["netns", "exec", &router, "nft", "list"]);
        let chain = run_ok(list.args(["chain", "inet", "filter", "prerouting_miniupnpd"]));
        let ends = chain
            .lines()
            .filter_map(|line| line.split("dnat ip to ").nth(1));
        ends.map(|end| end.trim().to_owned()).collect()
    }

    fn wait_for_mapping(&mut self, protocol: MapProtocol, count: usize) {
        let name = protocol.name();
        let line =
            format!("leads to UDP port 40000 of this machine, by {name} of the gateway 10.114.0.1");
        let lines = self.client.wait_for_lines(&line, count);
        let external = "port mapping: 203.0.114.2:40000 ";
        assert!(
            lines.iter().all(|line| line.contains(external)),
            "{lines:?}"
        );
    }

    /// Lets the kernel report a change of the network that changes nothing.
    fn touch_network(&self) {
        self.internet.shell(
            "ip -n $N-home-b addr add 10.99.0.1/32 dev eth0; ip -n $N-home-b addr del 10.99.0.1/32 dev eth0",
        );
    }
}

#[test]
fn a_mapped_port_is_reached_from_behind_any_router_and_given_back_at_the_end() {
    for protocol in MapProtocol::ALL {
        let Some(mut home) = start(Nat::Symmetric, Nat::Symmetric, protocol) else {
            return;
        };
        home.wait_for_mapping(protocol, 1);
        assert_eq!(home.mapped(), ["10.114.0.2:40000"], "{protocol:?}");
        let line = format!(
            "client -remote tcp://{MIDDLE}:8080 -remoteSTUN stun:{MIDDLE}:3478 -id id2 -secret secret2 \
             -tcpForwardAddr 127.0.0.1:8000 -tcpForwardHostPrefix id1"
        );
        let mut other = Gt::within(&home.internet.place("home-a"), &line);
        other.forward_addr();
        let mut visitor = Command::new("ip");
        let place = home.internet.place("home-a");
        visitor.args([
            "netns",
            "exec",
            &place,
            "curl",
            "-sS",
            "http://127.0.0.1:8000/it.txt",
        ]);
        assert_eq!(run_ok(&mut visitor), TEXT);
        other.wait_for_peers(1);
        other.wait_for("way=mapped");
        other.stop();
        assert_eq!(home.client.stop(), Some(0));
        assert!(
            home.mapped().is_empty(),
            "{protocol:?}: {:?}",
            home.mapped()
        );
        assert_eq!(home.server.stop(), Some(0));
    }
}

#[test]
fn a_mapping_is_made_again_when_the_gateway_has_lost_it() {
    for protocol in MapProtocol::ALL {
        let begun = Instant::now();
        let Some(mut home) = start(Nat::PortRestricted, Nat::PortRestricted, protocol) else {
            return;
        };
        home.wait_for_mapping(protocol, 1);
        // Up to then, the times of the two runs of the gateway are too much alike.
        eventually("the gateway to run for a while", || {
            (begun.elapsed() > Duration::from_secs(10)).then_some(())
        });
        home.router.kill();
        home.router.exit();
        home.internet
            .shell("ip netns exec $N-router-b nft delete table inet filter");
        home.router = miniupnpd::start(&home.internet, protocol);
        eventually_within(2 * PATIENCE, "the client to notice", || {
            home.touch_network();
            std::thread::sleep(Duration::from_millis(200));
            (!home.client.lines_with("has lost").is_empty()).then_some(())
        });
        home.wait_for_mapping(protocol, 2);
        assert_eq!(home.mapped(), ["10.114.0.2:40000"], "{protocol:?}");
    }
}

#[test]
fn a_mapping_follows_the_address_of_the_machine() {
    let Some(mut home) = start(Nat::PortRestricted, Nat::PortRestricted, MapProtocol::Pcp) else {
        return;
    };
    home.wait_for_mapping(MapProtocol::Pcp, 1);
    home.internet.shell(
        "ip -n $N-home-b addr add 10.114.0.3/24 dev eth0
         ip -n $N-home-b addr del 10.114.0.2/24 dev eth0
         ip -n $N-home-b addr add 10.114.0.3/24 dev eth0 || true
         ip -n $N-home-b route replace default via 10.114.0.1",
    );
    let moved = "leads to UDP port 40000 of this machine";
    home.client.wait_for_lines(moved, 2);
    let is_moved = || home.mapped().contains(&"10.114.0.3:40000".to_owned());
    eventually("the mapping to lead to the new address", || {
        is_moved().then_some(())
    });
}

#[test]
fn a_router_that_opens_no_ports_is_named() {
    let Some(mut home) = start(Nat::PortRestricted, Nat::PortRestricted, MapProtocol::Pcp) else {
        return;
    };
    home.wait_for_mapping(MapProtocol::Pcp, 1);
    home.router.kill();
    home.router.exit();
    home.client.stop();
    let line = format!(
        "client -remote tcp://{MIDDLE}:8080 -remoteSTUN stun:{MIDDLE}:3478 -id id1 -secret secret1 \
         -webrtcPortMap -local http://127.0.0.1:1"
    );
    let mut client = Gt::within(&home.internet.place("home-b"), &line);
    client.wait_for("no port mapping: the gateway 10.114.0.1 speaks neither PCP, NAT-PMP nor UPnP");
}
