//! The ports of a service's entry, at the client and at the server. One entry may stand for many services:
//! `local: tcp://127.0.0.1:6000-6010` with `remoteTCPPort: 6000-6010`, and `local: tcp+udp://127.0.0.1:53`
//! with `remotePort: 53`.

use std::path::Path;

use super::local::Local;
use super::options::ServiceOptions;
use super::proxy;
use super::service::{Exposure, ServiceConfig};
use crate::config::value::Scalar;
use crate::config::PortRange;
use crate::wire::proxy_protocol::ProxyVersion;

/// A local service, or as many as there are ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPorts {
    /// The service at the first port.
    pub first: Local,
    /// Number of ports, 1 or more.
    pub count: u32,
    /// The service at the same port over UDP, for `tcp+udp://`.
    pub twin: Option<Local>,
}

impl LocalPorts {
    /// Whether a service at a TCP port can have a UDP port besides, which gt serves, too.
    fn may_have_udp(&self) -> bool {
        matches!(&self.first, Local::Proxy(kind) if proxy::has_udp(*kind))
    }
}

/// The ports of the server to ask for; `None` if any will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemotePorts(pub Option<PortRange>);

/// The ports of the server that an entry asks for, by the options for its protocol.
#[derive(Clone, Copy, Debug)]
pub struct RequestedPorts {
    /// The name of the option for ports by number.
    pub option: &'static str,
    /// The ports; `None` if it does not name any.
    pub range: Option<PortRange>,
    /// Whether the server may choose others; `None` if the entry does not say.
    pub random: Option<bool>,
    /// The UDP port besides: its number, 0 for any, and whether the server may choose another one. `None` if
    /// there is none, or if it follows from the local services.
    pub udp: Option<(u16, bool)>,
}

impl LocalPorts {
    /// Makes a relative path absolute, from `base`.
    pub fn resolve(self, base: &Path) -> Self {
        Self {
            first: self.first.resolve(base),
            ..self
        }
    }
}

impl Scalar for LocalPorts {
    fn read(text: &str) -> Result<Self, String> {
        /// Of both protocols at one port.
        const TWINS: &str = "tcp+udp://";
        if let Some((scheme, rest)) = text.split_at_checked(TWINS.len()) {
            if scheme.eq_ignore_ascii_case(TWINS) {
                let tcp = Self::read(&format!("tcp://{rest}"))?;
                let udp = Self::read(&format!("udp://{rest}"))?;
                return Ok(Self {
                    twin: Some(udp.first),
                    ..tcp
                });
            }
        }
        let is_range = |ports: &str| {
            ports.contains('-') && ports.bytes().all(|b| b.is_ascii_digit() || b == b'-')
        };
        let split = text.rsplit_once(':');
        let range = split.filter(|(before, ports)| is_of_ports(before) && is_range(ports));
        let (first, count) = match range {
            None => (Local::read(text)?, 1),
            Some((before, ports)) => {
                let ports = PortRange::read(ports)?;
                let first = Local::read(&format!("{before}:{}", ports.first))?;
                (first, ports.count())
            }
        };
        Ok(Self {
            first,
            count,
            twin: None,
        })
    }
}

impl Scalar for RemotePorts {
    fn read(text: &str) -> Result<Self, String> {
        if text.contains('-') {
            return PortRange::read(text).map(|range| Self(Some(range)));
        }
        let port = u16::read(text)?;
        Ok(Self((port > 0).then_some(PortRange {
            first: port,
            last: port,
        })))
    }
}

impl RequestedPorts {
    /// Of a service that asks for none.
    pub fn none() -> Self {
        Self {
            option: "remoteTCPPort",
            range: None,
            random: None,
            udp: None,
        }
    }

