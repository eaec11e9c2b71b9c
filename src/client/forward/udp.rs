//! The forwarder of a local UDP port (udpForwardAddr): each address that sends datagrams is a flow, which takes the
//! direct way whenever there is one, and the way through the server otherwise.

use super::direct::{DirectWay, DIRECT_TIMEOUT};
use super::error::ForwardError;
use super::other_client::KeyWay;
use super::running::{ForwardConfig, ForwardSocket, Planned, Running, Started};
use crate::client::p2p::{
    carry_flow, carry_last_answers, carry_records, dial_flow, label, ChannelConn, FlowEnd, P2p,
};
use crate::client::pool::Pool;
use crate::client::private::Carried;
use crate::collections::HashMap;
use crate::config::{ListenAddr, UdpForward, UdpTarget};
use crate::handover::{Inherited, Item};
use crate::net::{
    self, clock, Conn, DatagramConn, DatagramPath, DatagramQueue, Datagrams, Flow, ShardId,
    Shutdown, Timer,
};
use crate::sync::{Mutex, MutexGuard};
use futures_lite::future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Maximum number of flows.
const MAX_FLOWS: usize = 256;
/// Silence after which a flow makes way for another one, if there are too many.
const BRIEF_SILENCE: Duration = Duration::from_secs(10);
/// Maximum bytes of all flows that wait for their ways.
const MAX_QUEUED: usize = 4 * 1024 * 1024;
/// Silence after which a flow ends (RFC 4787, section 4.3).
const FLOW_TIMEOUT: Duration = Duration::from_secs(120);
/// Time that answers may come through the server when the flow has moved to the direct way.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Time that a way has to last. One that ends sooner leads to no service.
const MIN_WAY: Duration = Duration::from_secs(1);
/// Pause of a flow without any way, whose datagrams are lost.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// Requested size in bytes of the kernel's buffer.
const RECV_BUFFER: usize = 512 * 1024;
/// Batches in a row before other tasks run.
const BATCHES_PER_TURN: u32 = 8;
/// Pause after a shortage of memory.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(10);

/// The flow that a datagram belongs to: where it comes from, and which address it came to.
type FlowKey = (SocketAddr, Option<IpAddr>);

/// A running forwarder.
pub type UdpForwarder = Running<Datagrams, UdpForward>;
/// A forwarder that is bound and not started yet.
pub type PlannedUdpForward = Planned<Datagrams, UdpForward>;

impl ForwardSocket for Datagrams {
    const OPTIONS: &'static str = "udpForward";

    fn inherit(
        inherited: &mut Inherited,
        file: &Option<PathBuf>,
        addr: &ListenAddr,
    ) -> Option<Self> {
        inherited.datagrams(file, addr)
    }

    fn open(addr: &ListenAddr) -> io::Result<Self> {
        Datagrams::bind(addr.host.as_deref(), addr.port)
    }

    fn addr(&self) -> SocketAddr {
        self.addr()
    }

    fn item(addr: String) -> Item {
        Item::Datagrams { addr }
    }
}

impl ForwardConfig for UdpForward {
    fn addr(&self) -> &ListenAddr {
        &self.addr
    }

    fn host_prefix(&self) -> &str {
        &self.host_prefix
    }

    fn peers(&self) -> usize {
        1
    }

    fn falls_back(&self) -> bool {
        self.fallback
    }
}

impl UdpForwarder {
    /// Starts to receive.
    pub fn start(p2p: Arc<P2p>, pools: Vec<Arc<Pool>>, planned: PlannedUdpForward) -> Self {
        let context = p2p.context().clone();
        Self::begin(p2p, pools, planned, |started| {
            let Started {
                socket,
                config,
                direct,
                stop,
            } = started;
            log::info!("receiving datagrams started addr={}", socket.addr());
            socket.set_recv_buffer(RECV_BUFFER);
            let forwarder = Arc::new(Forwarder {
                direct,
                config,
                socket,
                stop: stop.clone(),
                known: Mutex::default(),
                queued: Arc::default(),
            });
            crate::net::spawn(async move {
                let receiving = async {
                    if let Err(e) = forwarder.socket.move_to(ShardId::current()) {
                        return log::warn!("receiving on {}: {e}", forwarder.socket.addr());
                    }
                    loop {
                        let received = std::future::poll_fn(|cx| forwarder.poll_receive(cx)).await;
                        log::debug!("receiving on {}: {received}", forwarder.socket.addr());
                        Timer::after(SHORTAGE_PAUSE).await;
                    }
                };
                stop.or(future::or(receiving, context.stop.wait())).await;
                stop.trigger();
                forwarder.end_all();
            });
        })
    }
}

/// What connects flows to the other client.
struct Forwarder {
    direct: Arc<DirectWay>,
    config: UdpForward,
    socket: Arc<Datagrams>,
    stop: Shutdown,
    known: Mutex<HashMap<FlowKey, Arc<LocalFlow>>>,
    /// Bytes that wait in all flows.
    queued: Arc<AtomicUsize>,
}

