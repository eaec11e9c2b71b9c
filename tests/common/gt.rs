//! The program under test, in either role.

use super::certs::Certs;
use super::ports::free_port;
use super::process::{run, Process};
use super::scratch::Scratch;
use super::{eventually, words};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;

pub const GT: &str = env!("CARGO_BIN_EXE_gt");

/// Runs `gt` with these arguments to its end.
pub fn gt(line: &str) -> Output {
    run(Command::new(GT).args(words(line)))
}

/// Addresses of servers, and how to reach their `-quicAddr`, with GT_TEST_QUIC=1.
static OVER_QUIC: Mutex<Vec<(SocketAddr, String)>> = Mutex::new(Vec::new());

/// Whether the environment has tunnels of [`client_of_id1`] go over QUIC: GT_TEST_QUIC=1.
fn goes_over_quic() -> bool {
    std::env::var("GT_TEST_QUIC").is_ok()
}

/// A running `gt`.
pub struct Gt(Process);

/// Starts `gt server` with these arguments.
pub fn server(line: &str) -> Gt {
    Gt::start("gt server", &["server"], line)
}

/// Starts `gt server` with a limit of `most` open descriptors.
pub fn server_with_descriptors(most: usize, line: &str) -> Gt {
    with_descriptors(most, "server", line)
}

/// Starts `gt client` with a limit of `most` open descriptors.
pub fn client_with_descriptors(most: usize, line: &str) -> Gt {
    with_descriptors(most, "client", line)
}

fn with_descriptors(most: usize, role: &str, line: &str) -> Gt {
    let mut command = Command::new("sh");
    let limited = format!("ulimit -n {most}; exec \"$0\" \"$@\"");
    command.args(["-c", &limited, GT, role]);
    Gt::spawn(&format!("gt {role}"), command, line)
}

/// Starts `gt client` with these arguments.
pub fn client(line: &str) -> Gt {
    Gt::start("gt client", &["client"], line)
}

/// Starts `gt server` with the user of all examples, id1.
pub fn server_of_id1(more: &str) -> Gt {
    let line = format!("-addr 127.0.0.1:0 -id id1 -secret secret1 {more}");
    if !goes_over_quic() || more.contains("-quicAddr") {
        return server(&line);
    }
    let mut server = server(&format!("{line} -quicAddr 127.0.0.1:0"));
    let way = format!(
        "quic://{} -remoteKey {}",
        server.quic_addr(),
        server.quic_keys()[0]
    );
    let addr = server.addr();
    OVER_QUIC.lock().expect("the addresses").push((addr, way));
    server
}

/// Starts `gt client` as id1 and waits until its tunnel is ready.
pub fn client_of_id1(remote: SocketAddr, more: &str) -> Gt {
    let over_quic = OVER_QUIC.lock().expect("the addresses");
    let quic = over_quic.iter().find(|(addr, _)| *addr == remote);
    let way = match quic {
        Some((_, way)) => way.clone(),
        None => format!("tcp://{remote}"),
    };
    drop(over_quic);
    let mut client = client(&format!("-remote {way} -id id1 -secret secret1 {more}"));
    client.wait_for_tunnel();
    client
}

/// Starts a server, and a client with an HTTP service; returns both with the address of visitors.
pub fn http_tunnel(
    service: SocketAddr,
    for_server: &str,
    for_client: &str,
) -> (Gt, Gt, SocketAddr) {
    let mut server = server_of_id1(for_server);
    let addr = server.addr();
    let client = client_of_id1(addr, &format!("-local http://{service} {for_client}"));
    (server, client, addr)
}

/// Starts a server, and a client with a TCP service; returns both with the address of visitors.
pub fn tcp_tunnel(service: SocketAddr, for_server: &str, for_client: &str) -> (Gt, Gt, SocketAddr) {
    let port = free_port();
    let mut server = server_of_id1(&format!("-tcpNumber 1 -tcpRange {port} {for_server}"));
    let local = format!("-local tcp://{service} -remoteTCPPort {port} {for_client}");
    let client = client_of_id1(server.addr(), &local);
    (server, client, SocketAddr::from(([127, 0, 0, 1], port)))
}

