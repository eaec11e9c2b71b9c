//! Visitors, and what they expect of an answer.

use crate::pattern;
use crate::plan::{Habit, Program, VisitorPlan};
use crate::referee::{Referee, Scope, Visit};
use crate::stream::{Head, Stream};
use gt::net::{dial, timeout};
use gt::sim;
use std::io;
use std::time::Duration;

/// Longest time without any byte that a visitor waits.
const PATIENCE: Duration = Duration::from_secs(100);

/// Where a visitor finds the services of a client.
#[derive(Clone)]
pub struct Target {
    pub client: usize,
    pub server: usize,
    /// The server's address, the port for HTTP, and that of the TCP service.
    pub host: String,
    pub http: u16,
    pub tcp: u16,
    pub program: Program,
    /// The host prefix to ask for.
    pub prefix: String,
    /// The clients of the same server, this one too.
    pub neighbours: Vec<usize>,
    /// The number of a rival for the prefix, which may have it once anything has happened.
    pub rival: Option<usize>,
}

/// How a visit has failed.
enum Failure {
    /// As the visitor can tell.
    Seen(String),
    /// By an end that hides that bytes are missing.
    Hidden(String),
    /// By an answer of the rival.
    Rival,
    /// As must never be.
    Wrong(String),
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Self::Seen(e.to_string())
    }
}

fn wrong<T>(why: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Wrong(why.into()))
}

fn hidden<T>(why: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Hidden(why.into()))
}

fn seen<T>(why: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Seen(why.into()))
}

/// Runs a visitor until it has made all of its visits, or `end`.
pub async fn run(
    number: usize,
    plan: VisitorPlan,
    target: Target,
    referee: Referee,
    end: Duration,
) {
    sim::pass(Duration::from_millis(plan.from)).await;
    for visit in 0..plan.visits {
        if sim::elapsed() > end {
            return;
        }
        let key = (number as u64) << 32 | (visit as u64) << 8;
        let what = format!("visitor{number}/{visit} {:?}", plan.habit);
        make(&what, plan.habit, key, &target, &referee).await;
        let pause = sim::between(0, plan.pause * 2);
        sim::pass(Duration::from_millis(pause)).await;
    }
}

/// Makes one visit and has it judged. Returns whether it has succeeded.
pub async fn make(what: &str, habit: Habit, key: u64, target: &Target, referee: &Referee) -> bool {
    let mut scopes = vec![Scope::Server(target.server), Scope::Client(target.client)];
    match habit {
        Habit::Pool { .. } => {
            scopes.extend(
                target
                    .neighbours
                    .iter()
                    .map(|client| Scope::Client(*client)),
            );
        }
        Habit::Echo(_) | Habit::Source(_) => scopes.push(Scope::Tcp(target.client)),
        _ => {}
    }
    let visit = referee.begin(what.to_owned(), scopes);
    // A client that once heard no answer to its GT/2 hello goes on with GT/1.
    let has_resets = match target.program {
        Program::Gt => !visit.was_disturbed(),
        Program::Gt2 => true,
        Program::Gt1 | Program::Original => false,
    };
    sim::trace(format_args!("{what} begins, key {key}"));
    let outcome = visit_once(habit, key, target, has_resets).await;
    judge(&visit, &outcome, has_resets);
    if outcome.is_ok() {
        sim::trace(format_args!("{what} is content"));
    }
    outcome.is_ok()
}

fn judge(visit: &Visit, outcome: &Result<(), Failure>, has_resets: bool) {
    match outcome {
        Ok(()) => {}
        Err(Failure::Seen(why)) => visit.failed(why),
        Err(Failure::Hidden(why)) => visit.hidden(why, has_resets),
        // It may have the prefix once its owner could not keep it.
        Err(Failure::Rival) if visit.was_disturbed() => {}
        Err(Failure::Rival) => visit.wrong("an answer of the rival"),
        Err(Failure::Wrong(why)) => visit.wrong(why),
    }
}

async fn visit_once(
    habit: Habit,
    key: u64,
    target: &Target,
    has_resets: bool,
) -> Result<(), Failure> {
    match habit {
        Habit::Pool { requests, length } => pool(requests, length, key, target).await,
        Habit::Echo(_) | Habit::Source(_) => tcp(habit, key, target, has_resets).await,
        _ => http(habit, key, target, has_resets).await,
    }
}

/// Waits for a step that must not take longer than a visitor's patience.
async fn patiently<T>(
    step: impl std::future::Future<Output = io::Result<T>>,
) -> Result<T, Failure> {
    match timeout(PATIENCE, step).await {
        Some(result) => Ok(result?),
        None => seen(format!("nothing came for {PATIENCE:?}")),
    }
}

