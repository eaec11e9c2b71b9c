//! The proxies that a client serves itself, `-local socks5:` and `-local httpproxy:`: they read where a
//! visitor wants to go, check that it may, connect, and answer. What follows is relayed as for any other
//! service. The datagrams of SOCKS5 visitors come to a UDP port, and are a service of their own. Builds
//! without proxies have `no_proxy`.
//!
//! A visitor names a host in `destination`. Its addresses are looked up once, those that are no targets are
//! removed, and the others are dialled, so that no other look-up can lead elsewhere.

mod associations;
pub(crate) mod datagram;
pub(crate) mod destination;
mod failure;
pub(crate) mod http;
pub(crate) mod socks;
mod target;
mod udp_flow;

use super::passwords::{PasswordCheck, PasswordVerdict};
use super::request_edits::TOO_MANY_PASSWORDS;
use super::rewriting_conn::RewritingConn;
use super::services::{Service, Visitor, CONNECT_TIMEOUT};
use super::speed_limits::LimitedConn;
use super::visitor_conn::VisitorConn;
use crate::config::client::proxy::{allow, may_be};
use crate::config::{ProxyKind, ServiceConfig};
use crate::net::follow::HttpRefusal;
use crate::net::{dial_first, look_up_for_visitor, timeout, Conn};
use crate::wire::origin::VisitorOrigin;
use associations::Associations;
use destination::{Destination, DestinationHost};
use failure::{number_of, ProxyFailure};
use futures_lite::{future, AsyncWriteExt};
use http::{ForwardedRequest, HeadReader, ProxyHead, ProxyRequest};
use socks::{SocksBytes, SocksMessage, SocksPhase};
use std::future::{poll_fn, Future};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{ready, Poll};
use std::time::Duration;
pub(crate) use target::{resume, ProxyTarget, UdpWay};
use udp_flow::UdpFlow;

/// Time in which a visitor has to send a message of SOCKS5, or the head of a request.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum bytes of one read from a visitor.
const MAX_READ: usize = 2 * 1024;

/// The visitor of a proxy, until it is connected to its destination.
struct ProxyVisitor<'a> {
    conn: &'a mut dyn VisitorConn,
    /// What has come and is not taken yet.
    inbox: Vec<u8>,
}

/// Asks a visitor of a proxy where it wants to go, and connects it. `None` if it does not get there, and
/// has been told why. An error means that the visitor's connection has failed.
pub(crate) async fn open(
    target: &ProxyTarget,
    service: &Service,
    conn: &mut dyn VisitorConn,
    visitor: Visitor,
) -> io::Result<Option<Conn>> {
    let limits = service.limits(visitor.has_window);
    if service.config.is_udp() {
        let address = visitor.address();
        let flow = UdpFlow::begin(
            &target.associations,
            service.config.clone(),
            address,
            visitor.first,
        )?;
        return Ok(Some(LimitedConn::start(flow.into(), limits)));
    }
    // Each step has a timeout of its own, after which the visitor gets an answer.
    conn.set_idle_limit(None);
    let opened = match target.kind {
        ProxyKind::Socks5 => {
            let associations = &target.associations;
            open_socks(&service.config, associations, conn, visitor).await?
        }
        ProxyKind::Http => open_http(&service.config, conn, visitor).await?,
    };
    conn.set_idle_limit(service.config.local_timeout);
    Ok(opened.map(|conn| LimitedConn::start(conn, limits)))
}

