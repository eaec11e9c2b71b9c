//! UDP ASSOCIATE of `socks5:`: datagrams of visitors get to the targets of a proxy, and nowhere else.

use super::access_log::{lines, part};
use super::allow::{Filed, NAMED, NEIGHBOUR};
use super::proxies::HERE;
use crate::common::gt::{client_of_id1, server_of_id1, Gt};
use crate::common::ports::free_port;
use crate::common::scratch::Scratch;
use crate::common::service::assert_echo;
use crate::common::socks::{self, answer, associate, datagram, visit};
use crate::common::udp::{UdpService, UdpVisitor};
use crate::common::visitor::{connect, connect_from, read_to_end};
use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};

/// The options of a server that lets clients have ports of both protocols.
const PORTS: &str = "-tcpRange 1024-65535 -udpRange 1024-65535";
const HOME: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A server, and a client with a SOCKS5 proxy at a TCP port and a UDP port of one number.
struct UdpProxy {
    // The fields are dropped in this order.
    _client: Gt,
    _server: Gt,
    addr: SocketAddr,
}

impl UdpProxy {
    fn start(for_server: &str, for_client: &str) -> UdpProxy {
        let port = free_port();
        let mut server = server_of_id1(&format!("{PORTS} {for_server}"));
        let local = format!("-local socks5: -remotePort {port} {for_client}");
        UdpProxy {
            _client: client_of_id1(server.addr(), &local),
            _server: server,
            addr: (HOME, port).into(),
        }
    }

    /// Asks for datagrams from this address; returns the connection, which has to stay open, and where the
    /// datagrams go.
    fn associate(&self, from: Ipv4Addr) -> (TcpStream, SocketAddr) {
        let mut control = connect_from(from, self.addr);
        let relay = associate(&mut control, socks::ANYONE).expect("an association");
        // The address that the visitor is connected to.
        let told = SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.addr.port()));
        assert_eq!(relay, told);
        (control, self.addr)
    }
}

fn visitor(from: Ipv4Addr, relay: SocketAddr) -> UdpVisitor {
    UdpVisitor::from(&from.to_string(), relay)
}

/// Sends a datagram to a host, and returns where the answer comes from, and the answer.
fn ask(visitor: &UdpVisitor, host: &str, port: u16, payload: &[u8]) -> (SocketAddr, Vec<u8>) {
    answer(&visitor.ask(&datagram(host, port, payload)))
}

#[test]
fn datagrams_of_a_visitor_get_to_targets_by_address_and_by_name_and_their_answers_back() {
    let (one, other) = (UdpService::echo(), UdpService::echo());
    let proxy = UdpProxy::start("", HERE);
    let (_control, relay) = proxy.associate(HOME);
    let visitor = visitor(HOME, relay);
    for host in [
        "127.0.0.1",
        "::ffff:127.0.0.1",
        "localhost",
        "LOCALHOST.",
        "127.1",
        "localhost",
    ] {
        for service in [&one, &other] {
            let (from, came) = ask(&visitor, host, service.addr.port(), host.as_bytes());
            assert_eq!(
                (from, came.as_slice()),
                (service.addr, host.as_bytes()),
                "{host}"
            );
        }
    }
    // One socket of the client for all of them, and connections besides.
    let sources: Vec<_> = one.seen.try_iter().chain(other.seen.try_iter()).collect();
    assert!(sources
        .iter()
        .all(|(_, from)| from.port() == sources[0].1.port()));
    let echo = crate::common::service::echo();
    let (mut stream, code) = visit(proxy.addr, "localhost", echo.addr.port());
    assert_eq!(code, 0);
    assert_echo(&mut stream, b"a connection");
}

#[test]
fn datagrams_get_to_a_target_of_ipv6() {
    let service = UdpSocket::bind("[::1]:0").expect("a socket");
    let to = service.local_addr().expect("an address");
    let proxy = UdpProxy::start("", HERE);
    let (_control, relay) = proxy.associate(HOME);
    let visitor = visitor(HOME, relay);
    visitor.send(&datagram("::1", to.port(), b"question"));
    let mut buf = [0; 100];
    let (n, from) = service.recv_from(&mut buf).expect("a question");
    assert_eq!(&buf[..n], b"question");
    service.send_to(b"answer", from).expect("answer");
    assert_eq!(answer(&visitor.receive()), (to, b"answer".to_vec()));
}

