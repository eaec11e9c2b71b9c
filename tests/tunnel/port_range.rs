//! Ranges of ports: `local: tcp://127.0.0.1:6000-6002` with `remoteTCPPort: 7000-7002`.

use crate::common::gt::{client_of_id1, server_of_id1};
use crate::common::ports::free_ports;
use crate::common::service;
use crate::common::visitor::{connect, read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

#[test]
fn each_port_leads_to_its_own_and_one_that_is_taken_is_told_and_leaves_the_others() {
    let (here, there) = (free_ports(3), free_ports(3));
    let _services: [_; 3] = [
        service::answering(here, |_| b"0".to_vec()),
        service::answering(here + 1, |_| b"1".to_vec()),
        service::answering(here + 2, |_| b"2".to_vec()),
    ];
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, there + 1)).expect("a free port");
    let mut server = server_of_id1("-tcpNumber 3 -tcpRange 1024-65535");
    let options = format!(
        "-local tcp://127.0.0.1:{here}-{} -remoteTCPPort {there}-{}",
        here + 2,
        there + 2
    );
    let mut client = client_of_id1(server.addr(), &options);
    let warning = client.wait_for(&format!("{}", there + 1));
    assert!(
        warning.contains(&format!("tcp://127.0.0.1:{}", here + 1)),
        "{warning}"
    );
    for n in [0, 2] {
        let addr = SocketAddr::from(([127, 0, 0, 1], there + n));
        let mut visitor = connect(addr);
        std::io::Write::write_all(&mut visitor, b"GET / HTTP/1.1\r\n\r\n").expect("ask");
        let answer = read(
            &mut visitor,
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n0".len(),
        );
        assert_eq!(answer.last(), Some(&(b'0' + u8::try_from(n).unwrap())));
    }
    // It is tried again, and told.
    drop(taken);
    client.wait_for_opened_port(there + 1);
}

#[test]
fn ports_beyond_the_maximum_are_told_and_the_others_are_published() {
    for (protocol, lower) in [("TCP", "tcp"), ("UDP", "udp")] {
        let (here, there) = (free_ports(3), free_ports(3));
        let mut server = server_of_id1(&format!("-{lower}Number 2 -{lower}Range 1024-65535"));
        let options = format!(
            "-local {lower}://127.0.0.1:{here}-{} -remote{protocol}Port {there}-{}",
            here + 2,
            there + 2
        );
        let mut client = client_of_id1(server.addr(), &options);
        let last = format!("the {protocol} port of {lower}://127.0.0.1:{}", here + 2);
        let warning = client.wait_for(&last);
        assert!(warning.contains("the maximum of ports"), "{warning}");
        for port in [there, there + 1] {
            client.wait_for(&format!("{lower} port {port} opened successfully"));
        }
        server.wait_for("the client has its maximum of ports (tcpNumber or udpNumber)");
    }
}
