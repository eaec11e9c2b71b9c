//! What a client may have: ports, speed, tunnels, prefixes. Not the enforcing of it.

use std::fmt;

use regex_lite::Regex;
use serde::de::{Deserialize, Deserializer, Error};

use crate::config::value::{all, digits, given, Scalar, Value};

/// A client's limits, complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// The ports it may open; none at all means that TCP forwarding is off.
    pub tcp: Vec<TcpRule>,
    /// How many ports it may have open over all rules together; 0 means no such limit. Set where
    /// one `tcpNumber` was given for several ranges.
    pub tcp_total: u32,
    /// Bytes a second, each direction on its own; 0 means no limit.
    pub speed: u64,
    /// Tunnels; 0 means no limit.
    pub connections: u32,
    /// Its host prefixes.
    pub hosts: HostRules,
}

#[cfg(test)]
impl Limits {
    /// One prefix of any name, and no other limits or ports.
    pub fn of_one_prefix() -> Self {
        Self {
            tcp: Vec::new(),
            tcp_total: 0,
            speed: 0,
            connections: 0,
            hosts: HostRules {
                number: 1,
                regex: Vec::new(),
                with_id: false,
            },
        }
    }
}

/// At most `number` ports out of `range` at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpRule {
    /// 0 means no limit.
    pub number: u32,
    /// Where the ports are.
    pub range: PortRange,
}

/// Ports from `first` to `last`, both included; never 0, never backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

