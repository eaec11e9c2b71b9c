//! Connects what peers open to services: data channels, and the streams of relay requests. Builds
//! without P2P have `no_channels`.

use super::context::ClientContext;
use super::files;
use super::p2p::label::ServiceLabel;
use super::p2p::{self, AcceptChannel, ChannelConn, RelayRequest};
use super::passwords::PasswordCheck;
use super::private::{self, Carried};
use super::proxy;
use super::services::{dial, reset_code, Service, ServiceTarget, Services, Visitor};
use super::speed_limits::LimitedVisitor;
use super::visitor_conn::VisitorConn;
use super::visitor_rules::{VisitorAdmission, VisitorRules};
use crate::logging::{FirstRequest, Visit};
use crate::tunnel::Relay;
use crate::wire::frame::{ResetCode, ServiceIndex};
use crate::wire::origin::VisitorOrigin;
use futures_lite::{future, AsyncWriteExt};
use log::Level;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Silence after which a flow of datagrams ends, if the service has no localTimeout: longer than the end that dials
/// keeps it.
const FLOW_TIMEOUT: Duration = Duration::from_secs(300);

/// Connects a data channel to the service that its label names, or to the first, and relays it to
/// its end.
pub const ACCEPT: AcceptChannel = accept;

fn accept(context: &Arc<ClientContext>, label: &str, channel: ChannelConn) {
    if context.stop.is_triggered() {
        return log::debug!("a peer opens a channel to a client that is about to end");
    }
    let services = context.services();
    let label = ServiceLabel::parse(label);
    let is_flow = matches!(label, ServiceLabel::UdpPort(_));
    let wanted = match label {
        ServiceLabel::Private => Wanted::Private(Carried::Bytes),
        ServiceLabel::PrivateUdp => Wanted::Private(Carried::Datagrams),
        label => match services.labelled(label, &context.id) {
            Some(index) => Wanted::Known(index),
            None => {
                log::debug!("a peer asks for an unknown service: {label:?}");
                if let ServiceLabel::UdpPort(_) = label {
                    crate::net::spawn(channel.refuse_unknown_flow());
                }
                return;
            }
        },
    };
    let serving = context.serving.begin();
    let (rules, id) = (context.visitor_rules.clone(), context.id.clone());
    crate::net::spawn(async move {
        let mut channel = channel;
        // An address of the other end, which has answered a check.
        let Some(addr) = channel.peer() else {
            return;
        };
        let from = ArrivedFrom {
            id: &id,
            source: Some(addr),
            visitor: Some(addr.ip()),
        };
        let admit = |index| admit(&services, &rules, index, from);
        let (admitted, _peer) = match wanted {
            Wanted::Known(index) => (admit(index), None),
            Wanted::Private(carried) => {
                match private::serve_peer(&mut channel, &services, carried, admit).await {
                    Ok((admitted, peer)) => (Some(admitted), Some(peer)),
                    Err(e) => return log::debug!("a peer asks for a private service: {e}"),
                }
            }
        };
        let Some(Admitted {
            service,
            visit,
            mut admission,
        }) = admitted
        else {
            if is_flow {
                channel.deny_flow().await;
            }
            return;
        };
        channel.limit_idle(service.config.local_timeout);
        let first = visit.as_ref().filter(|_| service.is_read());
        let first = first.map(|visit| visit.first_request());
        let password = PasswordCheck::of_peer(&rules, &service.config, addr.ip());
        let carrying = unless_revoked(service, carry(service, channel, password, first));
        if let Err(e) = admission.unless_ended(Box::pin(carrying)).await {
            log_failure(&services, service, &e);
        }
        drop(serving);
    });
}

/// Logs why a connection to a service has failed. Its other end sees only that it has ended.
fn log_failure(services: &Services, service: &Service, e: &io::Error) {
    let level = match e.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Level::Debug,
        _ => services.level_of_failure(),
    };
    log::log!(level, "service {}: {e}", service.config.local);
}

/// Where a connection to a service comes from.
#[derive(Clone, Copy)]
struct ArrivedFrom<'a> {
    /// The id of this client.
    id: &'a str,
    /// The address of the other end, for the log; `None` if it is unknown.
    source: Option<SocketAddr>,
    /// The address that counts for the rules; `None` if it is unknown.
    visitor: Option<IpAddr>,
}

/// A connection that the rules of its service admit.
struct Admitted<'a> {
    service: &'a Service,
    visit: Option<Box<Visit>>,
    admission: VisitorAdmission<'a>,
}

