//! The search for a UPnP gateway (SSDP, UPnP Device Architecture 1.1, section 1.3). Texts and values only.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

/// Where gateways listen for searches.
pub const MULTICAST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 255, 250), 1900);
/// Maximum length in bytes of an answer.
const MAX_ANSWER: usize = 2048;
/// Maximum length in bytes of a path.
const MAX_PATH: usize = 256;
const DEVICES: [&str; 2] = [
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
];

/// A page of the gateway itself. URLs that lead elsewhere are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayUrl {
    /// The gateway's port.
    pub port: u16,
    /// Path and query, as in a request line.
    pub path: String,
}

impl GatewayUrl {
    /// Parses an absolute URL of `gateway`; `None` if it is malformed, or of another host: the gateway would decide
    /// where this machine sends requests.
    pub fn parse(url: &str, gateway: Ipv4Addr) -> Option<Self> {
        let scheme = url.get(..7)?;
        let rest = url.get(7..)?;
        if !scheme.eq_ignore_ascii_case("http://") {
            return None;
        }
        let end = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = (rest.get(..end)?, rest.get(end..)?);
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
            None => (authority, 80),
        };
        let is_gateways = host.parse() == Ok(IpAddr::V4(gateway));
        is_gateways.then(|| Self::at(port, path))?
    }

    /// Resolves a reference from a description of this page, as [`GatewayUrl::parse`] does.
    pub fn resolve(&self, reference: &str, gateway: Ipv4Addr) -> Option<Self> {
        if reference.contains("://") {
            return Self::parse(reference, gateway);
        }
        match reference.starts_with('/') {
            true => Self::at(self.port, reference),
            false => {
                let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
                Self::at(self.port, &format!("{folder}/{reference}"))
            }
        }
    }

    fn at(port: u16, path: &str) -> Option<Self> {
        let path = if path.is_empty() { "/" } else { path };
        let is_fine = path.len() <= MAX_PATH && path.bytes().all(|byte| byte.is_ascii_graphic());
        let path = path.to_owned();
        // Two slashes would be another host's.
        (is_fine && !path.starts_with("//")).then_some(Self { port, path })
    }
}

/// Writes the searches.
pub fn searches() -> impl Iterator<Item = String> {
    DEVICES.into_iter().map(|device| {
        format!(
            "M-SEARCH * HTTP/1.1\r\nHOST: {MULTICAST}\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: {device}\r\n\r\n"
        )
    })
}

/// Parses an answer of `gateway` to a search: where its description is.
pub fn location(answer: &[u8], gateway: Ipv4Addr) -> Option<GatewayUrl> {
    if answer.len() > MAX_ANSWER {
        return None;
    }
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut parsed = httparse::Response::new(&mut fields);
    parsed.parse(answer).ok()?;
    let field = |name: &str| {
        let mut fields = parsed.headers.iter();
        let field = fields.find(|field| field.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(field.value).ok().map(str::trim)
    };
    let is_gateway =
        parsed.code == Some(200) && field("ST").is_some_and(|device| DEVICES.contains(&device));
    let location = field("LOCATION").filter(|_| is_gateway)?;
    GatewayUrl::parse(location, gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn page(port: u16, path: &str) -> Option<GatewayUrl> {
        let path = path.to_owned();
        Some(GatewayUrl { port, path })
    }

    #[test]
    fn only_pages_of_the_gateway_are_used() {
        let parse = |url| GatewayUrl::parse(url, GATEWAY);
        assert_eq!(parse("http://10.0.0.1:5000/d.xml"), page(5000, "/d.xml"));
        assert_eq!(parse("HTTP://10.0.0.1"), page(80, "/"));
        for other in [
            "http://10.0.0.2:5000/d.xml",
            "http://192.0.2.1/",
            "http://gateway/",
            "http://10.0.0.1@192.0.2.1/",
            "http://10.0.0.1.example.com/",
            "http://[::ffff:10.0.0.1]/",
            "https://10.0.0.1/",
            "http://10.0.0.1:0/",
            "http://10.0.0.1:5000//x",
            "http://10.0.0.1/a b",
            "http://10.0.0.1/a\r\nX: y",
            "http://10.0.0.1:65536/",
            "http:/",
            "",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn references_are_resolved_within_the_gateway() {
        let base = page(5000, "/igd/d.xml").unwrap();
        let resolve = |reference| base.resolve(reference, GATEWAY);
        assert_eq!(resolve("/ctl"), page(5000, "/ctl"));
        assert_eq!(resolve("ctl?x"), page(5000, "/igd/ctl?x"));
        assert_eq!(resolve("http://10.0.0.1:6000/c"), page(6000, "/c"));
        for other in [
            "http://10.0.0.2/c",
            "//10.0.0.2/c",
            "ftp://10.0.0.1/c",
            "a b",
        ] {
            assert_eq!(resolve(other), None, "{other}");
        }
        assert_eq!(resolve(&"x".repeat(300)), None);
    }

    #[test]
    fn an_answer_says_where_the_description_is() {
        let answer = |device: &str, location: &str| {
            format!("HTTP/1.1 200 OK\r\nST: {device}\r\nLocation: {location}\r\n\r\n")
        };
        let url = "http://10.0.0.1:5000/d.xml";
        let found = |text: String| location(text.as_bytes(), GATEWAY);
        for device in DEVICES {
            assert_eq!(found(answer(device, url)), page(5000, "/d.xml"));
        }
        assert_eq!(found(answer("upnp:rootdevice", url)), None);
        assert_eq!(found(answer(DEVICES[0], "http://192.0.2.1/d.xml")), None);
        assert_eq!(found(answer(DEVICES[0], url).replace("200", "500")), None);
        assert_eq!(found(answer(DEVICES[0], url) + &"x".repeat(2048)), None);
        assert_eq!(found(String::new()), None);
        assert_eq!(searches().count(), 2);
    }
}
