//! The API for monitoring: three read-only pages about the server, over HTTP on a listener of its
//! own. It has no authentication (docs/operations.md, "The server's API").

pub(super) mod clients;
mod health_check;
mod json;
mod metrics;
mod reply;
pub(crate) mod request;
mod status;

use super::listeners;
use super::state::ServerState;
use crate::net::follow::is_head_request;
use crate::net::tls::{self, Acceptor};
use crate::net::{blocking, timeout, Conn, Listener, Shutdown, Socket};
use async_lock::{Semaphore, SemaphoreGuardArc};
use health_check::ProbeTarget;
use reply::ApiReply;
pub use request::AllowedHosts;
use request::{ApiPage, RequestError};
use status::HealthStatus;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Maximum number of concurrent connections; others wait to be accepted.
const MAX_CONNECTIONS: usize = 32;
/// Time that a connection has to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// Maximum time of a connection in total.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that a connection has to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The API of a server.
pub struct Api {
    state: Arc<ServerState>,
    status: Arc<HealthStatus>,
    acceptor: Option<Acceptor>,
    hosts: AllowedHosts,
}

impl Api {
    /// Creates the API. `/status` tests the listener at `target`.
    pub fn new(
        state: Arc<ServerState>,
        acceptor: Option<Acceptor>,
        hosts: AllowedHosts,
        (target, kind): listeners::Front,
    ) -> io::Result<Self> {
        let status = HealthStatus::new(state.clone(), ProbeTarget::new(target, kind)?);
        Ok(Self {
            state,
            status,
            acceptor,
            hosts,
        })
    }

    /// Accepts connections until `stop` is triggered or the server ends.
    pub async fn accept(self, listener: Arc<Listener>, stop: Shutdown) {
        let api = Arc::new(self);
        let accepting = async {
            let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
            loop {
                let permit = connections.acquire_arc().await;
                let (socket, peer) = listener.accept().await;
                crate::net::spawn(api.clone().serve(socket, peer, permit));
            }
        };
        api.state.stop.or(stop.or(accepting)).await;
    }

    async fn serve(self: Arc<Self>, socket: Socket, peer: SocketAddr, _permit: SemaphoreGuardArc) {
        match timeout(CONNECTION_TIMEOUT, Box::pin(self.exchange(socket))).await {
            Some(Ok(())) => {}
            Some(Err(e)) => log::debug!("{peer}: the API: {e}"),
            None => log::debug!("{peer}: the API: timed out"),
        }
    }

    /// Reads one request and answers it.
    async fn exchange(&self, socket: Socket) -> io::Result<()> {
        let (conn, plain) = match &self.acceptor {
            Some(acceptor) => {
                let first = tls::client_hello(&socket, |bytes| bytes.first().copied()).await?;
                match tls::is_plain_http(first) {
                    true => (Conn::from(socket), true),
                    false => (acceptor.accept(socket).await?, false),
                }
            }
            None => (Conn::from(socket), false),
        };
        let mut head = Vec::new();
        let asked = timeout(
            REQUEST_TIMEOUT,
            request::read(&conn, &self.hosts, &mut head),
        )
        .await;
        let reply = match asked {
            Some(Err(RequestError::Gone)) => return Ok(()),
            Some(_) if plain => ApiReply::plain_http(),
            Some(Ok(page)) => self.page(page).await,
            Some(Err(wrong)) => match ApiReply::invalid(wrong) {
                Some(reply) => reply,
                None => return Ok(()),
            },
            None => ApiReply::timed_out(),
        };
        let page = reply.bytes(is_head_request(&head));
        conn.write_all(page.as_bytes()).await?;
        conn.linger(CLOSE_TIMEOUT).await;
        Ok(())
    }

    async fn page(&self, page: ApiPage) -> ApiReply {
        match page {
            ApiPage::Status => {
                let (ok, page) = self.status.page().await;
                ApiReply::json(ok, page)
            }
            ApiPage::Metrics => {
                let state = self.state.clone();
                ApiReply::metrics(blocking(move || metrics::page(&state)).await)
            }
            ApiPage::Clients => {
                let state = self.state.clone();
                ApiReply::json(true, blocking(move || clients::page(&state.registry)).await)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::crowd::{crowd, id_of};
    use crate::server::incoming::ListenerKind;
    use crate::server::registry::{SCANS, TUNNELS_READ};
    use async_std::task;

    #[test]
    fn pages_about_thousands_of_clients_do_not_block_the_executor() {
        const CLIENTS: usize = 3_000;
        let (state, tunnel) = crowd(CLIENTS);
        let addr = ([127, 0, 0, 1], 1).into();
        let api = Api::new(
            state,
            None,
            AllowedHosts::default(),
            (addr, ListenerKind::Http),
        )
        .unwrap();
        let metrics = task::block_on(api.page(ApiPage::Metrics)).bytes(false);
        assert!(
            metrics.contains(&format!("\ngt_clients {CLIENTS}\n")),
            "{metrics}"
        );
        let clients = task::block_on(api.page(ApiPage::Clients)).bytes(false);
        assert!(clients.contains("{\"id\": \"id00000\""), "{clients}");
        assert!(clients.contains("\"prefixes\": [\"id00000\"]"), "{clients}");
        let more = CLIENTS - 1_000;
        assert!(
            clients.ends_with(&format!("\"more\": {more}}}\n")),
            "{clients}"
        );
        assert_eq!(TUNNELS_READ.get(), 0);
        for n in 0..CLIENTS {
            api.state.registry.tunnel_ended(&id_of(n), &tunnel);
        }
        assert_eq!(
            SCANS.get(),
            0,
            "the cost of a client must not depend on their number"
        );
    }
}
