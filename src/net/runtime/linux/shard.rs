//! An executor thread with its tasks. It waits in one epoll for everything that can wake one of them:
//! sockets, timers, and other threads.

use super::costly;
use super::source::{readiness_of, SourceKey};
use super::table::Table;
use super::wheel::{Key, Wheel};
use crate::net::clock;
use crate::net::runtime::readiness::SourceState;
use crate::sync::Mutex;
use async_executor::StaticExecutor;
use rustix::event::{epoll, eventfd, EventfdFlags, Timespec};
use rustix::io::Errno;
use std::cell::Cell;
use std::future::{pending, Future};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::pin;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

/// Number of threads that [`shards`] starts.
static THREADS: AtomicUsize = AtomicUsize::new(1);
/// Number of times that [`ShardId::next`] was called.
static CHOSEN: AtomicUsize = AtomicUsize::new(0);

/// Maximum number of events taken at a time.
const EVENTS: usize = 128;
/// The key of the event that stands for other threads.
const OTHER_THREADS: u64 = u64::MAX;

thread_local! {
    /// The shard that this thread runs.
    static CURRENT: Cell<Option<&'static Shard>> = const { Cell::new(None) };
}

/// One executor thread: its tasks, and what they wait for. They never move to another thread.
pub struct Shard {
    id: ShardId,
    executor: StaticExecutor,
    pub(super) epoll: OwnedFd,
    /// Each with its generation.
    pub(super) sources: Mutex<Table<(u32, Arc<SourceState>)>>,
    parker: Arc<Parker>,
    timers: Mutex<Wheel<Waker>>,
    /// The zero of the timers.
    start: Instant,
}

/// Whether this is an executor thread.
pub(super) fn is_executor_thread() -> bool {
    CURRENT.get().is_some()
}

/// Sets the number of executor threads. Call it before the first task or socket.
pub fn set_threads(threads: usize) {
    THREADS.store(threads.max(1), Ordering::Relaxed);
}

/// The number of an executor thread, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardId(usize);

impl ShardId {
    /// Returns the thread that this code runs on; the first one if it is none of them.
    pub fn current() -> Self {
        CURRENT.get().map_or(Self(0), |shard| shard.id)
    }

    /// Returns all threads.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..THREADS.load(Ordering::Relaxed)).map(Self)
    }

    /// Returns each thread in turn, to spread what lasts.
    pub fn next() -> Self {
        Self(CHOSEN.fetch_add(1, Ordering::Relaxed) % THREADS.load(Ordering::Relaxed))
    }

    /// Returns the number.
    pub fn index(self) -> usize {
        self.0
    }

    pub(super) fn shard(self) -> io::Result<&'static Shard> {
        let shard = shards()?.get(self.0);
        shard.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Spawns a detached task on an executor thread.
pub fn spawn(id: ShardId, task: impl Future<Output = ()> + Send + 'static) {
    match id.shard() {
        Ok(shard) => shard.executor.spawn(task).detach(),
        Err(e) => log::error!("starting the executor: {e}"),
    }
}

/// Returns all shards; starts their threads the first time.
fn shards() -> io::Result<&'static [Shard]> {
    static SHARDS: OnceLock<Vec<Shard>> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    if let Some(shards) = SHARDS.get() {
        return Ok(shards);
    }
    let starting = STARTING.lock();
    if let Some(shards) = SHARDS.get() {
        return Ok(shards);
    }
    let count = THREADS.load(Ordering::Relaxed);
    let shards: Vec<Shard> = (0..count)
        .map(|number| Shard::new(ShardId(number)))
        .collect::<io::Result<_>>()?;
    let shards = SHARDS.get_or_init(|| shards);
    for shard in shards {
        let name = format!("gt-{}", shard.id.0);
        let thread = std::thread::Builder::new().name(name);
        thread.spawn(|| shard.run())?;
    }
    drop(starting);
    Ok(shards)
}