#[test]
fn datagrams_of_every_size_keep_their_borders() {
    let service = UdpService::echo();
    let proxy = UdpProxy::start("", HERE);
    let (_control, relay) = proxy.associate(HOME);
    let visitor = visitor(HOME, relay);
    for size in [5, 0, 1, 1200, 9000, 65_497, 30_000, 2] {
        let payload: Vec<u8> = (0..=255).cycle().skip(size).take(size).collect();
        let (from, came) = ask(&visitor, "127.0.0.1", service.addr.port(), &payload);
        assert!(from == service.addr && came == payload, "{size} bytes");
    }
    // Many in a row, of which none is another one's.
    for n in 0..50u8 {
        visitor.send(&datagram("127.0.0.1", service.addr.port(), &[n; 100]));
    }
    for n in 0..50u8 {
        assert_eq!(answer(&visitor.receive()).1, [n; 100]);
    }
}

#[test]
fn a_header_that_is_cut_or_of_a_fragment_gets_nowhere_and_the_next_datagram_does() {
    let service = UdpService::echo();
    let port = service.addr.port();
    let proxy = UdpProxy::start("", HERE);
    let (_control, relay) = proxy.associate(HOME);
    let visitor = visitor(HOME, relay);
    for host in ["127.0.0.1", "localhost", "::1"] {
        let whole = datagram(host, port, b"");
        for cut in 0..whole.len() {
            visitor.send(&whole[..cut]);
        }
    }
    for fragment in [1, 0x80, 0xFF] {
        let mut of_one = datagram("127.0.0.1", port, b"fragment");
        of_one[2] = fragment;
        visitor.send(&of_one);
    }
    for kind in [0, 2, 5, 255] {
        let mut of_kind = datagram("127.0.0.1", port, b"kind");
        of_kind[3] = kind;
        visitor.send(&of_kind);
    }
    visitor.send(&datagram("127.0.0.1", 0, b"no port"));
    visitor.send(&datagram("a b", port, b"no name"));
    assert_eq!(ask(&visitor, "127.0.0.1", port, b"whole").1, b"whole");
    assert_eq!(service.next().0, b"whole");
}

#[test]
fn no_spelling_of_an_address_leads_datagrams_past_the_targets() {
    let (service, target) = (UdpService::echo(), UdpService::echo());
    let (port, allowed) = (service.addr.port(), target.addr.port());
    let proxy = UdpProxy::start(
        "",
        &format!("-targets 127.0.0.1:{allowed} -targets 10.0.0.0/8"),
    );
    let (_control, relay) = proxy.associate(HOME);
    let visitor = visitor(HOME, relay);
    for host in [
        "127.0.0.1",
        "127.1",
        "localhost",
        "0.0.0.0",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:0.0.0.0",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "224.0.0.1",
        "2130706433",
    ] {
        visitor.send(&datagram(host, port, host.as_bytes()));
    }
    for host in ["127.0.0.1", "127.1"] {
        assert_eq!(ask(&visitor, host, allowed, b"allowed").0, target.addr);
    }
    assert!(service.is_silent());
}

#[test]
fn answers_come_only_from_where_the_visitor_has_sent_to() {
    let service = UdpService::echo();
    let proxy = UdpProxy::start("", HERE);
    let (_control, relay) = proxy.associate(HOME);
    let visitor = visitor(HOME, relay);
    ask(&visitor, "127.0.0.1", service.addr.port(), b"first");
    let (_, socket) = service.next();
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for _ in 0..100 {
        stranger
            .send_to(b"unasked", (HOME, socket.port()))
            .expect("send");
    }
    let (from, came) = ask(&visitor, "127.0.0.1", service.addr.port(), b"second");
    assert_eq!((from, came.as_slice()), (service.addr, &b"second"[..]));
    // Once it is asked, it answers.
    let to = stranger.local_addr().expect("an address");
    visitor.send(&datagram("127.0.0.1", to.port(), b"question"));
    stranger.recv_from(&mut [0; 100]).expect("a question");
    stranger
        .send_to(b"asked", (HOME, socket.port()))
        .expect("send");
    assert_eq!(answer(&visitor.receive()), (to, b"asked".to_vec()));
}

