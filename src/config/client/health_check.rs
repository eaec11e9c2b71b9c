//! How a client checks whether a service works. Not the checks.

use std::time::Duration;

use super::local::{Local, Scheme};
use super::options::ServiceOptions;
use crate::config::value::Scalar;

/// Shortest time between checks. More would be load rather than a check.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// Maximum length in bytes of a path, which has to fit in a request line.
const MAX_PATH: usize = 2000;

/// The checks of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is checked.
    pub probe: HealthProbe,
    /// Time from one check to the next, at least [`MIN_INTERVAL`].
    pub every: Duration,
    /// Time after which a check without a result has failed, more than zero.
    pub timeout: Duration,
    /// Number of failed checks in a row after which the service is down, 1 or more.
    pub fail: u32,
    /// Number of passed checks in a row after which the service is up again, 1 or more.
    pub pass: u32,
}

/// What a check does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthProbe {
    /// Opens a connection.
    Tcp,
    /// Requests this path, and expects a status of 200 to 399.
    Http(String),
}

impl Scalar for HealthProbe {
    fn read(text: &str) -> Result<Self, String> {
        if text == "tcp" {
            return Ok(Self::Tcp);
        }
        // A space, or the end of a line, would end the path.
        let is_path = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_path || text.contains('#') {
            return Err(format!(
                "\"{text}\" is not a health check: write tcp, or the path of a page that answers with a \
                 status of 200 to 399, like /health."
            ));
        }
        if text.len() > MAX_PATH {
            return Err(format!("the path is longer than {MAX_PATH} bytes."));
        }
        Ok(Self::Http(text.to_owned()))
    }
}

impl HealthCheck {
    /// Takes the checks of a service at `local` from its options; `None` if it has none. `name` is the
    /// subject of errors and warnings.
    pub fn new(
        options: &ServiceOptions,
        local: &Local,
        name: &str,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Self>, String> {
        let Some(probe) = options.health_check.clone() else {
            if let Some(option) = set_without_check(options) {
                warnings.push(format!(
                    "{name} ({local}) has no healthCheck, so its {option} is ignored"
                ));
            }
            return Ok(None);
        };
        let scheme = match local {
            Local::Tcp { scheme, .. } | Local::Unix { scheme, .. } => *scheme,
            Local::Udp { .. } => {
                return Err(format!(
                    "{name} ({local}) takes datagrams, of which gt cannot know whether they arrive: remove its \
                     healthCheck."
                ))
            }
            Local::Files(_) | Local::Proxy(_) | Local::Signaling => {
                warnings.push(format!(
                    "{name} ({local}) is served by gt itself, so its healthCheck is ignored"
                ));
                return Ok(None);
            }
        };
        if scheme == Scheme::Https && probe != HealthProbe::Tcp {
            return Err(format!(
                "{name} ({local}) speaks TLS, in which gt cannot request a page: write healthCheck: tcp."
            ));
        }
        let (every, timeout) = (options.health_check_every, options.health_check_timeout);
        if every < MIN_INTERVAL {
            return Err(format!(
                "{name} ({local}): healthCheckEvery is less than {MIN_INTERVAL:?}: write a longer time, like \
                 10s."
            ));
        }
        if timeout.is_zero() {
            return Err(format!(
                "{name} ({local}): healthCheckTimeout is 0, in which no check can pass: write a longer time, \
                 like 3s."
            ));
        }
        Ok(Some(Self {
            probe,
            every,
            timeout,
            fail: options.health_check_fail.0,
            pass: options.health_check_pass.0,
        }))
    }
}

/// Returns an option for checks that has another value than its default.
fn set_without_check(options: &ServiceOptions) -> Option<&'static str> {
    let seconds = Duration::from_secs;
    let is_set = [
        (
            options.health_check_every != seconds(10),
            "healthCheckEvery",
        ),
        (
            options.health_check_timeout != seconds(3),
            "healthCheckTimeout",
        ),
        (options.health_check_fail.0 != 3, "healthCheckFail"),
        (options.health_check_pass.0 != 1, "healthCheckPass"),
    ];
    is_set
        .into_iter()
        .find_map(|(is_set, option)| is_set.then_some(option))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_tcp_or_a_path() {
        assert_eq!(HealthProbe::read("tcp"), Ok(HealthProbe::Tcp));
        for path in ["/", "/health?full=1", "/a%20b"] {
            assert_eq!(HealthProbe::read(path), Ok(HealthProbe::Http(path.into())));
        }
        for text in [
            "",
            "http",
            "TCP",
            "health",
            "/a b",
            "/a\r\nHost: b",
            "/#a",
            "/é",
        ] {
            let error = HealthProbe::read(text).unwrap_err();
            assert!(error.contains("write tcp, or the path"), "{error}");
        }
        assert!(HealthProbe::read(&"/".repeat(MAX_PATH)).is_ok());
        let error = HealthProbe::read(&"/".repeat(MAX_PATH + 1)).unwrap_err();
        assert!(error.contains("longer than 2000"), "{error}");
    }
}
