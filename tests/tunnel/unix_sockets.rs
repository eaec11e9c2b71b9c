//! Services at Unix sockets, `unix:///path`, `http+unix:///path` and `unix:@name`.

use crate::common::eventually;
use crate::common::gt::{client_of_id1, server_of_id1, Gt};
use crate::common::scratch::Scratch;
use crate::common::visitor::{ask, connect, read, read_to_end};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::path::Path;

/// Serves each connection on a thread, as long as the test runs.
fn serve(listener: UnixListener, handle: fn(UnixStream) -> std::io::Result<()>) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("accept");
            std::thread::spawn(move || handle(stream));
        }
    });
}

/// Answers with all bytes up to the end.
fn whole(mut stream: UnixStream) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    stream.write_all(&bytes)
}

fn tcp_port(local: &str, options: &str) -> (Gt, Gt, SocketAddr) {
    let mut server = server_of_id1("-tcpNumber 1 -tcpRange 1024-65535");
    let line = format!("-local {local} -remoteTCPRandom {options}");
    let mut client = client_of_id1(server.addr(), &line);
    let addr = SocketAddr::from(([127, 0, 0, 1], client.wait_for_port(0)));
    (server, client, addr)
}

fn assert_whole(addr: SocketAddr) {
    let mut visitor = connect(addr);
    let bytes = vec![7; 1 << 20];
    visitor.write_all(&bytes).expect("send");
    visitor.shutdown(Shutdown::Write).expect("end");
    assert!(read_to_end(&mut visitor) == bytes);
}

#[test]
fn a_tcp_service_may_be_at_a_path_or_an_abstract_name() {
    let scratch = Scratch::new();
    let path = scratch.join("app.sock");
    serve(UnixListener::bind(&path).expect("listen"), whole);
    let (_server, _client, addr) = tcp_port(&format!("unix://{}", path.display()), "");
    assert_whole(addr);
    let name = format!("gt-test-{}", std::process::id());
    let at = UnixAddr::from_abstract_name(&name).expect("a name");
    serve(UnixListener::bind_addr(&at).expect("listen"), whole);
    let (_server, _client, addr) = tcp_port(&format!("unix:@{name}"), "-proxyProtocol 1");
    let mut visitor = connect(addr);
    visitor.shutdown(Shutdown::Write).expect("end");
    let header = read_to_end(&mut visitor);
    assert!(header.starts_with(b"PROXY TCP4 127.0.0.1 127.0.0.1 "));
}

#[test]
fn an_http_service_at_a_socket_is_found_by_its_prefix() {
    let scratch = Scratch::new();
    let path = scratch.join("app.sock");
    let answer = |mut stream: UnixStream| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let length = head.len();
        write!(
            stream,
            "HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n"
        )?;
        stream.write_all(&head)
    };
    serve(UnixListener::bind(&path).expect("listen"), answer);
    let mut server = server_of_id1("");
    let addr = server.addr();
    let local = format!("-local http+unix://{} -useLocalAsHTTPHost", path.display());
    let _client = client_of_id1(addr, &local);
    let request = "GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n";
    let answer = eventually("the service", || {
        let answer = ask(addr, request);
        (answer.status == 200).then_some(answer)
    });
    assert!(
        answer.text().contains("\r\nHost: localhost\r\n"),
        "{}",
        answer.text()
    );
}

#[test]
fn a_socket_without_a_service_is_an_error_that_names_it_and_one_that_comes_later_is_found() {
    let scratch = Scratch::new();
    let path = scratch.join("app.sock");
    let (_server, mut client, addr) = tcp_port(&format!("unix://{}", path.display()), "");
    assert!(read_to_end(&mut connect(addr)).is_empty());
    let warning = client.wait_for_warning();
    let expected = format!("connecting to unix:{}: No such file", path.display());
    assert!(warning.contains(&expected), "{warning}");
    serve(UnixListener::bind(&path).expect("listen"), whole);
    assert_whole(addr);
}

#[test]
fn visitors_wait_while_a_socket_has_no_room_for_more() {
    let scratch = Scratch::new();
    let path = scratch.join("app.sock");
    let listener = full(&path);
    let (_server, _client, addr) = tcp_port(&format!("unix://{}", path.display()), "");
    let mut visitor = connect(addr);
    visitor.write_all(b"hello").expect("send");
    // The visitor's connection is in the queue once there is room.
    let greeted = std::thread::spawn(move || loop {
        let (mut stream, _) = listener.accept().expect("accept");
        let mut bytes = [0; 5];
        if stream.read_exact(&mut bytes).is_ok() {
            assert_eq!(bytes, *b"hello");
            return stream.write_all(b"welcome").expect("answer");
        }
    });
    assert_eq!(read(&mut visitor, 7), b"welcome");
    greeted.join().expect("a greeting");
}

/// Listens at a path with a queue that is full of connections that have ended.
fn full(path: &Path) -> UnixListener {
    use socket2::{Domain, SockAddr, Socket, Type};
    let addr = SockAddr::unix(path).expect("an address");
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    listener.bind(&addr).expect("bind");
    listener.listen(0).expect("listen");
    loop {
        let filler = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        filler.set_nonblocking(true).expect("a setting");
        if filler.connect(&addr).is_err() {
            return UnixListener::from(std::os::fd::OwnedFd::from(listener));
        }
    }
}
