//! What the client changes in every request that it passes on to an HTTP service: the host
//! (useLocalAsHTTPHost), the fields that tell the visitor's address (forwarded), and the password, which
//! it checks (password).

use super::passwords::{PasswordCheck, PasswordVerdict};
use crate::logging::FirstRequest;
use crate::net::follow::{Edits, HeadField, HttpRefusal, RequestHead, RequestRule, RuleDecision};
use crate::wire::origin::VisitorOrigin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The fields that tell the visitor's address, the scheme that it has used, and the host that it has
/// asked for.
const FOR: &str = "X-Forwarded-For";
const PROTO: &str = "X-Forwarded-Proto";
const HOST: &str = "X-Forwarded-Host";
const REAL_IP: &str = "X-Real-IP";
/// The field with the subject of the visitor's certificate.
const SUBJECT: &str = "X-Forwarded-TLS-Client-Subject";

const AUTHORIZATION: &str = "Authorization";

/// The field by which a browser knows that it has to ask for a password (RFC 7617, section 2), as a whole
/// line.
pub const ASK_PASSWORD: &str = "WWW-Authenticate: Basic realm=\"gt\", charset=\"UTF-8\"\r\n";
/// The answer to a request without a right password.
const NO_PASSWORD: HttpRefusal = HttpRefusal {
    status: "401 Unauthorized",
    why: "this service needs a name and a password",
    fields: ASK_PASSWORD,
};
/// The answer to a request whose password cannot be checked now.
pub const TOO_MANY_PASSWORDS: HttpRefusal = HttpRefusal {
    status: "503 Service Unavailable",
    why: "too many passwords are being checked; try again later",
    fields: "Retry-After: 10\r\n",
};

/// A rule that applies these edits to every request.
#[derive(Default)]
pub struct RequestEdits {
    /// The record of the first request, for the log.
    pub first: Option<Arc<FirstRequest>>,
    /// The check of the password that each request must have; `None` if it needs none.
    pub password: Option<PasswordCheck>,
    /// The host that requests get; `None` to leave it.
    pub host: Option<String>,
    /// The visitor that requests tell of; `None` to leave them.
    pub visitor: Option<ForwardedVisitor>,
}

/// What is known of a visitor.
pub struct ForwardedVisitor {
    /// Where it comes from; `None` if nobody has told.
    pub origin: Option<Box<VisitorOrigin>>,
}

impl RequestRule for RequestEdits {
    fn decide(&self, head: &RequestHead<'_>) -> RuleDecision {
        if let Some(first) = &self.first {
            first.request(head.method(), head.target());
        }
        let mut edits = Edits::default();
        if let Some(check) = &self.password {
            let fields = || head.fields().filter(|field| field.is(AUTHORIZATION));
            match check.verdict(fields().map(|field| field.value)) {
                None => return RuleDecision::Later,
                Some(PasswordVerdict::NotNeeded) => {}
                Some(PasswordVerdict::Right) => fields().for_each(|field| edits.remove(&field)),
                Some(PasswordVerdict::Wrong) => return RuleDecision::Refuse(NO_PASSWORD),
                Some(PasswordVerdict::Busy) => return RuleDecision::Refuse(TOO_MANY_PASSWORDS),
            }
        }
        if let Some(host) = &self.host {
            set_host(&mut edits, head, host);
        }
        if let Some(visitor) = &self.visitor {
            let mut hosts = head.fields().filter(|field| field.is("host"));
            let first = hosts.next().map(|field| field.value);
            if hosts.any(|field| Some(field.value) != first) {
                // Which one the service would take is not known (RFC 9112, section 3.2).
                return RuleDecision::Refuse(HttpRefusal::bad_request("two hosts"));
            }
            visitor.tell(&mut edits, head);
        }
        RuleDecision::Forward(edits)
    }

    fn poll_decision(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.password {
            Some(check) => check.poll_done(cx),
            None => Poll::Ready(()),
        }
    }

    fn allows_trailer(&self, name: &[u8]) -> bool {
        let is_password = name.eq_ignore_ascii_case(AUTHORIZATION.as_bytes())
            && self.password.as_ref().is_some_and(PasswordCheck::is_needed);
        !is_password && (self.visitor.is_none() || !is_about_visitors(name))
    }
}

/// Sets the host of a request.
fn set_host(edits: &mut Edits, head: &RequestHead<'_>, host: &str) {
    let mut hosts = head.fields().filter(|field| field.is("host")).peekable();
    if hosts.peek().is_none() {
        // Without a Host field, which HTTP/1.0 allows, the service would choose among its hosts.
        edits.add(head, "Host", host);
    }
    for field in hosts {
        edits.set(&field, host);
    }
    let all = 0..head.target().len();
    let in_target = match head.method() {
        b"CONNECT" => Some(all),
        _ => head.authority(),
    };
    if let Some(part) = in_target {
        edits.set_target(head, part, host);
    }
}

impl ForwardedVisitor {
    /// Whether a proxy that the server trusts has told of the visitor.
    fn is_of_front(&self) -> bool {
        self.origin.as_ref().is_some_and(|origin| origin.is_told)
    }

