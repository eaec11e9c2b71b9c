//! A fuzz entry for the STUN server.

use crate::server::stun::answer::{could_be_request, to};
use rtc_stun::message::Message;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// Answers a datagram to the STUN server.
pub fn stun(data: &[u8]) {
    if could_be_request(data).is_err() {
        return;
    }
    for (from, address) in [
        (SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 32853)), 12),
        (SocketAddr::from((Ipv6Addr::LOCALHOST, 1)), 24),
    ] {
        let Ok(answer) = to(data, from) else {
            continue;
        };
        let bytes = &answer.bytes;
        // The server must not amplify.
        if answer.is_error {
            assert!(2 * bytes.len() <= 3 * data.len());
        } else {
            assert!(bytes.len() <= data.len() + address);
        }
        // The client recognises its answer by the transaction.
        assert_eq!(bytes[4..20], data[4..20]);
        let mut again = Message::default();
        let decoded = again.unmarshal_binary(bytes);
        assert!(decoded.is_ok(), "{decoded:?}");
        assert_eq!(bytes[0], 1);
        assert!(
            could_be_request(bytes).is_err(),
            "its answer is no question"
        );
    }
}
