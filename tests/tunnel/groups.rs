//! Groups: services of several clients that share a name (`serviceGroup`, `groupKey`, `groupSticky`), and
//! several clients with one id.

use crate::common::api;
use crate::common::crowd::Crowd;
use crate::common::eventually;
use crate::common::filed::Filed;
use crate::common::gt::{client, server, server_of_id1, Gt};
use crate::common::peer::gt2::{self, field, finish, hello_with, identity, Peer};
use crate::common::ports::free_port;
use crate::common::scratch::Scratch;
use crate::common::service::{self, Service};
use crate::common::visitor::{connect, connect_from, get, read_answer};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};

const GROUP: &str = "-serviceGroup g -groupKey k1";

fn server_of_three(more: &str) -> Gt {
    server_of_id1(&format!(
        "-id id2 -secret secret2 -id id3 -secret secret3 {more}"
    ))
}

fn start(id: &str, server: SocketAddr, more: &str) -> Gt {
    let secret = id.replace("id", "secret");
    client(&format!(
        "-remote tcp://{server} -id {id} -secret {secret} -reconnectDelay 10ms {more}"
    ))
}

/// Starts a client whose service is `web` in the group, and waits for its tunnel.
fn member(id: &str, server: SocketAddr, service: &Service, more: &str) -> Gt {
    let local = service.addr;
    let mut client = start(
        id,
        server,
        &format!("-local http://{local} -hostPrefix web {GROUP} {more}"),
    );
    client.wait_for_tunnel();
    client
}

/// Returns the services that answer some visitors one after the other.
fn answering(server: SocketAddr) -> BTreeSet<String> {
    (0..12).map(|_| get(server, "web.a", "/").text()).collect()
}

fn texts(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| format!("{name} / web.a")).collect()
}

#[test]
fn visitors_come_to_all_members_and_when_one_is_killed_to_the_others() {
    let (one, two, three) = (
        service::http(0, "one"),
        service::http(0, "two"),
        service::http(0, "three"),
    );
    let mut server = server_of_three("-apiAddr 127.0.0.1:0");
    let (addr, api) = (server.addr(), server.api_addr());
    let _one = member("id1", addr, &one, "");
    let killed = member("id2", addr, &two, "");
    // A second client with the id of the first.
    let _three = member("id1", addr, &three, "");
    assert_eq!(answering(addr), texts(&["one", "two", "three"]));
    let listed = get(api, "localhost", "/clients").text();
    let group = "{\"group\": \"g\", \"name\": \"web\", \"tls\": false, \"members\": [\"id1\", \"id1\", \"id2\"]}";
    assert_eq!(listed.matches(group).count(), 2, "{listed}");
    assert_eq!(listed.matches("\"id\": \"id1\"").count(), 1, "{listed}");
    assert!(!listed.contains("k1"), "{listed}");

    killed.signal("KILL");
    server.wait_for_closed_of("id2", 1);
    assert_eq!(answering(addr), texts(&["one", "three"]));
    assert!(server.warnings().is_empty(), "{:?}", server.warnings());
}

/// Builds the hello of a client with one service of a group.
fn grouped_hello(id: &str, key: &str, instance: Option<u8>) -> Vec<u8> {
    let byte = |length: usize| u8::try_from(length).unwrap();
    let option = [
        &[0x09, 1, b'g', byte(key.len())],
        key.as_bytes(),
        &[0, 0x03, 3],
        b"web",
    ];
    let fields = [
        identity(id, &id.replace("id", "secret"), &option.concat()),
        field(4, &32768u32.to_be_bytes()),
        instance.map_or_else(Vec::new, |byte| field(5, &[byte; 8])),
    ];
    hello_with(&fields.concat())
}

fn visit(addr: SocketAddr) -> TcpStream {
    let mut visitor = connect(addr);
    visitor
        .write_all(b"GET / HTTP/1.1\r\nHost: web.a\r\n\r\n")
        .expect("send a request");
    visitor
}

