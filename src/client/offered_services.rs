//! The services that the server of one tunnel knows, and those that it has been told of since.

use super::service::Services;
use std::collections::VecDeque;
use std::sync::Arc;

/// The services behind the indexes of one tunnel's streams.
pub struct OfferedServices {
    /// Those that the server's indexes mean.
    current: Arc<Services>,
    /// Those that the server has been told of and has not confirmed, in order.
    told: VecDeque<Arc<Services>>,
}

impl OfferedServices {
    /// The server has confirmed `services`.
    pub fn new(services: Arc<Services>) -> Self {
        Self {
            current: services,
            told: VecDeque::new(),
        }
    }

    /// The services that the server's indexes mean now.
    pub fn current(&self) -> &Arc<Services> {
        &self.current
    }

    /// The services that the server was told of last.
    pub fn last(&self) -> &Arc<Services> {
        self.told.back().unwrap_or(&self.current)
    }

    /// The services whose confirmation is due next.
    pub fn next(&self) -> &Arc<Services> {
        self.told.front().unwrap_or(&self.current)
    }

    /// Goes on with `services`. Returns whether the server has to be told of them: if it would
    /// see no difference, they take the place of the last ones, and have the same indexes.
    pub fn change(&mut self, services: Arc<Services>) -> bool {
        if services.offers() != self.last().offers() {
            self.told.push_back(services);
            return true;
        }
        *self.told.back_mut().unwrap_or(&mut self.current) = services;
        false
    }

    /// The server has confirmed the services that it was told of first. False if none were due.
    pub fn confirm(&mut self) -> bool {
        let confirmed = self.told.pop_front();
        let due = confirmed.is_some();
        if let Some(services) = confirmed {
            self.current = services;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Exposure, Local, Scheme, ServiceConfig};

    /// Services with these prefixes at these local ports.
    fn services(list: &[(&str, u16)]) -> Arc<Services> {
        let service = |(prefix, port): &(&str, u16)| ServiceConfig {
            local: Local::Tcp {
                scheme: Scheme::Http,
                host: "localhost".to_owned(),
                port: *port,
            },
            exposure: Exposure::Host {
                tls: false,
                prefix: Some((*prefix).to_owned()),
            },
            local_timeout: None,
            use_local_as_http_host: false,
            follow_links_outside: false,
        };
        let list: Vec<_> = list.iter().map(service).collect();
        Arc::new(Services::new(&list).unwrap())
    }

    #[test]
    fn the_server_is_told_of_what_it_would_see_and_the_rest_holds_for_the_right_indexes() {
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
