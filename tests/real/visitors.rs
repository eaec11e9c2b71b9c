//! Real programs as services that learn where their visitors come from. Needs nginx-light, haproxy,
//! curl and openssl.

use crate::common::curl::https;
use crate::common::gt::{client_of_id1, http_tunnel, server, tcp_tunnel, tls_tunnel};
use crate::common::haproxy::Haproxy;
use crate::common::ports::free_port;
use crate::common::process::Process;
use crate::common::scratch::Scratch;
use crate::common::visitor::{connect_from, read_answer};
use crate::common::{certs, haproxy, nginx};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};

/// The visitor's address.
const VISITOR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// Starts nginx, which answers with the visitor's address and port.
fn telling_nginx(listen: &str) -> (Process, SocketAddr) {
    let port = free_port();
    let config = format!(
        "server {{
            listen 127.0.0.1:{port} {listen};
            set_real_ip_from 127.0.0.1;
            real_ip_header proxy_protocol;
            location / {{ return 200 \"$remote_addr $remote_port $proxy_protocol_server_port\"; }}
        }}"
    );
    nginx::with_http(Scratch::new(), port, &config)
}

/// Starts nginx, which takes the visitor's address from X-Forwarded-For and answers this.
fn nginx_of_fields(answer: &str) -> (Process, SocketAddr) {
    let port = free_port();
    let config = format!(
        "server {{
            listen 127.0.0.1:{port};
            set_real_ip_from 127.0.0.1;
            real_ip_header X-Forwarded-For;
            real_ip_recursive on;
            location / {{ return 200 \"{answer}\"; }}
        }}"
    );
    nginx::with_http(Scratch::new(), port, &config)
}

/// Returns what a service says to a visitor that is not TLS, and the visitor's port.
fn asked(addr: SocketAddr) -> (String, u16) {
    let mut visitor = connect_from(VISITOR, addr);
    write!(visitor, "GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n").expect("ask");
    let port = visitor.local_addr().expect("an address").port();
    (read_answer(&mut visitor).text(), port)
}

#[test]
fn nginx_learns_the_address_of_visitors_by_both_versions() {
    let (_nginx, service) = telling_nginx("proxy_protocol");
    for version in [1, 2] {
        let options = format!("-proxyProtocol {version}");
        let (_server, _client, addr) = tcp_tunnel(service, "", &options);
        let (said, port) = asked(addr);
        assert_eq!(said, format!("{VISITOR} {port} {}", addr.port()));
    }
}

#[test]
fn nginx_learns_the_address_of_visitors_from_a_field_of_the_request() {
    let certs = certs::make();
    let (_nginx, service) = nginx_of_fields("$remote_addr $http_x_forwarded_proto");
    let (_server, _client, addr) = http_tunnel(service, "", "-forwarded");
    assert_eq!(asked(addr).0, format!("{VISITOR} http"));
    let (_server, _client, addr) = tls_tunnel(&certs, service, "", "-forwarded");
    let forged = "-H X-Forwarded-For:203.0.113.1 -H X_Forwarded_For:203.0.113.1";
    let options = format!("--interface {VISITOR} {forged}");
    let reply = https("id1.example.com", addr, &certs.ca, &options);
    assert_eq!(reply.text(), format!("{VISITOR} https"));
}

#[test]
fn nginx_learns_the_address_of_visitors_whose_tls_the_server_decrypts() {
    let certs = certs::make();
    let (_nginx, service) = telling_nginx("proxy_protocol");
    let (_server, _client, addr) = tls_tunnel(&certs, service, "", "-proxyProtocol 1");
    let reply = https("id1.example.com", addr, &certs.ca, "--interface 127.0.0.9");
    assert!(
        reply.text().starts_with(&format!("{VISITOR} ")),
        "{}",
        reply.text()
    );
    assert!(
        reply.text().ends_with(&format!(" {}", addr.port())),
        "{}",
        reply.text()
    );
}

#[test]
fn nginx_learns_the_address_of_visitors_whose_tls_it_decrypts_itself() {
    let certs = certs::make();
    let (_nginx, service) = telling_nginx(&format!(
        "ssl proxy_protocol; ssl_certificate {}; ssl_certificate_key {}",
        certs.cert.display(),
        certs.key.display()
    ));
    let mut server = server("-addr 127.0.0.1:0 -sniAddr 127.0.0.1:0 -id id1 -secret secret1");
    let (addr, sni_addr) = (server.addr(), server.sni_addr());
    let _client = client_of_id1(addr, &format!("-local https://{service} -proxyProtocol 2"));
    let reply = https(
        "id1.example.com",
        sni_addr,
        &certs.ca,
        "--interface 127.0.0.9",
    );
    assert!(
        reply.text().starts_with(&format!("{VISITOR} ")),
        "{}",
        reply.text()
    );
}

