//! The host prefixes and domains that a client asks for, and whether it can have them.

use super::domains::{domain_key, domain_of};
use super::groups::{OfGroup, MAX_MEMBERS};
use super::instances::id_of;
use super::{HostKind, Key, Login, Registry, RegistryState};
use crate::collections::HashSet;
use crate::config::label::{ascii, label, value};
use crate::config::Domain;
use crate::net::clock;
use crate::wire::frame::{RejectCode, ServiceIndex};
use crate::wire::hello::{GroupSpec, ServiceSpec};
use std::borrow::Cow;
use std::fmt::{self, Display};
use std::time::Instant;

/// Maximum number of domains of one client.
const MAX_DOMAINS_OF_CLIENT: usize = 1000;

/// Why a client cannot share a name with one whose visitors need other certificates, for the log.
struct OtherAuthority<'a>(&'a str);

impl Display for OtherAuthority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, which has it too, is a user with another clientCA: give all users of a serviceGroup the same \
             clientCA, or none of them one",
            self.0
        )
    }
}

/// A name that a client asks for: the service, and the group that is to share it.
pub(super) struct WantedHost<'a> {
    pub(super) key: Key,
    pub(super) service: ServiceIndex,
    pub(super) group: Option<&'a GroupSpec>,
}

impl Registry {
    /// Checks whether the client could have the host prefixes of its services. Changes nothing.
    pub fn check_hosts(
        &self,
        login: &Login<'_>,
        services: &[Option<ServiceSpec>],
    ) -> Result<(), RejectCode> {
        self.lock().requested_hosts(login, services).map(drop)
    }
}

impl RegistryState {
    /// Whether a client has a name, also one that is away for a moment.
    pub(super) fn is_owned(&self, key: &Key, now: Instant) -> bool {
        self.hosts.get(key).is_some()
            || self.held.owner(key).is_some()
            || self.reservations.is_claimed(key, now)
    }

    /// Returns the id of a client that has a name, or had it lately, unless it is the client of this login
    /// or shares the name with this group.
    pub(super) fn other_owner(
        &self,
        name: &Key,
        login: &Login<'_>,
        group: Option<&GroupSpec>,
        now: Instant,
    ) -> Option<&str> {
        let Login { id, key, .. } = *login;
        match (self.held.owner(name), self.hosts.get(name)) {
            (Some(owner), _) if owner != id => Some(owner),
            (_, Some(host)) => host.rival(key, group, MAX_MEMBERS).map(id_of),
            (_, None) => self.reservations.other_owner(name, id, group, now),
        }
    }