/// The datagrams of one address.
#[derive(Debug)]
struct LocalFlow {
    path: DatagramPath,
    inbox: Mutex<FlowInbox>,
    queued_of_all: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct FlowInbox {
    queue: DatagramQueue,
    waker: Option<Waker>,
    is_closed: bool,
    /// When the last datagram came.
    moved: Instant,
    /// Whether the present way has carried a datagram.
    is_carried: bool,
}

impl LocalFlow {
    fn lock(&self) -> MutexGuard<'_, FlowInbox> {
        self.inbox.lock()
    }

    /// Queues a datagram, or drops it if there is no room. False if the flow has ended.
    fn push(&self, datagram: &[u8], now: Instant) -> bool {
        let mut inbox = self.lock();
        if inbox.is_closed {
            return false;
        }
        inbox.moved = now;
        let before = inbox.queue.len();
        let queued = self.queued_of_all.load(Ordering::Relaxed);
        if queued.saturating_add(datagram.len()) <= MAX_QUEUED {
            inbox.queue.push(datagram);
        }
        let added = inbox.queue.len() - before;
        self.queued_of_all.fetch_add(added, Ordering::Relaxed);
        let waker = inbox.waker.take_if(|_| before == 0);
        drop(inbox);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Ends the flow.
    fn end(&self) {
        let mut inbox = self.lock();
        inbox.is_closed = true;
        self.drop_queued(&mut inbox);
        let waker = inbox.waker.take();
        drop(inbox);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Drops what waits.
    fn drop_queued(&self, inbox: &mut FlowInbox) {
        let dropped = inbox.queue.len();
        inbox.queue.clear();
        self.queued_of_all.fetch_sub(dropped, Ordering::Relaxed);
    }
}

/// A flow as the end of a way. It has no end of its own.
struct FlowHandle {
    flow: Arc<LocalFlow>,
    socket: Arc<Datagrams>,
}

impl std::fmt::Debug for FlowHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.flow.fmt(f)
    }
}

impl Flow for FlowHandle {
    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut inbox = self.flow.lock();
        match inbox.queue.take(buf) {
            0 if inbox.is_closed => Poll::Ready(Ok(0)),
            0 => {
                inbox.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            n => {
                inbox.is_carried = true;
                self.flow.queued_of_all.fetch_sub(n, Ordering::Relaxed);
                Poll::Ready(Ok(n))
            }
        }
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inbox = self.flow.lock();
        if inbox.queue.is_empty() && !inbox.is_closed {
            inbox.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn send(&self, datagrams: &[&[u8]]) {
        let mut inbox = self.flow.lock();
        (inbox.moved, inbox.is_carried) = (clock::now(), true);
        drop(inbox);
        // The kernel drops what it has no room for.
        self.socket.send(datagrams, &self.flow.path);
    }

    fn close(&self) {}

    fn move_to(&self, _: ShardId) -> io::Result<()> {
        // It waits for no socket of its own.
        Ok(())
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.socket.addr())
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.flow.path.from)
    }
}

