//! The visitors of a client's UDP port. Each address that sends datagrams is a visitor, called a flow, until
//! it has been silent for `udpTimeout`. Not the relay of a flow, which is the same as for connections.

use super::connection_limit::Permit;
use super::counters::Loss;
use super::error_page::ErrorPage;
use super::ports::{OpenedPort, Protocol};
use super::registry::id_of;
use super::state::ServerState;
use super::udp_port::UdpPort;
use super::visitor::{self, find_route, introduce, relay, ErrorAnswer, Route};
use crate::collections::HashMap;
use crate::logging::Way;
use crate::net::clock::Tick;
use crate::net::{self, Conn, DatagramConn, DatagramPath, DatagramQueue, Flow, ShardId, Timer};
use crate::sync::Mutex;
use crate::wire::origin::{Transport, VisitorOrigin};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::task::{ready, Context, Poll, Waker};
use std::time::Duration;

/// Maximum number of flows of a port.
const MAX_FLOWS: usize = 1024;
/// Maximum bytes of all flows of a port that wait for the tunnel, with their lengths.
const MAX_QUEUED: usize = 4 * 1024 * 1024;
/// Maximum bytes of all flows of the process that wait.
const MAX_QUEUED_OF_ALL: usize = 16 * 1024 * 1024;
/// Bytes of all flows of the process that wait.
static QUEUED_OF_ALL: AtomicUsize = AtomicUsize::new(0);
/// Age from which a flow makes way for another one, unless its visitor has sent something after an answer: a
/// question with its answer is over by then (DNS), and most of a flood from invented addresses are such flows.
const BRIEF_AGE: Duration = Duration::from_secs(1);
/// Maximum length of the list of such flows, in which those that have ended wait to be removed together.
const MAX_LISTED: usize = 2 * MAX_FLOWS;
/// Time that answers have to come after the port was closed.
const RETIRE_TIME: Duration = Duration::from_secs(3);
/// Batches in a row before other tasks run.
const BATCHES_PER_TURN: u32 = 8;
/// Pause after a shortage of memory.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(10);

/// The flow that a datagram belongs to: where it comes from, and which address it came to.
type FlowKey = (SocketAddr, Option<IpAddr>);

/// Serves the visitors of a client's UDP port until the port is closed, or another process takes over:
/// datagrams that come until then wait in the socket.
pub async fn serve_port(
    state: Arc<ServerState>,
    id: Box<str>,
    port: OpenedPort,
    udp: Arc<UdpPort>,
) {
    if let Some(Err(e)) = udp
        .socket()
        .map(|socket| socket.move_to(ShardId::current()))
    {
        return log::warn!("receiving on {}: {e}", udp.addr());
    }
    let flows = Arc::new(Flows {
        state: state.clone(),
        id,
        number: port.port,
        port: udp.clone(),
        known: Mutex::default(),
        queued: Arc::default(),
    });
    let receiving = async {
        loop {
            let received = std::future::poll_fn(|cx| poll_receive(&udp, &flows, cx)).await;
            match received {
                Ok(()) => return,
                Err(e) => log::debug!("receiving on {}: {e}", udp.addr()),
            }
            Timer::after(SHORTAGE_PAUSE).await;
        }
    };
    state.stop.or(port.stop.or::<()>(receiving)).await;
    let retiring = state.serving.begin();
    net::spawn(async move {
        Timer::after(RETIRE_TIME).await;
        flows.end_all();
        drop(retiring);
    });
}