/// Asks the rules of a service about a connection; `None` if they do not admit it.
fn admit<'a>(
    services: &'a Services,
    rules: &'a VisitorRules,
    index: ServiceIndex,
    from: ArrivedFrom<'_>,
) -> Option<Admitted<'a>> {
    let service = services.get(index)?;
    let mut visit = services.visit(from.id, &service.config, from.source, true);
    let admission = rules.admit(&service.config, from.visitor);
    let admission = admission.filter(|_| rules.count(&service.config, from.visitor));
    if let (None, Some(visit)) = (&admission, &mut visit) {
        visit.end("denied");
    }
    Some(Admitted {
        service,
        visit,
        admission: admission?,
    })
}

/// The service that a peer asks for.
enum Wanted {
    Known(ServiceIndex),
    /// The one whose key it proves.
    Private(Carried),
}

/// Runs a task of a service's visitor, unless the service is private and its key counts no longer.
async fn unless_revoked<T>(
    service: &Service,
    task: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let revoked = async {
        match &service.private {
            Some(access) => access.revoked().await,
            None => future::pending().await,
        }
        let why = "the key of the private service has changed";
        Err(io::Error::new(io::ErrorKind::ConnectionReset, why))
    };
    future::or(revoked, task).await
}

async fn carry(
    service: &Service,
    mut channel: ChannelConn,
    password: Option<PasswordCheck>,
    first: Option<Arc<FirstRequest>>,
) -> io::Result<()> {
    let visitor = Visitor {
        origin: None,
        come: Vec::new(),
        password,
        first,
        has_window: true,
        udp: None,
    };
    match &service.target {
        ServiceTarget::Signaling => Ok(()),
        ServiceTarget::Files(root) => {
            let conn = LimitedVisitor::new(channel, service.limits(true));
            files::serve(root, conn, visitor.of_files()).await
        }
        ServiceTarget::Proxy(target) => {
            match Box::pin(proxy::open(target, service, &mut channel, visitor)).await? {
                Some(conn) => p2p::carry(channel, Arc::new(conn)).await,
                // It has got its answer.
                None => channel.close().await,
            }
        }
        ServiceTarget::Server(addr) if service.config.is_udp() => {
            let conn = dial(service, addr, visitor).await?;
            p2p::accept_flow(&mut channel).await?;
            let patience = service.config.local_timeout.unwrap_or(FLOW_TIMEOUT);
            p2p::carry_flow(&channel, &conn, patience).await;
            service.tell_losses();
            Ok(())
        }
        ServiceTarget::Server(addr) => {
            let dialing = dial(service, addr, visitor);
            let conn = channel.unless_cut(dialing).await?;
            p2p::carry(channel, Arc::new(conn)).await
        }
    }
}

