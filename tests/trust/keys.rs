//! Logins with keys: who gets in, and what an eavesdropper and a malicious server can do with what they
//! have seen. The hello is written by hand from docs/wire.md where it has to be wrong.

use crate::common::api::{self, answer};
use crate::common::certs;
use crate::common::gt::{client, gt, server, Gt};
use crate::common::peer::gt2::{field, Frame};
use crate::common::peer::ID_ALONE;
use crate::common::ports::free_port;
use crate::common::process::Process;
use crate::common::scratch::Scratch;
use crate::common::service::{echo, Service};
use crate::common::visitor::{connect, read};
use std::fmt::Display;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

/// Makes a key; returns its file and the line for the server.
fn keygen(scratch: &Scratch, name: &str) -> (PathBuf, String) {
    let file = scratch.join(name);
    let output = gt(&format!("keygen {}", file.display()));
    let line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(
        output.status.success() && line.starts_with("gt-ed25519 "),
        "{line}"
    );
    (file, line)
}

/// Writes the configuration of a server with these users, each with its keys.
fn users(file: &Path, users: &[(&str, &[&str])]) {
    let mut text =
        "type: server\noptions:\n  addr: 127.0.0.1:0\n  reconnectTimes: 0\nusers:\n".to_owned();
    for (id, keys) in users {
        text += &format!("  {id}:\n    publicKey:\n");
        keys.iter()
            .for_each(|key| text += &format!("    - {key}\n"));
    }
    fs::write(file, text).unwrap();
}

/// Starts a server of the user id1 with this key.
fn server_of_key(scratch: &Scratch, line: &str, more: &str) -> (Gt, SocketAddr) {
    let file = scratch.file("users.yaml", format!("id1: {{publicKey: [{line}]}}\n"));
    let mut server = server(&format!(
        "-addr 127.0.0.1:0 -users {} {more}",
        file.display()
    ));
    let addr = server.addr();
    (server, addr)
}

/// Starts a client that logs in with this key.
fn client_of_key(remote: impl Display, id: &str, key: &Path, more: &str) -> Gt {
    client(&format!(
        "-remote {remote} -id {id} -key {} -reconnectDelay 100ms -local http://127.0.0.1:80 {more}",
        key.display()
    ))
}

/// Bytes that have passed through a relay.
type Kept = Arc<Mutex<Vec<u8>>>;

/// A relay that keeps what passes through it, in each direction.
struct Recorder {
    service: Service,
    sent: Kept,
    answered: Kept,
}

