//! A client's machine with two links to a server's, in network namespaces. Needs root, ip and nft.

use super::process::run_ok;
use super::unique;
use std::process::{Child, Command, Stdio};

/// The server's address, which both links lead to.
pub const SERVER: &str = "203.0.113.1";

/// The namespaces of a server and of a client, with the links `wan` (10.1.0.2) and `wanb` (10.2.0.2)
/// between them. The system prefers `wan`. Dropping this removes them.
pub struct TwoLinks {
    name: String,
}

impl TwoLinks {
    /// Creates the namespaces.
    pub fn new() -> TwoLinks {
        let links = TwoLinks {
            name: format!("gt{}", unique()),
        };
        links.shell("ip netns add $N-server; ip netns add $N-client");
        for (number, wan) in [(1, "wan"), (2, "wanb")] {
            links.shell(&format!(
                "ip -n $N-client link add {wan} type veth peer name to-{wan} netns $N-server
                 ip -n $N-server addr add 10.{number}.0.1/24 dev to-{wan}
                 ip -n $N-server link set to-{wan} up
                 ip -n $N-client addr add 10.{number}.0.2/24 dev {wan}
                 ip -n $N-client link set {wan} up
                 ip -n $N-client route add default via 10.{number}.0.1 metric {number}
                 ip -n $N-client route add default via 10.{number}.0.1 table {number}
                 ip -n $N-client rule add from 10.{number}.0.2 table {number}"
            ));
        }
        links.shell(&format!(
            "ip -n $N-server addr add {SERVER}/32 dev lo; ip -n $N-server link set lo up
             ip -n $N-client link set lo up
             ip netns exec $N-server nft add table ip filter
             ip netns exec $N-server nft add chain ip filter input '{{ type filter hook input priority 0; }}'"
        ));
        links
    }

    /// Runs a script in which `$N-server` and `$N-client` are the namespaces.
    pub fn shell(&self, script: &str) {
        let script = format!("set -e; N={}; {script}", self.name);
        run_ok(Command::new("sh").args(["-c", &script]));
    }

    /// Returns the namespace of a `place`: `server` or `client`.
    pub fn place(&self, place: &str) -> String {
        format!("{}-{place}", self.name)
    }

    /// Lets `name` have these addresses on the client's machine.
    pub fn name(&self, name: &str, addresses: &[&str]) {
        let folder = format!("/etc/netns/{}", self.place("client"));
        let lines = addresses
            .iter()
            .map(|address| format!("{address} {name}\n"));
        std::fs::create_dir_all(&folder).expect("create a folder for names");
        std::fs::write(format!("{folder}/hosts"), lines.collect::<String>()).expect("write names");
    }

    /// Visits `id1` at the server and returns whether the service has answered.
    pub fn is_served(&self) -> bool {
        self.visit("timeout 2 head -c 12") == b"HTTP/1.1 200"
    }

    /// Visits `id1` at the server and returns all that has come within a second.
    pub fn fetch(&self) -> Vec<u8> {
        self.visit("timeout 1 cat")
    }

    /// Starts to visit `id1` at the server, and returns the visitor, whose output is what has come.
    pub fn visitor(&self) -> Child {
        let mut visitor = self.visit_by("cat");
        visitor.stdout(Stdio::piped()).spawn().expect("run ip")
    }

    fn visit(&self, reader: &str) -> Vec<u8> {
        self.visit_by(reader).output().expect("run ip").stdout
    }

    fn visit_by(&self, reader: &str) -> Command {
        let ask = format!(
            "exec 3<>/dev/tcp/127.0.0.1/8080; printf 'GET / HTTP/1.0\\r\\nHost: id1.a\\r\\n\\r\\n' >&3; \
             {reader} <&3"
        );
        let mut visitor = Command::new("ip");
        visitor.args(["netns", "exec", &self.place("server"), "bash", "-c", &ask]);
        visitor
    }
}

impl Drop for TwoLinks {
    fn drop(&mut self) {
        for place in ["server", "client"] {
            let place = self.place(place);
            let _ = Command::new("ip").args(["netns", "del", &place]).status();
            let _ = std::fs::remove_dir_all(format!("/etc/netns/{place}"));
        }
    }
}
