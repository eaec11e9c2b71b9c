//! The visitor of whom a reverse proxy in front of the server tells (`frontProxies`), in the field
//! X-Forwarded-For of a request.

use crate::config::Network;
use crate::net::follow::RequestHead;
use std::net::{IpAddr, SocketAddr};

/// What the proxies tell of their visitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToldVisitor {
    /// Nothing: the proxy itself is the visitor.
    Nothing,
    /// This address.
    Address(IpAddr),
    /// Something that is not an address.
    Unknown,
}

/// Returns the visitor's address as the proxies `fronts` tell it in the request that begins with
/// `bytes`. Each proxy appends the address that it was reached from, so that only what the last ones
/// have appended is known to be true: the visitor's is the last one that is not a proxy's.
pub fn visitor(bytes: &[u8], fronts: &[Network]) -> ToldVisitor {
    told(bytes, fronts).unwrap_or(ToldVisitor::Unknown)
}

fn told(bytes: &[u8], fronts: &[Network]) -> Option<ToldVisitor> {
    let end = bytes.windows(4).position(|end| end == b"\r\n\r\n")?;
    let head = RequestHead::parse(bytes.get(..end.checked_add(4)?)?).ok()?;
    let fields: Vec<_> = head
        .fields()
        .filter(|field| field.is("x-forwarded-for"))
        .map(|field| field.value)
        .collect();
    let entries = fields.iter().rev();
    let entries = entries.flat_map(|field| field.rsplit(|b| *b == b','));
    let mut known = ToldVisitor::Nothing;
    for entry in entries {
        let addr = address(std::str::from_utf8(entry).ok()?)?.to_canonical();
        known = ToldVisitor::Address(addr);
        if !fronts.iter().any(|front| front.contains(addr)) {
            break;
        }
    }
    Some(known)
}

/// Reads an address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches([' ', '\t']);
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let with_port = || text.parse().ok().map(|addr: SocketAddr| addr.ip());
    bare.unwrap_or(text).parse().ok().or_else(with_port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::Scalar;
    use ToldVisitor as Told;

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_visitor_is_the_last_address_that_is_not_a_proxy_s() {
        let fronts = ["10.0.0.0/8", "fd00::/8"].map(|text| Network::read(text).unwrap());
        for (fields, expected) in [
            ("", Told::Nothing),
            (
                "X-Forwarded-For: 192.0.2.7\r\n",
                Told::Address(addr("192.0.2.7")),
            ),
            (
                "x-forwarded-for: 203.0.113.1, 192.0.2.7\r\n",
                Told::Address(addr("192.0.2.7")),
            ),
            (
                "X-Forwarded-For: 192.0.2.7, 10.0.0.1,10.1.1.1\r\n",
                Told::Address(addr("192.0.2.7")),
            ),
            (
                "X-Forwarded-For: 203.0.113.1\r\nA: b\r\nX-Forwarded-For: 192.0.2.7\r\n",
                Told::Address(addr("192.0.2.7")),
            ),
            (
                "X-Forwarded-For: 192.0.2.7:50000\r\n",
                Told::Address(addr("192.0.2.7")),
            ),
            (
                "X-Forwarded-For: [2001:db8::7]:50000\r\n",
                Told::Address(addr("2001:db8::7")),
            ),
            (
                "X-Forwarded-For: [2001:db8::7]\r\n",
                Told::Address(addr("2001:db8::7")),
            ),
            (
                "X-Forwarded-For: 2001:db8::7, fd00::1\r\n",
                Told::Address(addr("2001:db8::7")),
            ),
            (
                "X-Forwarded-For: ::ffff:192.0.2.7\r\n",
                Told::Address(addr("192.0.2.7")),
            ),
            (
                "X-Forwarded-For: 10.0.0.2, 10.0.0.1\r\n",
                Told::Address(addr("10.0.0.2")),
            ),
            // Nobody knows who wrote what is before an entry that is not an address.
            ("X-Forwarded-For: 192.0.2.7, unknown\r\n", Told::Unknown),
            ("X-Forwarded-For: 192.0.2.7,\r\n", Told::Unknown),
            (
                "X-Forwarded-For: 192.0.2.7, unknown, 10.0.0.1\r\n",
                Told::Unknown,
            ),
            ("X_Forwarded_For: 192.0.2.7\r\n", Told::Nothing),
        ] {
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\nbody");
            assert_eq!(visitor(request.as_bytes(), &fronts), expected, "{fields}");
        }
    }
}
