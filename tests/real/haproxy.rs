//! Two servers behind HAProxy or nginx, as docs/scale.md shows them: visitors notice neither the stop
//! nor the failure of a server. Needs haproxy, nginx-light, curl and openssl.

use crate::common::api::{self, judgement, Api};
use crate::common::crowd::{Crowd, Visitor};
use crate::common::curl::https;
use crate::common::gt::{client, server, Gt};
use crate::common::haproxy::{self, Haproxy};
use crate::common::ports::free_port;
use crate::common::process::Process;
use crate::common::scratch::Scratch;
use crate::common::service::{answering, Service};
use crate::common::visitor::{ask, connect, get, read_answer};
use crate::common::{certs, eventually, nginx, PATIENCE};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

const PAGE: &str = include_str!("../../docs/scale.md");
const PAGE_OF_NGINX: &str = include_str!("../../docs/behind-a-proxy.md");

/// The host of the client, whose id is id1.
const HOST: &str = "id1.example.com";

/// Returns an example of a page, the one in this language that contains `text`.
fn example<'a>(page: &'a str, language: &str, text: &str) -> &'a str {
    let begin = format!("\n```{language}\n");
    let blocks = page.split(&begin).skip(1);
    let mut blocks = blocks.map(|rest| rest.split_once("\n```").expect("its end").0);
    let block = blocks.find(|block| block.contains(text));
    block.unwrap_or_else(|| panic!("no example in {language} with {text:?}"))
}

/// Returns `text` with other values. Each of the old ones must be there.
fn with_values(text: &str, values: &[(&str, String)]) -> String {
    let mut text = text.to_owned();
    for (from, to) in values {
        assert!(text.contains(from), "no {from:?} in {text}");
        text = text.replace(from, to);
    }
    text
}

fn free_addr() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

/// A server whose addresses stay the same when it is started again.
struct Server {
    addr: SocketAddr,
    sni_addr: SocketAddr,
    api_addr: SocketAddr,
    config: PathBuf,
    gt: Gt,
}

impl Server {
    fn start(name: &str, scratch: &Scratch, auth_api: &Api) -> Server {
        let (addr, sni_addr, api_addr) = (free_addr(), free_addr(), free_addr());
        let config = with_values(
            example(PAGE, "yaml", "type: server"),
            &[
                ("addr: 8080", format!("addr: {addr}")),
                ("sniAddr: 8443", format!("sniAddr: {sni_addr}")),
                ("10.0.0.11:8081", api_addr.to_string()),
                ("10.0.0.10:9000", auth_api.addr.to_string()),
            ],
        );
        let config = scratch.file(&format!("{name}.yaml"), config);
        let gt = Server::run(&config);
        Server {
            addr,
            sni_addr,
            api_addr,
            config,
            gt,
        }
    }

    fn run(config: &Path) -> Gt {
        let mut gt = server(&format!("-config {}", config.display()));
        gt.api_addr();
        gt
    }

    fn start_again(&mut self) {
        self.gt = Server::run(&self.config);
    }

    /// Returns how many visitors the running process has forwarded to its clients.
    fn forwarded(&self) -> u64 {
        let page = get(self.api_addr, "localhost", "/metrics").text();
        let mut values = page
            .lines()
            .filter_map(|line| line.strip_prefix("gt_streams_total "));
        let value = values.next().unwrap_or_else(|| panic!("{page}"));
        value.parse().expect("a number")
    }

    /// Waits until it has forwarded ten more visitors.
    fn wait_for_visitors(&self) {
        let goal = self.forwarded() + 10;
        eventually("a server to get visitors", || {
            (self.forwarded() >= goal).then_some(())
        });
    }
}

/// Two servers with the users of one authAPI.
struct Servers {
    a: Server,
    b: Server,
    scratch: Scratch,
    _auth_api: Api,
}

fn servers() -> Servers {
    let scratch = Scratch::new();
    let auth_api = api::start(0, |_| judgement(true, &[]));
    Servers {
        a: Server::start("a", &scratch, &auth_api),
        b: Server::start("b", &scratch, &auth_api),
        scratch,
        _auth_api: auth_api,
    }
}

