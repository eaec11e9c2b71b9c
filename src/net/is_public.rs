//! Whether an address is one of the internet.

use std::net::IpAddr;

/// Whether an address can be that of a machine on the internet, which leads to the same machine from everywhere.
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [first, second, third, _] = ip.octets();
            // RFC 6598, RFC 6890, RFC 2544.
            let is_shared = first == 100 && second & 0xC0 == 64;
            let is_special =
                (first, second, third) == (192, 0, 0) || first == 198 && second & 0xFE == 18;
            let is_unusable = first == 0 || first >= 224;
            let is_local = ip.is_private() || ip.is_loopback() || ip.is_link_local();
            !(is_shared || is_special || is_unusable || is_local)
        }
        IpAddr::V6(ip) => {
            let is_local = ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_loopback();
            !(is_local || ip.is_unspecified() || ip.is_multicast())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_public_address_is_one_of_the_internet() {
        for (addr, public) in [
            ("5.6.7.8", true),
            ("203.0.113.2", true),
            ("::ffff:203.0.113.2", true),
            ("0.0.0.0", false),
            ("10.0.0.1", false),
            ("::ffff:10.0.0.1", false),
            ("172.16.0.1", false),
            ("192.168.1.1", false),
            ("100.64.0.1", false),
            ("100.63.0.1", true),
            ("127.0.0.1", false),
            ("169.254.1.1", false),
            ("192.0.0.8", false),
            ("198.19.0.1", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("2001:db8::1", true),
            ("fd00::1", false),
            ("fe80::1", false),
            ("ff02::1", false),
            ("::1", false),
            ("::", false),
        ] {
            assert_eq!(is_public(addr.parse().unwrap()), public, "{addr}");
        }
    }
}
