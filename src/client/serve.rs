//! Serves the streams of tunnels: connects each to its service, or answers P2P signaling.

use super::channels;
use super::files::{self, FileVisitor, FolderRoot};
use super::p2p::{self, P2p};
use super::passwords::PasswordCheck;
use super::proxy::{self, UdpWay};
use super::services::{dial, reset_code, Service, ServiceTarget, Services, Visitor};
use super::speed_limits::LimitedVisitor;
use crate::config::ServiceConfig;
use crate::net::follow::HttpRefusal;
use crate::net::http::reply;
use crate::net::{Conn, Shutdown, TaskGuard, Timer};
use crate::tunnel::{Relay, RelayOutcome, Stream};
use crate::wire::frame::{ResetCode, ServiceIndex};
use crate::wire::origin::{VisitorOrigin, LENGTH};
use futures_lite::{future, AsyncReadExt, AsyncWriteExt};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The method of P2P signaling (docs/p2p.md, "Signaling").
const P2P_METHOD: &[u8] = b"XP ";
/// The method of a CORS preflight, which asks whether a page may use P2P.
const OPTIONS_METHOD: &[u8] = b"OPTIONS ";
/// The method of requests whose response has no body.
const HEAD_METHOD: &[u8] = b"HEAD ";

/// Time that answers to a flow of datagrams have to come when the client stops.
const FLOW_RETIRE_TIME: Duration = Duration::from_secs(3);

/// A stream that the server has opened.
pub struct ServedStream {
    pub stream: Stream,
    /// The service that the stream is for.
    pub service: ServiceIndex,
    /// How the visitor's datagrams reach the client, if the service is a proxy with a UDP port.
    pub udp: Option<UdpWay>,
}

/// Connects one stream to its service, and relays it to its end.
pub async fn serve(
    p2p: Arc<P2p>,
    services: Arc<Services>,
    served: ServedStream,
    _serving: TaskGuard,
) {
    // Dropped after the stream, whose end it logs.
    let visit;
    let ServedStream {
        mut stream,
        service: index,
        udp,
    } = served;
    let Some(local @ Service { config, .. }) = services.get(index) else {
        stream.fail(ResetCode::UnknownService);
        return log::debug!("the server opened a stream to service {index}, which does not exist");
    };
    stream.limit_idle(config.local_timeout, false);
    let origin = match read_origin(&mut stream).await {
        Ok(origin) => origin,
        Err(e) => {
            stream.fail(ResetCode::Aborted);
            return log::debug!("the origin of a visitor of {}: {e}", config.local);
        }
    };
    let context = p2p.context();
    let source = origin.as_ref().and_then(VisitorOrigin::known_source);
    visit = services.visit(&context.id, config, source, false);
    if let Some(visit) = &visit {
        stream.record(visit.stream());
    }
    let rules = &context.visitor_rules;
    let visitor = origin.as_ref().and_then(VisitorOrigin::visitor);
    let Some(mut admission) = rules.admit(config, visitor) else {
        return stream.fail(ResetCode::NotAllowed);
    };
    // The state for connecting is large; the relay that stays is small.
    if is_http(config) && stream.starts_with(P2P_METHOD).await {
        let signaling = async {
            match p2p::answer(&p2p, stream).await? {
                Some(request) => {
                    let first = visit.as_ref().map(|visit| visit.first_request());
                    channels::relay(p2p.context(), request, origin, first).await
                }
                None => Ok(()),
            }
        };
        if let Err(e) = Box::pin(signaling).await {
            log::debug!("P2P signaling: {e}");
        }
        return;
    }
    if !rules.count(config, visitor) {
        return stream.fail(ResetCode::NotAllowed);
    }
    let (password, first) = (
        PasswordCheck::new(rules, config, origin.as_ref()),
        visit
            .as_ref()
            .filter(|_| local.is_read())
            .map(|visit| visit.first_request()),
    );
    let visitor = Visitor {
        origin,
        come: Vec::new(),
        password,
        first,
        has_window: stream.has_window(),
        udp,
    };
    match Box::pin(connect(&p2p, local, &mut stream, visitor)).await {
        Ok(ReachedService::Conn(conn)) => {
            let relay = Relay::service(stream, conn);
            let relay = relay.while_admitted(|| admission.holds());
            match config.is_udp() {
                true => {
                    Box::pin(until_retired(&context.stop, relay)).await;
                    local.tell_losses();
                }
                false => {
                    relay.await;
                }
            }
        }
        Ok(ReachedService::Files(root, visitor)) => {
            let limits = local.limits(stream.has_window());
            let conn = LimitedVisitor::new(&mut stream, limits);
            let serving = Box::pin(files::serve(root, conn, visitor));
            if let Err(e) = admission.unless_ended(serving).await {
                // A part of a file must not look complete.
                stream.fail(ResetCode::Aborted);
                log::debug!("{}: {e}", config.local);
            }
        }
        Ok(ReachedService::Done) => {}
        Err(e) => {
            stream.fail(reset_code(&e));
            let level = services.level_of_failure();
            log::log!(level, "service {}: {e}", config.local);
        }
    }
}

