//! The head of a request to the page or its API. Not who may ask for what.

use crate::encoding::BASE64;
use crate::net::http::hosts::AllowedHosts;
use crate::net::http::percent;
use base64::Engine;
use httparse::{Error, Status};

/// Maximum length of a head in bytes.
pub const MAX_HEAD: usize = 8 * 1024;
const MAX_FIELDS: usize = 64;
/// Maximum number of names and values in a query.
const MAX_QUERY: usize = 16;

/// A method that the API has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    /// One that no path takes.
    Other,
}

impl Method {
    fn of(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            _ => Self::Other,
        }
    }

    /// Whether a request of this method changes nothing.
    pub fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head)
    }
}

/// A name and a password of Basic authentication (RFC 7617).
#[derive(Clone, PartialEq, Eq)]
pub struct BasicLogin {
    pub admin: String,
    pub password: Vec<u8>,
}

/// The head of a request.
pub struct RequestHead {
    pub method: Method,
    /// The parts of the path between its slashes, decoded.
    pub path: Vec<String>,
    /// The names and values of the query, decoded.
    pub query: Vec<(String, String)>,
    /// The values of cookies, with their names.
    pub cookies: Vec<(String, String)>,
    pub login: Option<BasicLogin>,
    /// Whether the request has any field Authorization.
    pub has_authorization: bool,
    /// The token of a session, which only the page itself knows.
    pub csrf: Option<String>,
    /// The version of the configuration that the request changes.
    pub if_match: Option<String>,
    /// The version of a file of the page that the browser has.
    pub if_none_match: Option<String>,
    /// Whether another site has the browser send the request, as far as the browser tells.
    pub is_cross_site: bool,
    pub is_json: bool,
    /// Length of the body in bytes.
    pub length: usize,
    /// Whether the other end waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// Whether the connection closes after the answer.
    pub closes: bool,
}

/// Why a head cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// It is not HTTP/1, or it contradicts itself.
    Malformed,
    /// It is longer than [`MAX_HEAD`] or [`MAX_FIELDS`].
    TooLong,
    /// The request is for a host name that the page does not have.
    OtherHost,
    /// The body has no length.
    NoLength,
}

/// Parses a head, and returns it with its length; `None` while it is incomplete.
pub fn parse(
    bytes: &[u8],
    hosts: &AllowedHosts,
) -> Option<Result<(RequestHead, usize), HeadError>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let limited = bytes.get(..MAX_HEAD).unwrap_or(bytes);
    let length = match request.parse(limited) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) if bytes.len() < MAX_HEAD => return None,
        Ok(Status::Partial) | Err(Error::TooManyHeaders) => return Some(Err(HeadError::TooLong)),
        Err(_) => return Some(Err(HeadError::Malformed)),
    };
    Some(read(&request, hosts).map(|head| (head, length)))
}

