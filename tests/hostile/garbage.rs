//! Whatever is sent to a listener, it closes the connection, frees it, and goes on serving.

use crate::common::gt::{client, server, Gt};
use crate::common::hello::{client_hello, record};
use crate::common::peer::gt1::hello;
use crate::common::peer::port_option;
use crate::common::ports::free_port;
use crate::common::samples::Random;
use crate::common::service::{self, Service};
use crate::common::visitor::{connect, get, read_to_end};
use std::io::Write;
use std::net::{Shutdown, SocketAddr};

struct Setup {
    server: Gt,
    /// The plain, the untouched-TLS and the TCP listener.
    listeners: [SocketAddr; 3],
    _services: [Service; 3],
    _client: Gt,
}

/// Starts a server with a timeout of one second, and a client with three services.
fn setup() -> Setup {
    let port = free_port();
    // The service of the untouched listener closes at once, so that its visitors end, too.
    let closing = Service::start(0, |_| Ok(()));
    let services = [service::http(0, "here"), service::echo(), closing];
    let mut server = server(&format!(
        "-addr 127.0.0.1:0 -sniAddr 127.0.0.1:0 -timeout 2s -id id1 -secret secret1 \
         -hostNumber 2 -tcpNumber 1 -tcpRange {port}-{port}"
    ));
    let (addr, sni_addr) = (server.addr(), server.sni_addr());
    let mut client = client(&format!(
        "-remote {addr} -remoteConnections 1 -remoteTimeout 1s -id id1 -secret secret1 \
         -local http://{} -local tcp://{} -remoteTCPPort {port} \
         -local https://{} -hostPrefix safe",
        services[0].addr, services[1].addr, services[2].addr
    ));
    client.wait_for_tunnel();
    Setup {
        server,
        listeners: [addr, sni_addr, ([127, 0, 0, 1], port).into()],
        _services: services,
        _client: client,
    }
}

impl Setup {
    /// Sends each of `all` to each of the listeners. Half of the visitors end their direction, the
    /// others do not; all must be closed. Afterwards the server serves and holds nothing more than
    /// before.
    fn throw(&self, listeners: &[SocketAddr], all: &[Vec<u8>]) {
        let before = self.server.fds();
        let both = listeners
            .iter()
            .flat_map(|at| all.iter().map(move |bytes| (at, bytes)));
        let visitors: Vec<_> = both
            .map(|(at, bytes)| {
                let mut visitor = connect(*at);
                // The server may close the connection before everything is sent.
                let _ = visitor.write_all(bytes);
                visitor
            })
            .collect();
        for (n, visitor) in visitors.iter().enumerate() {
            if n % 2 == 0 {
                let _ = visitor.shutdown(Shutdown::Write);
            }
        }
        for mut visitor in visitors {
            read_to_end(&mut visitor);
        }
        self.server.wait_for_fds(before);
        self.assert_serves();
    }

    fn assert_serves(&self) {
        assert_eq!(get(self.listeners[0], "id1.a", "/").status, 200);
        service::assert_echo_at(self.listeners[2]);
    }
}

fn twice(all: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    // Each input once for visitors that end, and once for those that stay.
    all.into_iter()
        .flat_map(|bytes| [bytes.clone(), bytes])
        .collect()
}

#[test]
fn random_bytes_are_closed_and_leave_nothing_behind() {
    let setup = setup();
    let mut random = Random::new(1);
    let all: Vec<_> = (0..60)
        .map(|_| {
            let count = random.below(2000);
            random.bytes(count)
        })
        .collect();
    setup.throw(&setup.listeners[..2], &all);
}

#[test]
fn random_bytes_after_a_valid_beginning_are_closed_and_leave_nothing_behind() {
    let setup = setup();
    let mut random = Random::new(2);
    let good: [&[u8]; 7] = [
        b"\xF0",
        b"\xF0\x01",
        b"\xF0\x01\x03id1\x07secret1",
        b"\xF0\x01\x03id1\x07secret1\x02",
        b"\x16\x03\x01",
        b"\x16\x03\x01\x00\xC8\x01\x00\x00\xC4\x03\x03",
        b"GET / HTTP/1.1\r\nHost: ",
    ];
    let all: Vec<_> = (0..70)
        .map(|n| {
            let count = random.below(700);
            let mut bytes = good[n % good.len()].to_vec();
            bytes.extend(random.bytes(count));
            bytes
        })
        .collect();
    setup.throw(&setup.listeners[..2], &all);
}

#[test]
fn half_a_hello_is_closed_and_leaves_nothing_behind() {
    let setup = setup();
    let whole = hello("id1", "secret1", &port_option(true, 0));
    let halves = (0..whole.len()).map(|end| whole[..end].to_vec()).collect();
    let halves = twice(halves);
    setup.throw(&setup.listeners[..2], &halves);
}

#[test]
fn half_a_client_hello_is_closed_and_leaves_nothing_behind() {
    let setup = setup();
    let whole = client_hello("safe.example.com");
    let halves = (0..whole.len()).map(|end| whole[..end].to_vec()).collect();
    setup.throw(&setup.listeners[1..2], &twice(halves));
}

#[test]
fn a_malformed_client_hello_is_closed_and_leaves_nothing_behind() {
    let setup = setup();
    let whole = client_hello("safe.example.com");
    let mut lies = vec![
        record(&[]),
        record(&[1]),
        record(&[1, 0xFF, 0xFF, 0xFF]),
        vec![0x16, 0x03, 0x01, 0xFF, 0xFF],
        client_hello(""),
        client_hello("."),
        client_hello(".example.com"),
        client_hello(&"a".repeat(300)),
        // Empty records, without an end as far as the server knows.
        record(&[]).repeat(10_000),
        // A hello that goes on and on.
        [record(&[1, 0, 0xFF, 0xFF]), record(&[0; 16_000]).repeat(10)].concat(),
    ];
    // Each byte wrong once.
    for at in 0..whole.len() {
        let mut lie = whole.clone();
        lie[at] ^= 0xFF;
        lies.push(lie);
    }
    setup.throw(&setup.listeners[1..2], &twice(lies));
}

#[test]
fn half_a_request_is_closed_and_leaves_nothing_behind() {
    let setup = setup();
    let mut all: Vec<Vec<u8>> = Vec::new();
    let whole = b"GET / HTTP/1.1\r\nHost: nobody.example.com\r\n\r\n";
    all.extend((0..=whole.len()).map(|end| whole[..end].to_vec()));
    all.push(vec![b'\n'; 40_000]);
    all.push(vec![b'a'; 40_000]);
    all.push(b"GET / HTTP/1.1\r\nHost: \xFF\xFE\x00\r\n\r\n".to_vec());
    all.push(
        [
            b"GET / HTTP/1.1\r\nHost: ",
            &[b'x'; 15_000][..],
            b"\r\n\r\n",
        ]
        .concat(),
    );
    setup.throw(&setup.listeners[..1], &twice(all));
}

#[test]
fn visitors_of_a_tcp_port_that_close_at_once_leave_nothing_behind() {
    let setup = setup();
    let before = setup.server.fds();
    for n in 0..300 {
        let mut visitor = connect(setup.listeners[2]);
        if n % 3 == 0 {
            let _ = visitor.write_all(b"x");
        }
    }
    setup.server.wait_for_fds(before);
    setup.assert_serves();
}
