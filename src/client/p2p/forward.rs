//! A local port whose connections go to another client: through data channels, spread over a few
//! peers, or through the server while there is no direct way.

use super::checks::Role;
use super::hub::Hub;
use super::link::Link;
use super::message::{Message, Reader};
use super::peer::State;
use super::sdp::{self, Description};
use super::signaling::{chunk, reflexive, Answer, RELAY};
use super::{begin, carry, Channel, LABEL};
use crate::client::pool::Pool;
use crate::client::Me;
use crate::config::{Remote, TcpForward};
use crate::handover::{Given, Legacy, Piece};
use crate::net::{self, with_scratch, within, Conn, Listener, Stop};
use event_listener::Event;
use futures_lite::future;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a direct way may take to come up before a connection goes through the server.
const DIRECT: Duration = Duration::from_secs(10);
/// After none came up, connections do not wait for one for so long.
const PAUSE: Duration = Duration::from_secs(30);
/// The end of a request's body: of the messages' own chunks, and of HTTP's.
const REQUEST_END: &[u8] = b"5\r\n0\r\n\r\n\r\n0\r\n\r\n";
/// How long the server may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A listener that forwards.
#[derive(Clone)]
pub struct Forward {
    listener: Arc<Listener>,
    config: TcpForward,
    stop: Stop,
}

/// One that is to be.
pub struct Planned {
    listener: Arc<Listener>,
    config: TcpForward,
}

impl Planned {
    /// Listens, unless the `running` one does or another process has left it. The error says
    /// where that is not possible.
    pub fn new(
        config: &TcpForward,
        running: Option<&Forward>,
        file: &Option<PathBuf>,
        legacy: &mut Legacy,
    ) -> io::Result<Self> {
        let same = |forward: &&Forward| forward.config.addr == config.addr;
        let listener = match running.filter(same) {
            Some(forward) => forward.listener.clone(),
            None => match legacy.listener(file, &config.addr) {
                Some(listener) => Arc::new(listener),
                None => {
                    let addr = &config.addr;
                    let listening = net::listen(addr.host.as_deref(), addr.port);
                    let listening = listening.map_err(|e| {
                        io::Error::new(e.kind(), format!("listening on tcpForwardAddr {addr}: {e}"))
                    });
                    Arc::new(listening?)
                }
            },
        };
        let config = config.clone();
        Ok(Self { listener, config })
    }

    /// Whether this is what `running` does.
    pub fn is(&self, running: &Forward) -> bool {
        self.config == running.config && Arc::ptr_eq(&self.listener, &running.listener)
    }
}

impl Forward {
    pub fn start(me: Arc<Me>, pools: Vec<Arc<Pool>>, planned: Planned) -> Self {
        let Planned { listener, config } = planned;
        log::info!(
            "Listening tcpForwardAddr={} tcpForwardHostPrefix={}",
            config.addr,
            config.host_prefix
        );
        log::info!("acceptLoop started addr={}", listener.addr());
        let stop = Stop::default();
        let way = Arc::new(Way {
            me,
            pools,
            config: config.clone(),
            inner: Mutex::new(Inner {
                slots: vec![Slot::Empty; config.connections.max(1)],
                failed: None,
            }),
            changed: Event::new(),
        });
        let (accepting, until) = (listener.clone(), stop.clone());
        crate::spawn(async move {
            let accept = async {
                loop {
                    let (socket, _) = accepting.accept().await;
                    let serving = way.me.serving.begin();
                    let way = way.clone();
                    crate::spawn(async move {
                        if let Err(e) = way.carry(Arc::new(socket.into())).await {
                            log::debug!("a forwarded connection: {e}");
                        }
                        drop(serving);
                    });
                }
            };
            until.or(future::or(accept, way.me.stop.heard())).await;
        });
        Self {
            listener,
            config,
            stop,
        }
    }

    /// Accepts no more.
    pub fn stop(&self) {
        self.stop.say();
    }

    /// For the process that takes this one's place.
    pub fn share(&self) -> Given {
        let addr = self.config.addr.to_string();
        (Piece::Listener { addr }, Some(self.listener.clone()))
    }
}

/// The way to the other client.
struct Way {
    me: Arc<Me>,
    pools: Vec<Arc<Pool>>,
    config: TcpForward,
    inner: Mutex<Inner>,
    /// A slot has.
    changed: Event,
}

struct Inner {
    slots: Vec<Slot>,
    /// When a direct way was not found last.
    failed: Option<Instant>,
}

/// One of the peers that connections are spread over.
#[derive(Clone)]
enum Slot {
    Empty,
    Connecting,
    Up(Link),
}

