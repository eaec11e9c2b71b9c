//! The examples of the user documentation, with its flags; only ports, paths and the address of the
//! public host are adapted.

use crate::common;
use crate::common::curl::{curl, https, url};
use crate::common::gt::{client, server, Gt};
use crate::common::ports::free_port;
use crate::common::scratch::Scratch;
use crate::common::service::{assert_echo_at, echo};
use crate::common::{certs, nginx, sshd};
use std::net::SocketAddr;

/// Returns what curl gets from `http://<name>:<port>/`.
fn page(name: &str, at: SocketAddr) -> String {
    page_at(name, at, "/")
}

fn page_at(name: &str, at: SocketAddr, path: &str) -> String {
    curl(&url("http", name, at, path)).text().to_owned()
}

/// Starts a client with these flags for its service and its server, and waits for its tunnel.
fn client_of(local: &str, remote: &str) -> Gt {
    let line = format!("-local {local} -remote {remote} -id id1 -secret secret1");
    let mut client = client(&line);
    client.wait_for_first_tunnel();
    client
}

/// Returns the key that a server logs, for `remoteKey`.
fn key_of(server: &mut Gt) -> String {
    let line = server.wait_for("the key of this server is SHA256:");
    let key = line
        .split_whitespace()
        .find(|word| word.starts_with("SHA256:"));
    key.expect("a fingerprint").to_owned()
}

#[test]
fn http_forwarding() {
    let nginx = nginx::start(None);
    let mut server = server("-addr 127.0.0.1:0 -id id1 -secret secret1");
    let addr = server.addr();
    let local = format!("http://{}", nginx.http);
    let _client = client_of(&local, &format!("tcp://{addr}"));
    assert_eq!(page("id1.example.com", addr), nginx::INDEX);
}

#[test]
fn https_decrypted_at_the_server() {
    let (certs, nginx) = (certs::make(), nginx::start(None));
    let mut server = server(&format!(
        "-addr \"\" -tlsAddr 127.0.0.1:0 {} -id id1 -secret secret1",
        certs.self_signed_flags()
    ));
    let addr = server.tls_addr();
    let local = format!("http://{}", nginx.http);
    let key = key_of(&mut server);
    let _client = client_of(&local, &format!("tls://{addr} -remoteKey {key}"));
    let reply = https("id1.example.com", addr, &certs.self_signed, "");
    assert_eq!(reply.text(), nginx::INDEX);
    assert_eq!(server.listeners("addr"), 0);
}

#[test]
fn https_untouched() {
    let certs = certs::make();
    let nginx = nginx::start(Some(&certs));
    let mut server = server("-addr \"\" -sniAddr 127.0.0.1:0 -id id1 -secret secret1");
    let addr = server.sni_addr();
    let local = format!("https://{}", nginx.https);
    let _client = client_of(&local, &format!("tcp://{addr}"));
    // The server has no certificate: curl checks nginx's.
    let reply = https("id1.example.com", addr, &certs.ca, "");
    assert_eq!(reply.text(), nginx::INDEX);
}

#[test]
fn tls_between_client_and_server() {
    let nginx = nginx::start(None);
    // A directory below that of the server.
    let mut server =
        server("-addr 127.0.0.1:0 -tlsAddr 127.0.0.1:0 -stateDir state -id id1 -secret secret1");
    let (addr, tls_addr) = (server.addr(), server.tls_addr());
    let local = format!("http://{}", nginx.http);
    let key = key_of(&mut server);
    let _client = client_of(&local, &format!("tls://{tls_addr} -remoteKey {key}"));
    assert_eq!(page("id1.example.com", addr), nginx::INDEX);
}

#[test]
fn tcp_forwarding() {
    let sshd = sshd::start();
    let mut server =
        server("-addr 127.0.0.1:0 -id id1 -secret secret1 -tcpNumber 1 -tcpRange 1024-65535");
    let (addr, asked) = (server.addr(), free_port());
    let mut client = client(&format!(
        "-local tcp://{} -remote tcp://{addr} -id id1 -secret secret1 \
         -remoteTCPPort {asked} -remoteTCPRandom",
        sshd.addr
    ));
    client.wait_for_opened_port(asked);
    client.wait_for_first_tunnel();
    assert_eq!(sshd.ssh(asked, "echo from behind"), "from behind\n");
}