#[test]
fn haproxy_learns_the_server_name_and_that_there_was_tls() {
    let certs = certs::make();
    let port = free_port();
    let (_haproxy, service) = haproxy::start(port, |_| {
        format!(
            "defaults\n  mode http\n  timeout connect 10s\n  timeout client 10s\n  timeout server 10s\n\
             frontend visitors\n  bind 127.0.0.1:{port} accept-proxy\n  \
             http-request return status 200 content-type text/plain \
             lf-string \"%[src] %[dst_port] %[fc_pp_authority]\"\n"
        )
    });
    let (_server, _client, addr) = tls_tunnel(&certs, service, "", "-proxyProtocol 2");
    let reply = https("id1.example.com", addr, &certs.ca, "--interface 127.0.0.9");
    assert_eq!(
        reply.text(),
        format!("{VISITOR} {} id1.example.com", addr.port())
    );
}

/// Starts HAProxy, which passes connections on to a server with a PROXY header.
fn sending_haproxy(server: SocketAddr, option: &str) -> (Haproxy, SocketAddr) {
    let port = free_port();
    haproxy::start(port, |_| {
        format!(
            "defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 10s\n  timeout server 10s\n\
             listen visitors\n  bind 127.0.0.1:{port}\n  server gt {server} source 127.0.0.5 {option}\n"
        )
    })
}

#[test]
fn visitors_of_haproxy_are_known_by_both_versions() {
    let (_nginx, service) = telling_nginx("proxy_protocol");
    let options = ("-acceptProxy 127.0.0.5", "-proxyProtocol 2");
    let (_server, _client, addr) = http_tunnel(service, options.0, options.1);
    for option in ["send-proxy", "send-proxy-v2"] {
        let (_haproxy, front) = sending_haproxy(addr, option);
        let (said, port) = asked(front);
        assert_eq!(said, format!("{VISITOR} {port} {}", front.port()));
    }
}

#[test]
fn visitors_of_nginx_are_known_by_the_header_of_its_stream() {
    let (_nginx, service) = telling_nginx("proxy_protocol");
    let options = ("-acceptProxy 127.0.0.5", "-proxyProtocol 2");
    let (_server, _client, addr) = http_tunnel(service, options.0, options.1);
    let port = free_port();
    let config = format!(
        "server {{ listen 127.0.0.1:{port}; proxy_pass {addr}; proxy_bind 127.0.0.5; \
         proxy_protocol on; }}"
    );
    let (_front, front) = nginx::with_stream(Scratch::new(), port, &config);
    let (said, port) = asked(front);
    assert_eq!(said, format!("{VISITOR} {port} {}", front.port()));
}

#[test]
fn visitors_of_nginx_are_known_by_the_field_of_its_requests() {
    let (_nginx, service) = nginx_of_fields("$remote_addr $http_x_real_ip $http_x_forwarded_proto");
    let rules = format!("-forwarded -allow {VISITOR}");
    let (_server, _client, addr) = http_tunnel(service, "-frontProxies 127.0.0.5", &rules);
    let port = free_port();
    // As docs/behind-a-proxy.md says.
    let config = format!(
        "server {{
            listen 127.0.0.1:{port};
            location / {{
                proxy_pass http://{addr};
                proxy_bind 127.0.0.5;
                proxy_http_version 1.1;
                proxy_set_header Host $http_host;
                proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                proxy_set_header X-Forwarded-Proto https;
            }}
        }}"
    );
    let (_front, front) = nginx::with_http(Scratch::new(), port, &config);
    assert_eq!(asked(front).0, format!("{VISITOR} {VISITOR} https"));
    // Not the proxy's own address, nor that of another visitor.
    let mut other = connect_from(Ipv4Addr::new(127, 0, 0, 10), front);
    let forged = format!("GET / HTTP/1.1\r\nHost: id1.a\r\nX-Forwarded-For: {VISITOR}\r\n\r\n");
    other.write_all(forged.as_bytes()).expect("ask");
    assert_eq!(read_answer(&mut other).status, 403);
}

#[test]
fn visitors_of_haproxy_whose_tls_the_server_decrypts_are_known() {
    let certs = certs::make();
    let (_nginx, service) = telling_nginx("proxy_protocol");
    let options = ("-acceptProxy 127.0.0.5", "-proxyProtocol 1");
    let (_server, _client, addr) = tls_tunnel(&certs, service, options.0, options.1);
    let (_haproxy, front) = sending_haproxy(addr, "send-proxy-v2");
    let reply = https("id1.example.com", front, &certs.ca, "--interface 127.0.0.9");
    assert!(
        reply.text().starts_with(&format!("{VISITOR} ")),
        "{}",
        reply.text()
    );
    assert!(
        reply.text().ends_with(&format!(" {}", front.port())),
        "{}",
        reply.text()
    );
}
