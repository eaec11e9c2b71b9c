//! The search for clients by their names and ports, for the web page.

use super::{domain_of, ClientStats, Registry};

impl Registry {
    /// Notes which clients of a snapshot have a host prefix or domain that `is_name`, or this open port, besides those
    /// that are `found` already. Holds the lock of the registry meanwhile.
    pub fn search(
        &self,
        clients: &[ClientStats],
        found: &mut [bool],
        is_name: impl Fn(&str) -> bool,
        port: Option<u16>,
    ) {
        let inner = self.lock();
        let rest = clients.iter().zip(found).filter(|(_, found)| !**found);
        for (stats, found) in rest {
            *found = inner.of_id(&stats.id).any(|(key, client)| {
                let mut ports = client.open_ports();
                port.is_some_and(|port| ports.any(|((_, its), _)| its == port))
                    || inner
                        .hosts
                        .of(key)
                        .iter()
                        .any(|(_, name)| is_name(domain_of(name).unwrap_or(name)))
            });
        }
    }
}
