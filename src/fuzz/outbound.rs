//! Fuzz entries for the proxy and the links that servers are reached through: their options, a proxy's answers.

use super::{assert_settled, cuts};
use crate::config::value::Scalar;
use crate::net::outbound::{
    parse_connect_answer, parse_socks_answer, LinkSource, ProxyAnswer, ProxyServer, SocksStep,
};

/// Maximum length in bytes of the head of an answer to CONNECT.
const MAX_HEAD: usize = 8 * 1024;
/// Maximum length in bytes of an answer of SOCKS5: with a name.
const MAX_ANSWER: usize = 262;

/// Parses the values of `remoteProxy` and `remoteBind`.
pub fn outbound_options(data: &[u8]) {
    let text = &*String::from_utf8_lossy(data);
    if let Ok(proxy) = ProxyServer::read(text) {
        assert_ne!(proxy.port, 0);
        let shown = proxy.to_string();
        assert!(!shown.contains('@'));
        let again = ProxyServer::read(&shown).map(|again| again.to_string());
        assert_eq!(again, Ok(shown));
    }
    if let Ok(source) = LinkSource::read(text) {
        assert_eq!(LinkSource::read(&source.to_string()), Ok(source));
    }
}

/// Parses the answers of proxies: those to CONNECT, and those to each message of SOCKS5, behind which no
/// byte is asked for. How the bytes are cut must not matter.
pub fn proxy_answers(data: &[u8]) {
    assert_settled(data, |bytes| match parse_connect_answer(bytes) {
        ProxyAnswer::Part(missing) => {
            assert!(missing > 0 && bytes.len() < MAX_HEAD);
            None
        }
        ProxyAnswer::Whole(status, length) => {
            assert!((100..1000).contains(&status) && length <= bytes.len().min(MAX_HEAD));
            Some(Ok((status, length)))
        }
        // Which of the reasons it is may depend on what has come.
        ProxyAnswer::Wrong(_) => Some(Err(())),
    });
    for step in [
        SocksStep::Method,
        SocksStep::Password,
        SocksStep::Connection,
    ] {
        let whole = parse_socks_answer(step, data);
        if let ProxyAnswer::Whole(result, length) = whole {
            assert!(length <= data.len().min(MAX_ANSWER));
            assert_eq!(data.get(1), Some(&result));
        }
        for cut in cuts(data) {
            match parse_socks_answer(step, &data[..cut]) {
                ProxyAnswer::Part(missing) => {
                    assert!(missing > 0 && cut + missing <= MAX_ANSWER);
                    if let ProxyAnswer::Whole(_, length) = whole {
                        assert!(cut + missing <= length);
                    }
                }
                settled => assert_eq!(settled, whole, "after {cut} bytes"),
            }
        }
    }
}