impl Shard {
    fn new(id: ShardId) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // Edge-triggered, each write is an event, so that it need not be read.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(
            &epoll,
            &event,
            epoll::EventData::new_u64(OTHER_THREADS),
            flags,
        )?;
        Ok(Self {
            id,
            executor: StaticExecutor::new(),
            epoll,
            sources: Mutex::default(),
            parker: Arc::new(Parker {
                state: AtomicU8::new(RUNNING),
                event,
            }),
            timers: Mutex::default(),
            start: clock::now(),
        })
    }

    /// Returns the shard of this thread, or else the first one.
    pub fn current() -> io::Result<&'static Self> {
        match CURRENT.get() {
            Some(shard) => Ok(shard),
            None => ShardId(0).shard(),
        }
    }

    /// Runs tasks for good.
    fn run(&'static self) {
        CURRENT.set(Some(self));
        // A task that panics ends alone.
        while catch_unwind(AssertUnwindSafe(|| self.run_tasks())).is_err() {}
    }

    fn run_tasks(&'static self) {
        let waker = Waker::from(self.parker.clone());
        let mut cx = Context::from_waker(&waker);
        // Each poll runs what is ready, up to a limit that keeps sockets from waiting.
        let mut tasks = pin!(self.executor.run(pending::<()>()));
        loop {
            // What was ready until now runs in this poll.
            self.parker.begin_run();
            if tasks.as_mut().poll(&mut cx).is_ready() {
                return;
            }
            self.wait();
        }
    }

    /// Waits for events and deadlines, unless a task is ready, and wakes the tasks that they are for.
    fn wait(&self) {
        costly::begin_turn();
        // From here on other threads interrupt the wait: the next deadline must be read after that.
        let timeout = match self.parker.begin_wait() {
            true => self.next_timeout(),
            false => Some(NO_TIME),
        };
        let mut room = [MaybeUninit::uninit(); EVENTS];
        let waited = epoll::wait(&self.epoll, &mut room, timeout.as_ref());
        self.parker.end_wait();
        match waited {
            Ok((events, _)) => self.wake_sources(events),
            // By a signal; what is to be seen is seen next time.
            Err(Errno::INTR) => {}
            Err(e) => log::error!("waiting for sockets: {}", io::Error::from(e)),
        }
        self.wake_timers();
    }

    fn wake_sources(&self, events: &[epoll::Event]) {
        for event in events {
            let flags = event.flags;
            let key = SourceKey::from_event(event.data.u64());
            let state = self.sources.lock().get(key.number()).cloned();
            // The socket may be closed already; no source has the key of other threads.
            if let Some((_, state)) = state.filter(|(of, _)| *of == key.generation) {
                state.add(readiness_of(flags));
            }
        }
    }

    /// Returns the time up to the next deadline; `None` without one.
    fn next_timeout(&self) -> Option<Timespec> {
        let next = self.timers.lock().next()?;
        let wait = Duration::from_millis(next).saturating_sub(clock::since(self.start));
        Some(Timespec {
            tv_sec: wait.as_secs().try_into().unwrap_or(i64::from(i32::MAX)),
            tv_nsec: wait.subsec_nanos().into(),
        })
    }

    fn wake_timers(&self) {
        let now = millis(clock::since(self.start));
        let mut due: smallvec::SmallVec<[Waker; 8]> = smallvec::SmallVec::new();
        let mut timers = self.timers.lock();
        timers.advance(now, |waker| due.push(waker));
        let is_tidy_time = timers.tidy();
        drop(timers);
        if is_tidy_time {
            self.sources.lock().tidy();
        }
        due.into_iter().for_each(Waker::wake);
    }

    /// Sets a timer that wakes a task at `deadline`, at most a millisecond and the `slack`
    /// (milliseconds) later. Those with slack fire at multiples of the largest power of two in it.
    pub(super) fn set_timer(&self, deadline: Instant, slack: u32, waker: &Waker) -> Key {
        let since = deadline.saturating_duration_since(self.start);
        let time = with_slack(millis(since) + 1, slack);
        let key = self.timers.lock().insert(time, waker.clone());
        self.interrupt_from_other_thread();
        key
    }

    /// Changes the task that a timer wakes. False if the timer has fired.
    pub(super) fn change_waker(&self, key: Key, waker: &Waker) -> bool {
        let mut timers = self.timers.lock();
        let before = match timers.get_mut(key) {
            Some(before) if before.will_wake(waker) => return true,
            Some(before) => std::mem::replace(before, waker.clone()),
            None => return false,
        };
        drop(timers);
        // Dropping a waker may drop its task, and with it other timers.
        drop(before);
        true
    }

    /// Cancels a timer.
    pub(super) fn cancel_timer(&self, key: Key) {
        // Dropping a waker may drop its task, and with it other timers.
        let waker = self.timers.lock().remove(key);
        drop(waker);
    }

    /// Lets the thread look at a new timer, if it is not this one, which looks anyway.
    fn interrupt_from_other_thread(&self) {
        let is_here = CURRENT.get().is_some_and(|here| std::ptr::eq(here, self));
        if !is_here {
            self.parker.interrupt();
        }
    }
}

/// Converts a time; not by [`Duration::as_millis`], whose 128 bits are slow to divide.
fn millis(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1000) + u64::from(time.subsec_millis())
}

/// Returns the time from `millis` to `slack` later at which most other timers with this slack fire.
fn with_slack(millis: u64, slack: u32) -> u64 {
    millis.next_multiple_of(u64::from((slack / 2 + 1).next_power_of_two()))
}

const NO_TIME: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// The thread runs tasks.
const RUNNING: u8 = 0;
/// The thread waits, or is about to: it must be interrupted.
const WAITING: u8 = 1;
/// A task is ready: the thread must not wait.
const WOKEN: u8 = 2;

