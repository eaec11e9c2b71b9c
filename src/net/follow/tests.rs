//! Whole exchanges, and requests that must not get through.

use super::head::MAX_FIELDS;
use super::*;

/// A rule that sets one host in every request.
struct OneHost;

impl RequestRule for OneHost {
    fn decide(&self, head: &RequestHead<'_>) -> RuleDecision {
        let mut edits = Edits::default();
        for field in head.fields().filter(|field| field.is("host")) {
            edits.set(&field, "local");
        }
        if let Some(part) = head.authority() {
            edits.set_target(head, part, "local");
        }
        RuleDecision::Forward(edits)
    }
}

/// Returns what goes to the service, up to where the exchange waits or refuses, and how many bytes
/// were consumed.
fn ask(exchange: &mut Exchange, bytes: &[u8]) -> (String, usize) {
    let (mut sent, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        match exchange.request(&bytes[at..], &OneHost) {
            RequestStep::Pass(n) => {
                sent.extend_from_slice(&bytes[at..at + n]);
                at += n;
            }
            RequestStep::Keep(n) => at += n,
            RequestStep::Send { taken, bytes, .. } => {
                sent.extend(bytes);
                at += taken;
            }
            RequestStep::Wait | RequestStep::Undecided | RequestStep::Refuse(..) => break,
        }
    }
    (String::from_utf8(sent).unwrap(), at)
}

fn sent(request: &str) -> String {
    let mut exchange = Exchange::default();
    let (sent, taken) = ask(&mut exchange, request.as_bytes());
    assert!(!exchange.is_refused(), "{request:?}");
    assert_eq!(taken, request.len(), "{request:?}");
    sent
}

