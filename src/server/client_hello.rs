//! Routing by the server name of a TLS ClientHello (RFC 8446, section 4.1.2; RFC 6066, section 3).
//! Nothing is decrypted or changed.

use crate::net::tls::{HANDSHAKE_RECORD, MAX_RECORD};

/// Maximum length of a ClientHello in bytes, including record headers.
pub const MAX_CLIENT_HELLO: usize = 18 * 1024;

const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
/// The extension with the application protocols that a client offers (RFC 7301).
const PROTOCOLS: u16 = 16;
const HOST_NAME: u8 = 0;

/// The verdict about the bytes of a connection received so far.
#[derive(Debug, PartialEq, Eq)]
pub enum HelloResult {
    /// The server name, in lower case.
    Name(String),
    /// An incomplete ClientHello: more bytes are needed.
    More,
    /// A ClientHello without a server name.
    Nameless,
    /// Not TLS.
    Bad,
}

/// What a ClientHello tells that fits into one read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct HelloFacts {
    /// The server name, in lower case.
    pub name: Option<String>,
    /// The application protocols that the client offers.
    pub protocols: Vec<Vec<u8>>,
}

impl HelloFacts {
    /// Reads the start of a connection; has nothing if it is not a whole ClientHello.
    pub fn of(bytes: &[u8]) -> Self {
        let Ok((message, _)) = join_records(bytes) else {
            return Self::default();
        };
        let read = || {
            let length = message_length(&message)?;
            let body = (*message.first()? == CLIENT_HELLO).then(|| message.get(4..length))??;
            let hello = read_body(body)?;
            Some(Self {
                name: hello.name.map(str::to_ascii_lowercase),
                protocols: hello.protocols.map_or(Some(Vec::new()), protocols)?,
            })
        };
        read().unwrap_or_default()
    }
}

/// Parses the start of a connection. The ClientHello may be split over several records.
pub fn server_name(bytes: &[u8]) -> HelloResult {
    match join_records(bytes) {
        Ok((message, whole)) => match read_message(&message) {
            Some(found) => found,
            None if whole => HelloResult::Bad,
            None if bytes.len() >= MAX_CLIENT_HELLO => HelloResult::Bad,
            None => HelloResult::More,
        },
        Err(NotTls) => HelloResult::Bad,
    }
}

/// Encodes a minimal ClientHello for `name`, which must be shorter than 255 bytes. It is routed like
/// any other, but does not lead to a handshake.
pub fn asking_for(name: &str) -> Vec<u8> {
    let name = with_length(&[name.as_bytes()]);
    let names = with_length(&[&[HOST_NAME], &name]);
    let extension = [&SERVER_NAME.to_be_bytes()[..], &with_length(&[&names])].concat();
    let body = [
        &[3, 3][..],
        &[0; 32],            // random
        &[0],                // no session
        &[0, 2, 0x13, 0x01], // TLS_AES_128_GCM_SHA256
        &[1, 0],             // no compression
        &with_length(&[&extension]),
    ]
    .concat();
    let message = [&[CLIENT_HELLO, 0][..], &with_length(&[&body])].concat();
    [&[HANDSHAKE_RECORD, 3, 1][..], &with_length(&[&message])].concat()
}

/// Prefixes the concatenated parts with their length in two bytes.
fn with_length(parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    // The parts have a few hundred bytes at most.
    let len = (content.len() as u16).to_be_bytes();
    [&len[..], &content].concat()
}

/// The error that bytes are not TLS.
struct NotTls;

/// Joins the fragments of the handshake message. Returns true if more bytes would not add to it.
fn join_records(mut bytes: &[u8]) -> Result<(Vec<u8>, bool), NotTls> {
    let mut message = Vec::new();
    loop {
        let (kind, rest) = match bytes {
            [] => return Ok((message, false)),
            [kind, rest @ ..] => (*kind, rest),
        };
        if kind != HANDSHAKE_RECORD || rest.first().is_some_and(|major| *major != 3) {
            return Err(NotTls);
        }
        let Some(([_, _, high, low], rest)) = rest.split_first_chunk::<4>() else {
            return Ok((message, false));
        };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        if len == 0 || len > MAX_RECORD {
            return Err(NotTls);
        }
        let Some((fragment, rest)) = rest.split_at_checked(len) else {
            message.extend_from_slice(rest);
            return Ok((message, false));
        };
        message.extend_from_slice(fragment);
        // The first message is the ClientHello; anything may follow it.
        if message_length(&message).is_some_and(|len| message.len() >= len) {
            return Ok((message, true));
        }
        bytes = rest;
    }
}

