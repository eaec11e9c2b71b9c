//! The programs for routers do what the native one does, as either end of a tunnel whose other end
//! is native. `tests/run` builds them and installs qemu.

use crate::common::certs;
use crate::common::curl::curl;
use crate::common::gt::Gt;
use crate::common::machine::{Machine, HERE};
use crate::common::nginx::{self, Nginx};
use crate::common::ports::free_port;
use crate::common::samples::{assert_same, random_file, Random};
use crate::common::scratch::Scratch;
use crate::common::service::{self, assert_echo};
use crate::common::visitor::{connect, get, read, read_to_end, set_limits};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// Has the client of the smallest package; the others are one program with both roles.
const MIPSEL: Machine = Machine::router("qemu-mipsel-static", "mipsel", "client");
const MIPSEL_PEER: Machine = Machine::router("qemu-mipsel-static", "mipsel", "full");
/// Its qemu leaves the numbers of UDP_SEGMENT and UDP_GRO as they are, which are those of another byte order.
const MIPS: Machine = Machine::router("qemu-mips-static", "mips", "full").flag("-udpOffload=false");
const ARMV7: Machine = Machine::router("qemu-arm-static", "armv7", "full");
/// Has neither a floating-point unit nor atomic instructions.
const ARMV5: Machine = Machine::router("qemu-arm-static", "armv5", "full").with("arm926");
const RISCV64: Machine = Machine::router("qemu-riscv64-static", "riscv64", "full");
const AARCH64: Machine = Machine::router("qemu-aarch64-static", "aarch64", "full");

/// The two ends of a tunnel.
struct Ends {
    server: &'static Machine,
    client: &'static Machine,
}

impl Ends {
    fn start_server(&self, line: &str) -> Gt {
        Gt::spawn("gt server", self.server.server(), line)
    }

    fn start_server_of_id1(&self, line: &str) -> Gt {
        self.start_server(&format!("{line} -id id1 -secret secret1"))
    }

    /// Starts a client and waits for its tunnel.
    fn start_client(&self, line: &str) -> Gt {
        let mut client = Gt::spawn("gt client", self.client.client(), line);
        client.wait_for_tunnel();
        client
    }

    fn start_client_of_id1(&self, remote: &str, line: &str) -> Gt {
        self.start_client(&format!("-remote {remote} -id id1 -secret secret1 {line}"))
    }
}

/// Uploads this many MiB to the nginx behind `url`, downloads them, and compares.
fn assert_carries(mebibytes: usize, nginx: &Nginx, curl_flags: &str, url: &str) {
    let (sample, scratch) = (random_file(mebibytes), Scratch::new());
    let down = scratch.join("down");
    let up = format!("{curl_flags} -T {} {url}/upload/up", sample.display());
    let reply = curl(&up);
    assert_eq!(reply.code, 0, "{}", reply.errors);
    assert_same(&sample, &nginx.stored("up"));
    std::fs::copy(&sample, nginx.stored("down")).expect("copy a sample");
    let reply = curl(&format!(
        "{curl_flags} -o {} {url}/upload/down",
        down.display()
    ));
    assert_eq!(reply.code, 0, "{}", reply.errors);
    assert_same(&sample, &down);
}

fn carries_http(ends: &Ends) {
    let nginx = nginx::start(None);
    let mut server = ends.start_server_of_id1("-addr 127.0.0.1:0");
    let addr = server.addr();
    let _client = ends.start_client_of_id1(
        &format!("tcp://{addr}"),
        &format!("-local http://{}", nginx.http),
    );
    let url = format!("http://id1.example.com:{}", addr.port());
    let name = format!("--resolve id1.example.com:{}:127.0.0.1", addr.port());
    assert_eq!(curl(&format!("{name} {url}/")).text(), nginx::INDEX);
    assert_eq!(get(addr, "id2.example.com", "/").status, 404);
    assert_carries(20, &nginx, &name, &url);
}

fn carries_http_inside_tls(ends: &Ends) {
    let (certs, nginx) = (certs::make(), nginx::start(None));
    let mut server = ends.start_server_of_id1(&format!(
        "-addr \"\" -tlsAddr 127.0.0.1:0 {}",
        certs.flags()
    ));
    let addr = server.tls_addr();
    let _client = ends.start_client_of_id1(
        &format!("tls://{addr}"),
        &format!(
            "-local http://{} -remoteCert {}",
            nginx.http,
            certs.ca.display()
        ),
    );
    let url = format!("https://id1.example.com:{}", addr.port());
    let name = format!(
        "--cacert {} --resolve id1.example.com:{}:127.0.0.1",
        certs.ca.display(),
        addr.port()
    );
    for version in ["--tlsv1.2 --tls-max 1.2", "--tlsv1.3"] {
        let reply = curl(&format!("{version} {name} {url}/"));
        assert_eq!(reply.text(), nginx::INDEX, "{version}");
    }
    // An emulated end that does all of it twice is slow.
    assert_carries(5, &nginx, &name, &url);
}

