//! SOCKS5 as a client of a proxy: the messages of RFC 1928 and RFC 1929 and the answers to them.

use super::answer::ProxyAnswer;
use super::literal;
use crate::net::socks5::{
    reply, CONNECT, IPV4, IPV6, NAME, NO_PASSWORD, PASSWORD, PASSWORD_VERSION, VERSION,
};
use std::net::IpAddr;

/// Maximum length in bytes of an answer: that of the last step with a name (RFC 1928, section 6).
pub const MAX_ANSWER: usize = 4 + 1 + 255 + 2;

/// A step of the exchange with a proxy; they follow in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SocksStep {
    /// The choice of the authentication method.
    Method,
    /// The check of the name and the password (RFC 1929).
    Password,
    /// The request for a connection.
    Connection,
}

/// Returns the greeting, with the authentication methods that the client can use.
pub fn greeting(has_login: bool) -> &'static [u8] {
    match has_login {
        true => &[VERSION, 2, NO_PASSWORD, PASSWORD],
        false => &[VERSION, 1, NO_PASSWORD],
    }
}

/// Whether the answer to the greeting asks for a password.
pub fn asks_for_password(method: u8) -> bool {
    method == PASSWORD
}

/// Returns the message with name and password, each of at most 255 bytes.
pub fn password(user: &[u8], password: &[u8]) -> Vec<u8> {
    let mut message = vec![PASSWORD_VERSION];
    for text in [user, password] {
        let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
        message.push(length);
        message.extend(text.iter().take(usize::from(length)));
    }
    message
}

/// Returns the request for a connection; a name is looked up by the proxy. `None` if the name is too long.
pub fn request(host: &str, port: u16) -> Option<Vec<u8>> {
    let mut message = vec![VERSION, CONNECT, 0];
    match literal(host) {
        Some(IpAddr::V4(address)) => {
            message.push(IPV4);
            message.extend(address.octets());
        }
        Some(IpAddr::V6(address)) => {
            message.push(IPV6);
            message.extend(address.octets());
        }
        None => {
            message.extend([NAME, u8::try_from(host.len()).ok()?]);
            message.extend(host.as_bytes());
        }
    }
    message.extend(port.to_be_bytes());
    Some(message)
}

/// Parses the answer to the message of a step. The result is the method, or 0 for a success.
pub fn parse(step: SocksStep, bytes: &[u8]) -> ProxyAnswer<u8> {
    const NO_SOCKS: ProxyAnswer<u8> = ProxyAnswer::Wrong("it does not speak SOCKS5");
    match (step, bytes) {
        // Some proxies answer with the version of SOCKS here.
        (SocksStep::Password, [PASSWORD_VERSION | VERSION, rest @ ..])
        | (SocksStep::Method, [VERSION, rest @ ..]) => match rest.first() {
            Some(result) => ProxyAnswer::Whole(*result, 2),
            None => ProxyAnswer::Part(1),
        },
        (SocksStep::Connection, [VERSION, rest @ ..]) => match rest {
            // An error ends the connection, and what follows does not count.
            [result @ 1..=u8::MAX, ..] => ProxyAnswer::Whole(*result, 2),
            [result, _, kind, first, ..] => {
                let length = match *kind {
                    IPV4 => 10,
                    IPV6 => 22,
                    NAME => usize::from(*first).saturating_add(7),
                    _ => return NO_SOCKS,
                };
                match length.saturating_sub(bytes.len()) {
                    0 => ProxyAnswer::Whole(*result, length),
                    missing => ProxyAnswer::Part(missing),
                }
            }
            [] => ProxyAnswer::Part(1),
            // Up to the first byte of the address, which may be its length.
            rest => ProxyAnswer::Part(4usize.saturating_sub(rest.len())),
        },
        (SocksStep::Connection, []) => ProxyAnswer::Part(2),
        (_, []) => ProxyAnswer::Part(2),
        _ => NO_SOCKS,
    }
}

/// Returns why a proxy accepts no authentication method of the client, and what to do.
pub fn no_method(has_login: bool) -> &'static str {
    match has_login {
        true => "it accepts no password; remove it from remoteProxy",
        false => "it asks for a name and a password; write remoteProxy like socks5://user:password@host:port",
    }
}

/// Returns why a proxy opens no connection (RFC 1928, section 6), and what to do.
pub fn refusal(code: u8) -> String {
    let why = match code {
        reply::NOT_ALLOWED => "it does not allow a connection to this server and port",
        reply::NETWORK_UNREACHABLE => "its network is unreachable",
        reply::HOST_UNREACHABLE => "it cannot reach the server, or does not know its name",
        reply::REFUSED => "the server refuses its connections",
        reply::EXPIRED => "the server does not answer it",
        reply::NO_COMMAND => "it does not open connections for others (CONNECT)",
        reply::NO_ADDRESS_TYPE => "it does not support this kind of address",
        _ => "it has failed",
    };
    format!("{why} (SOCKS5 reply {code})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_the_rfcs() {
        assert_eq!(greeting(false), [5, 1, 0]);
        assert_eq!(greeting(true), [5, 2, 0, 2]);
        assert_eq!(password(b"u", b"pw"), b"\x01\x01u\x02pw");
        assert_eq!(request("h", 443).unwrap(), b"\x05\x01\0\x03\x01h\x01\xBB");
        assert_eq!(
            request("192.0.2.1", 80).unwrap(),
            [5, 1, 0, 1, 192, 0, 2, 1, 0, 80]
        );
        assert_eq!(request("::1", 80).unwrap().len(), 22);
        assert!(request(&"h".repeat(256), 80).is_none());
    }

    #[test]
    fn no_byte_behind_an_answer_is_asked_for() {
        use SocksStep::*;
        for (step, answer) in [
            (Method, &[5, 2][..]),
            (Password, &[1, 0]),
            (Password, &[5, 1]),
            (Connection, &[5, 0, 0, 1, 1, 2, 3, 4, 5, 6]),
            (Connection, &[5, 0, 0, 3, 2, b'h', b'i', 5, 6]),
            (Connection, &[5, 0, 0, 3, 0, 5, 6]),
            (Connection, &[&[5, 0, 0, 4][..], &[9; 18]].concat()),
            (Connection, &[5, 4]),
        ] {
            let mut come = 0;
            while let ProxyAnswer::Part(missing) = parse(step, &answer[..come]) {
                assert!(missing > 0 && come + missing <= answer.len(), "{answer:?}");
                come += missing;
            }
            assert_eq!(
                parse(step, answer),
                ProxyAnswer::Whole(answer[1], answer.len())
            );
        }
    }

    #[test]
    fn other_protocols_are_told_at_their_first_byte() {
        for step in [
            SocksStep::Method,
            SocksStep::Password,
            SocksStep::Connection,
        ] {
            assert!(matches!(parse(step, b"H"), ProxyAnswer::Wrong(_)));
        }
        let strange = [5, 0, 0, 9, 0, 0];
        assert!(matches!(
            parse(SocksStep::Connection, &strange),
            ProxyAnswer::Wrong(_)
        ));
    }
}
