//! Debian's miniupnpd on the router of a home: a gateway with PCP, NAT-PMP and UPnP.

use super::nat::Internet;
use super::process::{run_ok, Process};
use super::scratch::Scratch;
use std::process::Command;

/// The protocols that the router may speak. PCP and NAT-PMP share one option of miniupnpd, and a firewall tells
/// them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapProtocol {
    Pcp,
    NatPmp,
    Upnp,
}

impl MapProtocol {
    pub const ALL: [MapProtocol; 3] = [Self::Pcp, Self::NatPmp, Self::Upnp];

    /// Returns the name in gt's log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        }
    }
}

/// Starts miniupnpd on the router of home b, whose public address is 203.0.114.2.
pub fn start(internet: &Internet, protocol: MapProtocol) -> Process {
    let scratch = Scratch::new();
    let yes = |is: bool| if is { "yes" } else { "no" };
    let router = internet.place("router-b");
    let config = format!(
        "ext_ifname=wan\nlistening_ip=lan\nport=5000\nenable_natpmp={}\nenable_upnp={}\n\
         secure_mode=yes\nsystem_uptime=no\nmin_lifetime=120\nmax_lifetime=86400\n\
         uuid=6a49f3fb-5711-4c07-a5c0-ad2ad9e5ffc4\n\
         allow 1024-65535 10.114.0.0/24 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n",
        yes(protocol != MapProtocol::Upnp),
        yes(protocol == MapProtocol::Upnp),
    );
    scratch.file("miniupnpd.conf", &config);
    // The chains that Debian's scripts make.
    let rules = "add table inet filter
        add chain inet filter forward { type filter hook forward priority 0; }
        add chain inet filter miniupnpd
        add rule inet filter forward jump miniupnpd
        add chain inet filter prerouting { type nat hook prerouting priority -100; }
        add chain inet filter postrouting { type nat hook postrouting priority 99; }
        add chain inet filter prerouting_miniupnpd
        add chain inet filter postrouting_miniupnpd
        add rule inet filter prerouting jump prerouting_miniupnpd
        add rule inet filter postrouting jump postrouting_miniupnpd";
    let mut nft = Command::new("ip");
    nft.args(["netns", "exec", &router, "nft", rules]);
    run_ok(&mut nft);
    if protocol == MapProtocol::NatPmp {
        // As a router that is too old for PCP, and does not answer it.
        let rule = "add chain inet filter old { type filter hook input priority 0; }
            add rule inet filter old udp dport 5351 @th,64,8 2 drop";
        run_ok(Command::new("ip").args(["netns", "exec", &router, "nft", rule]));
    }
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &router, "miniupnpd", "-d", "-f"]);
    command.arg(scratch.join("miniupnpd.conf"));
    command.arg("-P").arg(scratch.join("pid"));
    Process::spawn("miniupnpd", scratch, &mut command)
}
