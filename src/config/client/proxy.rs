//! A proxy that the client serves itself (`socks5:`, `httpproxy:`), and where its visitors may go
//! (`targets`). Not the proxy. Builds without proxies have `no_proxy`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::local::Local;
use crate::config::value::Scalar;
use crate::config::{AddressRules, Domain, Network, PortRange};

/// The protocol of a proxy that the client serves itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    /// SOCKS5 (RFC 1928).
    Socks5,
    /// HTTP (RFC 9110, sections 7 and 9.3.6).
    Http,
}

impl ProxyKind {
    /// Reads the `local` of a proxy; `None` if it is one of another service. The error is a sentence.
    pub fn read(text: &str) -> Option<Result<Self, String>> {
        let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
        let kind = match scheme.to_ascii_lowercase().as_str() {
            "socks5" => Self::Socks5,
            "httpproxy" => Self::Http,
            _ => return None,
        };
        Some(match rest {
            "" | "//" => Ok(kind),
            _ => Err(format!(
                "\"{text}\" names the address of a proxy, but gt is the proxy itself: write {kind} alone, \
                 or tcp://host:port for one that runs elsewhere."
            )),
        })
    }
}

/// Whether a proxy can carry datagrams, if it has a UDP port beside its TCP port.
pub fn has_udp(kind: ProxyKind) -> bool {
    kind == ProxyKind::Socks5
}

impl fmt::Display for ProxyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProxyKind::Socks5 => "socks5:",
            ProxyKind::Http => "httpproxy:",
        })
    }
}

/// Where visitors of a proxy may go: a network or a name, with ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    place: TargetPlace,
    /// `None` for all.
    ports: Option<PortRange>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum TargetPlace {
    Network(Network),
    Name(Domain),
}

impl Scalar for Target {
    fn read(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "\"{text}\" is not a target: {why}. Write it like 192.168.1.0/24, 192.168.1.5:80, \
                 [fd00::/8]:8000-8010, nas.lan:445 or *.lan."
            )
        };
        let network = |text: &str| Network::read(text).ok().map(TargetPlace::Network);
        let ports =
            |ports: &str| PortRange::read(ports).map_err(|_| wrong("its ports are not any"));
        if let Some(rest) = text.strip_prefix('[') {
            let (inside, behind) = rest.split_once(']').ok_or_else(|| wrong("it has no ]"))?;
            let place = network(inside).filter(|_| inside.contains(':'));
            let place = place.ok_or_else(|| wrong("there is no IPv6 network in its brackets"))?;
            let ports = match behind.strip_prefix(':') {
                Some(text) => Some(ports(text)?),
                None if behind.is_empty() => None,
                None => return Err(wrong("only ports may follow its brackets")),
            };
            return Ok(Self { place, ports });
        }
        if let Some(place) = network(text) {
            return Ok(Self { place, ports: None });
        }
        let (place, ports) = match text.rsplit_once(':') {
            Some((place, text)) => (place, Some(ports(text)?)),
            None => (text, None),
        };
        if place.contains([':', '/']) {
            let place = network(place).filter(|_| !place.contains(':'));
            let place = place.ok_or_else(|| wrong("its network is not one"))?;
            return Ok(Self { place, ports });
        }
        let place = match network(place) {
            Some(network) => network,
            None => TargetPlace::Name(name(place).map_err(|why| wrong(&why))?),
        };
        Ok(Self { place, ports })
    }
}

/// Reads a name of targets. The error says what is wrong.
fn name(text: &str) -> Result<Domain, String> {
    let domain = Domain::parse(text)?;
    let name = domain.as_str();
    let last = name.rsplit('.').next().unwrap_or_default();
    if name == "*" {
        return Err(
            "* is any name, and names lead anywhere; 0.0.0.0/0 and ::/0 are all addresses".into(),
        );
    }
    if last.starts_with(|first: char| first.is_ascii_digit()) {
        return Err("it is neither an address nor a name".to_owned());
    }
    if last == "localhost" {
        return Err("a name does not lead to this machine; 127.0.0.1 and ::1 do".to_owned());
    }
    Ok(domain)
}