/// Starts a relay to this server.
fn record(server: SocketAddr) -> Recorder {
    let (sent, answered) = (Kept::default(), Kept::default());
    let kept = (sent.clone(), answered.clone());
    let service = Service::start(0, move |near| {
        let far = connect(server);
        let (there, back) = kept.clone();
        let (from, to) = (near.try_clone()?, far.try_clone()?);
        std::thread::spawn(move || pass(from, to, &there));
        pass(far, near, &back);
        Ok(())
    });
    Recorder {
        service,
        sent,
        answered,
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, kept: &Mutex<Vec<u8>>) {
    let mut bytes = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        kept.lock().unwrap().extend_from_slice(&bytes[..n]);
        if to.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

impl Recorder {
    fn sent(&self) -> Vec<u8> {
        self.sent.lock().unwrap().clone()
    }

    fn answered(&self) -> Vec<u8> {
        self.answered.lock().unwrap().clone()
    }
}

/// Returns the bytes of the hello at the beginning of what a client has sent.
fn hello_of(sent: &[u8]) -> Vec<u8> {
    let length = u32::from_be_bytes(sent[2..6].try_into().unwrap());
    sent[..6 + length as usize].to_vec()
}

/// Returns the value of a field in a hello or an answer.
fn value(hello: &[u8], kind: u8) -> Option<Vec<u8>> {
    let mut fields = hello.get(10..)?;
    while let [first, a, b, c, rest @ ..] = fields {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        if *first == kind {
            return Some(rest[..length].to_vec());
        }
        fields = &rest[length..];
    }
    None
}

/// Logs in with these bytes of a hello; returns what the server says behind its answer.
fn login(addr: SocketAddr, hello: &[u8]) -> Frame {
    let mut stream = connect(addr);
    stream.write_all(hello).expect("send a hello");
    let head = read(&mut stream, 6);
    let length = u32::from_be_bytes(head[2..6].try_into().unwrap());
    read(&mut stream, length as usize);
    next_frame(&mut stream)
}

/// Reads ready or an error.
fn next_frame(stream: &mut TcpStream) -> Frame {
    let mut tunnel = crate::common::peer::gt2::Peer::new(stream.try_clone().unwrap());
    tunnel.frame()
}

fn is_refused(frame: &Frame) -> bool {
    matches!(frame, Frame::Error(code) if code.starts_with(&[0, 1]))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|it| it == part)
}

/// Builds a hello of id1 with this value of a key.
fn hello_with_key(key: &[u8]) -> Vec<u8> {
    let fields = [
        field(1, b"id1"),
        field(7, key),
        field(3, &ID_ALONE),
        field(4, &[0, 0, 0x80, 0]),
    ];
    crate::common::peer::gt2::hello_with(&fields.concat())
}

#[test]
fn a_recorded_login_with_a_secret_is_worth_the_secret_and_one_with_a_key_nothing() {
    let scratch = Scratch::new();
    let (file, line) = keygen(&scratch, "key");
    let users = scratch.file(
        "both.yaml",
        format!("id1: {{publicKey: [{line}]}}\nid2: {{secret: secret2}}\n"),
    );
    let flags = format!(
        "-addr 127.0.0.1:0 -reconnectTimes 0 -users {}",
        users.display()
    );
    let mut server = server(&flags);
    let addr = server.addr();

    let wire = record(addr);
    let remote = format!("tcp://{}", wire.service.addr);
    client(&format!(
        "-remote {remote} -id id2 -secret secret2 -local http://127.0.0.1:80"
    ))
    .wait_for_tunnel();
    assert!(
        contains(&wire.sent(), b"secret2"),
        "the secret is there to read"
    );
    assert_eq!(login(addr, &hello_of(&wire.sent())), Frame::Ready);

    let wire = record(addr);
    let remote = format!("tcp://{}", wire.service.addr);
    client_of_key(&remote, "id1", &file, "").wait_for_tunnel();
    let (sent, answered) = (wire.sent(), wire.answered());
    let private = fs::read_to_string(&file).unwrap();
    let private = private.lines().nth(1).unwrap().as_bytes();
    assert!(!contains(&sent, private), "not even its text");
    let hello = hello_of(&sent);
    assert!(value(&hello, 2).is_none(), "no secret");
    let challenge = value(&answered, 6).expect("a challenge");
    assert!(
        !contains(&sent, &challenge),
        "it is signed and not repeated"
    );

    // Replayed as it is, and with the same signature for another id or behind other fields.
    assert!(is_refused(&login(addr, &hello)));
    let stolen = value(&hello, 7).expect("a key with its signature");
    assert_eq!(stolen.len(), 97);
    assert!(is_refused(&login(addr, &hello_with_key(&stolen))));
    // The public key as a secret.
    for secret in [&stolen[1..33], line.as_bytes()] {
        let fields = [field(1, b"id1"), field(2, secret), field(3, &ID_ALONE)].concat();
        let hello = crate::common::peer::gt2::hello_with(&fields);
        assert!(is_refused(&login(addr, &hello)));
    }
    // Another connection has another challenge.
    let mut stream = connect(addr);
    stream.write_all(&[0xF0, 0x20]).unwrap();
    let again = read(&mut stream, 46);
    assert_ne!(value(&again, 6).unwrap(), challenge);
}

#[test]
fn a_server_that_repeats_a_challenge_learns_nothing_for_other_connections() {
    let scratch = Scratch::new();
    let (file, line) = keygen(&scratch, "key");
    let (_server, addr) = server_of_key(&scratch, &line, "-reconnectTimes 0");
    // The malicious server asks for a signature of a challenge that it has from the real one.
    let mut real = connect(addr);
    real.write_all(&[0xF0, 0x20]).unwrap();
    let answer = read(&mut real, 46);
    let (tell, told) = std::sync::mpsc::channel();
    let evil = Service::start(0, move |mut stream| {
        assert_eq!(read(&mut stream, 2), [0xF0, 0x20]);
        stream.write_all(&answer)?;
        let mut hello = vec![0xF0, 0x20];
        hello.extend(read(&mut stream, 4));
        let length = u32::from_be_bytes(hello[2..6].try_into().unwrap());
        hello.extend(read(&mut stream, length as usize));
        let _ = tell.send(hello);
        Ok(())
    });
    let _client = client_of_key(format!("tcp://{}", evil.addr), "id1", &file, "");
    let hello = told.recv().unwrap();
    assert!(
        is_refused(&login(addr, &hello)),
        "elsewhere it is worth nothing"
    );
    // On that connection it is: without TLS nothing shows who is in between (SECURITY.md).
    real.write_all(&hello[2..]).unwrap();
    assert_eq!(next_frame(&mut real), Frame::Ready);
}

/// Starts a man in the middle of two TLS connections, with a certificate of its own.
fn man_in_the_middle(scratch: &Scratch, server: SocketAddr) -> (Process, SocketAddr) {
    let certs = certs::make();
    let port = free_port();
    let script = format!(
        "rm -f pipe; mkfifo pipe; \
         openssl s_server -quiet -naccept 2 -accept 127.0.0.1:{port} -cert {} -key {} <pipe | \
         openssl s_client -quiet -connect {server} >pipe 2>/dev/null",
        certs.cert.display(),
        certs.key.display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(scratch.path());
    let mut process = Process::spawn("a man in the middle", Scratch::new(), &mut command);
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    process.wait_for_listener(port);
    // The certificates are read at the start.
    drop(certs);
    (process, addr)
}

#[test]
fn a_login_over_tls_cannot_be_passed_on_by_a_man_in_the_middle() {
    let scratch = Scratch::new();
    let (file, line) = keygen(&scratch, "key");
    let state = scratch.join("state");
    let users = scratch.file(
        "both.yaml",
        format!("id1: {{publicKey: [{line}]}}\nid2: {{secret: secret2}}\n"),
    );
    let mut server = server(&format!(
        "-addr \"\" -tlsAddr 127.0.0.1:0 -stateDir {} -reconnectTimes 0 -users {}",
        state.display(),
        users.display()
    ));
    let addr = server.tls_addr();
    let local = "-local http://127.0.0.1:80 -remoteCertInsecure";
    client_of_key(format!("tls://{addr}"), "id1", &file, "-remoteCertInsecure").wait_for_tunnel();

    // A client that accepts any certificate gives its secret to the one in the middle.
    let (_mitm, middle) = man_in_the_middle(&scratch, addr);
    client(&format!(
        "-remote tls://{middle} -id id2 -secret secret2 {local}"
    ))
    .wait_for_tunnel();

    let (_mitm, middle) = man_in_the_middle(&scratch, addr);
    let remote = format!("tls://{middle}");
    let mut client = client_of_key(remote, "id1", &file, "-remoteCertInsecure");
    let why = client.wait_for_failure();
    assert!(why.contains("proxy between that ends TLS"), "{why}");
}

#[test]
fn each_of_several_keys_is_revoked_by_a_reload_and_the_others_stay() {
    let scratch = Scratch::new();
    let (one, first) = keygen(&scratch, "one");
    let (other, second) = keygen(&scratch, "other");
    let file = scratch.join("server.yaml");
    users(&file, &[("id1", &[&first, &second]), ("id2", &[&second])]);
    let mut server = Gt::start("gt server", &[], &format!("-config {}", file.display()));
    let remote = format!("tcp://{}", server.addr());
    let mut a = client_of_key(&remote, "id1", &one, "");
    a.wait_for_tunnel();
    // One key is that of two clients.
    let mut b = client_of_key(&remote, "id2", &other, "");
    b.wait_for_tunnel();
    let mut c = client_of_key(&remote, "id2", &one, "");
    c.wait_for_bad_login();
    users(&file, &[("id1", &[&second]), ("id2", &[&second])]);
    server.reload();
    a.wait_for_bad_login();
    assert_eq!(b.tunnels(), 1);
    let mut d = client_of_key(&remote, "id1", &other, "");
    d.wait_for_tunnel();
}

#[test]
fn a_client_with_a_key_changes_its_services_and_follows_a_restarted_server() {
    let scratch = Scratch::new();
    let (key, line) = keygen(&scratch, "key");
    let service = echo();
    let port = free_port();
    let ports = format!("-tcpNumber 1 -tcpRange {port} -reconnectTimes 0");
    let (mut server, addr) = server_of_key(&scratch, &line, &ports);
    let config = scratch.join("client.yaml");
    let write = |services: &str| {
        let text = format!(
            "type: client\noptions: {{remote: 'tcp://{addr}', id: id1, key: {}}}\nservices:\n- local: \
             http://127.0.0.1:80\n{services}",
            key.display()
        );
        fs::write(&config, text).unwrap();
    };
    write("");
    let mut client = Gt::start("gt client", &[], &format!("-config {}", config.display()));
    client.wait_for_tunnel();
    write(&format!(
        "- local: tcp://{}\n  remoteTCPPort: {port}\n",
        service.addr
    ));
    client.reload();
    client.wait_for_opened_port(port);
    assert_eq!(client.tunnels(), 1, "on the tunnel that it has");
    let _successor = server.restart();
    client.wait_for_tunnels(2);
}

#[test]
fn wrong_keys_count_as_failed_logins() {
    let scratch = Scratch::new();
    let (_, line) = keygen(&scratch, "key");
    let (other, _) = keygen(&scratch, "other");
    let (_server, addr) = server_of_key(&scratch, &line, "-reconnectTimes 2");
    let mut client = client_of_key(format!("tcp://{addr}"), "id1", &other, "");
    client.wait_for_bad_login();
    client.wait_for("locked out");
}

#[test]
fn keys_of_another_kind_and_malformed_ones_end_the_connection() {
    let scratch = Scratch::new();
    let (_, line) = keygen(&scratch, "key");
    let (_server, addr) = server_of_key(&scratch, &line, "");
    for key in [&[2; 97][..], &[1; 96], &[1; 33], &[]] {
        let mut stream = connect(addr);
        stream.write_all(&hello_with_key(key)).unwrap();
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        assert_eq!(all.len(), 46, "the answer alone: {all:?}");
    }
    let without_key = hello_with_key(&[1; 97]);
    assert!(is_refused(&login(addr, &without_key)));
}

#[test]
fn a_server_that_takes_no_keys_is_told_nothing() {
    let scratch = Scratch::new();
    let (key, _) = keygen(&scratch, "key");
    let reasons = [
        ("", "takes no logins with keys"),
        ("-wire 1", "does not speak GT/2"),
    ];
    for (flags, reason) in reasons {
        let mut server = crate::common::gt::server_of_id1(flags);
        let wire = record(server.addr());
        let remote = format!("tcp://{}", wire.service.addr);
        let mut client = client_of_key(&remote, "id1", &key, "");
        let why = client.wait_for_failure();
        assert!(why.contains(reason), "{why}");
        // Without the server's word, nobody is talked into a secret.
        assert_eq!(why.contains("set secret"), flags.is_empty(), "{why}");
        assert!(!contains(&wire.sent(), b"id1"));
    }
}

#[test]
fn the_auth_api_is_told_the_key_and_admits_it_by_repeating_it() {
    let scratch = Scratch::new();
    let (key, line) = keygen(&scratch, "key");
    let public = line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    for (said, admitted) in [(public.as_str(), true), ("", false)] {
        let body = serde_json::json!({"result": true, "networkPublicKey": said}).to_string();
        let api = api::start(0, move |_| answer(200, &body));
        let mut server = server(&format!("-addr 127.0.0.1:0 -authAPI http://{}/", api.addr));
        let mut client = client_of_key(format!("tcp://{}", server.addr()), "id1", &key, "");
        match admitted {
            true => client.wait_for_tunnel(),
            false => client.wait_for_bad_login(),
        }
        let body: serde_json::Value = serde_json::from_str(&api.request().body).unwrap();
        assert_eq!(body["networkPublicKey"], public.as_str());
        assert!(body.get("networkSecretKey").is_none());
    }
}

#[test]
fn keygen_writes_a_file_for_its_owner_and_never_over_another() {
    let scratch = Scratch::new();
    let (file, line) = keygen(&scratch, "key");
    let before = fs::read(&file).unwrap();
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let output = gt(&format!("keygen {}", file.display()));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && error.contains("exists already"),
        "{error}"
    );
    assert_eq!(fs::read(&file).unwrap(), before);
    // openssl knows the format, and the same public key.
    let openssl = Command::new("openssl")
        .args(["pkey", "-pubout", "-outform", "DER", "-in"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(openssl.status.success());
    let public = &openssl.stdout[openssl.stdout.len() - 32..];
    let (_server, addr) = server_of_key(&scratch, &line, "-reconnectTimes 0");
    let mut unsigned = vec![1];
    unsigned.extend_from_slice(public);
    unsigned.extend_from_slice(&[0; 64]);
    assert!(is_refused(&login(addr, &hello_with_key(&unsigned))));
    client_of_key(format!("tcp://{addr}"), "id1", &file, "").wait_for_tunnel();
}

#[test]
fn mistakes_with_keys_are_explained() {
    let scratch = Scratch::new();
    let (key, line) = keygen(&scratch, "key");
    let client = "check client -id i -local http://h -remote tcp://h";
    let file = scratch.file(
        "server.yaml",
        "users: {id1: {publicKey: [ssh-ed25519 AAAA me]}}\n",
    );
    let none = scratch.file("none.yaml", "users: {id1: {publicKey: []}}\n");
    for (command, why) in [
        (
            format!("{client} -key {} -secret s", key.display()),
            "both prove the id",
        ),
        (format!("{client} -key {} -wire 1", key.display()), "GT/2"),
        (
            format!("{client} -key {}.none", key.display()),
            "No such file",
        ),
        (
            format!("check server -config {}", file.display()),
            "a key of SSH",
        ),
        (
            format!("check server -config {}", none.display()),
            "no secret and no publicKey",
        ),
    ] {
        let output = gt(&command);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && error.contains(why),
            "{command}: {error}"
        );
    }
    assert!(line.len() > 50);
}

#[cfg(all(feature = "quic", feature = "ws"))]
#[test]
fn keys_of_both_ends_are_proven_over_every_way_with_tls() {
    let scratch = Scratch::new();
    let (file, line) = keygen(&scratch, "key");
    let (other, _) = keygen(&scratch, "other");
    let state = scratch.join("state");
    let users = scratch.file("users.yaml", format!("id1: {{publicKey: [{line}]}}\n"));
    let mut server = server(&format!(
        "-addr \"\" -tlsAddr 127.0.0.1:0 -quicAddr 127.0.0.1:0 -wsPath /gt -stateDir {} -reconnectTimes 0 \
         -users {}",
        state.display(),
        users.display()
    ));
    let output = gt(&format!(
        "fingerprint server -tlsAddr 1 -stateDir {}",
        state.display()
    ));
    let pin = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let wrong = "SHA256:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc";
    let (tls, quic) = (server.tls_addr(), server.quic_addr());
    for remote in [format!("wss://{tls}/gt"), format!("quic://{quic}")] {
        let trust = format!("-remoteKey {pin}");
        client_of_key(&remote, "id1", &file, &trust).wait_for_tunnel();
        client_of_key(&remote, "id1", &other, &trust).wait_for_bad_login();
        let mut refused = client_of_key(&remote, "id1", &file, &format!("-remoteKey {wrong}"));
        let why = refused.wait_for_failure();
        assert!(why.contains(&pin) && why.contains(wrong), "{remote}: {why}");
    }
}
