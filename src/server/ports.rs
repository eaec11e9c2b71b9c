//! TCP and UDP ports of clients: which ones a client may have, and how they are opened. `visitor` accepts
//! on those of TCP, `flows` receives on those of UDP.

use super::udp_port::UdpPort;
use crate::config::{Limits, PortLimits, PortRule};
use crate::net::kernel::{AsFd, OwnedFd};
use crate::net::{self, Datagrams, Listener, Shutdown};
use crate::wire::frame::{PortCause, ServiceIndex};
use crate::wire::hello::ServiceSpec;
use std::net::SocketAddr;
use std::sync::Arc;
use std::{fmt, io};

/// Maximum number of ports tried for one registration, besides those requested by number. A retry
/// continues the search.
pub const MAX_TRIES: u32 = 64;
/// Maximum number of ports tried while the registry is locked; see [`open_early`].
pub const MAX_TRIES_LOCKED: u32 = 8;

/// An open port of one client. Dropping it closes the port.
pub struct PortListener {
    /// The client's request.
    request: PortRequest,
    /// The open port.
    pub port: u16,
    service: ServiceIndex,
    listener: PortSocket,
    stop: Shutdown,
    /// See [`InheritedPort::older`].
    older: Option<Shutdown>,
}

/// The protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP: a visitor is a connection.
    Tcp,
    /// UDP: a visitor is an address that datagrams come from.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// The number of a port and its protocol.
pub type PortId = (Protocol, u16);

/// The socket of a port.
#[derive(Clone)]
pub enum PortSocket {
    Tcp(Arc<Listener>),
    Udp(Arc<UdpPort>),
}

impl PortSocket {
    /// Opens a port.
    fn open((protocol, port): PortId) -> io::Result<Self> {
        Ok(match protocol {
            Protocol::Tcp => Self::Tcp(Arc::new(net::listen(None, port)?)),
            Protocol::Udp => Self::Udp(Arc::new(UdpPort::bind(port)?)),
        })
    }

    /// Returns the protocol of the port.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Tcp(_) => Protocol::Tcp,
            Self::Udp(_) => Protocol::Udp,
        }
    }

    /// Returns the address that visitors reach.
    pub fn addr(&self) -> SocketAddr {
        match self {
            Self::Tcp(listener) => listener.addr(),
            Self::Udp(socket) => socket.addr(),
        }
    }

    /// Sets whether new visitors use the congestion control BBR.
    pub fn set_bbr(&self, bbr: bool) {
        match self {
            Self::Tcp(listener) => net::set_bbr(&**listener, bbr),
            Self::Udp(_) => {}
        }
    }

    /// Notes whether another process has the socket, too.
    fn set_shared(&self, shared: bool) {
        match self {
            Self::Tcp(listener) => listener.set_shared(shared),
            // Closing it here leaves it open there.
            Self::Udp(_) => {}
        }
    }

    /// Closes the port now: its client may request it again before the task that serves it ends.
    fn close(&self, has_older: bool) {
        match self {
            // Shutting a socket down ends it in every process that holds it.
            Self::Tcp(listener) if listener.is_shared() || has_older => {}
            Self::Tcp(listener) => listener.close(),
            Self::Udp(socket) => socket.close(),
        }
    }

    /// Returns the socket for another process; `None` if it was closed.
    pub fn to_send(&self) -> Option<Arc<dyn AsFd + Send + Sync>> {
        match self {
            Self::Tcp(listener) => Some(listener.clone()),
            Self::Udp(socket) => Some(socket.socket()?),
        }
    }

    /// Adopts the socket of another process. Fails if it is not one of this protocol.
    pub fn adopt(protocol: Protocol, socket: OwnedFd) -> io::Result<Self> {
        Ok(match protocol {
            Protocol::Tcp => Self::Tcp(Arc::new(Listener::adopt(socket)?)),
            Protocol::Udp => Self::Udp(Arc::new(UdpPort::new(Datagrams::adopt(socket)?))),
        })
    }
}

