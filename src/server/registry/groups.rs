//! Names that several clients share (docs/wire.md, "Groups"): which of them a visitor comes to.

use super::host_table::{HostGroup, HostMember};
use super::{HostKind, Key, OpenResult, RegisteredClient, RegistryState};
use crate::server::ports::PortId;
use crate::wire::frame::ServiceIndex;
use crate::wire::hello::GroupSpec;
use std::fmt;
use std::net::IpAddr;

/// Maximum number of shared names of a client that the API lists, each with all members.
const MAX_LISTED: usize = 20;
/// Maximum number of clients that share a name.
pub const MAX_MEMBERS: usize = 100;

/// A member to which a visitor can come.
struct Candidate {
    key: Box<str>,
    service: ServiceIndex,
    /// Streams of its tunnels.
    streams: usize,
    /// When a visitor last came to it, as a number that grows.
    turn: u32,
}

/// The members of a group as they are for one visitor.
struct Choice {
    /// The member that the visitor comes to; `None` if it can come to none.
    chosen: Option<(Box<str>, ServiceIndex)>,
    /// The members that take no visitors.
    others: Vec<(Box<str>, ServiceIndex)>,
}

impl RegistryState {
    /// Opens a stream to a member of the group that shares the name.
    pub(super) fn open_group(
        &mut self,
        name: &Key,
        visitor: IpAddr,
        also_down: bool,
    ) -> OpenResult {
        let Some((group, members)) = self.hosts.group(name) else {
            return OpenResult::Unknown;
        };
        let choice = self.choose(group, members, visitor, also_down);
        let (opened, member) = self.open_choice(choice, also_down);
        if let Some(member) = member {
            self.hosts.take_turn(name, &member);
        }
        opened
    }

    /// Opens a stream to a member of the group that shares the port; `None` if none does.
    pub(super) fn open_shared_port(&mut self, port: PortId, visitor: IpAddr) -> Option<OpenResult> {
        let (group, members) = self.shared_ports.group(&port)?;
        let choice = self.choose(group, members, visitor, false);
        let (opened, member) = self.open_choice(choice, false);
        if let Some(member) = member {
            self.shared_ports.take_turn(&port, &member);
        }
        Some(opened)
    }

    fn choose<'a>(
        &self,
        group: &HostGroup,
        members: impl Iterator<Item = &'a HostMember>,
        visitor: IpAddr,
        also_down: bool,
    ) -> Choice {
        let members: Vec<&HostMember> = members.collect();
        let all: Vec<&str> = members.iter().map(|member| &*member.client).collect();
        let mut least_late = None;
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut others: Vec<(Box<str>, ServiceIndex)> = Vec::new();
        for member in members {
            let client = self.clients.get(&member.client);
            let load = client.and_then(|client| client.load(member.service, also_down));
            let Some((lateness, streams)) = load else {
                others.push((member.client.clone(), member.service));
                continue;
            };
            // Those that are late get no visitors while others are not.
            if least_late.is_none_or(|least| lateness < least) {
                least_late = Some(lateness);
                candidates.clear();
            }
            if least_late == Some(lateness) {
                candidates.push(Candidate {
                    key: member.client.clone(),
                    service: member.service,
                    streams,
                    turn: group.turn_of(&member.client),
                });
            }
        }
        let candidates = candidates.into_iter();
        let chosen = match group.spec.sticky {
            true => candidates
                .max_by_key(|candidate| affinity(visitor, lasting_name(&candidate.key, &all))),
            false => candidates.min_by_key(|candidate| (candidate.streams, candidate.turn)),
        };
        Choice {
            chosen: chosen.map(|candidate| (candidate.key, candidate.service)),
            others,
        }
    }

    /// Opens a stream to the chosen member, and returns that member if the visitor comes to it.
    fn open_choice(&mut self, choice: Choice, also_down: bool) -> (OpenResult, Option<Box<str>>) {
        if let Some((key, service)) = choice.chosen {
            let opened = self.open(&key, service, also_down);
            let came = matches!(opened, OpenResult::Stream(_)).then_some(key);
            return (opened, came);
        }
        // Down, if any member is there.
        let mut result = OpenResult::NoTunnel;
        for (key, service) in choice.others {
            let of_member = self.open(&key, service, also_down);
            let rank = |result: &OpenResult| match result {
                OpenResult::Stream(_) => 4,
                OpenResult::Pausing => 3,
                OpenResult::Held => 2,
                OpenResult::Down => 1,
                OpenResult::NoTunnel | OpenResult::Unknown => 0,
            };
            if rank(&of_member) > rank(&result) {
                result = of_member;
            }
        }
        (result, None)
    }
}

impl RegisteredClient {
    /// Returns how late the client's best tunnel is, and how many streams all tunnels have that take
    /// visitors of the service; `None` if none does.
    fn load(
        &self,
        service: ServiceIndex,
        also_down: bool,
    ) -> Option<(crate::tunnel::Lateness, usize)> {
        let current = self.tunnels.iter().filter(|member| self.is_current(member));
        let up = current.filter(|member| also_down || !member.is_down(service));
        let loads = up.filter_map(|member| {
            let tunnel = &member.tunnel;
            Some((tunnel.lateness(), tunnel.load()?))
        });
        loads.reduce(|(late, streams), (other, more)| {
            (late.min(other), streams.saturating_add(more))
        })
    }
}

