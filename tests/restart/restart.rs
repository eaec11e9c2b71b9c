//! SIGQUIT replaces the process by a new one, and no client or visitor notices.

use crate::common;
use crate::common::crowd::Crowd;
use crate::common::eventually;
use crate::common::gt::{client, client_of_id1, server, server_of_id1, tcp_tunnel, Gt, GT};
use crate::common::peer::gt1::{hello, Frame, Peer};
use crate::common::peer::{port_option, prefix_option, ID_ALONE};
use crate::common::ports::free_port;
use crate::common::process::run_ok;
use crate::common::program::{install_gt, install_script};
use crate::common::scratch::Scratch;
use crate::common::service::{self, assert_echo};
use crate::common::visitor::{connect, get, read_to_end};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::Command;

fn visits(addr: SocketAddr, host: &'static str, right: &'static str) -> impl Fn() + Send + Sync {
    move || assert_eq!(get(addr, host, "/").text(), right)
}

#[test]
fn a_server_restarts_and_no_visitor_notices() {
    let (one, echo) = (service::http(0, "one"), service::echo());
    let mut server = server_of_id1("-tcpNumber 1 -tcpRange 20000-60000");
    let addr = server.addr();
    let mut client = client_of_id1(
        addr,
        &format!(
            "-local http://{} -hostPrefix one -local tcp://{} -remoteTCPRandom",
            one.addr, echo.addr
        ),
    );
    let port = client.wait_for_port(0);
    let mut visitor = connect(([127, 0, 0, 1], port).into());
    assert_echo(&mut visitor, b"before");
    let crowd = Crowd::start(visits(addr, "one.a", "one / one.a"));

    let new = server.restart();
    crowd.more();
    // The client has reconnected and has its previous port, which was never closed.
    client.wait_for_reconnect_request();
    assert_eq!(client.wait_for_port(1), port);
    assert_echo(&mut connect(([127, 0, 0, 1], port).into()), b"new");
    assert_echo(&mut visitor, b"still by the old way");
    assert!(server.has_ended().is_none(), "it waits for what runs");

    drop(visitor);
    assert_eq!(server.exit().code(), Some(0));
    crowd.more();

    // The new process can restart, too.
    let newer = server.restart_again(&new);
    crowd.more();
    new.wait_for_end();
    crowd.end();
    newer.signal("TERM");
    newer.wait_for_end();
    client.wait_for_closed(1);
}

#[test]
fn prefixes_and_ports_stay_reserved_across_a_restart() {
    let port = free_port();
    let mut server = server_of_id1(&format!(
        "-id id2 -secret secret2 -hostNumber 2 -tcpNumber 1 -tcpRange {port}"
    ));
    let addr = server.addr();
    let services = [
        &[0x02][..],
        &prefix_option("web"),
        &port_option(false, port),
    ]
    .concat();
    let first = hello("id1", "secret1", &services);
    let _before = Peer::ready_client(addr, &first);
    // This client's tunnel is lost before the restart.
    let away = hello("id2", "secret2", &prefix_option("away"));
    Peer::ready_client(addr, &away).shutdown();
    server.wait_for_closed_of("id2", 1);

    let _new = server.restart();
    let refused = |id: &str, secret: &str, services: &[u8], with: Frame| {
        let mut peer = Peer::client(addr, &hello(id, secret, services));
        peer.expect(with);
        peer.expect_end();
    };
    refused("id2", "secret2", &prefix_option("web"), Frame::Error(5));
    refused(
        "id2",
        "secret2",
        &port_option(false, port),
        Frame::PortError(0),
    );
    refused("id2", "secret2", &port_option(true, 0), Frame::PortError(0));
    refused("id1", "secret1", &prefix_option("away"), Frame::Error(5));

    let mut back = Peer::client(addr, &first);
    back.expect(Frame::PortOpened(1, port));
    back.expect(Frame::Ready);
    Peer::ready_client(addr, &away);
}

