//! The links of this machine that connections to servers are spread over: interfaces or source addresses.
//! Not the connections.

use crate::net::clock;
use crate::sync::Mutex;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time in which a link that has failed is passed over, while there are others.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// Where a connection starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkSource {
    /// An interface, by the kernel's name.
    Interface(String),
    /// An address of this machine.
    Address(IpAddr),
}

impl LinkSource {
    /// Whether a connection to `addr` can start here.
    fn leads_to(&self, addr: &SocketAddr) -> bool {
        match self {
            LinkSource::Interface(_) => true,
            LinkSource::Address(ip) => ip.is_ipv6() == addr.is_ipv6(),
        }
    }
}

impl fmt::Display for LinkSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkSource::Interface(name) => f.write_str(name),
            LinkSource::Address(ip) => ip.fmt(f),
        }
    }
}

/// The links of this machine; empty if the system chooses.
#[derive(Default)]
pub struct Links(Vec<Arc<Link>>);

/// A link, with its connections and its last failure.
struct Link {
    source: LinkSource,
    state: Mutex<LinkState>,
}

#[derive(Default)]
struct LinkState {
    /// Number of connections.
    uses: usize,
    /// When a connection over the link failed last; `None` if one has worked since.
    failed: Option<Instant>,
}

impl Link {
    fn uses(&self) -> usize {
        self.state.lock().uses
    }

    fn is_failing(&self) -> bool {
        let failed = self.state.lock().failed;
        failed.is_some_and(|at| clock::since(at) < RETRY_INTERVAL)
    }

    fn note_failure(&self) {
        let before = self.state.lock().failed.replace(clock::now());
        if before.is_none() {
            log::warn!("{} does not lead to the server", self.source);
        }
    }

    fn note_success(&self) {
        let before = self.state.lock().failed.take();
        if before.is_some() {
            log::info!("{} leads to the server again", self.source);
        }
    }
}

/// The use of a link by one connection; empty if the system has chosen the link.
#[derive(Default)]
pub struct LinkUse {
    link: Option<Arc<Link>>,
    is_over: AtomicBool,
}

impl LinkUse {
    fn of(link: &Arc<Link>) -> Self {
        let mut state = link.state.lock();
        state.uses = state.uses.saturating_add(1);
        drop(state);
        Self {
            link: Some(link.clone()),
            is_over: AtomicBool::new(false),
        }
    }

    /// Notes that the connection has failed: new ones begin over other links.
    pub fn note_failure(&self) {
        if let Some(link) = &self.link {
            link.note_failure();
        }
    }

    /// Notes that the connection carries nothing any more.
    pub fn end(&self) {
        if let Some(link) = &self.link {
            if !self.is_over.swap(true, Ordering::Relaxed) {
                let mut state = link.state.lock();
                state.uses = state.uses.saturating_sub(1);
            }
        }
    }

    /// Whether both are of the same link.
    pub fn is_same(&self, other: &LinkUse) -> bool {
        match (&self.link, &other.link) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }
}

impl Drop for LinkUse {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Display for LinkUse {
    /// Writes ` from ` and the link, or nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.link {
            Some(link) => write!(f, " from {}", link.source),
            None => Ok(()),
        }
    }
}

/// An address and the link over which it is tried.
pub struct LinkRoute {
    /// The address.
    pub addr: SocketAddr,
    link: Arc<Link>,
}

impl LinkRoute {
    /// Where a connection starts.
    pub fn source(&self) -> &LinkSource {
        &self.link.source
    }
}

/// The routes of one connection in the order in which they are tried. The first link counts as used.
pub struct LinkRoutes {
    list: Vec<LinkRoute>,
    first: LinkUse,
}

impl Links {
    /// Creates links of which nothing is known yet.
    pub fn new(sources: &[LinkSource]) -> Self {
        let mut list: Vec<Arc<Link>> = Vec::new();
        for source in sources {
            if !list.iter().any(|link| link.source == *source) {
                let (source, state) = (source.clone(), Mutex::default());
                list.push(Arc::new(Link { source, state }));
            }
        }
        Self(list)
    }

    /// Whether the system chooses.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets which links have failed, since the network may have changed.
    pub fn retry(&self) {
        for link in &self.0 {
            link.state.lock().failed = None;
        }
    }

    /// Whether there are several links to choose from.
    pub fn has_choice(&self) -> bool {
        self.0.len() > 1
    }

    /// Returns at most `most` routes to these addresses: each address over all links, beginning with the
    /// one that has the fewest connections and has not failed lately.
    pub fn routes(&self, addresses: &[SocketAddr], most: usize) -> LinkRoutes {
        let mut order = self.0.clone();
        // A stable sort: the first one of those that have equally few.
        order.sort_by_cached_key(|link| (link.is_failing(), link.uses()));
        let over_all = |addr: &SocketAddr| {
            let addr = *addr;
            let fitting = order.iter().filter(move |link| link.source.leads_to(&addr));
            let routes = fitting.map(move |link| {
                let link = link.clone();
                LinkRoute { addr, link }
            });
            routes.collect::<Vec<_>>()
        };
        let list: Vec<LinkRoute> = addresses.iter().flat_map(over_all).take(most).collect();
        let first = list.first().map(|route| LinkUse::of(&route.link));
        LinkRoutes {
            list,
            first: first.unwrap_or_default(),
        }
    }