/// Starts a server that terminates TLS, and a client with an HTTP service that connects over TLS;
/// returns both with the address of visitors.
pub fn tls_tunnel(
    certs: &Certs,
    service: SocketAddr,
    for_server: &str,
    for_client: &str,
) -> (Gt, Gt, SocketAddr) {
    let mut server = server(&format!(
        "-addr \"\" -tlsAddr 127.0.0.1:0 {} -id id1 -secret secret1 {for_server}",
        certs.flags()
    ));
    let addr = server.tls_addr();
    let mut client = client(&format!(
        "-local http://{service} -remote tls://{addr} -remoteCert {} -id id1 -secret secret1 \
         {for_client}",
        certs.ca.display()
    ));
    client.wait_for_tunnel();
    (server, client, addr)
}

/// Starts a server with `-quicAddr`, and a client with a TCP service that connects over QUIC; returns both
/// with the address of visitors.
pub fn quic_tunnel(
    service: SocketAddr,
    for_server: &str,
    for_client: &str,
) -> (Gt, Gt, SocketAddr) {
    let port = free_port();
    let mut server = server_of_id1(&format!(
        "-quicAddr 127.0.0.1:0 -tcpNumber 1 -tcpRange {port} {for_server}"
    ));
    let mut client = client(&format!(
        "-remote quic://{} -remoteCertInsecure -id id1 -secret secret1 -local tcp://{service} \
         -remoteTCPPort {port} {for_client}",
        server.quic_addr()
    ));
    client.wait_for_tunnel();
    (server, client, SocketAddr::from(([127, 0, 0, 1], port)))
}

impl Gt {
    /// Starts `gt` with `role` before the arguments of `line`. The environment can give servers and
    /// clients more executor threads: GT_TEST_THREADS=2.
    pub fn start(name: &str, role: &[&str], line: &str) -> Gt {
        let mut command = Command::new(GT);
        command.args(role);
        if let (Ok(threads), ["server" | "client"]) = (std::env::var("GT_TEST_THREADS"), role) {
            command.args(["-threads", &threads]);
        }
        Gt::spawn(name, command, line)
    }

    /// Starts `gt` with `ca` as the system's only certificate authority.
    pub fn trusting(ca: &Path, line: &str) -> Gt {
        let mut command = Command::new(GT);
        command.env("SSL_CERT_FILE", ca);
        Gt::spawn("gt", command, line)
    }

    /// Starts a copy of `gt`, in either role.
    pub fn of_program(program: &Path, line: &str) -> Gt {
        Gt::spawn("gt", Command::new(program), line)
    }

    /// Starts `gt server` with a supervisor's socket at `place`.
    pub fn supervised(place: &Path, line: &str) -> Gt {
        let mut command = Command::new(GT);
        command.arg("server").env("NOTIFY_SOCKET", place);
        Gt::spawn("gt server", command, line)
    }