    /// Returns the ports that an entry with this local service asks for. `name` is the subject of errors.
    pub fn of(options: &ServiceOptions, local: &LocalPorts, name: &str) -> Result<Self, String> {
        let range = |ports: Option<RemotePorts>| ports.and_then(|ports| ports.0);
        let shown = &local.first;
        let tcp = Self {
            option: "remoteTCPPort",
            range: range(options.remote_tcp_port),
            random: options.remote_tcp_random,
            udp: None,
        };
        let udp = Self {
            option: "remoteUDPPort",
            range: range(options.remote_udp_port),
            random: options.remote_udp_random,
            udp: None,
        };
        let both = Self {
            option: "remotePort",
            range: range(options.remote_port),
            random: None,
            udp: None,
        };
        let is_set = |ports: &Self| ports.range.is_some() || ports.random == Some(true);
        if local.may_have_udp() && (is_set(&both) || is_set(&udp)) {
            return Self::with_udp(options, [tcp, udp, both], &format!("{name} ({shown})"));
        }
        let (its, others, is_udp) = match (&local.twin, shown) {
            (Some(_), _) if both.range.is_none() => {
                return Err(format!(
                    "{name} (tcp+udp, {shown}) has no remotePort: give it one, the number of its TCP port and \
                     its UDP port at the server."
                ));
            }
            (Some(_), _) => (both, [tcp, udp], false),
            (None, Local::Udp { .. }) => (udp, [tcp, both], true),
            (None, _) => (tcp, [udp, both], false),
        };
        match others.iter().find(|other| is_set(other)) {
            Some(other) => Err(format!(
                "{name} ({shown}) has {}, which is for {} services: write {}.",
                match (other.range, other.option) {
                    (None, "remoteTCPPort") => "remoteTCPRandom",
                    (None, "remoteUDPPort") => "remoteUDPRandom",
                    (_, option) => option,
                },
                match other.option {
                    "remoteTCPPort" => "TCP",
                    "remoteUDPPort" => "udp://",
                    _ => "tcp+udp://",
                },
                match is_udp {
                    true => "remoteUDPPort or remoteUDPRandom",
                    false => its.option,
                },
            )),
            None => Ok(its),
        }
    }

    /// Returns the ports of a proxy that has a UDP port. `name` is the subject of errors.
    fn with_udp(
        options: &ServiceOptions,
        [tcp, udp, both]: [Self; 3],
        name: &str,
    ) -> Result<Self, String> {
        if options.host_prefix.is_some() {
            return Err(format!(
                "{name} is reached by its hostPrefix, peer to peer, where no datagrams go: remove its \
                 hostPrefix, or its {}.",
                match both.range {
                    Some(_) => "remotePort",
                    None => "remoteUDPPort and remoteUDPRandom",
                }
            ));
        }
        if options.service_group.is_some() && !options.group_sticky {
            return Err(format!(
                "{name} has a UDP port and a serviceGroup, whose members would get some a visitor's \
                 connection and some its datagrams: set groupSticky."
            ));
        }
        if both.range.is_some() {
            let is_set = |ports: &Self| ports.range.is_some() || ports.random == Some(true);
            if is_set(&tcp) || is_set(&udp) {
                return Err(format!(
                    "{name} has a remotePort, which is the number of its TCP port and its UDP port: remove \
                     the other ports."
                ));
            }
            let udp = both.range.map(|range| (range.first, false));
            return Ok(Self { udp, ..both });
        }
        if udp.range.is_some_and(|range| range.count() > 1) {
            return Err(format!("{name} has several of remoteUDPPort: give it one."));
        }
        let port = udp.range.map_or(0, |range| range.first);
        let udp = Some((port, port == 0 || udp.random == Some(true)));
        Ok(Self { udp, ..tcp })
    }
}

