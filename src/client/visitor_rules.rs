//! The rules about the visitors of each service: the addresses that they may come from (`allow`,
//! `deny`), how often (`visitorRate`), their passwords (`password`), and where they may go (`targets`). They
//! apply from a reload on, also to visitors that are there and to tunnels that drain.

use super::bans::{Bans, RateChange, RateVerdict};
use super::passwords::{PasswordQueue, Passwords};
use crate::config::{AddressRules, Exposure, Local, ServiceConfig, Target, VisitorRate};
use crate::current::{Current, Seen};
use crate::logging::{held_back, LogThrottle};
use futures_lite::future;
use std::fmt;
use std::future::{poll_fn, Future};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

/// The rules in force.
pub struct VisitorRules {
    current: Current<RuleList>,
    bans: Bans,
    /// The passwords that wait to be checked.
    #[cfg_attr(not(feature = "password"), allow(dead_code))]
    password_queue: Arc<PasswordQueue>,
    warnings: LogThrottle,
}

/// The rules of all services.
#[derive(Default)]
struct RuleList {
    services: Vec<ServiceRules>,
    /// Whether none of them has any.
    is_empty: bool,
}

struct ServiceRules {
    key: ServiceKey,
    addresses: AddressRules,
    rate: Option<VisitorRate>,
    passwords: Option<Arc<Passwords>>,
    targets: Vec<Target>,
}

/// What tells a service from the others, also in another configuration. Two services may ask for random
/// TCP ports, so that how they are reached is not enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceKey {
    pub exposure: Exposure,
    pub local: Local,
}

/// A task of a visitor. One type for all of them keeps the program small.
pub type BoxedTask<'a> = Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>>;

/// What admits a visitor to a service, as long as it holds.
pub struct VisitorAdmission<'a> {
    rules: &'a VisitorRules,
    service: &'a ServiceConfig,
    /// `None` if it is unknown.
    visitor: Option<IpAddr>,
    /// The passwords with which its requests are checked.
    passwords: Option<Arc<Passwords>>,
    seen: Seen,
}

impl ServiceKey {
    pub fn new(service: &ServiceConfig) -> Self {
        Self {
            exposure: service.exposure.clone(),
            local: service.local.clone(),
        }
    }

    fn is_of(&self, service: &ServiceConfig) -> bool {
        (&self.exposure, &self.local) == (&service.exposure, &service.local)
    }
}

/// Returns the rules of these services. Passwords that were the same `before` stay, with what is
/// remembered of them.
fn rules_of<'a>(services: impl Iterator<Item = &'a ServiceConfig>, before: &RuleList) -> RuleList {
    let kept = |service: &ServiceConfig| {
        let mut all = before
            .services
            .iter()
            .filter_map(|rules| rules.passwords.clone());
        all.find(|passwords| passwords.are_of(service))
    };
    let rules = services.map(|service| ServiceRules {
        key: ServiceKey::new(service),
        addresses: service.visitors.clone(),
        rate: service.visitor_rate,
        passwords: kept(service).or_else(|| Passwords::of(service)),
        targets: service.targets.clone(),
    });
    let services: Vec<_> = rules.collect();
    let has_rules =
        |it: &ServiceRules| !it.addresses.is_empty() || it.rate.is_some() || it.passwords.is_some();
    RuleList {
        is_empty: !services.iter().any(has_rules),
        services,
    }
}

/// Whether a visitor may be there, however often it has come. A service that is not among these has gone
/// or was renamed by a reload: its own rules hold until its tunnels have drained.
fn allows(rules: &RuleList, service: &ServiceConfig, visitor: Option<IpAddr>) -> bool {
    if rules.is_empty {
        return true;
    }
    let mut its = rules
        .services
        .iter()
        .filter(|rules| rules.key.is_of(service))
        .peekable();
    match its.peek() {
        Some(_) => its.all(|rules| rules.addresses.admit_if_known(visitor)),
        None => service.visitors.admit_if_known(visitor),
    }
}

/// Whether visitors may go wherever a service leads, which has these targets, if it is a proxy: none was
/// removed. A service that has gone keeps its own.
fn keeps_targets(rules: &RuleList, service: &ServiceConfig) -> bool {
    let keeps = |rules: &ServiceRules| match &*service.targets {
        [] => rules.targets.is_empty(),
        targets => targets.iter().all(|target| rules.targets.contains(target)),
    };
    let its = || {
        rules
            .services
            .iter()
            .filter(|rules| rules.key.is_of(service))
    };
    its().next().is_none() || its().any(keeps)
}