/// Receives datagrams until the port is closed, or until there is an error.
fn poll_receive(port: &UdpPort, flows: &Arc<Flows>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    for _ in 0..BATCHES_PER_TURN {
        let Some(socket) = port.socket() else {
            return Poll::Ready(Ok(()));
        };
        let now = Tick::now();
        let take = |bytes: &[u8], path| flows.take(bytes, path, now);
        if let Err(e) = ready!(socket.poll_receive(cx, usize::MAX, take)) {
            return Poll::Ready(Err(e));
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// The flows of a port.
struct Flows {
    state: Arc<ServerState>,
    /// The client's id.
    id: Box<str>,
    number: u16,
    port: Arc<UdpPort>,
    known: Mutex<KnownFlows>,
    queued: Arc<AtomicUsize>,
}

#[derive(Default)]
struct KnownFlows {
    flows: HashMap<FlowKey, Arc<VisitorFlow>>,
    /// Flows that may be brief, the oldest first. Others stay until they are met, or until there are too many.
    brief: VecDeque<Arc<VisitorFlow>>,
}

impl KnownFlows {
    /// Whether a flow is known, and may be a question with its answer.
    fn is_brief(&self, flow: &Arc<VisitorFlow>) -> bool {
        let known = self.flows.get(&flow.key());
        known.is_some_and(|known| Arc::ptr_eq(known, flow)) && !flow.is_lasting()
    }

    fn insert(&mut self, flow: Arc<VisitorFlow>) {
        if self.brief.len() >= MAX_LISTED {
            let mut brief = std::mem::take(&mut self.brief);
            brief.retain(|flow| self.is_brief(flow));
            self.brief = brief;
        }
        self.brief.push_back(flow.clone());
        self.flows.insert(flow.key(), flow);
    }
}

/// A visitor's flow. The port puts datagrams into its queue, and its relay takes them.
#[derive(Debug)]
struct VisitorFlow {
    path: DatagramPath,
    begun: Tick,
    /// Whether the service has sent something.
    is_answered: AtomicBool,
    /// Whether the visitor has sent something after that.
    goes_on: AtomicBool,
    inbox: Mutex<FlowInbox>,
    /// Bytes that wait in all flows of the port.
    queued_of_port: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct FlowInbox {
    queue: DatagramQueue,
    waker: Option<Waker>,
    is_closed: bool,
}

impl VisitorFlow {
    fn key(&self) -> FlowKey {
        (self.path.from, self.path.to())
    }

    /// Whether it is more than a question with its answer.
    fn is_lasting(&self) -> bool {
        self.goes_on.load(Ordering::Relaxed)
    }

    /// Queues a datagram. The error is that the flow has ended; `Ok(false)`: there is no room.
    fn push(&self, datagram: &[u8]) -> Result<bool, ()> {
        let mut inbox = self.inbox.lock();
        if inbox.is_closed {
            return Err(());
        }
        if self.is_answered.load(Ordering::Relaxed) {
            self.goes_on.store(true, Ordering::Relaxed);
        }
        let before = inbox.queue.len();
        let has_room = [
            (&*self.queued_of_port, MAX_QUEUED),
            (&QUEUED_OF_ALL, MAX_QUEUED_OF_ALL),
        ]
        .iter()
        .all(|(queued, most)| {
            let queued = queued.load(Ordering::Relaxed);
            queued.saturating_add(datagram.len()) <= *most
        });
        let is_queued = has_room && inbox.queue.push(datagram);
        let added = inbox.queue.len() - before;
        self.queued_of_port.fetch_add(added, Ordering::Relaxed);
        QUEUED_OF_ALL.fetch_add(added, Ordering::Relaxed);
        let waker = inbox.waker.take_if(|_| before == 0);
        drop(inbox);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(is_queued)
    }

    /// Counts bytes that have left the queue.
    fn count_taken(&self, bytes: usize) {
        self.queued_of_port.fetch_sub(bytes, Ordering::Relaxed);
        QUEUED_OF_ALL.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Ends the flow: its relay finds the end.
    fn end(&self) {
        let mut inbox = self.inbox.lock();
        inbox.is_closed = true;
        let dropped = inbox.queue.len();
        inbox.queue.clear();
        self.count_taken(dropped);
        let waker = inbox.waker.take();
        drop(inbox);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Flows {
    /// Takes a datagram of a visitor.
    fn take(self: &Arc<Self>, datagram: &[u8], path: DatagramPath, now: Tick) {
        let Some((flow, permit)) = self.enqueue(datagram, path, now) else {
            return;
        };
        let flows = self.clone();
        let handshake = self.state.handshakes.begin();
        net::spawn(async move {
            Box::pin(serve(FlowEnd { flow, flows }, permit)).await;
            drop(handshake);
        });
    }

    /// Queues a datagram in its flow, or drops and counts it. Returns the flow if it is a new one.
    fn enqueue(
        &self,
        datagram: &[u8],
        path: DatagramPath,
        now: Tick,
    ) -> Option<(Arc<VisitorFlow>, Permit)> {
        let key = (path.from, path.to());
        let known = self.known.lock().flows.get(&key).cloned();
        match known.map(|flow| flow.push(datagram)) {
            Some(Ok(true)) => return None,
            Some(Ok(false)) => {
                self.state.counters.lost(Loss::Queue, 1);
                return None;
            }
            // It ends; the datagram begins another one.
            Some(Err(())) | None => {}
        }
        // Those that are denied must not take places, nor be worth a line each.
        if !self.state.settings.get().visitors.admit(path.from.ip()) {
            self.state.counters.unserved(ErrorPage::NotAllowed);
            return None;
        }
        let permit = self.state.connection_limit.take_for_flow(path.from.ip());
        let Some(permit) = permit.filter(|_| self.make_room(now)) else {
            self.state.counters.lost(Loss::Flows, 1);
            return None;
        };
        let flow = Arc::new(VisitorFlow {
            path,
            begun: now,
            is_answered: AtomicBool::new(false),
            goes_on: AtomicBool::new(false),
            inbox: Mutex::default(),
            queued_of_port: self.queued.clone(),
        });
        // A new flow has room, but the port may have none.
        if flow.push(datagram) != Ok(true) {
            self.state.counters.lost(Loss::Queue, 1);
            return None;
        }
        self.known.lock().insert(flow.clone());
        Some((flow, permit))
    }

    /// Makes room for another flow. False if there is none.
    fn make_room(&self, now: Tick) -> bool {
        let mut known = self.known.lock();
        let mut victim = None;
        while let Some(oldest) = known.brief.front() {
            if known.is_brief(oldest) {
                let is_old = oldest.begun.until(now) >= BRIEF_AGE;
                if is_old && known.flows.len() >= MAX_FLOWS {
                    victim = known.brief.pop_front();
                }
                break;
            }
            known.brief.pop_front();
        }
        if let Some(victim) = &victim {
            known.flows.remove(&victim.key());
        }
        let has_room = known.flows.len() < MAX_FLOWS;
        drop(known);
        if let Some(victim) = victim {
            victim.end();
        }
        has_room
    }

    /// Forgets a flow that has ended.
    fn remove(&self, flow: &Arc<VisitorFlow>) {
        let mut known = self.known.lock();
        let key = flow.key();
        if known
            .flows
            .get(&key)
            .is_some_and(|it| Arc::ptr_eq(it, flow))
        {
            known.flows.remove(&key);
        }
    }

    /// Ends all flows.
    fn end_all(&self) {
        let mut known = self.known.lock();
        known.brief.clear();
        let flows = std::mem::take(&mut known.flows);
        drop(known);
        flows.values().for_each(|flow| flow.end());
    }
}

/// The relay's end of a flow.
struct FlowEnd {
    flow: Arc<VisitorFlow>,
    flows: Arc<Flows>,
}

impl std::fmt::Debug for FlowEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.flow.fmt(f)
    }
}

impl FlowEnd {
    /// Returns where the visitor comes from.
    fn origin(&self) -> VisitorOrigin {
        let path = &self.flow.path;
        VisitorOrigin::direct(Transport::Udp, path.from, path.to(), self.flows.number)
    }
}

impl Drop for FlowEnd {
    fn drop(&mut self) {
        self.flow.end();
        self.flows.remove(&self.flow);
    }
}

impl Flow for FlowEnd {
    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut inbox = self.flow.inbox.lock();
        match inbox.queue.take(buf) {
            0 if inbox.is_closed => Poll::Ready(Ok(0)),
            0 => {
                inbox.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            n => {
                self.flow.count_taken(n);
                Poll::Ready(Ok(n))
            }
        }
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inbox = self.flow.inbox.lock();
        if inbox.queue.is_empty() && !inbox.is_closed {
            inbox.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn send(&self, datagrams: &[&[u8]]) {
        self.flow.is_answered.store(true, Ordering::Relaxed);
        let lost = self.flows.port.send(datagrams, &self.flow.path);
        if lost > 0 {
            self.flows.state.counters.lost(Loss::Socket, lost);
        }
    }

    fn close(&self) {
        self.flow.end();
        self.flows.remove(&self.flow);
    }

    fn move_to(&self, _: ShardId) -> io::Result<()> {
        // It waits for no socket of its own.
        Ok(())
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.origin().destination)
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.flow.path.from)
    }
}

/// Forwards a flow to its service.
async fn serve(end: FlowEnd, permit: Permit) {
    let (state, id) = (end.flows.state.clone(), end.flows.id.clone());
    let (peer, number) = (end.flow.path.from, end.flows.number);
    let origin = end.origin();
    let conn = Arc::new(Conn::from(DatagramConn::new(Box::new(end))));
    let seen = state.settings.seen();
    let settings = state.settings.get();
    let visit = state.live_visitors.visit(
        settings.access_log.as_ref(),
        || Some(id_of(&id).into()),
        || format!("port {number}"),
        Way::Udp,
    );
    let mut visit = visit.map(|visit| Box::new(visit.of_server().from(Some(peer))));
    let open = || {
        state
            .registry
            .open_port(&id, (Protocol::Udp, number), peer.ip())
    };
    loop {
        match find_route(&state, None, &id, open).await {
            Route::Stream(mut stream) => {
                stream.carry_datagrams();
                stream.limit_idle(Some(settings.udp_timeout), false);
                introduce(&mut stream, || origin.clone()).await;
                visitor::record(&stream, &visit);
                stream.announce();
                if stream.is_outdated() {
                    continue;
                }
                let visitor = (conn, peer.ip(), seen);
                let held = (permit, visit);
                return relay(state, stream, visitor, ErrorAnswer::Nothing, held);
            }
            // It receives the visitor's next datagrams itself.
            Route::Process(_) => return visitor::end(&mut visit, "no-tunnel"),
            Route::Unroutable(_) => {
                visitor::end(&mut visit, "no-tunnel");
                state.counters.unserved(ErrorPage::NoTunnel);
                return log::debug!("no tunnel of {id} for a visitor of its UDP port {number}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth_lockout::AuthLockout;
    use crate::net::clock::{self, CLOCK_STEP};
    use crate::server::settings::Settings;

    /// Flows without relays.
    fn flows() -> Arc<Flows> {
        let lockout = AuthLockout::new(0, Duration::ZERO);
        let state = ServerState::new(Settings::without_users(), Arc::default(), lockout).unwrap();
        let port = UdpPort::bind(0).expect("a port");
        Arc::new(Flows {
            state: Arc::new(state),
            id: "id1".into(),
            number: port.addr().port(),
            port: Arc::new(port),
            known: Mutex::default(),
            queued: Arc::default(),
        })
    }

    fn path(n: u16) -> DatagramPath {
        DatagramPath::of_test(([192, 0, 2, 1], n).into())
    }

    fn lost(flows: &Flows, why: &str) -> u64 {
        let counts = flows.state.counters.now();
        let mut losses = counts.losses();
        losses.find(|(it, _)| *it == why).expect("a reason").1
    }

    #[test]
    fn a_port_keeps_a_bounded_number_of_flows_and_brief_ones_make_way_after_a_second() {
        async_std::task::block_on(async {
            let flows = flows();
            let start = clock::now();
            let now = Tick::at(start);
            let number = u16::try_from(MAX_FLOWS).unwrap();
            for n in 1..=number {
                flows.enqueue(b"hello", path(n), now);
            }
            assert_eq!(flows.known.lock().flows.len(), MAX_FLOWS);
            for n in [1, 2] {
                let answered = flows.known.lock().flows[&(path(n).from, None)].clone();
                answered.is_answered.store(true, Ordering::Relaxed);
            }
            flows.enqueue(b"more", path(1), now);
            flows.enqueue(b"hello", path(number + 1), now);
            assert_eq!(lost(&flows, "flows"), 1, "all are young");
            // As measured by the coarse clock.
            let later = Tick::at(start + BRIEF_AGE + CLOCK_STEP);
            flows.enqueue(b"hello", path(number + 1), later);
            flows.enqueue(b"more", path(number + 1), later);
            let known = flows.known.lock();
            assert_eq!(known.flows.len(), MAX_FLOWS);
            assert!(known.flows.contains_key(&(path(1).from, None)), "goes on");
            assert!(!known.flows.contains_key(&(path(2).from, None)), "over");
            assert!(known.brief.len() <= MAX_FLOWS);
            drop(known);
            assert_eq!(lost(&flows, "flows"), 1);
            flows.end_all();
        });
    }

    #[test]
    fn all_flows_of_a_port_queue_a_bounded_number_of_bytes() {
        async_std::task::block_on(async {
            let flows = flows();
            let now = Tick::now();
            for n in 1..=200 {
                flows.enqueue(&[0; 60_000], path(n), now);
            }
            let fit = MAX_QUEUED / 60_002;
            assert_eq!(lost(&flows, "queue"), 200 - u64::try_from(fit).unwrap());
            let known: Vec<_> = flows.known.lock().flows.values().cloned().collect();
            let queued = |flow: &Arc<VisitorFlow>| flow.inbox.lock().queue.len();
            assert_eq!(known.iter().map(queued).sum::<usize>(), fit * 60_002);
            // Taken or dropped, they make room.
            let flow = known.iter().find(|flow| queued(flow) > 0).unwrap().clone();
            let end = FlowEnd {
                flow,
                flows: flows.clone(),
            };
            let mut buf = vec![0; 70_000];
            let taken = std::future::poll_fn(|cx| end.poll_read(cx, &mut buf)).await;
            assert_eq!(taken.unwrap(), 60_002);
            assert_eq!(flows.queued.load(Ordering::Relaxed), (fit - 1) * 60_002);
            drop(end);
            flows.end_all();
            assert_eq!(flows.queued.load(Ordering::Relaxed), 0);
        });
    }

    #[test]
    fn flows_that_have_ended_are_forgotten_behind_one_that_never_ends() {
        async_std::task::block_on(async {
            let flows = flows();
            let now = Tick::now();
            flows.enqueue(b"nobody answers", path(1), now);
            for _ in 0..3 * MAX_LISTED {
                flows.enqueue(b"hello", path(2), now);
                let flow = flows.known.lock().flows[&(path(2).from, None)].clone();
                flow.end();
                flows.remove(&flow);
            }
            let known = flows.known.lock();
            assert_eq!(known.flows.len(), 1);
            assert!(known.brief.len() <= MAX_LISTED, "{}", known.brief.len());
            drop(known);
            flows.end_all();
        });
    }

    #[test]
    fn a_flow_that_is_not_read_queues_a_bounded_number_of_bytes() {
        async_std::task::block_on(async {
            let flows = flows();
            let now = Tick::now();
            for _ in 0..100 {
                flows.enqueue(&[0; 1000], path(1), now);
            }
            assert_eq!(lost(&flows, "queue"), 100 - 65);
            // What waits goes with the flow.
            flows.end_all();
            flows.enqueue(b"hello", path(1), now);
            assert_eq!(flows.known.lock().flows.len(), 1);
            assert_eq!(lost(&flows, "queue"), 100 - 65);
            flows.end_all();
        });
    }
}