#[test]
fn a_client_restarts_and_no_visitor_notices() {
    let (one, echo) = (service::http(0, "one"), service::echo());
    let port = common::ports::free_port();
    // Any client is admitted, but only with its first secret, which is generated here.
    let mut server = server(&format!("-addr 127.0.0.1:0 -tcpNumber 1 -tcpRange {port}"));
    let addr = server.addr();
    let mut client = client(&format!(
        "-remote tcp://{addr} -id id1 -local http://{} -local tcp://{} -remoteTCPPort {port}",
        one.addr, echo.addr
    ));
    client.wait_for_tunnel();
    let mut visitor = connect(([127, 0, 0, 1], port).into());
    assert_echo(&mut visitor, b"before");
    let crowd = Crowd::start(visits(addr, "id1.a", "one / id1.a"));

    let new = client.restart();
    crowd.more();
    server.wait_for_opened(2);
    assert_echo(&mut visitor, b"still by the old way");
    drop(visitor);
    assert_eq!(client.exit().code(), Some(0));
    crowd.more();
    crowd.end();
    assert_eq!(server.refusals(), [""; 0]);
    new.signal("TERM");
    new.wait_for_end();
}

#[test]
fn a_wake_reaches_the_new_process_and_the_old_one_ignores_it() {
    let echo = service::echo();
    let delay = "-reconnectDelay 10m -logLevel debug";
    let (mut server, mut client, port) = tcp_tunnel(echo.addr, "", delay);
    let addr = server.addr();
    let mut visitor = connect(port);
    assert_echo(&mut visitor, b"before");
    let new = client.restart();
    server.wait_for_opened(2);
    client.signal("USR1");
    assert_echo(&mut visitor, b"by the old one");
    assert!(client.has_ended().is_none());
    server.kill();
    let _server = crate::common::gt::server(&format!(
        "-addr {addr} -id id1 -secret secret1 -tcpNumber 1 -tcpRange {}",
        port.port()
    ));
    eventually("the new process to connect", || {
        new.signal("USR1");
        TcpStream::connect(port).ok()
    });
    assert_echo(&mut connect(port), b"by the new one");
}

#[test]
fn a_client_restarts_where_the_server_allows_one_tunnel() {
    let one = service::http(0, "one");
    let mut server = server_of_id1("-connections 1");
    let addr = server.addr();
    let local = format!("-remoteConnections 1 -local http://{}", one.addr);
    let mut client = client_of_id1(addr, &local);
    let crowd = Crowd::start(visits(addr, "id1.a", "one / id1.a"));
    let _new = client.restart();
    assert_eq!(client.exit().code(), Some(0));
    crowd.more();
    crowd.end();
    server.wait_for("reached the max connections");
}

#[test]
fn an_id_keeps_its_secret_across_a_restart() {
    let mut server = server("-addr 127.0.0.1:0 -allowAnyClient");
    let addr = server.addr();
    let mut first = Peer::ready_client(addr, &hello("id1", "first", &ID_ALONE));
    let _new = server.restart();
    // The owner has not reconnected yet, or has only just been moved.
    let mut thief = Peer::client(addr, &hello("id1", "second", &ID_ALONE));
    thief.expect(Frame::Error(1));
    thief.expect_end();
    let mut again = Peer::ready_client(addr, &hello("id1", "first", &ID_ALONE));
    again.sync();
    first.sync();
}

#[test]
fn everything_goes_on_if_the_new_program_does_not_work() {
    let one = service::http(0, "one");
    let scratch = Scratch::new();
    let write = |more: &str| {
        scratch.file(
            "server.yaml",
            format!(
                "type: server\noptions:\n  addr: 127.0.0.1:0\n  id: id1\n  secret: secret1\n{more}"
            ),
        )
    };
    let file = write("");
    let program = scratch.join("gt");
    install_gt(&program);
    let line = format!("-config {}", file.display());
    let mut server = Gt::of_program(&program, &line);
    let addr = server.addr();
    let client = client_of_id1(addr, &format!("-local http://{}", one.addr));

    let mut fails = |why: &str| {
        let line = server.restart_in_vain();
        assert!(line.contains(why), "{line}");
        assert_eq!(get(addr, "id1.a", "/").text(), "one / id1.a");
        assert_eq!(client.tunnels(), 1);
    };
    write("  speed: fast\n");
    fails("speed");
    write("  apiAddr: 256.0.0.1:80\n");
    fails("256.0.0.1");
    write("");
    // The installed program is replaced by one that does not work.
    let other = scratch.join("other");
    install_script(&other, "#!/bin/sh\nexit 3\n");
    std::fs::rename(&other, &program).expect("replace the program");
    fails("exit status: 3");
    std::fs::remove_file(&program).expect("remove the program");
    fails("gt: No such file");
    // It is replaced by one that works.
    install_gt(&program);
    let new = server.restart();
    assert_eq!(server.exit().code(), Some(0));
    assert_eq!(get(addr, "id1.a", "/").text(), "one / id1.a");
    new.signal("TERM");
    new.wait_for_end();
}