    /// Starts `gt` with these arguments in a network namespace.
    pub fn within(namespace: &str, line: &str) -> Gt {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, GT]);
        Gt::spawn("gt", command, line)
    }

    /// Starts `command` with these additional arguments.
    pub fn spawn(name: &str, mut command: Command, line: &str) -> Gt {
        let scratch = Scratch::new();
        command.args(words(line)).current_dir(scratch.path());
        Gt(Process::spawn(name, scratch, &mut command))
    }

    /// Returns the address of `-addr`.
    pub fn addr(&mut self) -> SocketAddr {
        self.listener("addr")
    }

    /// Returns the address of `-tlsAddr`.
    pub fn tls_addr(&mut self) -> SocketAddr {
        self.listener("TLS addr")
    }

    /// Returns the address of `-apiAddr`.
    pub fn api_addr(&mut self) -> SocketAddr {
        self.listener("apiAddr")
    }

    /// Returns the address of `-webAddr`.
    pub fn web_addr(&mut self) -> SocketAddr {
        self.listener("webAddr")
    }

    /// Returns the address of `-tcpForwardAddr`.
    pub fn forward_addr(&mut self) -> SocketAddr {
        self.listener("tcpForwardAddr")
    }

    /// Returns the address of `-udpForwardAddr`.
    pub fn udp_forward_addr(&mut self) -> SocketAddr {
        self.bound("udpForwardAddr", "receiving datagrams started addr=")
    }

    /// Returns the address of `-sniAddr`.
    pub fn sni_addr(&mut self) -> SocketAddr {
        self.listener("sniAddr")
    }

    /// Returns the address of `-quicAddr`.
    pub fn quic_addr(&mut self) -> SocketAddr {
        self.bound("quicAddr", "accepting QUIC started addr=")
    }

    /// Returns the address of `-stunAddr`.
    pub fn stun_addr(&mut self) -> SocketAddr {
        self.bound("stunAddr", "answering STUN started addr=")
    }

    /// Returns how many listeners with this key in the log it has opened; all for `""`.
    pub fn listeners(&self, key: &str) -> usize {
        self.lines_with(&announced(key)).len()
    }

    fn listener(&mut self, key: &str) -> SocketAddr {
        self.bound(key, "acceptLoop started addr=")
    }

    fn bound(&mut self, key: &str, bound: &str) -> SocketAddr {
        let announced = announced(key);
        self.wait_for(&announced);
        let what = format!("the server to say what {announced:?} was bound to");
        let line = eventually(&what, || {
            // The address ends the line, so only whole lines count.
            let lines = self.lines_with("");
            let at = lines.iter().position(|line| line.contains(&announced))?;
            lines[at..]
                .iter()
                .find(|line| line.contains(bound))
                .cloned()
        });
        let address = &line[line.find(bound).unwrap() + bound.len()..];
        let address = address.split_whitespace().next().unwrap_or_default();
        address
            .parse()
            .unwrap_or_else(|e| panic!("{line:?} should end in an address: {e}"))
    }

    /// Returns the program itself where another one runs it as its only child. It is killed when
    /// the handle is dropped: the end of the other one might leave it behind.
    pub fn only_child(&self) -> Successor {
        let children = format!("/proc/{0}/task/{0}/children", self.pid());
        let pid = eventually("its only child to start", || {
            let children = std::fs::read_to_string(&children).expect("read the children");
            children.trim().parse().ok()
        });
        Successor { pid }
    }

    /// Asks gt to end and waits for it.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.exit().code()
    }
}

/// Returns how gt announces the listener with this key.
fn announced(key: &str) -> String {
    match key {
        "" => "Listening ".to_owned(),
        key => format!("Listening {key}="),
    }
}

impl Deref for Gt {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.0
    }
}

impl DerefMut for Gt {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.0
    }
}

/// A process that a `gt` has started to replace itself. It ends with the test.
pub struct Successor {
    pub pid: u32,
}

impl Successor {
    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.pid);
        let status = Command::new("sh").args(["-c", &kill]).status();
        assert!(status.expect("run sh").success(), "{kill}");
    }

    fn runs(&self) -> bool {
        // A zombie stays until its parent reaps it; it has no program any more.
        let program = std::fs::read_link(format!("/proc/{}/exe", self.pid));
        program.is_ok_and(|program| program.ends_with("gt"))
    }

    /// Waits until the process is gt and handles a signal, given by its number.
    pub fn wait_until_it_handles(&self, signal: u32) {
        eventually("gt to handle a signal", || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
            let mut caught = status
                .lines()
                .filter_map(|line| line.strip_prefix("SigCgt:"));
            let caught = u64::from_str_radix(caught.next()?.trim(), 16).expect("a mask");
            (self.runs() && caught >> (signal - 1) & 1 == 1).then_some(())
        });
    }

    /// Waits until the process has ended.
    pub fn wait_for_end(&self) {
        let what = format!("process {} to end", self.pid);
        eventually(&what, || (!self.runs()).then_some(()));
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if self.runs() {
            self.signal("KILL");
        }
    }
}