/// A client's port as handed over to another process, or reserved for a client that is away.
#[derive(Clone)]
pub struct InheritedPort {
    /// The client's request.
    pub request: PortRequest,
    /// The port that the client has got.
    pub port: u16,
    /// The socket; `None` if only the number is reserved.
    pub listener: Option<PortSocket>,
    /// Triggered when the parent process, which may accept on the listener too, has ended. `None`
    /// if the listener belongs to this process alone.
    pub older: Option<Shutdown>,
}

impl InheritedPort {
    /// Notes whether a child process has the listener, too, or is about to: it must not be closed for
    /// both, whoever takes the port here meanwhile.
    pub fn set_shared(&self, shared: bool) {
        if let Some(listener) = &self.listener {
            listener.set_shared(shared);
        }
    }

    /// Returns the number and the protocol.
    pub fn id(&self) -> PortId {
        (self.request.protocol, self.port)
    }

    /// Whether the port satisfies a request: the same request, or the same number.
    fn answers(&self, request: PortRequest) -> bool {
        self.request == request || self.id() == request.id()
    }
}

/// A client's request for a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRequest {
    /// The protocol.
    pub protocol: Protocol,
    /// Whether any other allowed port will do if `port` cannot be opened.
    pub random: bool,
    /// The port.
    pub port: u16,
}

impl PortRequest {
    /// Returns the request of a service; `None` if it has no port.
    pub fn of(spec: &ServiceSpec) -> Option<Self> {
        let (protocol, random, port) = match *spec.ungrouped() {
            ServiceSpec::Tcp { random, port } => (Protocol::Tcp, random, port),
            ServiceSpec::Udp { random, port } => (Protocol::Udp, random, port),
            ServiceSpec::Host { .. }
            | ServiceSpec::Domains { .. }
            | ServiceSpec::Grouped { .. } => return None,
        };
        Some(Self {
            protocol,
            random,
            port,
        })
    }

    /// Returns the requested number and the protocol.
    pub fn id(self) -> PortId {
        (self.protocol, self.port)
    }
}

/// An open port to accept visitors on.
pub struct OpenedPort {
    pub port: u16,
    /// The socket to accept on.
    pub listener: PortSocket,
    /// Triggered when the port is closed.
    pub stop: Shutdown,
}

impl OpenedPort {
    /// Returns the number and the protocol.
    pub fn id(&self) -> PortId {
        (self.listener.protocol(), self.port)
    }
}

/// Why a port could not be opened.
#[derive(Debug)]
pub enum PortFailure {
    /// The client has its maximum of ports.
    TooMany,
    /// The port is outside of the client's ranges.
    NotAllowed,
    /// All ports that were tried are in use.
    NoneFree,
    /// The port could not be opened early, and too many others have been tried under the lock.
    Later,
    /// The system refuses to open the port.
    System(io::Error),
}

impl PortFailure {
    /// Returns the cause that the client is told.
    pub fn cause(&self) -> PortCause {
        match self {
            Self::NotAllowed => PortCause::NotAllowed,
            Self::NoneFree => PortCause::NoneFree,
            Self::Later => PortCause::InUse,
            Self::System(e) if e.kind() == io::ErrorKind::AddrInUse => PortCause::InUse,
            Self::TooMany => PortCause::TooMany,
            Self::System(_) => PortCause::Other(0),
        }
    }
}

impl fmt::Display for PortFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => {
                f.write_str("the client has its maximum of ports (tcpNumber or udpNumber)")
            }
            Self::NotAllowed => {
                f.write_str("it is outside of the client's ranges (tcpRange or udpRange)")
            }
            Self::NoneFree => {
                f.write_str("all ports that were tried are in use (tcpRange or udpRange)")
            }
            Self::Later => f.write_str("it seems to be in use, like many others; it is retried"),
            Self::System(e) => e.fmt(f),
        }
    }
}

/// The ports that a client has and may have, by rule.
pub struct PortQuota<'a> {
    tcp: ProtocolQuota<'a>,
    udp: ProtocolQuota<'a>,
    /// Whether a port is reserved for another client.
    is_others: &'a dyn Fn(PortId) -> bool,
}