fn read(
    request: &httparse::Request<'_, '_>,
    hosts: &AllowedHosts,
) -> Result<RequestHead, HeadError> {
    let (authority, target) = split(request.path.unwrap_or_default());
    let fields = Fields(request.headers);
    let mut named = fields.all("host").peekable();
    // Without a host name a request cannot show which page the browser believes to visit.
    let has_host = named.peek().is_some() || authority.is_some();
    let allowed = authority.is_none_or(|it| hosts.allow(it)) && named.all(|it| hosts.allow(it));
    if !allowed || !has_host {
        return Err(HeadError::OtherHost);
    }
    let method = request.method.unwrap_or_default();
    let method = Method::of(method);
    if fields.all("transfer-encoding").next().is_some() {
        return Err(HeadError::NoLength);
    }
    let mut lengths = fields.all("content-length");
    let length = match (lengths.next(), lengths.next()) {
        (None, _) => 0,
        (Some(text), None) if text.bytes().all(|it| it.is_ascii_digit()) => {
            text.parse().map_err(|_| HeadError::Malformed)?
        }
        _ => return Err(HeadError::Malformed),
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let segments = path.split('/').skip(1).map(|part| decoded(part, false));
    let path = segments.collect::<Option<Vec<_>>>();
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.take(MAX_QUERY).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((decoded(name, true)?, decoded(value, true)?))
    });
    let query = pairs.collect::<Option<Vec<_>>>();
    let (Some(path), Some(query)) = (path, query) else {
        return Err(HeadError::Malformed);
    };
    let cookies = fields.all("cookie").flat_map(|field| field.split(';'));
    let cookies = cookies.filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    });
    let text = |name| fields.all(name).next();
    let authorization = text("authorization");
    Ok(RequestHead {
        method,
        path,
        query,
        cookies: cookies.collect(),
        login: authorization.and_then(basic_login),
        has_authorization: authorization.is_some(),
        csrf: text("x-csrf-token").map(str::to_owned),
        if_match: text("if-match").map(|it| it.trim_matches('"').to_owned()),
        if_none_match: text("if-none-match").map(|it| it.trim_matches('"').to_owned()),
        is_cross_site: is_cross_site(&fields, authority.or(text("host")).unwrap_or_default()),
        is_json: text("content-type").is_some_and(|it| {
            let kind = it.split(';').next().unwrap_or_default();
            kind.trim().eq_ignore_ascii_case("application/json")
        }),
        length,
        expects_continue: text("expect").is_some_and(|it| it.eq_ignore_ascii_case("100-continue")),
        closes: request.version == Some(0)
            || text("connection").is_some_and(|it| it.to_ascii_lowercase().contains("close")),
    })
}

/// The header fields of a request, whose values are text.
struct Fields<'a>(&'a [httparse::Header<'a>]);

impl<'a> Fields<'a> {
    /// Returns the values of all fields with this name; one that is no text is empty.
    fn all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        let named = self
            .0
            .iter()
            .filter(move |it| it.name.eq_ignore_ascii_case(name));
        named.map(|it| std::str::from_utf8(it.value).unwrap_or("\u{fffd}").trim())
    }
}

/// Whether the browser says that another site sends the request.
fn is_cross_site(fields: &Fields<'_>, host: &str) -> bool {
    let of_site = |site: &str| matches!(site, "same-origin" | "none");
    let other_site = fields.all("sec-fetch-site").any(|site| !of_site(site));
    let other_origin = fields.all("origin").any(|origin| {
        let (scheme, authority) = origin.split_once("://").unwrap_or(("", origin));
        // A browser leaves the usual port out of both, a proxy before the page perhaps not.
        let usual = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => "",
        };
        let without = |authority| str::strip_suffix(authority, usual).unwrap_or(authority);
        !without(authority).eq_ignore_ascii_case(without(host))
    });
    other_site || other_origin
}

/// Splits a target into its authority, if it has one, and path and query.
fn split(target: &str) -> (Option<&str>, &str) {
    match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            (Some(authority), path)
        }
        _ => (None, target),
    }
}

fn decoded(raw: &str, is_query: bool) -> Option<String> {
    let mut bytes = Vec::new();
    let plain = match is_query {
        true => raw.replace('+', " "),
        false => raw.to_owned(),
    };
    percent::decode(plain.as_bytes(), &mut bytes)?;
    String::from_utf8(bytes).ok()
}

