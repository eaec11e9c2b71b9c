//! curl, ssh, Chromium and PySocks as visitors of a client's proxies (docs/proxies.md), with nginx, sshd and
//! dnsmasq in its network. Needs nginx-light, curl, openssh, netcat-openbsd, chromium-driver, dnsmasq and
//! python3-socks.

use crate::common::chromium::Chromium;
use crate::common::curl::Reply;
#[cfg(feature = "p2p")]
use crate::common::gt::{client, server};
use crate::common::gt::{client_of_id1, server_of_id1, Gt};
use crate::common::ports::free_port;
use crate::common::process::{run, run_ok};
use crate::common::samples::{assert_same, random_file};
#[cfg(feature = "p2p")]
use crate::common::service::{self, assert_echo};
#[cfg(feature = "p2p")]
use crate::common::socks;
#[cfg(feature = "p2p")]
use crate::common::visitor::connect;
use crate::common::{certs, dnsmasq, eventually, nginx, sshd, words};
use serde_json::json;
#[cfg(feature = "p2p")]
use std::net::SocketAddr;
use std::process::Command;

/// This machine, which is no target by default.
const HERE: &str = "-targets 127.0.0.1 -targets ::1";

/// A client with a SOCKS5 and an HTTP proxy, and their ports at the server.
struct Proxies {
    // The fields are dropped in this order.
    _client: Gt,
    _server: Gt,
    socks: u16,
    http: u16,
}

impl Proxies {
    fn start(options: &str) -> Proxies {
        let (socks, http) = (free_port(), free_port());
        let ports = format!("-tcpNumber 2 -tcpRange {socks} -tcpRange {http}");
        let mut server = server_of_id1(&ports);
        let of =
            |local: &str, port| format!("-local {local} -remoteTCPPort {port} {HERE} {options}");
        let services = [of("socks5:", socks), of("httpproxy:", http)].join(" ");
        let mut client = client_of_id1(server.addr(), &services);
        client.wait_for_port(1);
        Proxies {
            _client: client,
            _server: server,
            socks,
            http,
        }
    }
}