async fn open_socks(
    service: &ServiceConfig,
    associations: &Associations,
    conn: &mut dyn VisitorConn,
    mut visitor: Visitor,
) -> io::Result<Option<Conn>> {
    let inbox = std::mem::take(&mut visitor.come);
    let mut proxied = ProxyVisitor { conn, inbox };
    if !proxied.log_in(&visitor).await? {
        return Ok(None);
    }
    let destination = match proxied.message(SocksPhase::Request).await? {
        Some(SocksMessage::Connect(destination)) => destination,
        Some(SocksMessage::Associate) => {
            proxied.associate(associations, &visitor).await?;
            return Ok(None);
        }
        Some(SocksMessage::Refused(code)) => {
            visitor.record_status(match code {
                socks::reply::NO_COMMAND => 501,
                _ => 400,
            });
            proxied.send(&socks::reply(code)).await?;
            return Ok(None);
        }
        _ => {
            visitor.record_status(400);
            return Ok(None);
        }
    };
    if let Some(first) = &visitor.first {
        first.request(b"CONNECT", destination.to_string().as_bytes());
    }
    match proxied.reach(service, &visitor, &destination).await {
        None => Ok(None),
        Some(Err(failure)) => {
            visitor.record_status(failure.status_code());
            proxied
                .send(&socks::reply(socks::code_of(&failure)))
                .await?;
            Ok(None)
        }
        Some(Ok(conn)) => {
            visitor.record_status(200);
            proxied.send(&socks::reply(socks::reply::SUCCEEDED)).await?;
            conn.write_all(&proxied.inbox).await?;
            Ok(Some(conn))
        }
    }
}

async fn open_http(
    service: &ServiceConfig,
    conn: &mut dyn VisitorConn,
    mut visitor: Visitor,
) -> io::Result<Option<Conn>> {
    let inbox = std::mem::take(&mut visitor.come);
    let mut proxied = ProxyVisitor { conn, inbox };
    let (request, mut head) = match proxied.head().await? {
        Ok(Some(read)) => read,
        Ok(None) => return Ok(None),
        Err((refusal, to_head)) => return proxied.refuse(&visitor, refusal, to_head).await,
    };
    if let Some(first) = &visitor.first {
        first.request(&request.line.0, &request.line.1);
    }
    let to_head = request.is_head;
    if let Some(check) = &visitor.password {
        let fields: Vec<_> = request.authorization.iter().map(Vec::as_slice).collect();
        let refusal = match proxied.unless_gone(check.wait(&fields)).await {
            None => return Ok(None),
            Some(PasswordVerdict::Right | PasswordVerdict::NotNeeded) => None,
            Some(PasswordVerdict::Wrong) => Some(http::NO_PASSWORD),
            Some(PasswordVerdict::Busy) => Some(TOO_MANY_PASSWORDS),
        };
        if let Some(refusal) = refusal {
            return proxied.refuse(&visitor, refusal, to_head).await;
        }
    }
    let conn = match proxied.reach(service, &visitor, &request.destination).await {
        None => return Ok(None),
        Some(Err(failure)) => {
            let (status, why) = failure.status();
            let refusal = HttpRefusal::new(status, why);
            return proxied.refuse(&visitor, refusal, to_head).await;
        }
        Some(Ok(conn)) => conn,
    };
    if request.is_connect {
        visitor.record_status(200);
        proxied.send(http::CONNECTED).await?;
        conn.write_all(&proxied.inbox).await?;
        return Ok(Some(conn));
    }
    head.append(&mut proxied.inbox);
    Ok(Some(RewritingConn::start(
        conn,
        ForwardedRequest::default(),
        head,
        visitor.first,
        visitor.has_window,
    )))
}

impl Visitor {
    /// Returns its address; `None` if it is not known.
    fn address(&self) -> Option<IpAddr> {
        self.origin.as_ref().and_then(VisitorOrigin::visitor)
    }

    /// Records the status that its first request has.
    fn record_status(&self, status: u16) {
        if let Some(first) = &self.first {
            first.status(status);
        }
    }
}

/// A request and its head, or why it is refused, and whether it is a HEAD.
type ReadHead = Result<Option<(Box<ProxyRequest>, Vec<u8>)>, (HttpRefusal, bool)>;

