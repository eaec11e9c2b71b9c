//! Fuzz entries for the proxy that servers are reached through: its answers.

use super::{assert_settled, cuts};
use crate::net::outbound::{parse_connect_answer, parse_socks_answer, ProxyAnswer, SocksStep};

/// Maximum length in bytes of the head of an answer to CONNECT.
const MAX_HEAD: usize = 8 * 1024;
/// Maximum length in bytes of an answer of SOCKS5: with a name.
const MAX_ANSWER: usize = 262;

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
