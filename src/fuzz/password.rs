//! Fuzz entry for the requests to a service whose visitors need a password.

use super::net::follow;
use super::Pace;
use crate::client::passwords::{PasswordCheck, PasswordVerdict};
use crate::client::request_edits::RequestEdits;
use crate::client::visitor_rules::VisitorRules;
use crate::config::value::Scalar;
use crate::config::{ServiceConfig, UserPassword};
use futures_lite::future::block_on;
use std::sync::{Arc, OnceLock};

/// The name "alice" and the password "secret", as a request has them.
const RIGHT: &str = "YWxpY2U6c2VjcmV0";
/// What `gt hash alice` has made of them.
const HASHED: &str = "alice:$pbkdf2-sha256$i=310000$3+4f3ib27oI8qj+tj8Bx4w$6rT2vBti7/VRXwpEl8XzVNnL/S3xcePFxPLXFL55vZo";

/// Follows the requests of a visitor: however they are read, none reaches the service without the right
/// name and password, and none with them.
pub fn passwords(data: &[u8]) {
    let rule = RequestEdits {
        password: Some(check()),
        ..RequestEdits::default()
    };
    let whole = follow(data, Pace::Whole, &rule);
    for pace in Pace::split(data) {
        assert_eq!(follow(data, pace, &rule), whole, "{pace:?}");
    }
    let given = data.windows(RIGHT.len());
    let given = given.filter(|part| *part == RIGHT.as_bytes()).count();
    assert!(whole.messages.len() <= given);
    let mut fields = [httparse::EMPTY_HEADER; 200];
    let mut request = httparse::Request::new(&mut fields);
    let read = request.parse(&whole.sent);
    if read.is_ok_and(|status| status.is_complete()) {
        assert_ne!(given, 0);
        for field in request.headers.iter() {
            assert_no_password(field.name.as_bytes());
        }
    }
    #[cfg(test)]
    super::client::node::compare(&whole.sent, whole.messages.len(), |fields| {
        fields.iter().for_each(|(name, _)| assert_no_password(name));
    });
}

fn assert_no_password(name: &[u8]) {
    assert!(!name.eq_ignore_ascii_case(b"authorization"));
}

/// Returns a check that knows the right password, so that its decision about it takes no time.
fn check() -> PasswordCheck {
    static KNOWN: OnceLock<(Arc<VisitorRules>, Arc<ServiceConfig>)> = OnceLock::new();
    let begin = || {
        let mut service = ServiceConfig::of_test(80, "web");
        service.passwords = vec![UserPassword::read(HASHED).unwrap()];
        let (rules, service) = (VisitorRules::new([&service].into_iter()), Arc::new(service));
        let known = (Arc::new(rules), service);
        let check = PasswordCheck::new(&known.0, &known.1, None).unwrap();
        let right = format!("Basic {RIGHT}");
        let verdict = block_on(check.wait(&[right.as_bytes()]));
        assert_eq!(verdict, PasswordVerdict::Right);
        known
    };
    let (rules, service) = KNOWN.get_or_init(begin);
    PasswordCheck::new(rules, service, None).unwrap()
}
