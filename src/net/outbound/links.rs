//! The links of this machine that connections to servers are spread over: interfaces or source addresses.
//! Not the connections.

use crate::net::clock;
use crate::sync::Mutex;
use std::fmt;
#[cfg(feature = "quic")]
use std::io;
use std::net::{IpAddr, SocketAddr};
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
#[derive(Clone, Default)]
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

/// The use of a link by one connection; empty if the system has chosen the link. Copies are one use: a connection may
/// move to another link.
#[derive(Clone, Default)]
pub struct LinkUse(Arc<UsedLink>);

#[derive(Default)]
struct UsedLink(Mutex<UseState>);

#[derive(Default)]
struct UseState {
    link: Option<Arc<Link>>,
    /// Whether the connection carries nothing any more.
    is_over: bool,
}

impl UseState {
    /// Changes the number of connections of the link, as far as this one counts.
    fn count(&self, change: impl Fn(usize, usize) -> usize) {
        if let (Some(link), false) = (&self.link, self.is_over) {
            let mut state = link.state.lock();
            state.uses = change(state.uses, 1);
        }
    }
}

impl LinkUse {
    fn of(link: &Arc<Link>) -> Self {
        let this = Self::default();
        this.move_to(link);
        this
    }

    fn link(&self) -> Option<Arc<Link>> {
        self.0 .0.lock().link.clone()
    }

    /// Notes that the connection uses this link from now on.
    fn move_to(&self, link: &Arc<Link>) {
        let mut state = self.0 .0.lock();
        state.count(usize::saturating_sub);
        state.link = Some(link.clone());
        state.count(usize::saturating_add);
    }

    /// Notes that the connection has failed: new ones begin over other links.
    pub fn note_failure(&self) {
        if let Some(link) = self.link() {
            link.note_failure();
        }
    }

    /// Notes that the connection carries nothing any more.
    pub fn end(&self) {
        let mut state = self.0 .0.lock();
        state.count(usize::saturating_sub);
        state.is_over = true;
    }

    /// Whether both are of the same link.
    pub fn is_same(&self, other: &LinkUse) -> bool {
        match (self.link(), other.link()) {
            (Some(one), Some(other)) => Arc::ptr_eq(&one, &other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }
}

impl Drop for UsedLink {
    fn drop(&mut self) {
        self.0.lock().count(usize::saturating_sub);
    }
}

impl fmt::Display for LinkUse {
    /// Writes ` from ` and the link, or nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.link() {
            Some(link) => write!(f, " from {}", link.source),
            None => Ok(()),
        }
    }
}

/// The link of a connection that can move to others.
#[derive(Default)]
pub struct LinkPath {
    #[cfg(feature = "quic")]
    links: Links,
    link: LinkUse,
}

impl LinkPath {
    /// Returns the use of the link, which follows the connection.
    pub fn link(&self) -> &LinkUse {
        &self.link
    }

    /// Returns where the connection starts; `None` if the system chooses.
    pub fn source(&self) -> Option<LinkSource> {
        Some(self.link.link()?.source.clone())
    }

    /// Notes that the link leads to the server.
    #[cfg(feature = "quic")]
    pub fn note_success(&self) {
        if let Some(link) = self.link.link() {
            link.note_success();
        }
    }

    /// Moves the connection to another socket for packets to `peer`, which `open` opens, over the first link where that
    /// works. If the link of now is `silent`, it has failed and comes last; otherwise it comes first.
    #[cfg(feature = "quic")]
    pub fn change<T>(
        &self,
        peer: SocketAddr,
        silent: bool,
        open: impl Fn(Option<&LinkSource>) -> io::Result<T>,
    ) -> io::Result<T> {
        let Some(now) = self.link.link() else {
            return open(None);
        };
        if silent && self.links.has_choice() {
            now.note_failure();
        }
        let mut order = self.links.0.clone();
        order.sort_by_cached_key(|link| {
            let is_now = Arc::ptr_eq(link, &now);
            (is_now == silent, link.is_failing(), link.uses())
        });
        let fitting = order.iter().filter(|link| link.source.leads_to(&peer));
        let mut last = None;
        for link in fitting {
            match open(Some(&link.source)) {
                Ok(opened) => {
                    self.link.move_to(link);
                    return Ok(opened);
                }
                Err(e) => {
                    let text = format!("from {}: {e}", link.source);
                    last = Some(io::Error::new(e.kind(), text));
                }
            }
        }
        Err(last.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
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
    _first: LinkUse,
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
            _first: first.unwrap_or_default(),
        }
    }

