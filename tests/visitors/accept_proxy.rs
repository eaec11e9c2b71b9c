//! `acceptProxy`: connections of a proxy in front of the server begin with a PROXY header.

use super::proxy_protocol::{line, next, service, SIGNATURE};
use crate::common::certs;
use crate::common::curl::https;
use crate::common::gt::{client_of_id1, server_of_id1, tls_tunnel, Gt};
use crate::common::peer::gt1::{hello, ERROR, READY};
use crate::common::peer::ID_ALONE;
use crate::common::ports::free_port;
use crate::common::service::Service;
use crate::common::visitor::{connect_from, get, read, read_answer, read_to_end};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc::Receiver;

/// The proxy's address.
const FRONT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 5);
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n";
const OF_VISITOR: &str = "PROXY TCP4 203.0.113.7 198.51.100.1 50000 80\r\n";

/// A server that trusts the proxy, and a service that gets PROXY headers of version 1.
struct Behind {
    server: Gt,
    addr: SocketAddr,
    _client: Gt,
    _service: Service,
    headers: Receiver<Vec<u8>>,
}

fn behind(for_server: &str, for_client: &str) -> Behind {
    let (service, headers) = service();
    let mut server = server_of_id1(&format!("-acceptProxy {FRONT} {for_server}"));
    let addr = server.addr();
    let local = match for_client {
        "" => format!("-local http://{} -proxyProtocol 1", service.addr),
        more => format!("-local tcp://{} -proxyProtocol 1 {more}", service.addr),
    };
    let client = client_of_id1(addr, &local);
    Behind {
        server,
        addr,
        _client: client,
        _service: service,
        headers,
    }
}

/// Opens a connection of the proxy that begins with these bytes.
pub fn of_front(addr: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = connect_from(FRONT, addr);
    stream.write_all(bytes).expect("begin");
    stream
}

fn of_visitor(version: u8) -> Vec<u8> {
    match version {
        1 => OF_VISITOR.as_bytes().to_vec(),
        _ => {
            let addresses = [203, 0, 113, 7, 198, 51, 100, 1, 0xC3, 0x50, 0, 80];
            [SIGNATURE, &[0x21, 0x11, 0, 12], &addresses].concat()
        }
    }
}

#[test]
fn the_visitor_of_a_header_is_the_visitor_of_the_service() {
    let behind = behind("", "");
    for version in [1, 2] {
        let bytes = [&of_visitor(version)[..], REQUEST.as_bytes()].concat();
        let mut visitor = of_front(behind.addr, &bytes);
        assert_eq!(read_answer(&mut visitor).status, 200);
        assert_eq!(next(&behind.headers), OF_VISITOR.as_bytes());
    }
}

#[test]
fn a_header_may_come_in_pieces() {
    let behind = behind("", "");
    for version in [1, 2] {
        let mut visitor = connect_from(FRONT, behind.addr);
        visitor.set_nodelay(true).expect("set an option");
        for byte in of_visitor(version) {
            visitor.write_all(&[byte]).expect("send a byte");
            std::thread::yield_now();
        }
        visitor.write_all(REQUEST.as_bytes()).expect("ask");
        assert_eq!(read_answer(&mut visitor).status, 200);
        assert_eq!(next(&behind.headers), OF_VISITOR.as_bytes());
    }
}

#[test]
fn visitors_of_tcp_ports_have_headers_too() {
    let port = free_port();
    let options = format!("-tcpNumber 1 -tcpRange {port}");
    let behind = behind(&options, &format!("-remoteTCPPort {port}"));
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let mut visitor = of_front(addr, &[OF_VISITOR, REQUEST].concat().into_bytes());
    assert_eq!(read_answer(&mut visitor).status, 200);
    assert_eq!(next(&behind.headers), OF_VISITOR.as_bytes());
    // Others have none.
    let mut visitor = connect_from(Ipv4Addr::new(127, 0, 0, 9), addr);
    visitor.write_all(REQUEST.as_bytes()).expect("ask");
    let source = visitor.local_addr().expect("an address");
    assert_eq!(read_answer(&mut visitor).status, 200);
    assert_eq!(next(&behind.headers), line(source, addr).as_bytes());
}