/// The part of a [`PortQuota`] for one protocol.
struct ProtocolQuota<'a> {
    limits: &'a PortLimits,
    used: Vec<u32>,
}

impl<'a> PortQuota<'a> {
    pub fn new(limits: &'a Limits) -> Self {
        Self {
            tcp: ProtocolQuota::new(&limits.tcp),
            udp: ProtocolQuota::new(&limits.udp),
            is_others: &|_| false,
        }
    }

    /// Excludes the ports that are reserved for other clients.
    pub fn without(self, is_others: &'a dyn Fn(PortId) -> bool) -> Self {
        Self { is_others, ..self }
    }

    /// Counts an open port. Returns whether the rules allow it in addition to those counted before.
    pub fn admit(&mut self, (protocol, port): PortId) -> bool {
        let rule = self.of(protocol).rule_for(port);
        rule.inspect(|rule| self.count(protocol, *rule)).is_some()
    }

    fn of(&self, protocol: Protocol) -> &ProtocolQuota<'a> {
        match protocol {
            Protocol::Tcp => &self.tcp,
            Protocol::Udp => &self.udp,
        }
    }

    /// Opens a port, unless it is reserved for another client or no `tries` are left.
    fn try_open(&self, port: PortId, tries: &mut u32) -> io::Result<PortSocket> {
        *tries = tries.checked_sub(1).ok_or(io::ErrorKind::AddrInUse)?;
        if (self.is_others)(port) {
            let why = "it is reserved for another client, which may reconnect soon";
            return Err(io::Error::new(io::ErrorKind::AddrInUse, why));
        }
        PortSocket::open(port)
    }

    fn count(&mut self, protocol: Protocol, rule: usize) {
        let quota = match protocol {
            Protocol::Tcp => &mut self.tcp,
            Protocol::Udp => &mut self.udp,
        };
        if let Some(used) = quota.used.get_mut(rule) {
            *used = used.saturating_add(1);
        }
    }
}

impl<'a> ProtocolQuota<'a> {
    fn new(limits: &'a PortLimits) -> Self {
        Self {
            limits,
            used: vec![0; limits.rules.len()],
        }
    }

    /// Returns a rule that allows this port in addition to the open ones.
    fn rule_for(&self, port: u16) -> Option<usize> {
        let mut rules = self.with_room().into_iter();
        rules.find(|rule| self.contains(*rule, port))
    }

    fn contains(&self, rule: usize, port: u16) -> bool {
        let rule = self.limits.rules.get(rule);
        rule.is_some_and(|rule| rule.range.contains(port))
    }

    /// Returns the rules that allow another port.
    fn with_room(&self) -> Vec<usize> {
        let used = self.used.iter().fold(0u32, |sum, n| sum.saturating_add(*n));
        if self.limits.total > 0 && used >= self.limits.total {
            return Vec::new();
        }
        let rules = self.limits.rules.iter().zip(&self.used).enumerate();
        rules
            .filter(|(_, (rule, used))| rule.number == 0 || **used < rule.number)
            .map(|(at, _)| at)
            .collect()
    }
}

impl PortListener {
    /// Returns the index of the service that the port belongs to.
    pub fn service(&self) -> ServiceIndex {
        self.service
    }

    /// Returns the number and the protocol.
    pub fn id(&self) -> PortId {
        (self.request.protocol, self.port)
    }

    /// Whether the port satisfies a request: the same request, or the same number.
    pub fn answers(&self, request: PortRequest) -> bool {
        self.request == request || self.id() == request.id()
    }

    /// Sets whether new visitors use the congestion control BBR.
    pub fn set_bbr(&self, bbr: bool) {
        self.listener.set_bbr(bbr);
    }

    /// Shares the port with another process, for which it stays open when this is dropped.
    pub fn share(&mut self) -> InheritedPort {
        self.listener.set_shared(true);
        InheritedPort {
            listener: Some(self.listener.clone()),
            older: self.older.clone(),
            ..self.number()
        }
    }