    /// Replaces what the visitor has told of itself.
    fn tell(&self, edits: &mut Edits, head: &RequestHead<'_>) {
        let of_front = self.is_of_front();
        let keeps = |field: &HeadField<'_>| {
            of_front && [FOR, PROTO, HOST].iter().any(|name| field.is(name))
        };
        let fields = head.fields();
        for field in fields.filter(|field| is_about_visitors(field.name) && !keeps(field)) {
            edits.remove(&field);
        }
        let is_missing = |name: &str| !of_front || !head.fields().any(|field| field.is(name));
        // The word of RFC 7239, section 6.2, for a visitor of whom nobody knows the address.
        let addr = self.origin.as_ref().and_then(|origin| origin.visitor());
        let shown = addr.map_or_else(|| "unknown".to_owned(), |addr| addr.to_string());
        if is_missing(FOR) {
            edits.add(head, FOR, &shown);
        }
        if addr.is_some() {
            edits.add(head, REAL_IP, &shown);
        }
        if let Some(origin) = self.origin.as_ref().filter(|_| is_missing(PROTO)) {
            let scheme = if origin.is_decrypted { "https" } else { "http" };
            edits.add(head, PROTO, scheme);
        }
        let origin = self.origin.as_ref();
        if let Some(subject) = origin.and_then(|origin| origin.subject.as_deref()) {
            // A malicious server must not add fields of its own.
            if subject.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
                edits.add(head, SUBJECT, subject);
            }
        }
        // A service that is a proxy itself would remove the fields that are named here (RFC 9110,
        // section 7.6.1), and with them what it is told.
        for field in head.fields().filter(|field| field.is("connection")) {
            let options = field.value.split(|b| *b == b',');
            let kept: Vec<_> = options
                .filter(|option| !is_about_visitors(option.trim_ascii()))
                .map(String::from_utf8_lossy)
                .collect();
            let kept = kept.join(",");
            if kept.as_bytes() != field.value {
                edits.set(&field, &kept);
            }
        }
        let host = head.fields().find(|field| field.is("host"));
        let host = host.and_then(|field| std::str::from_utf8(field.value).ok());
        if let Some(host) = host.filter(|_| is_missing(HOST)) {
            edits.add(head, HOST, host);
        }
    }
}

