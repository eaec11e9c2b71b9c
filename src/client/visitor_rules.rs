//! The rules about the addresses that visitors of each service may come from (`allow`, `deny`). They
//! apply from a reload on, also to visitors that are there and to tunnels that drain.

use crate::config::{AddressRules, Exposure, ServiceConfig};
use crate::current::{Current, Seen};
use futures_lite::future;
use std::future::{poll_fn, Future};
use std::io;
use std::net::IpAddr;
use std::task::Poll;

/// The rules in force, of the services that have some.
#[derive(Default)]
pub struct VisitorRules(Current<RuleList>);

type RuleList = Vec<(Exposure, AddressRules)>;

/// What admits a visitor to a service, as long as it holds.
pub struct VisitorAdmission<'a> {
    rules: &'a VisitorRules,
    /// How the visitor reaches the service: services keep their rules by this in a reload.
    exposure: &'a Exposure,
    /// `None` if it is unknown.
    visitor: Option<IpAddr>,
    seen: Seen,
}

fn of<'a>(services: impl Iterator<Item = &'a ServiceConfig>) -> RuleList {
    let ruled = services.filter(|service| !service.visitors.is_empty());
    ruled
        .map(|service| (service.exposure.clone(), service.visitors.clone()))
        .collect()
}

fn admit(rules: &RuleList, exposure: &Exposure, visitor: Option<IpAddr>) -> bool {
    let mut its = rules.iter().filter(|(of, _)| of == exposure);
    its.all(|(_, rules)| rules.admit_if_known(visitor))
}

impl VisitorRules {
    /// Creates the rules of these services.
    pub fn new<'a>(services: impl Iterator<Item = &'a ServiceConfig>) -> Self {
        Self(Current::new(of(services)))
    }

    /// Replaces the rules. Visitors that are there learn of it when their tasks are woken.
    pub fn replace<'a>(&self, services: impl Iterator<Item = &'a ServiceConfig>) {
        self.0.replace(of(services));
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
            seen: self.0.seen(),
        };
        admit(&self.0.get(), &service.exposure, visitor).then_some(admission)
    }
}

impl VisitorAdmission<'_> {
    /// Whether the visitor is still admitted, as far as the rules have changed.
    pub fn holds(&mut self) -> bool {
        let news = self.rules.0.news(&mut self.seen);
        news.is_none_or(|rules| admit(&rules, self.exposure, self.visitor))
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
