//! The log of visitors (`accessLog`): one line at the end of each connection. Lines wait in a bounded
//! queue for a thread of the blocking pool, so that a slow disk delays no visitor; what does not fit is
//! counted and lost.

use super::file::LogFile;
use super::first_request::FirstRequest;
use super::{LoggingError, OneLine};
use crate::config::{AccessLogConfig, AccessLogTarget};
use crate::net::{self, clock};
use crate::sync::{Mutex, MutexGuard};
use crate::tunnel::{CloseReason, StreamRecord, StreamTotals};
use crate::wire::frame::ResetCode;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;
use time::OffsetDateTime;

/// Maximum number of lines that wait.
const MAX_LINES: usize = 1024;

/// The log targets of all roles, so that a file is opened once.
static FILES: Mutex<Vec<(PathBuf, Weak<LineQueue>)>> = Mutex::new(Vec::new());

/// A log of visitors. Clones share the file.
#[derive(Clone)]
pub struct AccessLog(Target);

#[derive(Clone)]
enum Target {
    /// The lines go to the log.
    Log,
    File(Arc<LineQueue>),
}

struct LineQueue {
    state: Mutex<QueueState>,
    /// Held by the thread that writes.
    file: Mutex<LogFile>,
}

#[derive(Default)]
struct QueueState {
    lines: String,
    count: usize,
    /// Number of lines that were lost since the last line.
    lost: usize,
    is_writing: bool,
    /// The file for the next lines, if it was opened again.
    next: Option<LogFile>,
}

impl AccessLog {
    /// Opens the log, or opens its file again if another role or an earlier configuration has it: it may
    /// have been renamed. The error names the file.
    pub fn open(config: &AccessLogConfig) -> Result<Self, LoggingError> {
        let path = match &config.target {
            AccessLogTarget::Log => return Ok(Self(Target::Log)),
            AccessLogTarget::File(path) => path,
        };
        let file = LogFile::open(path, &config.rotation).map_err(|e| {
            LoggingError(format!(
                "The access log {} cannot be opened: {e}.",
                path.display()
            ))
        });
        let mut files = FILES.lock();
        files.retain(|(_, queue)| queue.strong_count() > 0);
        let known = files.iter().find(|(known, _)| known == path);
        if let Some(queue) = known.and_then(|(_, queue)| queue.upgrade()) {
            match file {
                // The thread that writes may hold the file, on a disk that hangs.
                Ok(file) => queue.lock().next = Some(file),
                Err(e) => log::error!("{e} It continues in the previous file."),
            }
            return Ok(Self(Target::File(queue)));
        }
        let file = file?;
        let queue = Arc::new(LineQueue {
            state: Mutex::default(),
            file: Mutex::new(file),
        });
        files.push((path.clone(), Arc::downgrade(&queue)));
        Ok(Self(Target::File(queue)))
    }

    /// Begins to record the visit of a visitor. Its line is written when the value is dropped.
    pub fn visit(&self, id: Option<&str>, service: String, way: Way) -> Visit {
        let mut visit = Visit::unlogged(id, service, way);
        visit.log = Some(self.clone());
        visit
    }

    fn write(&self, line: &str) {
        match &self.0 {
            Target::Log => log::info!("visit {line}"),
            Target::File(queue) => LineQueue::write(queue, line),
        }
    }
}

impl LineQueue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock()
    }

    fn write(queue: &Arc<Self>, line: &str) {
        let mut state = queue.lock();
        if state.count >= MAX_LINES {
            state.lost = state.lost.saturating_add(1);
            return;
        }
        state.count = state.count.saturating_add(1);
        // Writing to a `String` cannot fail.
        let _ = writeln!(state.lines, "{} {line}", now());
        if std::mem::replace(&mut state.is_writing, true) {
            return;
        }
        drop(state);
        let queue = queue.clone();
        net::spawn(net::blocking(move || queue.drain()));
    }

    /// Writes lines until none is left.
    fn drain(&self) {
        loop {
            let mut state = self.lock();
            if state.count == 0 {
                state.is_writing = false;
                return;
            }
            let count = std::mem::take(&mut state.count);
            let mut lines = std::mem::take(&mut state.lines);
            let lost = std::mem::take(&mut state.lost);
            let next = state.next.take();
            drop(state);
            if lost > 0 {
                let _ = writeln!(lines, "{} lost={lost}", now());
            }
            let mut file = self.file.lock();
            if let Some(next) = next {
                *file = next;
            }
            let rotated = file.rotate_if_full(lines.len());
            let written = file.write_line(lines.as_bytes());
            drop(file);
            if let Err(e) = rotated.and(written) {
                // Its lines are gone; the next ones may fit again.
                log::debug!("the access log: {e}");
                let mut state = self.lock();
                state.lost = state.lost.saturating_add(lost.saturating_add(count));
            }
        }
    }
}

