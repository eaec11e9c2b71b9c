//! Whether a local service works: its checks (`healthCheck`), and the state that they lead to. Not how
//! servers learn of it: see `pooled_tunnel`.

use super::local_address::LocalAddress;
use crate::config::{HealthCheck, HealthProbe, ServiceConfig};
use crate::net::{clock, random, timeout, Shutdown, Timer};
use crate::sync::Mutex;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time in which the first checks of a client's services begin, so that they do not begin all at once.
const FIRST_CHECKS: Duration = Duration::from_secs(1);
/// The statuses of a service that works.
const PASSING: RangeInclusive<u16> = 200..=399;
/// Number of bytes of a response up to the one behind its status: `HTTP/1.1 200 `.
const STATUS_LENGTH: usize = 13;

/// What checks have found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthState {
    /// The service works. The number of failed checks since the last one that has passed.
    Up(u32),
    /// The service is down. The number of passed checks since the last one that has failed.
    Down(u32),
}

impl HealthState {
    /// The state before the first check, which decides by itself.
    fn first(rules: &HealthCheck) -> Self {
        Self::Up(rules.fail.saturating_sub(1))
    }

    /// Returns the state after a further check.
    fn after(self, passed: bool, rules: &HealthCheck) -> Self {
        match (self, passed) {
            (Self::Up(_), true) => Self::Up(0),
            (Self::Up(failures), false) => match failures.saturating_add(1) {
                enough if enough >= rules.fail => Self::Down(0),
                failures => Self::Up(failures),
            },
            (Self::Down(_), false) => Self::Down(0),
            (Self::Down(passes), true) => match passes.saturating_add(1) {
                enough if enough >= rules.pass => Self::Up(0),
                passes => Self::Down(passes),
            },
        }
    }

    fn is_down(self) -> bool {
        matches!(self, Self::Down(_))
    }
}

/// The health of one service.
pub struct ServiceHealth {
    /// The service as the user knows it.
    name: String,
    rules: HealthCheck,
    target: LocalAddress,
    /// What is sent to the service first.
    request: Vec<u8>,
    state: Mutex<HealthState>,
    /// Triggered when the service has been replaced.
    ended: Shutdown,
}

