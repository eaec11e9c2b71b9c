//! The handshakes of an endpoint that are pending, in total and by network.

use crate::collections::HashMap;
use crate::net::network_of;
use std::net::IpAddr;

/// Counts of pending handshakes.
#[derive(Debug, Default)]
pub struct PendingHandshakes {
    /// Number of all of them.
    pub all: u32,
    by_network: HashMap<IpAddr, u32>,
}

impl PendingHandshakes {
    /// Returns the number of those with the network of this address.
    pub fn of_network(&self, ip: IpAddr) -> u32 {
        let of_this = self.by_network.get(&network_of(ip));
        of_this.copied().unwrap_or_default()
    }

    /// Counts one with this address.
    pub fn begin(&mut self, ip: IpAddr) {
        self.all = self.all.saturating_add(1);
        let of_this = self.by_network.entry(network_of(ip)).or_default();
        *of_this = of_this.saturating_add(1);
    }

    /// Ends one with this address.
    pub fn end(&mut self, ip: IpAddr) {
        self.all = self.all.saturating_sub(1);
        let network = network_of(ip);
        let rest = self.of_network(ip).saturating_sub(1);
        match rest {
            0 => self.by_network.remove(&network),
            rest => self.by_network.insert(network, rest),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_are_counted_by_network_and_leave_nothing() {
        let mut pending = PendingHandshakes::default();
        let ips: [IpAddr; 3] =
            ["192.0.2.1", "2001:db8::1", "2001:db8::2"].map(|ip| ip.parse().unwrap());
        ips.into_iter().for_each(|ip| pending.begin(ip));
        assert_eq!(pending.all, 3);
        assert_eq!(ips.map(|ip| pending.of_network(ip)), [1, 2, 2]);
        ips.into_iter().for_each(|ip| pending.end(ip));
        assert!(pending.all == 0 && pending.by_network.is_empty());
    }
}