impl Way {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn carry(self: &Arc<Self>, conn: Arc<Conn>) -> io::Result<()> {
        if let Some(channel) = within(DIRECT, self.channel()).await.flatten() {
            return carry(channel, conn).await;
        }
        if self.config.fallback {
            let relayed = self.relay(&conn).await;
            if let Err(e) = &relayed {
                let prefix = &self.config.host_prefix;
                log::warn!("no way to {prefix}, neither directly nor through the server: {e}");
                conn.reset_on_close();
            }
            return relayed;
        }
        log::warn!(
            "no direct way to {}, and tcpForwardFallback is off",
            self.config.host_prefix
        );
        conn.reset_on_close();
        Ok(())
    }

    /// A channel of the peer that has the fewest. Waits for one that is connecting if none is
    /// up; `None` if there is no hope.
    async fn channel(self: &Arc<Self>) -> Option<Channel> {
        loop {
            let changed = self.changed.listen();
            {
                let mut inner = self.inner();
                for slot in &mut inner.slots {
                    let is_over = |link: &Link| {
                        let peer = link.lock();
                        *peer.state() != State::Connected || !peer.has_ids()
                    };
                    if matches!(slot, Slot::Up(link) if is_over(link)) {
                        *slot = Slot::Empty;
                    }
                }
                let pauses = inner.failed.is_some_and(|at| at.elapsed() < PAUSE);
                let empty = inner
                    .slots
                    .iter()
                    .position(|slot| matches!(slot, Slot::Empty));
                let connects = |slot: &Slot| matches!(slot, Slot::Connecting);
                let is_connecting = inner.slots.iter().any(connects);
                // One at a time: each new connection may add a peer.
                if let (Some(at), false, false) = (empty, pauses, is_connecting) {
                    if let Some(slot) = inner.slots.get_mut(at) {
                        *slot = Slot::Connecting;
                        crate::spawn(self.clone().fill(at));
                    }
                }
                let up = inner.slots.iter().filter_map(|slot| match slot {
                    Slot::Up(link) => Some(link.clone()),
                    Slot::Empty | Slot::Connecting => None,
                });
                let least = up.min_by_key(|link| link.lock().channels());
                let may_come = inner.slots.iter().any(connects);
                drop(inner);
                if let Some(link) = least {
                    return link.open(&format!("{LABEL}{}", self.config.host_prefix));
                }
                if !may_come {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Connects the peer of one slot.
    async fn fill(self: Arc<Self>, at: usize) {
        let connected = within(DIRECT, self.connect()).await;
        let link = match connected {
            Some(Ok(link)) => Some(link),
            Some(Err(e)) => {
                log::info!("no direct way to {}: {e}", self.config.host_prefix);
                None
            }
            None => {
                log::info!("no direct way to {} came up", self.config.host_prefix);
                None
            }
        };
        {
            let mut inner = self.inner();
            inner.failed = link.is_none().then(Instant::now);
            if let Some(slot) = inner.slots.get_mut(at) {
                *slot = link.map_or(Slot::Empty, Slot::Up);
            }
        }
        self.changed.notify(usize::MAX);
    }

    /// Offers to be a peer, by way of the server, and waits until that has come about.
    async fn connect(&self) -> io::Result<Link> {
        let hub = self.me.p2p.hub_of_one().map_err(io::Error::other)?;
        let begun = begin(
            &self.me,
            hub.clone(),
            Role::Dials,
            None,
            |peer, identity| Ok(peer.describe(identity, sdp::offer)),
        );
        let (link, hosts, offer) = begun.map_err(io::Error::other)?;
        // Whoever stops waiting gives the peer up.
        let mut undecided = Undecided(Some(link.clone()));
        let (conn, host) = self.visit().await?;
        let head = format!(
            "XP / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\
             Connection: close\r\n\r\n"
        );
        conn.write_all(head.as_bytes()).await?;
        say(&conn, Message::Offer(offer)).await?;
        let telling = async {
            for host in hosts {
                say(&conn, Message::Candidate(host)).await?;
            }
            for candidate in reflexive(&self.me, &hub).await {
                say(&conn, Message::Candidate(candidate)).await?;
            }
            conn.write_all(REQUEST_END).await
        };
        let hearing = self.hear(&conn, &hub, &link);
        let talking = async {
            // An answer that ends early is not the end of our own words.
            let (told, heard) = future::zip(telling, hearing).await;
            heard.and(told)?;
            future::pending::<io::Result<()>>().await
        };
        let connected = async {
            match link.connected().await {
                true => Ok(()),
                false => Err(io::Error::other("the peer could not be reached")),
            }
        };
        future::or(connected, talking).await?;
        undecided.0 = None;
        Ok(link)
    }

    /// Hears the other client's answer and its candidates.
    async fn hear(&self, conn: &Conn, hub: &Hub, link: &Link) -> io::Result<()> {
        let mut answer = Answer::read(conn).await?;
        if answer.status != 200 {
            let hint = match answer.status {
                403 => " (remoteSTUN is not set there, or it has no P2P)",
                404 => " (nobody is there by that name)",
                _ => "",
            };
            let status = answer.status;
            return Err(io::Error::other(format!("it said {status}{hint}")));
        }
        let mut reader = Reader::default();
        let mut is_answered = false;
        while let Some(message) = answer.next(conn, &mut reader).await? {
            match message {
                Message::Answer(sdp) => {
                    is_answered = true;
                    let description = Description::parse(&sdp).map_err(io::Error::other)?;
                    let side = description.side_of_offer();
                    let now = Instant::now();
                    link.with(|peer| peer.connect(&hub.identity, &description, side, now))
                        .map_err(io::Error::other)?;
                }
                Message::Candidate(candidate) => {
                    link.with(|peer| peer.add_remote(&candidate, Instant::now()));
                }
                Message::Offer(_) => return Err(io::Error::other("it answered with an offer")),
            }
        }
        match is_answered {
            true => Ok(()),
            false => Err(io::Error::other("its answer is an empty page")),
        }
    }

    /// Connects to the server as a visitor of the other client. Returns its name there, too.
    async fn visit(&self) -> io::Result<(Conn, String)> {
        let mut remote = None;
        for pool in &self.pools {
            if remote.is_none() {
                remote = pool.place().await;
            }
        }
        let Some(Remote { tls, host, port }) = remote else {
            return Err(io::Error::other("it is not known where the server is"));
        };
        let socket = net::dial(&host, port, PATIENCE).await?;
        let conn = match tls {
            true => {
                let connector = self.me.tls.connector()?;
                let handshake = within(PATIENCE, connector.connect(&host, socket)).await;
                handshake.ok_or(io::Error::from(io::ErrorKind::TimedOut))??
            }
            false => Conn::from(socket),
        };
        // A literal address has no names below it, but only the first label counts.
        let host = host.replace([':', '%'], "-");
        Ok((conn, format!("{}.{host}:{port}", self.config.host_prefix)))
    }

    /// Carries a connection through the server, to a client that understands this request.
    async fn relay(&self, local: &Arc<Conn>) -> io::Result<()> {
        let (conn, host) = self.visit().await?;
        let request = format!(
            "XP / HTTP/1.1\r\nHost: {host}\r\n{RELAY}\r\n\
             WebRTC-Label: {LABEL}{}\r\n\r\n",
            self.config.host_prefix
        );
        conn.write_all(request.as_bytes()).await?;
        let answer = within(PATIENCE, Answer::read(&conn)).await;
        let answer = answer.ok_or(io::Error::from(io::ErrorKind::TimedOut))??;
        if answer.status != 200 {
            let status = answer.status;
            return Err(io::Error::other(format!("the other client said {status}")));
        }
        // A client that knows nothing of relays answers 200 and an empty page.
        if !answer.relays {
            return Err(io::Error::other(format!(
                "the other client cannot relay: its answer does not repeat \"{RELAY}\" (it is an \
                 original GT or an older gt; update it, or set tcpForwardFallback to false)"
            )));
        }
        local.write_all(&answer.rest).await?;
        let (there, back) = future::zip(pump(local, &conn), pump(&conn, local)).await;
        there.and(back)
    }
}

/// A peer that is given up unless it is wanted in the end.
struct Undecided(Option<Link>);

impl Drop for Undecided {
    fn drop(&mut self) {
        if let Some(link) = self.0.take() {
            link.with(|peer| peer.close(Instant::now()));
        }
    }
}

/// Sends a message of a request's body. It is framed twice: the original's clients read messages
/// only in chunks of their own inside the body, and answer an empty 200 to any other request.
async fn say(conn: &Conn, message: Message) -> io::Result<()> {
    conn.write_all(&chunk(&chunk(&message.write()))).await
}

/// Moves bytes one way until its end, and the end too.
async fn pump(from: &Conn, to: &Conn) -> io::Result<()> {
    loop {
        let read = std::future::poll_fn(|cx| {
            with_scratch(|buffer| {
                let read = from.poll_read(cx, buffer);
                read.map_ok(|n| buffer.get(..n).unwrap_or_default().to_vec())
            })
        });
        let bytes = match read.await {
            Ok(bytes) if bytes.is_empty() => {
                return std::future::poll_fn(|cx| to.poll_shutdown(cx)).await
            }
            Ok(bytes) => bytes,
            Err(e) => {
                to.reset_on_close();
                return Err(e);
            }
        };
        to.write_all(&bytes).await?;
    }
}
