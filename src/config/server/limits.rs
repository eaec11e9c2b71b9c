//! Limits of a client: ports, speed, tunnels, host prefixes. Not their enforcement.

use regex_lite::Regex;
use serde::de::{Deserialize, Deserializer, Error};

use crate::config::value::{all, given, Scalar, Value};
use crate::config::{AddressRules, Domain, PortRange};

/// The complete limits of a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// The TCP ports that the client may open.
    pub tcp: PortLimits,
    /// The UDP ports that the client may open.
    pub udp: PortLimits,
    /// The addresses that tunnels may come from.
    pub from: AddressRules,
    /// Bytes per second, in each direction; 0 for no limit.
    pub speed: u64,
    /// Maximum number of tunnels; 0 for no limit.
    pub connections: u32,
    /// Rules for host prefixes.
    pub hosts: HostRules,
    /// Domains that the client may have; none without an entry.
    pub domains: Vec<Domain>,
}

#[cfg(test)]
impl Limits {
    /// Limits of a client with one host prefix, no ports, and no other limits.
    pub fn of_one_prefix() -> Self {
        Self {
            tcp: PortLimits::default(),
            udp: PortLimits::default(),
            from: AddressRules::default(),
            speed: 0,
            connections: 0,
            hosts: HostRules {
                number: 1,
                regex: Vec::new(),
                with_id: false,
            },
            domains: Vec::new(),
        }
    }

    /// The same with up to `number` ports of each protocol from `first` to `last`; 0 for any number.
    pub fn of_ports(number: u32, first: u16, last: u16) -> Self {
        let range = PortRange { first, last };
        let ports = PortLimits {
            rules: vec![PortRule { number, range }],
            total: 0,
        };
        Self {
            tcp: ports.clone(),
            udp: ports,
            ..Self::of_one_prefix()
        }
    }
}

/// The ports of one protocol that a client may open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortLimits {
    /// Ports that the client may open; without a rule it may open none.
    pub rules: Vec<PortRule>,
    /// Maximum number of ports of all rules together; 0 for no limit. Set if one `tcpNumber` or
    /// `udpNumber` was given for several ranges.
    pub total: u32,
}

/// A rule that permits a client to open up to `number` ports of `range`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRule {
    /// Maximum number of ports; 0 for no limit.
    pub number: u32,
    /// Ports that the client may open.
    pub range: PortRange,
}

/// Rules for the host prefixes of a client.
#[derive(Clone, Debug)]
pub struct HostRules {
    /// Maximum number of prefixes; 0 for no limit.
    pub number: u32,
    /// Regular expressions; a prefix must match one of them, if there are any.
    pub regex: Vec<Regex>,
    /// Whether a prefix is published as `id-prefix`.
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

/// A compiled regular expression.
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

/// One entry of a `tcp:` or `udp:` list, or one pair of `-tcpNumber` and `-tcpRange`.
#[derive(serde::Deserialize, Clone, Debug)]
pub struct PortEntry {
    number: Option<Value<u32>>,
    #[serde(deserialize_with = "range")]
    range: PortRange,
}

/// Reads a range. The derived code would treat an empty text as a missing key.
fn range<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PortRange, D::Error> {
    let Value(range) = Value::deserialize(deserializer)?;
    range.ok_or_else(|| D::Error::custom("the range is empty: write it like 1024-65535."))
}

impl PortEntry {
    /// Pairs the values of `-tcpNumber` and `-tcpRange`, or those for UDP: the i-th number belongs to the i-th range.
    /// A single number with several ranges limits all of them together and is returned beside the
    /// entries; without a number there is no limit.
    pub fn pair(
        protocol: &str,
        numbers: Vec<u32>,
        ranges: Vec<PortRange>,
    ) -> Result<(Vec<Self>, Option<u32>), String> {
        let together = match numbers.as_slice() {
            [number] if ranges.len() > 1 => Some(*number),
            [] => Some(0),
            _ if numbers.len() == ranges.len() => None,
            _ => {
                return Err(format!(
                    "There are {} {protocol}Number and {} {protocol}Range: give one {protocol}Number for all \
                     ranges together, or one for each of them, in their order.",
                    numbers.len(),
                    ranges.len()
                ))
            }
        };
        let mut numbers = numbers.into_iter();
        let entry = |range| PortEntry {
            number: match together {
                Some(_) => None,
                None => numbers.next().map(|number| Value(Some(number))),
            },
            range,
        };
        Ok((ranges.into_iter().map(entry).collect(), together))
    }
}

/// The `host:` section of a user.
#[derive(serde::Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct HostEntry {
    pub number: Option<Value<u32>>,
    pub regex: Option<Vec<Value<Pattern>>>,
    #[serde(rename = "withID")]
    pub with_id: Option<Value<bool>>,
}