/// Checks that the client prefers the fastest cipher of its processor.
fn asks_for_chacha_first(ends: &Ends) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let line = format!(
        "-remote tls://{} -remoteCertInsecure -id id1 -local http://127.0.0.1:80",
        listener.local_addr().expect("ask for the address")
    );
    let _client = Gt::spawn("gt client", ends.client.client(), &line);
    let (mut stream, _) = listener.accept().expect("accept");
    set_limits(&stream);
    // The headers of the record and of the ClientHello, its version, its random number.
    read(&mut stream, 5 + 4 + 2 + 32);
    let session = read(&mut stream, 1)[0];
    read(&mut stream, usize::from(session) + 2);
    let chacha20_poly1305_sha256 = [0x13, 0x03];
    assert_eq!(read(&mut stream, 2), chacha20_poly1305_sha256);
}

/// Checks that a client that trusts another authority reports it and keeps trying.
fn refuses_a_stranger(ends: &Ends) {
    let certs = certs::make();
    let mut server = ends.start_server_of_id1(&format!(
        "-addr \"\" -tlsAddr 127.0.0.1:0 {}",
        certs.flags()
    ));
    let line = format!(
        "-remote tls://{} -id id1 -secret secret1 -reconnectDelay 100ms \
         -local http://127.0.0.1:80 -remoteCert {}",
        server.tls_addr(),
        certs.other_ca.display()
    );
    let mut client = Gt::spawn("gt client", ends.client.client(), &line);
    client.assert_keeps_failing(&["remoteCert"]);
}

fn passes_tls_on_by_its_name(ends: &Ends) {
    let certs = certs::make();
    let nginx = nginx::start(Some(&certs));
    let mut server = ends.start_server_of_id1("-addr \"\" -sniAddr 127.0.0.1:0");
    let addr = server.sni_addr();
    let _client = ends.start_client_of_id1(
        &format!("tcp://{addr}"),
        &format!("-local https://{}", nginx.https),
    );
    let name = format!(
        "--cacert {} --resolve id1.example.com:{}:127.0.0.1",
        certs.ca.display(),
        addr.port()
    );
    let url = format!("https://id1.example.com:{}", addr.port());
    assert_eq!(curl(&format!("{name} {url}/")).text(), nginx::INDEX);
    assert_carries(20, &nginx, &name, &url);
}

fn carries_tcp(ends: &Ends) {
    let echo = service::echo();
    let mut server =
        ends.start_server_of_id1("-addr 127.0.0.1:0 -tcpNumber 1 -tcpRange 1024-65535");
    let mut client = ends.start_client_of_id1(
        &format!("tcp://{}", server.addr()),
        &format!("-local tcp://{} -remoteTCPRandom", echo.addr),
    );
    let at = SocketAddr::from(([127, 0, 0, 1], client.wait_for_port(0)));
    let bytes = Random::new(20).bytes(20 << 20);
    assert_echo(&mut connect(at), &bytes);
}

/// Carries TCP in a tunnel over what `remote` leads to, behind a server with these flags.
fn carries_tcp_over(ends: &Ends, flags: &str, remote: impl Fn(&mut Gt) -> String) {
    let echo = service::echo();
    let ports = "-addr 127.0.0.1:0 -tcpNumber 1 -tcpRange 1024-65535";
    let mut server = ends.start_server_of_id1(&format!("{ports} {flags}"));
    let remote = remote(&mut server);
    let mut client = ends.start_client_of_id1(
        &remote,
        &format!("-local tcp://{} -remoteTCPRandom", echo.addr),
    );
    let at = SocketAddr::from(([127, 0, 0, 1], client.wait_for_port(0)));
    let bytes = Random::new(21).bytes(5 << 20);
    assert_echo(&mut connect(at), &bytes);
}

#[cfg(feature = "quic")]
fn carries_tcp_over_quic(ends: &Ends) {
    let certs = certs::make();
    let flags = format!("-quicAddr 127.0.0.1:0 {}", certs.flags());
    carries_tcp_over(ends, &flags, |server| {
        format!(
            "quic://{} -remoteCert {}",
            server.quic_addr(),
            certs.ca.display()
        )
    });
}