#[test]
fn a_visitor_comes_to_the_member_with_the_fewest_streams() {
    let mut server = server_of_three("-connections 3");
    let addr = server.addr();
    let mut one = Peer::ready_client(addr, &grouped_hello("id1", "k1", Some(1)));
    let mut other = Peer::ready_client(addr, &grouped_hello("id1", "k1", Some(2)));
    let _visitors = [visit(addr), visit(addr), visit(addr), visit(addr)];
    let of_one = [one.opened().0, one.opened().0];
    other.opened();
    other.opened();
    // Both streams of the first member end.
    for stream in of_one {
        one.send(&gt2::frame(4, stream, &[0, 0]));
        one.send(&finish(stream));
    }
    one.send(&gt2::ping(1));
    one.expect(gt2::Frame::Pong(1));
    let _more = [visit(addr), visit(addr)];
    one.opened();
    one.opened();
}

#[test]
fn another_key_another_group_or_none_is_refused_and_members_come_back() {
    let web = service::http(0, "web");
    let mut server = server_of_three("");
    let addr = server.addr();
    let refused = |id: &str, group: &str| {
        let mut stranger = start(
            id,
            addr,
            &format!(
                "-reconnectDelay 1h -local http://{} -hostPrefix web {group}",
                web.addr
            ),
        );
        let why = stranger.wait_for_failure();
        assert!(why.contains("choose another hostPrefix"), "{group}: {why}");
    };
    let mut one = member("id1", addr, &web, "");
    let others = [
        "-serviceGroup g -groupKey k2",
        "-serviceGroup h -groupKey k1",
        "",
    ];
    for group in others {
        refused("id2", group);
    }
    let two = member("id2", addr, &web, "");
    for group in others {
        refused("id3", group);
        // One id, another instance.
        if !group.is_empty() {
            refused("id2", group);
        }
    }
    // The last member leaves its name to the others for a while, and to nobody else.
    assert_eq!(one.stop(), Some(0));
    drop(two);
    server.wait_for_closed_of("id1", 1);
    server.wait_for_closed_of("id2", 1);
    refused("id3", "");
    let _back = member("id3", addr, &web, "");
    assert_eq!(answering(addr), texts(&["web"]));
}

#[test]
fn limits_hold_for_all_clients_of_an_id_together() {
    let web = service::http(0, "web");
    let mut server = server_of_id1("-hostNumber 2 -connections 2");
    let addr = server.addr();
    let local = format!("-local http://{}", web.addr);
    let _one = member("id1", addr, &web, &format!("{local} -hostPrefix own"));
    // A shared name counts once; its own name would be the third.
    let mut second = start(
        "id1",
        addr,
        &format!("{local} -hostPrefix web {GROUP} {local} -hostPrefix more -reconnectDelay 1h"),
    );
    let why = second.wait_for_failure();
    assert!(why.contains("host number is limited"), "{why}");
    drop(second);
    let _two = member("id1", addr, &web, "");
    let mut third = start(
        "id1",
        addr,
        &format!("{local} -hostPrefix web {GROUP} -reconnectDelay 1h"),
    );
    let why = third.wait_for_failure();
    assert!(why.contains("max connections"), "{why}");
}

#[test]
fn a_client_that_comes_back_leaves_what_is_reserved_for_others_with_its_id() {
    let web = service::http(0, "web");
    let mut server = server_of_three("-hostNumber 3");
    let addr = server.addr();
    let own = |name: &str| format!("-local http://{} -hostPrefix {name}", web.addr);
    let away = member("id1", addr, &web, &own("away"));
    let back = member("id1", addr, &web, &own("back"));
    for (client, times) in [(away, 1), (back, 2)] {
        client.signal("KILL");
        server.wait_for_closed_of("id1", times);
    }
    let _back = member("id1", addr, &web, &own("back"));
    let mut thief = start("id2", addr, &format!("{} -reconnectDelay 1h", own("away")));
    let why = thief.wait_for_failure();
    assert!(why.contains("host conflict"), "{why}");
    // As many names as the id may have stay reserved, and no more.
    let names = ["more", "most"].map(own);
    for (name, times) in names.iter().zip(3..) {
        let client = member("id1", addr, &web, name);
        client.signal("KILL");
        server.wait_for_closed_of("id1", times);
    }
    let _last = member("id1", addr, &web, "");
    let mut other = start("id3", addr, &own("away"));
    other.wait_for_tunnel();
}

