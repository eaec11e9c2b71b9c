//! The stub of `proxy` for builds without proxies. `config` refuses services that are one.

use super::services::{Service, Visitor};
use super::visitor_conn::VisitorConn;
use crate::config::ProxyKind;
use crate::net::Conn;
use std::io;

/// See `proxy`.
pub(crate) async fn open(
    kind: ProxyKind,
    _: &Service,
    _: &mut dyn VisitorConn,
    _: Visitor,
) -> io::Result<Option<Conn>> {
    match kind {}
}