    /// Returns why a client cannot have a name for a service of this group, or of none, for the log.
    pub(super) fn why_taken(&self, name: &Key, group: Option<&GroupSpec>) -> &'static str {
        let shared = self.hosts.get(name).and_then(|host| host.group.as_ref());
        match shared {
            Some(its) => its.why_not(group),
            None => "another client has it, or had it within the last minute",
        }
    }

    /// Returns a client that has a name whose visitors need other certificates (`clientCA` of a user) than
    /// those of the client of this login, so that the two cannot share it.
    fn sharer_with_other_authority(&self, name: &Key, login: &Login<'_>) -> Option<&str> {
        let authorities = &login.settings.authorities;
        if name.0 != HostKind::Http || authorities.is_empty() {
            return None;
        }
        let members = self.hosts.get(name).into_iter();
        let mut others = members.flat_map(|host| host.all());
        let other = others.find(|other| !authorities.are_same(login.id, id_of(&other.client)))?;
        Some(id_of(&other.client))
    }

    /// Returns the key of a domain that a client asks for, or the code with which it is refused.
    pub(super) fn requested_domain(
        &self,
        login: &Login<'_>,
        kind: HostKind,
        (text, group): (&str, Option<&GroupSpec>),
        now: Instant,
    ) -> Result<Key, RejectCode> {
        let id = login.id;
        let of_group = OfGroup(group);
        let refuse = |refusal, why: &dyn Display| {
            log::warn!("id={id} cannot have the domain {text:?}{of_group}: {why}");
            Err(refusal)
        };
        let domain = match Domain::parse(text) {
            Ok(domain) => domain,
            Err(why) => return refuse(RejectCode::HostNotAllowed, &why),
        };
        if kind == HostKind::Http && !login.settings.routes_by_host() {
            let why = &"visitors are routed by another header than Host (httpMUXHeader)";
            return refuse(RejectCode::HostNotAllowed, why);
        }
        if !login.limits.domains.iter().any(|it| it.allows(&domain)) {
            let why = &"no domains of the server or the user allows it";
            return refuse(RejectCode::HostNotAllowed, why);
        }
        let key = domain_key(kind, domain.as_str());
        if self.other_owner(&key, login, group, now).is_some() {
            return refuse(RejectCode::HostConflict, &self.why_taken(&key, group));
        }
        match self.sharer_with_other_authority(&key, login) {
            Some(other) => refuse(RejectCode::HostNotAllowed, &OtherAuthority(other)),
            None => Ok(key),
        }
    }

    /// Returns the host prefixes of `services`, each with its service, or the code with which the
    /// client is refused them.
    pub(super) fn requested_hosts<'a>(
        &self,
        login: &Login<'_>,
        services: &'a [Option<ServiceSpec>],
    ) -> Result<Vec<WantedHost<'a>>, RejectCode> {
        let (id, rules, users) = (login.id, &login.limits.hosts, &login.settings.users);
        let now = clock::now();
        let refuse = |prefix: &str, refusal, why: &dyn Display| {
            log::warn!("id={id} cannot have the host prefix {prefix:?}: {why}");
            Err(refusal)
        };
        let mut wanted: Vec<WantedHost<'_>> = Vec::new();
        // What the server allows an id holds for all of its clients.
        let theirs = self.hosts_of_siblings(login.key);
        let is_domain = |key: &&&Key| domain_of(&key.1).is_some();
        let mut keys: HashSet<Key> = HashSet::default();
        let their_domains = theirs.iter().filter(is_domain).count();
        let mut domains_left = MAX_DOMAINS_OF_CLIENT.saturating_sub(their_domains);
        for (service, spec) in ServiceIndex::all().zip(services) {
            let group = spec.as_ref().and_then(ServiceSpec::group);
            let (tls, prefix) = match spec.as_ref().map(ServiceSpec::ungrouped) {
                Some(ServiceSpec::Host { tls, prefix }) => (tls, prefix),
                Some(ServiceSpec::Domains {
                    tls,
                    prefix,
                    domains,
                }) => {
                    let kind = if *tls { HostKind::Tls } else { HostKind::Http };
                    for domain in domains {
                        let key = self.requested_domain(login, kind, (domain, group), now)?;
                        if !keys.insert(key.clone()) {
                            log::warn!(
                                "id={id} cannot have the domain {domain:?}: two of its services ask for it"
                            );
                            return Err(RejectCode::HostConflict);
                        }
                        let is_theirs = theirs.contains(&key);
                        if domains_left == 0 && !is_theirs {
                            log::warn!(
                                "id={id} asks for more than {MAX_DOMAINS_OF_CLIENT} domains"
                            );
                            return Err(RejectCode::TooManyHosts);
                        }
                        domains_left = domains_left.saturating_sub(usize::from(!is_theirs));
                        wanted.push(WantedHost {
                            key,
                            service,
                            group,
                        });
                    }
                    match prefix {
                        Some(_) => (tls, prefix),
                        None => continue,
                    }
                }
                Some(
                    ServiceSpec::Tcp { .. } | ServiceSpec::Udp { .. } | ServiceSpec::Grouped { .. },
                )
                | None => continue,
            };
            let kind = if *tls { HostKind::Tls } else { HostKind::Http };
            let name = match prefix {
                None => Cow::from(id),
                Some(prefix) => {
                    // As published, except for upper case.
                    let request = match prefix.is_ascii() {
                        true => Cow::from(&**prefix),
                        false => ascii(prefix),
                    };
                    let allowed = rules.regex.iter().any(|regex| regex.is_match(&request));
                    if !allowed && !rules.regex.is_empty() {
                        let why = &"it matches no hostRegex";
                        return refuse(prefix, RejectCode::HostNotAllowed, why);
                    }
                    match rules.with_id {
                        true => format!("{id}-{prefix}").into(),
                        false => Cow::from(&**prefix),
                    }
                }
            };
            // Visitors cannot ask for anything else, and pages and logs show the prefix.
            let published = match kind {
                HostKind::Http if !login.settings.routes_by_host() => value(&name),
                HostKind::Http | HostKind::Tls => label(&name),
            };
            let key: Key = match published {
                Ok(prefix) => (kind, prefix.into_boxed_str()),
                Err(why) => return refuse(&name, RejectCode::HostNotAllowed, &why),
            };
            if users.reserves(&key.1, id) {
                let why = &"it is reserved for the user whose id it begins with";
                return refuse(&name, RejectCode::HostConflict, why);
            }
            let taken = self
                .other_owner(&key, login, group, now)
                .is_some_and(|other| {
                    // The configuration has just made this id a user: the name is its own.
                    let is_held = self.held.owner(&key).is_some_and(|owner| owner != id);
                    let is_away = self.hosts.get(&key).is_none() && !is_held;
                    !is_away || !users.owns(&key.1, id) || users.owns(&key.1, other)
                });
            if taken {
                let why = format!("{}{}", self.why_taken(&key, group), OfGroup(group));
                return refuse(&name, RejectCode::HostConflict, &why);
            }
            if let Some(other) = self.sharer_with_other_authority(&key, login) {
                return refuse(&name, RejectCode::HostNotAllowed, &OtherAuthority(other));
            }
            if !keys.insert(key.clone()) {
                let why = &"two of its services ask for it";
                return refuse(&name, RejectCode::HostConflict, why);
            }
            wanted.push(WantedHost {
                key,
                service,
                group,
            });
        }
        let most = usize::try_from(rules.number).unwrap_or(usize::MAX);
        // A name used for both HTTP and TLS counts once.
        let names = wanted.iter().map(|host| &host.key).chain(theirs);
        let names = names.map(|(_, name)| &**name);
        let names: HashSet<&str> = names.filter(|name| domain_of(name).is_none()).collect();
        if most > 0 && names.len() > most {
            return Err(RejectCode::TooManyHosts);
        }
        Ok(wanted)
    }

    /// Whether the client has exactly these prefixes.
    pub(super) fn has_exactly(&self, id: &str, hosts: &[WantedHost<'_>]) -> bool {
        let mine: HashSet<&Key> = self.hosts.of(id).iter().collect();
        mine.len() == hosts.len() && hosts.iter().all(|host| mine.contains(&host.key))
    }
}

