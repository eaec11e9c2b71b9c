//! A simulated world for gt: a network, a clock, random numbers and processes that follow from a seed, in
//! place of the kernel's (`net::kernel`), of executor threads (`net::runtime`) and of child processes
//! (`handover`). One thread runs all processes of a world in turn, and virtual time passes only while none
//! of them has something to do. The same seed repeats the same run.
//!
//! tests/sim has the servers, clients, visitors, services and faults that live in such a world, and what
//! must hold in it. CONTRIBUTING.md says how to add to them.
//!
//! What is not simulated: files (a configuration is given as text; what gt reads from the disk, it reads
//! from the real one, after a simulated delay), the shares of blocking threads (each work has one), random numbers of TLS (lengths and times do not depend on
//! them), the log's output, and UDP.

pub mod kernel;
mod packets;
mod process;
pub(crate) mod program;
mod random;
pub(crate) mod runtime;
pub(crate) mod supervisor;
mod tcp;
mod world;

pub use process::{
    describe_files, exit, exit_status, freeze, hang_up_disk, kill, limit_files, open_files,
    process, signal, spawn, successor, take_signals, take_stop_signals, trace_files, ProcessId,
};
pub use program::{configuration, Launch};
pub use random::{between, chance, pick, Random};
pub use tcp::{cut, link, lose_one, set_link, HostId, Link};
pub use world::{
    begin, elapsed, end, host, is_tracing, jump_time_of_day, log_to_trace, pass, run, set_name,
    trace, turns, Summary, Trace,
};