/// Relays the datagrams of a flow. It has no end of its own that a client could wait for when it stops: a
/// visitor's next datagram begins another one, through another process or another client.
async fn until_retired(stop: &Shutdown, relay: impl Future<Output = RelayOutcome>) {
    let relaying = async {
        relay.await;
    };
    let retired = async {
        stop.wait().await;
        Timer::after(FLOW_RETIRE_TIME).await;
    };
    future::or(relaying, retired).await;
}

/// Reads the origin that each stream of the tunnel begins with; `None` if it does not.
async fn read_origin(stream: &mut Stream) -> io::Result<Option<VisitorOrigin>> {
    if !stream.has_origin() {
        return Ok(None);
    }
    let malformed = |e| io::Error::new(io::ErrorKind::InvalidData, e);
    let mut bytes = [0; LENGTH];
    stream.read_exact(&mut bytes).await?;
    let length = VisitorOrigin::length(&bytes).map_err(malformed)?;
    // At most 514 bytes.
    let mut bytes = vec![0; length.unwrap_or(LENGTH) - LENGTH];
    stream.read_exact(&mut bytes).await?;
    VisitorOrigin::parse(&bytes).map(Some).map_err(malformed)
}

/// The target that a stream was connected to.
enum ReachedService<'a> {
    Conn(Arc<Conn>),
    Files(&'a FolderRoot, FileVisitor),
    /// The stream has been served already, or is over.
    Done,
}

fn is_http(service: &ServiceConfig) -> bool {
    service.exposure.is_http()
}

/// Refuses the visitor of a service that is down, which a server may not know.
async fn refuse(service: &ServiceConfig, stream: &mut Stream) -> io::Result<()> {
    if !is_http(service) {
        stream.fail(ResetCode::Unreachable);
        return Ok(());
    }
    let to_head = stream.starts_with(HEAD_METHOD).await;
    let page = HttpRefusal::new(
        "503 Service Unavailable",
        "the service is down at the moment",
    );
    stream.write_all(page.page(to_head).as_bytes()).await
}

async fn connect<'a>(
    p2p: &P2p,
    service: &'a Service,
    stream: &mut Stream,
    mut visitor: Visitor,
) -> io::Result<ReachedService<'a>> {
    let Service { config, target, .. } = service;
    if is_http(config) && p2p::is_on(p2p) && stream.starts_with(OPTIONS_METHOD).await {
        match p2p::preflight(stream).await? {
            Some(_) if matches!(target, ServiceTarget::Files(_)) => {
                let refusal =
                    reply::head("405 Method Not Allowed", "Allow: GET, HEAD\r\n", Some(0));
                stream.write_all(refusal.as_bytes()).await?;
                return Ok(ReachedService::Done);
            }
            Some(read) => visitor.come = read,
            None => return Ok(ReachedService::Done),
        }
    }
    match target {
        ServiceTarget::Signaling => {
            let to_head = stream.starts_with(HEAD_METHOD).await;
            let page = HttpRefusal::new("404 Not Found", "there is nothing here for visitors");
            stream.write_all(page.page(to_head).as_bytes()).await?;
            Ok(ReachedService::Done)
        }
        ServiceTarget::Files(root) => Ok(ReachedService::Files(root, visitor.of_files())),
        ServiceTarget::Proxy(target) => {
            match Box::pin(proxy::open(target, service, stream, visitor)).await {
                Ok(Some(conn)) => Ok(ReachedService::Conn(Arc::new(conn))),
                Ok(None) => Ok(ReachedService::Done),
                Err(e) => {
                    stream.fail(match e.kind() {
                        io::ErrorKind::PermissionDenied => ResetCode::NotAllowed,
                        _ => ResetCode::Aborted,
                    });
                    log::debug!("a visitor of {}: {e}", config.local);
                    Ok(ReachedService::Done)
                }
            }
        }
        ServiceTarget::Server(_) if service.is_down() => {
            refuse(config, stream).await?;
            Ok(ReachedService::Done)
        }
        ServiceTarget::Server(addr) => {
            let dialing = async { dial(service, addr, visitor).await.map(Some) };
            let given_up = async {
                stream.is_over().await;
                Ok(None)
            };
            let Some(conn) = future::or(dialing, given_up).await? else {
                return Ok(ReachedService::Done);
            };
            Ok(ReachedService::Conn(Arc::new(conn)))
        }
    }
}
