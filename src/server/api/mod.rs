//! The API: what operators and their programs ask a server about itself. Speaks HTTP on a
//! listener of its own and gives three pages; it changes nothing.

mod check;
mod clients;
mod json;
mod metrics;
mod reply;
pub(crate) mod request;
mod status;

use super::listeners;
use super::State;
use crate::net::tls::Acceptor;
use crate::net::{within, Conn, Listener, Socket, Stop};
use async_std::channel::{self, Receiver};
use check::Front;
use reply::Reply;
use request::Page;
use status::Status;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Connections at a time; more of them wait to be accepted.
const MOST: usize = 32;
/// How long a connection may take to ask,
const ASKING: Duration = Duration::from_secs(4);
/// and for everything.
const WHOLE: Duration = Duration::from_secs(10);
/// How long it may take for its goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

pub struct Api {
    state: Arc<State>,
    status: Arc<Status>,
    acceptor: Option<Acceptor>,
}

impl Api {
    /// `front` is the listener whose work `/status` looks at.
    pub fn new(
        state: Arc<State>,
        acceptor: Option<Acceptor>,
        (front, door): listeners::Front,
    ) -> io::Result<Self> {
        let status = Status::new(state.clone(), Front::new(front, door)?);
        Ok(Self {
            state,
            status,
            acceptor,
        })
    }

    /// Serves the listener until it is told to stop, or the server is.
    pub async fn accept(self, listener: Arc<Listener>, stop: Stop) {
        let api = Arc::new(self);
        let accepting = async {
            // What is in the channel are the connections there are.
            let (begin, end) = channel::bounded(MOST);
            while begin.send(()).await.is_ok() {
                let (socket, peer) = listener.accept().await;
                crate::spawn(api.clone().serve(socket, peer, Place(end.clone())));
            }
        };
        api.state.stop.or(stop.or(accepting)).await;
    }

    async fn serve(self: Arc<Self>, socket: Socket, peer: SocketAddr, _place: Place) {
        match within(WHOLE, Box::pin(self.exchange(socket))).await {
            Some(Ok(())) => {}
            Some(Err(e)) => log::debug!("{peer}: the API: {e}"),
            None => log::debug!("{peer}: the API: it took too long"),
        }
    }

    /// One request and its answer.
    async fn exchange(&self, socket: Socket) -> io::Result<()> {
        let conn = match &self.acceptor {
            Some(acceptor) => acceptor.accept(socket).await?,
            None => Conn::from(socket),
        };
        let reply = match within(ASKING, request::read(&conn)).await {
            Some(Ok(page)) => self.page(page).await,
            Some(Err(wrong)) => match Reply::wrong(wrong) {
                Some(reply) => reply,
                None => return Ok(()),
            },
            None => Reply::too_late(),
        };
        conn.write_all(reply.bytes().as_bytes()).await?;
        conn.linger(GOODBYE).await;
        Ok(())
    }

    async fn page(&self, page: Page) -> Reply {
        match page {
            Page::Status => {
                let (ok, page) = self.status.page().await;
                Reply::json(ok, page)
            }
            Page::Metrics => Reply::metrics(metrics::page(&self.state)),
            Page::Clients => Reply::json(true, clients::page(&self.state.registry)),
        }
    }
}

/// One of the places for connections, until it is dropped.
struct Place(Receiver<()>);

impl Drop for Place {
    fn drop(&mut self) {
        // There is one message for each place.
        let _ = self.0.try_recv();
    }
}
