//! The world of this thread: virtual time, events, and what the kernel knows of descriptors.

use super::packets::PacketEnd;
use super::process::{self, Process, ProcessId};
use super::random::Random;
use super::tcp::{Listener, Network, Segment, Stream};
use crate::net::runtime::readiness::SourceState;
use rustix::io::Errno;
use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime};

/// Virtual time in nanoseconds since the world began.
pub(super) type Nanos = u64;

/// Virtual time that one turn of a task takes, at most.
const MAX_TURN: Nanos = 8_000;
/// The time of day at which each world begins: 2026-01-01.
const FIRST_DAY: Duration = Duration::from_secs(1_767_225_600);

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

pub(super) struct World {
    pub random: Random,
    pub now: Nanos,
    /// The difference of the time of day from a right one, in seconds.
    day_offset: i64,
    sequence: u64,
    events: BTreeMap<EventKey, Action>,
    pub processes: BTreeMap<ProcessId, Process>,
    pub network: Network,
    pub names: BTreeMap<String, Name>,
    pub objects: BTreeMap<ObjectId, Object>,
    descriptors: BTreeMap<u64, Descriptor>,
    /// Sources that have events, to be told when the world is not borrowed any more.
    woken: Vec<(Arc<SourceState>, u8)>,
    /// What must not be dropped while the world is borrowed: it may use the world.
    dropped: Vec<Box<dyn Any>>,
    turns: u64,
    trace: Option<Vec<String>>,
}

/// The addresses of a host name, or the resolver's error.
pub(super) type Name = Result<Vec<IpAddr>, &'static str>;

/// The time of an event, and its number among all.
pub(super) type EventKey = (Nanos, u64);

/// What happens at an event.
pub(super) enum Action {
    /// Wakes a task.
    Wake(Waker),
    /// A segment arrives.
    Segment(Segment),
    /// A connection attempt arrives, for the n-th time.
    Connect(ObjectId, u32),
    /// A connection over a link that was cut at this time may be given up.
    GiveUp(ObjectId, Nanos),
    /// Time only passes.
    Nothing,
}

pub(super) type ObjectId = u64;

/// An open file of the kernel.
pub(super) struct Object {
    /// Number of descriptors, those on their way in packets included.
    refs: usize,
    watchers: Vec<Watcher>,
    pub body: Body,
}

pub(super) enum Body {
    Listener(Listener),
    Stream(Box<Stream>),
    Packets(PacketEnd),
}

struct Watcher {
    process: ProcessId,
    state: Arc<SourceState>,
}

struct Descriptor {
    process: ProcessId,
    object: ObjectId,
}

/// Whether a world writes down what happens in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// It does not.
    Off,
    /// It does.
    On,
}

/// What is left of a world.
#[derive(Debug)]
pub struct Summary {
    /// Virtual time that has passed.
    pub time: Duration,
    /// Number of turns of tasks.
    pub turns: u64,
    /// What has happened, if it was traced.
    pub trace: Vec<String>,
}

/// Uses the world of this thread, if there is one.
pub(super) fn try_with<R>(use_it: impl FnOnce(&mut World) -> R) -> Option<R> {
    let (result, after) = WORLD.with_borrow_mut(|world| {
        let world = world.as_mut()?;
        let result = use_it(world);
        if world.woken.is_empty() && world.dropped.is_empty() {
            return Some((result, None));
        }
        let (woken, dropped) = (&mut world.woken, &mut world.dropped);
        Some((
            result,
            Some((std::mem::take(woken), std::mem::take(dropped))),
        ))
    })?;
    if let Some((woken, dropped)) = after {
        for (state, ready) in woken {
            state.add(ready);
        }
        drop(dropped);
    }
    Some(result)
}

/// Uses the world of this thread.
pub(super) fn with<R>(use_it: impl FnOnce(&mut World) -> R) -> R {
    match try_with(use_it) {
        Some(result) => result,
        None => unreachable!("this thread has a world, from begin() to end()"),
    }
}

/// Begins a world on this thread. Each world should have a thread of its own, since values of the
/// thread outlive it.
pub fn begin(seed: u64, trace: Trace) {
    let world = World {
        random: Random::new(seed),
        now: 0,
        day_offset: 0,
        sequence: 0,
        events: BTreeMap::new(),
        processes: BTreeMap::new(),
        network: Network::default(),
        names: BTreeMap::new(),
        objects: BTreeMap::new(),
        descriptors: BTreeMap::new(),
        woken: Vec::new(),
        dropped: Vec::new(),
        turns: 0,
        trace: (trace == Trace::On).then(Vec::new),
    };
    WORLD.with_borrow_mut(|place| *place = Some(world));
}