#[test]
fn only_a_visitor_with_an_open_association_of_its_address_gets_anywhere() {
    let service = UdpService::echo();
    let port = service.addr.port();
    let proxy = UdpProxy::start("", HERE);
    let (mut control, relay) = proxy.associate(NAMED);
    let (has, has_not) = (visitor(NAMED, relay), visitor(NEIGHBOUR, relay));
    has_not.send(&datagram("127.0.0.1", port, b"no association"));
    assert_eq!(ask(&has, "127.0.0.1", port, b"here").1, b"here");
    assert_eq!(service.next().0, b"here");
    // What a visitor sends in the connection changes nothing.
    control.write_all(&[0; 10_000]).expect("send");
    assert_eq!(ask(&has, "127.0.0.1", port, b"still").1, b"still");
    service.next();
    // Two of one address share what they may; the last one ends it.
    let (again, _) = proxy.associate(NAMED);
    control.shutdown(Shutdown::Both).expect("end");
    let more = visitor(NAMED, relay);
    for visitor in [&has, &more] {
        assert_eq!(ask(visitor, "127.0.0.1", port, b"again").1, b"again");
        service.next();
    }
    again.shutdown(Shutdown::Write).expect("end");
    // The proxy has ended it, too.
    assert!(read_to_end(&mut &again).is_empty());
    for visitor in [&has, &more] {
        visitor.send(&datagram("127.0.0.1", port, b"after its end"));
    }
    let (_other, _) = proxy.associate(NEIGHBOUR);
    assert_eq!(
        has_not.insist(&datagram("127.0.0.1", port, b"now")).len(),
        13
    );
    assert_eq!(service.next().0, b"now");
    assert!(service.is_silent());
}

#[test]
fn a_proxy_without_a_udp_port_does_not_know_the_command_and_one_whose_port_is_taken_fails() {
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let port = taken.local_addr().expect("an address").port();
    let mut server = server_of_id1(PORTS);
    for (options, code) in [
        ("-remoteTCPRandom".to_owned(), 7),
        (format!("-remoteTCPRandom -remoteUDPPort {port}"), 1),
    ] {
        let options = format!("-local socks5: {options} {HERE}");
        let mut client = client_of_id1(server.addr(), &options);
        let proxy = SocketAddr::from((HOME, client.wait_for_port(0)));
        let mut control = connect(proxy);
        assert_eq!(
            associate(&mut control, socks::ANYONE),
            Err(code),
            "{options}"
        );
        assert!(read_to_end(&mut control).is_empty());
        client.stop();
    }
}

#[test]
fn visitors_are_told_the_port_that_the_server_has_chosen() {
    let service = UdpService::echo();
    let mut server = server_of_id1(PORTS);
    let options = format!("-local socks5: -remoteTCPRandom -remoteUDPRandom {HERE}");
    let mut client = client_of_id1(server.addr(), &options);
    let proxy = SocketAddr::from((HOME, client.wait_for_port(0)));
    let mut control = connect(proxy);
    let relay = associate(&mut control, socks::ANYONE).expect("an association");
    assert_ne!(relay.port(), proxy.port());
    let visitor = visitor(HOME, (HOME, relay.port()).into());
    assert_eq!(
        ask(&visitor, "127.0.0.1", service.addr.port(), b"x").1,
        b"x"
    );
}

