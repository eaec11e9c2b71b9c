//! Datagrams that one client forwards to another: DNS with dnsmasq and dig, and iperf3. Needs dnsmasq, dig and iperf3.

use crate::common::dnsmasq;
use crate::common::gt::{client, client_of_id1, server, Gt};
use crate::common::ports::free_port;
use crate::common::process::{run_ok, Process};
use crate::common::scratch::Scratch;
use std::net::SocketAddr;
use std::process::Command;

const KEY: &str = "WyQk0vWSTl4Ei7CqYqCRPh9T1Q4mXc2a";

/// Forwards a port over TCP and UDP to a private service; returns the clients, the server, and the address.
fn forwarded(service: SocketAddr, more: &str) -> (Gt, Gt, Gt, SocketAddr) {
    let mut server = server(
        "-addr 127.0.0.1:0 -id id1 -secret secret1 -id id2 -secret secret2 -stunAddr 127.0.0.1:0",
    );
    let (remote, stun) = (server.addr(), server.stun_addr());
    let local = format!("-remoteSTUN stun:{stun} -local tcp+udp://{service} -private {KEY}");
    let serving = client_of_id1(remote, &local);
    let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut forwarding = client(&format!(
        "-remote tcp://{remote} -id id2 -secret secret2 -remoteSTUN stun:{stun} \
         -tcpForwardAddr {at} -tcpForwardHostPrefix id1 -tcpForwardKey {KEY} \
         -udpForwardAddr {at} -udpForwardHostPrefix id1 -udpForwardKey {KEY} {more}"
    ));
    forwarding.udp_forward_addr();
    forwarding.forward_addr();
    (forwarding, serving, server, at)
}

#[test]
fn dig_gets_answers_over_udp_and_tcp_by_either_way() {
    let dns = dnsmasq::start();
    let (mut forwarding, _serving, _server, at) = forwarded(dns.addr, "");
    for round in 0..2 {
        for transport in ["+notcp", "+tcp"] {
            let answer = dnsmasq::dig(at, &[transport], "name.test");
            assert_eq!(answer.trim(), dnsmasq::ANSWER, "{round} {transport}");
        }
        forwarding.wait_for_direct_way();
    }
}

#[test]
fn iperf3_measures_datagrams_over_the_direct_way() {
    let port = free_port();
    let mut command = Command::new("iperf3");
    command.args(["-s", "--forceflush", "-p", &port.to_string()]);
    let mut iperf3 = Process::spawn("iperf3", Scratch::new(), &mut command);
    iperf3.wait_for("Server listening");
    let direct = "-udpForwardFallback=false -tcpForwardFallback=false";
    let (_forwarding, _serving, _server, at) =
        forwarded(SocketAddr::from(([127, 0, 0, 1], port)), direct);
    for more in [&[][..], &["-R"]] {
        for length in ["64", "1200", "8000"] {
            let mut visitor = Command::new("iperf3");
            visitor.args(["-u", "-b", "2M", "-l", length, "-t", "1", "-J", "-c"]);
            visitor.args([&at.ip().to_string(), "-p", &at.port().to_string()]);
            let report = run_ok(visitor.args(more));
            let report: serde_json::Value = serde_json::from_str(&report).expect("a report");
            let sum = &report["end"]["sum"];
            let count = |name: &str| {
                sum[name]
                    .as_u64()
                    .unwrap_or_else(|| panic!("{name} in {sum}"))
            };
            let (sent, lost) = (count("packets"), count("lost_packets"));
            assert!(sent >= 20 && lost < sent / 10, "{more:?} {length}: {sum}");
        }
    }
}