/// The one way in which anything wakes an executor thread: the executor when a task has become
/// ready, and other threads that have set a timer.
struct Parker {
    state: AtomicU8,
    event: OwnedFd,
}

impl Parker {
    /// Forgets that tasks are ready: the thread is about to run them.
    fn begin_run(&self) {
        self.state.store(RUNNING, Ordering::SeqCst);
    }

    /// Whether the thread may wait; it must call [`Self::end_wait`] afterwards in any case.
    fn begin_wait(&self) -> bool {
        let begun =
            self.state
                .compare_exchange(RUNNING, WAITING, Ordering::SeqCst, Ordering::SeqCst);
        begun.is_ok()
    }

    fn end_wait(&self) {
        self.state.store(RUNNING, Ordering::SeqCst);
    }

    fn interrupt(&self) {
        if self.state.swap(WOKEN, Ordering::SeqCst) == WAITING {
            // Fails only if the counter is full, and then an event is there already.
            let _ = rustix::io::write(self.event.as_fd(), &1u64.to_ne_bytes());
        }
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.interrupt();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.interrupt();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{blocking, spawn, Timer};
    use std::future::poll_fn;
    use std::sync::atomic::AtomicU32;
    use std::sync::mpsc::{channel, Receiver};
    use std::task::Poll;

    /// Runs a task on the executor and returns its result, without a timer that could hide a lost
    /// wake.
    fn run<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> T {
        let (sender, receiver) = channel();
        spawn(async move {
            let _ = sender.send(task.await);
        });
        wait_for(&receiver)
    }

    fn wait_for<T>(receiver: &Receiver<T>) -> T {
        let patience = Duration::from_secs(120);
        receiver.recv_timeout(patience).expect("a task is woken")
    }

    #[test]
    fn a_wake_from_another_thread_is_never_lost() {
        const WAKES: u32 = 1_000_000;
        // On a busy machine, where each wake may take a time slice, fewer of them are tried.
        const ENOUGH: Duration = Duration::from_secs(30);
        /// Ends the other thread.
        const END: u32 = u32::MAX;
        // The other thread answers each number at once, so that its wake races with the thread that
        // is about to wait.
        let (asked, answered) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let waker = Arc::new(Mutex::new(None::<Waker>));
        let other = {
            let (asked, answered, waker) = (asked.clone(), answered.clone(), waker.clone());
            std::thread::spawn(move || {
                let mut number = 0;
                while number != END {
                    let next = asked.load(Ordering::SeqCst);
                    if next == number {
                        std::hint::spin_loop();
                        continue;
                    }
                    number = next;
                    answered.store(number, Ordering::SeqCst);
                    if let Some(waker) = &*waker.lock() {
                        waker.wake_by_ref();
                    }
                }
            })
        };
        run(async move {
            let begun = Instant::now();
            let numbers = (1..=WAKES).take_while(|_| begun.elapsed() < ENOUGH);
            for number in numbers.chain([END]) {
                asked.store(number, Ordering::SeqCst);
                poll_fn(|cx| {
                    let mut waker = waker.lock();
                    if !waker.as_ref().is_some_and(|it| it.will_wake(cx.waker())) {
                        *waker = Some(cx.waker().clone());
                    }
                    match answered.load(Ordering::SeqCst) {
                        answered if answered == number => Poll::Ready(()),
                        _ => Poll::Pending,
                    }
                })
                .await;
            }
        });
        other.join().unwrap();
    }

    #[test]
    fn blocking_work_timers_and_other_tasks_wake_an_idle_thread() {
        run(async {
            for number in 0..1000u32 {
                assert_eq!(blocking(move || number).await, number);
            }
        });
        run(async {
            for _ in 0..20 {
                let begun = Instant::now();
                Timer::after(Duration::from_millis(3)).await;
                assert!(begun.elapsed() >= Duration::from_millis(3));
            }
        });
        // A timer that a thread outside of the executor sets is seen by a thread that waits already.
        for _ in 0..20 {
            futures_lite::future::block_on(Timer::after(Duration::from_millis(2)));
        }
    }

    #[test]
    fn timers_with_slack_fire_together_and_not_too_late() {
        for slack in [0, 1, 2, 3, 63, 64, 65, 312, 5625, u32::MAX] {
            let times = (1000..2000u64).map(|millis| (millis, with_slack(millis, slack)));
            let mut fired: Vec<u64> = times.clone().map(|(_, fires)| fires).collect();
            for (millis, fires) in times {
                assert!(
                    (millis..=millis + u64::from(slack)).contains(&fires),
                    "{slack}"
                );
            }
            fired.dedup();
            assert!(
                fired.len() as u64 <= 2 + 4 * 1000 / u64::from(slack.max(4)),
                "{slack}"
            );
        }
    }

    #[test]
    fn a_task_that_panics_ends_alone() {
        spawn(async { panic!("a task") });
        assert_eq!(run(async { 1 }), 1);
    }
}
