//! The gateway of this machine's default route, and the exchanges with it. Answers that do not come from it are
//! ignored.

use super::igd::{self, Action, Values, WanService};
use super::ssdp::{self, GatewayUrl};
use crate::net::http::response;
use crate::net::{self, source_for, timeout, Conn, Interest, PollSource, Timer};
use futures_lite::future;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

/// The port of PCP and NAT-PMP.
const PORT: u16 = 5351;
/// Time that the gateway has for each repetition of a request. The RFCs wait for a minute and more, for gateways that
/// are far away.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_millis(1000),
];
/// Time in which a gateway answers a search, which it may delay by a second.
const SEARCH_PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(1200)];
/// Time for an exchange over HTTP.
const HTTP_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum length in bytes of a datagram that is parsed.
const MAX_DATAGRAM: usize = 2048;
/// Maximum number of datagrams that are read for one request; others may send some, too.
const MAX_DATAGRAMS: usize = 64;
/// Maximum number of services that are tried.
const MAX_SERVICES: usize = 4;

/// The gateway, and the address of this machine that it is reached from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gateway {
    /// The gateway's address in the local network.
    pub ip: Ipv4Addr,
    /// This machine's address there.
    pub source: Ipv4Addr,
    /// The gateway's port for PCP and NAT-PMP.
    pub(super) port: u16,
    /// Where a search for UPnP is sent, beside the gateway itself.
    pub(super) search: SocketAddrV4,
}

impl Gateway {
    /// Returns the present gateway; `None` without a default route.
    pub fn find() -> Option<Self> {
        let found = net::default_gateway();
        let ip = found.unwrap_or_else(|e| {
            log::debug!("looking for the gateway: {e}");
            None
        })?;
        let IpAddr::V4(source) = source_for(SocketAddr::from((ip, PORT)))? else {
            return None;
        };
        Some(Self {
            ip,
            source,
            port: PORT,
            search: ssdp::MULTICAST,
        })
    }

    /// Sends a request to the port of PCP and NAT-PMP until `parse` recognises an answer; `None` without one.
    pub async fn ask<T>(
        &self,
        request: &[u8],
        mut parse: impl FnMut(&[u8]) -> Option<T>,
    ) -> Option<T> {
        let to = SocketAddrV4::new(self.ip, self.port);
        let asking = async {
            // Only datagrams of the gateway's port arrive at a connected socket.
            let socket = self.socket()?;
            socket.get_ref().connect(to)?;
            for pause in PAUSES {
                let call = |socket: &UdpSocket| socket.send(request);
                socket.call(Interest::Write, call).await?;
                let mut left = MAX_DATAGRAMS;
                let answer = timeout(pause, receive(&socket, &mut left, |_, bytes| parse(bytes)));
                if let Some(answer) = answer.await {
                    return answer;
                }
            }
            Err(io::ErrorKind::TimedOut.into())
        };
        let answer: io::Result<T> = asking.await;
        answer
            .map_err(|e| log::trace!("asking the gateway {to}: {e}"))
            .ok()
    }

    /// Searches for the gateway's services with mappings, the best first.
    pub async fn services(&self) -> Vec<WanService> {
        let Some(page) = self.description().await else {
            return Vec::new();
        };
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}:{}\r\nConnection: close\r\n\r\n",
            page.path, self.ip, page.port
        );
        let Some((200, body)) = self.http(page.port, request.as_bytes()).await else {
            return Vec::new();
        };
        let mut services = igd::services(&body, &page, self.ip);
        services.truncate(MAX_SERVICES);
        services
    }

    /// Searches for the description of the gateway.
    async fn description(&self) -> Option<GatewayUrl> {
        let searching = async {
            let socket = self.socket()?;
            for pause in SEARCH_PAUSES {
                for search in ssdp::searches() {
                    for to in [self.search, SocketAddrV4::new(self.ip, self.search.port())] {
                        // A gateway need not answer both.
                        let _ = socket.get_ref().send_to(search.as_bytes(), to);
                    }
                }
                let mut left = MAX_DATAGRAMS;
                let mut parse = |from: SocketAddr, bytes: &[u8]| {
                    let is_gateway = from.ip() == IpAddr::V4(self.ip);
                    let found = is_gateway.then(|| ssdp::location(bytes, self.ip));
                    found.flatten()
                };
                let found = timeout(pause, receive(&socket, &mut left, &mut parse)).await;
                if let Some(Ok(found)) = found {
                    return Ok(found);
                }
            }
            Err(io::ErrorKind::TimedOut.into())
        };
        let found: io::Result<GatewayUrl> = searching.await;
        found
            .map_err(|e| log::trace!("searching for UPnP at {}: {e}", self.ip))
            .ok()
    }

    /// Requests an action of a service. The error is UPnP's code; `None` without an answer.
    pub async fn act(&self, service: &WanService, action: Action) -> Option<Result<Values, u16>> {
        let request = service.request(action, self.ip);
        let (status, body) = self.http(service.control.port, &request).await?;
        let outcome = igd::answer(&body, status == 200);
        log::trace!("UPnP at {}: {action:?}: {outcome:?}", self.ip);
        Some(outcome)
    }

    /// Sends a request and returns the status and the body of the response, at most 64 KiB.
    async fn http(&self, port: u16, request: &[u8]) -> Option<(u16, String)> {
        let exchange = async {
            let host = self.ip.to_string();
            let conn = Conn::from(net::dial(&host, port, HTTP_TIMEOUT).await.ok()?);
            conn.write_all(request).await.ok()?;
            let (response, _) = response::read(|cx, buffer| conn.poll_read(cx, buffer), &[])
                .await
                .map_err(|e| log::debug!("UPnP at {}: {e}", self.ip))
                .ok()?;
            let body = String::from_utf8_lossy(&response.body).into_owned();
            Some((response.status, body))
        };
        timeout(HTTP_TIMEOUT, exchange).await.flatten()
    }

    /// Creates a socket at this machine's address.
    fn socket(&self) -> io::Result<PollSource<UdpSocket>> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::from(SocketAddrV4::new(self.source, 0)))?;
        // The interface of a search.
        socket.set_multicast_if_v4(&self.source)?;
        PollSource::new(socket.into(), &[Interest::Read, Interest::Write])
    }
}

/// Receives datagrams until `parse` recognises one; at most `left`.
async fn receive<T>(
    socket: &PollSource<UdpSocket>,
    left: &mut usize,
    mut parse: impl FnMut(SocketAddr, &[u8]) -> Option<T>,
) -> io::Result<T> {
    let mut buffer = [0; MAX_DATAGRAM];
    while *left > 0 {
        *left -= 1;
        let call = |socket: &UdpSocket| socket.recv_from(&mut buffer);
        let (length, from) = socket.call(Interest::Read, call).await?;
        if let Some(value) = parse(from, buffer.get(..length).unwrap_or_default()) {
            return Ok(value);
        }
        future::yield_now().await;
    }
    // More than any gateway answers: wait for the next repetition.
    Timer::never().await;
    Err(io::ErrorKind::TimedOut.into())
}