impl Servers {
    /// Starts the client, with a tunnel to each server, for an HTTP service.
    fn client(&self, service: &Service) -> Gt {
        let remotes = [self.a.addr, self.b.addr];
        client_of(remotes, &[("127.0.0.1:80", service.addr)], &self.scratch)
    }
}

/// Starts the client, with tunnels to the servers at these addresses.
fn client_of(remotes: [SocketAddr; 2], services: &[(&str, SocketAddr)], scratch: &Scratch) -> Gt {
    let mut values = vec![
        ("a.example.com:8080", remotes[0].to_string()),
        ("b.example.com:8080", remotes[1].to_string()),
        // Tests do not wait longer than necessary.
        ("  id: id1", "  reconnectDelay: 1s\n  id: id1".to_owned()),
    ];
    for (from, to) in services {
        values.push((from, to.to_string()));
    }
    let config = with_values(example(PAGE, "yaml", "type: client"), &values);
    let config = scratch.file("client.yaml", config);
    let mut client = client(&format!("-config {}", config.display()));
    client.wait_for_tunnels(2);
    client
}

/// HAProxy, and the addresses at which it listens.
struct Proxy {
    haproxy: Haproxy,
    http: SocketAddr,
    tls: SocketAddr,
    tunnels: [SocketAddr; 2],
}

/// Starts HAProxy with both configurations of the page. A server that answers one check gets
/// visitors, so it gets them before its client is back.
fn haproxy_of_page(servers: &Servers) -> Proxy {
    let (http, tls) = (free_addr(), free_addr());
    let tunnels = [free_addr(), free_addr()];
    let config = [
        example(PAGE, "haproxy", "listen http"),
        example(PAGE, "haproxy", "listen tunnels-a"),
        "",
    ];
    let at = |server: &Server, addr: SocketAddr| format!("{addr} port {}", server.api_addr.port());
    let (haproxy, _) = haproxy::start(http.port(), |admin| {
        with_values(
            &config.join("\n"),
            &[
                // Only root may change the user.
                ("    user haproxy\n    group haproxy\n", String::new()),
                ("/run/haproxy/admin.sock mode 660", admin.to_owned()),
                (
                    "inter 2s fall 2 rise 31",
                    "inter 100ms fall 2 rise 1".to_owned(),
                ),
                ("bind :80\n", format!("bind {http}\n")),
                ("bind :443\n", format!("bind {tls}\n")),
                ("bind :8001\n", format!("bind {}\n", tunnels[0])),
                ("bind :8002\n", format!("bind {}\n", tunnels[1])),
                ("10.0.0.11:8080", at(&servers.a, servers.a.addr)),
                ("10.0.0.12:8080", at(&servers.b, servers.b.addr)),
                ("10.0.0.11:8443", at(&servers.a, servers.a.sni_addr)),
                ("10.0.0.12:8443", at(&servers.b, servers.b.sni_addr)),
            ],
        )
    });
    Proxy {
        haproxy,
        http,
        tls,
        tunnels,
    }
}

/// Starts nginx with the configuration of docs/behind-a-proxy.md, changed as the page says.
fn nginx_of_page(servers: &Servers) -> (Process, SocketAddr) {
    let addr = free_addr();
    let upstream = with_values(
        example(PAGE, "nginx", "proxy_next_upstream"),
        &[
            ("10.0.0.11:8080", servers.a.addr.to_string()),
            ("10.0.0.12:8080", servers.b.addr.to_string()),
        ],
    );
    let config = with_values(
        example(PAGE_OF_NGINX, "nginx", ""),
        &[
            ("upstream gt {\n    server 127.0.0.1:8080;\n}", upstream),
            ("listen 80;", format!("listen {addr};")),
        ],
    );
    nginx::with_http(Scratch::new(), addr.port(), &config)
}

/// Returns six visitors of id1: three keep a connection, three open one for each request.
fn visitors(proxy: SocketAddr) -> Vec<Visitor> {
    let mut visitors = Vec::new();
    for visitor in 0..3 {
        let mut kept = connect(proxy);
        let mut number = 0;
        visitors.push(Box::new(move || {
            number += 1;
            let target = format!("/kept/{visitor}/{number}");
            write!(kept, "GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n").expect("send a request");
            let answer = read_answer(&mut kept);
            assert_eq!((answer.status, answer.text()), (200, target));
        }) as Visitor);
        visitors.push(Box::new(move || {
            let target = format!("/new/{visitor}");
            let answer = get(proxy, HOST, &target);
            assert_eq!((answer.status, answer.text()), (200, target));
        }));
    }
    visitors
}