#[test]
fn tcp_forwarding_uses_a_random_port_if_the_requested_one_is_in_use() {
    let echo = echo();
    let mut server =
        server("-addr 127.0.0.1:0 -id id1 -secret secret1 -tcpNumber 1 -tcpRange 1024-65535");
    let addr = server.addr();
    let mut client = client(&format!(
        "-local tcp://{0} -remote tcp://{addr} -id id1 -secret secret1 \
         -remoteTCPPort {1} -remoteTCPRandom",
        echo.addr,
        echo.addr.port()
    ));
    let port = client.wait_for_port(0);
    assert_ne!(port, echo.addr.port());
    client.wait_for_tunnel();
    assert_echo_at(([127, 0, 0, 1], port).into());
}

#[test]
fn several_services_of_one_client() {
    let (one, two) = (nginx::start(None), nginx::start(None));
    let (three, four) = (echo(), echo());
    let (port_three, port_four) = (free_port(), free_port());
    let mut server = server(
        "-addr 127.0.0.1:0 -id id1 -secret secret1 -tcpNumber 2 -tcpRange 1024-65535 \
         -hostNumber 2 -hostWithID -hostRegex ^[0-9]+$ -hostRegex ^[a-zA-Z]+$",
    );
    let addr = server.addr();
    let check = |client: &mut Gt| {
        for port in [port_three, port_four] {
            client.wait_for_opened_port(port);
        }
        client.wait_for_first_tunnel();
        // useLocalAsHTTPHost: each nginx gets its own address as host.
        let host = |name| page_at(name, addr, "/host");
        assert_eq!(host("id1-1.example.com"), one.http.to_string());
        assert_eq!(host("id1-2.example.com"), two.http.to_string());
        assert_eq!(page("id1-1.example.com", addr), nginx::INDEX);
        assert_echo_at(([127, 0, 0, 1], port_three).into());
        assert_echo_at(([127, 0, 0, 1], port_four).into());
    };

    let mut by_flags = client(&format!(
        "-remote tcp://{addr} -id id1 -secret secret1 \
         -local http://{} -useLocalAsHTTPHost -hostPrefix 1 \
         -local http://{} -useLocalAsHTTPHost -hostPrefix 2 \
         -local tcp://{} -remoteTCPPort {port_three} \
         -local tcp://{} -remoteTCPPort {port_four}",
        one.http, two.http, three.addr, four.addr
    ));
    check(&mut by_flags);
    assert_eq!(by_flags.stop(), Some(0));

    let scratch = Scratch::new();
    let file = scratch.file(
        "client.yaml",
        format!(
            "services:
  - local: http://{}
    useLocalAsHTTPHost: true
    hostPrefix: 1
  - local: http://{}
    useLocalAsHTTPHost: true
    hostPrefix: 2
  - local: tcp://{}
    remoteTCPPort: {port_three}
  - local: tcp://{}
    remoteTCPPort: {port_four}
options:
  remote: tcp://{addr}
  id: id1
  secret: secret1
",
            one.http, two.http, three.addr, four.addr
        ),
    );
    check(&mut client(&format!("-config {}", file.display())));
}

#[test]
fn http_forwarding_with_client_yaml() {
    let (nginx, scratch) = (nginx::start(None), Scratch::new());
    let mut server = server("-addr 127.0.0.1:0 -id id1 -secret secret1");
    let addr = server.addr();
    let file = scratch.file(
        "client.yaml",
        format!(
            "version: 1.0 # a reserved word, not used yet
options:
  local: http://{}
  remote: tcp://{addr}
  id: id1
  secret: secret1
",
            nginx.http
        ),
    );
    let mut client = client(&format!("-config {}", file.display()));
    client.wait_for_tunnel();
    assert_eq!(page("id1.example.com", addr), nginx::INDEX);
}