/// Connects the stream of a relay request to the service that its label names: accepts the request,
/// passes the bytes that have come already on to the service, and relays to the end.
pub async fn relay(
    context: &ClientContext,
    request: RelayRequest,
    origin: Option<VisitorOrigin>,
    first: Option<Arc<FirstRequest>>,
) -> io::Result<()> {
    let RelayRequest {
        mut stream,
        label,
        head,
        already,
    } = request;
    let services = context.services();
    let private = match ServiceLabel::parse(&label) {
        ServiceLabel::Private => Some(Carried::Bytes),
        ServiceLabel::PrivateUdp => Some(Carried::Datagrams),
        _ => None,
    };
    if let Some(carried) = private {
        let request = RelayRequest {
            stream,
            label,
            head,
            already,
        };
        return Box::pin(relay_private(context, &services, request, carried, origin)).await;
    }
    let found = services.labelled(ServiceLabel::parse(&label), &context.id);
    let Some(service) = found.and_then(|index| services.get(index)) else {
        stream.fail(ResetCode::UnknownService);
        return Ok(());
    };
    let visitor = origin.as_ref().and_then(VisitorOrigin::visitor);
    let rules = &context.visitor_rules;
    let admission = rules.admit(&service.config, visitor);
    let Some(mut admission) = admission.filter(|_| rules.count(&service.config, visitor)) else {
        stream.fail(ResetCode::NotAllowed);
        return Ok(());
    };
    // A proxy has told of the visitor in the request for the relay, and not in those that follow, which
    // it has passed on as the body of that one.
    let origin = origin.map(|origin| VisitorOrigin {
        is_told: false,
        ..origin
    });
    let visitor = Visitor {
        password: PasswordCheck::new(rules, &service.config, origin.as_ref()),
        origin,
        come: already,
        first: first.filter(|_| service.is_read()),
        has_window: stream.has_window(),
        udp: None,
    };
    let addr = match &service.target {
        ServiceTarget::Server(addr) => addr,
        ServiceTarget::Signaling => return Ok(()),
        ServiceTarget::Proxy(target) => {
            stream.write_all(head.as_bytes()).await?;
            let opened = Box::pin(proxy::open(target, service, &mut stream, visitor)).await;
            let opened = opened.inspect_err(|_| stream.fail(ResetCode::Aborted))?;
            if let Some(conn) = opened {
                let relay = Relay::service(stream, Arc::new(conn));
                relay.while_admitted(|| admission.holds()).await;
            }
            return Ok(());
        }
        ServiceTarget::Files(root) => {
            stream.write_all(head.as_bytes()).await?;
            let limits = service.limits(stream.has_window());
            let conn = LimitedVisitor::new(&mut stream, limits);
            let serving = files::serve(root, conn, visitor.of_files());
            let served = admission.unless_ended(Box::pin(serving)).await;
            return served.inspect_err(|_| stream.fail(ResetCode::Aborted));
        }
    };
    let conn = match dial(service, addr, visitor).await {
        Ok(conn) => conn,
        Err(e) => {
            stream.fail(reset_code(&e));
            return Err(e);
        }
    };
    stream.write_all(head.as_bytes()).await?;
    let relay = Relay::service(stream, Arc::new(conn));
    relay.while_admitted(|| admission.holds()).await;
    Ok(())
}

/// Connects the stream of a relay request to the private service whose key its other end proves.
async fn relay_private(
    context: &ClientContext,
    services: &Services,
    request: RelayRequest,
    carried: Carried,
    origin: Option<VisitorOrigin>,
) -> io::Result<()> {
    let RelayRequest {
        mut stream,
        head,
        already,
        ..
    } = request;
    if !already.is_empty() {
        // The end that dials waits for the answer, and its server for both.
        stream.fail(ResetCode::Aborted);
        return Ok(());
    }
    stream.write_all(head.as_bytes()).await?;
    let visitor = origin.as_ref().and_then(VisitorOrigin::visitor);
    let rules = &context.visitor_rules;
    let from = ArrivedFrom {
        id: &context.id,
        source: origin.as_ref().and_then(VisitorOrigin::known_source),
        visitor,
    };
    let admit = |index| admit(services, rules, index, from);
    let proving = private::serve_relay(stream, services, carried, visitor, admit);
    let (mut stream, admitted, _peer) = proving.await.map_err(io::Error::other)?;
    let Admitted {
        service,
        visit,
        mut admission,
    } = admitted;
    stream.set_idle_limit(service.config.local_timeout);
    let first = visit.as_ref().filter(|_| service.is_read());
    let visitor = Visitor {
        password: PasswordCheck::new(rules, &service.config, origin.as_ref()),
        origin,
        come: Vec::new(),
        first: first.map(|visit| visit.first_request()),
        has_window: true,
        udp: None,
    };
    let carrying = async {
        match &service.target {
            ServiceTarget::Signaling => Ok(()),
            ServiceTarget::Files(root) => {
                let conn = LimitedVisitor::new(stream, service.limits(true));
                files::serve(root, conn, visitor.of_files()).await
            }
            ServiceTarget::Proxy(target) => {
                match Box::pin(proxy::open(target, service, &mut stream, visitor)).await? {
                    Some(conn) => {
                        private::carry(stream, &conn).await;
                        Ok(())
                    }
                    None => stream.close().await,
                }
            }
            ServiceTarget::Server(addr) => {
                let conn = dial(service, addr, visitor).await?;
                private::carry(stream, &conn).await;
                Ok(())
            }
        }
    };
    let carrying = unless_revoked(service, carrying);
    let carried = admission.unless_ended(Box::pin(carrying)).await;
    if service.config.is_udp() {
        service.tell_losses();
    }
    if let Err(e) = carried {
        log_failure(services, service, &e);
    }
    Ok(())
}

impl VisitorConn for ChannelConn {
    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_cut(cx)
    }

    fn set_idle_limit(&self, limit: Option<Duration>) {
        self.limit_idle(limit);
    }
}
