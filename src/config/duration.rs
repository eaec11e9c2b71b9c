//! Durations in Go's notation: `90s`, `1m30s`, `1234m1234ms`, `1.5h`, a bare `0`. Not a clock.

use std::time::Duration;

use super::value::{digits, Scalar};

/// Longest duration in nanoseconds, as in Go. A clock can add it without overflow.
const MAX_NANOS: u128 = i64::MAX.unsigned_abs() as u128;

impl Scalar for Duration {
    fn read(text: &str) -> Result<Self, String> {
        if digits(text) == Some(0) {
            return Ok(Duration::ZERO);
        }
        if digits(text).is_some() {
            return Err(format!(
                "\"{text}\" has no unit: write {text}s for seconds, {text}ms, {text}m or {text}h."
            ));
        }
        let nanos = nanos(text).ok_or_else(|| {
            format!("\"{text}\" is not a duration: write it like 90s, 1m30s, 300ms or 1.5h.")
        })?;
        if nanos > MAX_NANOS {
            return Err(format!(
                "\"{text}\" is too long: a duration ends at 2562047h."
            ));
        }
        let seconds = u64::try_from(nanos / 1_000_000_000).unwrap_or(u64::MAX);
        let rest = u32::try_from(nanos % 1_000_000_000).unwrap_or(0);
        Ok(Duration::new(seconds, rest))
    }
}

/// Returns the sum of all pairs of number and unit in nanoseconds. Saturates, so that the caller
/// can report a duration that is too long.
fn nanos(text: &str) -> Option<u128> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut sum: u128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (whole, after) = leading_digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => leading_digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit = unit_nanos(unit)?;
        let whole = whole.bytes().fold(0u128, |sum, digit| {
            sum.saturating_mul(10)
                .saturating_add(u128::from(digit - b'0'))
        });
        sum = sum.saturating_add(whole.saturating_mul(unit));
        let mut scale = unit;
        for digit in fraction.bytes() {
            // Fractions of a nanosecond are dropped. Every unit is a power of ten times 1, 60 or
            // 3600, so the divisions before that are exact.
            sum = sum.saturating_add(u128::from(digit - b'0').saturating_mul(scale) / 10);
            scale /= 10;
        }
        rest = after;
    }
    Some(sum)
}

fn leading_digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

fn unit_nanos(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        // The micro sign and the Greek letter look the same and are both in use.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Duration {
        Duration::read(text).unwrap()
    }

    #[test]
    fn go_durations_are_read() {
        assert_eq!(read("90s"), Duration::from_secs(90));
        assert_eq!(read("1m30s"), Duration::from_secs(90));
        assert_eq!(
            read("1234m1234ms"),
            Duration::from_millis(1234 * 60_000 + 1234)
        );
        assert_eq!(read("300ms"), Duration::from_millis(300));
        assert_eq!(read("1.5h"), Duration::from_secs(5400));
        assert_eq!(read(".5s"), Duration::from_millis(500));
        assert_eq!(read("5m0s"), Duration::from_secs(300));
        assert_eq!(read("10us"), Duration::from_micros(10));
        assert_eq!(read("10\u{b5}s1ns"), Duration::from_nanos(10_001));
        assert_eq!(read("0.125h"), Duration::from_secs(450));
        assert_eq!(read("0"), Duration::ZERO);
        assert_eq!(read("0s"), Duration::ZERO);
    }

    #[test]
    fn a_duration_without_a_unit_is_an_error() {
        assert_eq!(
            Duration::read("90").unwrap_err(),
            "\"90\" has no unit: write 90s for seconds, 90ms, 90m or 90h."
        );
    }

    #[test]
    fn a_malformed_duration_is_an_error() {
        for text in [
            "s", "1x", "-5s", "1m 30s", ".s", "1m30", "+", "1.5.5s", "1S",
        ] {
            assert!(
                Duration::read(text)
                    .unwrap_err()
                    .contains("is not a duration"),
                "{text}"
            );
        }
        let long = "9".repeat(60) + "h";
        assert!(Duration::read(&long).unwrap_err().contains("too long"));
        assert!(Duration::read("2562048h").unwrap_err().contains("too long"));
    }
}
