//! Builds without passwords: no service has some.

pub use super::password_verdict::PasswordVerdict;
use super::visitor_rules::VisitorRules;
use crate::config::ServiceConfig;
use crate::wire::origin::VisitorOrigin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// No service has passwords.
pub enum Passwords {}

impl Passwords {
    pub fn of(_service: &ServiceConfig) -> Option<Arc<Self>> {
        None
    }

    pub fn are_of(&self, _service: &ServiceConfig) -> bool {
        match *self {}
    }

    pub fn contain(&self, _others: &Self) -> bool {
        match *self {}
    }
}

/// No requests are checked.
pub enum PasswordCheck {}

impl PasswordCheck {
    pub fn new(
        _rules: &Arc<VisitorRules>,
        _service: &Arc<ServiceConfig>,
        _origin: Option<&VisitorOrigin>,
    ) -> Option<Self> {
        None
    }

    #[cfg(feature = "p2p")]
    pub fn of_peer(
        _rules: &Arc<VisitorRules>,
        _service: &Arc<ServiceConfig>,
        _peer: std::net::IpAddr,
    ) -> Option<Self> {
        None
    }

    pub fn verdict<'f>(&self, _fields: impl Iterator<Item = &'f [u8]>) -> Option<PasswordVerdict> {
        match *self {}
    }

    pub fn is_needed(&self) -> bool {
        match *self {}
    }

    pub fn poll_done(&self, _cx: &mut Context<'_>) -> Poll<()> {
        match *self {}
    }

    pub async fn wait(&self, _fields: &[&[u8]]) -> PasswordVerdict {
        match *self {}
    }

    #[cfg_attr(not(feature = "proxy"), allow(dead_code))]
    pub async fn wait_pair(&self, _user: &[u8], _password: &[u8]) -> PasswordVerdict {
        match *self {}
    }
}

/// No password waits.
#[derive(Default)]
pub struct PasswordQueue;