/// Ends the world of this thread and all of its processes.
pub fn end() -> Summary {
    let processes: Vec<ProcessId> = with(|world| world.processes.keys().copied().collect());
    let summary = with(|world| Summary {
        time: Duration::from_nanos(world.now),
        turns: world.turns,
        trace: world.trace.take().unwrap_or_default(),
    });
    processes.into_iter().for_each(process::vanish);
    let world = WORLD.with_borrow_mut(Option::take);
    // Its wakers may drop tasks, which find no world any more.
    drop(world);
    process::forget_ready();
    summary
}

/// Runs the world for this time, or until a task has panicked; then returns what it said.
pub fn run(time: Duration) -> Result<(), String> {
    let end = with(|world| world.now.saturating_add(nanos(time)));
    loop {
        let (now, due) = with(|world| {
            let due = if world.now < end { world.due() } else { None };
            (world.now, due)
        });
        if now >= end {
            return Ok(());
        } else if let Some(action) = due {
            perform(action);
        } else if process::run_turn(now)? {
            with(|world| {
                world.turns += 1;
                world.now += world.random.between(1_000, MAX_TURN);
            });
        } else {
            with(|world| {
                let next = world.events.first_key_value();
                world.now = next.map_or(end, |((time, _), _)| (*time).min(end));
            });
        }
    }
}

fn perform(action: Action) {
    match action {
        Action::Wake(waker) => waker.wake(),
        Action::Segment(segment) => with(|world| world.arrive(segment)),
        Action::Connect(stream, tries) => with(|world| world.connect_arrives(stream, tries)),
        Action::GiveUp(stream, since) => with(|world| world.give_up(stream, since)),
        Action::Nothing => {}
    }
}

/// Adds a host and returns its address. Hosts reach each other unless their link is cut.
pub fn host() -> (super::HostId, IpAddr) {
    with(|world| {
        let host = world.network.add_host();
        (host, world.network.address(host))
    })
}

/// Sets the addresses of a host name, or the resolver's error.
pub fn set_name(name: &str, addresses: Result<Vec<IpAddr>, &'static str>) {
    with(|world| world.names.insert(name.to_owned(), addresses));
}

/// Moves the time of day by this number of seconds.
pub fn jump_time_of_day(seconds: i64) {
    with(|world| world.day_offset += seconds);
}

/// Whether this world is traced.
pub fn is_tracing() -> bool {
    try_with(|world| world.trace.is_some()).unwrap_or(false)
}

/// Writes down what happens, with the time and the name of the process.
pub fn trace(what: fmt::Arguments<'_>) {
    try_with(|world| {
        let now = Duration::from_nanos(world.now).as_secs_f64();
        let name = process::current().and_then(|id| world.processes.get(&id));
        let name = name.map_or("", |process| &process.name);
        if let Some(lines) = &mut world.trace {
            lines.push(format!("{now:>12.6} {name:<10} {what}"));
        }
    });
}

/// Lets virtual time pass for the calling task.
pub async fn pass(time: Duration) {
    crate::net::Timer::after(time).await;
}

/// Returns the number of turns of tasks so far.
pub fn turns() -> u64 {
    with(|world| world.turns)
}

/// Writes log records of traced worlds into their traces.
pub fn log_to_trace() {
    struct ToTrace;

    impl log::Log for ToTrace {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            is_tracing()
        }

        fn log(&self, record: &log::Record<'_>) {
            trace(format_args!("{} {}", record.level(), record.args()));
        }

        fn flush(&self) {}
    }

    // Fails if it was called before.
    let _ = log::set_logger(&ToTrace);
    log::set_max_level(log::LevelFilter::Debug);
}

/// Returns the virtual time that has passed.
pub fn elapsed() -> Duration {
    with(|world| Duration::from_nanos(world.now))
}

