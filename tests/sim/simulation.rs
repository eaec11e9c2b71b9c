//! Whole worlds of gt from seeds: servers, clients, visitors, services and faults in virtual time. See
//! CONTRIBUTING.md, "Simulation".

mod admin;
mod gt;
mod original;
mod pattern;
mod plan;
mod referee;
mod service;
mod shrink;
mod stage;
mod stream;
mod visitor;

use ::gt::sim::Trace;
use plan::Plan;
use stage::Outcome;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Number of seeds without another one.
const SEEDS: u64 = 300;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().ok();
    match words[..] {
        [] => many(0, SEEDS),
        ["seed", seed] if number(seed).is_some() => one(number(seed).unwrap_or_default()),
        [count] if number(count).is_some() => many(0, number(count).unwrap_or_default()),
        [from, count] if number(from).is_some() && number(count).is_some() => many(
            number(from).unwrap_or_default(),
            number(count).unwrap_or_default(),
        ),
        _ => {
            eprintln!("usage: tests/sim/run [[FROM] COUNT | seed SEED]");
            ExitCode::from(2)
        }
    }
}

/// Runs a world on a thread of its own, which nothing of another world has touched.
fn run(plan: &Plan, trace: Trace) -> Outcome {
    let plan = plan.clone();
    let world = std::thread::Builder::new().stack_size(8 << 20);
    let world = world
        .spawn(move || stage::run(&plan, trace))
        .expect("a thread");
    world.join().expect("the world itself does not panic")
}

/// Runs many seeds on all cores, and reports those that fail.
fn many(from: u64, count: u64) -> ExitCode {
    if let Err(line) = repeats(from) {
        println!("seed {from} does not repeat itself, from this line of its trace on: {line}");
        return ExitCode::FAILURE;
    }
    let begun = Instant::now();
    let (next, failed) = (AtomicU64::new(from), Mutex::new(Vec::new()));
    let sums = Mutex::new((Duration::ZERO, 0u64, 0u64, 0u64));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= from + count || failed.lock().unwrap().len() >= 10 {
                    return;
                }
                let outcome = run(&Plan::of(seed), Trace::Off);
                if let Some(fault) = outcome.faults.first() {
                    println!("seed {seed}: {fault}");
                    failed.lock().unwrap().push(seed);
                }
                let mut sums = sums.lock().unwrap();
                sums.0 += outcome.time;
                sums.1 += outcome.turns;
                sums.2 += outcome.visits.0;
                sums.3 += outcome.visits.1;
            });
        }
    });
    let (time, turns, visits, excused) = *sums.lock().unwrap();
    let took = begun.elapsed().as_secs_f64();
    println!(
        "{count} seeds from {from}: {} virtual seconds, {turns} turns, {visits} visits ({excused} of them \
         failed with an excuse) in {took:.1} s: {:.0} virtual seconds a second and core",
        time.as_secs(),
        time.as_secs_f64() / took / cores as f64
    );
    let failed = failed.lock().unwrap();
    match failed.first() {
        None => ExitCode::SUCCESS,
        Some(seed) => {
            println!("repeat one with: tests/sim/run seed {seed}");
            ExitCode::FAILURE
        }
    }
}

/// Checks that a seed gives the same world twice. The error is the first line that differs.
fn repeats(seed: u64) -> Result<(), String> {
    let [one, other] = [(); 2].map(|()| run(&Plan::of(seed), Trace::On).trace);
    let mut lines = one.iter().zip(&other);
    match lines.find(|(one, other)| one != other) {
        Some((_, line)) => Err(line.clone()),
        None if one.len() != other.len() => Err("the end".to_owned()),
        None => Ok(()),
    }
}

/// Repeats a seed and prints what happens in it. If it fails, it is the smallest part of its world that
/// still does so.
fn one(seed: u64) -> ExitCode {
    let whole = Plan::of(seed);
    let fails = |plan: &Plan| !run(plan, Trace::Off).faults.is_empty();
    let plan = match fails(&whole) {
        true => shrink::shrink(whole.clone(), fails),
        false => whole.clone(),
    };
    ::gt::sim::log_to_trace();
    print!("{plan}");
    let outcome = run(&plan, Trace::On);
    for line in &outcome.trace {
        println!("{line}");
    }
    for fault in &outcome.faults {
        println!("FAULT: {fault}");
    }
    let (visits, excused) = outcome.visits;
    println!("{visits} visits, {excused} failed with an excuse");
    if outcome.faults.is_empty() {
        return ExitCode::SUCCESS;
    }
    let (visitors, events) = (plan.visitors.len(), plan.events.len());
    let (all_visitors, all_events) = (whole.visitors.len(), whole.events.len());
    println!(
        "seed {seed} fails with {visitors} of its {all_visitors} visitors and {events} of its \
         {all_events} events"
    );
    ExitCode::FAILURE
}
