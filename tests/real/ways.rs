//! Tunnels in WebSockets through nginx, Caddy and HAProxy, as docs/ways.md shows them. Needs nginx-light,
//! caddy and haproxy.

use crate::common::gt::{client, server_of_id1, Gt};
use crate::common::haproxy;
use crate::common::nginx;
use crate::common::ports::free_port;
use crate::common::process::Process;
use crate::common::samples::Random;
use crate::common::scratch::Scratch;
use crate::common::service::{self, assert_echo, Service};
use crate::common::visitor::{connect, get};
use crate::common::{eventually_within, words, PATIENCE};
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

const PAGE: &str = include_str!("../../docs/ways.md");
/// A little more than the time after which the proxies close what is silent, by default: 60 s for nginx,
/// 50 s in HAProxy's examples; Caddy has no such time.
const IDLE: Duration = Duration::from_secs(65);

/// Returns an example of the page, with the address of the server.
fn example(language: &str, gt: SocketAddr) -> String {
    let begin = format!("\n```{language}\n");
    let (_, rest) = PAGE.split_once(&begin).expect("an example");
    let (example, _) = rest.split_once("\n```").expect("its end");
    assert!(example.contains("127.0.0.1:8080"), "{example}");
    example.replace("127.0.0.1:8080", &gt.to_string())
}

fn start_nginx(gt: SocketAddr) -> (Process, SocketAddr) {
    let port = free_port();
    let config = format!(
        "server {{ listen 127.0.0.1:{port}; {} }}",
        example("nginx", gt)
    );
    nginx::with_http(Scratch::new(), port, &config)
}

fn start_caddy(gt: SocketAddr) -> (Process, SocketAddr) {
    let (port, scratch) = (free_port(), Scratch::new());
    let config = format!(
        "{{\n\tadmin off\n\tauto_https off\n}}\nhttp://:{port} {{\n{}\n}}\n",
        example("caddy", gt)
    );
    let path = scratch.file("Caddyfile", config);
    let mut command = Command::new("caddy");
    command.args(words("run --adapter caddyfile --config"));
    command.arg(path).env("HOME", scratch.path());
    command.env("XDG_DATA_HOME", scratch.path());
    command.env("XDG_CONFIG_HOME", scratch.path());
    let mut process = Process::spawn("caddy", scratch, &mut command);
    let addr = process.wait_for_listener(port);
    (process, addr)
}

fn start_haproxy(gt: SocketAddr) -> (haproxy::Haproxy, SocketAddr) {
    let port = free_port();
    haproxy::start(port, |_| {
        format!(
            "defaults\n    timeout connect 5s\n    timeout client 50s\n    timeout server 50s\n\
             frontend web\n    mode http\n    bind 127.0.0.1:{port}\n{}\n",
            example("haproxy", gt)
        )
    })
}

/// A client with two services whose only tunnel is in a WebSocket through a proxy.
struct Behind {
    client: Gt,
    port: u16,
    id: &'static str,
    _services: [Service; 2],
}

impl Behind {
    fn start(id: &'static str, proxy: SocketAddr, port: u16) -> Behind {
        let services = [service::http(0, "one"), service::echo()];
        let mut client = client(&format!(
            "-remote ws://{proxy} -id {id} -secret secret1 -remoteConnections 1 -local http://{} \
             -local tcp://{} -remoteTCPPort {port}",
            services[0].addr, services[1].addr
        ));
        client.wait_for_tunnel();
        Behind {
            client,
            port,
            id,
            _services: services,
        }
    }

    fn assert_works(&self, server: SocketAddr) {
        let mut visitor = connect(SocketAddr::from(([127, 0, 0, 1], self.port)));
        let mut random = Random::new(1);
        for length in [1, 126, 65536, 5 << 20] {
            assert_echo(&mut visitor, &random.bytes(length));
        }
        let host = format!("{}.a", self.id);
        assert_eq!(get(server, &host, "/x").text(), format!("one /x {host}"));
    }
}

#[test]
fn tunnels_through_proxies_with_their_default_timeouts_work_and_wait() {
    let ports = [free_port(), free_port(), free_port()];
    let ranges = ports.map(|port| format!("-tcpNumber 1 -tcpRange {port}"));
    let mut server = server_of_id1(&format!(
        "-id id2 -secret secret1 -id id3 -secret secret1 -frontProxies 127.0.0.1 {}",
        ranges.join(" ")
    ));
    let addr = server.addr();
    let (_nginx, by_nginx) = start_nginx(addr);
    let (_caddy, by_caddy) = start_caddy(addr);
    let (_haproxy, by_haproxy) = start_haproxy(addr);
    let clients = [
        Behind::start("id1", by_nginx, ports[0]),
        Behind::start("id2", by_caddy, ports[1]),
        Behind::start("id3", by_haproxy, ports[2]),
    ];
    clients.iter().for_each(|client| client.assert_works(addr));
    let begun = Instant::now();
    eventually_within(IDLE + PATIENCE, "the proxies' time to pass", || {
        (begun.elapsed() >= IDLE).then_some(())
    });
    for client in &clients {
        client.assert_works(addr);
        assert_eq!(client.client.tunnels(), 1, "{}", client.client.log());
    }
}
