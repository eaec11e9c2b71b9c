//! UDP through a tunnel: DNS with dnsmasq and dig, iperf3, and syslog from logger.

use crate::common::dnsmasq;
use crate::common::gt::{client_of_id1, server_of_id1, Gt};
use crate::common::ports::free_port;
use crate::common::process::{run_ok, Process};
use crate::common::scratch::Scratch;
use crate::common::udp::UdpService;
use std::net::SocketAddr;
use std::process::Command;

/// More questions than a port has flows, each from a port of its own.
const MANY_QUESTIONS: usize = 1500;

/// Starts a server and a client with a service that has one number for TCP and UDP; returns both with the
/// address of visitors.
fn tcp_and_udp_tunnel(service: SocketAddr) -> (Gt, Gt, SocketAddr) {
    let port = free_port();
    let ranges = format!("-tcpRange {port} -udpRange {port}");
    let mut server = server_of_id1(&ranges);
    let local = format!("-local tcp+udp://{service} -remotePort {port}");
    let mut client = client_of_id1(server.addr(), &local);
    for kind in ["tcp", "udp"] {
        client.wait_for(&format!("{kind} port {port} opened successfully"));
    }
    (server, client, SocketAddr::from(([127, 0, 0, 1], port)))
}

#[test]
fn dig_gets_answers_from_dnsmasq_over_udp_and_over_tcp() {
    let dns = dnsmasq::start();
    let (_server, _client, at) = tcp_and_udp_tunnel(dns.addr);
    for transport in ["+notcp", "+tcp"] {
        let answer = dnsmasq::dig(at, &[transport], "name.test");
        assert_eq!(answer.trim(), dnsmasq::ANSWER, "{transport}");
    }
}

#[test]
fn more_dns_questions_than_a_port_has_flows_are_all_answered() {
    let dns = dnsmasq::start();
    let (_server, _client, at) = tcp_and_udp_tunnel(dns.addr);
    let answered = dnsmasq::ask_for_names(at, MANY_QUESTIONS);
    assert_eq!(answered, MANY_QUESTIONS);
}

#[test]
fn iperf3_measures_datagrams_in_both_directions() {
    let port = free_port();
    let mut command = Command::new("iperf3");
    command.args(["-s", "--forceflush", "-p", &port.to_string()]);
    let mut iperf3 = Process::spawn("iperf3", Scratch::new(), &mut command);
    iperf3.wait_for("Server listening");
    let (_server, _client, at) = tcp_and_udp_tunnel(SocketAddr::from(([127, 0, 0, 1], port)));
    for more in [&[][..], &["-R"]] {
        let mut visitor = Command::new("iperf3");
        // 500 datagrams.
        visitor.args(["-u", "-b", "2M", "-l", "1000", "-n", "500K", "-J", "-c"]);
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
        assert!(sent >= 500 && lost < sent / 10, "{more:?}: {sum}");
    }
}

#[test]
fn lines_of_logger_reach_a_syslog_service_that_never_answers() {
    let syslog = UdpService::start(|_| Vec::new());
    let (_server, _client, at) = tcp_and_udp_tunnel(syslog.addr);
    let (host, port) = (at.ip().to_string(), at.port().to_string());
    for line in ["one", "two"] {
        let mut logger = Command::new("logger");
        run_ok(logger.args(["-d", "-n", &host, "-P", &port, "--rfc3164", line]));
        let (datagram, _) = syslog.next();
        let datagram = String::from_utf8_lossy(&datagram);
        assert!(datagram.trim_end().ends_with(line), "{datagram}");
    }
}
