//! A value of `remoteBind`: an interface or a source address of tunnels. Not its use, see `net::outbound`.

use std::net::IpAddr;

use crate::config::value::Scalar;
use crate::net::LinkSource;

/// Maximum length in bytes of an interface's name (netdevice(7): `IFNAMSIZ` with its last zero).
const MAX_NAME: usize = 15;

impl Scalar for LinkSource {
    fn read(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(text).parse::<IpAddr>() {
            return match address.is_unspecified() || address.is_multicast() {
                true => Err(format!("\"{text}\" is not an address of this machine.")),
                false => Ok(LinkSource::Address(address)),
            };
        }
        let is_usual = |byte: u8| byte.is_ascii_graphic() && !b"/:[]".contains(&byte);
        // Linux accepts any others, except for these two.
        let is_name = text.len() <= MAX_NAME && text.bytes().all(is_usual);
        if !is_name || text == "." || text == ".." {
            return Err(format!(
                "\"{text}\" is neither an interface nor an address of this machine: write it like eth1, \
                 192.0.2.7 or 2001:db8::7."
            ));
        }
        Ok(LinkSource::Interface(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_and_an_address_are_told_apart() {
        for (text, shown) in [
            ("eth1", "eth1"),
            ("pppoe-wan", "pppoe-wan"),
            ("br-lan.7", "br-lan.7"),
            ("@wan", "@wan"),
            ("192.0.2.7", "192.0.2.7"),
            ("2001:DB8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
        ] {
            let source = LinkSource::read(text).unwrap();
            assert_eq!(source.to_string(), shown);
            assert_eq!(
                matches!(source, LinkSource::Address(_)),
                shown.parse::<IpAddr>().is_ok()
            );
        }
    }

    #[test]
    fn an_error_shows_how_to_write_where_tunnels_start() {
        assert_eq!(
            LinkSource::read("eth 1").unwrap_err(),
            "\"eth 1\" is neither an interface nor an address of this machine: write it like eth1, \
             192.0.2.7 or 2001:db8::7."
        );
        for text in [
            "192.0.2.7:80",
            "http://h",
            "a/b",
            "..",
            "0123456789abcdef",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ü",
        ] {
            assert!(LinkSource::read(text).is_err(), "{text}");
        }
    }
}