/// Returns the name of a member that stays the same as long as possible: its id, which survives a start of
/// the client, unless other members have the same.
fn lasting_name<'a>(member: &'a str, members: &[&str]) -> &'a str {
    let id = super::id_of(member);
    let same = members.iter().filter(|other| super::id_of(other) == id);
    match same.count() {
        0 | 1 => id,
        _ => member,
    }
}

/// Returns a number that is different for each visitor and member, and always the same. The member with the
/// highest one serves the visitor, so that only the visitors of a member that leaves come to another one.
fn affinity(visitor: IpAddr, member: &str) -> u64 {
    let address = match visitor.to_canonical() {
        IpAddr::V4(v4) => u64::from(u32::from(v4)),
        // A visitor has all addresses of a /64.
        IpAddr::V6(v6) => (u128::from(v6) >> 64) as u64,
    };
    // FNV-1a, whose result is then mixed, since its last bytes hardly change the first bits.
    let bytes = address.to_be_bytes().into_iter().chain(member.bytes());
    let mut hash = bytes.fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    // The finalizer of MurmurHash3.
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    hash ^ (hash >> 33)
}

/// The group of a service as it is behind its name in the log; nothing without one.
pub struct OfGroup<'a>(pub Option<&'a GroupSpec>);

impl fmt::Display for OfGroup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(group) => write!(f, " (serviceGroup {:?})", group.name),
            None => Ok(()),
        }
    }
}

/// A name that a client shares, for the API.
#[derive(Debug, PartialEq, Eq)]
pub struct SharedName {
    /// The group.
    pub group: Box<str>,
    /// The host prefix, the domain or the port.
    pub name: Box<str>,
    /// Whether it is that of TLS visitors.
    pub tls: bool,
    /// The ids of the members, sorted; one for each.
    pub members: Vec<Box<str>>,
}

impl RegistryState {
    /// Returns the names and ports that a registration shares.
    pub(super) fn shared_names<'a>(
        &'a self,
        key: &'a str,
    ) -> impl Iterator<Item = SharedName> + 'a {
        let names = self.hosts.of(key).iter().filter_map(|name| {
            let (group, members) = self.hosts.group(name)?;
            let shown = super::domain_of(&name.1).unwrap_or(&name.1);
            Some(SharedName::new(
                group,
                shown,
                name.0 == HostKind::Tls,
                members,
            ))
        });
        let ports = self.shared_ports.of(key).iter().filter_map(|port| {
            let (group, members) = self.shared_ports.group(port)?;
            Some(SharedName::new(
                group,
                &format!("port {}", port.1),
                false,
                members,
            ))
        });
        names.chain(ports).take(MAX_LISTED)
    }
}

impl SharedName {
    fn new<'a>(
        group: &HostGroup,
        name: &str,
        tls: bool,
        members: impl Iterator<Item = &'a HostMember>,
    ) -> Self {
        let members = members.map(|member| super::id_of(&member.client).into());
        let mut members: Vec<Box<str>> = members.collect();
        members.sort_unstable();
        Self {
            group: group.spec.name.clone(),
            name: name.into(),
            tls,
            members,
        }
    }
}

impl RegistryState {
    /// Returns other tunnels of the id of this registration.
    pub(super) fn tunnels_of_siblings(&self, key: &str) -> Vec<crate::tunnel::Tunnel> {
        let siblings = self.siblings(key);
        let tunnels = siblings.flat_map(|(_, client)| client.open_tunnels());
        tunnels.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn member_of(visitor: IpAddr, members: &[&'static str]) -> &'static str {
        let best = members
            .iter()
            .max_by_key(|member| affinity(visitor, member));
        best.copied().unwrap_or_default()
    }

    #[test]
    fn visitors_are_spread_and_only_those_of_a_member_that_leaves_move() {
        let (all, left) = (["id1", "id2", "id3", "id4"], ["id1", "id2", "id4"]);
        let visitors = (0..4000u32).map(|n| IpAddr::from(Ipv4Addr::from(0xC000_0200 + n)));
        let mut counts = [0; 4];
        for visitor in visitors {
            let before = member_of(visitor, &all);
            let after = member_of(visitor, &left);
            assert!(before == after || before == "id3");
            let at = all.iter().position(|member| *member == before).unwrap();
            counts[at] += 1;
        }
        assert!(
            counts.iter().all(|count| (800..1200).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn visitors_come_back_to_a_client_that_was_started_anew_unless_others_have_its_id() {
        let key = |id: &str, instance| super::super::client_key(id, Some([instance; 8]));
        let (before, anew, other) = (key("id1", 1), key("id1", 2), key("id2", 3));
        let name = |key, all: &[&str]| lasting_name(key, all).to_owned();
        assert_eq!(name(&before, &[&before, &other]), "id1");
        assert_eq!(name(&anew, &[&anew, &other]), "id1");
        assert_eq!(name(&anew, &[&anew, &before, &other]), &*anew);
        assert_eq!(name(&other, &[&anew, &before, &other]), "id2");
        assert_eq!(name("id3", &["id3"]), "id3");
    }

    #[test]
    fn all_addresses_of_a_64_are_one_visitor_and_ipv4_in_ipv6_is_ipv4() {
        let of = |text: &str| affinity(text.parse().unwrap(), "id1");
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.7"), of("192.0.2.7"));
    }
}
