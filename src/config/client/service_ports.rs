//! The ports of a service's entry, at the client and at the server. One entry may stand for many services:
//! `local: tcp://127.0.0.1:6000-6010` with `remoteTCPPort: 6000-6010`.

use std::path::Path;

use super::local::Local;
use super::service::{Exposure, ServiceConfig};
use crate::config::value::Scalar;
use crate::config::PortRange;

/// A local service, or as many as there are ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPorts {
    /// The service at the first port.
    pub first: Local,
    /// Number of services, 1 or more.
    pub count: u32,
}

/// The ports of the server to ask for; `None` if any will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemotePorts(pub Option<PortRange>);

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
        let is_range = |ports: &str| {
            ports.contains('-') && ports.bytes().all(|b| b.is_ascii_digit() || b == b'-')
        };
        let split = text.rsplit_once(':');
        let range = split.filter(|(before, ports)| is_of_ports(before) && is_range(ports));
        let Some((before, ports)) = range else {
            let first = Local::read(text)?;
            return Ok(Self { first, count: 1 });
        };
        let ports = PortRange::read(ports)?;
        Ok(Self {
            first: Local::read(&format!("{before}:{}", ports.first))?,
            count: ports.count(),
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

/// Returns the services of an entry, of which `first` is the first. `name` is the subject of errors.
pub fn all(
    first: ServiceConfig,
    local: u32,
    remote: Option<PortRange>,
    name: &str,
) -> Result<Vec<ServiceConfig>, String> {
    let asked = remote.map_or(local, |remote| remote.count());
    let is_tcp = matches!(first.exposure, Exposure::Tcp { .. });
    if local != asked || (local > 1 && !is_tcp) {
        let local_ports = match local {
            1 => "one local port".to_owned(),
            local => format!("{local} local ports"),
        };
        let asked = match (remote, asked) {
            (None, _) => "no remoteTCPPort".to_owned(),
            (_, 1) => "one remoteTCPPort".to_owned(),
            (_, asked) => format!("{asked} of remoteTCPPort"),
        };
        return Err(format!(
            "{name} ({}) has {local_ports} and {asked}: give it as many of both, like \
             tcp://127.0.0.1:6000-6010 and 6000-6010.",
            first.local
        ));
    }
    let services = (0..local).map(|n| at(&first, n));
    services
        .collect::<Option<_>>()
        .ok_or_else(|| format!("{name} has a port beyond 65535."))
}

/// Returns the service `n` ports further.
fn at(first: &ServiceConfig, n: u32) -> Option<ServiceConfig> {
    let mut service = first.clone();
    if n == 0 {
        return Some(service);
    }
    let n = u16::try_from(n).ok()?;
    if let Local::Tcp { port, .. } = &mut service.local {
        *port = port.checked_add(n)?;
    }
    if let Exposure::Tcp {
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
    ["http", "https", "tcp"]
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
