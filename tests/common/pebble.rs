//! pebble, an authority for tests (ACME), with its server of names, for which every name is this machine.

use super::certs::Certs;
use super::ports::{free_port, free_ports};
use super::process::Process;
use super::scratch::Scratch;
use std::process::Command;

pub struct Pebble {
    port: u16,
    tls_port: u16,
    http_port: u16,
    ca: std::path::PathBuf,
    process: Process,
    _names: Process,
}

/// Starts pebble with these variables. It validates names at two ports that are free.
pub fn start(certs: &Certs, variables: &[(&str, &str)]) -> Pebble {
    let ports = free_ports(3);
    let (port, management) = (ports, ports + 1);
    let (tls_port, http_port) = (free_port(), free_port());
    let names_port = ports + 2;
    let mut command = Command::new("pebble-challtestsrv");
    let of_names = format!("127.0.0.1:{names_port}");
    command.args(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
    command.args(["-defaultIPv6", "", "-dns01", &of_names]);
    let management_of_names = format!("127.0.0.1:{}", free_port());
    command.args(["-management", &management_of_names]);
    let mut names = Process::spawn("pebble-challtestsrv", Scratch::new(), &mut command);
    names.wait_for("Starting management server");
    let scratch = Scratch::new();
    let config = scratch.file(
        "pebble.json",
        format!(
            r#"{{"pebble": {{"listenAddress": "127.0.0.1:{port}", "managementListenAddress": "127.0.0.1:{management}",
            "certificate": "{}", "privateKey": "{}", "httpPort": {http_port}, "tlsPort": {tls_port}}}}}"#,
            certs.cert.display(),
            certs.key.display()
        ),
    );
    let process = spawn(scratch, &config, &of_names, variables, port);
    Pebble {
        port,
        tls_port,
        http_port,
        ca: certs.ca.clone(),
        process,
        _names: names,
    }
}

fn spawn(
    scratch: Scratch,
    config: &std::path::Path,
    names: &str,
    variables: &[(&str, &str)],
    port: u16,
) -> Process {
    let mut command = Command::new("pebble");
    command.arg("-config").arg(config);
    command.args(["-strict", "-dnsserver", names]);
    command.env("PEBBLE_VA_NOSLEEP", "1");
    command.envs(variables.iter().copied());
    let mut process = Process::spawn("pebble", scratch, &mut command);
    process.wait_for_listener(port);
    process
}

impl Pebble {
    /// Returns the port at which names are validated over TLS.
    pub fn tls_port(&self) -> u16 {
        self.tls_port
    }

    /// Returns the port at which names are validated over HTTP.
    pub fn http_port(&self) -> u16 {
        self.http_port
    }

    /// Returns the flags of a server that gets certificates for `domain` from pebble.
    pub fn flags(&self, domain: &str) -> String {
        format!(
            "-acmeDomain {domain} -acmeEmail admin@example.com -acmeDirectory {} -acmeCA {}",
            self.url(),
            self.ca.display()
        )
    }

    /// Returns the URL of the directory.
    pub fn url(&self) -> String {
        format!("https://localhost:{}/dir", self.port)
    }

    /// Returns how many requests with this in their line pebble has had.
    pub fn requests(&self, what: &str) -> usize {
        self.process.lines_with(what).len()
    }

    /// Returns the output of pebble.
    pub fn log(&self) -> String {
        self.process.log()
    }
}