#[test]
fn a_visitor_stays_with_its_member_if_the_group_is_sticky() {
    let names = ["one", "two", "three"];
    let services = names.map(|name| service::http(0, name));
    let mut server = server_of_three("");
    let addr = server.addr();
    let mut members: Vec<Gt> = services
        .iter()
        .map(|service| member("id1", addr, service, "-groupSticky"))
        .collect();
    let before = answering(addr);
    assert_eq!(before.len(), 1, "{before:?}");
    let at = names
        .iter()
        .position(|name| before == texts(&[name]))
        .expect("a name");
    assert_eq!(members.remove(at).stop(), Some(0));
    let after = answering(addr);
    assert_eq!(after.len(), 1, "{after:?}");
    assert_ne!(before, after);
}

#[test]
fn a_member_that_is_down_gets_no_visitors_and_without_any_they_get_503() {
    let (port, two) = (free_port(), service::http(0, "two"));
    let mut server = server_of_three("");
    let addr = server.addr();
    let check = "-healthCheck tcp -healthCheckEvery 100ms";
    let _one = {
        let line = format!("-local http://127.0.0.1:{port} -hostPrefix web {GROUP} {check}");
        let mut client = start("id1", addr, &line);
        client.wait_for_tunnel();
        client
    };
    let _two = member("id2", addr, &two, check);
    server.wait_for("a service is down");
    assert_eq!(answering(addr), texts(&["two"]));
    drop(two);
    server.wait_for_lines("a service is down", 2);
    assert_eq!(get(addr, "web.a", "/").status, 503);
    let _back = service::http(port, "one");
    server.wait_for("a service is up again");
    assert_eq!(answering(addr), texts(&["one"]));
}

#[test]
fn over_gt1_or_to_an_older_server_a_service_of_a_group_is_not_published_and_says_so() {
    let web = service::http(0, "web");
    let mut server = server_of_id1("");
    let addr = server.addr();
    let local = format!("-local http://{}", web.addr);
    let mut old = start(
        "id1",
        addr,
        &format!("-wire 1 {local} -hostPrefix web {GROUP} {local} -hostPrefix id1"),
    );
    let error = old.wait_for("has a serviceGroup, but");
    assert!(error.contains("speaks GT/1"), "{error}");
    old.wait_for_tunnel();
    assert_eq!(get(addr, "web.a", "/").status, 404);

    let older = gt2::PeerServer::start();
    let mut new = start(
        "id1",
        older.addr,
        &format!("{local} -hostPrefix web {GROUP} {local} -hostPrefix other"),
    );
    // It gives the first connection up, and leaves the service out.
    let mut first = older.accept();
    first.send(&[0xF0, 0x20, 0, 0, 0, 4, 0, 0, 0, 3]);
    let error = new.wait_for("has a serviceGroup, but");
    assert!(error.contains("update it"), "{error}");
    let mut second = older.accept();
    let services = [&[0x03, 5][..], b"other"].concat();
    let fields = identity("id1", "secret1", &services);
    let hello = second.read(10 + fields.len());
    assert_eq!(hello[10..], fields);
}

#[test]
fn a_restart_of_the_server_keeps_the_group_and_no_visitor_notices() {
    let (one, two) = (service::http(0, "one"), service::http(0, "two"));
    let mut server = server_of_three("");
    let addr = server.addr();
    let mut clients = [member("id1", addr, &one, ""), member("id2", addr, &two, "")];
    let crowd = Crowd::start(move || {
        let answer = get(addr, "web.a", "/");
        assert_eq!(answer.status, 200, "{answer:?}");
    });
    let _new = server.restart();
    crowd.more();
    for client in &mut clients {
        client.wait_for_reconnect_request();
        client.wait_for_tunnels(2);
    }
    crowd.more();
    crowd.end();
    eventually("both members", || {
        (answering(addr) == texts(&["one", "two"])).then_some(())
    });
    assert!(server.warnings().is_empty(), "{:?}", server.warnings());
}