/// Runs curl, which may use a proxy for every host.
fn curl(line: &str) -> Reply {
    let mut command = Command::new("curl");
    command.args(["-q", "-sS", "--max-time", "120", "--noproxy", ""]);
    let output = run(command.args(words(line)));
    Reply {
        code: output.status.code().unwrap_or(-1),
        body: output.stdout,
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn curl_gets_pages_by_each_kind_of_proxy_and_look_up() {
    let certs = certs::make();
    let nginx = nginx::start(Some(&certs));
    let proxies = Proxies::start("");
    let (socks, http) = (proxies.socks, proxies.http);
    let page = format!("http://localhost:{}/", nginx.http.port());
    let secure = format!(
        "--cacert {} --connect-to id1.example.com::localhost: https://id1.example.com:{}/",
        certs.ca.display(),
        nginx.https.port()
    );
    for proxy in [
        format!("--socks5-hostname 127.0.0.1:{socks}"),
        format!("--socks5 127.0.0.1:{socks}"),
        format!("-x http://127.0.0.1:{http}"),
        format!("-p -x http://127.0.0.1:{http}"),
    ] {
        for url in [&page, &secure] {
            let reply = curl(&format!("{proxy} {url}"));
            assert_eq!(reply.text(), nginx::INDEX, "{proxy} {url}");
        }
        // Two requests, by one connection or two.
        let reply = curl(&format!("{proxy} {page} {page}"));
        assert_eq!(reply.text(), nginx::INDEX.repeat(2), "{proxy}");
        let elsewhere = curl(&format!("{proxy} -f http://10.255.255.1/"));
        assert_ne!(elsewhere.code, 0, "{proxy}");
    }
    let refused = curl(&format!("-x http://127.0.0.1:{http} http://10.255.255.1/"));
    assert_eq!(
        refused.text(),
        "403 Forbidden: this proxy does not lead there\n"
    );
}

#[test]
fn curl_uploads_by_an_http_proxy() {
    let nginx = nginx::start(None);
    let proxies = Proxies::start("");
    let sample = random_file(50);
    for (name, how) in [("plain", ""), ("tunnel", "-p")] {
        let put = format!(
            "{how} -x http://127.0.0.1:{} -T {} http://{}/upload/{name}",
            proxies.http,
            sample.display(),
            nginx.http
        );
        assert_eq!(curl(&put).text(), "", "{name}");
        assert_same(&sample, &nginx.stored(name));
    }
}

#[cfg(feature = "password")]
#[test]
fn curl_gives_the_password_of_a_proxy() {
    let nginx = nginx::start(None);
    let options = format!("-password {}", crate::common::password::alice());
    let proxies = Proxies::start(&options);
    let page = format!("http://localhost:{}/", nginx.http.port());
    for proxy in [
        format!("--socks5-hostname USER127.0.0.1:{}", proxies.socks),
        format!("-x socks5h://USER127.0.0.1:{}", proxies.socks),
        format!("-x http://USER127.0.0.1:{}", proxies.http),
        format!("-p -x http://USER127.0.0.1:{}", proxies.http),
        format!("--proxy-anyauth -x http://USER127.0.0.1:{}", proxies.http),
    ] {
        let with = |user: &str| curl(&format!("{} -f {page}", proxy.replace("USER", user)));
        assert_eq!(with("alice:secret@").text(), nginx::INDEX, "{proxy}");
        assert_ne!(with("alice:wrong@").code, 0, "{proxy}");
        assert_ne!(with("").code, 0, "{proxy}");
    }
}

#[test]
fn ssh_goes_by_netcat_and_each_kind_of_proxy() {
    let sshd = sshd::start();
    let proxies = Proxies::start("");
    for (kind, port) in [("5", proxies.socks), ("connect", proxies.http)] {
        let command = format!("nc.openbsd -X {kind} -x 127.0.0.1:{port} %h %p");
        let said = sshd.ssh_by(&command, sshd.addr.port(), "echo one; seq 3");
        assert_eq!(said, "one\n1\n2\n3\n");
        let many = sshd.ssh_by(&command, sshd.addr.port(), "seq 100000");
        assert_eq!(many.lines().count(), 100_000);
    }
}

#[test]
fn chromium_shows_a_page_by_each_kind_of_proxy() {
    let nginx = nginx::start(None);
    let proxies = Proxies::start("");
    let url = format!("http://localhost:{}/", nginx.http.port());
    for proxy in [
        format!("socks5://127.0.0.1:{}", proxies.socks),
        format!("http://127.0.0.1:{}", proxies.http),
    ] {
        // It does not use proxies for this machine otherwise.
        let chromium = Chromium::with(&[
            format!("--proxy-server={proxy}"),
            "--proxy-bypass-list=<-loopback>".to_owned(),
        ]);
        chromium.open(&url);
        let text = "return document.body.textContent;";
        let mut shown = json!(null);
        eventually("the page", || {
            shown = chromium.run(text, json!([]));
            (shown.as_str() != Some("")).then_some(())
        });
        let heading = format!("<h1>{}</h1>\n", shown.as_str().unwrap_or_default().trim());
        assert_eq!(heading, nginx::INDEX, "{proxy}");
        // A page that is no target is not shown.
        let other = "try { await fetch('http://10.255.255.1/', {mode: 'no-cors'}); return 'got'; }
                     catch { return 'refused'; }";
        let expected = match proxy.starts_with("socks") {
            true => "refused",
            // Its 403 is an answer.
            false => "got",
        };
        assert_eq!(chromium.run(other, json!([])), json!(expected), "{proxy}");
    }
}

/// A client with this proxy, another one that forwards to it, and the address of that one.
#[cfg(feature = "p2p")]
fn forwarded(local: &str) -> (Gt, Gt, Gt, SocketAddr) {
    let mut server = server(
        "-addr 127.0.0.1:0 -id id1 -secret secret1 -id id2 -secret secret2 -stunAddr 127.0.0.1:0",
    );
    let (remote, stun) = (server.addr(), server.stun_addr());
    let options = format!("-local {local} -hostPrefix id1 {HERE} -remoteSTUN stun:{stun}");
    let proxy = client_of_id1(remote, &options);
    let mut here = client(&format!(
        "-remote tcp://{remote} -id id2 -secret secret2 -remoteSTUN stun:{stun} \
         -tcpForwardAddr 127.0.0.1:0 -tcpForwardHostPrefix id1"
    ));
    let addr = here.forward_addr();
    (here, proxy, server, addr)
}

#[cfg(feature = "p2p")]
#[test]
fn curl_goes_by_another_gt_from_peer_to_peer() {
    let nginx = nginx::start(None);
    let page = format!("http://localhost:{}/", nginx.http.port());
    for (local, scheme) in [("socks5:", "socks5h"), ("httpproxy:", "http")] {
        let (here, _proxy, _server, addr) = forwarded(local);
        let at = format!("-x {scheme}://{addr}");
        for _ in 0..3 {
            assert_eq!(
                curl(&format!("{at} {page}")).text(),
                nginx::INDEX,
                "{local}"
            );
        }
        assert_ne!(curl(&format!("{at} -f http://10.255.255.1/")).code, 0);
        assert!(here.is_always_direct(), "{local}");
    }
}

#[cfg(feature = "p2p")]
#[test]
fn a_visitor_by_another_gt_goes_through_the_server_without_a_direct_connection() {
    let echo = service::echo();
    let (mut here, proxy, _server, addr) = forwarded("socks5:");
    // A stopped client answers no datagrams.
    proxy.signal("STOP");
    let mut visitor = connect(addr);
    here.wait_for_no_direct_connection();
    proxy.signal("CONT");
    assert_eq!(socks::ask(&mut visitor, "localhost", echo.addr.port()), 0);
    assert_echo(&mut visitor, b"through the server");
}

/// Asks the name server at the address in its arguments for `example.test` by the proxy at the port there, and
/// prints the address.
const PYSOCKS: &str = r#"
import socket, socks, sys
proxy, host, port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
s = socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(60)
s.set_proxy(socks.SOCKS5, "127.0.0.1", proxy, rdns=True)
question = b"\0\1\1\0\0\1\0\0\0\0\0\0\7example\4test\0\0\1\0\1"
s.sendto(question, (host, port))
answer, sender = s.recvfrom(2000)
assert sender == ("127.0.0.1", port), sender
print(socket.inet_ntoa(answer[-4:]))
"#;

#[test]
fn pysocks_asks_a_name_server_by_address_and_by_name() {
    let dnsmasq = dnsmasq::start();
    let port = free_port();
    let mut server = server_of_id1("-tcpRange 1024-65535 -udpRange 1024-65535");
    let options = format!("-local socks5: -remotePort {port} {HERE}");
    let _client = client_of_id1(server.addr(), &options);
    for host in ["127.0.0.1", "localhost"] {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", PYSOCKS, &port.to_string(), host]);
        let said = run_ok(command.arg(dnsmasq.addr.port().to_string()));
        assert_eq!(said.trim(), dnsmasq::ANSWER, "{host}");
    }
}