pub(super) fn nanos(time: Duration) -> Nanos {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The zero of virtual time: the same for all worlds, which may be on several threads.
#[allow(clippy::disallowed_methods)]
pub(super) fn base() -> Instant {
    static BASE: OnceLock<Instant> = OnceLock::new();
    *BASE.get_or_init(Instant::now)
}

pub(super) fn now() -> Instant {
    base() + Duration::from_nanos(try_with(|world| world.now).unwrap_or(0))
}

pub(super) fn time_of_day() -> SystemTime {
    let (now, offset) = try_with(|world| (world.now, world.day_offset)).unwrap_or((0, 0));
    let day = SystemTime::UNIX_EPOCH + FIRST_DAY + Duration::from_nanos(now);
    let moved = Duration::from_secs(offset.unsigned_abs());
    match offset {
        0.. => day + moved,
        _ => day - moved,
    }
}

impl World {
    /// Adds an event after this time.
    pub fn after(&mut self, time: Nanos, action: Action) -> EventKey {
        self.at(self.now.saturating_add(time), action)
    }

    /// Adds an event at a time.
    pub fn at(&mut self, time: Nanos, action: Action) -> EventKey {
        let key = (time, self.number());
        self.events.insert(key, action);
        key
    }

    /// Takes the next event whose time has come.
    fn due(&mut self) -> Option<Action> {
        let event = self.events.first_entry()?;
        (event.key().0 <= self.now).then(|| event.remove())
    }

    /// Returns a number that nothing else has.
    pub fn number(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Cancels an event.
    pub fn cancel(&mut self, key: EventKey) {
        if let Some(action) = self.events.remove(&key) {
            self.dropped.push(Box::new(action));
        }
    }

    /// Changes the task that an event wakes. False if the event has been.
    pub fn change_waker(&mut self, key: EventKey, waker: &Waker) -> bool {
        match self.events.get_mut(&key) {
            Some(Action::Wake(before)) => {
                if !before.will_wake(waker) {
                    let before = std::mem::replace(before, waker.clone());
                    self.dropped.push(Box::new(before));
                }
                true
            }
            _ => false,
        }
    }

    /// Drops a value once the world is not borrowed any more.
    pub fn drop_later(&mut self, value: impl Any) {
        self.dropped.push(Box::new(value));
    }

    /// Adds an object without descriptors.
    pub fn add_object(&mut self, body: Body) -> ObjectId {
        let id = self.number();
        let object = Object {
            refs: 0,
            watchers: Vec::new(),
            body,
        };
        self.objects.insert(id, object);
        id
    }

    pub fn remove_object(&mut self, id: ObjectId) {
        if let Some(object) = self.objects.remove(&id) {
            self.drop_later(object);
        }
    }

    /// Tells the sources of an object that it is ready.
    pub fn wake(&mut self, id: ObjectId, ready: u8) {
        if let Some(object) = self.objects.get(&id) {
            let states = object.watchers.iter();
            let states = states.map(|watcher| (watcher.state.clone(), ready));
            self.woken.extend(states);
        }
    }

    /// Opens a descriptor of an object for the running process. Fails if it may have no more.
    pub fn open(&mut self, object: ObjectId) -> io::Result<u64> {
        let (id, process) = self.running()?;
        if process.files >= process.file_limit {
            return Err(Errno::MFILE.into());
        }
        process.files += 1;
        let number = self.number();
        let descriptor = Descriptor {
            process: id,
            object,
        };
        self.descriptors.insert(number, descriptor);
        self.hold(object);
        Ok(number)
    }

    /// Whether the running process may open this many descriptors.
    pub fn may_open(&mut self, count: usize) -> io::Result<()> {
        let (_, process) = self.running()?;
        if process.files + count > process.file_limit {
            return Err(Errno::MFILE.into());
        }
        Ok(())
    }

    /// Returns the running process, unless it has ended.
    pub fn running(&mut self) -> io::Result<(ProcessId, &mut Process)> {
        let id = process::current().ok_or(Errno::SRCH)?;
        let process = self.processes.get_mut(&id).ok_or(Errno::SRCH)?;
        match process.exit {
            None => Ok((id, process)),
            Some(_) => Err(Errno::SRCH.into()),
        }
    }

    /// Counts a descriptor.
    pub fn hold(&mut self, id: ObjectId) {
        if let Some(object) = self.objects.get_mut(&id) {
            object.refs += 1;
        }
    }

    /// Gives a descriptor to another process.
    pub fn give(&mut self, number: u64, to: ProcessId) {
        let Some(descriptor) = self.descriptors.get_mut(&number) else {
            return;
        };
        let from = std::mem::replace(&mut descriptor.process, to);
        if let Some(process) = self.processes.get_mut(&from) {
            process.files -= 1;
        }
        if let Some(process) = self.processes.get_mut(&to) {
            process.files += 1;
        }
    }

    /// Closes a descriptor.
    pub fn close(&mut self, number: u64) {
        let Some(descriptor) = self.descriptors.remove(&number) else {
            return;
        };
        if let Some(process) = self.processes.get_mut(&descriptor.process) {
            process.files -= 1;
        }
        self.release(descriptor.object);
    }

    /// Stops counting a descriptor. The last one closes the object.
    pub fn release(&mut self, id: ObjectId) {
        let Some(object) = self.objects.get_mut(&id) else {
            return;
        };
        object.refs = object.refs.saturating_sub(1);
        if object.refs > 0 {
            return;
        }
        match &object.body {
            Body::Listener(_) => {
                self.stop_listening(id);
                self.remove_object(id);
            }
            Body::Stream(_) => self.close_stream(id),
            Body::Packets(_) => self.close_packets(id),
        }
    }

    /// Returns the object of a descriptor.
    pub fn object_of(&self, number: u64) -> io::Result<ObjectId> {
        let descriptor = self.descriptors.get(&number);
        Ok(descriptor.ok_or(Errno::BADF)?.object)
    }

    /// Describes the object of a descriptor.
    pub fn describe(&self, number: u64) -> String {
        let object = self.object_of(number).ok();
        match object
            .and_then(|id| self.objects.get(&id))
            .map(|object| &object.body)
        {
            Some(Body::Listener(listener)) => format!("listener {}", listener.addr()),
            Some(Body::Stream(stream)) => stream.describe(),
            Some(Body::Packets(_)) => "packets".to_owned(),
            None => "nothing".to_owned(),
        }
    }

    /// Returns the descriptors of a process.
    pub fn descriptors_of(&self, process: ProcessId) -> Vec<u64> {
        let all = self.descriptors.iter();
        let its = all.filter(|(_, descriptor)| descriptor.process == process);
        its.map(|(number, _)| *number).collect()
    }

    /// Registers a source with the object of a descriptor, and tells it what the object is ready for.
    pub fn watch(&mut self, number: u64, state: &Arc<SourceState>) -> io::Result<()> {
        let (process, _) = self.running()?;
        let id = self.object_of(number)?;
        let watcher = Watcher {
            process,
            state: state.clone(),
        };
        let object = self.objects.get_mut(&id).ok_or(Errno::BADF)?;
        object.watchers.push(watcher);
        let ready = self.readiness(id);
        if ready != 0 {
            self.woken.push((state.clone(), ready));
        }
        Ok(())
    }

    /// Ends the registration of a source.
    pub fn unwatch(&mut self, number: u64, state: &Arc<SourceState>) {
        let Ok(id) = self.object_of(number) else {
            return;
        };
        if let Some(object) = self.objects.get_mut(&id) {
            let is_it = |watcher: &mut Watcher| Arc::ptr_eq(&watcher.state, state);
            let removed: Vec<_> = object.watchers.extract_if(.., is_it).collect();
            self.drop_later(removed);
        }
    }

    /// Ends the registrations of a process.
    pub fn unwatch_all(&mut self, process: ProcessId) {
        let mut removed = Vec::new();
        for object in self.objects.values_mut() {
            let is_its = |watcher: &mut Watcher| watcher.process == process;
            removed.extend(object.watchers.extract_if(.., is_its));
        }
        self.drop_later(removed);
    }

    /// Returns what an object is ready for, without room for more bytes.
    fn readiness(&self, id: ObjectId) -> u8 {
        match self.objects.get(&id).map(|object| &object.body) {
            Some(Body::Listener(listener)) => listener.readiness(),
            Some(Body::Stream(stream)) => stream.readiness(),
            Some(Body::Packets(packets)) => packets.readiness(),
            None => 0,
        }
    }

    pub fn stream(&mut self, id: ObjectId) -> Option<&mut Stream> {
        match &mut self.objects.get_mut(&id)?.body {
            Body::Stream(stream) => Some(stream),
            _ => None,
        }
    }

    /// Returns the stream of a descriptor of a process that runs.
    pub fn stream_of(&mut self, number: u64) -> io::Result<(ObjectId, &mut Stream)> {
        let id = self.object_of(number)?;
        Ok((id, self.stream(id).ok_or(Errno::NOTSOCK)?))
    }

    pub fn listener(&mut self, id: ObjectId) -> Option<&mut Listener> {
        match &mut self.objects.get_mut(&id)?.body {
            Body::Listener(listener) => Some(listener),
            _ => None,
        }
    }

    pub fn packet_end(&mut self, id: ObjectId) -> Option<&mut PacketEnd> {
        match &mut self.objects.get_mut(&id)?.body {
            Body::Packets(packets) => Some(packets),
            _ => None,
        }
    }

    /// Looks up a name.
    pub fn look_up(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(ip) = name.parse::<IpAddr>() {
            return Ok(vec![(ip, port).into()]);
        }
        if name == "localhost" {
            return Ok(vec![(Ipv4Addr::LOCALHOST, port).into()]);
        }
        match self.names.get(name) {
            Some(Ok(addresses)) => Ok(addresses.iter().map(|ip| (*ip, port).into()).collect()),
            Some(Err(why)) => Err(io::Error::other(*why)),
            None => Err(io::Error::other("Name or service not known")),
        }
    }
}
