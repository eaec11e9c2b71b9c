//! Fuzz entry for the answers of an authority (ACME), and the certificates in them.

use crate::net::tls::certificate_facts::CertificateFacts;
use crate::server::acme::messages::{self, AcmeUrl, DirectoryUrls, Problem, RenewalWindow};

/// Reads an answer in all of its kinds.
pub fn acme_answers(data: &[u8]) {
    if let Ok(urls) = messages::read::<DirectoryUrls>(data) {
        assert_usable(&urls.new_order);
        let _ = messages::read::<DirectoryUrls>(data);
    }
    match messages::order(data) {
        Ok(messages::OrderStatus::Pending { authorizations }) => {
            assert!((1..=10).contains(&authorizations.len()));
            authorizations.iter().for_each(assert_usable);
        }
        Ok(_) => {}
        // The error quotes nothing of the answer.
        Err(why) => assert!(why.len() < 200),
    }
    if let Ok(authorization) = messages::authorization(data, "a.example.com") {
        assert!(!authorization.wildcard);
        for challenge in authorization.challenges {
            if let Some(token) = challenge.token {
                // The token is a part of a path.
                assert!(token
                    .0
                    .bytes()
                    .all(|it| it.is_ascii_alphanumeric() || b"-_".contains(&it)));
            }
        }
    }
    if let Ok(problem) = messages::read::<Problem>(data) {
        let text = problem.text();
        assert!(text.chars().count() <= 301 && !text.chars().any(char::is_control));
    }
    if let Some(window) = RenewalWindow::read(data) {
        assert!(window.start < window.end);
    }
    if let Some(facts) = CertificateFacts::read(data) {
        assert!(facts.names.len() <= 100 && facts.public_key.len() <= data.len());
    }
}

/// Asserts that a URL can be a request line.
fn assert_usable(url: &AcmeUrl) {
    assert!(url.url.tls && url.url.target.starts_with('/'));
    assert!(url.url.target.bytes().all(|byte| byte.is_ascii_graphic()));
}
