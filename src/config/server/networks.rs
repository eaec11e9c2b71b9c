//! Ranges of IP addresses as users write them: `10.0.0.0/8`, `fd00::/8`, `192.0.2.1`. Not a filter.

use std::net::IpAddr;

use crate::config::value::{digits, Scalar};

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
            (bits <= most).then_some(Network { first, bits })
        };
        read().ok_or_else(|| {
            format!(
                "\"{text}\" is not a range of addresses: write it like 10.0.0.0/8 or fd00::/8, or \
                 192.0.2.1 for one address."
            )
        })
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
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fe00::1", false),
            ("::1/128", "::1", true),
        ] {
            assert_eq!(contains(network, addr), is, "{addr} in {network}");
        }
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
