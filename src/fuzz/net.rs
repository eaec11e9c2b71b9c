//! Fuzz entries for HTTP: gt's own client, and visitors' requests that are followed; and for records of
//! datagrams.

use super::{cuts, Pace, Source};
use crate::net::follow::{
    Edits, ExpectedResponse, HttpRefusal, RequestHead, RequestRule, RequestStep, Requests,
    RuleDecision, MAX_HEAD,
};
use crate::net::http::response::{read, Response, MAX_BODY};
use crate::net::RecordReader;
use futures_lite::future::block_on;
use std::task::Poll;

/// Reads the records of a flow of datagrams. How the bytes are cut into frames must not matter, and what
/// was read makes the same records.
pub fn datagrams(data: &[u8]) {
    let read = |cut: usize| {
        let (mut reader, mut whole) = (RecordReader::default(), Vec::new());
        let mut count = 0;
        for piece in [&data[..cut], &data[cut..]] {
            reader.feed::<4>(piece, |run| {
                assert!((1..=4).contains(&run.len()));
                for datagram in run {
                    let length = u16::try_from(datagram.len()).expect("a length on the wire");
                    whole.extend(length.to_be_bytes());
                    whole.extend(*datagram);
                    count += 1;
                }
            });
        }
        assert_eq!(whole, data[..whole.len()]);
        (whole.len(), count)
    };
    let whole = read(data.len());
    // What is left is not a whole record.
    if let Some((length, rest)) = data[whole.0..].split_first_chunk::<2>() {
        assert!(usize::from(u16::from_be_bytes(*length)) > rest.len());
    }
    for cut in cuts(data) {
        assert_eq!(read(cut), whole, "cut at {cut}");
    }
}

/// Reads a response to a request of gt's own client.
pub fn http_answer(data: &[u8]) {
    let whole = answer(data, Pace::Whole);
    for pace in Pace::split(data) {
        assert_eq!(answer(data, pace), whole, "{pace:?}");
    }
    if let Some(Response { status, body, .. }) = whole {
        assert!((200..1000).contains(&status));
        assert!(body.len() <= MAX_BODY && body.len() <= data.len());
    }
}

fn answer(data: &[u8], pace: Pace) -> Option<Response> {
    let mut source = Source::new(data, pace);
    let reading = read(|_, buffer| Poll::Ready(Ok(source.take(buffer))), &[]);
    block_on(reading).ok().map(|(answer, _)| answer)
}

/// Follows pipelined requests on one connection.
pub fn http_requests(data: &[u8]) {
    let whole = follow(data, Pace::Whole, &OneHost);
    for pace in Pace::split(data) {
        assert_eq!(follow(data, pace, &OneHost), whole, "{pace:?}");
    }
    for message in &whole.messages {
        compare_with_httparse(data, message);
    }
    // What goes to the service must be followed in the same way, and need no more edits.
    if whole.refused.is_none() && whole.sent.len() < MAX_HEAD {
        let again = follow(&whole.sent, Pace::Whole, &OneHost);
        assert_eq!(again.sent, whole.sent);
        assert_eq!(again.messages.len(), whole.messages.len());
    }
}

/// The result of following an input.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Followed {
    /// The bytes that go to the service.
    pub sent: Vec<u8>,
    pub messages: Vec<Message>,
    refused: Option<HttpRefusal>,
}

/// One request; offsets in the input.
#[derive(Debug, PartialEq)]
pub(super) struct Message {
    begin: usize,
    head_end: usize,
    /// The end of the body, if there is one.
    end: Option<usize>,
    asks: ExpectedResponse,
}

/// A rule that sets one host in every request.
struct OneHost;

impl RequestRule for OneHost {
    fn decide(&self, head: &RequestHead<'_>) -> RuleDecision {
        let mut edits = Edits::default();
        for field in head.fields().filter(|field| field.is("host")) {
            edits.set(&field, "x.y:1");
        }
        if let Some(part) = head.authority() {
            edits.set_target(head, part, "x.y:1");
        }
        RuleDecision::Forward(edits)
    }
}

