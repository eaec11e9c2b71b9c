//! A small internet of IPv6 alone: a middle, and two homes, each behind a router with a firewall and without NAT. Needs
//! root, ip and nft.

use super::process::run_ok;
use super::unique;
use std::process::Command;

/// The address of the middle.
pub const MIDDLE: &str = "[2001:db8:115::1]";

/// The namespaces. Dropping this removes them.
pub struct Internet6 {
    name: String,
}

impl Internet6 {
    /// Creates the namespaces.
    pub fn new() -> Internet6 {
        let internet = Internet6 {
            name: format!("gt{}", unique()),
        };
        internet.shell(
            "ip netns add $N-middle; ip -n $N-middle link set lo up
             ip -n $N-middle addr add 2001:db8:115::1/128 dev lo
             ip netns exec $N-middle sh -c 'echo 1 > /proc/sys/net/ipv6/conf/all/forwarding'",
        );
        for (home, net) in [('a', 113), ('b', 114)] {
            internet.home(home, net);
        }
        internet
    }

    fn home(&self, home: char, net: u8) {
        let (wan, lan) = (format!("2001:db8:{net}:1:"), format!("2001:db8:{net}:2:"));
        self.shell(&format!(
            "R=$N-router-{home}; H=$N-home-{home}
             ip netns add $R; ip netns add $H
             ip -n $R link set lo up; ip -n $H link set lo up
             ip -n $R link add wan type veth peer name to-{home} netns $N-middle
             ip -n $R link add lan type veth peer name eth0 netns $H
             ip netns exec $R sh -c 'echo 1 > /proc/sys/net/ipv6/conf/all/forwarding'
             ip -n $N-middle addr add {wan}:1/64 dev to-{home} nodad
             ip -n $N-middle link set to-{home} up
             ip -n $N-middle route add {lan}:/64 via {wan}:2
             ip -n $R addr add {wan}:2/64 dev wan nodad; ip -n $R link set wan up
             ip -n $R addr add {lan}:1/64 dev lan nodad; ip -n $R link set lan up
             ip -n $H addr add {lan}:2/64 dev eth0 nodad; ip -n $H link set eth0 up
             ip -n $R route add default via {wan}:1
             ip -n $H route add default via {lan}:1
             ip netns exec $R nft 'add table inet f
                add chain inet f forward {{ type filter hook forward priority 0; }}
                add rule inet f forward iifname wan ct state new drop'"
        ));
    }

    fn shell(&self, script: &str) {
        let script = format!("set -e; N={}; {script}", self.name);
        run_ok(Command::new("sh").args(["-c", &script]));
    }

    /// Returns the namespace of a `place`: `middle`, `home-a`, `home-b`.
    pub fn place(&self, place: &str) -> String {
        format!("{}-{place}", self.name)
    }
}

impl Drop for Internet6 {
    fn drop(&mut self) {
        for place in ["middle", "router-a", "router-b", "home-a", "home-b"] {
            let place = self.place(place);
            let _ = Command::new("ip").args(["netns", "del", &place]).status();
        }
    }
}
