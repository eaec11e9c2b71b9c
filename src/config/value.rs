//! Parsing of the text of one value, from the command line or a yaml file. Not the meaning of
//! options.

use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer};

use crate::keys::AuthorizedKey;

/// A value that is written as one text.
pub trait Scalar: Sized {
    /// Parses `text`, which is never empty. The error is a sentence that quotes the text and shows
    /// a correct one.
    fn read(text: &str) -> Result<Self, String>;
}

/// A value that was given, `None` if as an empty text (`-addr ""`).
#[derive(Clone, Debug, PartialEq)]
pub struct Value<T>(pub Option<T>);

impl<T: Scalar> FromStr for Value<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Value(None));
        }
        T::read(text).map(|value| Value(Some(value)))
    }
}

impl<'de, T: Scalar> Deserialize<'de> for Value<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor<T>(PhantomData<T>);
        impl<T: Scalar> de::Visitor<'_> for ScalarVisitor<T> {
            type Value = Value<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a single value")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(ScalarVisitor(PhantomData))
    }
}

/// Returns the value unless it was not given, or given as an empty text.
pub fn given<T>(value: Option<Value<T>>) -> Option<T> {
    value.and_then(|value| value.0)
}

/// Returns the values without those that were given as empty texts.
pub fn all<T>(values: Vec<Value<T>>) -> Vec<T> {
    values.into_iter().filter_map(|value| value.0).collect()
}

impl Scalar for String {
    fn read(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl Scalar for PathBuf {
    fn read(text: &str) -> Result<Self, String> {
        Ok(PathBuf::from(text))
    }
}

impl Scalar for AuthorizedKey {
    fn read(text: &str) -> Result<Self, String> {
        text.parse()
    }
}

impl Scalar for bool {
    fn read(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "t" | "1" | "yes" | "y" | "on" => Ok(true),
            "false" | "f" | "0" | "no" | "n" | "off" => Ok(false),
            _ => Err(format!("\"{text}\" is neither true nor false.")),
        }
    }
}

impl Scalar for u16 {
    fn read(text: &str) -> Result<Self, String> {
        whole(text, u64::from(u16::MAX))
    }
}

impl Scalar for u32 {
    fn read(text: &str) -> Result<Self, String> {
        whole(text, u64::from(u32::MAX))
    }
}

impl Scalar for u64 {
    fn read(text: &str) -> Result<Self, String> {
        // Go's limit; it also keeps sums from overflowing.
        whole(text, i64::MAX.unsigned_abs())
    }
}

fn whole<T: TryFrom<u64>>(text: &str, max: u64) -> Result<T, String> {
    digits(text)
        .filter(|number| *number <= max)
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| format!("\"{text}\" is not a whole number from 0 to {max}."))
}

/// Parses plain decimal digits. `FromStr` would accept a `+` as well.
pub fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounded<const MIN: u32, const MAX: u32>(pub u32);

impl<const MIN: u32, const MAX: u32> Scalar for Bounded<MIN, MAX> {
    fn read(text: &str) -> Result<Self, String> {
        digits(text)
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| (MIN..=MAX).contains(number))
            .map(Bounded)
            .ok_or_else(|| format!("\"{text}\" is not a whole number from {MIN} to {MAX}."))
    }
}

/// A fraction, 0.0 to 1.0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleRate(pub f64);

impl Scalar for SampleRate {
    fn read(text: &str) -> Result<Self, String> {
        text.parse()
            .ok()
            .filter(|share| (0.0..=1.0).contains(share))
            .map(SampleRate)
            .ok_or_else(|| format!("\"{text}\" is not a number from 0.0 to 1.0."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_text_is_a_value_of_none() {
        assert_eq!("".parse(), Ok(Value::<u16>(None)));
        assert_eq!("7".parse(), Ok(Value(Some(7u16))));
    }

    #[test]
    fn an_error_shows_the_range_of_a_number() {
        assert_eq!(
            u16::read("65536").unwrap_err(),
            "\"65536\" is not a whole number from 0 to 65535."
        );
        assert_eq!(
            Bounded::<1, 10>::read("11").unwrap_err(),
            "\"11\" is not a whole number from 1 to 10."
        );
        for text in ["-1", "+1", "1.0", "0x1", " 1", "99999999999999999999"] {
            assert!(u64::read(text).is_err(), "{text}");
        }
        assert!(SampleRate::read("NaN").is_err());
        assert_eq!(SampleRate::read("0.5"), Ok(SampleRate(0.5)));
    }

    #[test]
    fn a_boolean_may_be_written_in_several_ways() {
        assert_eq!(bool::read("True"), Ok(true));
        assert_eq!(bool::read("off"), Ok(false));
        assert_eq!(
            bool::read("maybe").unwrap_err(),
            "\"maybe\" is neither true nor false."
        );
    }
}
