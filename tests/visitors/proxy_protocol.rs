//! `proxyProtocol`: a service reads where its visitors come from in a header before each connection.

use crate::common::curl::https;
use crate::common::gt::{
    client, client_of_id1, http_tunnel, server, server_of_id1, tcp_tunnel, tls_tunnel,
};
use crate::common::scratch::Scratch;
use crate::common::service::Service;
use crate::common::visitor::{connect_from, get, read_answer};
use crate::common::{certs, PATIENCE};
use std::io::{Read, Result, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc::{channel, Receiver};
use std::sync::Mutex;

/// The signature of version 2.
pub const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Reads the header of a connection: a line, or what the signature begins.
fn read_header(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut header = vec![0; 6];
    stream.read_exact(&mut header)?;
    let mut byte = [0];
    if header == b"PROXY " {
        while !header.ends_with(b"\r\n") {
            stream.read_exact(&mut byte)?;
            header.push(byte[0]);
        }
        return Ok(header);
    }
    header.resize(16, 0);
    stream.read_exact(&mut header[6..])?;
    let length = u16::from_be_bytes([header[14], header[15]]);
    let mut rest = vec![0; usize::from(length)];
    stream.read_exact(&mut rest)?;
    header.extend(rest);
    Ok(header)
}

/// A service that reports the header of each connection. Then it greets, and answers one HTTP request
/// with what the request's head is.
pub fn service() -> (Service, Receiver<Vec<u8>>) {
    let (report, reports) = channel();
    let report = Mutex::new(report);
    let service = Service::start(0, move |mut stream| {
        let header = read_header(&mut stream)?;
        report.lock().unwrap().send(header).unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
            if head == [0x16] {
                // A ClientHello.
                return Ok(());
            }
        }
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            head.len()
        )?;
        stream.write_all(&head)
    });
    (service, reports)
}

pub fn next(reports: &Receiver<Vec<u8>>) -> Vec<u8> {
    reports.recv_timeout(PATIENCE).expect("a header")
}

/// Returns the line of version 1.
pub fn line(source: SocketAddr, destination: SocketAddr) -> String {
    format!(
        "PROXY TCP4 {} {} {} {}\r\n",
        source.ip(),
        destination.ip(),
        source.port(),
        destination.port()
    )
}

/// Returns the addresses in version 2.
fn addresses(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(source) = source else {
        panic!("{source}")
    };
    let SocketAddr::V4(destination) = destination else {
        panic!("{destination}")
    };
    let mut bytes = [source.ip().octets(), destination.ip().octets()].concat();
    bytes.extend(source.port().to_be_bytes());
    bytes.extend(destination.port().to_be_bytes());
    bytes
}

#[test]
fn an_http_service_gets_a_line_before_an_unchanged_request() {
    let (service, headers) = service();
    let (_server, _client, addr) = http_tunnel(service.addr, "", "-proxyProtocol 1");
    let mut visitor = connect_from(Ipv4Addr::new(127, 0, 0, 9), addr);
    let request = b"GET / HTTP/1.1\r\nHost: id1.a\r\nAccept: text/plain\r\n\r\n";
    visitor.write_all(request).expect("ask");
    let source = visitor.local_addr().expect("an address");
    assert_eq!(
        String::from_utf8(next(&headers)).unwrap(),
        line(source, addr)
    );
    assert_eq!(read_answer(&mut visitor).body, request);
}

#[test]
fn a_tcp_service_gets_the_header_though_the_visitor_says_nothing() {
    let (service, headers) = service();
    let (_server, _client, addr) = tcp_tunnel(service.addr, "", "-proxyProtocol 2");
    let visitor = connect_from(Ipv4Addr::new(127, 0, 0, 9), addr);
    let source = visitor.local_addr().expect("an address");
    let expected = [SIGNATURE, &[0x21, 0x11, 0, 12], &addresses(source, addr)].concat();
    assert_eq!(next(&headers), expected);
}

#[test]
fn version_2_tells_the_server_name_and_the_tls_that_the_server_has_decrypted() {
    let certs = certs::make();
    let (service, headers) = service();
    let (_server, _client, addr) = tls_tunnel(&certs, service.addr, "", "-proxyProtocol 2");
    assert!(https("id1.example.com", addr, &certs.ca, "")
        .text()
        .starts_with("GET /"));
    let header = next(&headers);
    let name = [&[2, 0, 15][..], b"id1.example.com"].concat();
    let tls = [0x20, 0, 5, 1, 0, 0, 0, 1];
    assert!(
        header.starts_with(&[SIGNATURE, &[0x21, 0x11, 0, 38]].concat()),
        "{header:?}"
    );
    assert!(header.ends_with(&[&name[..], &tls].concat()), "{header:?}");
}