    /// Returns the path of a connection over a route.
    pub fn path(&self, route: &LinkRoute) -> LinkPath {
        LinkPath {
            #[cfg(feature = "quic")]
            links: self.clone(),
            link: LinkUse::of(&route.link),
        }
    }

    /// Whether a connection over `link` would better be over another one, which works and has at least two
    /// fewer.
    pub fn is_uneven(&self, link: &LinkUse) -> bool {
        let Some(uses) = link.link().map(|link| link.uses()) else {
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

    /// Notes that the route at this place has led to the server first. The links over which the same address was tried
    /// before are passed over for a while.
    pub fn settle(self, at: usize) {
        let Some(winner) = self.list.get(at) else {
            return;
        };
        let before = self.list.iter().take(at);
        let same = before.filter(|route| route.addr == winner.addr);
        same.for_each(|route| route.link.note_failure());
        winner.link.note_success();
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

    /// Takes the route at this place, as a connection that is open does.
    fn take(links: &Links, routes: LinkRoutes, at: usize) -> LinkUse {
        let link = links.path(&routes.list()[at]).link().clone();
        routes.settle(at);
        link
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
        let (one, other) = (take(&links, one, 0), take(&links, other, 0));
        assert_eq!(format!("x{one}{other}"), "x from a from b");
        drop(one);
        assert_eq!(shown(&links.routes(&addresses(1), 16)), "a1 b1");
    }

    #[test]
    fn a_link_that_has_failed_comes_last_until_it_works() {
        let links = two();
        // The second link has led to the first address, the first one has not.
        let tunnel = take(&links, links.routes(&addresses(1), 16), 1);
        assert_eq!(shown(&links.routes(&addresses(1), 16)), "b1 a1");
        let more = take(&links, links.routes(&addresses(1), 16), 0);
        // By this nothing is known of the other link.
        links.routes(&addresses(2), 16).settle(2);
        assert_eq!(shown(&links.routes(&addresses(1), 16)), "b1 a1");
        assert!(!links.is_uneven(&tunnel));
        let recovered = take(&links, links.routes(&addresses(1), 16), 1);
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

    #[cfg(feature = "quic")]
    #[test]
    fn a_connection_moves_to_another_link_when_its_own_is_silent_and_stays_otherwise() {
        let links = two();
        let path = links.path(&links.routes(&addresses(1), 16).list()[0]);
        let (peer, link) = (addresses(1)[0], path.link().clone());
        let change = |silent, refused: &str| {
            path.change(peer, silent, |source| match source {
                Some(source) if source.to_string() != refused => Ok(source.to_string()),
                _ => Err(io::ErrorKind::AddrNotAvailable.into()),
            })
        };
        assert_eq!(change(false, "").unwrap(), "a");
        assert_eq!(change(true, "").unwrap(), "b");
        assert_eq!(link.to_string(), " from b");
        assert_eq!((links.0[0].uses(), links.0[1].uses()), (0, 1));
        assert!(links.0[0].is_failing());
        // The first one has failed, too, but the second one is silent now.
        assert_eq!(change(true, "").unwrap(), "a");
        path.note_success();
        // Without the interface, its connection goes elsewhere.
        assert_eq!(change(false, "a").unwrap(), "b");
        assert_eq!(change(true, "a").unwrap(), "b");
        drop(path);
        assert_eq!(links.0[1].uses(), 1);
        link.end();
        assert_eq!(links.0[1].uses(), 0);
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
