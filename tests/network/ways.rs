//! A client whose network lets little through to its server. Needs root, ip and nft.

use crate::common::eventually;
use crate::common::gt::Gt;
use crate::common::links::{TwoLinks, SERVER};
use crate::common::nat::missing;
use crate::common::scratch::Scratch;

#[test]
fn where_only_port_443_is_open_and_a_name_has_a_dead_address_the_first_attempt_leads_to_a_tunnel() {
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return;
    }
    let links = TwoLinks::new();
    // There is no machine with the first address.
    links.name("gt.test", &["10.1.0.3", SERVER]);
    links.shell("ip netns exec $N-server nft add rule ip filter input tcp dport != 443 drop");
    let line = "server -addr 0.0.0.0:443 -id id1 -secret secret1";
    let mut server = Gt::within(&links.place("server"), line);
    server.addr();
    let line =
        "client -remote tls://gt.test:8443 -remote tcp://gt.test:8080 -remote tcp://gt.test:443 \
                -id id1 -secret secret1 -local http://127.0.0.1:1";
    let mut client = Gt::within(&links.place("client"), line);
    client.wait_for_first_tunnel();
    let line = client.wait_for("connected by tcp://gt.test:443; ");
    for other in ["tls://gt.test:8443", "tcp://gt.test:8080"] {
        assert!(
            line.contains(&format!("; {other} did not answer")),
            "{line}"
        );
    }
    assert_eq!((client.attempts(), server.opened().len()), (1, 1));
}

#[test]
fn a_way_over_which_tunnels_open_and_large_packets_are_lost_makes_place_for_another() {
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return;
    }
    let (links, folder) = (TwoLinks::new(), Scratch::new());
    let page = "x".repeat(20_000);
    folder.file("index.html", &page);
    links.name("gt.test", &[SERVER]);
    // Port 8081 is the server's, too, and only small packets get there.
    links.shell(
        "ip netns exec $N-server nft add table ip nat
         ip netns exec $N-server nft add chain ip nat prerouting '{ type nat hook prerouting priority -100; }'
         ip netns exec $N-server nft add rule ip nat prerouting tcp dport 8081 redirect to :8080
         ip netns exec $N-client nft add table ip filter
         ip netns exec $N-client nft add chain ip filter output '{ type filter hook output priority 0; }'
         ip netns exec $N-client nft add rule ip filter output tcp dport 8081 meta length \\> 600 drop",
    );
    let line = "server -addr 0.0.0.0:8080 -id id1 -secret secret1";
    let mut server = Gt::within(&links.place("server"), line);
    server.addr();
    let line = format!(
        "client -remote tcp://gt.test:8081 -remote tcp://gt.test:8080 -remoteTimeout 1s -remoteConnections 1 \
         -reconnectDelay 100ms -id id1 -secret secret1 -local file://{} -logLevel debug",
        folder.path().display()
    );
    let mut client = Gt::within(&links.place("client"), &line);
    client.wait_for_tunnel();
    eventually("the page to come over the other way", || {
        links.fetch().ends_with(page.as_bytes()).then_some(())
    });
    client.wait_for("tunnels by tcp://gt.test:8081 are lost soon");
    client.wait_for("connected by tcp://gt.test:8080");
    let used = |port: u16| {
        let line = format!("connected to tcp://gt.test:{port} ");
        client.lines_with(&line).len()
    };
    assert_eq!((used(8081), used(8080)), (2, 1));
}