#[test]
fn a_tls_service_gets_the_header_before_the_client_hello() {
    let certs = certs::make();
    let (service, headers) = service();
    let mut server = server("-addr 127.0.0.1:0 -sniAddr 127.0.0.1:0 -id id1 -secret secret1");
    let (addr, sni_addr) = (server.addr(), server.sni_addr());
    let local = format!("-local https://{} -proxyProtocol 2", service.addr);
    let _client = client_of_id1(addr, &local);
    // The service is not one of TLS.
    assert_ne!(https("id1.example.com", sni_addr, &certs.ca, "").code, 0);
    let header = next(&headers);
    assert!(
        header.ends_with(&[&[2, 0, 15][..], b"id1.example.com"].concat()),
        "{header:?}"
    );
}

#[test]
fn a_request_with_another_host_follows_an_unchanged_header() {
    let (service, headers) = service();
    let options = "-proxyProtocol 1 -useLocalAsHTTPHost";
    let (_server, _client, addr) = http_tunnel(service.addr, "", options);
    let text = get(addr, "id1.a", "/").text();
    assert!(
        text.contains(&format!("Host: {}\r\n", service.addr)),
        "{text}"
    );
    assert!(next(&headers).starts_with(b"PROXY TCP4 127.0.0.1 127.0.0.1 "));
}

#[test]
fn each_of_many_connections_has_its_own_header() {
    let (service, headers) = service();
    let (_server, _client, addr) = http_tunnel(service.addr, "", "-proxyProtocol 1");
    let mut expected = Vec::new();
    let mut visitors = Vec::new();
    for host in 1..=30 {
        let mut visitor = connect_from(Ipv4Addr::new(127, 0, 1, host), addr);
        write!(visitor, "GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n").expect("ask");
        let source = visitor.local_addr().expect("an address");
        expected.push(line(source, addr).into_bytes());
        visitors.push(visitor);
    }
    let mut seen: Vec<_> = expected.iter().map(|_| next(&headers)).collect();
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected);
}

#[test]
fn over_gt1_the_visitor_is_unknown_and_the_log_names_the_option() {
    let (service, headers) = service();
    let mut server = server_of_id1("");
    let addr = server.addr();
    for (version, header) in [
        (1, b"PROXY UNKNOWN\r\n".to_vec()),
        (2, [SIGNATURE, &[0x21, 0, 0, 0]].concat()),
    ] {
        let local = format!(
            "-local http://{} -proxyProtocol {version} -wire 1",
            service.addr
        );
        let mut client = client_of_id1(addr, &local);
        assert_eq!(get(addr, "id1.a", "/").status, 200);
        assert_eq!(next(&headers), header);
        let warning = client.wait_for_warning();
        assert!(
            warning.contains("proxyProtocol of http://127.0.0.1:"),
            "{warning}"
        );
        assert!(warning.contains("GT/1"), "{warning}");
        client.stop();
    }
}

#[test]
fn a_reload_turns_the_header_on_and_off() {
    let (service, headers) = service();
    let mut server = server_of_id1("");
    let addr = server.addr();
    let scratch = Scratch::new();
    let config = |version| {
        format!(
            "options:\n  id: id1\n  secret: secret1\n  remote: tcp://{addr}\n\
             services:\n- local: http://{}\n{version}",
            service.addr
        )
    };
    let file = scratch.file("gt.yaml", config("  proxyProtocol: 1\n"));
    let mut client = client(&format!("-config {}", file.display()));
    client.wait_for_tunnel();
    assert_eq!(get(addr, "id1.a", "/").status, 200);
    assert!(next(&headers).starts_with(b"PROXY TCP4 "));
    scratch.file("gt.yaml", config("  proxyProtocol: 2\n"));
    client.reload();
    assert_eq!(get(addr, "id1.a", "/").status, 200);
    assert!(next(&headers).starts_with(SIGNATURE));
}

#[test]
fn a_header_of_another_version_is_refused() {
    let output = crate::common::gt::gt(
        "client -remote tcp://127.0.0.1:1 -id id1 -local http://127.0.0.1:1 -proxyProtocol 3",
    );
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && text.contains("write 1 or 2"),
        "{text}"
    );
}
