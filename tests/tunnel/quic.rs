//! Tunnels over QUIC.

use crate::common::certs;
use crate::common::gt::{client, quic_tunnel, server, server_of_id1};
use crate::common::ports::free_port;
use crate::common::samples::Random;
use crate::common::service::{self, assert_echo};
use crate::common::udp::{UdpService, UdpVisitor};
use crate::common::visitor::{connect, get, read_to_end};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

/// More than all windows together.
const LENGTH: usize = 12 * 1024 * 1024;

#[test]
fn every_byte_arrives_over_quic_in_both_versions_and_with_several_threads() {
    for (wire, threads) in [(1, 1), (2, 1), (2, 2)] {
        let bytes = Arc::new(Random::new(3).bytes(LENGTH));
        let flags = format!("-wire {wire} -threads {threads}");
        let source = service::source(bytes.clone());
        let (_server, _client, addr) = quic_tunnel(source.addr, &flags, &flags);
        let visitors: Vec<_> = (0..3)
            .map(|_| {
                let bytes = bytes.clone();
                std::thread::spawn(move || {
                    let got = read_to_end(&mut connect(addr));
                    assert!(got == *bytes, "{} of {}", got.len(), bytes.len());
                })
            })
            .collect();
        for visitor in visitors {
            visitor.join().unwrap();
        }

        let (sink, uploads) = service::sink();
        let (_server, _client, addr) = quic_tunnel(sink.addr, &flags, &flags);
        let mut visitor = connect(addr);
        let reader = visitor.try_clone().unwrap();
        let acks = std::thread::spawn(move || read_to_end(&mut &reader).len());
        visitor.write_all(&bytes).unwrap();
        visitor.shutdown(Shutdown::Write).unwrap();
        let got = uploads.recv().unwrap();
        assert!(got == *bytes, "{} of {}", got.len(), bytes.len());
        assert!(acks.join().unwrap() > 0);
    }
}

#[test]
fn a_client_checks_the_certificate_of_a_server_over_quic() {
    let certs = certs::make();
    let http = service::http(0, "here");
    let mut server = server(&format!(
        "-addr 127.0.0.1:0 -quicAddr 127.0.0.1:0 {} -id id1 -secret secret1",
        certs.flags()
    ));
    let (addr, quic) = (server.addr(), server.quic_addr());
    let line = |more: &str| {
        format!(
            "-remote quic://localhost:{} -id id1 -secret secret1 -local http://{} {more}",
            quic.port(),
            http.addr
        )
    };
    let mut strict = client(&line(&format!("-remoteCert {}", certs.other_ca.display())));
    let why = strict.wait_for("cannot speak TLS with the server");
    assert!(
        why.contains("set remoteCert to the server's certificate"),
        "{why}"
    );
    let mut knowing = client(&line(&format!("-remoteCert {}", certs.ca.display())));
    knowing.wait_for_tunnel();
    assert_eq!(get(addr, "id1.a", "/").text(), "here / id1.a");
}

#[test]
fn a_server_without_a_certificate_makes_one_and_names_its_fingerprint() {
    let echo = service::echo();
    let (mut server, _client, addr) = quic_tunnel(echo.addr, "", "");
    let made = server.quic_keys();
    assert_eq!(made.len(), 1);
    assert!(made[0].starts_with("SHA256:"), "{made:?}");
    assert_echo(&mut connect(addr), b"over QUIC");
    // A reload changes nothing.
    server.reload();
    assert_echo(&mut connect(addr), b"still");
    assert_eq!(server.quic_keys(), made);
}

#[test]
fn a_tunnel_over_quic_ends_with_its_client_and_with_its_server() {
    let echo = service::echo();
    let (mut server, mut client, addr) = quic_tunnel(echo.addr, "", "");
    assert_echo(&mut connect(addr), b"before");
    assert_eq!(client.stop(), Some(0));
    server.wait_for_closed(1);
    let (mut server, mut client, _) = quic_tunnel(echo.addr, "", "");
    assert_eq!(server.stop(), Some(0));
    client.wait_for_closed(1);
}