#[test]
fn a_restart_of_a_member_keeps_its_own_names_too() {
    let one = service::http(0, "one");
    let mut server = server_of_id1("-hostNumber 2");
    let addr = server.addr();
    let own = format!("-local http://{} -hostPrefix own", one.addr);
    let mut client = member("id1", addr, &one, &own);
    let crowd = Crowd::start(move || {
        for host in ["web.a", "own.a"] {
            let answer = get(addr, host, "/");
            assert_eq!(answer.status, 200, "{host}: {answer:?}");
        }
    });
    let _new = client.restart();
    crowd.more();
    crowd.end();
    assert!(server.warnings().is_empty(), "{:?}", server.warnings());
}

#[test]
fn a_client_that_is_started_anew_gets_the_names_of_its_dead_predecessor() {
    let one = service::http(0, "one");
    let mut server = server_of_id1("-hostNumber 2");
    let addr = server.addr();
    let own = format!("-local http://{} -hostPrefix own", one.addr);
    let stopped = member("id1", addr, &one, &own);
    // Its connection is open, and it is silent.
    stopped.signal("STOP");
    let _anew = member("id1", addr, &one, &own);
    assert_eq!(get(addr, "own.a", "/").text(), "one / own.a");
    stopped.signal("CONT");
}

#[test]
fn a_client_that_is_started_anew_gets_the_ports_of_its_frozen_predecessor() {
    let (one, port) = (service::http(0, "one"), free_port());
    let mut server = server_of_id1(&format!("-tcpNumber 1 -tcpRange {port}"));
    let addr = server.addr();
    let own = format!("-local tcp://{} -remoteTCPPort {port}", one.addr);
    let stopped = member("id1", addr, &one, &own);
    stopped.signal("STOP");
    let mut anew = member("id1", addr, &one, &own);
    anew.wait_for_opened_port(port);
    let at_port = SocketAddr::from(([127, 0, 0, 1], port));
    eventually("the new client at its port", || {
        (get(at_port, "x", "/").text() == "one / x").then_some(())
    });
    // One whose only service is the port.
    anew.signal("STOP");
    let grouped = format!("{own} {GROUP}");
    let mut alone = start("id1", addr, &grouped);
    alone.wait_for_opened_port(port);
    assert_eq!(get(at_port, "x", "/").text(), "one / x");
    for client in [&stopped, &anew] {
        client.signal("CONT");
    }
}

#[test]
fn a_visitor_of_a_sticky_group_comes_back_to_its_member_after_a_start_of_the_client() {
    let (one, two) = (service::http(0, "one"), service::http(0, "two"));
    let mut server = server_of_three("");
    let addr = server.addr();
    let members = || {
        let status = |n| {
            let mut visitor = connect_from(Ipv4Addr::new(127, 0, 0, n), addr);
            let request = b"GET / HTTP/1.1\r\nHost: web.a\r\nConnection: close\r\n\r\n";
            visitor.write_all(request).expect("ask");
            read_answer(&mut visitor).text()
        };
        (1..=20).map(status).collect::<Vec<_>>()
    };
    let mut first = member("id1", addr, &one, "-groupSticky");
    let _second = member("id2", addr, &two, "-groupSticky");
    let before = members();
    assert_eq!(
        before.iter().collect::<BTreeSet<_>>().len(),
        2,
        "{before:?}"
    );
    assert_eq!(first.stop(), Some(0));
    server.wait_for_closed_of("id1", 1);
    let _anew = member("id1", addr, &one, "-groupSticky");
    assert_eq!(members(), before);
}

