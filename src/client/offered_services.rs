//! The services that the server of one tunnel knows, and those that were sent to it since.

use super::health::ServiceHealth;
use super::services::{Service, Services};
use crate::wire::frame::ServiceIndex;
use std::collections::VecDeque;
use std::sync::Arc;

/// The services behind the stream indexes of one tunnel.
pub struct OfferedServices {
    /// The services that the server's indexes refer to.
    current: Arc<Services>,
    /// Those that the indexes of streams refer to that were overtaken by the last change.
    previous: Option<Arc<Services>>,
    /// The services that were sent to the server and not confirmed, in order.
    pending: VecDeque<Arc<Services>>,
    /// Those of the last services that the server was told are down.
    down: Vec<ServiceIndex>,
    /// The UDP ports of proxies that the server has opened for the current services.
    udp_ports: Vec<(ServiceIndex, u16)>,
    /// The UDP ports of proxies for the [`next`](Self::next) services.
    next_udp_ports: Vec<(ServiceIndex, u16)>,
}

impl OfferedServices {
    /// Creates the state of a tunnel whose server has confirmed `services`.
    pub fn new(services: Arc<Services>) -> Self {
        Self {
            current: services,
            previous: None,
            pending: VecDeque::new(),
            down: Vec::new(),
            udp_ports: Vec::new(),
            next_udp_ports: Vec::new(),
        }
    }

    /// Returns the services that the server's indexes refer to now.
    pub fn current(&self) -> &Arc<Services> {
        &self.current
    }

    /// Returns the services that the server's indexes referred to before the last change.
    pub fn previous(&self) -> Option<&Arc<Services>> {
        self.previous.as_ref()
    }

    /// Returns the services that were sent to the server last.
    pub fn last(&self) -> &Arc<Services> {
        self.pending.back().unwrap_or(&self.current)
    }

    /// Returns the services whose confirmation is due next.
    pub fn next(&self) -> &Arc<Services> {
        self.pending.front().unwrap_or(&self.current)
    }

    /// Notes the port that the server has opened for one of the [`next`](Self::next) services, or that there
    /// is none.
    pub fn note_port(&mut self, service: ServiceIndex, port: Option<u16>) {
        let is_udp_of_proxy = |it: &Service| it.config.is_udp_of_proxy();
        if !self.next().get(service).is_some_and(is_udp_of_proxy) {
            return;
        }
        let ports = match self.pending.is_empty() {
            true => &mut self.udp_ports,
            false => &mut self.next_udp_ports,
        };
        ports.retain(|(known, _)| *known != service);
        ports.extend(port.map(|port| (service, port)));
    }

    /// Returns the UDP port that the server has opened for a service with this index; `None` if it has not.
    #[cfg_attr(not(feature = "proxy"), allow(dead_code))]
    pub fn udp_port(&self, service: ServiceIndex) -> Option<u16> {
        let mut ports = self.udp_ports.iter();
        let (_, port) = ports.find(|(known, _)| *known == service)?;
        Some(*port)
    }

    /// Replaces the services. Returns whether the server has to be told. If it would see no
    /// difference, the new services take the indexes of the last ones at once.
    pub fn change(&mut self, services: Arc<Services>) -> bool {
        if services.specs() != self.last().specs() {
            self.pending.push_back(services);
            self.down.clear();
            return true;
        }
        *self.pending.back_mut().unwrap_or(&mut self.current) = services;
        false
    }

    /// Returns the services whose state the server has to be told, and whether each of them is up: what it
    /// does not know yet, and those that are down and to be told `again`. Indexes refer to the services that
    /// were sent last, all of which are up for a server that has just been told of them.
    pub fn news(
        &mut self,
        again: impl Fn(&Arc<ServiceHealth>) -> bool,
    ) -> Vec<(ServiceIndex, bool)> {
        let last = self.last().clone();
        let down: Vec<ServiceIndex> = last.down().map(|(service, _)| service).collect();
        let mut news = Vec::new();
        for (service, health) in last.down() {
            if again(health) || !self.down.contains(&service) {
                news.push((service, false));
            }
        }
        let up = self.down.iter().filter(|service| !down.contains(service));
        news.extend(up.map(|service| (*service, true)));
        self.down = down;
        news
    }

    /// Notes that the server has confirmed the oldest unconfirmed services. False if there are
    /// none.
    pub fn confirm(&mut self) -> bool {
        let confirmed = self.pending.pop_front();
        let due = confirmed.is_some();
        self.previous = Some(self.current.clone());
        if let Some(services) = confirmed {
            self.current = services;
            self.udp_ports = std::mem::take(&mut self.next_udp_ports);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServiceConfig;

    /// Creates services with these prefixes and local ports.
    fn services(list: &[(&str, u16)]) -> Arc<Services> {
        let service = |(prefix, port): &(&str, u16)| ServiceConfig::of_test(*port, prefix);
        let list: Vec<_> = list.iter().map(service).collect();
        Arc::new(Services::new(&list).unwrap())
    }

    #[test]
    fn only_visible_changes_are_sent_and_indexes_stay_consistent() {
        let first = services(&[("a", 1), ("b", 2)]);
        let mut offered = OfferedServices::new(first.clone());
        assert!(!offered.change(services(&[("a", 1), ("b", 2)])), "the same");
        let moved = services(&[("a", 3), ("b", 2)]);
        assert!(!offered.change(moved.clone()), "only the local end differs");
        assert!(Arc::ptr_eq(offered.current(), &moved), "it holds at once");

        let turned = services(&[("b", 2), ("a", 3)]);
        assert!(offered.change(turned.clone()), "the indexes differ");
        let turned_and_moved = services(&[("b", 4), ("a", 3)]);
        assert!(!offered.change(turned_and_moved.clone()));
        assert!(
            Arc::ptr_eq(offered.current(), &moved),
            "until the server has confirmed the order, its indexes mean the one before"
        );
        assert!(offered.change(first.clone()), "back again");
        assert!(offered.confirm());
        assert!(Arc::ptr_eq(offered.current(), &turned_and_moved));
        assert!(offered.confirm());
        assert!(Arc::ptr_eq(offered.current(), &first));
        assert!(!offered.confirm(), "nothing is due");
        assert!(Arc::ptr_eq(offered.current(), &first));
    }
}