impl ServiceHealth {
    /// Creates the health of a service that is to be checked; `None` for others.
    pub fn of(service: &ServiceConfig, target: &LocalAddress) -> Option<Arc<Self>> {
        let rules = service.health_check.clone()?;
        let mut request = Vec::new();
        if let HealthProbe::Http(path) = &rules.probe {
            if let Some(version) = service.proxy_protocol {
                request = version.encode(None);
            }
            let (host, version) = (target.name(), env!("CARGO_PKG_VERSION"));
            request.extend_from_slice(
                format!(
                    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: gt/{version} (healthCheck)\r\n\
                     Accept: */*\r\nConnection: close\r\n\r\n"
                )
                .as_bytes(),
            );
        }
        Some(Arc::new(Self {
            name: service.local.to_string(),
            state: Mutex::new(HealthState::first(&rules)),
            rules,
            target: target.clone(),
            request,
            ended: Shutdown::default(),
        }))
    }

    /// Whether the service is down.
    pub fn is_down(&self) -> bool {
        self.state.lock().is_down()
    }

    /// Whether the other one is about the same checks of the same service.
    pub fn is_like(&self, other: &Self) -> bool {
        (&self.target, &self.rules, &self.request) == (&other.target, &other.rules, &other.request)
    }

    /// Takes the state of the one that it replaces.
    pub fn resume(&self, before: &Self) {
        let state = *before.state.lock();
        *self.state.lock() = state;
    }

    /// Ends the checks.
    pub fn end(&self) {
        self.ended.trigger();
    }

    /// Checks the service once.
    async fn check(&self) -> io::Result<()> {
        let patience = self.rules.timeout;
        let late = || {
            let why = format!("no answer within {patience:?}");
            io::Error::new(io::ErrorKind::TimedOut, why)
        };
        let checked = timeout(patience, self.probe()).await;
        checked.unwrap_or_else(|| Err(late()))
    }

    async fn probe(&self) -> io::Result<()> {
        let conn = self.target.connect(self.rules.timeout).await?;
        if self.rules.probe == HealthProbe::Tcp {
            return Ok(());
        }
        conn.write_all(&self.request).await?;
        let mut bytes = [0; STATUS_LENGTH];
        let mut length = 0;
        loop {
            let n = conn
                .read(bytes.get_mut(length..).unwrap_or_default())
                .await?;
            length = length.saturating_add(n);
            match status(bytes.get(..length).unwrap_or_default()) {
                Ok(Some(status)) if PASSING.contains(&status) => return Ok(()),
                Ok(Some(status)) => {
                    return Err(io::Error::other(format!(
                        "it answered with status {status}"
                    )))
                }
                Ok(None) if n > 0 => {}
                Ok(None) => {
                    return Err(io::Error::other(
                        "it closed the connection without an answer",
                    ))
                }
                Err(NotHttp) => return Err(io::Error::other("its answer is not HTTP/1")),
            }
        }
    }

    /// Notes the result of a check. Returns whether servers have to be told.
    fn note(&self, checked: &io::Result<()>) -> bool {
        let (before, after) = {
            let mut state = self.state.lock();
            let before = *state;
            *state = before.after(checked.is_ok(), &self.rules);
            (before, *state)
        };
        let name = &self.name;
        match (before.is_down(), after.is_down(), checked) {
            (false, true, Err(why)) => log::warn!(
                "service {name} is down: its health check fails: {why}; its visitors are refused until it \
                 passes"
            ),
            (true, false, _) => log::info!("service {name} is up again"),
            (_, _, Err(why)) => log::debug!("the health check of service {name} fails: {why}"),
            (_, _, Ok(())) => {}
        }
        // A server that has been told before may have lost it, for example in a restart.
        after.is_down() || before.is_down()
    }
}

/// The checks of a service, one after the other.
pub struct HealthWatch {
    health: Arc<ServiceHealth>,
    /// When the next check begins.
    due: Instant,
}

impl HealthWatch {
    /// Begins to check a service.
    pub fn new(health: Arc<ServiceHealth>) -> Self {
        let most = FIRST_CHECKS.min(health.rules.every);
        let pause = (most / 256).saturating_mul(random() % 256);
        let due = clock::now() + pause;
        Self { health, due }
    }

    /// Checks the service until servers have to be told of its state. `None` if the service has been
    /// replaced.
    pub async fn next(&mut self) -> Option<()> {
        let health = &self.health;
        loop {
            health.ended.or(Timer::at(self.due)).await?;
            let begun = clock::now();
            let checked = health.ended.or(health.check()).await?;
            self.due = begun + health.rules.every;
            if health.note(&checked) {
                return Some(());
            }
        }
    }
}

/// The beginning of an answer that is not one of HTTP/1.
#[derive(Debug, PartialEq, Eq)]
pub struct NotHttp;

/// Returns the status of a response of HTTP/1 that begins with `bytes`; `None` if bytes are missing.
pub fn status(bytes: &[u8]) -> Result<Option<u16>, NotHttp> {
    const START: &[u8] = b"HTTP/1.";
    let same = START.iter().zip(bytes).all(|(wanted, byte)| wanted == byte);
    match bytes.get(START.len()..STATUS_LENGTH) {
        _ if !same => Err(NotHttp),
        Some([b'0'..=b'9', b' ', digits @ .., b' ' | b'\r' | b'\n'])
            if digits.iter().all(u8::is_ascii_digit) =>
        {
            let number = |sum, digit: &u8| sum * 10 + u16::from(digit - b'0');
            // Three digits.
            Ok(Some(digits.iter().fold(0, number)))
        }
        Some(_) => Err(NotHttp),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(fail: u32, pass: u32) -> HealthCheck {
        HealthCheck {
            probe: HealthProbe::Tcp,
            every: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            fail,
            pass,
        }
    }

    /// Returns the states after each check, `+` for one that passes, as `u` and `d`.
    fn course(fail: u32, pass: u32, checks: &str) -> String {
        let rules = rules(fail, pass);
        let mut state = HealthState::first(&rules);
        let letters = checks.chars().map(|check| {
            state = state.after(check == '+', &rules);
            if state.is_down() {
                'd'
            } else {
                'u'
            }
        });
        letters.collect()
    }

    #[test]
    fn a_service_is_down_after_failures_in_a_row_and_up_after_passes_in_a_row() {
        assert_eq!(course(3, 1, "+--+---"), "uuuuuud");
        assert_eq!(course(3, 1, "+---+--+"), "uuuduuuu");
        assert_eq!(course(1, 3, "+-++-+++-"), "uddddddud");
        assert_eq!(course(1, 1, "+-+-"), "udud");
    }

    #[test]
    fn the_first_check_of_all_decides_by_itself() {
        assert_eq!(course(3, 1, "-+--"), "duuu");
        assert_eq!(course(100, 2, "-++--"), "dduuu");
    }

    #[test]
    fn a_status_is_read_from_the_first_line_alone() {
        type Found = Result<Option<u16>, NotHttp>;
        let cases: [(&[u8], Found); 9] = [
            (b"HTTP/1.1 200 OK\r\n", Ok(Some(200))),
            (b"HTTP/1.0 404\r\n", Ok(Some(404))),
            (b"HTTP/1.1 503\n", Ok(Some(503))),
            (b"HTTP/1.1 20", Ok(None)),
            (b"", Ok(None)),
            (b"HTTP/2 200 OK", Err(NotHttp)),
            (b"SSH-2.0-x", Err(NotHttp)),
            (b"HTTP/1.1 2000 ", Err(NotHttp)),
            (b"HTTP/1.1  200 ", Err(NotHttp)),
        ];
        for (bytes, expected) in cases {
            assert_eq!(status(bytes), expected, "{bytes:?}");
        }
    }
}
