//! Fuzz entries for a client: the file service, and values of its configuration.

use super::net::follow;
use super::{assert_settled, cuts, seed, Pace};
use crate::client::files::date::Moment;
use crate::client::files::head::{end, FileRequest, HEAD_MAX};
use crate::client::files::range::ByteRange;
use crate::client::files::target::{query, RequestTarget};
use crate::client::health::status;
use crate::client::request_edits::{ForwardedVisitor, RequestEdits};
use crate::config::value::Scalar;
use crate::config::{Local, Remote};
use crate::net::http::percent;
use crate::wire::origin::{Transport, VisitorOrigin};
use std::path::{Component, Path};

/// Parses a request to the file service, as a whole and by each of its parsers.
pub fn files(data: &[u8]) {
    target(data);
    range(data, data);
    moment(data);

    let whole = end(data, 0);
    // Search like a reader does while bytes come.
    let mut searched = 0;
    let found = cuts(data).find_map(|cut| {
        let found = end(&data[..cut], searched);
        searched = cut.saturating_sub(3);
        found
    });
    assert_eq!(found, whole);
    let Some(length) = whole.filter(|length| *length <= HEAD_MAX) else {
        return;
    };
    let Ok(request) = FileRequest::parse(&data[..length]) else {
        return;
    };
    target(request.target);
    if let Some(value) = request.range {
        range(value, data);
    }
    let dates = [request.if_modified_since, request.if_unmodified_since];
    dates.into_iter().flatten().for_each(moment);
}

/// Parses addresses of services and servers.
pub fn locals(data: &[u8]) {
    let text = &String::from_utf8_lossy(data);
    for text in [text.to_string(), format!("file://{text}")] {
        let Ok(local) = Local::read(&text) else {
            continue;
        };
        match &local {
            Local::Tcp { port, .. } | Local::Udp { port, .. } => assert_ne!(*port, 0),
            Local::Unix { socket, .. } => {
                let path = socket.as_os_str().as_encoded_bytes();
                assert!(matches!(path.first(), Some(b'/' | b'.' | b'@')));
                assert!(!path.contains(&0));
            }
            Local::Files(path) => {
                let path = path.as_os_str().as_encoded_bytes();
                assert!(path.starts_with(b"/") || path.starts_with(b"."));
                assert!(!path.contains(&0));
            }
            Local::Proxy(_) => {}
            Local::Signaling => panic!("no option names it"),
        }
        assert_eq!(Local::read(&local.to_string()), Ok(local));
    }
    if let Ok(remote) = Remote::read(text) {
        assert_ne!(remote.port, 0);
        assert_eq!(Remote::read(&remote.to_string()), Ok(remote));
    }
}