/// Returns the time of day as in RFC 3339.
fn now() -> String {
    let time = OffsetDateTime::from(clock::time_of_day());
    // `time`'s own formatting into a text is 17 KB more.
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// The way in which a visitor reaches a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// HTTP, also over TLS that the server decrypts.
    Http,
    /// TLS that passes unchanged.
    Tls,
    /// A TCP port of the server.
    Tcp,
    /// A UDP port of the server.
    Udp,
    /// A peer-to-peer connection.
    P2p,
}

impl Way {
    /// Returns the word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::P2p => "p2p",
        }
    }
}

/// A connection of a visitor that is logged at its end: when this is dropped.
pub struct Visit {
    /// `None` if somebody else logs it.
    log: Option<AccessLog>,
    /// Whether this end is the server, where the visitor is.
    is_server: bool,
    begun: Instant,
    id: Option<Box<str>>,
    service: String,
    way: Way,
    /// `None` if it is unknown.
    visitor: Option<SocketAddr>,
    stream: Arc<StreamRecord>,
    request: OnceLock<Arc<FirstRequest>>,
    /// How it has ended, if not as its stream has.
    end: Option<&'static str>,
}

impl Visit {
    /// Begins to record a visit of which there is no line.
    pub fn unlogged(id: Option<&str>, service: String, way: Way) -> Self {
        Self {
            log: None,
            is_server: false,
            begun: clock::now(),
            id: id.map(Into::into),
            service,
            way,
            visitor: None,
            stream: Arc::default(),
            request: OnceLock::new(),
            end: None,
        }
    }

    /// Returns the client's id, the service, the way and the visitor.
    #[cfg(all(feature = "server", feature = "web"))]
    pub fn parts(&self) -> (Option<&str>, &str, Way, Option<SocketAddr>) {
        (self.id.as_deref(), &self.service, self.way, self.visitor)
    }

    /// Sets the visitor's address.
    pub fn from(mut self, visitor: Option<SocketAddr>) -> Self {
        self.visitor = visitor;
        self
    }

    /// Says that this end is the server.
    #[cfg(feature = "server")]
    pub fn of_server(mut self) -> Self {
        self.is_server = true;
        self
    }

    /// Leaves the visit to somebody else, who has the visitor from now on.
    #[cfg(feature = "server")]
    pub fn leave(mut self) {
        self.log = None;
    }

    /// Returns the record for the visitor's stream.
    pub fn stream(&self) -> Arc<StreamRecord> {
        self.stream.clone()
    }

    /// Returns the record for the visitor's first request.
    #[cfg(feature = "client")]
    pub fn first_request(&self) -> Arc<FirstRequest> {
        self.request.get_or_init(Arc::default).clone()
    }

    /// Sets how the visit has ended.
    pub fn end(&mut self, how: &'static str) {
        self.end = Some(how);
    }

    /// Returns the line, without the time.
    fn line(&self) -> String {
        let mut line = String::new();
        // Writing to a `String` cannot fail.
        let _ = match &self.id {
            Some(id) => write!(line, "id={}", Quoted(id)),
            None => write!(line, "id=-"),
        };
        let _ = write!(line, " service={}", Quoted(&self.service));
        let _ = match self.visitor {
            Some(visitor) => {
                let addr = visitor.ip().to_canonical();
                write!(line, " visitor={addr} port={}", visitor.port())
            }
            None => write!(line, " visitor=- port=-"),
        };
        let _ = write!(line, " way={}", self.way.name());
        if let Some(request) = self.request.get() {
            let (request, status) = request.told();
            let _ = write!(line, " request={}", Quoted(&request));
            let _ = match status {
                Some(status) => write!(line, " status={status}"),
                None => write!(line, " status=-"),
            };
        }
        let totals = self.stream.totals();
        let took = clock::since(self.begun);
        let end = self.end.unwrap_or_else(|| how(&totals));
        let (from_visitor, to_visitor) = match self.is_server {
            true => (totals.sent, totals.received),
            false => (totals.received, totals.sent),
        };
        let seconds = took.as_secs_f64();
        let _ = write!(
            line,
            " in={from_visitor} out={to_visitor} seconds={seconds:.3} end={end}"
        );
        line
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(log) = &self.log {
            log.write(&self.line());
        }
    }
}

