//! Fuzz entries for the requests and the datagrams of a proxy's visitors.

use super::net::follow;
use super::{cuts, Pace};
use crate::client::proxy::datagram;
use crate::client::proxy::destination::{Destination, DestinationHost};
use crate::client::proxy::http::{ForwardedRequest, HeadReader, ProxyHead, ProxyRequest};
use crate::client::proxy::socks::{parse, SocksBytes, SocksMessage, SocksPhase};
use crate::config::value::Scalar;
use crate::config::Target;

/// Maximum length of a message of SOCKS5: of a name and a password.
const MAX_MESSAGE: usize = 513;

/// Parses each message of a SOCKS5 visitor: a reader asks for no byte behind a message, and the messages do
/// not depend on how the bytes are cut.
pub fn socks_requests(data: &[u8]) {
    for phase in [
        SocksPhase::Greeting,
        SocksPhase::Password,
        SocksPhase::Request,
    ] {
        let whole = parse(phase, data);
        if let SocksBytes::Whole(message, length) = &whole {
            assert!(*length <= data.len().min(MAX_MESSAGE));
            if let SocksMessage::Connect(destination) = message {
                assert_sound(destination);
            }
        }
        for cut in cuts(data) {
            match parse(phase, &data[..cut]) {
                SocksBytes::Part(missing) => {
                    assert!(missing > 0 && cut + missing <= MAX_MESSAGE);
                    if let SocksBytes::Whole(_, length) = whole {
                        assert!(cut + missing <= length);
                    }
                }
                settled => assert_eq!(settled, whole, "after {cut} bytes"),
            }
        }
    }
}

/// Parses a datagram of a SOCKS5 visitor: no part of its header is one, and what follows the header is for the
/// destination.
pub fn socks_datagrams(data: &[u8]) {
    let Some((destination, payload)) = datagram::parse(data) else {
        return;
    };
    assert_sound(&destination);
    let header = data.len() - payload.len();
    assert!(data.ends_with(payload) && header <= MAX_MESSAGE);
    for cut in cuts(data) {
        let part = datagram::parse(&data[..cut]);
        let expected = (cut >= header).then(|| (destination.clone(), &data[header..cut]));
        assert_eq!(part, expected, "after {cut} bytes");
    }
    if let DestinationHost::Address(ip) = destination.host {
        let answer = [&datagram::header((ip, destination.port).into()), payload].concat();
        let (from, again) = datagram::parse(&answer).expect("an answer");
        assert_eq!((from.port, again), (destination.port, payload));
    }
}

/// Reads the request of a visitor of an HTTP proxy, and what its host gets. Then parses targets of the
/// configuration.
pub fn proxy_requests(data: &[u8]) {
    let whole = head(data, Pace::Whole);
    for pace in Pace::split(data) {
        assert_eq!(head(data, pace), whole, "{pace:?}");
    }
    if let Some(Ok((request, length))) = &whole {
        assert!(*length <= data.len());
        assert_sound(&request.destination);
        if !request.is_connect {
            forwarded(data, &request.destination);
        }
    }
    let _ = Target::read(&String::from_utf8_lossy(data));
}

/// Reads a head at this pace. Returns the request and the length of its head, or the status of its refusal.
fn head(data: &[u8], mut pace: Pace) -> Option<Result<(ProxyRequest, usize), &'static str>> {
    let (mut reader, mut at) = (HeadReader::default(), 0);
    while at < data.len() {
        let come = at + pace.next().min(data.len() - at);
        match reader.take(&data[at..come]) {
            ProxyHead::Part => at = come,
            ProxyHead::Whole(request, _, taken) => return Some(Ok((*request, at + taken))),
            ProxyHead::Refused(refusal, _) => return Some(Err(refusal.status)),
        }
    }
    None
}

/// Checks what a host gets: one request, which names it and tells it nothing of the proxy.
fn forwarded(data: &[u8], destination: &Destination) {
    let whole = follow(data, Pace::Whole, &ForwardedRequest::default());
    for pace in Pace::split(data) {
        let again = follow(data, pace, &ForwardedRequest::default());
        assert_eq!(again, whole, "{pace:?}");
    }
    assert!(whole.messages.len() <= 1);
    let mut fields = [httparse::EMPTY_HEADER; 200];
    let mut request = httparse::Request::new(&mut fields);
    if request
        .parse(&whole.sent)
        .is_ok_and(|status| status.is_complete())
    {
        let target = request.path.unwrap_or_default();
        assert!(target.starts_with('/') || target == "*", "{target:?}");
        let fields = request.headers.iter();
        assert_about_proxy(
            fields.map(|field| (field.name.as_bytes(), field.value)),
            destination,
        );
    }
    #[cfg(test)]
    super::client::node::compare(&whole.sent, whole.messages.len(), |fields| {
        let fields = fields.iter().map(|(name, value)| (&name[..], &value[..]));
        assert_about_proxy(fields, destination);
    });
}

/// Checks the fields of a head as a host has read them.
fn assert_about_proxy<'a>(
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    destination: &Destination,
) {
    let mut hosts = 0;
    for (name, value) in fields {
        // Node.js leaves the blanks behind a value to its user.
        let value = value.trim_ascii();
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        assert!(!is("proxy-authorization") && !is("upgrade") && !is("te"));
        if is("host") {
            hosts += 1;
            assert_eq!(
                Destination::parse(value, Some(80)).as_ref(),
                Some(destination)
            );
        } else if is("connection") {
            assert_eq!(value, b"close");
        }
    }
    assert_eq!(hosts, 1);
}

fn assert_sound(destination: &Destination) {
    assert_ne!(destination.port, 0);
    if let DestinationHost::Name(name) = &destination.host {
        assert!(!name.is_empty() && name.len() <= 253);
        assert!(name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)));
    }
    let shown = destination.to_string();
    let again = Destination::parse(shown.as_bytes(), None);
    assert_eq!(again.as_ref(), Some(destination), "{shown}");
}