#[cfg(test)]
mod tests {
    use super::super::host_table::HostMember;
    use super::*;
    use crate::config::Limits;
    use crate::server::settings::Settings;
    use crate::server::visitor_authorities::VisitorAuthorities;

    #[test]
    fn users_whose_visitors_need_different_certificates_share_no_name() {
        let users = [("id1", "a"), ("id2", "a"), ("id3", "b")];
        let mut settings = Settings::without_users();
        settings.authorities = VisitorAuthorities::of_users("authorities-of-a-group", &users);
        let group = GroupSpec {
            name: "web".into(),
            key: b"key"[..].into(),
            sticky: false,
        };
        let spec = |tls| {
            let prefix = Some("web".into());
            let service = Box::new(ServiceSpec::Host { tls, prefix });
            let group = Box::new(group.clone());
            vec![Some(ServiceSpec::Grouped { group, service })]
        };
        let limits = Limits::of_one_prefix();
        let join = |first: &str, second: &str, tls| {
            let mut state = RegistryState::default();
            let kind = if tls { HostKind::Tls } else { HostKind::Http };
            let member = HostMember {
                client: first.into(),
                service: ServiceIndex(0),
            };
            state
                .hosts
                .insert((kind, "web".into()), member, Some(&group));
            let login = Login::of_user(second, &limits, &settings);
            let services = spec(tls);
            let hosts = state.requested_hosts(&login, &services);
            hosts.map(|hosts| hosts.len())
        };
        assert_eq!(join("id1", "id2", false), Ok(1));
        assert_eq!(join("id4", "id5", false), Ok(1));
        for (first, second) in [("id1", "id4"), ("id4", "id1"), ("id1", "id3")] {
            let refused = Err(RejectCode::HostNotAllowed);
            assert_eq!(join(first, second, false), refused, "{first} {second}");
            // The server does not ask these visitors.
            assert_eq!(join(first, second, true), Ok(1));
        }
    }
}