/// Whether any address of a name may be a target at this port, so that it makes sense to look it up.
pub fn may_be(targets: &[Target], name: &str, port: u16) -> bool {
    let may_be = |target: &Target| {
        target.has_port(port)
            && match &target.place {
                TargetPlace::Network(_) => true,
                TargetPlace::Name(domain) => is_name(domain, name),
            }
    };
    targets.is_empty() || targets.iter().any(may_be)
}

/// Whether visitors may go to an address, which they have named so or by a name that has it. Without
/// targets, they may go to private networks.
///
/// This machine itself (loopback) and link-local addresses, among which are the metadata of clouds, are
/// targets only by a network of such addresses alone: not by a name, and not by `0.0.0.0/0`. So are those
/// IPv4 addresses that an IPv6 address stands for.
pub fn allow(targets: &[Target], name: Option<&str>, addr: SocketAddr) -> bool {
    let (ip, port) = (addr.ip().to_canonical(), addr.port());
    let allows = |ip| {
        let range = AddressRange::of(ip);
        let allows = |target: &Target| target.has_port(port) && target.leads_to(name, ip, range);
        match targets {
            _ if range == AddressRange::Unusable => false,
            [] => is_private(ip),
            targets => targets.iter().any(allows),
        }
    };
    allows(ip) && embedded(ip).is_none_or(|inner| allows(inner.into()))
}

impl Target {
    fn has_port(&self, port: u16) -> bool {
        self.ports
            .is_none_or(|ports| (ports.first..=ports.last).contains(&port))
    }

    fn leads_to(&self, name: Option<&str>, ip: IpAddr, range: AddressRange) -> bool {
        match &self.place {
            TargetPlace::Network(network) => {
                let is_of_range = || {
                    let ends = network.ends();
                    ends.into_iter().all(|end| AddressRange::of(end) == range)
                };
                network.contains(ip) && (range == AddressRange::Ordinary || is_of_range())
            }
            TargetPlace::Name(domain) => {
                range == AddressRange::Ordinary && name.is_some_and(|name| is_name(domain, name))
            }
        }
    }
}

/// Whether a host name, in lower case and without a dot at its end, is a domain or below it.
fn is_name(domain: &Domain, name: &str) -> bool {
    match domain.as_str().strip_prefix('*') {
        Some(tail) => name.len() > tail.len() && name.ends_with(tail),
        None => name == domain.as_str(),
    }
}

/// Whether an address is one of the private networks (RFC 1918, RFC 4193). Those that providers share
/// between their customers (RFC 6598) are not.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

/// What an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AddressRange {
    Ordinary,
    /// This machine itself.
    Loopback,
    /// The network of one interface, with the metadata of clouds (169.254.169.254).
    LinkLocal,
    /// Of no single machine: the kernel would take 0.0.0.0 for this one.
    Unusable,
}

impl AddressRange {
    fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) if ip.is_loopback() => Self::Loopback,
            IpAddr::V4(ip) if ip.is_link_local() => Self::LinkLocal,
            IpAddr::V4(ip) => match ip.octets() {
                [0 | 224.., ..] => Self::Unusable,
                _ => Self::Ordinary,
            },
            IpAddr::V6(ip) if ip.is_loopback() => Self::Loopback,
            IpAddr::V6(ip) if ip.is_unicast_link_local() => Self::LinkLocal,
            IpAddr::V6(ip) if ip.is_unspecified() || ip.is_multicast() => Self::Unusable,
            IpAddr::V6(_) => Self::Ordinary,
        }
    }
}

