//! The stub of `sentry` in builds without that feature: a reporter cannot be started.

use crate::config::{LogLevel, SentryConfig};
use std::fmt;
use std::time::Duration;

/// A reporter, which never exists in this build.
pub enum Reporter {}

impl Reporter {
    /// Fails: this build has no Sentry.
    pub fn start(_: &SentryConfig) -> Result<Self, &'static str> {
        Err("sentryDSN is set, but this gt was built without the feature sentry")
    }

    pub fn wants(&self, _: LogLevel) -> bool {
        match *self {}
    }

    pub fn lowest(&self) -> LogLevel {
        match *self {}
    }

    pub fn report(&self, _: LogLevel, _: &str, _: &fmt::Arguments<'_>) {
        match *self {}
    }

    pub fn flush(&self, _: Duration) {
        match *self {}
    }
}
