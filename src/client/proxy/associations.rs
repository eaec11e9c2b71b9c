//! The visitors of a SOCKS5 proxy that may send datagrams (RFC 1928, section 7): those whose address has
//! asked for it in a connection that is still open. Not the datagrams: see `udp_flow`.

use super::udp_flow::UdpFlow;
use crate::net::Shutdown;
use crate::sync::Mutex;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};

/// Maximum number of flows of one visitor, each of which has a socket.
const MAX_FLOWS: usize = 64;

/// The associations of the visitors of one proxy, by address: nothing else in a datagram shows which connection it
/// belongs to.
#[derive(Default)]
pub(crate) struct Associations {
    visitors: Mutex<BTreeMap<IpAddr, AssociatedVisitor>>,
    /// Triggered when the proxy has been replaced by another one.
    ended: Shutdown,
}

/// A visitor with at least one association.
#[derive(Default)]
struct AssociatedVisitor {
    /// Number of its connections that have asked for datagrams.
    associations: usize,
    flows: Vec<Weak<UdpFlow>>,
}

/// The association of one connection. The last one of a visitor ends its flows when it is dropped.
pub(super) struct Association<'a> {
    all: &'a Associations,
    visitor: IpAddr,
}

impl Associations {
    /// Begins an association of a visitor; `None` if the proxy has been replaced.
    pub(super) fn begin(&self, visitor: IpAddr) -> Option<Association<'_>> {
        if self.ended.is_triggered() {
            return None;
        }
        let mut visitors = self.visitors.lock();
        let known = visitors.entry(visitor).or_default();
        known.associations = known.associations.saturating_add(1);
        Some(Association { all: self, visitor })
    }

    /// Decides whether a visitor may begin another flow.
    pub(super) fn admit(&self, visitor: IpAddr) -> Admission {
        let mut visitors = self.visitors.lock();
        let Some(visitor) = visitors.get_mut(&visitor) else {
            return Admission::NoAssociation;
        };
        visitor.flows.retain(|flow| flow.strong_count() > 0);
        match visitor.flows.len() < MAX_FLOWS {
            true => Admission::Admitted,
            false => Admission::TooMany,
        }
    }

    /// Adds a flow of a visitor, which ends with the visitor's last association. False if the visitor has no
    /// association.
    pub(super) fn add(&self, visitor: IpAddr, flow: &Arc<UdpFlow>) -> bool {
        let mut visitors = self.visitors.lock();
        let known = visitors.get_mut(&visitor);
        known
            .map(|visitor| visitor.flows.push(Arc::downgrade(flow)))
            .is_some()
    }

    /// Ends all associations and lets no other begin.
    pub(super) fn end(&self) {
        self.ended.trigger();
    }
}

/// Whether a visitor may begin another flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    Admitted,
    /// The visitor has no association.
    NoAssociation,
    /// The visitor has as many flows as it may have.
    TooMany,
}

impl Association<'_> {
    /// Waits until the proxy has been replaced.
    pub(super) async fn ended(&self) {
        self.all.ended.wait().await;
    }
}

impl Drop for Association<'_> {
    fn drop(&mut self) {
        let flows = {
            let mut visitors = self.all.visitors.lock();
            let Some(visitor) = visitors.get_mut(&self.visitor) else {
                return;
            };
            visitor.associations = visitor.associations.saturating_sub(1);
            if visitor.associations > 0 {
                return;
            }
            visitors.remove(&self.visitor)
        };
        let flows = flows.map(|visitor| visitor.flows).unwrap_or_default();
        for flow in flows.iter().filter_map(Weak::upgrade) {
            flow.end();
        }
    }
}