/// Stops one server and kills the other while visitors come, and checks that each is served.
fn assert_no_request_fails(mut servers: Servers, proxy: SocketAddr) {
    let service = answering(0, |request| request.target.into_bytes());
    let _client = servers.client(&service);
    let crowd = Crowd::of(visitors(proxy));
    servers.a.wait_for_visitors();
    servers.b.wait_for_visitors();

    assert_eq!(servers.a.gt.stop(), Some(0));
    crowd.more();
    servers.a.start_again();
    servers.a.wait_for_visitors();

    servers.b.gt.kill();
    crowd.more();
    servers.b.start_again();
    servers.b.wait_for_visitors();
    servers.a.wait_for_visitors();
    crowd.end();
}

/// Kills the server of a POST that waits for its answer, and checks that the proxy answers 502 and
/// sends it to no other server.
fn assert_a_post_is_not_repeated(mut servers: Servers, proxy: SocketAddr) {
    let posts = Arc::new(AtomicUsize::new(0));
    let (release, held) = channel::<()>();
    let held = Mutex::new(held);
    let count = posts.clone();
    let service = answering(0, move |_| {
        // Only the first one waits.
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            let _ = held.lock().unwrap().recv_timeout(PATIENCE);
        }
        Vec::new()
    });
    let _client = servers.client(&service);
    let post = format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody"
    );
    std::thread::scope(|scope| {
        let visitor = scope.spawn(|| ask(proxy, &post));
        eventually("a POST to arrive", || {
            (posts.load(Ordering::SeqCst) == 1).then_some(())
        });
        let served_by_a = servers.a.forwarded() > 0;
        assert_ne!(served_by_a, servers.b.forwarded() > 0);
        match served_by_a {
            true => servers.a.gt.kill(),
            false => servers.b.gt.kill(),
        }
        let answer = visitor.join().expect("an answer");
        assert_eq!(answer.status, 502, "{answer:?}");
    });
    drop(release);
    assert_eq!(posts.load(Ordering::SeqCst), 1);
}

#[test]
fn no_request_fails_while_a_server_behind_haproxy_stops_or_dies() {
    let servers = servers();
    let proxy = haproxy_of_page(&servers);
    assert_no_request_fails(servers, proxy.http);
}

#[test]
fn no_request_fails_while_a_server_behind_nginx_stops_or_dies() {
    let servers = servers();
    let (_nginx, addr) = nginx_of_page(&servers);
    assert_no_request_fails(servers, addr);
}

#[test]
fn a_post_whose_server_behind_haproxy_dies_is_not_repeated() {
    let servers = servers();
    let proxy = haproxy_of_page(&servers);
    assert_a_post_is_not_repeated(servers, proxy.http);
}

#[test]
fn a_post_whose_server_behind_nginx_dies_is_not_repeated() {
    let servers = servers();
    let (_nginx, addr) = nginx_of_page(&servers);
    assert_a_post_is_not_repeated(servers, addr);
}

#[test]
fn tls_visitors_do_not_notice_that_a_drained_server_stops() {
    let certs = certs::make();
    let service = nginx::start(Some(&certs));
    let mut servers = servers();
    let proxy = haproxy_of_page(&servers);
    let _client = client_of(
        proxy.tunnels,
        &[("127.0.0.1:443", service.https)],
        &servers.scratch,
    );
    let (ca, tls) = (certs.ca.clone(), proxy.tls);
    let crowd = Crowd::start(move || {
        let page = https(HOST, tls, &ca, "");
        assert_eq!(page.text(), nginx::INDEX);
    });
    servers.a.wait_for_visitors();
    servers.b.wait_for_visitors();

    proxy.haproxy.set_state("tls/a", "drain");
    proxy.haproxy.wait_for_idle("tls/a");
    assert_eq!(servers.a.gt.stop(), Some(0));
    crowd.more();
    servers.a.start_again();
    servers.a.gt.wait_for_opened_by("id1");
    proxy.haproxy.set_state("tls/a", "ready");
    servers.a.wait_for_visitors();
    crowd.end();
}