/// Follows requests at this pace, with this rule.
pub(super) fn follow(data: &[u8], mut pace: Pace, rule: &dyn RequestRule) -> Followed {
    let (mut requests, mut followed) = (Requests::default(), Followed::default());
    let (mut at, mut begin) = (0, 0);
    while at < data.len() {
        let come = at + pace.next().min(data.len() - at);
        while at < come {
            match requests.take(&data[at..come], rule) {
                RequestStep::Pass(n) => {
                    assert!((1..=come - at).contains(&n));
                    followed.sent.extend_from_slice(&data[at..at + n]);
                    at += n;
                }
                RequestStep::Keep(n) => {
                    assert!((1..=come - at).contains(&n));
                    at += n;
                }
                RequestStep::Send {
                    taken,
                    bytes,
                    begins,
                } => {
                    assert!((1..=come - at).contains(&taken));
                    at += taken;
                    followed.sent.extend_from_slice(&bytes);
                    if let Some(asks) = begins {
                        let is_blank = |b: &&u8| matches!(b, b'\r' | b'\n');
                        begin += data[begin..].iter().take_while(is_blank).count();
                        followed.messages.push(Message {
                            begin,
                            head_end: at,
                            end: None,
                            asks,
                        });
                    }
                }
                // The service decides by the request's number.
                RequestStep::Wait => requests.switch(followed.messages.len() % 2 == 0),
                // No byte goes on before there is a decision.
                RequestStep::Undecided => return followed,
                RequestStep::Refuse(refusal, _) => {
                    assert!(requests.is_refused());
                    followed.refused = Some(refusal);
                    return followed;
                }
            }
            if requests.is_between() {
                if let Some(last) = followed.messages.last_mut() {
                    last.end.get_or_insert(at);
                }
                begin = at;
            }
        }
    }
    followed
}

/// Checks that another parser finds the same boundaries, if it accepts the request.
fn compare_with_httparse(data: &[u8], message: &Message) {
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(&data[message.begin..]) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => panic!("httparse wants more: {message:?}"),
        // httparse accepts fewer characters in targets and field names.
        Err(_) => return,
    };
    assert_eq!(message.begin + length, message.head_end);
    assert_eq!(
        request.method == Some("HEAD"),
        message.asks == ExpectedResponse::Head
    );
    let field = |name: &str| {
        let mut fields = request.headers.iter();
        fields.find(|field| field.name.eq_ignore_ascii_case(name))
    };
    let mut at = message.head_end;
    let text = |value: &[u8]| String::from_utf8_lossy(value).trim().to_owned();
    if field("transfer-encoding").is_some() {
        loop {
            let Ok(httparse::Status::Complete((line, size))) =
                httparse::parse_chunk_size(&data[at..])
            else {
                assert_eq!(message.end, None);
                return;
            };
            at += line;
            if size == 0 {
                break;
            }
            let Some(end) = usize::try_from(size)
                .ok()
                .and_then(|size| at.checked_add(size))
            else {
                assert_eq!(message.end, None);
                return;
            };
            if data.get(end..end.saturating_add(2)) != Some(b"\r\n") {
                assert_eq!(message.end, None);
                return;
            }
            at = end + 2;
        }
        let trailers = &data[at..];
        if trailers.starts_with(b"\r\n") {
            at += 2;
        } else if let Some(end) = trailers.windows(4).position(|four| four == b"\r\n\r\n") {
            at += end + 4;
        } else {
            assert_eq!(message.end, None);
            return;
        }
    } else if let Some(length) = field("content-length") {
        let length: u64 = text(length.value).parse().unwrap();
        match usize::try_from(length)
            .ok()
            .and_then(|length| at.checked_add(length))
        {
            Some(end) if end <= data.len() => at = end,
            _ => {
                assert_eq!(message.end, None);
                return;
            }
        }
    }
    if let Some(end) = message.end {
        assert_eq!(end, at);
    }
}
