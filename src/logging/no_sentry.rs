//! Stands where Sentry does in a build without it: says so, and reports nothing.

use crate::config::{LogLevel, SentryConfig};
use std::fmt;
use std::time::Duration;

/// There is never one.
pub enum Reporter {}

impl Reporter {
    /// The error says that there is no Sentry here.
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