/// Returns a word for how a stream has ended.
fn how(totals: &StreamTotals) -> &'static str {
    let of_reset = |code| match code {
        ResetCode::Unreachable => "unreachable",
        ResetCode::TimedOut => "timeout",
        ResetCode::NotAllowed => "denied",
        ResetCode::UnknownService => "unknown-service",
        ResetCode::TooManyStreams | ResetCode::Overloaded => "overloaded",
        ResetCode::Aborted | ResetCode::Other(_) => "reset",
    };
    match (totals.failure, totals.ended) {
        (Some(code), _) => of_reset(code),
        (None, Some(CloseReason::Reset(code))) => of_reset(code),
        (None, Some(CloseReason::TimedOut)) => "timeout",
        (None, Some(CloseReason::Stuck)) => "overloaded",
        (None, Some(CloseReason::Lost | CloseReason::Outdated)) => "lost",
        (None, Some(CloseReason::Refused)) => "reset",
        (None, Some(CloseReason::Finished | CloseReason::Closed) | None) => "closed",
    }
}

/// A word, in quotes if it has blanks or quotes. Control characters are escaped.
struct Quoted<'a>(&'a str);

impl std::fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let is_plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
        if !self.0.is_empty() && self.0.bytes().all(is_plain) {
            return f.write_str(self.0);
        }
        let escaped = self.0.replace('\\', "\\\\").replace('"', "\\\"");
        write!(f, "\"{}\"", OneLine(&format_args!("{escaped}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LoggingConfig;
    use std::fs;
    use std::time::Duration;

    fn open(path: &std::path::Path) -> AccessLog {
        let config = AccessLogConfig {
            target: AccessLogTarget::File(path.to_owned()),
            rotation: LoggingConfig::default(),
        };
        AccessLog::open(&config).unwrap()
    }

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("gt-visits-{name}-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        path
    }

    /// Waits until the queue is empty, and returns the file.
    fn written(log: &AccessLog, path: &std::path::Path) -> String {
        let Target::File(queue) = &log.0 else {
            panic!("a file")
        };
        while queue.lock().is_writing {
            std::thread::sleep(Duration::from_millis(1));
        }
        let text = fs::read_to_string(path).unwrap();
        fs::remove_file(path).unwrap();
        text
    }

    #[test]
    fn a_disk_that_hangs_delays_no_visitor_and_what_does_not_fit_is_counted() {
        const VISITS: usize = 5000;
        let path = scratch("hanging");
        let log = open(&path);
        let Target::File(queue) = &log.0 else {
            panic!("a file")
        };
        let hanging = queue.file.lock();
        for _ in 0..VISITS {
            drop(log.visit(Some("id1"), "web".to_owned(), Way::Http));
        }
        assert!(queue.lock().count <= MAX_LINES);
        drop(hanging);
        let text = written(&log, &path);
        let lost = text.lines().filter_map(|line| line.split_once(" lost="));
        let lost: usize = lost.map(|(_, lost)| lost.parse::<usize>().unwrap()).sum();
        let visits = text
            .lines()
            .filter(|line| line.contains(" id=id1 "))
            .count();
        // What has been lost since the last line was written is told with the next one.
        let untold = queue.lock().lost;
        assert!(visits <= 2 * MAX_LINES && lost + untold > 0, "{visits}");
        assert_eq!(visits + lost + untold, VISITS);
    }

    #[test]
    fn what_visitors_choose_cannot_look_like_the_rest_of_a_line() {
        let path = scratch("quoted");
        let log = open(&path);
        let visit = log.visit(None, "a b".to_owned(), Way::Tls);
        let first = FirstRequest::default();
        first.request(b"GET", b"/\" status=200\n\x1b[0m\\");
        first.request(b"GET", b"/second");
        first.status(404);
        first.status(200);
        visit.request.set(Arc::new(first)).unwrap();
        drop(visit.from("[::ffff:192.0.2.1]:5".parse().ok()));
        let text = written(&log, &path);
        let (_, line) = text.split_once(' ').unwrap();
        let begin = concat!(
            r#"id=- service="a b" visitor=192.0.2.1 port=5 way=tls "#,
            r#"request="GET /\" status=200\n\u{1b}[0m\\" status=404 in=0 out=0 seconds=0."#
        );
        assert!(line.starts_with(begin), "{line}");
        assert!(line.ends_with(" end=closed\n"), "{line}");
        assert_eq!(text.lines().count(), 1);
    }
}
