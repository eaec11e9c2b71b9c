//! What the process needs of a role, and the set of running roles of one kind. Nothing here knows
//! what a server or a client does.

use crate::config::RoleConfig;
use crate::handover::{Inherited, Item, Outgoing};
use std::future::{poll_fn, Future};
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

/// The configuration file of a role; `None` if it is configured by flags.
pub type RoleSource = Option<PathBuf>;

/// A running role. Clones share it.
pub trait ProcessRole: Clone + Send + Sized + 'static {
    /// What the role needs to start or to be reconfigured: files are read, listeners are open.
    type Plan: Send;

    /// Plans how to apply a configuration to the `running` role, or to a new one, and changes
    /// nothing yet. `None` if the configuration is that of another kind of role. The error names
    /// the file, folder or listener that cannot be used.
    fn plan(
        loaded: &RoleConfig,
        running: Option<&Self>,
        inherited: &mut Inherited,
    ) -> io::Result<Option<Self::Plan>>;

    /// Starts the role. Fails if the system has no random numbers.
    fn start(plan: Self::Plan) -> io::Result<Self>;

    /// Reconfigures the running role.
    fn change(&mut self, plan: Self::Plan);

    /// Returns the sockets and state to hand over to the child process.
    fn export(&self) -> Vec<Outgoing>;

    /// Stops the role; streams may take up to `patience` to finish.
    fn stop(self, patience: Duration) -> impl Future<Output = ()> + Send;
}

/// The plans for the roles of one kind, in the order of the configuration.
pub type Plans<R> = Vec<(RoleSource, <R as ProcessRole>::Plan)>;

/// The running roles of one kind in the order in which they were started, each identified by its
/// configuration file.
#[derive(Clone)]
pub struct RoleSet<R>(Vec<(RoleSource, R)>);

impl<R> Default for RoleSet<R> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<R: ProcessRole> RoleSet<R> {
    /// Whether no role of this kind runs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The roles and where they were configured.
    pub fn iter(&self) -> impl Iterator<Item = &(RoleSource, R)> {
        self.0.iter()
    }

    /// Plans how to apply those configurations that are of this kind of role.
    pub fn plan(&self, configs: &[RoleConfig], inherited: &mut Inherited) -> io::Result<Plans<R>> {
        let mut plans = Plans::<R>::new();
        for loaded in configs {
            let source = &loaded.source;
            let same = |(other, _): &&(RoleSource, R)| other == source;
            let running = self.0.iter().find(same).map(|(_, role)| role);
            let plan = R::plan(loaded, running, inherited).map_err(|e| with_file(loaded, e))?;
            plans.extend(plan.map(|plan| (source.clone(), plan)));
        }
        Ok(plans)
    }

    /// Applies the plans: starts new roles and reconfigures running ones. Returns the roles that
    /// have no plan; they must be stopped.
    pub fn change(&mut self, plans: Plans<R>) -> io::Result<Vec<R>> {
        let mut before = std::mem::take(&mut self.0);
        for (source, plan) in plans {
            let at = before.iter().position(|(other, _)| *other == source);
            let role = match at.map(|at| before.remove(at).1) {
                Some(mut role) => {
                    role.change(plan);
                    role
                }
                None => R::start(plan)?,
            };
            self.0.push((source, role));
        }
        Ok(before.into_iter().map(|(_, role)| role).collect())
    }

    /// Returns the sockets and state to hand over to the child process.
    pub fn export(&self) -> Vec<Outgoing> {
        let mut items = Vec::new();
        for (source, role) in &self.0 {
            items.push((Item::Role(source.clone()), None));
            items.extend(role.export());
        }
        items
    }

    /// Stops all roles; streams may take up to `patience` to finish.
    pub fn stop(&self, patience: Duration) -> AllDone<'static> {
        all(self.iter().map(|(_, role)| role.clone().stop(patience)))
    }
}

/// Adds the file of the configuration to an error about it.
pub fn with_file(loaded: &RoleConfig, e: io::Error) -> io::Error {
    match &loaded.source {
        Some(file) => io::Error::new(e.kind(), format!("{}: {e}", file.display())),
        None => e,
    }
}

/// Completes when several tasks have.
pub type AllDone<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Waits for all tasks concurrently.
pub fn all<'a, F>(tasks: impl Iterator<Item = F>) -> AllDone<'a>
where
    F: Future<Output = ()> + Send + 'a,
{
    let mut tasks: Vec<AllDone<'a>> = tasks.map(|task| Box::pin(task) as AllDone<'a>).collect();
    Box::pin(poll_fn(move |cx| {
        tasks.retain_mut(|task| task.as_mut().poll(cx).is_pending());
        match tasks.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }))
}