#[test]
fn a_reload_that_lowers_the_number_of_ports_counts_those_that_clients_of_an_id_share() {
    let (shared, one, two) = (free_port(), free_port(), free_port());
    let text = |number: &str| {
        format!(
            "users: {{id1: {{secret: secret1}}}}\noptions: {{addr: 127.0.0.1:0}}\n\
             tcp: [{{number: {number}, range: 1024-65535}}]\n"
        )
    };
    let mut server = Filed::start("server", text, "3");
    let addr = server.gt.addr();
    let local = service::banner("one");
    let port = |port: u16, group: &str| {
        format!("-local tcp://{} -remoteTCPPort {port} {group}", local.addr)
    };
    let mut clients = [(one, GROUP), (two, "")].map(|(own, group)| {
        let services = format!("{} {}", port(shared, GROUP), port(own, group));
        let mut client = start("id1", addr, &services);
        client.wait_for_opened_port(own);
        client
    });
    let open = || {
        let ports = [shared, one, two].into_iter();
        let is_open = |port: &u16| TcpStream::connect(("127.0.0.1", *port)).is_ok();
        ports.filter(is_open).collect::<Vec<_>>()
    };
    assert_eq!(open().len(), 3);
    server.reload("2");
    // The later one is told of the one that is too many, and keeps the other.
    let is_told = |client: &mut Gt| {
        client
            .warnings()
            .iter()
            .any(|it| it.contains("maximum of ports"))
    };
    eventually("a client to be told", || {
        clients.iter_mut().any(is_told).then_some(())
    });
    let left = open();
    assert!(left.len() == 2 && left.contains(&shared), "{left:?}");
}

#[test]
fn a_reload_joins_and_leaves_a_group() {
    let (one, two) = (service::http(0, "one"), service::http(0, "two"));
    let mut server = server_of_three("");
    let addr = server.addr();
    let service = format!("local: \"http://{}\", hostPrefix: web", one.addr);
    let mut filed = Filed::client(addr, service, "");
    assert_eq!(answering(addr), texts(&["one"]));
    filed.reload(", serviceGroup: g, groupKey: k1");
    filed.gt.wait_for_tunnels(2);
    let mut other = member("id2", addr, &two, "");
    eventually("both members", || {
        (answering(addr) == texts(&["one", "two"])).then_some(())
    });
    assert_eq!(other.stop(), Some(0));
    // Alone, it can have the name for itself.
    filed.reload("");
    filed.gt.wait_for_tunnels(3);
    eventually("the service without a group", || {
        (answering(addr) == texts(&["one"])).then_some(())
    });
}

#[test]
fn an_auth_api_grants_a_shared_name_to_each_member() {
    let web = service::http(0, "web");
    let auth = api::start(0, |request| {
        let may = request.body.contains("id1") || request.body.contains("id2");
        api::judgement(true, if may { &["web"] } else { &[] })
    });
    let scratch = Scratch::new();
    let file = scratch.file("users.yaml", "{}\n");
    let mut server = server(&format!(
        "-addr 127.0.0.1:0 -users {} -authAPI http://{}/",
        file.display(),
        auth.addr
    ));
    let addr = server.addr();
    let _one = member("id1", addr, &web, "");
    let _two = member("id2", addr, &web, "");
    let _three = start(
        "id3",
        addr,
        &format!("-local http://{} -hostPrefix web {GROUP}", web.addr),
    );
    server.wait_for("authAPI does not grant these prefixes id=id3: web");
    assert_eq!(answering(addr), texts(&["web"]));
}

/// Starts a client whose service is a port of the group, and waits for the port.
fn port_member(id: &str, server: SocketAddr, service: &Service, port: u16, more: &str) -> Gt {
    let local = service.addr;
    let line = format!("-local tcp://{local} -remoteTCPPort {port} {GROUP} {more}");
    let mut client = start(id, server, &line);
    client.wait_for_opened_port(port);
    client
}

fn server_with_port(port: u16, more: &str) -> Gt {
    server_of_three(&format!("-tcpNumber 1 -tcpRange {port} {more}"))
}