    /// Shares the port with another process and stops accepting here. `None` if it was done before.
    pub fn move_away(&mut self) -> Option<InheritedPort> {
        if self.stop.is_triggered() {
            return None;
        }
        self.stop.trigger();
        Some(self.share())
    }

    /// Returns the number without the listener, to reserve it.
    pub fn number(&self) -> InheritedPort {
        InheritedPort {
            request: self.request,
            port: self.port,
            listener: None,
            older: None,
        }
    }

    /// Undoes [`PortListener::share`], because the other process has failed.
    pub fn unshare(&mut self) {
        self.listener.set_shared(false);
    }

    /// Assigns the port to a service of a changed list.
    pub fn assign(&mut self, request: PortRequest, service: ServiceIndex) {
        self.request = request;
        self.service = service;
    }
}

impl Drop for PortListener {
    fn drop(&mut self) {
        self.stop.trigger();
        let has_older = self.older.as_ref().is_some_and(|gone| !gone.is_triggered());
        self.listener.close(has_older);
    }
}

/// Opens the `wanted` ports of a client as far as possible before the registry is locked, since
/// there may be hundreds. Tries the reserved ports (`kept`) first. Ports that the registry then
/// does not assign to the client close when the list is dropped.
pub fn open_early(
    limits: &Limits,
    wanted: &[PortRequest],
    mut kept: Vec<InheritedPort>,
) -> Vec<InheritedPort> {
    let mut quota = PortQuota::new(limits);
    let mut tries = MAX_TRIES.saturating_add(u32::try_from(wanted.len()).unwrap_or(u32::MAX));
    let mut early = Vec::new();
    for request in wanted {
        let is_open = |port: &InheritedPort| port.answers(*request) && port.listener.is_some();
        if let Some(at) = kept.iter().position(is_open) {
            kept.remove(at);
            continue;
        }
        if let Ok(found) = try_open(&quota, &mut kept, *request, &mut tries) {
            quota.count(request.protocol, found.rule);
            early.push(InheritedPort {
                request: *request,
                port: found.port,
                listener: Some(found.listener),
                older: found.older,
            });
        }
    }
    early
}

/// Opens a port for `service` and counts it. Prefers the client's `inherited` ports.
pub fn open(
    quota: &mut PortQuota<'_>,
    inherited: &mut Vec<InheritedPort>,
    request: PortRequest,
    service: ServiceIndex,
    tries: &mut u32,
) -> Result<(PortListener, OpenedPort), PortFailure> {
    let PortMatch {
        rule,
        port,
        listener,
        older,
    } = try_open(quota, inherited, request, tries)?;
    quota.count(request.protocol, rule);
    let stop = Shutdown::default();
    let opened = OpenedPort {
        port,
        listener: listener.clone(),
        stop: stop.clone(),
    };
    let port = PortListener {
        request,
        port,
        service,
        listener,
        stop,
        older,
    };
    Ok((port, opened))
}

/// A listener for a port, and the rule that allows it.
struct PortMatch {
    /// The index of the rule.
    rule: usize,
    port: u16,
    listener: PortSocket,
    /// See [`InheritedPort::older`].
    older: Option<Shutdown>,
}