async fn http(habit: Habit, key: u64, target: &Target, has_resets: bool) -> Result<(), Failure> {
    let socket = dial(&target.host, target.http, PATIENCE).await?;
    let mut stream = Stream::new(socket);
    let (kind, requests, length, upload) = match habit {
        Habit::KeepAlive { requests, length } | Habit::Pool { requests, length } => {
            ("plain", requests, length, 0)
        }
        Habit::Upload(length) => ("plain", 1, 10, length),
        Habit::Unbounded(length) => ("unbounded", 1, length, 0),
        Habit::SlowService(length) => ("slow", 1, length, 0),
        Habit::ServiceResets(length) => ("resets", 1, length, 0),
        Habit::Get(length)
        | Habit::SlowReader(length)
        | Habit::NeverReads(length)
        | Habit::GivesUp(length)
        | Habit::Silent(length)
        | Habit::Echo(length)
        | Habit::Source(length) => ("plain", 1, length, 0),
    };
    if let Habit::Silent(length) = habit {
        // A request, or the hello of a tunnel.
        let begun = match length % 3 {
            0 => format!("GET / HTTP/1.1\r\nHost: {}.example\r\nA: b", target.prefix).into_bytes(),
            1 => b"\xF0\x01\x40abc".to_vec(),
            _ => b"\xF0\x20abc".to_vec(),
        };
        patiently(stream.send(&begun[..length.min(begun.len())])).await?;
        // It is told so, or closed.
        let end = timeout(PATIENCE, async {
            while stream.some(1000).await.is_ok_and(|it| !it.is_empty()) {}
        });
        return match end.await {
            Some(()) => Ok(()),
            None => seen("a silent connection is not closed"),
        };
    }
    for request in 0..requests {
        let key = key + request as u64;
        let head = format!(
            "GET /{kind}/{key}/{length} HTTP/1.1\r\nHost: {}.example\r\nContent-Length: {upload}\r\n\r\n",
            target.prefix
        );
        patiently(stream.send(head.as_bytes())).await?;
        patiently(stream.send(&pattern::bytes(key, 0, upload))).await?;
        if let Habit::NeverReads(_) = habit {
            sim::pass(Duration::from_millis(sim::between(100, 100_000))).await;
            return Ok(());
        }
        let Some(head) = patiently(stream.head()).await? else {
            // A connection that was kept alive may end between two requests, but not after one was
            // sent: that is a failed request.
            return seen("the end in place of an answer");
        };
        expect_ours(&head, key, target)?;
        answer(habit, key, length, has_resets, &mut stream).await?;
        if request + 1 < requests {
            sim::pass(Duration::from_millis(sim::between(0, 3_000))).await;
        }
    }
    Ok(())
}

/// Sends requests for the clients of a server in turn over one connection, as a reverse proxy does that
/// keeps connections for later. When one is closed between two requests, it opens another.
async fn pool(requests: usize, length: usize, key: u64, target: &Target) -> Result<(), Failure> {
    let mut idle = None;
    for request in 0..requests {
        let key = key + request as u64;
        let client = target.neighbours[request % target.neighbours.len()];
        let head = format!(
            "GET /plain/{key}/{length} HTTP/1.1\r\nHost: c{client}.example\r\nVia: 1.1 proxy\r\n\r\n"
        );
        let its = Target {
            client,
            ..target.clone()
        };
        if let Some(mut stream) = idle.take() {
            // Nothing of the answer has come if the connection was closed meanwhile.
            let asked: Result<(), Failure> =
                patiently(Stream::send(&stream, head.as_bytes())).await;
            if asked.is_ok() {
                if let Ok(Some(answered)) = patiently(stream.head()).await {
                    expect_ours(&answered, key, &its)?;
                    answer(Habit::Get(length), key, length, true, &mut stream).await?;
                    idle = Some(stream);
                    continue;
                }
            }
        }
        let mut stream = Stream::new(dial(&target.host, target.http, PATIENCE).await?);
        patiently(stream.send(head.as_bytes())).await?;
        let Some(answered) = patiently(stream.head()).await? else {
            return seen("the end in place of an answer");
        };
        expect_ours(&answered, key, &its)?;
        answer(Habit::Get(length), key, length, true, &mut stream).await?;
        idle = Some(stream);
        sim::pass(Duration::from_millis(sim::between(0, 1_000))).await;
    }
    Ok(())
}

