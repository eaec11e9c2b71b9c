//! A client whose network lets little through to its server. Needs root, ip and nft.

use crate::common::gt::Gt;
use crate::common::links::{TwoLinks, SERVER};
use crate::common::nat::missing;

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