    /// Whether a connection over `link` would better be over another one, which works and has at least two
    /// fewer.
    pub fn is_uneven(&self, link: &LinkUse) -> bool {
        let Some(uses) = link.link.as_ref().map(|link| link.uses()) else {
            return false;
        };
        self.0
            .iter()
            .any(|other| !other.is_failing() && other.uses().saturating_add(2) <= uses)
    }
}

impl LinkRoutes {
    /// The routes in their order.
    pub fn list(&self) -> &[LinkRoute] {
        &self.list
    }

    /// Notes that the route at this place has led to the server first, and returns the use of its link. The
    /// links over which the same address was tried before are passed over for a while.
    pub fn settle(self, at: usize) -> LinkUse {
        let Some(winner) = self.list.get(at) else {
            return LinkUse::default();
        };
        let before = self.list.iter().take(at);
        let same = before.filter(|route| route.addr == winner.addr);
        same.for_each(|route| route.link.note_failure());
        winner.link.note_success();
        let link = LinkUse::of(&winner.link);
        drop(self.first);
        link
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Links {
        Links::new(&[
            LinkSource::Interface("a".into()),
            LinkSource::Interface("b".into()),
        ])
    }

    fn addresses(number: u8) -> Vec<SocketAddr> {
        (1..=number)
            .map(|n| SocketAddr::from(([192, 0, 2, n], 80)))
            .collect()
    }

    fn shown(routes: &LinkRoutes) -> String {
        let each = |route: &LinkRoute| format!("{}{}", route.source(), route.addr.ip());
        routes
            .list()
            .iter()
            .map(each)
            .collect::<Vec<_>>()
            .join(" ")
            .replace("192.0.2.", "")
    }

    #[test]
    fn connections_are_spread_over_all_links_from_their_first_step_on() {
        let links = two();
        let one = links.routes(&addresses(2), 16);
        assert_eq!(shown(&one), "a1 b1 a2 b2");
        let other = links.routes(&addresses(1), 16);
        assert_eq!(shown(&other), "b1 a1");
        let (one, other) = (one.settle(0), other.settle(0));
        assert_eq!(format!("x{one}{other}"), "x from a from b");
        drop(one);
        assert_eq!(shown(&links.routes(&addresses(1), 16)), "a1 b1");
    }

    #[test]
    fn a_link_that_has_failed_comes_last_until_it_works() {
        let links = two();
        // The second link has led to the first address, the first one has not.
        let tunnel = links.routes(&addresses(1), 16).settle(1);
        assert_eq!(shown(&links.routes(&addresses(1), 16)), "b1 a1");
        let more = links.routes(&addresses(1), 16).settle(0);
        // By this nothing is known of the other link.
        drop(links.routes(&addresses(2), 16).settle(2));
        assert_eq!(shown(&links.routes(&addresses(1), 16)), "b1 a1");
        assert!(!links.is_uneven(&tunnel));
        let recovered = links.routes(&addresses(1), 16).settle(1);
        drop((recovered, more));
        assert_eq!(shown(&links.routes(&addresses(1), 16)), "a1 b1");
        tunnel.note_failure();
        assert_eq!(shown(&links.routes(&addresses(1), 16)), "a1 b1");
    }

    #[test]
    fn a_link_with_two_connections_more_than_another_is_uneven() {
        let links = two();
        let a = LinkUse::of(&links.0[0]);
        assert!(!links.is_uneven(&a));
        let more = LinkUse::of(&links.0[0]);
        assert!(links.is_uneven(&a) && a.is_same(&more));
        let b = LinkUse::of(&links.0[1]);
        assert!(!links.is_uneven(&a) && !links.is_uneven(&b) && !a.is_same(&b));
        b.end();
        LinkUse::of(&links.0[1]).note_failure();
        assert!(!links.is_uneven(&a));
        assert!(!links.is_uneven(&LinkUse::default()));
    }

    #[test]
    fn a_source_address_leads_to_addresses_of_its_family_only() {
        let six: IpAddr = "2001:db8::7".parse().unwrap();
        let links = Links::new(&[
            LinkSource::Address(six),
            LinkSource::Address([192, 0, 2, 7].into()),
            LinkSource::Address(six),
        ]);
        let server = [
            "[2001:db8::1]:80".parse().unwrap(),
            "192.0.2.1:80".parse().unwrap(),
        ];
        assert_eq!(
            shown(&links.routes(&server, 16)),
            "2001:db8::72001:db8::1 71"
        );
        assert_eq!(links.routes(&server, 1).list().len(), 1);
    }
}