impl Forwarder {
    /// Receives datagrams until there is an error.
    fn poll_receive(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<io::Error> {
        for _ in 0..BATCHES_PER_TURN {
            let now = clock::now();
            let take = |bytes: &[u8], path| self.take(bytes, path, now);
            match self.socket.poll_receive(cx, usize::MAX, take) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(e)) => return Poll::Ready(e),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes a datagram that has come to the socket.
    fn take(self: &Arc<Self>, datagram: &[u8], path: DatagramPath, now: Instant) {
        let Some(flow) = self.enqueue(datagram, path, now) else {
            return;
        };
        let serving = self.direct.other().p2p.context().serving.begin();
        let forwarder = self.clone();
        crate::net::spawn(async move {
            let stop = forwarder.stop.clone();
            stop.or(Box::pin(forwarder.serve(&flow))).await;
            forwarder.remove(&flow);
            drop(serving);
        });
    }

    /// Queues a datagram in its flow, and returns the flow if it is a new one.
    fn enqueue(&self, datagram: &[u8], path: DatagramPath, now: Instant) -> Option<Arc<LocalFlow>> {
        let key = (path.from, path.to());
        let mut known = self.known.lock();
        if known.get(&key).is_some_and(|flow| flow.push(datagram, now)) {
            return None;
        }
        if known.len() >= MAX_FLOWS {
            let silence = |flow: &LocalFlow| now.saturating_duration_since(flow.lock().moved);
            let silent = known.iter().max_by_key(|(_, flow)| silence(flow));
            let victim = silent.filter(|(_, flow)| silence(flow) >= BRIEF_SILENCE);
            let victim = *victim?.0;
            if let Some(victim) = known.remove(&victim) {
                victim.end();
            }
        }
        let flow = Arc::new(LocalFlow {
            path,
            inbox: Mutex::new(FlowInbox {
                queue: DatagramQueue::default(),
                waker: None,
                is_closed: false,
                moved: now,
                is_carried: false,
            }),
            queued_of_all: self.queued.clone(),
        });
        flow.push(datagram, now);
        known.insert(key, flow.clone());
        Some(flow)
    }

    fn remove(&self, flow: &Arc<LocalFlow>) {
        flow.end();
        let mut known = self.known.lock();
        let key = (flow.path.from, flow.path.to());
        if known.get(&key).is_some_and(|it| Arc::ptr_eq(it, flow)) {
            known.remove(&key);
        }
    }

    fn end_all(&self) {
        let flows = std::mem::take(&mut *self.known.lock());
        flows.values().for_each(|flow| flow.end());
    }

    /// Carries a flow to its end, by whatever way there is.
    async fn serve(&self, flow: &Arc<LocalFlow>) {
        let label = match &self.config.target {
            UdpTarget::Private(_) => label::PRIVATE_UDP.to_owned(),
            UdpTarget::Port(port) => label::of_udp_port(*port),
        };
        let prefix = &self.config.host_prefix;
        loop {
            let begun = clock::now();
            flow.lock().is_carried = false;
            let end = self.carry_once(&label, flow).await;
            let is_useless = || !flow.lock().is_carried || clock::since(begun) < MIN_WAY;
            let end = match end {
                // Proving the key of a private service is not yet reaching it.
                Ok(FlowEnd::Way) if is_useless() => Err(ForwardError::Ended),
                end => end,
            };
            match end {
                Ok(FlowEnd::Idle) => return self.direct.reached(),
                Ok(FlowEnd::Here) => return,
                Ok(FlowEnd::Way) => self.direct.reached(),
                Ok(FlowEnd::Better) => {}
                Err(e) => {
                    log::debug!("a flow to {prefix} has no way: {e}");
                    self.direct.warn_unreachable(&e);
                    Timer::after(RETRY_PAUSE).await;
                    // By now, its datagrams are of no use to anyone.
                    let mut inbox = flow.lock();
                    flow.drop_queued(&mut inbox);
                    if inbox.is_closed || clock::since(inbox.moved) > RETRY_PAUSE {
                        return;
                    }
                }
            }
        }
    }

    /// Carries a flow by the best way that there is, until it ends or has to change its way.
    async fn carry_once(
        &self,
        label: &str,
        flow: &Arc<LocalFlow>,
    ) -> Result<FlowEnd, ForwardError> {
        let (trials, now) = (&self.direct.other().trials, clock::now());
        let paused = trials.pause(KeyWay::Direct, now);
        if paused.is_none() {
            if let Some(channel) = self.direct.open(label).await {
                return self.carry_direct(channel, flow).await;
            }
        }
        if self.config.fallback {
            return match trials.pause(KeyWay::Relay, now) {
                Some(pause) => Err(pause.into()),
                None => self.carry_relayed(label, flow).await,
            };
        }
        if let Some(pause) = paused {
            return Err(pause.into());
        }
        match self.direct.wait_open(label, DIRECT_TIMEOUT).await {
            Some(channel) => self.carry_direct(channel, flow).await,
            None => Err(ForwardError::Unconnected),
        }
    }

    /// Returns the flow as a connection of records. Each way has its own, so that none begins within a record.
    fn conn(&self, flow: &Arc<LocalFlow>) -> Conn {
        let handle = FlowHandle {
            flow: flow.clone(),
            socket: self.socket.clone(),
        };
        DatagramConn::new(Box::new(handle)).into()
    }

    async fn carry_direct(
        &self,
        mut channel: ChannelConn,
        flow: &Arc<LocalFlow>,
    ) -> Result<FlowEnd, ForwardError> {
        if let UdpTarget::Private(key) = &self.config.target {
            let other = self.direct.other();
            other.prove(&mut channel, key, Carried::Datagrams).await?;
        }
        let dialling = dial_flow(&mut channel).await;
        dialling.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => ForwardError::Io(e),
            _ => ForwardError::Ended,
        })?;
        let conn = self.conn(flow);
        let carrying = carry_flow(&channel, &conn, FLOW_TIMEOUT);
        let silent = async {
            channel.silent().await;
            FlowEnd::Way
        };
        Ok(future::or(carrying, silent).await)
    }

    /// Carries a flow through the server until there is a direct way.
    async fn carry_relayed(
        &self,
        label: &str,
        flow: &Arc<LocalFlow>,
    ) -> Result<FlowEnd, ForwardError> {
        let key = match &self.config.target {
            UdpTarget::Private(key) => Some(key),
            UdpTarget::Port(_) => None,
        };
        let relaying = self.direct.other().relay_to(label, key, Carried::Datagrams);
        let relayed = relaying.await?;
        let _relayed = self.direct.relayed();
        let conn = self.conn(flow);
        conn.write_all(&relayed.come).await?;
        let better = self.direct.until_up();
        let end = carry_records(&conn, &relayed.conn, FLOW_TIMEOUT, better).await;
        if end == FlowEnd::Better {
            // Answers may be on their way.
            crate::net::spawn(async move {
                net::timeout(LAST_ANSWERS, carry_last_answers(&conn, &relayed.conn)).await;
            });
        }
        Ok(end)
    }
}
