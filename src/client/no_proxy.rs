//! The stub of `proxy` for builds without proxies. `config` refuses services that are one.

use super::offered_services::OfferedServices;
use super::services::{Service, ServiceTarget, Visitor};
use super::visitor_conn::VisitorConn;
use crate::config::{ProxyKind, ServiceConfig};
use crate::net::{Conn, Shutdown};
use crate::wire::frame::ServiceIndex;
use std::io;

/// The target of a proxy, which this build does not have.
#[derive(Clone)]
pub(crate) enum ProxyTarget {}

impl ProxyTarget {
    /// Returns `None`: no service is a proxy.
    pub(crate) fn of_service(
        kind: ProxyKind,
        _: &ServiceConfig,
        _: Option<&ServiceTarget>,
    ) -> ServiceTarget {
        match kind {}
    }
}

/// How the datagrams of a proxy's visitor come. No proxy has a UDP port in this build.
pub(crate) enum UdpWay {}

impl UdpWay {
    /// Returns `None`.
    pub(crate) fn of(_: &OfferedServices, _: ServiceIndex, _: &Shutdown) -> Option<Self> {
        None
    }
}

/// Does nothing.
pub(crate) fn resume(_: &mut [Service], _: &[Service]) {}

/// See `proxy`.
pub(crate) async fn open(
    target: &ProxyTarget,
    _: &Service,
    _: &mut dyn VisitorConn,
    _: Visitor,
) -> io::Result<Option<Conn>> {
    match *target {}
}
