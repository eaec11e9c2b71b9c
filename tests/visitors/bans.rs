//! `visitorRate` and `banFor`: how often one address may connect to a service.

use super::allow::{echo_from, expect_reset_from, status_from, Filed, NAMED, NEIGHBOUR};
use crate::common::gt::{client_of_id1, gt, http_tunnel, server_of_id1, tcp_tunnel};
use crate::common::service;
use std::net::Ipv4Addr;

/// Three connections; another one would be allowed after 20 minutes.
const RATE: &str = "-visitorRate 3/1h -banFor 1h";

#[test]
fn an_address_that_connects_too_often_is_banned_and_no_other() {
    let service = service::http(0, "web");
    let (_server, mut client, addr) = http_tunnel(service.addr, "", RATE);
    for expected in [200, 200, 200, 403, 403] {
        assert_eq!(status_from(NAMED, addr, "id1.a"), expected);
    }
    let warning = client.wait_for_warning();
    for part in [
        "127.0.0.9 has connected",
        "more than 3 times in 3600s (visitorRate)",
        "banned for 3600s",
    ] {
        assert!(warning.contains(part), "{warning}");
    }
    assert_eq!(status_from(NEIGHBOUR, addr, "id1.a"), 200);
}

#[test]
fn a_banned_address_keeps_the_connections_that_it_has() {
    let service = service::echo();
    let (_server, _client, addr) = tcp_tunnel(service.addr, "", RATE);
    let mut visitors = [(); 3].map(|()| echo_from(NAMED, addr));
    expect_reset_from(NAMED, addr);
    for visitor in &mut visitors {
        service::assert_echo(visitor, b"still here");
    }
    echo_from(NEIGHBOUR, addr);
}

#[test]
fn each_service_counts_for_itself() {
    let service = service::http(0, "web");
    let mut server = server_of_id1("-hostNumber 3");
    let addr = server.addr();
    let local = service.addr;
    let _client = client_of_id1(
        addr,
        &format!(
            "-local http://{local} -hostPrefix one -visitorRate 1/1h -local http://{local} \
             -hostPrefix two -visitorRate 1/1h -local http://{local} -hostPrefix free"
        ),
    );
    for (host, expected) in [
        ("one.a", 200),
        ("one.a", 403),
        ("two.a", 200),
        ("two.a", 403),
        ("free.a", 200),
        ("free.a", 200),
    ] {
        assert_eq!(status_from(NAMED, addr, host), expected, "{host}");
    }
}

/// Runs `gt bans` and returns what it says of a process. Other tests have processes, too.
fn bans(line: &str, pid: u32) -> Vec<String> {
    let output = gt(&format!("bans {line}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let start = format!("gt: process {pid} has ");
    let lines = text.lines().filter_map(|line| line.strip_prefix(&start));
    lines.map(str::to_owned).collect()
}

#[test]
fn bans_are_listed_and_lifted_by_a_command() {
    // No other test has this visitor.
    let banned = Ipv4Addr::new(127, 0, 0, 77);
    let service = service::http(0, "web");
    let options = format!("{RATE} -hostPrefix web");
    let (_server, client, addr) = http_tunnel(service.addr, "", &options);
    assert_eq!(bans("", client.pid()), ["banned nobody"]);
    for expected in [200, 200, 200, 403] {
        assert_eq!(status_from(banned, addr, "web.a"), expected);
    }
    let listed = bans("", client.pid());
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert!(
        listed[0].starts_with("banned 127.0.0.77 for 3"),
        "{listed:?}"
    );
    assert!(listed[0].ends_with(" s more from http web"), "{listed:?}");
    assert_eq!(bans("lift 192.0.2.1", client.pid()), ["lifted 0 bans"]);
    assert_eq!(status_from(banned, addr, "web.a"), 403);
    assert_eq!(bans("lift 127.0.0.77", client.pid()), ["lifted 1 bans"]);
    assert_eq!(bans("", client.pid()), ["banned nobody"]);
    assert_eq!(status_from(banned, addr, "web.a"), 200);
}

#[test]
fn a_command_about_bans_that_makes_no_sense_is_an_error() {
    for line in ["bans lift", "bans lift everybody", "bans -config x"] {
        let output = gt(line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("rite "), "{error}");
    }
}

#[test]
fn bans_outlive_a_reload_and_end_with_the_option() {
    let service = service::http(0, "web");
    let mut server = server_of_id1("");
    let (addr, local) = (server.addr(), service.addr);
    let fields = format!("local: \"http://{local}\"");
    let mut filed = Filed::client(addr, fields, ", visitorRate: 1/1h");
    assert_eq!(status_from(NAMED, addr, "id1.a"), 200);
    assert_eq!(status_from(NAMED, addr, "id1.a"), 403);
    filed.reload(", visitorRate: 100/1h, forwarded: true");
    assert_eq!(status_from(NAMED, addr, "id1.a"), 403);
    filed.reload(", forwarded: true");
    assert_eq!(status_from(NAMED, addr, "id1.a"), 200);
    // Visitors of a client that does not know them are not counted.
    filed.gt.stop();
    let mut client = client_of_id1(
        addr,
        &format!("-local http://{local} -wire 1 -visitorRate 1/1h"),
    );
    let warning = client.wait_for_warning();
    assert!(warning.contains("visitorRate of http://"), "{warning}");
    assert_eq!(status_from(NAMED, addr, "id1.a"), 200);
    assert_eq!(status_from(NAMED, addr, "id1.a"), 200);
}
