//! However a tunnel ends gracefully, its streams arrive whole, also those of a slow or half-closed
//! visitor or service.

use crate::common::eventually;
use crate::common::gt::{client, server_of_id1, Gt, Successor};
use crate::common::peer::gt1::{hello, Frame, Peer, CLOSE};
use crate::common::peer::ID_ALONE;
use crate::common::ports::free_port;
use crate::common::samples::Random;
use crate::common::scratch::Scratch;
use crate::common::service::{self, Service};
use crate::common::visitor::{connect, set_limits};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{channel, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// More than all buffers on the path hold.
const LENGTH: usize = 6 << 20;

/// What ends the tunnel.
#[derive(Debug, Clone, Copy)]
enum End {
    ClientStops,
    ClientReloads,
    ServerStops,
    ServerRestarts,
}

const ENDS: [End; 4] = [
    End::ClientStops,
    End::ClientReloads,
    End::ServerStops,
    End::ServerRestarts,
];

struct Setup {
    server: Gt,
    client: Gt,
    scratch: Scratch,
    text: String,
    port: SocketAddr,
    successor: Option<Successor>,
}

impl Setup {
    fn new(wire: u8, service: &Service) -> Setup {
        let port = free_port();
        let mut server = server_of_id1(&format!("-tcpNumber 1 -tcpRange {port}"));
        let text = format!(
            "options: {{remote: 'tcp://{}', id: id1, secret: secret1, wire: {wire}}}\n\
             services: [{{local: 'tcp://{}', remoteTCPPort: {port}}}]\n",
            server.addr(),
            service.addr
        );
        let scratch = Scratch::new();
        let file = scratch.file("client.yaml", &text);
        let mut client = client(&format!("-config {}", file.display()));
        client.wait_for_tunnel();
        Setup {
            server,
            client,
            scratch,
            text,
            port: ([127, 0, 0, 1], port).into(),
            successor: None,
        }
    }

    fn end(&mut self, end: End) {
        match end {
            End::ClientStops => {
                self.client.signal("TERM");
                self.client.wait_for_stopping();
            }
            End::ClientReloads => {
                let other_way = self.text.replace("wire:", "remoteTimeout: 40s, wire:");
                self.scratch.file("client.yaml", other_way);
                self.client.reload();
            }
            End::ServerStops => {
                self.server.signal("TERM");
                self.server.wait_for_stopping();
            }
            End::ServerRestarts => self.successor = Some(self.server.restart()),
        }
    }
}

/// Limits how much unread data the kernel holds for `stream`.
fn narrow(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    socket
        .set_recv_buffer_size(128 << 10)
        .expect("set a buffer");
}

/// Reads to the end, slower than a tunnel delivers. Returns how much of `bytes` has come.
fn read_slowly(stream: &mut impl Read, bytes: &[u8]) -> io::Result<usize> {
    let (mut got, mut piece) = (0, [0; 16 << 10]);
    loop {
        match stream.read(&mut piece)? {
            0 => return Ok(got),
            n => {
                assert!(
                    bytes[got..].starts_with(&piece[..n]),
                    "other bytes at {got}"
                );
                got += n;
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_visitor_that_has_ended_its_direction_gets_the_whole_answer() {
    let bytes = Arc::new(Random::new(1).bytes(LENGTH));
    let service = service::source(bytes.clone());
    for wire in [1, 2] {
        for end in ENDS {
            let mut setup = Setup::new(wire, &service);
            let mut visitor = connect(setup.port);
            narrow(&visitor);
            visitor.shutdown(Shutdown::Write).expect("half-close");
            visitor.peek(&mut [0]).expect("the first byte");
            setup.end(end);
            let got = read_slowly(&mut visitor, &bytes);
            assert_eq!(got.ok(), Some(LENGTH), "GT/{wire}, {end:?}");
        }
    }
}

#[test]
fn a_client_that_does_not_read_is_limited_in_draining_tunnels() {
    let mut server = server_of_id1("-connections 1");
    let addr = server.addr();
    let end = || {
        let mut peer = Peer::ready_client(addr, &hello("id1", "secret1", &ID_ALONE));
        peer.send(&CLOSE);
        for _ in 0..3 {
            peer.expect(Frame::Close);
        }
        // What the client sends is read until both have ended.
        peer.expect_end();
        peer
    };
    let (oldest, newest) = (end(), end());
    let is_closed = |peer: &Peer| peer.writer().write_all(b"x").is_err();
    eventually("the older one to be closed", || {
        is_closed(&oldest).then_some(())
    });
    assert!(!is_closed(&newest));
}

/// A service that may end its own direction, reports that it has been reached, and how much of
/// `bytes` it has received.
fn slow_sink(bytes: Arc<Vec<u8>>, half_closes: bool) -> (Service, Receiver<io::Result<usize>>) {
    let (report, reports) = channel();
    let report = Mutex::new(report);
    let service = Service::start(0, move |mut stream| {
        set_limits(&stream);
        narrow(&stream);
        if half_closes {
            stream.shutdown(Shutdown::Write)?;
        }
        let begun = stream.peek(&mut [0]);
        report.lock().unwrap().send(begun).expect("a test");
        // GT/1 has no half-close: the visitor's end does not come before the service's.
        let got = match half_closes {
            true => read_slowly(&mut stream, &bytes),
            false => read_slowly(&mut (&stream).take(LENGTH as u64), &bytes),
        };
        report.lock().unwrap().send(got).expect("a test");
        Ok(())
    });
    (service, reports)
}

#[test]
fn a_service_gets_the_whole_upload() {
    let bytes = Arc::new(Random::new(2).bytes(LENGTH));
    for wire in [1, 2] {
        // In GT/1 the service's end would end the stream.
        let (service, reports) = slow_sink(bytes.clone(), wire == 2);
        for end in ENDS {
            let mut setup = Setup::new(wire, &service);
            let mut visitor = connect(setup.port);
            let sent = bytes.clone();
            let visit = std::thread::spawn(move || {
                visitor.write_all(&sent).expect("send");
                visitor.shutdown(Shutdown::Write).expect("half-close");
                // Up to the end of the service's direction, or a reset.
                let _ = visitor.read_to_end(&mut Vec::new());
            });
            reports.recv().unwrap().expect("the first byte");
            setup.end(end);
            let got = reports.recv().unwrap();
            assert_eq!(got.ok(), Some(LENGTH), "GT/{wire}, {end:?}");
            visit.join().expect("a visit");
        }
    }
}