/// Returns how often one address may connect to a service.
fn rate_of(rules: &RuleList, service: &ServiceConfig) -> Option<VisitorRate> {
    if rules.is_empty {
        return None;
    }
    match rules.services.iter().find(|rules| rules.key.is_of(service)) {
        Some(rules) => rules.rate,
        None => service.visitor_rate,
    }
}

/// What the rules say of a service's passwords.
enum PasswordRule<'a> {
    /// Its visitors need one of these, or none.
    Known(Option<&'a Arc<Passwords>>),
    /// The service has gone, or was renamed.
    Gone,
}

fn password_rule<'a>(rules: &'a RuleList, service: &ServiceConfig) -> PasswordRule<'a> {
    let its = || {
        rules
            .services
            .iter()
            .filter(|rules| rules.key.is_of(service))
    };
    // Services that are reached alike may have passwords of their own.
    let is_own = |rules: &&ServiceRules| match &rules.passwords {
        Some(passwords) => passwords.are_of(service),
        None => service.passwords.is_empty(),
    };
    let known = its().find(is_own).or_else(|| {
        // If it has changed, which one of several it was is not known.
        let mut its = its();
        its.next().filter(|_| its.next().is_none())
    });
    match known {
        Some(rules) => PasswordRule::Known(rules.passwords.as_ref()),
        None => PasswordRule::Gone,
    }
}

/// Whether visitors of what is at this address need a password, whatever the service's name.
fn has_password_at(rules: &RuleList, local: &Local) -> bool {
    let mut services = rules.services.iter();
    services.any(|rules| rules.passwords.is_some() && rules.key.local == *local)
}

/// Returns the passwords of a service. One that has gone keeps those that it `had`.
fn passwords_of(
    rules: &RuleList,
    service: &ServiceConfig,
    had: Option<&Arc<Passwords>>,
) -> Option<Arc<Passwords>> {
    if rules.is_empty && service.passwords.is_empty() && had.is_none() {
        return None;
    }
    match password_rule(rules, service) {
        PasswordRule::Known(passwords) => passwords.cloned(),
        PasswordRule::Gone => had.cloned().or_else(|| Passwords::of(service)),
    }
}

impl VisitorRules {
    /// Creates the rules of these services.
    pub fn new<'a>(services: impl Iterator<Item = &'a ServiceConfig>) -> Self {
        Self {
            current: Current::new(rules_of(services, &RuleList::default())),
            bans: Bans::default(),
            password_queue: Arc::default(),
            warnings: LogThrottle::default(),
        }
    }

    /// Whether any service has a rate.
    pub fn count_visitors(&self) -> bool {
        let rules = self.current.get();
        rules.services.iter().any(|rules| rules.rate.is_some())
    }

    /// Returns the banned addresses.
    pub fn bans(&self) -> &Bans {
        &self.bans
    }

    /// Returns the passwords of a service, which `had` these before; `None` if its visitors need none.
    #[cfg(feature = "password")]
    pub fn passwords(
        &self,
        service: &ServiceConfig,
        had: Option<&Arc<Passwords>>,
    ) -> Option<Arc<Passwords>> {
        passwords_of(&self.current.get(), service, had)
    }

    /// Returns the passwords that wait to be checked.
    #[cfg(feature = "password")]
    pub fn password_queue(&self) -> &Arc<PasswordQueue> {
        &self.password_queue
    }

    /// Replaces the rules. Visitors that are there learn of it when their tasks are woken. Bans stay
    /// while their service has a rate; what was counted at another rate is forgotten.
    pub fn replace<'a>(&self, services: impl Iterator<Item = &'a ServiceConfig>) {
        let before = self.current.get();
        self.current.replace(rules_of(services, &before));
        let rules = self.current.get();
        let rate = |list: &RuleList, key: &ServiceKey| {
            let its = list.services.iter().find(|rules| rules.key == *key);
            its.and_then(|rules| rules.rate)
        };
        self.bans
            .change(|key| match (rate(&before, key), rate(&rules, key)) {
                (_, None) => RateChange::Removed,
                (before, now) if before == now => RateChange::Unchanged,
                _ => RateChange::Changed,
            });
    }

    /// Admits a visitor from this address, or an unknown one, to a service; `None` if it may not come.
    /// Does not count it.
    pub fn admit<'a>(
        &'a self,
        service: &'a ServiceConfig,
        visitor: Option<IpAddr>,
    ) -> Option<VisitorAdmission<'a>> {
        let seen = self.current.seen();
        let rules = self.current.get();
        if allows(&rules, service, visitor) {
            return Some(VisitorAdmission {
                rules: self,
                service,
                visitor,
                passwords: passwords_of(&rules, service, None),
                seen,
            });
        }
        log::debug!("{} may not visit {}", Shown(visitor), service.local);
        None
    }

    /// Counts a connection or a wrong password of a visitor, and says whether it may go on. One that nobody knows cannot be
    /// counted.
    pub fn count(&self, service: &ServiceConfig, visitor: Option<IpAddr>) -> bool {
        let (Some(visitor), Some(rate)) = (visitor, rate_of(&self.current.get(), service)) else {
            return true;
        };
        match self.bans.count(&ServiceKey::new(service), visitor, &rate) {
            RateVerdict::Admitted => return true,
            RateVerdict::Banned => log::debug!("{visitor} is banned from {}", service.local),
            RateVerdict::TooMany(ban) => {
                if let Some(lines) = self.warnings.allow() {
                    let more = held_back(lines);
                    let then = match ban.is_zero() {
                        true => "this one is refused".to_owned(),
                        false => format!("it is banned for {ban:?}"),
                    };
                    let passwords = match service.passwords.is_empty() {
                        true => "",
                        false => " or given it wrong passwords",
                    };
                    log::warn!(
                        "{visitor} has connected to {}{passwords} more than {} times in {:?} \
                         (visitorRate): {then}{more}",
                        service.local,
                        rate.count,
                        rate.period
                    );
                }
            }
        }
        false
    }
}