/// Finds and opens a port for a request.
fn try_open(
    quota: &PortQuota<'_>,
    inherited: &mut Vec<InheritedPort>,
    request: PortRequest,
    tries: &mut u32,
) -> Result<PortMatch, PortFailure> {
    let protocol = request.protocol;
    let its = quota.of(protocol);
    let rules = &its.limits.rules;
    let found = |rule, port, listener, older| PortMatch {
        rule,
        port,
        listener,
        older,
    };
    let with_room = its.with_room();
    let in_range = (0..rules.len()).any(|rule| its.contains(rule, request.port));
    if rules.is_empty() || !request.random && !in_range {
        return Err(PortFailure::NotAllowed);
    }
    if with_room.is_empty() {
        return Err(PortFailure::TooMany);
    }
    while let Some(at) = inherited.iter().position(|port| port.answers(request)) {
        let InheritedPort {
            port,
            listener,
            older,
            ..
        } = inherited.remove(at);
        if let Some(rule) = its.rule_for(port) {
            let listener = listener.map_or_else(|| quota.try_open((protocol, port), tries), Ok);
            if let Ok(listener) = listener {
                return Ok(found(rule, port, listener, older));
            }
        }
    }
    let rule = its.rule_for(request.port).filter(|_| request.port != 0);
    if let Some(rule) = rule {
        if *tries == 0 {
            return Err(PortFailure::Later);
        }
        match quota.try_open(request.id(), tries) {
            Ok(listener) => return Ok(found(rule, request.port, listener, None)),
            Err(e) if !request.random => return Err(PortFailure::System(e)),
            Err(_) => {}
        }
    } else if !request.random {
        return Err(PortFailure::TooMany);
    }
    for rule in with_room {
        for port in candidates(rules, rule) {
            if *tries == 0 {
                return Err(PortFailure::NoneFree);
            }
            match quota.try_open((protocol, port), tries) {
                Ok(listener) => return Ok(found(rule, port, listener, None)),
                Err(e) if is_of_port(&e) => {}
                // Other ports would fail, too.
                Err(e) => return Err(PortFailure::System(e)),
            }
        }
    }
    Err(PortFailure::NoneFree)
}

/// Whether the error concerns this port only.
fn is_of_port(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
    )
}

