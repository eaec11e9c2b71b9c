//! The rules about the visitors of each service: the addresses that they may come from (`allow`,
//! `deny`), and how often (`visitorRate`). They apply from a reload on, also to visitors that are there
//! and to tunnels that drain.

use super::bans::{Bans, RateVerdict};
use crate::config::{AddressRules, Exposure, ServiceConfig, VisitorRate};
use crate::current::{Current, Seen};
use crate::logging::{held_back, LogThrottle};
use futures_lite::future;
use std::fmt;
use std::future::{poll_fn, Future};
use std::io;
use std::net::IpAddr;
use std::task::Poll;

/// The rules in force.
pub struct VisitorRules {
    current: Current<RuleList>,
    bans: Bans,
    warnings: LogThrottle,
}

/// The rules of the services that have some.
type RuleList = Vec<ServiceRules>;

struct ServiceRules {
    /// How visitors reach the service: it keeps its rules by this in a reload.
    exposure: Exposure,
    addresses: AddressRules,
    rate: Option<VisitorRate>,
}

/// What admits a visitor to a service, as long as it holds.
pub struct VisitorAdmission<'a> {
    rules: &'a VisitorRules,
    exposure: &'a Exposure,
    /// `None` if it is unknown.
    visitor: Option<IpAddr>,
    seen: Seen,
}

fn of<'a>(services: impl Iterator<Item = &'a ServiceConfig>) -> RuleList {
    let has_rules = |it: &&ServiceConfig| !it.visitors.is_empty() || it.visitor_rate.is_some();
    let rules = services.filter(has_rules).map(|service| ServiceRules {
        exposure: service.exposure.clone(),
        addresses: service.visitors.clone(),
        rate: service.visitor_rate,
    });
    rules.collect()
}

/// Returns the rules of a service.
fn rules_of<'a>(rules: &'a RuleList, exposure: &Exposure) -> Option<&'a ServiceRules> {
    rules.iter().find(|rules| rules.exposure == *exposure)
}

/// Whether a visitor may be there, however often it has come.
fn allows(rules: &RuleList, exposure: &Exposure, visitor: Option<IpAddr>) -> bool {
    rules_of(rules, exposure).is_none_or(|rules| rules.addresses.admit_if_known(visitor))
}

impl VisitorRules {
    /// Creates the rules of these services.
    pub fn new<'a>(services: impl Iterator<Item = &'a ServiceConfig>) -> Self {
        Self {
            current: Current::new(of(services)),
            bans: Bans::default(),
            warnings: LogThrottle::default(),
        }
    }

    /// Whether any service has a rate.
    pub fn count_visitors(&self) -> bool {
        let rules = self.current.get();
        rules.iter().any(|rules| rules.rate.is_some())
    }

    /// Returns the banned addresses.
    pub fn bans(&self) -> &Bans {
        &self.bans
    }

    /// Replaces the rules. Visitors that are there learn of it when their tasks are woken. Bans stay.
    pub fn replace<'a>(&self, services: impl Iterator<Item = &'a ServiceConfig>) {
        self.current.replace(of(services));
        let rules = self.current.get();
        self.bans.retain(|exposure| {
            let its = rules_of(&rules, exposure);
            its.is_some_and(|rules| rules.rate.is_some())
        });
    }

    /// Admits a visitor from this address, or an unknown one, to a service; `None` if it may not come.
    pub fn admit<'a>(
        &'a self,
        service: &'a ServiceConfig,
        visitor: Option<IpAddr>,
    ) -> Option<VisitorAdmission<'a>> {
        let admission = VisitorAdmission {
            rules: self,
            exposure: &service.exposure,
            visitor,
            seen: self.current.seen(),
        };
        let rules = self.current.get();
        let Some(rules) = rules_of(&rules, &service.exposure) else {
            return Some(admission);
        };
        if !rules.addresses.admit_if_known(visitor) {
            log::debug!("{} may not visit {}", Shown(visitor), service.local);
            return None;
        }
        match (visitor, &rules.rate) {
            (Some(visitor), Some(rate)) => self.may_connect(service, visitor, rate),
            // A visitor that nobody knows cannot be counted.
            _ => true,
        }
        .then_some(admission)
    }

    /// Counts a connection of a visitor, and says whether it may go on.
    fn may_connect(&self, service: &ServiceConfig, visitor: IpAddr, rate: &VisitorRate) -> bool {
        match self.bans.count(&service.exposure, visitor, rate) {
            RateVerdict::Admitted => return true,
            RateVerdict::Banned => log::debug!("{visitor} is banned from {}", service.local),
            RateVerdict::TooMany(ban) => {
                if let Some(lines) = self.warnings.allow() {
                    let more = held_back(lines);
                    let then = match ban.is_zero() {
                        true => "this one is refused".to_owned(),
                        false => format!("it is banned for {ban:?}"),
                    };
                    log::warn!(
                        "{visitor} has connected to {} more than {} times in {:?} (visitorRate): \
                         {then}{more}",
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
        let news = self.rules.current.news(&mut self.seen);
        news.is_none_or(|rules| allows(&rules, self.exposure, self.visitor))
    }

    /// Runs a task of the visitor until it is done or the admission ends.
    pub async fn unless_ended<T>(
        &mut self,
        task: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let ended = poll_fn(|_| match self.holds() {
            true => Poll::Pending,
            false => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "the visitor is not allowed any more",
            ))),
        });
        // Looked at whenever the task is woken.
        future::or(task, ended).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        // A service that has gone drains.
        rules.replace([&other_service].into_iter());
        assert!(known.holds());
    }
}