#[cfg(feature = "ws")]
fn carries_tcp_in_a_websocket(ends: &Ends) {
    carries_tcp_over(ends, "", |server| format!("ws://{}", server.addr()));
}

fn reloads(ends: &Ends) {
    let (one, two, echo) = (
        service::http(0, "one"),
        service::http(0, "two"),
        service::echo(),
    );
    let (scratch, port) = (Scratch::new(), free_port());
    let write_server = |more: &str| {
        let text = format!(
            "users:\n  id1: {{secret: secret1}}\n{more}options:\n  addr: 127.0.0.1:0\n  \
             hostNumber: 2\ntcp:\n  - {{number: 1, range: {port}}}\n"
        );
        scratch.file("server.yaml", text)
    };
    let file = write_server("");
    let mut server = ends.start_server(&format!("-config {}", file.display()));
    let addr = server.addr();
    let write_client = |prefix: &str, at: SocketAddr| {
        let text = format!(
            "options:\n  remote: tcp://{addr}\n  id: id1\n  secret: secret1\nservices:\n  \
             - {{local: \"tcp://{}\", remoteTCPPort: {port}}}\n  \
             - {{local: \"http://{at}\", hostPrefix: {prefix}}}\n",
            echo.addr
        );
        scratch.file("client.yaml", text)
    };
    let file = write_client("one", one.addr);
    let mut client = ends.start_client(&format!("-config {}", file.display()));
    assert_eq!(get(addr, "one.a", "/").text(), "one / one.a");
    let mut visitor = connect(([127, 0, 0, 1], port).into());
    assert_echo(&mut visitor, b"before");

    write_client("two", two.addr);
    client.reload();
    client.wait_for_changed_services();
    assert_eq!(get(addr, "two.a", "/").text(), "two / two.a");
    assert_echo(&mut visitor, b"between");

    write_server("  id2: {secret: secret2}\n");
    server.reload();
    let _other = ends.start_client(&format!(
        "-remote tcp://{addr} -id id2 -secret secret2 -local http://{}",
        two.addr
    ));
    assert_eq!(get(addr, "id2.a", "/").text(), "two / id2.a");
    assert_echo(&mut visitor, b"after");
}

fn timers_ring(ends: &Ends) {
    let (port, service) = (free_port(), service::http(0, "here"));
    let line = format!("-addr 127.0.0.1:{port} -timeout 1s");
    let mut server = ends.start_server_of_id1(&line);
    let addr = server.addr();
    let mut client = ends.start_client_of_id1(
        &format!("tcp://{addr}"),
        &format!(
            "-local http://{} -reconnectDelay 100ms -remoteTimeout 800ms",
            service.addr
        ),
    );
    // A silent visitor is closed.
    read_to_end(&mut connect(addr));
    // The server is killed and started again.
    server.kill();
    client.wait_for_failure();
    let mut server = ends.start_server_of_id1(&line);
    client.wait_for_tunnels(2);
    assert_eq!(get(addr, "id1.a", "/").text(), "here / id1.a");
    // The server hangs until the client gives it up.
    server.signal("STOP");
    let lines = client.closed();
    client.wait_for_closed(lines + 1);
    server.signal("CONT");
    client.wait_for_tunnels(3);
    assert!(server.has_ended().is_none());
}

/// Checks data channels, with the forwarding end at the server.
#[cfg(feature = "p2p")]
fn carries_p2p(ends: &Ends) {
    let (sample, home, got) = (random_file(5), Scratch::new(), Scratch::new());
    std::fs::copy(&sample, home.join("sample")).expect("copy a sample");
    let line = "-addr 127.0.0.1:0 -stunAddr 127.0.0.1:0 -id id2 -secret secret2";
    let mut server = ends.start_server_of_id1(line);
    let (addr, stun) = (server.addr(), server.stun_addr());
    let mut serving = ends.start_client_of_id1(
        &format!("tcp://{addr}"),
        &format!(
            "-local file://{} -remoteSTUN stun:{stun}",
            home.path().display()
        ),
    );
    let line = format!(
        "-remote tcp://{addr} -id id2 -secret secret2 -remoteSTUN stun:{stun} \
         -tcpForwardAddr 127.0.0.1:0 -tcpForwardHostPrefix id1 -tcpForwardFallback=false"
    );
    let mut forwarding = Gt::spawn("gt client", ends.server.client(), &line);
    let (place, down) = (forwarding.forward_addr(), got.join("down"));
    let reply = curl(&format!("-o {} http://{place}/sample", down.display()));
    assert_eq!(reply.code, 0, "{}", reply.errors);
    assert_same(&sample, &down);
    serving.wait_for_peers(1);
}