/// Returns what the services say that some visitors of a port come to.
fn banners(port: u16) -> BTreeSet<String> {
    let banner = || {
        let mut text = [0; 3];
        let mut visitor = connect(([127, 0, 0, 1], port).into());
        visitor.read_exact(&mut text).expect("a banner");
        String::from_utf8_lossy(&text).into_owned()
    };
    (0..12).map(|_| banner()).collect()
}

fn banners_of(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_shared_port_stays_open_for_the_others_when_the_member_leaves_that_has_opened_it() {
    let services = ["one", "two", "six"].map(service::banner);
    let port = free_port();
    let mut server = server_with_port(port, "-apiAddr 127.0.0.1:0");
    let (addr, api) = (server.addr(), server.api_addr());
    let mut opener = port_member("id1", addr, &services[0], port, "");
    let second = port_member("id2", addr, &services[1], port, "");
    // The limit of one port holds for each id, and a shared port counts once.
    let _third = port_member("id2", addr, &services[2], port, "");
    assert_eq!(banners(port), banners_of(&["one", "two", "six"]));
    let listed = get(api, "localhost", "/clients").text();
    let group = format!("\"name\": \"port {port}\"");
    assert_eq!(listed.matches(&group).count(), 2, "{listed}");
    assert_eq!(
        listed.matches(&format!("\"ports\": [{port}]")).count(),
        2,
        "{listed}"
    );
    // Nobody is refused meanwhile, and who is at a member that is killed sees the end.
    let crowd = Crowd::start(move || {
        let mut visitor = connect(([127, 0, 0, 1], port).into());
        let _ = visitor.read(&mut [0; 3]);
    });
    assert_eq!(opener.stop(), Some(0));
    server.wait_for_closed_of("id1", 1);
    assert_eq!(banners(port), banners_of(&["two", "six"]));
    second.signal("KILL");
    server.wait_for_closed_of("id2", 1);
    crowd.more();
    crowd.end();
    assert_eq!(banners(port), banners_of(&["six"]));
    let _back = port_member("id1", addr, &services[0], port, "");
    assert_eq!(banners(port), banners_of(&["one", "six"]));
}

#[test]
fn a_shared_port_is_in_use_for_others_and_reserved_for_the_group_after_its_last_member() {
    let (one, two) = (service::banner("one"), service::banner("two"));
    let port = free_port();
    let mut server = server_with_port(port, "");
    let addr = server.addr();
    let mut first = port_member("id1", addr, &one, port, "");
    let refused = |id: &str, group: &str| {
        let line = format!(
            "-local tcp://{} -remoteTCPPort {port} {group} -reconnectDelay 1h",
            two.addr
        );
        let why = start(id, addr, &line).wait_for_failure();
        assert!(why.contains("failed to open the port"), "{group}: {why}");
    };
    let others = [
        "-serviceGroup g -groupKey k2",
        "-serviceGroup h -groupKey k1",
        "",
    ];
    for group in others {
        refused("id2", group);
    }
    for why in [
        "the serviceGroup of this name that has it has another groupKey (serviceGroup \"g\")",
        "clients of another serviceGroup share it (serviceGroup \"h\")",
    ] {
        server.wait_for(&format!("TCP port {port} for service 0 id=id2: {why}"));
    }
    assert_eq!(first.stop(), Some(0));
    server.wait_for_closed_of("id1", 1);
    for group in others {
        refused("id2", group);
    }
    let _second = port_member("id2", addr, &two, port, "");
    let _first = port_member("id1", addr, &one, port, "");
    assert_eq!(banners(port), banners_of(&["one", "two"]));
}

#[test]
fn a_restart_of_the_server_never_closes_a_shared_port() {
    let (one, two) = (service::banner("one"), service::banner("two"));
    let port = free_port();
    let mut server = server_with_port(port, "");
    let addr = server.addr();
    let mut clients = [
        port_member("id1", addr, &one, port, ""),
        port_member("id2", addr, &two, port, ""),
    ];
    let crowd = Crowd::start(move || {
        let mut visitor = connect(([127, 0, 0, 1], port).into());
        visitor.read_exact(&mut [0; 3]).expect("a banner");
    });
    let _new = server.restart();
    crowd.more();
    for client in &mut clients {
        assert_eq!(client.wait_for_port(1), port);
    }
    crowd.more();
    crowd.end();
    eventually("both members", || {
        (banners(port) == banners_of(&["one", "two"])).then_some(())
    });
}

#[test]
fn a_reload_leaves_a_shared_port_to_the_other_members() {
    let (one, two) = (service::banner("one"), service::banner("two"));
    let port = free_port();
    let mut server = server_of_three("-tcpNumber 1 -tcpRange 1024-65535");
    let addr = server.addr();
    let service = format!(
        "local: \"tcp://{}\", serviceGroup: g, groupKey: k1",
        one.addr
    );
    let shared = format!(", remoteTCPPort: {port}");
    let mut filed = Filed::client(addr, service, &shared);
    filed.gt.wait_for_opened_port(port);
    let _other = port_member("id2", addr, &two, port, "");
    assert_eq!(banners(port), banners_of(&["one", "two"]));
    let another = free_port();
    filed.reload(&format!(", remoteTCPPort: {another}"));
    filed.gt.wait_for_opened_port(another);
    assert_eq!(banners(port), banners_of(&["two"]));
    assert_eq!(banners(another), banners_of(&["one"]));
    filed.reload(&shared);
    filed.gt.wait_for_port(2);
    assert_eq!(banners(port), banners_of(&["one", "two"]));
}

#[test]
fn a_group_shares_no_port_that_the_server_would_choose() {
    let mut server = server_of_id1("-tcpNumber 1 -tcpRange 1024-65535");
    let addr = server.addr();
    // Its id, and any port for the group g with the key k.
    let services = [0x02, 0x00, 0x09, 1, b'g', 1, b'k', 0, 0x01, 1, 0, 0];
    let hello = gt2::hello("id1", "secret1", &services, 32768);
    let mut peer = Peer::client(addr, &hello);
    peer.expect(gt2::Frame::PortUnavailable(1, 2));
    peer.expect(gt2::Frame::Ready);
    // An option of a group in front of another one is malformed.
    let nested = [0x09, 1, b'g', 1, b'k', 0, 0x09, 1, b'g', 1, b'k', 0, 0x00];
    let mut peer = Peer::client(addr, &gt2::hello("id1", "secret1", &nested, 32768));
    peer.expect_end();
}

/// A service that answers each datagram with its name.
fn datagram_service(name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let addr = socket.local_addr().expect("its address");
    // It ends with the test's process.
    std::thread::spawn(move || {
        let mut bytes = [0; 100];
        while let Ok((_, from)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(name.as_bytes(), from);
        }
    });
    addr
}

#[test]
fn a_udp_port_is_shared_by_flows() {
    let port = free_port();
    let mut server = server_of_three(&format!("-udpNumber 1 -udpRange {port}"));
    let addr = server.addr();
    let mut members = ["one", "two"].map(|name| {
        let local = datagram_service(name);
        let mut client = start(
            "id1",
            addr,
            &format!("-local udp://{local} -remoteUDPPort {port} {GROUP}"),
        );
        client.wait_for(&format!("udp port {port} opened"));
        client
    });
    let answers = || -> BTreeSet<String> {
        let answer = || {
            let visitor = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            let patience = Some(std::time::Duration::from_millis(200));
            visitor.set_read_timeout(patience).expect("a timeout");
            eventually("an answer", || {
                let mut bytes = [0; 100];
                visitor.send_to(b"?", ("127.0.0.1", port)).expect("send");
                let length = visitor.recv(&mut bytes).ok()?;
                Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
            })
        };
        (0..8).map(|_| answer()).collect()
    };
    assert_eq!(answers(), banners_of(&["one", "two"]));
    assert_eq!(members[0].stop(), Some(0));
    server.wait_for_closed_of("id1", 1);
    assert_eq!(answers(), banners_of(&["two"]));
}