/// Returns the services of an entry, of which `first` is the first, at the ports of the server that are
/// asked for. `name` is the subject of errors.
pub fn all(
    first: ServiceConfig,
    local: LocalPorts,
    asked: RequestedPorts,
    name: &str,
) -> Result<Vec<ServiceConfig>, String> {
    let RequestedPorts { option, range, .. } = asked;
    let (count, asked_count) = (
        local.count,
        range.map_or(local.count, |range| range.count()),
    );
    let has_port = matches!(first.exposure, Exposure::Tcp { .. } | Exposure::Udp { .. });
    if count != asked_count || (count > 1 && !has_port) {
        let local_ports = match count {
            1 => "one local port".to_owned(),
            count => format!("{count} local ports"),
        };
        let asked = match (range, asked_count) {
            (None, _) => format!("no {option}"),
            (_, 1) => format!("one {option}"),
            (_, asked) => format!("{asked} of {option}"),
        };
        return Err(format!(
            "{name} ({}) has {local_ports} and {asked}: give it as many of both, like \
             tcp://127.0.0.1:6000-6010 and 6000-6010.",
            first.local
        ));
    }
    let twin = match asked.udp {
        Some((port, random)) => Some(ServiceConfig {
            exposure: Exposure::Udp { port, random },
            ..first.clone()
        }),
        None => local.twin.map(|local| twin(&first, local)),
    };
    if twin.is_some() && first.proxy_protocol == Some(ProxyVersion::One) {
        return Err(format!(
            "{name} ({}) has proxyProtocol 1, which knows no datagrams: write 2.",
            first.local
        ));
    }
    let services = (0..count).flat_map(|n| {
        let services = [Some(&first), twin.as_ref()];
        services.into_iter().flatten().map(move |it| at(it, n))
    });
    services
        .collect::<Option<_>>()
        .ok_or_else(|| format!("{name} has a port beyond 65535."))
}

/// Returns the service over UDP beside one over TCP.
fn twin(tcp: &ServiceConfig, local: Local) -> ServiceConfig {
    let mut udp = ServiceConfig {
        local,
        ..tcp.clone()
    };
    if let Exposure::Tcp { port, random } = tcp.exposure {
        udp.exposure = Exposure::Udp { port, random };
    }
    udp
}

/// Returns the service `n` ports further.
fn at(first: &ServiceConfig, n: u32) -> Option<ServiceConfig> {
    let mut service = first.clone();
    if n == 0 {
        return Some(service);
    }
    let n = u16::try_from(n).ok()?;
    if let Local::Tcp { port, .. } | Local::Udp { port, .. } = &mut service.local {
        *port = port.checked_add(n)?;
    }
    if let Exposure::Tcp {
        port: port @ 1.., ..
    }
    | Exposure::Udp {
        port: port @ 1.., ..
    } = &mut service.exposure
    {
        *port = port.checked_add(n)?;
    }
    Some(service)
}

/// Whether a local service is one with ports.
fn is_of_ports(text: &str) -> bool {
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    ["http", "https", "tcp", "udp"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_local_ports_is_many_services() {
        for (text, first, count) in [
            ("tcp://127.0.0.1:6000-6010", "tcp://127.0.0.1:6000", 11),
            ("tcp://[::1]:6000-6000", "tcp://[::1]:6000", 1),
            ("HTTP://h:1-65535", "http://h:1", 65535),
            ("tcp://h:1", "tcp://h:1", 1),
            ("file:///a:1-2", "file:///a:1-2", 1),
            ("unix:///a:1-2", "unix:///a:1-2", 1),
        ] {
            let read = LocalPorts::read(text).unwrap();
            assert_eq!(
                (read.first.to_string().as_str(), read.count),
                (first, count)
            );
        }
        for (text, why) in [
            ("tcp://h:2-1", "\"2-1\" is not a range of ports"),
            ("tcp://h:1-", "\"1-\" is not a range of ports"),
            ("tcp://h:0-1", "\"0-1\" is not a range of ports"),
            ("tcp://h:1-65536", "\"1-65536\" is not a range of ports"),
            ("tcp://h:1-2-3", "\"1-2-3\" is not a range of ports"),
            ("tcp://:1-2", "is not a local service"),
            ("ftp://h:1-2", "is not a local service"),
        ] {
            let error = LocalPorts::read(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        let remote = |text| RemotePorts::read(text).map(|ports| ports.0);
        let range = |first, last| Ok(Some(PortRange { first, last }));
        assert_eq!(remote("0"), Ok(None));
        assert_eq!(remote("5"), range(5, 5));
        assert_eq!(remote("5-7"), range(5, 7));
        assert!(remote("65536").is_err() && remote("5-").is_err() && remote("0-5").is_err());
    }
}