/// Returns the status of the refusal, once every request before it has been answered.
fn refusal(exchange: &mut Exchange) -> String {
    let answer = exchange.take_answer().expect("an answer");
    answer.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn every_request_is_rewritten_and_bodies_are_not() {
    let body = "GET / HTTP/1.1\r\nHost: body\r\n\r\n";
    let length = body.len();
    for (request, becomes) in [
        (
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: local\r\n\r\n",
        ),
        (
            "\r\nGET http://u:p@a:1/b?c HTTP/1.1\r\nHOST:\t a \t\r\nX: a\r\nhost:b\r\n\r\n",
            "GET http://local/b?c HTTP/1.1\r\nHOST:\t local \t\r\nX: a\r\nhost:local\r\n\r\n",
        ),
        (
            "GET HTTPS://a?b HTTP/1.0\r\nHost:\r\n\r\n",
            "GET HTTPS://local?b HTTP/1.0\r\nHost:local\r\n\r\n",
        ),
        (
            &format!("PUT / HTTP/1.1\r\nContent-Length: {length}\r\nHost: a\r\n\r\n{body}"),
            &format!("PUT / HTTP/1.1\r\nContent-Length: {length}\r\nHost: local\r\n\r\n{body}"),
        ),
        (
            &format!(
                "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n\
                 {length:x};a=b\r\n{body}\r\n0\r\nX: y\r\n\r\n"
            ),
            &format!(
                "PUT / HTTP/1.1\r\nHost: local\r\nTransfer-Encoding: Chunked\r\n\r\n\
                 {length:x};a=b\r\n{body}\r\n0\r\nX: y\r\n\r\n"
            ),
        ),
    ] {
        assert_eq!(sent(&request.repeat(3)), becomes.repeat(3));
    }
}

#[test]
fn ambiguous_requests_are_refused() {
    let long = "x".repeat(MAX_HEAD);
    let many = "X: y\r\n".repeat(200);
    for (head, status) in [
        ("SSH-2.0-OpenSSH\r\n", "400"),
        ("\x16\x03\x01", "400"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400"),
        ("GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("GET\t/ HTTP/1.1\r\n", "400"),
        ("GET / HTTP/1.1\nHost: a\n\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\rHost: b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\0\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost a\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\n: a\r\n\r\n", "400"),
        ("GET / / HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", "400"),
        (
            "PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "400",
        ),
        ("PUT / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", "400"),
        ("PUT / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", "400"),
        (
            "PUT / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n",
            "400",
        ),
        (
            "PUT / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "400",
        ),
        (
            "PUT / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "400",
        ),
        (
            "PUT / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n",
            "400",
        ),
        (
            "PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "400",
        ),
        ("CONNECT a:1 HTTP/1.1\r\nContent-Length: 1\r\n\r\n", "400"),
        (&format!("GET / HTTP/1.1\r\nX: {long}"), "431"),
        (&format!("GET / HTTP/1.1\r\n{many}\r\n"), "431"),
    ] {
        let mut exchange = Exchange::default();
        assert_eq!(ask(&mut exchange, head.as_bytes()).0, "", "{head:?}");
        assert!(exchange.is_refused(), "{head:?}");
        assert_eq!(refusal(&mut exchange), status, "{head:?}");
    }
}

/// Returns how many bytes of a request are consumed in pieces, and the status if it is refused.
fn taken_of(request: &str, piece: usize) -> (usize, Option<&'static str>) {
    let (mut requests, mut taken) = (Requests::default(), 0);
    for bytes in request.as_bytes().chunks(piece) {
        taken += bytes.len();
        if let RequestStep::Refuse(refusal, _) = requests.take(bytes, &OneHost) {
            return (taken, Some(refusal.status));
        }
    }
    assert_eq!(requests.has_begun(), request.ends_with("\r\n\r\n"));
    (taken, None)
}

#[test]
fn a_head_is_refused_at_its_129th_field_however_it_is_cut() {
    let begin = format!("\r\nGET / HTTP/1.1\r\n{}", "X: y\r\n".repeat(MAX_FIELDS));
    let longest = format!("{begin}\r\n");
    let begun = format!("{begin}X: y\r");
    let too_long = format!("{begun}\nX: y\r\nX");
    let status = "431 Request Header Fields Too Large";
    for piece in [1, 7, too_long.len()] {
        assert_eq!(taken_of(&longest, piece), (longest.len(), None), "{piece}");
        assert_eq!(taken_of(&begun, piece), (begun.len(), None), "{piece}");
        // The head is refused with the piece in which the field ends, whatever follows.
        let end = (begun.len() + 1).next_multiple_of(piece);
        assert_eq!(taken_of(&too_long, piece), (end, Some(status)), "{piece}");
    }
}

#[test]
fn a_body_that_breaks_the_rules_is_refused_unless_the_service_has_begun_to_answer() {
    let chunked = "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in [
        "x\r\n",
        "1\r\nab",
        "0\r\n X: y\r\n\r\n",
        "0\r\nHost: a\r\n\r\n",
        "0\r\nContent-Length: 1\r\n\r\n",
        "0\r\nX\n",
    ] {
        let request = format!("{chunked}{body}");
        let mut exchange = Exchange::default();
        ask(&mut exchange, request.as_bytes());
        assert!(exchange.has_broken_off(), "{body:?}");
        assert_eq!(refusal(&mut exchange), "400", "{body:?}");

        let mut exchange = Exchange::default();
        ask(&mut exchange, chunked.as_bytes());
        exchange.response(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na");
        ask(&mut exchange, body.as_bytes());
        assert_eq!(exchange.take_answer(), None, "{body:?}");
        exchange.response(b"b");
        assert_eq!(exchange.take_answer().as_deref(), Some(""), "{body:?}");
    }
}

#[test]
fn a_refusal_is_sent_behind_the_service_s_responses() {
    for answers in [
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHTTP/1.1 HTTP/1.1 304 Not Modified\r\n\
         Content-Length: 9\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n\
         0\r\nX: y\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n\
         HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n\
         HTTP/1.0 200 OK\nContent-Length: 1\n\na",
    ] {
        let mut exchange = Exchange::default();
        let requests = "GET / HTTP/1.1\r\n\r\nHEAD / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\nX\r\n";
        ask(&mut exchange, requests.as_bytes());
        assert!(exchange.is_refused() && !exchange.has_broken_off());
        for byte in answers.as_bytes() {
            assert_eq!(exchange.take_answer(), None);
            exchange.response(&[*byte]);
        }
        assert_eq!(refusal(&mut exchange), "400");
    }
}

#[test]
fn the_answer_to_a_refused_head_has_no_body() {
    let mut exchange = Exchange::default();
    ask(&mut exchange, b"HEAD / HTTP/1.1\r\nHost: a\n");
    let answer = exchange.take_answer().unwrap();
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[test]
fn another_protocol_begins_only_once_the_service_switches() {
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let next = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let connect = "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n";
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let switching = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\n\r\n";
    for (request, answer, switches) in [
        (upgrade, switching, true),
        (upgrade, ok, false),
        (connect, "HTTP/1.1 200 OK\r\n\r\n", true),
        (connect, ok, false),
        (
            connect,
            "HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n",
            false,
        ),
    ] {
        let mut exchange = Exchange::default();
        // Bytes behind the request are not consumed before the decision.
        let both = format!("{next}{request}{next}");
        assert_eq!(
            ask(&mut exchange, both.as_bytes()).1,
            both.len() - next.len()
        );
        assert!(
            !exchange.response(ok.as_bytes()),
            "that was the first request's"
        );
        assert!(exchange.response(answer.as_bytes()));
        let (sent, _) = ask(&mut exchange, next.as_bytes());
        assert_eq!(sent == next, switches, "{sent}");
        // The other protocol may look like anything.
        let (sent, taken) = ask(&mut exchange, b"\0\n");
        assert_eq!((sent.as_str(), taken) == ("\0\n", 2), switches);
    }
}

#[test]
fn http_2_and_tls_are_not_switched_to() {
    for name in ["h2c", "H2", "websocket, h2c", "TLS/1.0", "HTTP/2.0"] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: {name}\r\nX: y\r\n\r\n");
        let becomes = "GET / HTTP/1.1\r\nHost: local\r\nX: y\r\n\r\n";
        assert_eq!(sent(&request.repeat(2)), becomes.repeat(2), "{name}");
    }
}

#[test]
fn the_number_of_pipelined_requests_is_bounded() {
    let mut exchange = Exchange::default();
    let request = b"GET / HTTP/1.1\r\n\r\n";
    let requests = request.repeat(MAX_PIPELINED + 1);
    assert_eq!(
        ask(&mut exchange, &requests).1,
        request.len() * MAX_PIPELINED
    );
    assert!(exchange.response(b"HTTP/1.1 204 No Content\r\n\r\n"));
    assert_eq!(ask(&mut exchange, request).1, request.len());
}

#[test]
fn a_request_that_ends_within_its_head_is_refused() {
    let mut exchange = Exchange::default();
    ask(&mut exchange, b"GET / HTTP/1.1\r\nHost: a\r\n");
    exchange.end();
    assert_eq!(refusal(&mut exchange), "400");
    let mut exchange = Exchange::default();
    ask(&mut exchange, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n");
    exchange.end();
    assert!(!exchange.is_refused());
}

/// A rule that decides when it is asked for the third time.
#[derive(Default)]
struct Slow(std::sync::atomic::AtomicUsize);

impl RequestRule for Slow {
    fn decide(&self, head: &RequestHead<'_>) -> RuleDecision {
        use std::sync::atomic::Ordering::Relaxed;
        match self.0.fetch_add(1, Relaxed) % 3 {
            2 => OneHost.decide(head),
            _ => RuleDecision::Later,
        }
    }
}

#[test]
fn no_byte_of_a_request_goes_on_before_the_rule_has_decided() {
    let request = "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let both = request.repeat(2);
    for piece in [1, 2, 5, both.len()] {
        let (mut requests, rule) = (Requests::default(), Slow::default());
        let (mut sent, mut undecided) = (Vec::new(), 0);
        for piece in both.as_bytes().chunks(piece) {
            let mut at = 0;
            while at < piece.len() {
                match requests.take(&piece[at..], &rule) {
                    RequestStep::Keep(n) => {
                        assert_ne!(n, 0);
                        at += n;
                    }
                    RequestStep::Undecided => {
                        assert!(requests.is_in_head());
                        undecided += 1;
                    }
                    RequestStep::Send { taken, bytes, .. } => {
                        at += taken;
                        sent.extend(bytes);
                    }
                    step => panic!("{step:?}"),
                }
            }
        }
        let expected = "GET / HTTP/1.1\r\nHost: local\r\n\r\n".repeat(2);
        assert_eq!(String::from_utf8(sent).unwrap(), expected, "{piece}");
        assert!((2..=4).contains(&undecided), "{undecided} of {piece}");
        assert!(requests.is_between());
    }
}