#[cfg(feature = "password")]
#[test]
fn the_password_of_the_connection_is_that_of_its_datagrams() {
    let service = UdpService::echo();
    let password = crate::common::password::alice();
    let proxy = UdpProxy::start("", &format!("{HERE} -password {password}"));
    let mut wrong = connect_from(NEIGHBOUR, proxy.addr);
    wrong
        .write_all(
            &[
                socks::NAMED,
                &socks::login("alice", "wrong"),
                &socks::ASSOCIATE,
            ]
            .concat(),
        )
        .expect("send");
    assert_eq!(read_to_end(&mut wrong), [5, 2, 1, 1]);
    let mut right = connect_from(NAMED, proxy.addr);
    right
        .write_all(&[socks::NAMED, &socks::login("alice", "secret")].concat())
        .expect("send");
    assert_eq!(crate::common::visitor::read(&mut right, 4), [5, 2, 1, 0]);
    associate(&mut right, b"").expect("an association");
    visitor(NEIGHBOUR, proxy.addr).send(&datagram("127.0.0.1", service.addr.port(), b"wrong"));
    let visitor = visitor(NAMED, proxy.addr);
    ask(&visitor, "127.0.0.1", service.addr.port(), b"right");
    assert_eq!(service.next().0, b"right");
    assert!(service.is_silent());
}

#[test]
fn a_reload_keeps_associations_of_a_proxy_that_stays_and_ends_those_of_one_that_changes() {
    let service = UdpService::echo();
    let port = free_port();
    let mut server = server_of_id1(PORTS);
    let fields = format!("local: 'socks5:', remotePort: {port}, targets: [127.0.0.1");
    let mut filed = Filed::client(server.addr(), fields, "]");
    let proxy = SocketAddr::from((HOME, port));
    let mut control = connect(proxy);
    associate(&mut control, socks::ANYONE).expect("an association");
    let before = visitor(HOME, proxy);
    ask(&before, "127.0.0.1", service.addr.port(), b"before");
    filed.reload("]}\n- {local: 'http://127.0.0.1:9'");
    // The flow goes on, and another one can begin.
    let source = |service: &UdpService| service.next().1;
    let first = source(&service);
    ask(&before, "127.0.0.1", service.addr.port(), b"after");
    assert_eq!(source(&service), first);
    ask(
        &visitor(HOME, proxy),
        "127.0.0.1",
        service.addr.port(),
        b"new",
    );
    filed.reload(", 10.0.0.0/8]}\n- {local: 'http://127.0.0.1:9'");
    assert!(read_to_end(&mut control).is_empty());
    let mut control = connect(proxy);
    associate(&mut control, socks::ANYONE).expect("an association");
    let asked = datagram("127.0.0.1", service.addr.port(), b"again");
    assert_eq!(answer(&before.insist(&asked)).1, b"again");
}

#[test]
fn the_access_log_has_the_association_and_where_the_first_datagram_goes() {
    let service = UdpService::echo();
    let scratch = Scratch::new();
    let log = scratch.join("visits");
    let options = format!("{HERE} -accessLog {}", log.display());
    let proxy = UdpProxy::start("-udpTimeout 1s -timeout 8s", &options);
    let (control, relay) = proxy.associate(HOME);
    let flow = visitor(HOME, relay);
    ask(&flow, "localhost", service.addr.port(), b"x");
    let refused = visitor(HOME, relay);
    refused.send(&datagram("10.0.0.1", 53, b"x"));
    let stranger = visitor(NAMED, relay);
    stranger.send(&datagram("127.0.0.1", 53, b"x"));
    let lines_of_flows = lines(&log, 3);
    control.shutdown(Shutdown::Both).expect("end");
    let all = lines(&log, 4);
    let find = |request: &str| {
        let found = all.iter().find(|line| part(line, "request") == request);
        found.unwrap_or_else(|| panic!("{request} in {all:?}"))
    };
    let to_target = find(&format!("UDP localhost:{}", service.addr.port()));
    assert_eq!(
        (part(to_target, "status"), part(to_target, "way")),
        ("200", "udp")
    );
    assert_eq!(part(find("UDP 10.0.0.1:53"), "status"), "403");
    let control = find("UDP ASSOCIATE");
    assert_eq!(
        (part(control, "status"), part(control, "way")),
        ("200", "tcp")
    );
    let denied = |line: &&String| part(line, "end") == "denied";
    let denied = lines_of_flows.iter().find(denied).expect("a stranger");
    assert_eq!(part(denied, "visitor"), NAMED.to_string());
}
