//! Forwarded connections between two clients that both have QUIC: streams of one connection.

use crate::common::gt::{client, client_of_id1, gt, server, Gt};
use crate::common::samples::Random;
use crate::common::service::{self, assert_echo, Service};
use crate::common::visitor::connect;
use socket2::SockRef;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{channel, Receiver};
use std::sync::Arc;
use std::time::Duration;

const MIB: usize = 1024 * 1024;

/// A server, a client with a service, and one that forwards to it directly.
struct Ends {
    forwarding: Gt,
    /// The forwarding address.
    addr: SocketAddr,
    _others: (Gt, Gt, Service),
}

/// Starts the ends, and waits until connections are direct.
fn ends(service: Service) -> Ends {
    ends_with(service, "")
}

/// Starts the ends, of which the serving one has these further options.
fn ends_with(service: Service, more: &str) -> Ends {
    let mut server = server(
        "-addr 127.0.0.1:0 -id id1 -secret secret1 -id id2 -secret secret2 -stunAddr 127.0.0.1:0",
    );
    let (remote, stun) = (server.addr(), server.stun_addr());
    let local = format!(
        "-local http://{} -remoteSTUN stun:{stun} -logLevel debug {more}",
        service.addr
    );
    let serving = client_of_id1(remote, &local);
    let mut forwarding = client(&format!(
        "-remote tcp://{remote} -id id2 -secret secret2 -remoteSTUN stun:{stun} \
         -tcpForwardAddr 127.0.0.1:0 -tcpForwardHostPrefix id1 -tcpForwardConnections 3"
    ));
    let addr = forwarding.forward_addr();
    drop(connect(addr));
    let line = forwarding.wait_for_direct_way();
    assert!(line.contains("over=QUIC"), "{line}");
    Ends {
        forwarding,
        addr,
        _others: (server, serving, service),
    }
}

impl Ends {
    fn visit(&self) -> TcpStream {
        connect(self.addr)
    }

    fn status(&self) -> String {
        let output = gt("status");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let start = format!("gt: process {} ", self.forwarding.pid());
        let line = text.lines().find(|line| line.starts_with(&start));
        line.unwrap_or_else(|| panic!("{text}")).to_owned()
    }
}

#[test]
fn many_connections_share_one_peer_and_carry_bytes_both_ways() {
    let ends = ends(service::echo());
    let threads: Vec<_> = (0..8)
        .map(|seed| {
            let mut visitor = ends.visit();
            std::thread::spawn(move || {
                let sample = Random::new(seed).bytes(2 * MIB);
                let mut writing = visitor.try_clone().unwrap();
                let sent = sample.clone();
                let writer = std::thread::spawn(move || {
                    writing.write_all(&sent).unwrap();
                    writing.shutdown(Shutdown::Write).unwrap();
                });
                let mut got = Vec::new();
                visitor.read_to_end(&mut got).unwrap();
                writer.join().unwrap();
                assert!(got == sample, "{} bytes came", got.len());
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let status = ends.status();
    assert!(
        status.contains(" over=QUIC ") && status.contains(" peers=1 direct=8 "),
        "{status}"
    );
}

#[test]
fn a_visitor_that_has_sent_everything_still_gets_the_answer() {
    let service = Service::start(0, |mut stream| {
        let mut request = Vec::new();
        stream.read_to_end(&mut request)?;
        stream.write_all(&request)?;
        stream.write_all(b" is the end")
    });
    let ends = ends(service);
    let mut visitor = ends.visit();
    visitor.write_all(b"this").unwrap();
    visitor.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    visitor.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "this is the end");
}

/// A service that reports how each of its connections ends, and sends nothing.
fn reporting() -> (Service, Receiver<std::io::Result<usize>>) {
    let (ends, reports) = channel();
    let service = Service::start(0, move |mut stream| {
        stream.write_all(b"?")?;
        let _ = ends.send(stream.read_to_end(&mut Vec::new()));
        Ok(())
    });
    (service, reports)
}

#[test]
fn a_connection_that_is_cut_at_one_end_is_cut_at_the_other() {
    let (service, reports) = reporting();
    let ends = ends(service);
    let within = Duration::from_secs(20);
    // That of the first connection.
    let _ = reports.recv_timeout(within);
    let mut visitor = ends.visit();
    visitor.read_exact(&mut [0]).unwrap();
    SockRef::from(&visitor)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(visitor);
    let end = reports.recv_timeout(within).unwrap();
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    // A graceful end is one.
    let mut visitor = ends.visit();
    visitor.read_exact(&mut [0]).unwrap();
    drop(visitor);
    assert_eq!(reports.recv_timeout(within).unwrap().unwrap(), 0);
}

#[test]
fn local_timeout_resets_the_visitor_and_ends_the_service_s_connection() {
    let (service, reports) = reporting();
    let ends = ends_with(service, "-localTimeout 1s");
    let within = Duration::from_secs(20);
    // That of the first connection.
    let _ = reports.recv_timeout(within);
    let mut visitor = ends.visit();
    visitor.write_all(b"all").unwrap();
    // Through the server, too: what has come may be a part.
    let end = visitor.read_to_end(&mut Vec::new());
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(reports.recv_timeout(within).unwrap().unwrap(), 3);
}

#[test]
fn a_service_that_cuts_a_connection_cuts_its_visitor() {
    let service = Service::start(0, |mut stream| {
        stream.read_exact(&mut [0])?;
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        Ok(())
    });
    let ends = ends(service);
    let mut visitor = ends.visit();
    visitor.write_all(b"x").unwrap();
    let end = visitor.read_to_end(&mut Vec::new());
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn visitors_that_do_not_read_hold_up_no_other() {
    let bytes = Arc::new(vec![7; 16 * MIB]);
    let sample = bytes.clone();
    let service = Service::start(0, move |mut stream| {
        let mut what = [0];
        stream.read_exact(&mut what)?;
        match what {
            [b'd'] => stream.write_all(&sample),
            _ => std::io::copy(&mut stream.try_clone()?, &mut stream).map(drop),
        }
    });
    let ends = ends(service);
    let mut stopped: Vec<TcpStream> = (0..4).map(|_| ends.visit()).collect();
    for visitor in &mut stopped {
        visitor.write_all(b"d").unwrap();
        // It has begun.
        visitor.read_exact(&mut [0; 1024]).unwrap();
    }
    let mut used = ends.visit();
    used.write_all(b"e").unwrap();
    for _ in 0..20 {
        assert_echo(&mut used, &Random::new(3).bytes(64 * 1024));
    }
    // They get everything once they read.
    for mut visitor in stopped {
        let mut got = Vec::new();
        visitor.read_to_end(&mut got).unwrap();
        assert_eq!(got.len() + 1024, bytes.len());
    }
}
