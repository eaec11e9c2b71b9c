//! Builds without the web page, which alone lists the connected visitors.

use crate::logging::{AccessLog, Visit, Way};

/// The visitors of a server: none is listed.
#[derive(Default)]
pub struct LiveVisitors(());

/// A listed visitor, which never exists in this build.
pub enum Listed {}

impl LiveVisitors {
    /// Begins to record a visit, if it is logged.
    pub fn visit(
        &self,
        log: Option<&AccessLog>,
        id: impl FnOnce() -> Option<Box<str>>,
        service: impl FnOnce() -> String,
        way: Way,
    ) -> Option<Visit> {
        log.map(|log| log.visit(id().as_deref(), service(), way))
    }

    /// Lists nothing.
    pub fn list(&self, _: Option<&Visit>) -> Option<Listed> {
        None
    }
}

impl Listed {
    /// Whether the visitor may stay: always.
    pub fn may_stay(_: &Option<Self>) -> bool {
        true
    }
}
