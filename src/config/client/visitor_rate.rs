//! How often the visitors of a service may connect. Not the count.

use std::time::Duration;

use crate::config::value::{digits, Scalar};

/// The connections that one address may open to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VisitorRate {
    /// Maximum number of connections in `period`, 1 or more.
    pub count: u32,
    /// At least a millisecond.
    pub period: Duration,
    /// How long an address is banned that has opened more; zero for no ban.
    pub ban: Duration,
}

/// A number of connections and a time, like `20/1m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionRate {
    pub count: u32,
    pub period: Duration,
}

impl Scalar for ConnectionRate {
    fn read(text: &str) -> Result<Self, String> {
        let read = || {
            let (count, period) = text.split_once('/')?;
            let count = u32::try_from(digits(count)?).ok()?;
            let period = Duration::read(period).ok()?;
            let is_sound = count > 0 && period >= Duration::from_millis(1);
            is_sound.then_some(Self { count, period })
        };
        read().ok_or_else(|| {
            format!(
                "\"{text}\" is not a rate: write it like 20/1m, for 20 connections in a minute."
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_of_connections_in_a_time() {
        let rate = |text| ConnectionRate::read(text).ok();
        let of = |count, seconds| {
            let period = Duration::from_secs(seconds);
            Some(ConnectionRate { count, period })
        };
        assert_eq!(rate("20/1m"), of(20, 60));
        assert_eq!(rate("1/1h30m"), of(1, 5400));
        for text in [
            "20",
            "20/",
            "/1m",
            "0/1m",
            "20/0",
            "20/0s",
            "20/60",
            "-1/1m",
            "20/1m/1m",
            "4294967296/1m",
        ] {
            let error = ConnectionRate::read(text).unwrap_err();
            assert!(error.contains("write it like 20/1m"), "{error}");
        }
    }
}