#[test]
fn what_the_server_knows_of_the_visitor_s_tls_is_added() {
    let certs = certs::make();
    let (service, headers) = service();
    let trust = "-acceptProxy 127.0.0.5";
    let (_server, _client, addr) = tls_tunnel(&certs, service.addr, trust, "-proxyProtocol 2");
    // curl sends the addresses of its own connection.
    let options = "--haproxy-protocol --interface 127.0.0.5";
    assert_eq!(https("id1.example.com", addr, &certs.ca, options).code, 0);
    let header = next(&headers);
    assert_eq!(header[16..24], [127, 0, 0, 5, 127, 0, 0, 1]);
    let name = [&[2, 0, 15][..], b"id1.example.com"].concat();
    let tls = [0x20, 0, 5, 1, 0, 0, 0, 1];
    assert!(header.ends_with(&[&name[..], &tls].concat()), "{header:?}");
}

#[test]
fn a_connection_of_the_proxy_s_own_has_the_proxy_s_address() {
    let behind = behind("", "");
    let local = [SIGNATURE, &[0x20, 0, 0, 0]].concat();
    for header in [&b"PROXY UNKNOWN\r\n"[..], &local] {
        let mut visitor = of_front(behind.addr, &[header, REQUEST.as_bytes()].concat());
        let source = visitor.local_addr().expect("an address");
        assert_eq!(read_answer(&mut visitor).status, 200);
        assert_eq!(next(&behind.headers), line(source, behind.addr).as_bytes());
    }
}

#[test]
fn a_connection_of_the_proxy_without_a_whole_header_is_closed_with_a_warning() {
    let mut behind = behind("", "");
    let long = [SIGNATURE, &[0x21, 0x11, 2, 9], &[1; 521]].concat();
    for bytes in [REQUEST.as_bytes(), b"PROXY TCP4 nonsense\r\n", &long] {
        let mut stream = of_front(behind.addr, bytes);
        let rest = std::io::Read::read_to_end(&mut stream, &mut Vec::new());
        assert!(matches!(rest, Ok(0) | Err(_)), "{rest:?}");
    }
    let mut cut = of_front(behind.addr, b"PROXY TCP4 192.0");
    cut.shutdown(std::net::Shutdown::Write).expect("end");
    assert!(read_to_end(&mut cut).is_empty());
    let warning = behind.server.wait_for_warning();
    assert!(warning.contains("127.0.0.5:"), "{warning}");
    assert!(warning.contains("no PROXY header"), "{warning}");
    assert!(warning.contains("acceptProxy"), "{warning}");
    // One line a minute.
    assert_eq!(behind.server.warnings().len(), 1);
    assert_eq!(get(behind.addr, "id1.a", "/").status, 200);
}

#[test]
fn a_stranger_s_header_is_not_believed() {
    let behind = behind("", "");
    let mut visitor = connect_from(Ipv4Addr::new(127, 0, 0, 9), behind.addr);
    visitor
        .write_all(&[OF_VISITOR, REQUEST].concat().into_bytes())
        .expect("ask");
    assert_eq!(read_answer(&mut visitor).status, 400);
    assert!(behind.headers.try_recv().is_err());
}

#[test]
fn connections_are_limited_by_the_address_in_the_header() {
    let behind = behind("-addressConnections 1", "");
    let of = |host: u8| {
        let header = format!("PROXY TCP4 203.0.113.{host} 198.51.100.1 50000 80\r\n");
        of_front(behind.addr, &[&header, REQUEST].concat().into_bytes())
    };
    let (mut first, mut second) = (of(1), of(2));
    assert_eq!(read_answer(&mut first).status, 200);
    assert_eq!(read_answer(&mut second).status, 200);
    let again = std::io::Read::read_to_end(&mut of(1), &mut Vec::new());
    assert!(matches!(again, Ok(0) | Err(_)), "{again:?}");
}

#[test]
fn failed_logins_lock_out_the_address_in_the_header() {
    let mut server = server_of_id1(&format!("-acceptProxy {FRONT} -reconnectTimes 1"));
    let addr = server.addr();
    let login = |host: u8, secret| {
        let header = format!("PROXY TCP4 203.0.113.{host} 198.51.100.1 50000 80\r\n");
        let hello = hello("id1", secret, &ID_ALONE);
        read(
            &mut of_front(addr, &[header.as_bytes(), &hello].concat()),
            4,
        )
    };
    assert_eq!(login(1, "wrong"), ERROR);
    assert_eq!(login(1, "wrong"), ERROR);
    assert_eq!(login(1, "secret1"), ERROR);
    assert_eq!(login(2, "secret1"), READY);
}
