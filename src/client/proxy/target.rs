//! A proxy among the services of a client, and the UDP port that a SOCKS5 proxy may have beside its TCP port.

use super::associations::Associations;
use crate::client::offered_services::OfferedServices;
use crate::client::services::{Service, ServiceTarget};
use crate::config::{ProxyKind, ServiceConfig};
use crate::net::{is_public, Shutdown};
use crate::wire::frame::ServiceIndex;
use crate::wire::origin::VisitorOrigin;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// What the streams of a proxy are connected to.
#[derive(Clone)]
pub(crate) struct ProxyTarget {
    pub(super) kind: ProxyKind,
    /// Which visitors may send datagrams. The services of both ports have the same.
    pub(super) associations: Arc<Associations>,
}

impl ProxyTarget {
    /// Returns the target of a service. `before` is that of the service before it: for a UDP port, that of
    /// its proxy.
    pub(crate) fn of_service(
        kind: ProxyKind,
        service: &ServiceConfig,
        before: Option<&ServiceTarget>,
    ) -> ServiceTarget {
        ServiceTarget::Proxy(match before {
            Some(ServiceTarget::Proxy(proxy)) if service.is_udp() => proxy.clone(),
            _ => Self {
                kind,
                associations: Arc::default(),
            },
        })
    }
}

/// Lets proxies keep the associations of those `before` that have the same configuration, and ends the others.
pub(crate) fn resume(services: &mut [Service], before: &[Service]) {
    let mut kept: Vec<Arc<Associations>> = Vec::new();
    let pair = |services: &[Service], at: usize| {
        let udp = services
            .get(at.saturating_add(1))
            .map(|udp| udp.config.clone());
        let tcp = services.get(at).map(|tcp| tcp.config.clone());
        (tcp, udp.filter(|udp| udp.is_udp_of_proxy()))
    };
    for at in 0..services.len() {
        let its = pair(services, at);
        let same = before.iter().enumerate().find_map(|(at, other)| {
            let ServiceTarget::Proxy(proxy) = &other.target else {
                return None;
            };
            let is_kept = kept
                .iter()
                .any(|kept| Arc::ptr_eq(kept, &proxy.associations));
            let is_same = !other.config.is_udp() && !is_kept && pair(before, at) == its;
            is_same.then(|| proxy.clone())
        });
        let Some(proxy) = same else { continue };
        kept.push(proxy.associations.clone());
        let both = services
            .iter_mut()
            .skip(at)
            .take(1 + usize::from(its.1.is_some()));
        both.for_each(|service| service.target = ServiceTarget::Proxy(proxy.clone()));
    }
    for service in before {
        let ServiceTarget::Proxy(proxy) = &service.target else {
            continue;
        };
        if !kept
            .iter()
            .any(|kept| Arc::ptr_eq(kept, &proxy.associations))
        {
            proxy.associations.end();
        }
    }
}

/// How the datagrams of a visitor of a proxy reach the client.
pub(crate) struct UdpWay {
    /// The UDP port that the server has opened; `None` if it could not.
    port: Option<u16>,
    /// Triggered when the client stops.
    pub(super) stop: Shutdown,
}

impl UdpWay {
    /// Returns the way for visitors of a service in a tunnel; `None` if it is no proxy with a UDP port.
    pub(crate) fn of(
        offered: &OfferedServices,
        service: ServiceIndex,
        stop: &Shutdown,
    ) -> Option<Self> {
        let udp = offered.current().udp_of_proxy(service)?;
        Some(Self {
            port: offered.udp_port(udp),
            stop: stop.clone(),
        })
    }

    /// Returns the address to which a visitor has to send its datagrams. It is unspecified if the server's
    /// public address is not known: most visitors then use the address that they are connected to.
    pub(super) fn address(&self, origin: &VisitorOrigin) -> Option<SocketAddr> {
        let ip = match origin.destination.ip().to_canonical() {
            ip if is_public(ip) => ip,
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Some(SocketAddr::new(ip, self.port?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::origin::Transport;

    #[test]
    fn visitors_are_told_the_public_address_that_they_have_come_to_or_none() {
        for (destination, expected) in [
            ("203.0.113.1:1080", "203.0.113.1:5000"),
            ("[::ffff:203.0.113.1]:1080", "203.0.113.1:5000"),
            ("[2001:db8::1]:1080", "[2001:db8::1]:5000"),
            ("127.0.0.1:1080", "0.0.0.0:5000"),
            ("10.0.0.1:1080", "0.0.0.0:5000"),
            ("100.64.0.1:1080", "0.0.0.0:5000"),
            ("0.0.0.0:1080", "0.0.0.0:5000"),
            ("[fd00::1]:1080", "[::]:5000"),
            ("[::1]:1080", "[::]:5000"),
        ] {
            let origin = VisitorOrigin {
                transport: Transport::Tcp,
                source: ([192, 0, 2, 1], 1).into(),
                destination: destination.parse().unwrap(),
                is_decrypted: false,
                is_told: false,
                server_name: None,
                subject: None,
            };
            let way = |port| UdpWay {
                port,
                stop: Shutdown::default(),
            };
            let told = way(Some(5000)).address(&origin).unwrap();
            assert_eq!(told.to_string(), expected, "{destination}");
            assert_eq!(way(None).address(&origin), None);
        }
    }
}