fn basic_login(field: &str) -> Option<BasicLogin> {
    let (scheme, rest) = field.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let bytes = BASE64.decode(rest.trim()).ok()?;
    let colon = bytes.iter().position(|it| *it == b':')?;
    let (admin, password) = bytes.split_at(colon);
    Some(BasicLogin {
        admin: String::from_utf8(admin.to_vec()).ok()?,
        password: password.get(1..)?.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<RequestHead, HeadError> {
        let hosts = AllowedHosts::new(&["router.lan".to_owned()]);
        let text = format!("{}\r\n\r\n", text.replace('\n', "\r\n"));
        let (head, length) = parse(text.as_bytes(), &hosts).expect("a whole head")?;
        assert_eq!(length, text.len());
        Ok(head)
    }

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let read = head(
            "PUT /api/client/services/a%2Fb?x=1+2&y&z=%26 HTTP/1.1\nHost: router.lan:8086\n\
             Cookie: a=b; gt-1=token\nCookie: c=d\nX-CSRF-Token: t\nIf-Match: \"e\"\n\
             Content-Type: application/json; charset=utf-8\nContent-Length: 12\n\
             Authorization: Basic YWRtaW46czplYw==",
        );
        let read = read.unwrap();
        assert_eq!(read.method, Method::Put);
        assert_eq!(read.path, ["api", "client", "services", "a/b"]);
        let pairs = [("x", "1 2"), ("y", ""), ("z", "&")];
        assert_eq!(read.query, pairs.map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert_eq!(read.cookies[1], ("gt-1".to_owned(), "token".to_owned()));
        assert_eq!(read.csrf.as_deref(), Some("t"));
        assert_eq!(read.if_match.as_deref(), Some("e"));
        assert!(read.is_json && !read.closes && !read.is_cross_site);
        assert_eq!(read.length, 12);
        let login = read.login.unwrap();
        assert_eq!(
            (login.admin.as_str(), &login.password[..]),
            ("admin", &b"s:ec"[..])
        );
    }

    #[test]
    fn what_cannot_be_served_has_a_reason() {
        for (text, why) in [
            ("GET / HTTP/1.1\nHost: evil.example", HeadError::OtherHost),
            ("GET / HTTP/1.1", HeadError::OtherHost),
            (
                "GET http://evil.example/ HTTP/1.1\nHost: router.lan",
                HeadError::OtherHost,
            ),
            (
                "GET / HTTP/1.1\nHost: router.lan\nHost: x",
                HeadError::OtherHost,
            ),
            (
                "POST / HTTP/1.1\nHost: router.lan\nTransfer-Encoding: chunked",
                HeadError::NoLength,
            ),
            (
                "POST / HTTP/1.1\nHost: router.lan\nContent-Length: +1",
                HeadError::Malformed,
            ),
            (
                "POST / HTTP/1.1\nHost: router.lan\nContent-Length: 1\nContent-Length: 1",
                HeadError::Malformed,
            ),
            ("GET /%zz HTTP/1.1\nHost: router.lan", HeadError::Malformed),
            ("GET /%ff HTTP/1.1\nHost: router.lan", HeadError::Malformed),
        ] {
            assert_eq!(head(text).err(), Some(why), "{text}");
        }
        let hosts = AllowedHosts::default();
        let long = vec![b'a'; MAX_HEAD];
        assert!(parse(&long[1..], &hosts).is_none());
        assert!(matches!(
            parse(&long, &hosts),
            Some(Err(HeadError::TooLong))
        ));
    }

    #[test]
    fn requests_that_other_sites_cause_are_told_apart() {
        let of = |fields: &str| {
            head(&format!("POST / HTTP/1.1\nHost: 127.0.0.1:1\n{fields}"))
                .unwrap()
                .is_cross_site
        };
        for fields in [
            "Origin: http://127.0.0.1:1",
            "Sec-Fetch-Site: same-origin",
            "Sec-Fetch-Site: none",
            "A: b",
        ] {
            assert!(!of(fields), "{fields}");
        }
        let of_host = |host: &str, origin: &str| {
            let text = format!("POST / HTTP/1.1\nHost: {host}\nOrigin: {origin}");
            head(&text).unwrap().is_cross_site
        };
        for (host, origin) in [
            ("router.lan", "http://router.lan:80"),
            ("router.lan:80", "http://router.lan"),
            ("ROUTER.lan", "https://router.lan:443"),
            ("router.lan:443", "https://router.lan"),
            ("[::1]", "http://[::1]:80"),
            ("[::1]:80", "http://[::1]"),
        ] {
            assert!(!of_host(host, origin), "{host} {origin}");
        }
        for (host, origin) in [
            ("router.lan", "http://router.lan:443"),
            ("router.lan", "https://router.lan:80"),
            ("router.lan:8080", "http://router.lan"),
            ("[::1]", "http://[::1:80]"),
        ] {
            assert!(of_host(host, origin), "{host} {origin}");
        }
        for fields in [
            "Origin: http://127.0.0.1:2",
            "Origin: null",
            "Sec-Fetch-Site: cross-site",
            "Sec-Fetch-Site: same-site",
        ] {
            assert!(of(fields), "{fields}");
        }
    }
}
