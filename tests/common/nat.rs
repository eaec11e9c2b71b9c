//! A small internet in network namespaces: a middle that everyone can reach, and two homes, each
//! behind a NAT router. Needs root, ip and nft.

use super::process::{run, run_ok};
use super::unique;
use std::process::Command;

/// The address of the middle.
pub const MIDDLE: &str = "203.0.113.1";

/// How a router treats UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// Answers come in only from addresses that something was sent to.
    PortRestricted,
    /// Everything that is sent to the mapped address comes in.
    FullCone,
    /// Everything comes in from hosts that something was sent to.
    AddressRestricted,
    /// Each destination gets another port, and answers come in only from there.
    Symmetric,
    /// The same, and each port is the one before and 1.
    SymmetricRegular,
    /// No UDP passes.
    Blocked,
}

/// The namespaces. Dropping this removes them.
pub struct Internet {
    name: String,
}

/// Returns why the namespaces cannot be created here, if they cannot.
pub fn missing() -> Option<String> {
    let probe = "ip netns add gt-probe-$$ && ip netns exec gt-probe-$$ nft list tables; \
                 code=$?; ip netns del gt-probe-$$; exit $code";
    let output = run(Command::new("sh").args(["-c", probe]));
    let said = String::from_utf8_lossy(&output.stderr);
    (!output.status.success()).then(|| format!("no namespaces with nft: {}", said.trim()))
}

impl Internet {
    /// Creates the first home behind `a`, the second behind `b`.
    pub fn new(a: Nat, b: Nat) -> Internet {
        let name = format!("gt{}", unique());
        let internet = Internet { name };
        internet.shell("ip netns add $N-middle; ip -n $N-middle link set lo up");
        internet.home('a', 113, a);
        internet.home('b', 114, b);
        let forward = "ip netns exec $N-middle sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'";
        internet.shell(forward);
        internet
    }

    fn home(&self, home: char, net: u8, nat: Nat) {
        // An interface name has at most 15 characters.
        let id = unique();
        self.shell(&format!(
            "R=$N-router-{home}; H=$N-home-{home}
             ip netns add $R; ip netns add $H
             ip -n $R link set lo up; ip -n $H link set lo up
             ip -n $R link add wan type veth peer name m{home}{id}
             ip -n $R link set m{home}{id} netns $N-middle name to-{home}
             ip -n $R link add lan type veth peer name eth0
             ip -n $R link set eth0 netns $H
             ip -n $N-middle addr add 203.0.{net}.1/24 dev to-{home}
             ip -n $N-middle link set to-{home} up
             ip -n $R addr add 203.0.{net}.2/24 dev wan; ip -n $R link set wan up
             ip -n $R addr add 10.{net}.0.1/24 dev lan; ip -n $R link set lan up
             ip -n $H addr add 10.{net}.0.2/24 dev eth0; ip -n $H link set eth0 up
             ip -n $R route add default via 203.0.{net}.1
             ip -n $H route add default via 10.{net}.0.1
             ip netns exec $R sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'"
        ));
        let how = match nat {
            Nat::Symmetric => "masquerade fully-random".to_owned(),
            Nat::SymmetricRegular => {
                let port = |n: u32| format!("{n} : 203.0.{net}.2 . {}", 40_000 + n);
                let ports: Vec<_> = (0..2000).map(port).collect();
                format!(
                    "meta l4proto udp snat ip addr . port to numgen inc mod 2000 map {{ {} }}
                     add rule ip nat post oifname wan masquerade",
                    ports.join(", ")
                )
            }
            _ => "masquerade".to_owned(),
        };
        let mut rules = format!(
            "add table ip nat
             add chain ip nat post {{ type nat hook postrouting priority 100; }}
             add rule ip nat post oifname wan {how}
             add chain ip nat pre {{ type nat hook prerouting priority -100; }}
             add table ip filter
             add chain ip filter forward {{ type filter hook forward priority 0; }}
             add chain ip filter input {{ type filter hook input priority 0; }}\n"
        );
        rules += &match nat {
            Nat::FullCone => {
                format!("add rule ip nat pre iifname wan meta l4proto udp dnat to 10.{net}.0.2\n")
            }
            Nat::AddressRestricted => format!(
                "add set ip filter sent {{ type ipv4_addr; flags dynamic; timeout 60s; }}
                 add rule ip filter forward oifname wan meta l4proto udp update @sent {{ ip daddr }}
                 add chain ip filter pre {{ type nat hook prerouting priority -100; }}
                 add rule ip filter pre iifname wan meta l4proto udp ip saddr @sent dnat to 10.{net}.0.2
                 add rule ip filter input iifname wan ct state new meta l4proto udp drop\n"
            ),
            Nat::Blocked => "add rule ip filter forward meta l4proto udp drop\n".to_owned(),
            // Unsolicited datagrams are dropped silently and leave no state, unless a port is mapped.
            Nat::PortRestricted | Nat::Symmetric | Nat::SymmetricRegular => {
                "add rule ip filter input iifname wan ct state new meta l4proto udp drop
                 add rule ip filter forward iifname wan ct state new ct status & dnat == 0 meta l4proto udp drop\n"
                    .to_owned()
            }
        };
        self.shell(&format!("ip netns exec $N-router-{home} nft '{rules}'"));
    }

    /// Runs a script in which `$N-` begins the names of the namespaces.
    pub fn shell(&self, script: &str) {
        let script = format!("set -e; N={}; {script}", self.name);
        run_ok(Command::new("sh").args(["-c", &script]));
    }

    /// Returns the namespace of a `place`: `middle`, `home-a`, `router-a`, `home-b`, `router-b`.
    pub fn place(&self, place: &str) -> String {
        format!("{}-{place}", self.name)
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        for place in ["middle", "router-a", "router-b", "home-a", "home-b"] {
            let _ = Command::new("ip")
                .args(["netns", "del", &self.place(place)])
                .status();
        }
    }
}