/// Checks that an answer is one to this request, by this client's service.
fn expect_ours(head: &Head, key: u64, target: &Target) -> Result<(), Failure> {
    if !head.first.starts_with("HTTP/1.1 200") {
        return match head.first.contains("Wrong byte") {
            true => wrong(head.first.clone()),
            false => seen(head.first.clone()),
        };
    }
    let owner = head.field("x-owner").and_then(|owner| owner.parse().ok());
    if owner.is_some() && owner == target.rival {
        return Err(Failure::Rival);
    }
    if owner != Some(target.client) {
        return wrong("an answer of another client's service");
    }
    if head.field("x-key") != Some(&key.to_string()) {
        return wrong("an answer to another request");
    }
    Ok(())
}

/// Reads the body of an answer.
async fn answer(
    habit: Habit,
    key: u64,
    length: usize,
    has_resets: bool,
    stream: &mut Stream,
) -> Result<(), Failure> {
    let mut received = 0;
    loop {
        let is_bounded = !matches!(habit, Habit::Unbounded(_));
        if is_bounded && received == length {
            return Ok(());
        }
        if matches!(habit, Habit::GivesUp(_)) && received >= length / 2 {
            stream.reset();
            return Ok(());
        }
        let most = match habit {
            Habit::SlowReader(_) => 1000,
            _ => usize::MAX,
        };
        let most = if is_bounded {
            most.min(length - received)
        } else {
            most
        };
        let piece = match patiently(stream.some(most)).await {
            // The service has reset it, too, and its bytes before that may be lost.
            Err(Failure::Seen(why)) => {
                return match habit {
                    Habit::ServiceResets(_) if why.contains("reset") => Ok(()),
                    _ => seen(format!("after {received} of {length} bytes: {why}")),
                };
            }
            piece => piece?,
        };
        if piece.is_empty() {
            if received == length {
                return Ok(());
            }
            let text = format!("a clean end after {received} of {length} bytes");
            return match habit {
                // Over GT/1 the service's reset looks like that.
                Habit::ServiceResets(_) if !has_resets => Ok(()),
                _ => hidden(text),
            };
        }
        if let Some(at) = pattern::difference(key, received, &piece) {
            return wrong(format!("byte {at} of {length}"));
        }
        received += piece.len();
        if received > length {
            return wrong(format!("{received} bytes in place of {length}"));
        }
        if let Habit::SlowReader(_) = habit {
            sim::pass(Duration::from_millis(sim::between(0, 1_000))).await;
        }
    }
}

async fn tcp(habit: Habit, key: u64, target: &Target, has_resets: bool) -> Result<(), Failure> {
    let socket = dial(&target.host, target.tcp, PATIENCE).await?;
    let mut stream = Stream::new(socket);
    let (Habit::Echo(length) | Habit::Source(length)) = habit else {
        unreachable!("the other habits are of HTTP")
    };
    let is_echo = matches!(habit, Habit::Echo(_));
    let line = match is_echo {
        true => "echo\n".to_owned(),
        false => format!("source {key} {length}\n"),
    };
    patiently(stream.send(line.as_bytes())).await?;
    match patiently(stream.line()).await? {
        Some(owner) if owner == target.client.to_string() => {}
        Some(_) => return wrong("an answer of another client's service"),
        // A service that cannot be reached looks like that, as with any forwarded port.
        None => return seen("the end in place of an answer"),
    }
    let sent = pattern::bytes(key, 0, length);
    let mut received = 0;
    let mut at = 0;
    while is_echo && at < length {
        // More than this is not sent before what comes back is read: the buffers may not take it.
        let piece = (length - at).min(1000);
        patiently(stream.send(&sent[at..at + piece])).await?;
        at += piece;
        while at < length && received < at {
            received += expect(&mut stream, key, received, at - received).await?;
        }
    }
    if is_echo {
        patiently(stream.end()).await?;
    }
    loop {
        let piece = patiently(stream.some(usize::MAX)).await?;
        if piece.is_empty() {
            break;
        }
        if let Some(at) = pattern::difference(key, received, &piece) {
            return wrong(format!("byte {at} of {length}"));
        }
        received += piece.len();
    }
    if received != length {
        return hidden(format!("a clean end after {received} of {length} bytes"));
    }
    // Over GT/1, an end ends both directions.
    if !is_echo && has_resets {
        patiently(stream.send(&sent)).await?;
        patiently(stream.end()).await?;
    }
    Ok(())
}

/// Reads at most `most` bytes, which must be those at a place of the pattern.
async fn expect(stream: &mut Stream, key: u64, at: usize, most: usize) -> Result<usize, Failure> {
    let piece = patiently(stream.some(most)).await?;
    if piece.is_empty() {
        return hidden(format!(
            "a clean end after {at} bytes of an echo that goes on"
        ));
    }
    match pattern::difference(key, at, &piece) {
        Some(at) => wrong(format!("byte {at}")),
        None => Ok(piece.len()),
    }
}