#[test]
fn a_download_over_quic_ends_soon_after_its_client_or_its_server_was_killed() {
    for wire in [1, 2] {
        let flags = format!("-wire {wire}");
        let endless = service::Service::start(0, |mut stream: TcpStream| loop {
            stream.write_all(&[0; 16 * 1024])?;
        });
        let (mut server, mut client, addr) = quic_tunnel(endless.addr, &flags, &flags);
        let mut visitor = connect(addr);
        visitor.read_exact(&mut vec![0; LENGTH]).unwrap();
        client.kill();
        // Nobody tells the server: QUIC alone would wait for a minute.
        server.wait_for_silent_with_visitors();
        while matches!(visitor.read(&mut [0; 16 * 1024]), Ok(1..)) {}

        let (mut server, mut client, addr) = quic_tunnel(endless.addr, &flags, &flags);
        let mut visitor = connect(addr);
        visitor.read_exact(&mut vec![0; LENGTH]).unwrap();
        server.kill();
        client.wait_for("nothing was received from the server for");
    }
}

#[test]
fn visitors_come_to_a_client_that_was_killed_and_started_anew() {
    let echo = service::echo();
    for wire in [1, 2] {
        let port = free_port();
        let mut server = server_of_id1(&format!(
            "-quicAddr 127.0.0.1:0 -tcpNumber 1 -tcpRange {port} -wire {wire}"
        ));
        let flags = format!(
            "-remote quic://{} -remoteCertInsecure -id id1 -secret secret1 -local tcp://{} -remoteTCPPort {port} \
             -wire {wire}",
            server.quic_addr(),
            echo.addr
        );
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let mut first = client(&flags);
        first.wait_for_tunnel();
        assert_echo(&mut connect(addr), b"the first");
        first.kill();
        let mut second = client(&flags);
        second.wait_for_tunnel();
        // The server does not know yet that the tunnels of the first one are dead.
        let mut visitors: Vec<_> = (0..8).map(|_| connect(addr)).collect();
        for visitor in &mut visitors {
            assert_echo(visitor, b"the second");
        }
        assert!(!server.log().contains("while visitors wait"));
    }
}

#[test]
fn a_limit_of_one_connection_of_an_address_allows_a_tunnel_over_quic() {
    let echo = service::echo();
    // It waits for the tunnel.
    let (mut server, ..) = quic_tunnel(echo.addr, "-addressConnections 1", "");
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn datagrams_of_every_size_come_back_over_quic() {
    let service = UdpService::echo();
    let port = free_port();
    let mut server = server_of_id1("-quicAddr 127.0.0.1:0 -udpRange 1024-65535");
    let mut client = client(&format!(
        "-remote quic://{} -remoteKey {} -id id1 -secret secret1 -local udp://{} -remoteUDPPort {port}",
        server.quic_addr(),
        server.quic_keys()[0],
        service.addr
    ));
    client.wait_for_tunnel();
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    let visitors: Vec<_> = (1..=3)
        .map(|n| UdpVisitor::from(&format!("127.0.0.{n}"), to))
        .collect();
    // More than go in the stream at first, then larger ones than any packet of the path among smaller ones.
    for size in (0..40).chain([1200, 9000, 3, 65_507, 1100, 30_000, 2]) {
        for (visitor, first) in visitors.iter().zip(0u8..) {
            let datagram: Vec<u8> = (first..=255).cycle().take(size).collect();
            assert!(visitor.ask(&datagram) == datagram, "{size} bytes");
        }
    }
}

#[test]
fn readers_that_take_nothing_hold_up_no_other_over_quic() {
    let bytes = Arc::new(Random::new(9).bytes(LENGTH));
    let source = service::source(bytes.clone());
    let (_server, _client, addr) = quic_tunnel(source.addr, "", "-remoteConnections 1");
    // Together they could take more than all windows of the connection.
    let stuck: Vec<_> = (0..12).map(|_| connect(addr)).collect();
    let mut visitor = connect(addr);
    assert!(read_to_end(&mut visitor) == *bytes);
    // None of them was cut.
    for mut visitor in stuck {
        assert!(read_to_end(&mut visitor) == *bytes);
    }
}

#[test]
fn ends_that_allow_different_versions_meet_in_the_older_one() {
    let echo = service::echo();
    for (for_server, for_client) in [("-wire 1", ""), ("", "-wire 1")] {
        let (_server, _client, addr) = quic_tunnel(echo.addr, for_server, for_client);
        assert_echo(&mut connect(addr), b"over one stream");
    }
}
