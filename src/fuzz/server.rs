//! Fuzz entries for the first bytes of a visitor.

use super::{assert_settled, seed};
use crate::server::api::request::{self, AllowedHosts};
use crate::server::client_hello::{asking_for, server_name, HelloResult as Name, MAX_CLIENT_HELLO};
use crate::server::http_head::{find, host_prefix, HeadResult, MAX_HEAD};
use crate::wire::origin::VisitorOrigin;
use crate::wire::proxy_protocol::parse::{parse, ProxyHeader, MAX_HEADER};
use crate::wire::proxy_protocol::ProxyVersion;
use std::net::SocketAddr;

/// Parses the head of a visitor's request, and of an API request.
pub fn http_head(data: &[u8]) {
    // At the limit there must be a verdict, whatever follows.
    let short = &data[..data.len().min(MAX_HEAD - 1)];
    for name in ["Host", "x"] {
        assert_settled(short, |bytes| match find(bytes, name) {
            HeadResult::More => None,
            // The sentence is for people; a complete line may get a better one.
            HeadResult::Bad(_) => Some(HeadResult::Bad("")),
            verdict => Some(verdict),
        });
        let found = find(data, name);
        match found {
            HeadResult::Value(value) => {
                let value_of = |text: &str| text.trim_matches([' ', '\t']).len();
                assert_eq!(value_of(value), value.len());
                assert!(!value.contains('\n') && value.len() < data.len());
                let prefix = host_prefix(value);
                assert!(prefix.len() <= value.len());
                // The case does not matter.
                assert_eq!(prefix, host_prefix(&value.to_ascii_uppercase()));
            }
            HeadResult::More => assert!(data.len() < MAX_HEAD),
            HeadResult::TooLong => assert!(data.len() >= MAX_HEAD),
            HeadResult::Bad(_) => {}
        }
    }
    let short = &data[..data.len().min(request::MAX_HEAD - 1)];
    let parse = |head: &[u8]| request::parse(head, &AllowedHosts::default());
    assert_settled(short, parse);
    if data.len() >= request::MAX_HEAD {
        assert!(parse(data).is_some());
    }
}

/// Parses the PROXY header at the start of a connection.
pub fn proxy_header(data: &[u8]) {
    assert_settled(data, |bytes| parse(bytes).transpose());
    match parse(data) {
        Ok(Some(ProxyHeader { length, origin })) => {
            assert!(length <= data.len().min(MAX_HEADER));
            if let Some(origin) = origin {
                // What is passed on is what was read.
                let again = parse(&ProxyVersion::Two.encode(Some(&origin)));
                let again = again.unwrap().unwrap().origin.unwrap();
                let parts = |origin: &VisitorOrigin| {
                    let ip = |address: SocketAddr| (address.ip().to_canonical(), address.port());
                    (
                        ip(origin.source),
                        ip(origin.destination),
                        origin.is_decrypted,
                    )
                };
                assert_eq!(parts(&again), parts(&origin));
                assert_eq!(again.server_name, origin.server_name);
            }
        }
        Ok(None) => assert!(data.len() < MAX_HEADER),
        Err(_) => {}
    }
}

/// Parses the first bytes of a TLS connection.
pub fn client_hello(data: &[u8]) {
    let short = &data[..data.len().min(MAX_CLIENT_HELLO - 1)];
    assert_settled(short, |bytes| match server_name(bytes) {
        Name::More => None,
        verdict => Some(verdict),
    });
    match server_name(data) {
        Name::Name(name) => {
            assert!(name.len() < data.len());
            assert_eq!(name, name.to_ascii_lowercase());
            if name.len() < 255 {
                let hello = asking_for(&name);
                assert_eq!(server_name(&hello), Name::Name(name));
            }
        }
        Name::More => assert!(data.len() < MAX_CLIENT_HELLO),
        Name::Nameless | Name::Bad => {}
    }
    // The same bytes as one message, in records of another size.
    if data.len() < MAX_CLIENT_HELLO / 2 {
        let size = usize::try_from(seed(data) % 64).unwrap_or_default() + 1;
        let in_records = |size: usize| {
            let pieces = data.chunks(size).flat_map(|piece| {
                let length = u16::try_from(piece.len()).unwrap_or_default();
                let head = [22, 3, 1].into_iter().chain(length.to_be_bytes());
                head.chain(piece.iter().copied())
            });
            pieces.collect::<Vec<u8>>()
        };
        let one = server_name(&in_records(usize::MAX));
        let many = in_records(size);
        if many.len() < MAX_CLIENT_HELLO {
            assert_eq!(server_name(&many), one, "in records of {size}");
        }
    }
}
