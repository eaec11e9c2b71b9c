//! Finds and opens the ports that clients request. Not which ports a client may have, see `quota`.

use super::{
    InheritedPort, OpenedPort, PortFailure, PortListener, PortQuota, PortRequest, PortSocket,
};
use crate::config::{Limits, PortRule};
use crate::net::{self, Shutdown};
use crate::wire::frame::ServiceIndex;
use std::io;

/// Maximum number of ports tried for one registration, besides those requested by number. A retry
/// continues the search.
pub const MAX_TRIES: u32 = 64;
/// Maximum number of ports tried while the registry is locked; see [`open_early`].
pub const MAX_TRIES_LOCKED: u32 = 8;

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
    Ok(PortListener::new((request, port), service, listener, older))
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
pub(super) fn candidates(rules: &[PortRule], rule: usize) -> impl Iterator<Item = u16> {
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
