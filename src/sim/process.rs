//! The processes of a world and their tasks. A process that ends loses its descriptors first, as in a
//! kernel, so that nothing it does while its tasks are dropped is seen by others.

use super::world::{self, nanos, Action, Nanos};
use super::HostId;
use async_std::channel::Sender;
use async_task::{Runnable, Task};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::os::unix::process::ExitStatusExt;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

/// Number of tasks of a process at which those that have ended are looked for.
const MANY_TASKS: usize = 64;

/// The number of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessId(u32);

impl ProcessId {
    /// No process.
    pub(super) const NONE: Self = Self(0);

    pub(super) fn from_number(number: u32) -> Self {
        Self(number)
    }

    pub(super) fn number(self) -> u32 {
        self.0
    }
}

pub(super) struct Process {
    pub name: String,
    pub host: HostId,
    tasks: Vec<Task<()>>,
    /// Number of tasks at which those that have ended are looked for.
    tidy_at: usize,
    /// How it has ended.
    pub exit: Option<ExitStatus>,
    frozen_until: Nanos,
    pub disk_hangs_until: Nanos,
    pub files: usize,
    pub file_limit: usize,
    signals: Option<Sender<i32>>,
    handles_stop: bool,
    successor: Option<ProcessId>,
    /// Its statics, by their address.
    pub statics: BTreeMap<usize, Arc<dyn Any + Send + Sync>>,
}

thread_local! {
    static CURRENT: Cell<Option<ProcessId>> = const { Cell::new(None) };
    /// The tasks that can run. Outside of the world, since they wake each other while it is in use.
    static READY: RefCell<BTreeMap<ProcessId, VecDeque<Runnable>>> =
        const { RefCell::new(BTreeMap::new()) };
}

/// Returns the process that runs.
pub(super) fn current() -> Option<ProcessId> {
    CURRENT.get()
}

/// Notes which process has taken over from the running one.
pub(super) fn set_successor(id: ProcessId) {
    world::with(|world| {
        if let Ok((_, process)) = world.running() {
            process.successor = Some(id);
        }
    });
}

/// Returns the process that has taken over from another one, as a supervisor is told.
pub fn successor(id: ProcessId) -> Option<ProcessId> {
    world::with(|world| world.processes.get(&id)?.successor)
}

/// Starts a process without tasks on a host.
pub fn process(host: HostId, name: &str) -> ProcessId {
    world::with(|world| {
        let last = world.processes.last_key_value();
        let id = ProcessId(last.map_or(100, |(id, _)| id.0 + 1));
        let process = Process {
            name: name.to_owned(),
            host,
            tasks: Vec::new(),
            tidy_at: MANY_TASKS,
            exit: None,
            frozen_until: 0,
            disk_hangs_until: 0,
            files: 0,
            file_limit: usize::MAX,
            signals: None,
            handles_stop: false,
            successor: None,
            statics: BTreeMap::new(),
        };
        world.processes.insert(id, process);
        id
    })
}

/// Spawns a detached task of a process; drops it if the process has ended.
pub fn spawn(id: ProcessId, task: impl Future<Output = ()> + Send + 'static) {
    spawn_boxed(id, Box::pin(task));
}

pub(super) fn spawn_boxed(id: ProcessId, task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) {
    let runs = world::try_with(|world| {
        let process = world.processes.get(&id);
        process.is_some_and(|process| process.exit.is_none())
    });
    if runs != Some(true) {
        return;
    }
    let schedule = move |runnable| {
        READY.with_borrow_mut(|ready| ready.entry(id).or_default().push_back(runnable));
    };
    let (runnable, task) = async_task::spawn(task, schedule);
    world::with(|world| {
        let Some(process) = world.processes.get_mut(&id) else {
            return;
        };
        process.tasks.push(task);
        if process.tasks.len() >= process.tidy_at {
            let ended: Vec<_> = process
                .tasks
                .extract_if(.., |task| task.is_finished())
                .collect();
            process.tidy_at = MANY_TASKS.max(process.tasks.len() * 2);
            world.drop_later(ended);
        }
    });
    runnable.schedule();
}

fn is_frozen(id: ProcessId, now: Nanos) -> bool {
    let until = world::with(|world| world.processes.get(&id).map(|it| it.frozen_until));
    until.is_some_and(|until| until > now)
}

/// Picks one of the processes that have a task that can run.
fn pick_ready(now: Nanos) -> Option<ProcessId> {
    READY.with_borrow(|ready| {
        let those = || {
            let those = ready.iter().filter(|(_, queue)| !queue.is_empty());
            those.filter(|(id, _)| !is_frozen(**id, now))
        };
        let last = those().count().checked_sub(1)?;
        let picked = super::random::between(0, last as u64);
        let (id, _) = those().nth(usize::try_from(picked).ok()?)?;
        Some(*id)
    })
}

/// Runs one of the tasks that can run; false if there is none. If it has panicked, returns what it
/// said.
pub(super) fn run_turn(now: Nanos) -> Result<bool, String> {
    let Some(id) = pick_ready(now) else {
        return Ok(false);
    };
    // Mostly the first one, as on a real executor; sometimes another, as with several of its threads.
    let is_first = !super::random::chance(4);
    let runnable = READY.with_borrow_mut(|ready| {
        let queue = ready.get_mut(&id)?;
        match is_first {
            true => queue.pop_front(),
            false => queue.pop_back(),
        }
    });
    let Some(runnable) = runnable else {
        return Ok(false);
    };
    let ran = in_process(id, || catch_unwind(AssertUnwindSafe(|| runnable.run())));
    if let Err(panic) = ran {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        let name = world::with(|world| world.processes.get(&id).map(|it| it.name.clone()));
        let name = name.unwrap_or_default();
        return Err(format!("{name} has panicked: {}", text.unwrap_or_default()));
    }
    let ends = world::with(|world| world.processes.get(&id).is_some_and(|it| it.exit.is_some()));
    if ends {
        // By its own call, which had to return first.
        bury(id);
    }
    Ok(true)
}

