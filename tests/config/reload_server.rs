//! SIGHUP on a server: users and limits change, and what need not change is not touched.

use crate::common;
use crate::common::gt::{client_of_id1, server, Gt};
use crate::common::peer::gt1::{closed, data, hello, Frame, Peer};
use crate::common::peer::{port_option, prefix_option, ID_ALONE};
use crate::common::ports::free_port;
use crate::common::process::run;
use crate::common::scratch::Scratch;
use crate::common::service::{self, assert_echo};
use crate::common::visitor::{connect, get, read_answer, read_to_end};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;

/// A server with a file.
struct Filed {
    scratch: Scratch,
    server: Gt,
    addr: SocketAddr,
}

impl Filed {
    fn new(text: &str) -> Filed {
        let scratch = Scratch::new();
        let file = write(&scratch, text);
        let mut server = server(&format!("-config {}", file.display()));
        let addr = server.addr();
        Filed {
            scratch,
            server,
            addr,
        }
    }

    fn reload(&mut self, text: &str) {
        write(&self.scratch, text);
        self.server.reload();
    }
}

fn write(scratch: &Scratch, text: &str) -> PathBuf {
    scratch.file(
        "server.yaml",
        if text.contains("addr: 127") {
            text.to_owned()
        } else {
            format!("{text}\noptions:\n  addr: 127.0.0.1:0\n")
        },
    )
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

#[test]
fn users_are_added_and_removed_without_affecting_others() {
    let port = free_port();
    let users = |users: &str| {
        format!(
            "tcp:\n  - range: {port}\n    number: 1\nusers:\n  id1: {{secret: secret1}}\n{users}"
        )
    };
    let mut filed = Filed::new(&users(
        "  id2: {secret: secret2}\n  id3: {secret: secret3}\n",
    ));
    let addr = filed.addr;
    let echo = service::echo();
    let client = client_of_id1(
        addr,
        &format!("-local tcp://{} -remoteTCPPort {port}", echo.addr),
    );
    let mut visitor = connect(local(port));
    assert_echo(&mut visitor, b"before");
    let mut removed = Peer::ready_client(addr, &hello("id2", "secret2", &ID_ALONE));
    let mut changed = Peer::ready_client(addr, &hello("id3", "secret3", &ID_ALONE));
    let mut theirs = connect(addr);
    theirs
        .write_all(b"GET / HTTP/1.1\r\nHost: id2.a\r\n\r\n")
        .expect("a request");
    removed.opened();
    // The connection has not identified itself yet.
    let waiting = connect(addr);

    filed.reload(&users("  id3: {secret: other}\n  id4: {secret: secret4}\n"));
    removed.expect(Frame::Error(1));
    removed.expect_end();
    let answer = read_answer(&mut theirs);
    assert_eq!(answer.status, 502, "{}", answer.head);
    changed.expect(Frame::Error(1));
    changed.expect_end();
    Peer::client(addr, &hello("id2", "secret2", &ID_ALONE)).expect(Frame::Error(1));
    Peer::ready_client(addr, &hello("id3", "other", &ID_ALONE)).sync();
    let mut new = Peer::ready_client(addr, &hello("id4", "secret4", &ID_ALONE));
    let request = b"GET / HTTP/1.1\r\nHost: id4.a\r\n\r\n";
    (&waiting).write_all(request).expect("a request");
    assert_eq!(new.opened().2, request);

    assert_echo(&mut visitor, b"after");
    assert_eq!(client.tunnels(), 1);
    assert_eq!(
        filed.server.listeners("addr"),
        1,
        "the listener is the same"
    );
}

#[test]
fn a_bad_file_changes_nothing() {
    let good = "users:\n  id1: {secret: secret1}\n";
    let mut filed = Filed::new(good);
    let mut peer = Peer::ready_client(filed.addr, &hello("id1", "secret1", &ID_ALONE));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().unwrap();
    let fine = format!("{good}options:\n  addr: 127.0.0.1:0\n");
    let twice = format!("{fine}  apiAddr: {taken}\n");
    let no_files = format!("{fine}  tlsAddr: 127.0.0.1:0\n  certFile: /none\n  keyFile: /none\n");
    for (text, why) in [
        ("users:\n  id1: {secrt: x}\n", "id1"),
        ("options: [", "server.yaml"),
        (twice.as_str(), "apiAddr"),
        (no_files.as_str(), "/none"),
    ] {
        write(&filed.scratch, text);
        let before = filed.server.errors().len();
        let line = filed.server.reload_in_vain();
        assert!(line.contains(why), "{line}");
        assert_eq!(filed.server.errors().len(), before + 1);
        peer.sync();
        assert_eq!(get(filed.addr, "nobody.a", "/").status, 404);
    }
    assert_eq!(filed.server.listeners(""), 1);
    // The old users are still admitted.
    Peer::ready_client(filed.addr, &hello("id1", "secret1", &ID_ALONE)).sync();
    filed.reload(good);
    peer.sync();
}

#[test]
fn listeners_move_and_connections_stay() {
    let mut filed = Filed::new("users:\n  id1: {secret: secret1}\n");
    let mut peer = Peer::ready_client(filed.addr, &hello("id1", "secret1", &ID_ALONE));
    let (port, api) = (free_port(), free_port());
    filed.reload(&format!(
        "users:\n  id1: {{secret: secret1}}\noptions:\n  addr: 127.0.0.1:{port}\n  apiAddr: 127.0.0.1:{api}\n"
    ));
    peer.sync();
    common::eventually("the old listener to be closed", || {
        TcpStream::connect(filed.addr).is_err().then_some(())
    });
    // Visitors of the new listener reach the tunnel that came by the old one.
    let mut visitor = connect(local(port));
    visitor
        .write_all(b"GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n")
        .expect("a request");
    peer.opened();
    assert_eq!(get(local(api), "localhost", "/status").status, 200);

    // The two listeners swap addresses and keep their sockets.
    filed.reload(&format!(
        "users:\n  id1: {{secret: secret1}}\noptions:\n  addr: 127.0.0.1:{api}\n  apiAddr: 127.0.0.1:{port}\n"
    ));
    common::eventually("the API at its new place", || {
        (get(local(port), "localhost", "/status").status == 200).then_some(())
    });
    assert_eq!(get(local(api), "nobody.a", "/status").status, 404);
}

#[test]
fn new_limits_apply_to_connected_clients() {
    let (one, other) = (free_port(), free_port());
    let config = |port: u16, regex: &str, connections: u32| {
        format!(
            "users:\n  id1: {{secret: secret1}}\n  id2: {{secret: secret2}}\ntcp:\n  - number: 1\n    range: {port}\n\
             host: {{regex: '{regex}', number: 2}}\noptions:\n  addr: 127.0.0.1:0\n  connections: {connections}\n"
        )
    };
    let mut filed = Filed::new(&config(one, "^a", 2));
    let addr = filed.addr;
    let ports = hello("id1", "secret1", &port_option(false, one));
    let mut ports_client = Peer::ready_client(addr, &ports);
    let hosts = hello("id2", "secret2", &prefix_option("abc"));
    let mut first = Peer::ready_client(addr, &hosts);
    let mut second = Peer::ready_client(addr, &hosts);
    let mut visitor = connect(local(one));
    visitor.write_all(b"hello").expect("the port is open");
    let (stream, ..) = ports_client.opened();
    ports_client.gather(stream, 5);

    // One tunnel more than allowed: the newer one drains.
    filed.reload(&config(one, "^a", 1));
    second.expect(Frame::Close);
    first.sync();
    ports_client.sync();

    filed.reload(&config(other, "^x", 1));
    // Visitors that are connected finish; new ones find neither port nor prefix.
    ports_client.expect(Frame::Close);
    first.expect(Frame::Close);
    ports_client.send(&data(stream, b"bye"));
    ports_client.send(&closed(stream));
    assert_eq!(read_to_end(&mut visitor), b"bye");
    Peer::client(addr, &ports).expect(Frame::PortError(0));
    Peer::client(addr, &hosts).expect(Frame::Error(6));
    let elsewhere = hello("id1", "secret1", &port_option(false, other));
    Peer::client(addr, &elsewhere).expect(Frame::PortOpened(0, other));
    std::net::TcpListener::bind(("0.0.0.0", one)).expect("the old port is closed");
}

#[test]
fn a_reload_that_removes_all_users_is_refused() {
    let scratch = Scratch::new();
    let users = |text: &str| scratch.file("users.yaml", text);
    let file = users("id1: {secret: secret1}\n");
    let mut filed = Filed::new(&format!(
        "options:\n  addr: 127.0.0.1:0\n  reconnectTimes: 0\n  users: {}\n",
        file.display()
    ));
    let mut first = Peer::ready_client(filed.addr, &hello("id1", "secret1", &ID_ALONE));
    for empty in ["", "{}\n", "~\n", "# id1: {secret: secret1}\n"] {
        users(empty);
        filed.server.reload_in_vain();
        first.sync();
        Peer::client(filed.addr, &hello("id2", "secret2", &ID_ALONE)).expect(Frame::Error(1));
        Peer::ready_client(filed.addr, &hello("id1", "secret1", &ID_ALONE)).sync();
    }
    // A configuration without users would admit everyone.
    write(&filed.scratch, "options:\n  addr: 127.0.0.1:0\n");
    let line = filed.server.reload_in_vain();
    let why = "is the users file empty or half-written?";
    assert!(line.contains(why), "{line}");
    first.sync();
    filed.reload("options:\n  addr: 127.0.0.1:0\n  allowAnyClient: true\n");
    Peer::ready_client(filed.addr, &hello("id2", "secret2", &ID_ALONE)).sync();
}

#[test]
fn visitors_and_tunnels_are_served_while_files_are_read() {
    let scratch = Scratch::new();
    let pipe = scratch.join("server.yaml");
    let made = run(Command::new("mkfifo").arg(&pipe));
    assert!(made.status.success(), "{made:?}");
    let text = |timeout: u32| {
        format!(
            "type: server\nusers:\n  id1: {{secret: secret1}}\n\
             options: {{addr: 127.0.0.1:0, timeout: {timeout}s}}\n"
        )
    };
    let mut server = Gt::start("gt", &[], &format!("-config {}", pipe.display()));
    std::fs::write(&pipe, text(60)).expect("write into the pipe");
    let addr = server.addr();
    let mut peer = Peer::ready_client(addr, &hello("id1", "secret1", &ID_ALONE));
    // Opens the pipe once gt reads it. Until something is written, it behaves like a hanging disk.
    let open = || {
        let flags = rustix::fs::OFlags::NONBLOCK.bits();
        let mut options = std::fs::OpenOptions::new();
        options.write(true).custom_flags(flags.cast_signed());
        common::eventually("the file to be read", || options.open(&pipe).ok())
    };
    server.signal("HUP");
    let mut writer = open();
    peer.sync();
    assert_eq!(get(addr, "nobody.a", "/").status, 404);
    Peer::ready_client(addr, &hello("id1", "secret1", &ID_ALONE)).sync();
    writer
        .write_all(text(61).as_bytes())
        .expect("write into the pipe");
    drop(writer);
    server.wait_for_reloaded(1);
    peer.sync();
    // A hanging reload does not keep the process from ending either.
    server.signal("HUP");
    let _writer = open();
    server.signal("TERM");
    assert_eq!(server.exit().code(), Some(0));
}

#[test]
fn an_empty_users_file_admits_no_client() {
    let scratch = Scratch::new();
    let users = scratch.file("users.yaml", "# nobody yet\n");
    let mut filed = Filed::new(&format!(
        "options:\n  addr: 127.0.0.1:0\n  users: {}\n",
        users.display()
    ));
    filed.server.wait_for("no client can connect");
    Peer::client(filed.addr, &hello("id1", "secret1", &ID_ALONE)).expect(Frame::Error(1));
    // The rest of such a configuration can still be reloaded.
    filed.server.reload();
    scratch.file("users.yaml", "id1: {secret: secret1}\n");
    filed.server.reload();
    Peer::ready_client(filed.addr, &hello("id1", "secret1", &ID_ALONE)).sync();
}

#[test]
fn an_id_keeps_its_secret_where_any_client_is_allowed() {
    let any = |more: &str| format!("options:\n  addr: 127.0.0.1:0\n  allowAnyClient: true\n{more}");
    let mut filed = Filed::new(&any(""));
    let mut first = Peer::ready_client(filed.addr, &hello("id1", "first", &ID_ALONE));
    filed.reload(&any("  timeout: 30s\n"));
    first.sync();
    Peer::client(filed.addr, &hello("id1", "second", &ID_ALONE)).expect(Frame::Error(1));
    // A configured user of that name takes precedence.
    filed.reload("users:\n  id1: {secret: second}\n");
    first.expect(Frame::Error(1));
    Peer::ready_client(filed.addr, &hello("id1", "second", &ID_ALONE)).sync();
}