fn message_length(message: &[u8]) -> Option<usize> {
    let [_, a, b, c, ..] = message else {
        return None;
    };
    let len = u32::from_be_bytes([0, *a, *b, *c]);
    usize::try_from(len).ok()?.checked_add(4)
}

/// Parses the message; `None` if it is incomplete.
fn read_message(message: &[u8]) -> Option<HelloResult> {
    if *message.first()? != CLIENT_HELLO {
        return Some(HelloResult::Bad);
    }
    let len = message_length(message)?;
    if len > MAX_CLIENT_HELLO {
        return Some(HelloResult::Bad);
    }
    let body = message.get(4..len)?;
    Some(match read_body(body) {
        Some(HelloBody {
            name: Some(name), ..
        }) => HelloResult::Name(name.to_ascii_lowercase()),
        Some(HelloBody { name: None, .. }) => HelloResult::Nameless,
        None => HelloResult::Bad,
    })
}

/// The parts of a ClientHello that are read.
#[derive(Default)]
struct HelloBody<'a> {
    name: Option<&'a str>,
    /// The content of the extension with application protocols.
    protocols: Option<&'a [u8]>,
}

/// Parses the body of a ClientHello; `None` if it is malformed.
fn read_body(body: &[u8]) -> Option<HelloBody<'_>> {
    let mut found = HelloBody::default();
    // Skips version and random.
    let rest = body.get(34..)?;
    let (_session, rest) = vector8(rest)?;
    let (_suites, rest) = vector16(rest)?;
    let (_compression, rest) = vector8(rest)?;
    if rest.is_empty() {
        return Some(found);
    }
    let (mut extensions, _) = vector16(rest)?;
    while !extensions.is_empty() {
        let extension =
            u16_first(extensions).and_then(|(kind, rest)| Some((kind, vector16(rest)?)));
        let (kind, (content, rest)) = match extension {
            Some(extension) => extension,
            // Whatever follows the name does not matter.
            None => return found.name.is_some().then_some(found),
        };
        match kind {
            SERVER_NAME if found.name.is_none() => found.name = host_name(content)?,
            PROTOCOLS => found.protocols = Some(content),
            _ => {}
        }
        extensions = rest;
    }
    Some(found)
}

/// Returns the host name among server names; `None` if they are malformed, `Some(None)` without one.
fn host_name(content: &[u8]) -> Option<Option<&str>> {
    let (mut names, _) = vector16(content)?;
    while let Some((kind, rest)) = names.split_first() {
        let (name, rest) = vector16(rest)?;
        if *kind == HOST_NAME {
            return std::str::from_utf8(name).ok().map(Some);
        }
        names = rest;
    }
    Some(None)
}

/// Returns the application protocols of an extension; `None` if it is malformed.
fn protocols(content: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut list, _) = vector16(content)?;
    let mut protocols = Vec::new();
    while !list.is_empty() {
        let (protocol, rest) = vector8(list)?;
        protocols.push(protocol.to_vec());
        list = rest;
    }
    Some(protocols)
}

fn u16_first(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (first, rest) = bytes.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*first), rest))
}

fn vector8(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*len))
}

