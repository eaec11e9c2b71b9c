//! A client with two links to its server, one of which dies. Needs root, ip and nft.

use crate::common::eventually;
use crate::common::gt::Gt;
use crate::common::links::{TwoLinks, SERVER};
use crate::common::nat::missing;
use crate::common::samples::Random;
use crate::common::scratch::Scratch;
use std::io::Read;

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

/// Starts a server for QUIC, and a client with this service that spreads its tunnels over `sources`.
fn quic_over(links: &TwoLinks, sources: [&str; 2], folder: &Scratch, more: &str) -> (Gt, Gt) {
    let line = "server -addr 0.0.0.0:8080 -quicAddr 0.0.0.0:443 -id id1 -secret secret1";
    let mut server = Gt::within(&links.place("server"), line);
    server.quic_addr();
    let line = format!(
        "client -remote quic://{SERVER} -remoteCertInsecure -remoteBind {} -remoteBind {} -reconnectDelay 200ms \
         -id id1 -secret secret1 -logLevel debug -user nobody -local file://{} {more}",
        sources[0],
        sources[1],
        folder.path().display()
    );
    let client = Gt::within(&links.place("client"), &line);
    (server, client)
}

#[test]
fn tunnels_over_quic_are_spread_over_the_links() {
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return;
    }
    let folder = Scratch::new();
    folder.file("index.html", "here");
    for sources in [["wan", "wanb"], ["10.1.0.2", "10.2.0.2"]] {
        let links = TwoLinks::new();
        let more = "-remoteIdleConnections 2 -remoteConnections 2";
        let (server, mut client) = quic_over(&links, sources, &folder, more);
        client.wait_for_tunnels(2);
        for (source, address) in sources.iter().zip(["10.1.0.2", "10.2.0.2"]) {
            let used = format!("connected to quic://{SERVER}:443 from {source} ");
            assert_eq!(client.lines_with(&used).len(), 1, "{source}");
            let opened = server.opened();
            assert!(
                opened.iter().any(|line| line.contains(address)),
                "{opened:?}"
            );
        }
    }
}

#[test]
fn over_quic_a_link_that_dies_costs_no_connection() {
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return;
    }
    // More than the buffers on the way hold.
    const LENGTH: usize = 40 * 1024 * 1024;
    let folder = Scratch::new();
    let page = Random::new(3).bytes(LENGTH);
    folder.file("index.html", &page);
    let cases = [
        (["wanb", "wan"], DEATHS[0].0),
        (["wanb", "wan"], DEATHS[1].0),
        (["10.2.0.2", "10.1.0.2"], DEATHS[0].0),
    ];
    for (sources, dies) in cases {
        let links = TwoLinks::new();
        let (server, mut client) = quic_over(&links, sources, &folder, "");
        client.wait_for_tunnel();
        let mut visitor = links.visitor();
        let mut stream = visitor.stdout.take().expect("its output");
        let mut got = vec![0; 100_000];
        stream.read_exact(&mut got).expect("the beginning");
        links.shell(dies);
        client.wait_for(&format!(" of {}", sources[1]));
        stream.read_to_end(&mut got).expect("the rest");
        visitor.wait().expect("the end of the visitor");
        assert!(got.ends_with(&page), "{sources:?} {dies}");
        let tunnels = (
            client.lines_with("tunnel closed").len(),
            server.opened().len(),
        );
        assert_eq!(tunnels, (0, 1), "{sources:?} {dies}");
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