/// Returns ports of a rule's range in the order to try them. A small range is tried whole, starting
/// at a random port; a large one first at some random ports.
fn candidates(rules: &[PortRule], rule: usize) -> impl Iterator<Item = u16> {
    let (first, len) = rules.get(rule).map_or((0, 0), |rule| {
        let len = u32::from(rule.range.last).saturating_sub(u32::from(rule.range.first)) + 1;
        (u32::from(rule.range.first), len)
    });
    let start = net::random();
    let at_random = if len > MAX_TRIES { MAX_TRIES / 2 } else { 0 };
    (0..MAX_TRIES.min(len)).filter_map(move |n| {
        let offset = if n < at_random {
            net::random()
        } else {
            start.wrapping_add(n)
        };
        // The modulus keeps it within the range.
        u16::try_from(first + offset.checked_rem(len)?).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::PortFailure::{NoneFree, NotAllowed, System, TooMany};
    use super::*;
    use crate::config::PortRange;
    use std::collections::BTreeSet;
    use std::os::fd::{AsFd, OwnedFd};

    fn rule(number: u32, first: u16, last: u16) -> PortRule {
        let range = PortRange { first, last };
        PortRule { number, range }
    }

    fn duplicate(socket: &PortSocket) -> OwnedFd {
        let socket = socket.to_send().expect("it is open");
        let duplicate = socket.as_fd().try_clone_to_owned();
        duplicate.expect("a descriptor")
    }

    /// Returns a port that is free now.
    fn free_port() -> u16 {
        let socket = std::net::TcpListener::bind("[::]:0").unwrap();
        socket.local_addr().unwrap().port()
    }

    fn ask(port: u16, random: bool) -> PortRequest {
        PortRequest {
            protocol: Protocol::Tcp,
            random,
            port,
        }
    }

    fn limits(tcp: &[PortRule], total: u32) -> Limits {
        Limits {
            tcp: PortLimits {
                rules: tcp.to_vec(),
                total,
            },
            ..Limits::of_one_prefix()
        }
    }

    fn open(
        quota: &mut PortQuota<'_>,
        inherited: &mut Vec<InheritedPort>,
        request: PortRequest,
        service: ServiceIndex,
    ) -> Result<(PortListener, OpenedPort), PortFailure> {
        super::open(quota, inherited, request, service, &mut MAX_TRIES.clone())
    }

    fn open_one(
        rules: &[PortRule],
        request: PortRequest,
        service: ServiceIndex,
    ) -> Result<(PortListener, OpenedPort), PortFailure> {
        let limits = limits(rules, 0);
        open(
            &mut PortQuota::new(&limits),
            &mut Vec::new(),
            request,
            service,
        )
    }

    #[test]
    fn a_requested_port_is_opened_if_allowed_and_free() {
        let port = free_port();
        let limits = limits(&[rule(1, port, port)], 0);
        let mut quota = PortQuota::new(&limits);
        let (mine, opened) = open(
            &mut quota,
            &mut Vec::new(),
            ask(port, false),
            ServiceIndex(3),
        )
        .unwrap();
        assert_eq!((mine.port, opened.listener.addr().port()), (port, port));
        assert_eq!((mine.service(), opened.port), (ServiceIndex(3), port));
        let again = open_one(&[rule(0, port, port)], ask(port, false), ServiceIndex(4));
        let again = again.err().expect("it is in use");
        assert!(matches!(again, System(_)), "{again}");
        assert_eq!(again.cause(), PortCause::InUse);
        let more = open(
            &mut quota,
            &mut Vec::new(),
            ask(port, false),
            ServiceIndex(4),
        );
        assert!(matches!(more.err(), Some(TooMany)));
    }

    #[test]
    fn the_maximum_over_all_rules_is_enforced() {
        let limits = limits(&[rule(0, 20000, 40000), rule(0, 40001, 60000)], 2);
        let mut quota = PortQuota::new(&limits);
        let _first = open(&mut quota, &mut Vec::new(), ask(0, true), ServiceIndex(0)).unwrap();
        let _second = open(&mut quota, &mut Vec::new(), ask(0, true), ServiceIndex(1)).unwrap();
        let third = open(&mut quota, &mut Vec::new(), ask(0, true), ServiceIndex(2));
        assert!(matches!(third.err(), Some(TooMany)));
    }

    #[test]
    fn no_port_outside_of_the_rules_is_opened() {
        let port = free_port();
        let failed = open_one(&[], ask(port, true), ServiceIndex(0)).err();
        assert!(matches!(failed, Some(NotAllowed)), "{failed:?}");
        let failed = open_one(&[rule(0, 1, 1)], ask(port, false), ServiceIndex(1)).err();
        assert!(matches!(failed, Some(NotAllowed)), "{failed:?}");
    }

    #[test]
    fn an_inherited_port_is_used_if_still_allowed() {
        let inherit = || {
            let listener = net::listen(None, 0).unwrap();
            let port = listener.addr().port();
            let shared = InheritedPort {
                request: ask(0, true),
                port,
                listener: Some(PortSocket::Tcp(Arc::new(listener))),
                older: None,
            };
            (port, shared)
        };
        let (port, one) = inherit();
        let mut all = vec![one, inherit().1];
        let limits = limits(&[rule(0, port, port)], 0);
        let mut quota = PortQuota::new(&limits);
        let (mine, _opened) = open(&mut quota, &mut all, ask(0, true), ServiceIndex(0)).unwrap();
        assert_eq!((mine.port, all.len()), (port, 1));
        let other = open(&mut quota, &mut all, ask(0, true), ServiceIndex(1));
        let other = other.err().expect("it is outside of the rules");
        assert!(matches!(other, NoneFree), "{other}");
        assert!(all.is_empty(), "unusable ports are closed");
    }

    #[test]
    fn a_reserved_port_is_opened_for_its_client_only() {
        let port = free_port();
        let limits = limits(&[rule(0, port, port)], 0);
        let is_others = |id| id == (Protocol::Tcp, port);
        for request in [ask(port, false), ask(port, true), ask(0, true)] {
            let mut quota = PortQuota::new(&limits).without(&is_others);
            let refused = open(&mut quota, &mut Vec::new(), request, ServiceIndex(2));
            assert!(refused.is_err(), "{request:?}");
        }
        let mut kept = vec![InheritedPort {
            request: ask(0, true),
            port,
            listener: None,
            older: None,
        }];
        let mut quota = PortQuota::new(&limits);
        let (mine, opened) = open(&mut quota, &mut kept, ask(0, true), ServiceIndex(0)).unwrap();
        assert_eq!((mine.port, opened.listener.addr().port()), (port, port));
    }

    #[test]
    fn dropping_a_shared_port_does_not_close_it_for_the_other_process() {
        let other_process = |port: &mut PortListener| {
            let listener = port.share().listener.expect("a listener");
            duplicate(&listener)
        };
        let (mut mine, opened) =
            open_one(&[rule(0, 1, 65535)], ask(0, true), ServiceIndex(0)).unwrap();
        let (number, socket) = (mine.port, other_process(&mut mine));
        drop((mine, opened));
        let listener = Listener::adopt(socket).expect("it listens");
        assert_eq!(listener.addr().port(), number);
        let (mut mine, _opened) =
            open_one(&[rule(0, 1, 65535)], ask(0, true), ServiceIndex(0)).unwrap();
        let socket = other_process(&mut mine);
        mine.unshare();
        drop(mine);
        assert!(Listener::adopt(socket).is_err(), "it was closed");
    }

    #[test]
    fn a_port_of_the_parent_process_is_not_closed_before_that_has_ended() {
        let rules = [rule(0, 1, 65535)];
        let limits = limits(&rules, 0);
        let gone = Shutdown::default();
        let inherit = |of_other_process: OwnedFd| {
            let listener = Listener::adopt(of_other_process).expect("it listens");
            let mut kept = vec![InheritedPort {
                request: ask(0, true),
                port: listener.addr().port(),
                listener: Some(PortSocket::Tcp(Arc::new(listener))),
                older: Some(gone.clone()),
            }];
            let mut quota = PortQuota::new(&limits);
            let (mine, _) = open(&mut quota, &mut kept, ask(0, true), ServiceIndex(0)).unwrap();
            mine
        };
        let theirs = net::listen(None, 0).expect("listen");
        let socket = || theirs.as_fd().try_clone_to_owned().expect("a descriptor");
        drop(inherit(socket()));
        assert!(Listener::adopt(socket()).is_ok(), "the parent accepts");
        let mine = inherit(socket());
        gone.trigger();
        drop(mine);
        assert!(Listener::adopt(socket()).is_err(), "it was closed");
        // A port opened early belongs to this process alone.
        let mut early = open_early(&limits, &[ask(0, true)], Vec::new());
        let opened = early[0].listener.clone().expect("a listener");
        let socket = duplicate(&opened);
        let mut quota = PortQuota::new(&limits);
        drop(open(&mut quota, &mut early, ask(0, true), ServiceIndex(0)).unwrap());
        assert!(Listener::adopt(socket).is_err(), "it was closed");
    }

    #[test]
    fn a_random_request_gets_another_port_of_the_range() {
        let taken = std::net::TcpListener::bind("[::]:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let rules = [rule(0, 20000, 60000)];
        let (mine, _opened) = open_one(&rules, ask(port, true), ServiceIndex(0)).unwrap();
        assert!(mine.port != port && rules[0].range.contains(mine.port));
    }

    #[test]
    fn ports_opened_early_take_no_try_under_the_lock() {
        let limits = limits(&[rule(0, 1024, 65535)], 0);
        let wanted = [ask(free_port(), false), ask(0, true), ask(0, true)];
        let mut early = open_early(&limits, &wanted, Vec::new());
        assert_eq!(early.len(), 3);
        let mut quota = PortQuota::new(&limits);
        let mut open = Vec::new();
        for (service, request) in (0..).zip(wanted) {
            open.push(
                super::open(
                    &mut quota,
                    &mut early,
                    request,
                    ServiceIndex(service),
                    &mut 0,
                )
                .unwrap(),
            );
        }
        assert!(early.is_empty());
        let request = ask(free_port(), false);
        let locked = super::open(&mut quota, &mut early, request, ServiceIndex(3), &mut 0);
        assert!(matches!(locked, Err(PortFailure::Later)));
    }

    #[test]
    fn every_port_of_a_small_range_is_tried() {
        let rules = [rule(0, 100, 109)];
        let tried: BTreeSet<u16> = candidates(&rules, 0).collect();
        let all: BTreeSet<u16> = (100..=109).collect();
        assert_eq!(tried, all);
        assert_eq!(
            candidates(&[rule(0, 1, 65535)], 0).count(),
            MAX_TRIES as usize
        );
    }
}