/// Runs code as a process.
fn in_process<R>(id: ProcessId, code: impl FnOnce() -> R) -> R {
    let before = CURRENT.replace(Some(id));
    let result = code();
    CURRENT.set(before);
    result
}

/// Ends a process at once, as SIGKILL does: its connections are closed or reset by the kernel.
pub fn kill(id: ProcessId) {
    end_with(id, ExitStatus::from_raw(9));
}

/// Ends a process. If it is the one that runs, its tasks end once this turn is over.
fn end_with(id: ProcessId, status: ExitStatus) {
    let ended = world::with(|world| {
        let process = world.processes.get_mut(&id)?;
        if process.exit.is_some() {
            return None;
        }
        process.exit = Some(status);
        let signals = process.signals.take();
        world.drop_later(signals);
        world.unwatch_all(id);
        for number in world.descriptors_of(id) {
            world.close(number);
        }
        Some(())
    });
    if ended.is_some() && current() != Some(id) {
        bury(id);
    }
}

/// Ends a process whose machine has lost its power: no peer hears of it.
pub(super) fn vanish(id: ProcessId) {
    world::with(|world| {
        world.unwatch_all(id);
        for number in world.descriptors_of(id) {
            if let Ok(object) = world.object_of(number) {
                world.forget_stream(object);
            }
        }
    });
    kill(id);
}

/// Drops the tasks of a process that has ended.
fn bury(id: ProcessId) {
    let (tasks, statics) = world::with(|world| {
        let process = world.processes.get_mut(&id);
        process.map_or_else(Default::default, |process| {
            (
                std::mem::take(&mut process.tasks),
                std::mem::take(&mut process.statics),
            )
        })
    });
    in_process(id, || {
        // Each one that does not run is made ready for being dropped.
        drop(tasks);
        loop {
            let next = READY.with_borrow_mut(|ready| ready.get_mut(&id)?.pop_front());
            match next {
                Some(runnable) => drop(runnable),
                None => break,
            }
        }
        drop(statics);
    });
    READY.with_borrow_mut(|ready| ready.remove(&id));
}

/// Drops what is left to run when the world has ended.
pub(super) fn forget_ready() {
    let ready = READY.with_borrow_mut(std::mem::take);
    drop(ready);
}

/// Returns how a process has ended; `None` while it runs.
pub fn exit_status(id: ProcessId) -> Option<ExitStatus> {
    world::with(|world| world.processes.get(&id)?.exit)
}

/// Sends SIGHUP, SIGQUIT and SIGUSR1 of the running process to a channel; other signals end it.
pub fn take_signals(sender: Sender<i32>) {
    world::with(|world| {
        if let Ok((_, process)) = world.running() {
            process.signals = Some(sender);
        }
    });
}

/// Sends SIGINT and SIGTERM of the running process to its channel, too.
pub fn take_stop_signals() {
    world::with(|world| {
        if let Ok((_, process)) = world.running() {
            process.handles_stop = true;
        }
    });
}

/// Sends a signal to a process.
pub fn signal(id: ProcessId, number: i32) {
    let handled = world::with(|world| {
        let process = world.processes.get(&id)?;
        if matches!(number, SIGINT | SIGTERM) && !process.handles_stop {
            return None;
        }
        Some(process.signals.as_ref()?.try_send(number).is_ok())
    });
    if handled.is_none() {
        end_with(id, ExitStatus::from_raw(number));
    }
}

/// Ends the running process with an exit code, once this turn is over.
pub fn exit(code: u8) {
    if let Some(id) = current() {
        end_with(id, ExitStatus::from_raw(i32::from(code) << 8));
    }
}

/// Stops a process for a while, as SIGSTOP does or a machine that sleeps.
pub fn freeze(id: ProcessId, time: Duration) {
    world::with(|world| {
        let until = world.now.saturating_add(nanos(time));
        if let Some(process) = world.processes.get_mut(&id) {
            process.frozen_until = until;
        }
        world.at(until, Action::Nothing);
    });
}

/// Lets all blocking work of a process that begins in this time wait for its end.
pub fn hang_up_disk(id: ProcessId, time: Duration) {
    world::with(|world| {
        let until = world.now.saturating_add(nanos(time));
        if let Some(process) = world.processes.get_mut(&id) {
            process.disk_hangs_until = until;
        }
    });
}

/// Limits the open files of a process to those that it has and `more`; `None` for no limit.
pub fn limit_files(id: ProcessId, more: Option<usize>) {
    world::with(|world| {
        if let Some(process) = world.processes.get_mut(&id) {
            process.file_limit = more.map_or(usize::MAX, |more| process.files + more);
        }
    });
}

/// Writes the open files of all processes into the trace.
pub fn trace_files() {
    if !world::is_tracing() {
        return;
    }
    let all = world::with(|world| {
        let all = world.processes.iter();
        all.map(|(id, process)| (*id, process.name.clone()))
            .collect::<Vec<_>>()
    });
    for (id, name) in all {
        for file in describe_files(id) {
            world::trace(format_args!("  {name} has open: {file}"));
        }
    }
}

/// Describes the open files of a process.
pub fn describe_files(id: ProcessId) -> Vec<String> {
    world::with(|world| {
        let numbers = world.descriptors_of(id);
        numbers
            .into_iter()
            .map(|number| world.describe(number))
            .collect()
    })
}

/// Returns the number of open files of a process.
pub fn open_files(id: ProcessId) -> usize {
    world::with(|world| world.processes.get(&id).map_or(0, |process| process.files))
}