/// Checks that a target stays inside the shared folder and names nothing hidden.
fn target(bytes: &[u8]) {
    let plain = query(bytes);
    assert!(plain.is_empty() || plain.starts_with('?'));
    assert!(plain.bytes().all(|byte| byte.is_ascii_graphic()));
    let Ok(target) = RequestTarget::parse(bytes) else {
        return;
    };
    let path = &target.path;
    assert!(path.len() <= bytes.len() && !path.contains(&0));
    if !path.is_empty() {
        let mut names = path.split(|byte| *byte == b'/');
        assert!(names.all(|name| !name.is_empty() && !name.starts_with(b".")));
    }
    if let Ok(text) = std::str::from_utf8(path) {
        let root = Path::new("/srv/www");
        let inside = root.join(text);
        assert!(inside.starts_with(root));
        let mut rest = Path::new(text).components();
        assert!(rest.all(|part| matches!(part, Component::Normal(_))));
    }
    // A link to it must lead to it, and contain nothing that a header or a page could misread.
    let mut link = String::new();
    for name in path.split(|byte| *byte == b'/') {
        link.push('/');
        percent::encode(name, &mut link);
    }
    assert!(link
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-._~%/".contains(&b)));
    if !path.is_empty() {
        let again = RequestTarget::parse(link.as_bytes()).map(|it| it.path);
        assert_eq!(again.as_ref(), Ok(path));
    }
}

/// Checks that a range is within the file, whatever its size.
fn range(value: &[u8], data: &[u8]) {
    for size in [0, 1, 10, seed(data), u64::MAX] {
        if let ByteRange::Part { first, last } = ByteRange::parse(value, size) {
            assert!(first <= last && last < size);
        }
    }
}

/// Checks that a date is parsed as it is written.
fn moment(text: &[u8]) {
    if let Some(moment) = Moment::parse(text) {
        assert_eq!(Moment::parse(moment.to_string().as_bytes()), Some(moment));
    }
}

/// Reads the response of a service to a health check: what has been read decides, whatever follows.
pub fn health_status(data: &[u8]) {
    assert_settled(data, |bytes| status(bytes).transpose());
    if let Ok(Some(code)) = status(data) {
        assert!(code <= 999);
        let code = format!(" {code:03}");
        assert!(data.starts_with(b"HTTP/1.") && data[8..].starts_with(code.as_bytes()));
    }
}

/// The address of the visitor whose requests are followed.
const VISITOR: &str = "192.0.2.7";
/// The subject of the visitor's certificate.
const SUBJECT: &str = "CN=alice";

/// Follows the requests of a visitor to a service with `forwarded`: however they are read, nothing that
/// the visitor says of itself reaches the service.
pub fn visitor_fields(data: &[u8]) {
    let origin = VisitorOrigin {
        transport: Transport::Tcp,
        source: format!("{VISITOR}:50000").parse().unwrap(),
        destination: "198.51.100.1:80".parse().unwrap(),
        is_decrypted: true,
        is_told: false,
        server_name: None,
        subject: Some(SUBJECT.into()),
    };
    let rule = RequestEdits {
        visitor: Some(ForwardedVisitor {
            origin: Some(Box::new(origin)),
        }),
        ..RequestEdits::default()
    };
    let whole = follow(data, Pace::Whole, &rule);
    for pace in Pace::split(data) {
        assert_eq!(follow(data, pace, &rule), whole, "{pace:?}");
    }
    let mut fields = [httparse::EMPTY_HEADER; 200];
    let mut request = httparse::Request::new(&mut fields);
    if request
        .parse(&whole.sent)
        .is_ok_and(|status| status.is_complete())
    {
        let fields = request.headers.iter();
        assert_about_visitor(fields.map(|field| (field.name.as_bytes(), field.value)));
    }
    #[cfg(test)]
    node::compare(&whole.sent, whole.messages.len(), |fields| {
        assert_about_visitor(fields.iter().map(|(name, value)| (&name[..], &value[..])));
    });
}

/// Checks the fields of one head as a service has read them.
fn assert_about_visitor<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
    // The name of the variable that CGI makes of a field (RFC 3875, section 4.1.18).
    let variable = |name: &[u8]| {
        let name = String::from_utf8_lossy(name).to_uppercase();
        name.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
    };
    let about = fields.filter(|(name, _)| {
        let name = variable(name);
        name.starts_with("X_FORWARDED") || name == "FORWARDED" || name == "X_REAL_IP"
    });
    let mut told: Vec<_> = about.collect();
    told.retain(|(name, _)| *name != b"X-Forwarded-Host");
    let expected = [
        (&b"X-Forwarded-For"[..], VISITOR.as_bytes()),
        (&b"X-Real-IP"[..], VISITOR.as_bytes()),
        (&b"X-Forwarded-Proto"[..], &b"https"[..]),
        (&b"X-Forwarded-TLS-Client-Subject"[..], SUBJECT.as_bytes()),
    ];
    assert_eq!(told, expected);
}

/// The HTTP parser of Node.js, which many services have used.
#[cfg(test)]
pub(super) mod node {
    use http_muncher::{Parser, ParserHandler};

    /// A field: its name, and its value.
    type Field = (Vec<u8>, Vec<u8>);

    struct Heads<F> {
        fields: Vec<Field>,
        in_value: bool,
        count: usize,
        check: F,
    }

    impl<F: Fn(&[Field])> ParserHandler for Heads<F> {
        fn on_message_begin(&mut self, _: &mut Parser) -> bool {
            self.fields.clear();
            self.in_value = false;
            true
        }

        fn on_header_field(&mut self, _: &mut Parser, piece: &[u8]) -> bool {
            if self.in_value || self.fields.is_empty() {
                self.fields.push(Default::default());
            }
            self.in_value = false;
            self.fields.last_mut().unwrap().0.extend(piece);
            true
        }

        fn on_header_value(&mut self, _: &mut Parser, piece: &[u8]) -> bool {
            self.in_value = true;
            self.fields.last_mut().unwrap().1.extend(piece);
            true
        }

        fn on_headers_complete(&mut self, _: &mut Parser) -> bool {
            self.count += 1;
            (self.check)(&self.fields);
            true
        }
    }

    /// Reads what a service gets: at most `count` requests, whose fields are checked.
    pub fn compare(sent: &[u8], count: usize, check: impl Fn(&[Field])) {
        let mut parser = Parser::request();
        let mut heads = Heads {
            fields: Vec::new(),
            in_value: false,
            count: 0,
            check,
        };
        let read = parser.parse(&mut heads, sent);
        assert!(read <= sent.len());
        assert!(
            heads.count <= count,
            "{} requests, not {count}",
            heads.count
        );
    }
}