impl HostEntry {
    /// Fills in missing values from a source of lower priority.
    pub fn or(self, lower: Self) -> Self {
        HostEntry {
            number: self.number.or(lower.number),
            regex: self.regex.or(lower.regex),
            with_id: self.with_id.or(lower.with_id),
        }
    }
}

/// The limits of a user in one source, such as the flags or a file. `None` if it does not set them.
#[derive(Clone, Debug, Default)]
pub struct PartLimits {
    pub tcp: PartPorts,
    pub udp: PartPorts,
    pub from: Option<AddressRules>,
    pub speed: Option<u64>,
    pub connections: Option<u32>,
    pub host: HostEntry,
    pub domains: Option<Vec<Domain>>,
}

/// The ports of one protocol in one source. `None` if it does not set them.
#[derive(Clone, Debug, Default)]
pub struct PartPorts {
    pub list: Option<Vec<PortEntry>>,
    /// Number for entries of `list` without one.
    pub number: Option<u32>,
}

/// The limits of clients that are not users, and of users without their own.
pub struct GlobalLimits {
    pub tcp: PartPorts,
    pub udp: PartPorts,
    pub speed: u64,
    pub connections: u32,
    pub hosts: HostRules,
    pub domains: Vec<Domain>,
}

impl PartPorts {
    /// Returns the ranges.
    pub fn ranges(&self) -> impl Iterator<Item = PortRange> + '_ {
        self.list.iter().flatten().map(|entry| entry.range)
    }

    /// Fills in missing limits from a source of lower priority.
    fn or(self, lower: Self) -> Self {
        Self {
            list: self.list.or(lower.list),
            number: self.number.or(lower.number),
        }
    }

    /// Fills in missing limits from the global ones.
    fn complete(self, global: &Self) -> PortLimits {
        let entries = self
            .list
            .or_else(|| global.list.clone())
            .unwrap_or_default();
        let shared = entries.len() > 1 && entries.iter().all(|entry| entry.number.is_none());
        let number = self.number.or(global.number).unwrap_or(0);
        let rule = |entry: PortEntry| PortRule {
            number: given(entry.number).unwrap_or(number),
            range: entry.range,
        };
        PortLimits {
            rules: entries.into_iter().map(rule).collect(),
            total: if shared { number } else { 0 },
        }
    }
}

impl PartLimits {
    /// Fills in missing limits from a source of lower priority.
    pub fn or(self, lower: Self) -> Self {
        PartLimits {
            tcp: self.tcp.or(lower.tcp),
            udp: self.udp.or(lower.udp),
            from: self.from.or(lower.from),
            speed: self.speed.or(lower.speed),
            connections: self.connections.or(lower.connections),
            host: self.host.or(lower.host),
            domains: self.domains.or(lower.domains),
        }
    }

    /// Fills in missing limits from the global ones.
    pub fn complete(self, global: &GlobalLimits) -> Limits {
        Limits {
            tcp: self.tcp.complete(&global.tcp),
            udp: self.udp.complete(&global.udp),
            from: self.from.unwrap_or_default(),
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
            domains: self.domains.unwrap_or_else(|| global.domains.clone()),
        }
    }
}