#[test]
fn an_old_process_can_be_stopped() {
    let echo = service::echo();
    let (mut server, mut client, port) = tcp_tunnel(echo.addr, "", "");
    let mut visitor = connect(port);
    assert_echo(&mut visitor, b"before");
    let _new = server.restart();
    client.wait_for_tunnels(2);
    // A log file may be rotated meanwhile; a second restart is ignored, and a wake.
    server.signal("HUP");
    server.signal("QUIT");
    server.signal("USR1");
    assert_echo(&mut visitor, b"still");
    assert_eq!(server.stop(), Some(0));
    assert_eq!(read_to_end(&mut visitor), b"");
    assert_echo(&mut connect(port), b"by the new one");
    assert_eq!(server.restarts(), 1);
}

#[test]
fn a_supervisor_is_notified_of_the_start_and_of_the_new_process() {
    let scratch = Scratch::new();
    let place = scratch.join("notify");
    let supervisor = UnixDatagram::bind(&place).expect("listen as a supervisor");
    supervisor
        .set_read_timeout(Some(common::PATIENCE))
        .expect("limit reads");
    let next = || {
        let mut bytes = [0; 512];
        let n = supervisor.recv(&mut bytes).expect("a word");
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    };
    let line = "-addr 127.0.0.1:0 -id id1 -secret secret1";
    let mut server = Gt::supervised(&place, line);
    assert_eq!(next(), "READY=1\n");
    let new = server.restart();
    assert_eq!(next(), "READY=1\n");
    assert_eq!(next(), format!("MAINPID={}\n", new.pid));
    assert_eq!(server.exit().code(), Some(0));
    new.signal("TERM");
    assert_eq!(next(), "STOPPING=1\n");
    new.wait_for_end();
}

#[test]
fn a_restart_that_removes_all_users_is_refused() {
    let scratch = Scratch::new();
    let users = scratch.file("users.yaml", "id1: {secret: secret1}\n");
    let mut server = server(&format!("-addr 127.0.0.1:0 -users {}", users.display()));
    let addr = server.addr();
    let mut peer = Peer::ready_client(addr, &hello("id1", "secret1", &ID_ALONE));
    scratch.file("users.yaml", "# id1: {secret: secret1}\n");
    server.signal("QUIT");
    server.wait_for("is the users file empty or half-written?");
    peer.sync();
    Peer::ready_client(addr, &hello("id1", "secret1", &ID_ALONE)).sync();
}

#[test]
fn the_first_process_of_a_container_logs_why_it_cannot_restart() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not tested: a namespace of processes takes root");
        return;
    }
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", GT, "server"]);
    let line = "-addr 127.0.0.1:0 -id id1 -secret secret1";
    let mut server = Gt::spawn("gt server", command, line);
    let addr = server.addr();
    let mut peer = Peer::ready_client(addr, &hello("id1", "secret1", &ID_ALONE));
    let inside = server.only_child();
    inside.signal("QUIT");
    server.wait_for(" ERR not restarted: this is process 1, ");
    inside.signal("HUP");
    server.wait_for_reloaded(1);
    peer.sync();
    inside.signal("TERM");
    assert_eq!(server.exit().code(), Some(0));
}

#[test]
fn a_signal_that_stops_the_first_process_while_it_starts_is_not_lost() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not tested: a namespace of processes takes root");
        return;
    }
    let scratch = Scratch::new();
    let file = scratch.join("gt.yaml");
    run_ok(Command::new("mkfifo").arg(&file));
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", GT, "server"]);
    let mut server = Gt::spawn("gt server", command, &format!("-config {}", file.display()));
    let inside = server.only_child();
    // It waits for its configuration.
    inside.wait_until_it_handles(15);
    inside.signal("TERM");
    let config = "type: server\noptions: {addr: '127.0.0.1:0', id: id1, secret: secret1}\n";
    std::fs::write(&file, config).expect("write the configuration");
    assert_eq!(server.exit().code(), Some(0));
}
