//! A client that reaches its server through a proxy. The proxies are written by hand; tests/real has real
//! ones.

use crate::common::api::{self, answer};
use crate::common::certs;
use crate::common::forwarder::carry;
use crate::common::gt::{client, server_of_id1, tls_tunnel, Gt};
use crate::common::service::{self, Service};
use crate::common::socks;
use crate::common::visitor::{connect, get};
use std::io::{BufRead, BufReader, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{channel, Receiver};
use std::sync::Mutex;

/// `user:hush` in Base64.
const BASIC: &str = "Proxy-Authorization: Basic dXNlcjpodXNo";

/// Reads a head up to its empty line.
fn read_head(stream: &TcpStream) -> Result<String> {
    let mut head = String::new();
    // One byte at a time: what follows is not the proxy's.
    let mut lines = BufReader::with_capacity(1, stream);
    while !head.ends_with("\r\n\r\n") {
        if lines.read_line(&mut head)? == 0 {
            break;
        }
    }
    Ok(head)
}

/// A proxy that connects everything to `to`, or to what `also` names, and passes on the heads of requests.
fn connecting(to: SocketAddr, also: &[(&'static str, SocketAddr)]) -> (Service, Receiver<String>) {
    let (tell, heads) = channel();
    let (tell, also) = (Mutex::new(tell), also.to_vec());
    let service = Service::start(0, move |mut stream| {
        let head = read_head(&stream)?;
        let named = also.iter().find(|(name, _)| head.contains(name));
        let server = connect(named.map_or(to, |(_, addr)| *addr));
        let _ = tell.lock().unwrap().send(head);
        stream.write_all(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 Connection established\r\n\r\n",
        )?;
        carry(stream, server)
    });
    (service, heads)
}

/// Starts a client whose server only a proxy knows.
fn client_through(proxy: &str, more: &str) -> Gt {
    client(&format!(
        "-remoteProxy {proxy} -id id1 -secret secret1 -reconnectDelay 100ms -logLevel debug {more}"
    ))
}

#[test]
fn a_proxy_gets_the_name_of_the_server_and_a_login() {
    let mut server = server_of_id1("");
    let addr = server.addr();
    let web = service::http(0, "web");
    let (proxy, heads) = connecting(addr, &[]);
    let more = format!("-remote tcp://gt.invalid:8080 -local http://{}", web.addr);
    let mut client = client_through(&format!("http://user:hush@{}", proxy.addr), &more);
    client.wait_for_tunnel();
    assert_eq!(
        heads.recv().unwrap(),
        format!("CONNECT gt.invalid:8080 HTTP/1.1\r\nHost: gt.invalid:8080\r\n{BASIC}\r\n\r\n")
    );
    assert_eq!(get(addr, "id1.a", "/").status, 200);
    client.stop();
    assert!(!client.log().contains("hush"), "{}", client.log());
}

#[test]
fn a_tunnel_over_tls_goes_through_a_proxy() {
    let (certs, web) = (certs::make(), service::http(0, "web"));
    let (_server, _direct, addr) = tls_tunnel(&certs, web.addr, "-connections 2", "");
    let (proxy, heads) = connecting(addr, &[]);
    let more = format!(
        "-remote tls://id1.example.com -remoteCert {} -local http://{}",
        certs.ca.display(),
        web.addr
    );
    let mut client = client_through(&format!("http://{}", proxy.addr), &more);
    client.wait_for_tunnel();
    let head = heads.recv().unwrap();
    assert!(head.starts_with("CONNECT id1.example.com:443 "), "{head}");
    assert!(!head.contains("Proxy-Authorization"), "{head}");
}

#[test]
fn the_remote_api_is_reached_through_the_proxy() {
    let mut server = server_of_id1("");
    let addr = server.addr();
    let json = serde_json::json!({"serverAddress": "tcp://gt.invalid:8080"});
    let api = api::start(0, move |_| answer(200, &json.to_string()));
    let (proxy, heads) = connecting(addr, &[("api.invalid", api.addr)]);
    let more = "-remoteAPI http://api.invalid/where -local http://127.0.0.1:1";
    let mut client = client_through(&format!("http://{}", proxy.addr), more);
    client.wait_for_tunnel();
    let asked = [heads.recv().unwrap(), heads.recv().unwrap()];
    assert!(asked[0].starts_with("CONNECT api.invalid:80 "), "{asked:?}");
    assert!(
        asked[1].starts_with("CONNECT gt.invalid:8080 "),
        "{asked:?}"
    );
}

#[test]
fn socks5_gets_the_name_of_the_server_and_a_login() {
    let mut server = server_of_id1("");
    let addr = server.addr();
    let (tell, asked) = channel();
    let tell = Mutex::new(tell);
    let proxy = Service::start(0, move |mut stream| {
        let mut come = Vec::new();
        for (length, say) in [(4, &b"\x05\x02"[..]), (11, b"\x01\x00")] {
            let mut bytes = vec![0; length];
            stream.read_exact(&mut bytes)?;
            come.extend(bytes);
            stream.write_all(say)?;
        }
        let mut bytes = vec![0; 5 + 10 + 2];
        stream.read_exact(&mut bytes)?;
        come.extend(bytes);
        // In two pieces, and with a name, which no one asks for.
        stream.write_all(b"\x05\x00\x00\x03\x04")?;
        stream.write_all(b"here\x00\x50")?;
        let _ = tell.lock().unwrap().send(come);
        carry(stream, connect(addr))
    });
    let more = "-remote tcp://gt.invalid:8080 -local http://127.0.0.1:1";
    let mut client = client_through(&format!("socks5://user:hush@{}", proxy.addr), more);
    client.wait_for_tunnel();
    let expected = [
        socks::NAMED,
        &socks::login("user", "hush"),
        &socks::request(1, "gt.invalid", 8080),
    ];
    assert_eq!(asked.recv().unwrap(), expected.concat());
    client.stop();
    assert!(!client.log().contains("hush"), "{}", client.log());
}

#[test]
fn what_a_proxy_answers_instead_is_an_error_with_advice_and_without_the_password() {
    let http =
        |status: &str, rest: &str| format!("HTTP/1.1 {status}\r\n{rest}\r\n<p>").into_bytes();
    let endless = [&b"HTTP/1.1 200 OK\r\nX: "[..], &b"x".repeat(9000)].concat();
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(500);
    let login = "user:hush@";
    for (scheme, login, says, why) in [
        (
            "http",
            "",
            http("407 Login", "Proxy-Authenticate: Basic\r\n"),
            "it asks for a name and a password; write remoteProxy like",
        ),
        (
            "http",
            login,
            http("407 Login", ""),
            "it does not accept the name and the password in remoteProxy",
        ),
        (
            "http",
            login,
            http("403 No", ""),
            "many proxies allow port 443 only (status 403)",
        ),
        (
            "http",
            login,
            http("502 Bad Gateway", ""),
            "it cannot reach the server (status 502)",
        ),
        (
            "http",
            login,
            http("302 Found", "Location: http://portal/\r\n"),
            "it does not open a connection (status 302)",
        ),
        (
            "http",
            login,
            http("200 OK", ""),
            "it sends more than an answer",
        ),
        (
            "http",
            login,
            b"<html>Welcome</html>".to_vec(),
            "it does not speak HTTP",
        ),
        (
            "http",
            login,
            b"\x05\xFF".to_vec(),
            "it does not speak HTTP",
        ),
        ("http", login, endless, "its answer is too long"),
        (
            "http",
            login,
            interim,
            "it does not open a connection (status 100)",
        ),
        (
            "http",
            login,
            b"HTTP/1.1 200".to_vec(),
            "it closes the connection without an answer",
        ),
        (
            "http",
            login,
            Vec::new(),
            "it closes the connection without an answer",
        ),
        (
            "socks5",
            "",
            b"\x05\xFF".to_vec(),
            "it asks for a name and a password; write remoteProxy like",
        ),
        (
            "socks5",
            login,
            b"\x05\xFF".to_vec(),
            "it accepts no password; remove it from remoteProxy",
        ),
        (
            "socks5",
            login,
            b"\x05\x02\x01\x01".to_vec(),
            "it does not accept the name and the password in remoteProxy",
        ),
        (
            "socks5",
            login,
            b"\x05\x00\x05\x02\x00\x01".to_vec(),
            "it does not allow a connection to this server and port",
        ),
        (
            "socks5",
            login,
            b"\x05\x00\x05\x04".to_vec(),
            "does not know its name (SOCKS5 reply 4)",
        ),
        (
            "socks5",
            login,
            b"\x05\x00\x05\x63".to_vec(),
            "it has failed (SOCKS5 reply 99)",
        ),
        (
            "socks5",
            login,
            b"\x05\x00\x05\x00\x00\x09\x00".to_vec(),
            "it does not speak SOCKS5",
        ),
        (
            "socks5",
            login,
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            "it does not speak SOCKS5",
        ),
        (
            "socks5",
            login,
            b"\x05".to_vec(),
            "it closes the connection without an answer",
        ),
    ] {
        let shown = String::from_utf8_lossy(&says[..says.len().min(40)]).into_owned();
        let proxy = Service::start(0, move |mut stream| {
            stream.write_all(&says)?;
            stream.shutdown(std::net::Shutdown::Write)?;
            // Lets the client read what was said before a reset.
            std::io::copy(&mut stream, &mut std::io::sink())?;
            Ok(())
        });
        let more = "-remote tcp://gt.invalid:8080 -local http://127.0.0.1:1";
        let mut client = client_through(&format!("{scheme}://{login}{}", proxy.addr), more);
        let line = client.wait_for_failure();
        let whom = format!(
            "cannot reach the server: the proxy {scheme}://{}: ",
            proxy.addr
        );
        assert!(
            line.contains(&whom) && line.contains(why),
            "{shown}: {line}"
        );
        client.stop();
        assert!(!client.log().contains("hush"), "{}", client.log());
    }
}

#[test]
fn a_silent_proxy_is_given_up() {
    let proxy = service::silent();
    let more = "-remote tcp://gt.invalid:8080 -remoteTimeout 1s -local http://127.0.0.1:1";
    for scheme in ["http", "socks5"] {
        let mut client = client_through(&format!("{scheme}://{}", proxy.addr), more);
        let line = client.wait_for_failure();
        assert!(line.contains("it does not answer within 1s"), "{line}");
    }
}