/// The address of a visitor, for the log.
struct Shown(Option<IpAddr>);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(addr) => addr.fmt(f),
            None => f.write_str("an unknown visitor"),
        }
    }
}

impl VisitorAdmission<'_> {
    /// Whether the visitor is still admitted, as far as the rules have changed.
    pub fn holds(&mut self) -> bool {
        let Some(rules) = self.rules.current.news(&mut self.seen) else {
            return true;
        };
        let had = self.passwords.take();
        // Whose the connection is may not be known: a proxy may use it for several visitors. It ends if
        // any of them may have no password any more.
        let may_stay = match (password_rule(&rules, self.service), &had) {
            (PasswordRule::Known(None), _) => true,
            (PasswordRule::Known(Some(passwords)), Some(had)) => passwords.contain(had),
            (PasswordRule::Known(Some(_)), None) | (PasswordRule::Gone, Some(_)) => false,
            (PasswordRule::Gone, None) => !has_password_at(&rules, &self.service.local),
        };
        self.passwords = passwords_of(&rules, self.service, had.as_ref());
        may_stay
            && keeps_targets(&rules, self.service)
            && allows(&rules, self.service, self.visitor)
    }

    /// Runs a task of the visitor until it is done or the admission ends.
    pub async fn unless_ended(&mut self, task: BoxedTask<'_>) -> io::Result<()> {
        let ended = poll_fn(|_| match self.holds() {
            true => Poll::Pending,
            false => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "the visitor is not allowed any more",
            ))),
        });
        // Looked at whenever the task is woken, and before it goes on.
        future::or(ended, task).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(feature = "proxy")]
    use crate::config::value::Value;

    #[test]
    fn changed_rules_end_an_admission_that_they_do_not_allow() {
        let (web, other_service) = (
            ServiceConfig::of_test(80, "web"),
            ServiceConfig::of_test(80, "other"),
        );
        let mut with_rule = web.clone();
        with_rule.visitors = AddressRules::new(
            ("allow", vec!["192.0.2.0/24".parse().unwrap()]),
            ("deny", Vec::new()),
        )
        .unwrap();
        let (here, elsewhere) = ("192.0.2.1".parse().ok(), "198.51.100.1".parse().ok());
        let rules = VisitorRules::new([&web, &other_service].into_iter());
        let admit = |visitor| rules.admit(&web, visitor).unwrap();
        let (mut known, mut other, mut unknown) = (admit(here), admit(elsewhere), admit(None));
        let mut of_another = rules.admit(&other_service, None).unwrap();
        rules.replace([&with_rule, &other_service].into_iter());
        assert!(known.holds() && of_another.holds());
        assert!(!other.holds() && !unknown.holds());
        assert!(rules.admit(&web, elsewhere).is_none());
        assert!(rules.admit(&web, None).is_none());
        assert!(rules.admit(&web, here).is_some());
        // A service that has gone drains, and keeps its own rules.
        let mut renamed = with_rule.clone();
        renamed.exposure = other_service.exposure.clone();
        rules.replace([&renamed].into_iter());
        assert!(known.holds());
        assert!(rules.admit(&with_rule, elsewhere).is_none());
        rules.replace([&web].into_iter());
        assert!(
            rules.admit(&with_rule, elsewhere).is_some(),
            "no rules at all"
        );
    }

    #[cfg(feature = "proxy")]
    #[test]
    fn an_admission_to_a_proxy_ends_when_one_of_its_targets_is_removed() {
        let proxy = |targets: &[&str]| {
            let mut proxy = ServiceConfig::of_test(80, "x");
            proxy.local = Local::Proxy(crate::config::ProxyKind::Socks5);
            let target = |text: &&str| text.parse::<Value<Target>>().unwrap().0.unwrap();
            proxy.targets = targets.iter().map(target).collect();
            proxy
        };
        let (one, both, none) = (
            proxy(&["10.0.0.0/8"]),
            proxy(&["*.lan", "10.0.0.0/8"]),
            proxy(&[]),
        );
        for (before, after, stays) in [
            (&one, &one, true),
            (&one, &both, true),
            (&both, &one, false),
            (&one, &none, false),
            (&none, &one, false),
            (&none, &none, true),
        ] {
            let rules = VisitorRules::new([before].into_iter());
            let mut admission = rules.admit(before, None).unwrap();
            rules.replace([after].into_iter());
            assert_eq!(admission.holds(), stays, "{before:?} {after:?}");
        }
        let rules = VisitorRules::new([&one].into_iter());
        let mut admission = rules.admit(&one, None).unwrap();
        rules.replace([].into_iter());
        assert!(admission.holds(), "a service that drains");
    }

    #[test]
    fn services_that_are_reached_alike_have_rules_of_their_own() {
        let random = |port, deny: &str| {
            let mut service = ServiceConfig::of_test(port, "x");
            service.exposure = Exposure::Tcp {
                port: 0,
                random: true,
            };
            let deny = vec![deny.parse().unwrap()];
            service.visitors = AddressRules::new(("allow", Vec::new()), ("deny", deny)).unwrap();
            service
        };
        let (one, other) = (random(1, "192.0.2.1"), random(2, "192.0.2.2"));
        let rules = VisitorRules::new([&one, &other].into_iter());
        let visitors = ["192.0.2.1", "192.0.2.2"].map(|addr| addr.parse().ok());
        let admitted = |service| visitors.map(|addr| rules.admit(service, addr).is_some());
        assert_eq!(admitted(&one), [false, true]);
        assert_eq!(admitted(&other), [true, false]);
    }

    #[test]
    fn a_rate_counts_visitors_that_are_known() {
        let mut counted = ServiceConfig::of_test(80, "counted");
        counted.visitor_rate = Some(VisitorRate {
            count: 1,
            period: std::time::Duration::from_secs(3600),
            ban: std::time::Duration::ZERO,
        });
        let free = ServiceConfig::of_test(80, "free");
        let rules = VisitorRules::new([&counted, &free].into_iter());
        let visitor = "192.0.2.1".parse().ok();
        assert!(rules.count(&counted, visitor) && !rules.count(&counted, visitor));
        assert!(rules.count(&counted, None) && rules.count(&free, visitor));
        // What was counted at another rate says nothing.
        let mut faster = counted.clone();
        faster.visitor_rate = Some(VisitorRate {
            count: 100,
            period: std::time::Duration::from_secs(1),
            ban: std::time::Duration::from_secs(3600),
        });
        rules.replace([&faster].into_iter());
        assert!((0..100).all(|_| rules.count(&faster, visitor)));
        assert!(!rules.count(&faster, visitor));
        rules.replace([&counted].into_iter());
        assert!(!rules.count(&counted, visitor), "a ban stays");
    }
}