fn vector16(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = u16_first(bytes)?;
    rest.split_at_checked(usize::from(len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Encodes a ClientHello message with these extensions (type, content).
    fn message(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut list = Vec::new();
        for (kind, content) in extensions {
            list.extend_from_slice(&kind.to_be_bytes());
            list.extend_from_slice(&(content.len() as u16).to_be_bytes());
            list.extend_from_slice(content);
        }
        let mut body = vec![3, 3];
        body.extend_from_slice(&[7; 32]);
        body.extend_from_slice(&[2, 0xAA, 0xBB]); // session
        body.extend_from_slice(&[0, 2, 0x13, 0x01]); // suites
        body.extend_from_slice(&[1, 0]); // compression
        body.extend_from_slice(&(list.len() as u16).to_be_bytes());
        body.extend_from_slice(&list);
        let mut message = vec![CLIENT_HELLO, 0];
        message.extend_from_slice(&(body.len() as u16).to_be_bytes());
        message.extend_from_slice(&body);
        message
    }

    fn name(host: &str) -> (u16, Vec<u8>) {
        let mut content = ((host.len() + 3) as u16).to_be_bytes().to_vec();
        content.push(HOST_NAME);
        content.extend_from_slice(&(host.len() as u16).to_be_bytes());
        content.extend_from_slice(host.as_bytes());
        (SERVER_NAME, content)
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for fragment in message.chunks(size) {
            out.extend_from_slice(&[HANDSHAKE_RECORD, 3, 1]);
            out.extend_from_slice(&(fragment.len() as u16).to_be_bytes());
            out.extend_from_slice(fragment);
        }
        out
    }

    #[test]
    fn the_name_is_read_from_any_fragments_but_not_early() {
        let message = message(&[
            (43, vec![2, 3, 4]),
            name("Id1.Example.com"),
            (0xFF01, vec![0]),
        ]);
        for size in [1, 2, 5, 40, 1000] {
            let bytes = records(&message, size);
            for cut in 0..bytes.len() {
                assert_eq!(
                    server_name(&bytes[..cut]),
                    HelloResult::More,
                    "{size} cut at {cut}"
                );
            }
            assert_eq!(
                server_name(&bytes),
                HelloResult::Name("id1.example.com".into())
            );
            let longer = [&bytes[..], &[20, 3, 3, 0, 1, 1]].concat();
            assert_eq!(
                server_name(&longer),
                HelloResult::Name("id1.example.com".into())
            );
        }
    }

    #[test]
    fn the_minimal_hello_contains_its_name() {
        let hello = asking_for("id1.example.com");
        for cut in 0..hello.len() {
            assert_eq!(
                server_name(&hello[..cut]),
                HelloResult::More,
                "cut at {cut}"
            );
        }
        assert_eq!(
            server_name(&hello),
            HelloResult::Name("id1.example.com".into())
        );
    }

    #[test]
    fn a_hello_without_a_name_is_nameless() {
        assert_eq!(
            server_name(&records(&message(&[]), 100)),
            HelloResult::Nameless
        );
        assert_eq!(
            server_name(&records(&message(&[(16, vec![0, 0])]), 100)),
            HelloResult::Nameless
        );
    }

    #[test]
    fn anything_but_a_client_hello_is_rejected() {
        for bytes in [
            &b"GET / HTTP/1.1"[..],
            &[22, 2, 0],
            &[22, 3, 1, 0, 0],
            &[22, 3, 1, 0xFF, 0xFF],
            &[22, 3, 1, 0, 4, 2, 0, 0, 0],
            &[22, 3, 1, 0, 4, 1, 0xFF, 0xFF, 0xFF],
            &[22, 3, 1, 0, 6, 1, 0, 0, 2, 3, 3],
        ] {
            assert_eq!(server_name(bytes), HelloResult::Bad, "{bytes:?}");
        }
    }

    #[test]
    fn a_hello_beyond_the_maximum_length_is_rejected() {
        let mut message = message(&[name("a.b")]);
        message[1..4].copy_from_slice(&[0, 0x47, 0xF0]);
        message.resize(0x47F0, 0);
        let bytes = records(&message, 1000);
        assert!(bytes.len() > MAX_CLIENT_HELLO);
        assert_eq!(
            server_name(&bytes[..MAX_CLIENT_HELLO - 1]),
            HelloResult::More
        );
        assert_eq!(server_name(&bytes), HelloResult::Bad);
    }

    proptest! {
        #[test]
        fn a_changed_hello_is_parsed_without_panic(
            at in 0usize..120, value in any::<u8>(), size in 1usize..80,
        ) {
            let mut bytes = records(&message(&[name("id1.example.com")]), size);
            let at = at % bytes.len();
            bytes[at] = value;
            server_name(&bytes);
        }

        #[test]
        fn any_bytes_are_parsed_without_panic(mut bytes in proptest::collection::vec(any::<u8>(), 3..200)) {
            bytes[..2].copy_from_slice(&[HANDSHAKE_RECORD, 3]);
            server_name(&bytes);
        }
    }
}