impl ProxyVisitor<'_> {
    /// Reads the message that is due, and nothing behind it; `None` if it does not come, or is not one.
    async fn message(&mut self, phase: SocksPhase) -> io::Result<Option<SocksMessage>> {
        let reading = async {
            loop {
                match socks::parse(phase, &self.inbox) {
                    SocksBytes::Whole(message, length) => {
                        self.inbox.drain(..length.min(self.inbox.len()));
                        return io::Result::Ok(Some(message));
                    }
                    SocksBytes::Part(missing) => {
                        if self.read(missing).await? == 0 {
                            return Ok(None);
                        }
                    }
                    SocksBytes::Wrong => return Ok(None),
                }
            }
        };
        let read = timeout(MESSAGE_TIMEOUT, reading).await;
        let message = read.unwrap_or(Ok(None))?;
        if message.is_none() {
            log::debug!("a visitor of a SOCKS5 proxy has sent no {phase:?}");
        }
        Ok(message)
    }

    /// Lets a visitor of a SOCKS5 proxy say who it is. False if it does not, or may not come.
    async fn log_in(&mut self, visitor: &Visitor) -> io::Result<bool> {
        let greeting = self.message(SocksPhase::Greeting).await?;
        let Some(SocksMessage::Greeting(methods)) = greeting else {
            visitor.record_status(400);
            return Ok(false);
        };
        let check = visitor.password.as_ref();
        // Of a visitor that gives a password anyway, a service that needs none takes any.
        let usable: &[u8] = match check.is_some_and(PasswordCheck::is_needed) {
            true => &[socks::PASSWORD],
            false => &[socks::NO_PASSWORD, socks::PASSWORD],
        };
        let method = usable.iter().find(|method| methods.contains(method));
        let answer = socks::method(method.copied().unwrap_or(socks::NO_METHOD));
        self.send(&answer).await?;
        match method {
            Some(&socks::PASSWORD) => {}
            Some(_) => return Ok(true),
            None => {
                visitor.record_status(407);
                return Ok(false);
            }
        }
        let message = self.message(SocksPhase::Password).await?;
        let Some(SocksMessage::Password(user, password)) = message else {
            visitor.record_status(400);
            return Ok(false);
        };
        let verdict = match check {
            Some(check) => self.unless_gone(check.wait_pair(&user, &password)).await,
            None => Some(PasswordVerdict::NotNeeded),
        };
        let refused = match verdict {
            Some(PasswordVerdict::Right | PasswordVerdict::NotNeeded) => None,
            Some(PasswordVerdict::Wrong) => Some(407),
            Some(PasswordVerdict::Busy) => Some(503),
            None => return Ok(false),
        };
        if let Some(status) = refused {
            visitor.record_status(status);
        }
        let is_right = refused.is_none();
        self.send(&socks::password_status(is_right)).await?;
        Ok(is_right)
    }

    /// Lets a visitor send datagrams, from any port of its address, until its connection ends, the proxy is
    /// replaced or the client stops.
    async fn associate(
        &mut self,
        associations: &Associations,
        visitor: &Visitor,
    ) -> io::Result<()> {
        if let Some(first) = &visitor.first {
            first.request(b"UDP", b"ASSOCIATE");
        }
        let Some(way) = &visitor.udp else {
            visitor.record_status(501);
            return self.send(&socks::reply(socks::reply::NO_COMMAND)).await;
        };
        let address = visitor.address().filter(|_| !way.stop.is_triggered());
        let association = address.and_then(|address| associations.begin(address));
        let relay = visitor
            .origin
            .as_ref()
            .and_then(|origin| way.address(origin));
        let (Some(association), Some(relay)) = (association, relay) else {
            visitor.record_status(503);
            return self.send(&socks::reply(socks::reply::FAILED)).await;
        };
        visitor.record_status(200);
        self.send(&socks::associated(relay)).await?;
        let gone = async {
            // Nothing but the end of the connection is due from the visitor.
            while matches!(self.read(MAX_READ).await, Ok(1..)) {
                self.inbox.clear();
            }
        };
        let ended = future::or(association.ended(), way.stop.wait());
        future::or(gone, ended).await;
        Ok(())
    }

    /// Reads a request. `Ok(None)`: the visitor has gone without one.
    async fn head(&mut self) -> io::Result<ReadHead> {
        let reading = async {
            let mut reader = HeadReader::default();
            let mut has_begun = false;
            loop {
                let piece = std::mem::take(&mut self.inbox);
                if !piece.is_empty() {
                    has_begun = true;
                    match reader.take(&piece) {
                        ProxyHead::Part => {}
                        ProxyHead::Whole(request, head, taken) => {
                            self.inbox = piece.get(taken..).unwrap_or_default().to_vec();
                            return io::Result::Ok(Ok(Some((request, head))));
                        }
                        ProxyHead::Refused(refusal, to_head) => {
                            return Ok(Err((refusal, to_head)));
                        }
                    }
                }
                if self.read(MAX_READ).await? == 0 {
                    return Ok(match has_begun {
                        true => Err((http::CUT_SHORT, false)),
                        false => Ok(None),
                    });
                }
            }
        };
        let read = timeout(MESSAGE_TIMEOUT, reading).await;
        read.unwrap_or(Ok(Err((http::TOO_LATE, false))))
    }

    /// Appends at most `most` available bytes to the inbox and returns their number; 0 is the end. Waiting
    /// takes no memory.
    async fn read(&mut self, most: usize) -> io::Result<usize> {
        let (conn, inbox) = (&mut *self.conn, &mut self.inbox);
        poll_fn(|cx| {
            let mut buffer = [0; MAX_READ];
            let room = buffer.get_mut(..most.min(MAX_READ)).unwrap_or_default();
            let count = ready!(Pin::new(&mut *conn).poll_read(cx, room))?;
            inbox.extend_from_slice(buffer.get(..count).unwrap_or_default());
            Poll::Ready(Ok(count))
        })
        .await
    }

    /// Sends an answer.
    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.conn.write_all(bytes).await
    }

    /// Answers an HTTP visitor with a refusal, behind which the connection ends.
    async fn refuse(
        &mut self,
        visitor: &Visitor,
        refusal: HttpRefusal,
        to_head: bool,
    ) -> io::Result<Option<Conn>> {
        log::debug!(
            "a visitor of a proxy is refused: {}: {}",
            refusal.status,
            refusal.why
        );
        if let Some(status) = number_of(refusal.status) {
            visitor.record_status(status);
        }
        self.send(refusal.page(to_head).as_bytes()).await?;
        Ok(None)
    }

    /// Runs a task; `None` if the visitor goes meanwhile.
    async fn unless_gone<T>(&mut self, task: impl Future<Output = T>) -> Option<T> {
        let conn = &mut *self.conn;
        let gone = async {
            poll_fn(move |cx| conn.poll_gone(cx)).await;
            None
        };
        future::or(async { Some(task.await) }, gone).await
    }

    /// Connects to a destination; `None` if the visitor goes meanwhile.
    async fn reach(
        &mut self,
        service: &ServiceConfig,
        visitor: &Visitor,
        destination: &Destination,
    ) -> Option<Result<Conn, ProxyFailure>> {
        let patience = service.local_timeout.unwrap_or(CONNECT_TIMEOUT);
        let reaching = timeout(
            patience,
            reach(service, visitor.address(), destination, patience),
        );
        let reached = Box::pin(self.unless_gone(reaching)).await?;
        let reached = reached.unwrap_or_else(|| {
            let e = io::Error::from(io::ErrorKind::TimedOut);
            Err(ProxyFailure::NoAddress(e))
        });
        if let Err(failure) = &reached {
            log::debug!(
                "{}: a visitor does not get to {destination}: {failure}",
                service.local
            );
        }
        Some(reached)
    }
}

/// Connects to the addresses of a destination that are targets of the service. The address that is checked
/// is the one that is dialled.
async fn reach(
    service: &ServiceConfig,
    visitor: Option<IpAddr>,
    destination: &Destination,
    patience: Duration,
) -> Result<Conn, ProxyFailure> {
    let (targets, port) = (&service.targets, destination.port);
    let (name, mut addresses) = match &destination.host {
        DestinationHost::Address(ip) => (None, vec![(*ip, port).into()]),
        DestinationHost::Name(name) if !may_be(targets, name, port) => {
            return Err(ProxyFailure::NotATarget);
        }
        DestinationHost::Name(name) => {
            let found = look_up_for_visitor(visitor, name, port).await;
            (Some(name.as_str()), found.map_err(ProxyFailure::NoAddress)?)
        }
    };
    addresses.retain(|addr| allow(targets, name, *addr));
    if addresses.is_empty() {
        return Err(ProxyFailure::NotATarget);
    }
    let dialled = dial_first(&destination.to_string(), &addresses, patience).await;
    dialled.map(Conn::from).map_err(ProxyFailure::NoConnection)
}
