//! Ranges of IP addresses as users write them: `10.0.0.0/8`, `fd00::/8`, `192.0.2.1`, and rules about
//! who may come.

use std::net::IpAddr;
#[cfg(all(feature = "client", feature = "proxy"))]
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::config::value::{digits, Scalar, Value};

/// A range of IP addresses: those that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    bits: u32,
}

impl Network {
    /// Whether the range contains an address. An IPv4 address equals its IPv6-mapped form.
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.first, addr.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(addr)) => {
                let differing = first.to_bits() ^ addr.to_bits();
                differing.leading_zeros() >= self.bits
            }
            (IpAddr::V6(first), IpAddr::V6(addr)) => {
                let differing = first.to_bits() ^ addr.to_bits();
                differing.leading_zeros() >= self.bits
            }
            _ => false,
        }
    }

    /// Returns the first and the last address.
    #[cfg(all(feature = "client", feature = "proxy"))]
    pub fn ends(&self) -> [IpAddr; 2] {
        match self.first {
            IpAddr::V4(first) => {
                let rest = u32::MAX.checked_shr(self.bits).unwrap_or(0);
                let first = first.to_bits();
                [first & !rest, first | rest].map(|bits| Ipv4Addr::from_bits(bits).into())
            }
            IpAddr::V6(first) => {
                let rest = u128::MAX.checked_shr(self.bits).unwrap_or(0);
                let first = first.to_bits();
                [first & !rest, first | rest].map(|bits| Ipv6Addr::from_bits(bits).into())
            }
        }
    }
}

impl Scalar for Network {
    fn read(text: &str) -> Result<Self, String> {
        let (addr, bits) = match text.split_once('/') {
            Some((addr, bits)) => (addr, Some(bits)),
            None => (text, None),
        };
        let read = || {
            let first: IpAddr = addr.parse().ok()?;
            let most = if first.is_ipv4() { 32 } else { 128 };
            let bits = match bits {
                Some(bits) => u32::try_from(digits(bits)?).ok()?,
                None => most,
            };
            (bits <= most).then_some(match (first, bits.checked_sub(96)) {
                // The same addresses, in the form in which they are compared.
                (IpAddr::V6(v6), Some(of_ipv4)) if v6.to_ipv4_mapped().is_some() => Network {
                    first: first.to_canonical(),
                    bits: of_ipv4,
                },
                _ => Network { first, bits },
            })
        };
        read().ok_or_else(|| {
            format!(
                "\"{text}\" is not a range of addresses: write it like 10.0.0.0/8 or fd00::/8, or \
                 192.0.2.1 for one address."
            )
        })
    }
}

/// Rules about the addresses that something may come from. Without rules, any may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressRules {
    /// If there are any, an address must be in one of these.
    allow: Vec<Network>,
    /// An address in one of these is refused, also if it is allowed.
    deny: Vec<Network>,
}

impl AddressRules {
    /// Creates the rules from the options `allow` and `deny`, named so in errors. An empty text is an
    /// error: if a variable of a start script is not set, nobody may come rather than anybody.
    pub fn new(
        (allow_name, allow): (&str, Vec<Value<Network>>),
        (deny_name, deny): (&str, Vec<Value<Network>>),
    ) -> Result<Self, String> {
        let list = |name: &str, list: Vec<Value<Network>>| -> Result<Vec<Network>, String> {
            let networks = list.into_iter().map(|network| network.0);
            networks.collect::<Option<_>>().ok_or_else(|| {
                format!(
                    "{name} has an empty entry: give it an address or a network like 10.0.0.0/8, or \
                     remove it."
                )
            })
        };
        Ok(Self {
            allow: list(allow_name, allow)?,
            deny: list(deny_name, deny)?,
        })
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    /// Whether there are addresses that are not allowed, beside single ones that are denied.
    #[cfg(all(feature = "client", feature = "proxy"))]
    pub fn restrict(&self) -> bool {
        !self.allow.is_empty() && self.allow.iter().all(|network| network.bits > 0)
    }

    /// Whether something may come from this address. The unspecified one is that of somebody unknown.
    pub fn admit(&self, addr: IpAddr) -> bool {
        let has = |list: &[Network]| list.iter().any(|network| network.contains(addr));
        if addr.is_unspecified() {
            // Where somebody comes from of whom nobody knows it.
            return self.is_empty();
        }
        !has(&self.deny) && (self.allow.is_empty() || has(&self.allow))
    }

    /// Whether something may come whose address is known if it is `Some`. An unknown one is refused
    /// by any rule.
    pub fn admit_if_known(&self, addr: Option<IpAddr>) -> bool {
        addr.map_or(self.is_empty(), |addr| self.admit(addr))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, addr: &str) -> bool {
        let network = Network::read(network).unwrap();
        network.contains(addr.parse().unwrap())
    }

    #[test]
    fn a_network_contains_the_addresses_with_its_bits() {
        for (network, addr, is) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.9.9.9/8", "10.0.0.1", true),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "fe80::1", true),
            ("::ffff:192.0.2.1", "192.0.2.1", true),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.1", true),
            ("::ffff:192.0.2.0/120", "192.0.2.77", true),
            ("::ffff:192.0.2.0/120", "192.0.3.77", false),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fe00::1", false),
            ("::1/128", "::1", true),
        ] {
            assert_eq!(contains(network, addr), is, "{addr} in {network}");
        }
    }

    fn rules(allow: &[&str], deny: &[&str]) -> Result<AddressRules, String> {
        let read = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        AddressRules::new(("allow", read(allow)), ("deny", read(deny)))
    }

    #[test]
    fn denied_addresses_are_refused_first_and_then_those_that_are_not_allowed() {
        for (allow, deny, addr, is) in [
            (&[][..], &[][..], "192.0.2.1", true),
            (&["192.0.2.0/24"], &[], "192.0.2.1", true),
            (&["192.0.2.0/24"], &[], "::ffff:192.0.2.1", true),
            (&["192.0.2.0/24"], &[], "198.51.100.1", false),
            (&["192.0.2.0/24"], &[], "2001:db8::1", false),
            (&["192.0.2.0/24", "2001:db8::/32"], &[], "2001:db8::1", true),
            (&["192.0.2.0/24"], &["192.0.2.1"], "192.0.2.1", false),
            (&["192.0.2.0/24"], &["192.0.2.1"], "192.0.2.2", true),
            (&["192.0.2.1"], &["192.0.2.0/24"], "192.0.2.1", false),
            (&[], &["192.0.2.0/24"], "192.0.2.1", false),
            (&[], &["192.0.2.0/24"], "198.51.100.1", true),
        ] {
            let rules = rules(allow, deny).unwrap();
            let addr = addr.parse().unwrap();
            assert_eq!(rules.admit(addr), is, "{addr}: {rules:?}");
            assert_eq!(rules.admit_if_known(Some(addr)), is);
            assert_eq!(rules.admit_if_known(None), rules.is_empty());
        }
    }

    #[test]
    fn an_empty_entry_does_not_become_a_rule_that_admits_all() {
        let error = rules(&[""], &[]).unwrap_err();
        assert!(error.contains("allow has an empty entry"), "{error}");
        let error = rules(&["192.0.2.1"], &["192.0.2.1", ""]).unwrap_err();
        assert!(error.contains("deny has an empty entry"), "{error}");
    }

    #[test]
    fn an_error_shows_how_to_write_a_network() {
        for text in [
            "a",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0/8",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
        ] {
            let error = Network::read(text).unwrap_err();
            assert!(error.contains("10.0.0.0/8 or fd00::/8"), "{error}");
        }
    }
}