impl PortRange {
    /// Whether a port is one of these.
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Whether the two have a port in common.
    pub fn overlaps(&self, other: PortRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Which host prefixes a client may have.
#[derive(Clone, Debug)]
pub struct HostRules {
    /// How many; 0 means no limit.
    pub number: u32,
    /// A prefix must match one of these, if there are any.
    pub regex: Vec<Regex>,
    /// Whether a prefix becomes `id-prefix`.
    pub with_id: bool,
}

impl PartialEq for HostRules {
    fn eq(&self, other: &Self) -> bool {
        let same_regex = self
            .regex
            .iter()
            .map(Regex::as_str)
            .eq(other.regex.iter().map(Regex::as_str));
        same_regex && (self.number, self.with_id) == (other.number, other.with_id)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortRange { first, last } if first == last => first.fmt(f),
            PortRange { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

impl Scalar for PortRange {
    fn read(text: &str) -> Result<Self, String> {
        let port = |text: &str| {
            u16::try_from(digits(text.trim())?)
                .ok()
                .filter(|port| *port != 0)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        port(first)
            .zip(port(last))
            .filter(|(first, last)| first <= last)
            .map(|(first, last)| PortRange { first, last })
            .ok_or_else(|| {
                format!(
                    "\"{text}\" is not a range of ports: write it like 1024-65535, or 2222 \
                     for one port."
                )
            })
    }
}

/// A regular expression that compiles.
#[derive(Clone, Debug)]
pub struct Pattern(pub Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Scalar for Pattern {
    fn read(text: &str) -> Result<Self, String> {
        let wrong = |error| format!("\"{text}\" is not a regular expression: {error}.");
        Regex::new(text).map(Pattern).map_err(wrong)
    }
}

/// One entry of a `tcp:` list, or one pair of `-tcpNumber` and `-tcpRange`.
#[derive(serde::Deserialize, Clone, Debug)]
pub struct TcpEntry {
    number: Option<Value<u32>>,
    #[serde(deserialize_with = "range")]
    range: PortRange,
}

/// An empty range would otherwise be one that was not given.
fn range<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PortRange, D::Error> {
    let Value(range) = Value::deserialize(deserializer)?;
    range.ok_or_else(|| D::Error::custom("the range is empty: write it like 1024-65535."))
}

impl TcpEntry {
    /// The list of `-tcpRange` and the number for all of it together. The i-th number goes with the
    /// i-th range, one number beside several ranges is the number of ports out of all of them, and
    /// no number at all means no limit.
    pub fn pair(
        numbers: Vec<u32>,
        ranges: Vec<PortRange>,
    ) -> Result<(Vec<Self>, Option<u32>), String> {
        let together = match numbers.as_slice() {
            [number] if ranges.len() > 1 => Some(*number),
            [] => Some(0),
            _ if numbers.len() == ranges.len() => None,
            _ => {
                return Err(format!(
                    "There are {} tcpNumber and {} tcpRange: give one tcpNumber for all ranges \
                     together, or one for each of them, in their order.",
                    numbers.len(),
                    ranges.len()
                ))
            }
        };
        let mut numbers = numbers.into_iter();
        let entry = |range| TcpEntry {
            number: match together {
                Some(_) => None,
                None => numbers.next().map(|number| Value(Some(number))),
            },
            range,
        };
        Ok((ranges.into_iter().map(entry).collect(), together))
    }
}

/// A `host:` section.
#[derive(serde::Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct HostEntry {
    pub number: Option<Value<u32>>,
    pub regex: Option<Vec<Value<Pattern>>>,
    #[serde(rename = "withID")]
    pub with_id: Option<Value<bool>>,
}

impl HostEntry {
    /// Adds that of a source of lower priority.
    pub fn or(self, lower: Self) -> Self {
        HostEntry {
            number: self.number.or(lower.number),
            regex: self.regex.or(lower.regex),
            with_id: self.with_id.or(lower.with_id),
        }
    }
}

/// The limits that one source gives a user.
#[derive(Clone, Debug, Default)]
pub struct PartLimits {
    pub tcp: Option<Vec<TcpEntry>>,
    /// For entries of `tcp` without a number.
    pub tcp_number: Option<u32>,
    pub speed: Option<u64>,
    pub connections: Option<u32>,
    pub host: HostEntry,
}

/// The limits of clients that are not users, and of users without their own.
pub struct GlobalLimits {
    pub tcp: Option<Vec<TcpEntry>>,
    /// For entries of `tcp` without a number.
    pub tcp_number: Option<u32>,
    pub speed: u64,
    pub connections: u32,
    pub hosts: HostRules,
}

/// The ranges of a list.
pub fn ranges(list: &Option<Vec<TcpEntry>>) -> impl Iterator<Item = PortRange> + '_ {
    list.iter().flatten().map(|entry| entry.range)
}

impl PartLimits {
    /// Adds those of a source of lower priority.
    pub fn or(self, lower: Self) -> Self {
        PartLimits {
            tcp: self.tcp.or(lower.tcp),
            tcp_number: self.tcp_number.or(lower.tcp_number),
            speed: self.speed.or(lower.speed),
            connections: self.connections.or(lower.connections),
            host: self.host.or(lower.host),
        }
    }

    /// Adds the global limits.
    pub fn complete(self, global: &GlobalLimits) -> Limits {
        let entries = self.tcp.or_else(|| global.tcp.clone()).unwrap_or_default();
        let shared = entries.len() > 1 && entries.iter().all(|entry| entry.number.is_none());
        let number = self.tcp_number.or(global.tcp_number).unwrap_or(0);
        let rule = |entry: TcpEntry| TcpRule {
            number: given(entry.number).unwrap_or(number),
            range: entry.range,
        };
        Limits {
            tcp: entries.into_iter().map(rule).collect(),
            tcp_total: if shared { number } else { 0 },
            speed: self.speed.unwrap_or(global.speed),
            connections: self.connections.unwrap_or(global.connections),
            hosts: HostRules {
                number: given(self.host.number).unwrap_or(global.hosts.number),
                regex: match self.host.regex {
                    Some(list) => all(list).into_iter().map(|regex| regex.0).collect(),
                    None => global.hosts.regex.clone(),
                },
                with_id: given(self.host.with_id).unwrap_or(global.hosts.with_id),
            },
        }
    }
}