/// Checks that waiting threads do nothing else.
fn costs_nothing_while_idle(ends: &Ends) {
    let scratch = Scratch::new();
    scratch.file("page", "a page");
    let mut server = ends.start_server_of_id1("-addr 127.0.0.1:0");
    let addr = server.addr();
    let client = ends.start_client_of_id1(
        &format!("tcp://{addr}"),
        &format!("-local file://{}", scratch.path().display()),
    );
    assert_eq!(get(addr, "id1.a", "/page").text(), "a page");
    let work = || (server.work(), client.work());
    let before = work();
    std::thread::sleep(Duration::from_secs(4));
    let after = work();
    let most = 40;
    assert!(
        after.0 - before.0 < most && after.1 - before.1 < most,
        "from {before:?} to {after:?} hundredths of a second, of which 400 have passed"
    );
}

macro_rules! promises {
    ($module:ident: $server:expr, $client:expr; $($promise:ident)*) => {
        mod $module {
            use super::*;
            $(#[test]
            fn $promise() {
                super::$promise(&Ends { server: &$server, client: &$client });
            })*
        }
    };
}

macro_rules! all_promises {
    ($($module:ident: $server:expr, $client:expr;)*) => {
        $(promises!($module: $server, $client;
            carries_http carries_http_inside_tls refuses_a_stranger passes_tls_on_by_its_name
            carries_tcp reloads timers_ring costs_nothing_while_idle);)*
    };
}

all_promises! {
    a_client_on_mipsel: HERE, MIPSEL;
    a_client_on_armv7: HERE, ARMV7;
    a_client_on_aarch64: HERE, AARCH64;
    a_client_on_armv5: HERE, ARMV5;
    a_server_on_mipsel: MIPSEL, HERE;
    a_server_on_armv7: ARMV7, HERE;
    a_server_on_aarch64: AARCH64, HERE;
    a_server_on_armv5: ARMV5, HERE;
}
promises!(a_client_on_riscv64: HERE, RISCV64; carries_http carries_http_inside_tls carries_tcp);
promises!(a_server_on_riscv64: RISCV64, HERE; carries_http carries_http_inside_tls carries_tcp);
promises!(a_client_on_mipsel_without_aes: HERE, MIPSEL; asks_for_chacha_first);
promises!(a_client_on_armv7_without_aes: HERE, ARMV7; asks_for_chacha_first);
// Big-endian.
promises!(a_client_on_mips: HERE, MIPS;
    carries_http carries_http_inside_tls carries_tcp timers_ring costs_nothing_while_idle);
promises!(a_server_on_mips: MIPS, HERE;
    carries_http carries_http_inside_tls carries_tcp timers_ring costs_nothing_while_idle);
#[cfg(feature = "p2p")]
promises!(a_peer_on_mips: HERE, MIPS; carries_p2p);
#[cfg(feature = "p2p")]
promises!(a_peer_on_mipsel: HERE, MIPSEL_PEER; carries_p2p);
#[cfg(feature = "p2p")]
promises!(a_peer_on_armv7: HERE, ARMV7; carries_p2p);
#[cfg(feature = "p2p")]
promises!(a_peer_on_armv5: HERE, ARMV5; carries_p2p);
#[cfg(feature = "p2p")]
promises!(a_peer_on_aarch64: HERE, AARCH64; carries_p2p);
#[cfg(feature = "p2p")]
promises!(a_forwarding_end_on_mipsel: MIPSEL_PEER, HERE; carries_p2p);
macro_rules! other_transports {
    ($($module:ident: $server:expr, $client:expr;)*) => {
        $(#[cfg(all(feature = "quic", feature = "ws"))]
        promises!($module: $server, $client; carries_tcp_over_quic carries_tcp_in_a_websocket);)*
    };
}

other_transports! {
    other_transports_of_a_client_on_mips: HERE, MIPS;
    other_transports_of_a_server_on_mips: MIPS, HERE;
    other_transports_of_a_client_on_mipsel: HERE, MIPSEL_PEER;
    other_transports_of_a_client_on_armv7: HERE, ARMV7;
    other_transports_of_a_client_on_armv5: HERE, ARMV5;
    other_transports_of_a_client_on_aarch64: HERE, AARCH64;
    other_transports_of_a_server_on_riscv64: RISCV64, HERE;
}
