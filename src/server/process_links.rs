//! The links of a server to the same server in the parent and child process. `transfer` sends and
//! handles the messages.

use crate::collections::HashSet;
use crate::handover::ProcessLink;
use crate::net::Shutdown;
use crate::sync::Mutex;

/// The links of a server to other processes.
#[derive(Default)]
pub struct ProcessLinks {
    /// The link to the parent process, while the parent has tunnels.
    pub(super) parent: Mutex<Option<ProcessLink>>,
    /// Triggered when the parent has no more tunnels, or has ended.
    pub(super) parent_gone: Shutdown,
    /// The link to the child process, while this process drains.
    child: Mutex<Option<ProcessLink>>,
    /// Stays locked until the messages of a decision are in the child's queue, which may be full:
    /// later decisions must not overtake them.
    pub(super) announced: async_lock::Mutex<Announced>,
}

/// The clients whose visitors the child forwards here.
#[derive(Default)]
pub(super) struct Announced {
    pub(super) ids: HashSet<Box<str>>,
    /// Whether no more clients may be announced.
    pub(super) is_over: bool,
}

/// The process that a message comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageOrigin {
    /// The process before a restart, which drains.
    Parent,
    /// The process after a restart, which takes over.
    Child,
}

impl ProcessLinks {
    /// Sets the link to the parent.
    pub fn set_parent(&self, link: ProcessLink) {
        *self.parent.lock() = Some(link);
    }

    /// Sets the link to the child.
    pub fn set_child(&self, link: ProcessLink) {
        *self.child.lock() = Some(link);
    }

    /// Returns the link to the parent, if there is one that still takes visitors.
    pub fn parent(&self) -> Option<ProcessLink> {
        self.parent.lock().clone().filter(ProcessLink::is_open)
    }

    /// Returns the link to the child, if there is one.
    pub fn child(&self) -> Option<ProcessLink> {
        self.child.lock().clone().filter(ProcessLink::is_open)
    }

    /// Returns the signal that the parent has nothing left that could serve visitors, or has ended.
    pub fn parent_gone(&self) -> Shutdown {
        self.parent_gone.clone()
    }

    /// Waits until there is no parent process.
    pub async fn parent_ended(&self) {
        if self.parent().is_some() {
            self.parent_gone.wait().await;
        }
    }
}
