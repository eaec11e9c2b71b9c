//! The stub of `portmap` in builds without the feature. `config` reports the option that needs it.

use std::net::SocketAddr;
use std::time::Instant;

/// The mappings of a client: none.
pub struct PortMapper;

/// A port that is mapped, which never exists in this build.
pub enum PortLease {}

impl PortMapper {
    /// Creates a mapper, which does nothing.
    pub fn new() -> Self {
        Self
    }

    /// Maps nothing.
    pub fn open(&self, _: u16) -> Option<PortLease> {
        None
    }

    /// Has nothing to give back.
    pub async fn close(&self) {}
}

impl PortLease {
    /// Never called, since there is no lease.
    pub async fn external(&self, _: Instant) -> Option<SocketAddr> {
        match *self {}
    }
}