/// Whether a field tells of visitors, in any spelling that a service may read as such: many make one
/// name of all that differ in case and punctuation only (RFC 3875, section 4.1.18).
fn is_about_visitors(name: &[u8]) -> bool {
    let same = |b: &u8| match b.is_ascii_alphanumeric() {
        true => b.to_ascii_lowercase(),
        false => b'-',
    };
    let begins = |with: &[u8]| {
        name.len() >= with.len() && name.iter().map(same).zip(with).all(|(a, b)| a == *b)
    };
    let is = |known: &[u8]| name.len() == known.len() && begins(known);
    begins(b"x-forwarded") || is(b"forwarded") || is(b"x-real-ip")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::follow::{RequestStep, Requests};
    use crate::wire::origin::Transport;

    fn becomes(rule: &RequestEdits, request: &str) -> String {
        let step = Requests::default().take(request.as_bytes(), rule);
        let RequestStep::Send { taken, bytes, .. } = step else {
            panic!("{request:?}: {step:?}");
        };
        assert_eq!(taken, request.len());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn every_request_gets_the_local_host_even_without_a_host_field() {
        let rule = RequestEdits {
            host: Some("local:1".to_owned()),
            visitor: None,
            first: None,
            password: None,
        };
        for (request, expected) in [
            (
                "GET / HTTP/1.0\r\n\r\n",
                "GET / HTTP/1.0\r\nHost: local:1\r\n\r\n",
            ),
            (
                "GET http://a/b HTTP/1.1\r\nAccept: */*\r\n\r\n",
                "GET http://local:1/b HTTP/1.1\r\nAccept: */*\r\nHost: local:1\r\n\r\n",
            ),
            (
                "CONNECT a:2 HTTP/1.1\r\n\r\n",
                "CONNECT local:1 HTTP/1.1\r\nHost: local:1\r\n\r\n",
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: local:1\r\nhost: local:1\r\n\r\n",
            ),
        ] {
            assert_eq!(becomes(&rule, request), expected);
        }
    }

    /// A visitor at 192.0.2.7 whose TLS the server has decrypted.
    fn visitor(is_told: bool) -> ForwardedVisitor {
        ForwardedVisitor {
            origin: Some(Box::new(VisitorOrigin {
                transport: Transport::Tcp,
                source: "192.0.2.7:5".parse().unwrap(),
                destination: "198.51.100.1:443".parse().unwrap(),
                is_decrypted: true,
                is_told,
                server_name: None,
                subject: None,
            })),
        }
    }

    fn edits(visitor: ForwardedVisitor) -> RequestEdits {
        RequestEdits {
            host: None,
            visitor: Some(visitor),
            first: None,
            password: None,
        }
    }

    const TOLD: &str = "X-Forwarded-For: 192.0.2.7\r\nX-Real-IP: 192.0.2.7\r\n\
                        X-Forwarded-Proto: https\r\nX-Forwarded-Host: a\r\n";

    #[test]
    fn what_a_visitor_says_of_itself_is_replaced_in_every_spelling() {
        let rule = edits(visitor(false));
        for forged in [
            "",
            "X-Forwarded-For: 203.0.113.9\r\n",
            "x-forwarded-for: 203.0.113.9\r\nX-FORWARDED-FOR: 203.0.113.8\r\n",
            "X_Forwarded_For: 203.0.113.9\r\nX.Forwarded.For: 203.0.113.8\r\n",
            "X_FORWARDED-FOR:203.0.113.9\r\nX~Real!IP:\t203.0.113.9\r\n",
            "X-Real-IP: 203.0.113.9\r\nX_Real_IP: 203.0.113.9\r\n",
            "X-Forwarded-Proto: http\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\n",
            "Forwarded: for=203.0.113.9\r\nX-Forwarded: for=1\r\nX-Forwarded-Server: b\r\n",
        ] {
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{forged}Accept: x\r\n\r\n");
            let expected = format!("GET / HTTP/1.1\r\nHost: a\r\nAccept: x\r\n{TOLD}\r\n");
            assert_eq!(becomes(&rule, &request), expected);
        }
        // Others that only begin or end alike stay.
        let kept = "X-Real-IPs: 1\r\nX-Forward: 2\r\nNot-Forwarded: 3\r\n";
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{kept}\r\n");
        assert!(becomes(&rule, &request).contains(kept));
    }

    #[test]
    fn a_trusted_proxy_s_words_stay_and_what_it_does_not_say_is_added() {
        let rule = edits(visitor(true));
        let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.1, 192.0.2.7\r\n\
                       X-Forwarded-Proto: http\r\nX_Forwarded_For: 203.0.113.9\r\nX-Real-IP: 1\r\n\r\n";
        assert_eq!(
            becomes(&rule, request),
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.1, 192.0.2.7\r\n\
             X-Forwarded-Proto: http\r\nX-Real-IP: 192.0.2.7\r\nX-Forwarded-Host: a\r\n\r\n"
        );
    }

    #[test]
    fn a_visitor_cannot_have_the_fields_removed_behind_gt() {
        let rule = edits(visitor(false));
        for (connection, expected) in [
            ("keep-alive", "keep-alive"),
            ("close, X-Real-IP", "close"),
            ("x_real_ip,X-Forwarded-For , keep-alive", " keep-alive"),
            ("Forwarded", ""),
        ] {
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\n\r\n");
            let expected =
                format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {expected}\r\n{TOLD}\r\n");
            assert_eq!(becomes(&rule, &request), expected);
        }
    }

    #[test]
    fn a_request_with_two_hosts_is_refused() {
        let rule = edits(visitor(false));
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n";
        let step = Requests::default().take(request, &rule);
        assert!(matches!(step, RequestStep::Refuse(..)), "{step:?}");
        let same = "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n";
        assert!(becomes(&rule, same).ends_with(&format!("Host: a\r\n{TOLD}\r\n")));
    }

    #[test]
    fn an_unknown_visitor_is_called_so() {
        let rule = edits(ForwardedVisitor { origin: None });
        let request = "GET / HTTP/1.0\r\nX-Real-IP: 1\r\nX-Forwarded-Proto: https\r\n\r\n";
        let expected = "GET / HTTP/1.0\r\nX-Forwarded-For: unknown\r\n\r\n";
        assert_eq!(becomes(&rule, request), expected);
    }

    #[test]
    fn the_host_that_is_told_is_the_one_that_the_visitor_has_asked_for() {
        let rule = RequestEdits {
            host: Some("local:1".to_owned()),
            visitor: Some(visitor(false)),
            first: None,
            password: None,
        };
        let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let expected = format!("GET / HTTP/1.1\r\nHost: local:1\r\n{TOLD}\r\n");
        assert_eq!(becomes(&rule, request), expected);
    }

    #[test]
    fn a_trailer_must_not_tell_of_the_visitor() {
        let request = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\
                        x_forwarded-for: 203.0.113.9\r\n\r\n";
        for (rule, is_refused) in [
            (edits(visitor(true)), true),
            (
                RequestEdits {
                    host: Some("a".to_owned()),
                    visitor: None,
                    first: None,
                    password: None,
                },
                false,
            ),
        ] {
            let (mut requests, mut at) = (Requests::default(), 0);
            let refused = loop {
                match requests.take(&request[at..], &rule) {
                    RequestStep::Refuse(..) => break true,
                    RequestStep::Send { taken, .. } => at += taken,
                    RequestStep::Pass(n) | RequestStep::Keep(n) => at += n,
                    RequestStep::Wait | RequestStep::Undecided => {
                        panic!("nothing to wait for")
                    }
                }
                if at == request.len() {
                    break false;
                }
            };
            assert_eq!(refused, is_refused);
        }
    }
}
