//! A client with two links to its server, one of which dies. Needs root, ip and nft.

use crate::common::eventually;
use crate::common::gt::Gt;
use crate::common::nat::missing;
use crate::common::process::run_ok;
use crate::common::scratch::Scratch;
use crate::common::unique;
use std::process::Command;

/// The server's address, which both links lead to.
const SERVER: &str = "203.0.113.1";

/// The namespaces of a server and of a client, with the links `wan` (10.1.0.2) and `wanb` (10.2.0.2)
/// between them. The system prefers `wan`. Dropping this removes them.
struct TwoLinks {
    name: String,
}

impl TwoLinks {
    fn new() -> TwoLinks {
        let links = TwoLinks {
            name: format!("gt{}", unique()),
        };
        links.shell("ip netns add $N-server; ip netns add $N-client");
        for (number, wan) in [(1, "wan"), (2, "wanb")] {
            links.shell(&format!(
                "ip -n $N-client link add {wan} type veth peer name to-{wan} netns $N-server
                 ip -n $N-server addr add 10.{number}.0.1/24 dev to-{wan}
                 ip -n $N-server link set to-{wan} up
                 ip -n $N-client addr add 10.{number}.0.2/24 dev {wan}
                 ip -n $N-client link set {wan} up
                 ip -n $N-client route add default via 10.{number}.0.1 metric {number}
                 ip -n $N-client route add default via 10.{number}.0.1 table {number}
                 ip -n $N-client rule add from 10.{number}.0.2 table {number}"
            ));
        }
        links.shell(&format!(
            "ip -n $N-server addr add {SERVER}/32 dev lo; ip -n $N-server link set lo up
             ip -n $N-client link set lo up
             ip netns exec $N-server nft add table ip filter
             ip netns exec $N-server nft add chain ip filter input '{{ type filter hook input priority 0; }}'"
        ));
        links
    }

    fn shell(&self, script: &str) {
        let script = format!("set -e; N={}; {script}", self.name);
        run_ok(Command::new("sh").args(["-c", &script]));
    }

    fn place(&self, place: &str) -> String {
        format!("{}-{place}", self.name)
    }

    /// Visits `id1` at the server and returns whether the service has answered.
    fn is_served(&self) -> bool {
        let ask = "exec 3<>/dev/tcp/127.0.0.1/8080; printf 'GET / HTTP/1.0\\r\\nHost: id1.a\\r\\n\\r\\n' >&3; \
                   timeout 2 head -c 12 <&3";
        let mut visitor = Command::new("ip");
        visitor.args(["netns", "exec", &self.place("server"), "bash", "-c", ask]);
        let output = visitor.output().expect("run ip");
        output.stdout == b"HTTP/1.1 200"
    }
}

impl Drop for TwoLinks {
    fn drop(&mut self) {
        for place in ["server", "client"] {
            let _ = Command::new("ip")
                .args(["netns", "del", &self.place(place)])
                .status();
        }
    }
}

/// How the second link dies, and how it comes back.
const DEATHS: [(&str, &str); 2] = [
    // Nothing comes any more, and neither end is told.
    (
        "ip netns exec $N-server nft add rule ip filter input iifname to-wanb drop",
        "ip netns exec $N-server nft flush chain ip filter input",
    ),
    (
        "ip -n $N-client link set wanb down",
        "ip -n $N-client link set wanb up
         ip -n $N-client route add default via 10.2.0.1 metric 2
         ip -n $N-client route add default via 10.2.0.1 table 2",
    ),
];

#[test]
fn a_link_that_dies_costs_what_ran_on_it_only_and_new_tunnels_avoid_it() {
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return;
    }
    let folder = Scratch::new();
    folder.file("index.html", "here");
    for sources in [["wan", "wanb"], ["10.1.0.2", "10.2.0.2"]] {
        for (dies, comes_back) in DEATHS {
            let links = TwoLinks::new();
            let line = "server -addr 0.0.0.0:8080 -id id1 -secret secret1 -logLevel debug";
            let mut server = Gt::within(&links.place("server"), line);
            server.addr();
            // An ordinary user may choose the interface, too.
            let line = format!(
                "client -remote tcp://{SERVER}:8080 -remoteBind {} -remoteBind {} -remoteIdleConnections 2 \
                 -remoteConnections 2 -remoteTimeout 2s -reconnectDelay 200ms -id id1 -secret secret1 \
                 -logLevel debug -user nobody -local file://{}",
                sources[0],
                sources[1],
                folder.path().display()
            );
            let mut client = Gt::within(&links.place("client"), &line);
            client.wait_for_tunnels(2);
            let over = |client: &Gt, source: &str| {
                let used = format!("connected to tcp://{SERVER}:8080 from {source} ");
                client.lines_with(&used).len()
            };
            assert_eq!(sources.map(|source| over(&client, source)), [1, 1]);
            // The server sees both addresses.
            for address in ["10.1.0.2", "10.2.0.2"] {
                assert!(
                    server.opened().iter().any(|line| line.contains(address)),
                    "{address}: {:?}",
                    server.opened()
                );
            }

            links.shell(dies);
            client.wait_for_tunnels(3);
            assert_eq!(sources.map(|source| over(&client, source)), [2, 1]);
            client.wait_for(&format!("{} does not lead to the server", sources[1]));
            eventually("visitors to be served over the other link", || {
                links.is_served().then_some(())
            });
            let lost = client.lines_with("tunnel closed");
            assert_eq!(lost.len(), 1, "{lost:?}");

            links.shell(comes_back);
            client.signal("USR1");
            client.wait_for_lines(&format!("from {} ", sources[1]), 2);
            // The server may take a moment to find that the lost tunnel is dead.
            eventually("visitors to be served over both links", || {
                links.is_served().then_some(())
            });
        }
    }
}

#[test]
fn an_interface_that_is_not_there_is_named_and_passed_over() {
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return;
    }
    let links = TwoLinks::new();
    let mut server = Gt::within(
        &links.place("server"),
        "server -addr 0.0.0.0:8080 -id id1 -secret secret1",
    );
    server.addr();
    let client = |bind: &str| {
        let line = format!(
            "client -remote tcp://{SERVER}:8080 {bind} -reconnectDelay 200ms -id id1 -secret secret1 \
             -local http://127.0.0.1:1"
        );
        Gt::within(&links.place("client"), &line)
    };
    let mut alone = client("-remoteBind ppp0");
    let line = alone.wait_for_failure();
    let why = format!("connecting to {SERVER}:8080 from ppp0: there is no such interface");
    assert!(line.contains(&why), "{line}");
    alone.stop();
    client("-remoteBind ppp0 -remoteBind wanb").wait_for_tunnel();
}
