//! What the page needs of a role that runs in this process. The roles themselves know the rest.

use super::answer::Answer;
use super::api::{Call, Route};
use super::history::Totals;
use crate::config::RoleName;
use serde_json::Value;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;

/// An answer that is being made.
pub type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// A running role as the page sees it.
pub trait RoleView: Send + Sync {
    /// Returns the kind of the role.
    fn name(&self) -> RoleName;

    /// Returns the file that configures the role; `None` if flags do.
    fn source(&self) -> Option<&Path>;

    /// Returns the numbers of this moment. Blocks for up to some milliseconds, so it must not run on an
    /// executor thread.
    fn totals(&self) -> Totals;

    /// Describes the role. Blocks like [`RoleView::totals`].
    fn summary(&self) -> Value;

    /// Answers a call that is for this kind of role.
    fn answer(&self, route: Route, call: &Call) -> Answering;
}

/// Makes an answer that is known at once.
pub fn ready(answer: Answer) -> Answering {
    Box::pin(std::future::ready(answer))
}