/// Returns the IPv4 address to which a gateway may pass on what is sent to an IPv6 address: of NAT64
/// (RFC 6052, RFC 8215), of 6to4 (RFC 3056), or an IPv4-compatible one (RFC 4291, section 2.5.5.1).
fn embedded(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(ip) = ip else {
        return None;
    };
    let last = || Some(Ipv4Addr::from_bits((ip.to_bits() & 0xFFFF_FFFF) as u32));
    match ip.segments() {
        [0x64, 0xFF9B, 0, 0, 0, 0, ..] | [0x64, 0xFF9B, 1, ..] => last(),
        [0x2002, high, low, ..] => {
            Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        [0, 0, 0, 0, 0, 0, ..] if ip != Ipv6Addr::LOCALHOST => last(),
        _ => None,
    }
}

/// Checks that not everyone may use a proxy to go into the private networks. The error is a sentence
/// about the service `name`.
pub fn check(
    name: &str,
    local: &Local,
    targets: &[Target],
    visitors: &AddressRules,
    has_password: bool,
) -> Result<(), String> {
    if !matches!(local, Local::Proxy(_)) || !targets.is_empty() {
        return Ok(());
    }
    match has_password || visitors.restrict() {
        true => Ok(()),
        false => Err(format!(
            "{name} ({local}) would let anyone on the internet into the networks of this machine: give it a \
             password, or the networks that its visitors come from (allow), or the targets that anyone may \
             reach."
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn targets(texts: &[&str]) -> Vec<Target> {
        let read = |text: &&str| Target::read(text).unwrap_or_else(|e| panic!("{e}"));
        texts.iter().map(read).collect()
    }

    fn allows(texts: &[&str], name: Option<&str>, addr: &str) -> bool {
        allow(&targets(texts), name, addr.parse().unwrap())
    }

    #[test]
    fn the_default_targets_are_private_networks_alone() {
        for (addr, is) in [
            ("10.0.0.1:80", true),
            ("172.16.0.1:1", true),
            ("172.31.255.255:65535", true),
            ("192.168.1.1:22", true),
            ("[fd00::1]:80", true),
            ("[fc00::1]:80", true),
            ("[::ffff:192.168.1.1]:80", true),
            ("172.32.0.1:80", false),
            ("192.169.0.1:80", false),
            ("8.8.8.8:53", false),
            ("100.64.0.1:80", false),
            ("127.0.0.1:80", false),
            ("0.0.0.0:80", false),
            ("169.254.169.254:80", false),
            ("224.0.0.1:80", false),
            ("255.255.255.255:80", false),
            ("[::1]:80", false),
            ("[::]:80", false),
            ("[fe80::1]:80", false),
            ("[ff02::1]:80", false),
            ("[2001:db8::1]:80", false),
            ("[::ffff:127.0.0.1]:80", false),
            ("[::ffff:0.0.0.0]:80", false),
            ("[::ffff:169.254.169.254]:80", false),
            ("[::192.168.1.1]:80", false),
            ("[2002:c0a8:101::]:80", false),
            ("[64:ff9b::c0a8:101]:80", false),
        ] {
            assert_eq!(allows(&[], None, addr), is, "{addr}");
            assert_eq!(allows(&[], Some("nas.lan"), addr), is, "{addr}");
        }
    }

    #[test]
    fn a_target_is_a_network_or_a_name_with_ports() {
        for (text, name, addr, is) in [
            ("192.0.2.0/24", None, "192.0.2.7:1", true),
            ("192.0.2.0/24", None, "192.0.3.7:1", false),
            ("192.0.2.0/24:80-90", None, "192.0.2.7:90", true),
            ("192.0.2.0/24:80-90", None, "192.0.2.7:91", false),
            ("192.0.2.7:80", None, "192.0.2.7:80", true),
            ("192.0.2.7:80", None, "[::ffff:192.0.2.7]:80", true),
            ("::ffff:192.0.2.7", None, "192.0.2.7:80", true),
            ("192.0.2.7", None, "192.0.2.8:80", false),
            ("2001:db8::/32", None, "[2001:db8::1]:1", true),
            ("[2001:db8::/32]", None, "[2001:db8::1]:1", true),
            ("[2001:db8::1]:443", None, "[2001:db8::1]:443", true),
            ("[2001:db8::1]:443", None, "[2001:db8::1]:444", false),
            ("nas.lan", Some("nas.lan"), "192.0.2.7:1", true),
            ("NAS.lan.:445", Some("nas.lan"), "192.0.2.7:445", true),
            ("nas.lan:445", Some("nas.lan"), "192.0.2.7:446", false),
            ("nas.lan", Some("a.nas.lan"), "192.0.2.7:1", false),
            ("nas.lan", None, "192.0.2.7:1", false),
            ("*.lan", Some("nas.lan"), "192.0.2.7:1", true),
            ("*.lan", Some("a.b.lan"), "192.0.2.7:1", true),
            ("*.lan", Some("lan"), "192.0.2.7:1", false),
            ("*.lan", Some("nas.xlan"), "192.0.2.7:1", false),
            ("192.0.2.0/24", Some("any.example"), "192.0.2.7:1", true),
        ] {
            assert_eq!(allows(&[text], name, addr), is, "{text} {name:?} {addr}");
            let port = addr.parse::<SocketAddr>().unwrap().port();
            if let Some(name) = name.filter(|_| is) {
                assert!(may_be(&targets(&[text]), name, port), "{text} {name}");
            }
        }
        assert!(!may_be(&targets(&["nas.lan:22", "*.b"]), "a.lan", 22));
        assert!(!may_be(&targets(&["nas.lan:22"]), "nas.lan", 23));
        assert!(may_be(&[], "a", 1) && may_be(&targets(&["10.0.0.0/8:1"]), "a", 1));
    }

    #[test]
    fn this_machine_and_link_local_addresses_are_targets_by_their_own_networks_alone() {
        let all = &["0.0.0.0/0", "::/0", "*.lan"][..];
        for (addr, own) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("127.0.0.1:80", "127.0.0.0/8"),
            ("[::1]:80", "::1"),
            ("169.254.169.254:80", "169.254.169.254"),
            ("[fe80::1]:80", "fe80::/10"),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1"),
        ] {
            assert!(!allows(all, Some("evil.lan"), addr), "{addr}");
            assert!(!allows(&["127.0.0.0/7", "fe80::/9"], None, addr), "{addr}");
            assert!(allows(&[own], None, addr), "{addr}");
            assert!(allows(&[own], Some("evil.lan"), addr), "{addr}");
        }
        for addr in [
            "0.0.0.0:80",
            "0.1.2.3:80",
            "[::]:80",
            "224.0.0.1:80",
            "240.0.0.1:80",
            "255.255.255.255:80",
            "[ff02::1]:80",
            "[::ffff:0.0.0.0]:80",
            // By a gateway, this machine or its provider's.
            "[64:ff9b::7f00:1]:80",
            "[64:ff9b::a9fe:a9fe]:80",
            "[64:ff9b:1::7f00:1]:80",
            "[2002:7f00:1::]:80",
            "[::7f00:1]:80",
            "[::2]:80",
        ] {
            assert!(!allows(all, Some("evil.lan"), addr), "{addr}");
        }
        for addr in [
            "8.8.8.8:53",
            "[2001:db8::1]:1",
            "[64:ff9b::808:808]:53",
            "10.0.0.1:1",
        ] {
            assert!(allows(all, None, addr), "{addr}");
        }
        assert!(!allows(&["::/0"], None, "[64:ff9b::808:808]:53"));
    }

    #[test]
    fn an_error_shows_how_to_write_a_target() {
        for text in [
            "*",
            "a b",
            "nas.lan:",
            "nas.lan:0",
            "nas.lan:a",
            "nas.lan:22,80",
            "10.0.0.0/33",
            "10.0.0.0/8:",
            "10.0.0.0/8:80:90",
            "2001:db8::/129",
            "[2001:db8::1",
            "[2001:db8::1]443",
            "[nas.lan]:22",
            "[10.0.0.1]:22",
            "http://nas.lan",
            "127.1",
            "0x7f.0.0.1",
            "1.2.3.4.5",
            "localhost",
            "a.localhost:80",
            "fe80::1%eth0",
            "-",
        ] {
            if let Ok(read) = Target::read(text) {
                assert_eq!(text, "-", "{text}: {read:?}");
                continue;
            }
            let error = Target::read(text).unwrap_err();
            assert!(error.contains("is not a target: "), "{error}");
            assert!(error.contains("Write it like 192.168.1.0/24, "), "{error}");
        }
    }

    #[test]
    fn every_way_to_write_a_proxy_is_read() {
        for (text, kind) in [
            ("socks5:", ProxyKind::Socks5),
            ("SOCKS5://", ProxyKind::Socks5),
            ("socks5", ProxyKind::Socks5),
            ("httpproxy:", ProxyKind::Http),
            ("httpproxy://", ProxyKind::Http),
        ] {
            assert_eq!(Local::read(text), Ok(Local::Proxy(kind)), "{text}");
            assert_eq!(Local::read(&kind.to_string()), Ok(Local::Proxy(kind)));
        }
        for text in [
            "socks5://127.0.0.1:1080",
            "httpproxy:a",
            "socks5:1080",
            "socks5:/",
        ] {
            let error = Local::read(text).unwrap_err();
            assert!(error.contains("gt is the proxy itself: write "), "{error}");
        }
        for text in ["socks", "socks4:", "socks5h://", "http:"] {
            assert!(Local::read(text).is_err(), "{text}");
        }
    }

    fn any_addr() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<u32>().prop_map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits))),
            any::<u128>().prop_map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits))),
            any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).to_ipv6_mapped().into()),
            any::<u32>().prop_map(|bits| {
                let nat64 = 0x64_FF9B_u128 << 96 | u128::from(bits);
                Ipv6Addr::from_bits(nat64).into()
            }),
            any::<u32>().prop_map(|bits| {
                Ipv6Addr::from_bits(0x2002_u128 << 112 | u128::from(bits) << 80).into()
            }),
        ]
    }

    proptest! {
        #[test]
        fn an_address_and_its_mapped_form_are_the_same_target(
            bits: u32,
            port: u16,
            network: u32,
            prefix in 0_u32..=32,
        ) {
            let ip = Ipv4Addr::from_bits(bits);
            let target = format!("{}/{prefix}", Ipv4Addr::from_bits(network));
            for targets in [vec![], targets(&[&target])] {
                let allows = |ip: IpAddr| allow(&targets, None, (ip, port).into());
                prop_assert_eq!(allows(ip.into()), allows(ip.to_ipv6_mapped().into()));
            }
        }

        #[test]
        fn no_spelling_of_an_address_leads_to_this_machine(ip in any_addr(), port: u16) {
            let all = targets(&["0.0.0.0/0", "::/0", "*.lan"]);
            if allow(&all, Some("nas.lan"), (ip, port).into()) {
                let canonical = ip.to_canonical();
                prop_assert!(!canonical.is_loopback() && !canonical.is_unspecified());
                let is_far = |inner: Ipv4Addr| {
                    !inner.is_loopback() && !inner.is_unspecified() && !inner.is_link_local()
                };
                prop_assert!(embedded(canonical).is_none_or(is_far));
            }
        }

        #[test]
        fn what_is_allowed_by_default_is_in_a_network_that_may_be_named(ip in any_addr(), port: u16) {
            let named = targets(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]);
            let addr = (ip, port).into();
            prop_assert_eq!(allow(&[], None, addr), allow(&named, None, addr));
        }

        #[test]
        fn no_text_panics(text in "[a-z0-9.:/*\\[\\]%-]{0,40}") {
            let _ = Target::read(&text);
        }
    }
}
