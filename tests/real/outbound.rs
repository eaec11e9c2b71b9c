//! Proxies that a client reaches its server through. Needs tinyproxy, squid, microsocks and dante-server.

use crate::common::certs::{self, Certs};
use crate::common::gt::{client, server, Gt};
use crate::common::ports::free_port;
use crate::common::process::{run_ok, Process};
use crate::common::scratch::Scratch;
use crate::common::service::{self, Service};
use crate::common::visitor::get;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

/// A server that listens for tunnels over TLS, and for visitors.
struct Setup {
    server: Gt,
    visitors: SocketAddr,
    tls_port: u16,
    certs: Certs,
    web: Service,
}

impl Setup {
    fn new() -> Setup {
        let certs = certs::make();
        // A proxy may prefer either address of localhost.
        let mut server = server(&format!(
            "-addr :0 -tlsAddr :0 {} -id id1 -secret secret1",
            certs.flags()
        ));
        let visitors = (Ipv4Addr::LOCALHOST, server.addr().port()).into();
        Setup {
            visitors,
            tls_port: server.tls_addr().port(),
            web: service::http(0, "web"),
            server,
            certs,
        }
    }

    /// Starts a client whose proxy looks up the server's name.
    fn client(&self, proxy: &str) -> Gt {
        client(&format!(
            "-remote tls://localhost:{} -remoteCert {} -remoteProxy {proxy} -id id1 -secret secret1 \
             -reconnectDelay 100ms -local http://{} -logLevel debug",
            self.tls_port,
            self.certs.ca.display(),
            self.web.addr
        ))
    }

    /// Checks that visitors are served through this proxy.
    fn assert_serves(&mut self, proxy: &str) {
        let mut client = self.client(proxy);
        client.wait_for_tunnel();
        assert_eq!(get(self.visitors, "id1.a", "/").status, 200, "{proxy}");
        client.stop();
        assert!(!client.log().contains("hush"), "{}", client.log());
        assert!(!self.server.opened().is_empty());
    }

    /// Checks that a client tells this of its proxy.
    fn assert_fails(&self, proxy: &str, why: &str) {
        let mut client = self.client(proxy);
        let line = client.wait_for_failure();
        assert!(line.contains(why), "{proxy}: {line}");
        client.stop();
        assert!(!client.log().contains("hush"), "{}", client.log());
    }
}

fn start(name: &str, scratch: Scratch, port: u16, command: &mut Command) -> (Process, SocketAddr) {
    let mut process = Process::spawn(name, scratch, command);
    let addr = process.wait_for_listener(port);
    (process, addr)
}

#[test]
fn tinyproxy_with_a_password() {
    let mut setup = Setup::new();
    let (port, scratch) = (free_port(), Scratch::new());
    let config = scratch.file(
        "tinyproxy.conf",
        format!(
            "Listen 127.0.0.1\nPort {port}\nTimeout 600\nBasicAuth user hush\nConnectPort {}\n",
            setup.tls_port
        ),
    );
    let mut command = Command::new("tinyproxy");
    command.arg("-d").arg("-c").arg(config);
    let (_proxy, addr) = start("tinyproxy", scratch, port, &mut command);
    setup.assert_serves(&format!("http://user:hush@{addr}"));
    let asks = "it asks for a name and a password";
    setup.assert_fails(&format!("http://{addr}"), asks);
    let refuses = "it does not accept the name and the password in remoteProxy";
    setup.assert_fails(&format!("http://user:hushed@{addr}"), refuses);
}

#[test]
fn squid_with_a_password_and_its_usual_ports() {
    let mut setup = Setup::new();
    let (port, scratch) = (free_port(), Scratch::new());
    let mut hashing = Command::new("openssl");
    let hash = run_ok(hashing.args(["passwd", "-apr1", "-salt", "salt", "h:sh@"]));
    let passwords = scratch.file("passwords", format!("user:{hash}"));
    let config = |ports: &str| {
        format!(
            "http_port 127.0.0.1:{port}\npid_filename none\naccess_log none\ncache_log stdio:/dev/null\n\
             cache deny all\npinger_enable off\nshutdown_lifetime 0 seconds\ncoredump_dir /\n\
             auth_param basic program /usr/lib/squid/basic_ncsa_auth {}\n\
             acl known proxy_auth REQUIRED\nacl SSL_ports port {ports}\nacl CONNECT method CONNECT\n\
             http_access deny CONNECT !SSL_ports\nhttp_access allow known\nhttp_access deny all\n",
            passwords.display()
        )
    };
    let file = scratch.file("squid.conf", config(&format!("443 {}", setup.tls_port)));
    let start_squid = |scratch| {
        let mut command = Command::new("squid");
        command.args(["-N", "-f"]).arg(&file);
        start("squid", scratch, port, &mut command)
    };
    // Squid gives up root, and has to read the passwords.
    run_ok(
        Command::new("chmod")
            .arg("-R")
            .arg("a+rX")
            .arg(scratch.path()),
    );
    let (mut proxy, addr) = start_squid(Scratch::new());
    setup.assert_serves(&format!("http://user:h%3ash%40@{addr}"));
    setup.assert_fails(
        &format!("http://{addr}"),
        "it asks for a name and a password",
    );
    proxy.kill();
    std::fs::write(&file, config("443")).expect("change squid's configuration");
    let (_proxy, addr) = start_squid(Scratch::new());
    let refuses = "many proxies allow port 443 only (status 403)";
    setup.assert_fails(&format!("http://user:h%3ash%40@{addr}"), refuses);
}

#[test]
fn microsocks_with_a_password() {
    let mut setup = Setup::new();
    let port = free_port();
    let mut command = Command::new("microsocks");
    command.args(["-i", "127.0.0.1", "-p", &port.to_string()]);
    command.args(["-u", "user", "-P", "hush"]);
    let (_proxy, addr) = start("microsocks", Scratch::new(), port, &mut command);
    setup.assert_serves(&format!("socks5://user:hush@{addr}"));
    let asks = "it asks for a name and a password";
    setup.assert_fails(&format!("socks5://{addr}"), asks);
    let refuses = "it does not accept the name and the password in remoteProxy";
    setup.assert_fails(&format!("socks5://user:hushed@{addr}"), refuses);
}

#[test]
fn dante_without_a_password_and_with_rules() {
    let mut setup = Setup::new();
    let (port, scratch) = (free_port(), Scratch::new());
    let config = |verdict: &str| {
        format!(
            "logoutput: stderr\ninternal: 127.0.0.1 port = {port}\nexternal: lo\n\
             clientmethod: none\nsocksmethod: none\nuser.privileged: root\nuser.unprivileged: nobody\n\
             client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}\n\
             socks {verdict} {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}\n"
        )
    };
    for verdict in ["pass", "block"] {
        let config = scratch.file("danted.conf", config(verdict));
        let mut command = Command::new("danted");
        command.arg("-f").arg(config);
        let (mut proxy, addr) = start("danted", Scratch::new(), port, &mut command);
        match verdict {
            "pass" => setup.assert_serves(&format!("socks5://{addr}")),
            _ => setup.assert_fails(
                &format!("socks5://{addr}"),
                "it does not allow a connection to this server and port",
            ),
        }
        proxy.signal("TERM");
        proxy.exit();
    }
}
