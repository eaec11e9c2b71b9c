//! The ports that a client has and may have. Not the ports themselves.

use super::{PortId, PortSocket, Protocol};
use crate::config::{Limits, PortLimits};
use std::io;

/// The ports that a client has and may have, by rule.
pub struct PortQuota<'a> {
    tcp: ProtocolQuota<'a>,
    udp: ProtocolQuota<'a>,
    /// Whether a port is reserved for another client.
    is_others: &'a dyn Fn(PortId) -> bool,
}

/// The part of a [`PortQuota`] for one protocol.
pub(super) struct ProtocolQuota<'a> {
    pub limits: &'a PortLimits,
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

    pub(super) fn of(&self, protocol: Protocol) -> &ProtocolQuota<'a> {
        match protocol {
            Protocol::Tcp => &self.tcp,
            Protocol::Udp => &self.udp,
        }
    }

    /// Opens a port, unless it is reserved for another client or no `tries` are left.
    pub(super) fn try_open(&self, port: PortId, tries: &mut u32) -> io::Result<PortSocket> {
        *tries = tries.checked_sub(1).ok_or(io::ErrorKind::AddrInUse)?;
        if (self.is_others)(port) {
            let why = "it is reserved for another client, which may reconnect soon";
            return Err(io::Error::new(io::ErrorKind::AddrInUse, why));
        }
        PortSocket::open(port)
    }

    pub(super) fn count(&mut self, protocol: Protocol, rule: usize) {
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
    pub fn rule_for(&self, port: u16) -> Option<usize> {
        let mut rules = self.with_room().into_iter();
        rules.find(|rule| self.contains(*rule, port))
    }

    pub fn contains(&self, rule: usize, port: u16) -> bool {
        let rule = self.limits.rules.get(rule);
        rule.is_some_and(|rule| rule.range.contains(port))
    }

    /// Returns the rules that allow another port.
    pub fn with_room(&self) -> Vec<usize> {
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