/// Starts a client for each id and secret and returns which of them got a tunnel.
fn let_in(addr: SocketAddr, users: &[(&str, &str)]) -> Vec<bool> {
    let echo = echo();
    let started: Vec<_> = users
        .iter()
        .map(|(id, secret)| {
            client(&format!(
                "-local http://{} -remote tcp://{addr} -id {id} -secret {secret}",
                echo.addr
            ))
        })
        .collect();
    started
        .into_iter()
        .map(|mut client| {
            common::eventually("a client to be let in or not", || {
                let yes = client.tunnels() > 0;
                let no = client.bad_logins() > 0;
                assert!(client.has_ended().is_none(), "the client has ended");
                (yes || no).then_some(yes)
            })
        })
        .collect()
}

#[test]
fn users_by_flags_are_paired_by_their_order() {
    for flags in [
        "-id id1 -secret secret1 -id id2 -secret secret2",
        "-id id1 -id id2 -secret secret1 -secret secret2",
    ] {
        let mut server = server(&format!("-addr 127.0.0.1:0 {flags}"));
        let users = [("id1", "secret1"), ("id2", "secret2"), ("id2", "secret1")];
        assert_eq!(
            let_in(server.addr(), &users),
            [true, true, false],
            "{flags}"
        );
    }
}

#[test]
fn users_of_flags_precede_the_users_file_and_that_the_config_file() {
    let scratch = Scratch::new();
    let users = scratch.file(
        "users.yaml",
        "id3:\n  secret: secret3\nid1:\n  secret: secret1-overwrite\n",
    );
    let config = scratch.file(
        "server.yaml",
        format!(
            "version: 1.0
users:
  id1:
    secret: secret1
  id2:
    secret: secret2
options:
  addr: 127.0.0.1:0
  timeout: 1234m1234ms
  users: {}
",
            users.display()
        ),
    );
    let config = config.display();
    let mut by_files = server(&format!("-config {config}"));
    let tried = [
        ("id1", "secret1-overwrite"),
        ("id1", "secret1"),
        ("id2", "secret2"),
        ("id3", "secret3"),
    ];
    assert_eq!(let_in(by_files.addr(), &tried), [true, false, true, true]);
    drop(by_files);
    let mut with_flags = server(&format!("-config {config} -id id3 -secret flag"));
    let tried = [("id3", "secret3"), ("id3", "flag"), ("id2", "secret2")];
    assert_eq!(let_in(with_flags.addr(), &tried), [false, true, true]);
}

#[test]
fn allow_any_client_keeps_an_id_for_its_first_secret() {
    let mut server = server("-addr 127.0.0.1:0 -allowAnyClient");
    let (addr, echo) = (server.addr(), echo());
    let line = format!("-local http://{} -remote tcp://{addr} -id any", echo.addr);
    let mut first = client(&format!("{line} -secret first"));
    first.wait_for_tunnel();
    assert_eq!(
        let_in(addr, &[("any", "second"), ("any", "first")]),
        [false, true]
    );
}

#[test]
fn a_server_without_users_admits_anyone_and_warns() {
    let mut server = server("-addr 127.0.0.1:0");
    server.wait_for("WRN working on -allowAnyClient mode, because no user is configured");
    let addr = server.addr();
    assert_eq!(let_in(addr, &[("one", "a"), ("two", "b")]), [true, true]);
}

/// One user may open TCP ports of their own range, another none, a third those of the server's
/// range.
#[test]
fn tcp_options_of_a_user_take_precedence() {
    let (echo, scratch) = (echo(), Scratch::new());
    let (own, all) = (free_port(), free_port());
    let config = scratch.file(
        "server.yaml",
        format!(
            "version: 1.0
users:
  id1:
    secret: secret1
    tcp:
      - number: 65535
        range: {own}-{own}
  id2:
    secret: secret2
tcp:
  - number: 1
    range: {all}-{all}
options:
  addr: 127.0.0.1:0
"
        ),
    );
    let mut server = server(&format!("-config {}", config.display()));
    let addr = server.addr();
    for (user, port) in [("id1 -secret secret1", own), ("id2 -secret secret2", all)] {
        let mut client = client(&format!(
            "-local tcp://{} -remoteTCPRandom -remote tcp://{addr} -id {user}",
            echo.addr
        ));
        assert_eq!(client.wait_for_port(0), port);
        client.wait_for_tunnel();
        assert_echo_at(([127, 0, 0, 1], port).into());
    }
}
