//! The GT/1 hello (docs/gt1.md, "Hello"), and its list of services, which GT/2 shares.

use crate::wire::hello::{
    Credentials, GroupSpec, Hello, Proof, ServiceSpec, MAX_DOMAIN, MAX_DOMAINS, MAX_GROUP,
    MAX_NAME, MAX_OPTIONS,
};
use crate::wire::{Malformed, Version, MAGIC};

const HTTP_ID: u8 = 0x00;
const TCP: u8 = 0x01;
const MORE: u8 = 0x02;
const HTTP_PREFIX: u8 = 0x03;
const TLS_ID: u8 = 0x04;
const TLS_PREFIX: u8 = 0x05;
/// In GT/2 only.
const HTTP_DOMAINS: u8 = 0x06;
/// In GT/2 only.
const TLS_DOMAINS: u8 = 0x07;
/// In GT/2 only.
const UDP: u8 = 0x08;
/// In GT/2 only.
const GROUPED: u8 = 0x09;

/// Bit of the flags of a group: visitors of one address should come to the same member.
const STICKY: u8 = 1;

/// Encodes a complete hello.
pub fn encode(id: &str, secret: &[u8], services: &[ServiceSpec]) -> Vec<u8> {
    let mut out = vec![MAGIC, Version::One.byte()];
    encode_registration(&mut out, id, secret, services);
    out
}

/// Encodes a hello without magic and version, as it follows a services signal (docs/gt1.md, "The
/// life of a tunnel", 7). Names longer than [`MAX_NAME`] are cut; configuration rejects them
/// earlier.
pub fn encode_registration(out: &mut Vec<u8>, id: &str, secret: &[u8], services: &[ServiceSpec]) {
    name(out, id.as_bytes());
    name(out, secret);
    encode_services(out, services);
}

/// Encodes the list of services, starting at the first option.
pub fn encode_services(out: &mut Vec<u8>, services: &[ServiceSpec]) {
    for (at, spec) in services.iter().enumerate() {
        if at + 1 < services.len() {
            out.push(MORE);
        }
        if let Some(GroupSpec { name, key, sticky }) = spec.group() {
            out.push(GROUPED);
            let name = name.as_bytes();
            let name = name.get(..MAX_GROUP).unwrap_or(name);
            // MAX_GROUP fits a byte.
            out.push(name.len() as u8);
            out.extend_from_slice(name);
            self::name(out, key);
            out.push(if *sticky { STICKY } else { 0 });
        }
        match spec.ungrouped() {
            // A service of a group is none of another.
            ServiceSpec::Grouped { .. } => {}
            ServiceSpec::Host { tls, prefix: None } => {
                out.push(if *tls { TLS_ID } else { HTTP_ID })
            }
            ServiceSpec::Host {
                tls,
                prefix: Some(prefix),
            } => {
                out.push(if *tls { TLS_PREFIX } else { HTTP_PREFIX });
                name(out, prefix.as_bytes());
            }
            ServiceSpec::Domains {
                tls,
                prefix,
                domains,
            } => {
                out.push(if *tls { TLS_DOMAINS } else { HTTP_DOMAINS });
                name(out, prefix.as_deref().unwrap_or_default().as_bytes());
                let domains = domains.get(..MAX_DOMAINS).unwrap_or(domains);
                // MAX_DOMAINS and MAX_DOMAIN fit a byte.
                out.push(domains.len() as u8);
                for domain in domains {
                    let domain = domain.as_bytes();
                    let domain = domain.get(..MAX_DOMAIN).unwrap_or(domain);
                    out.push(domain.len() as u8);
                    out.extend_from_slice(domain);
                }
            }
            ServiceSpec::Tcp { random, port } | ServiceSpec::Udp { random, port } => {
                let code = match spec.ungrouped() {
                    ServiceSpec::Udp { .. } => UDP,
                    _ => TCP,
                };
                out.extend_from_slice(&[code, u8::from(*random)]);
                out.extend_from_slice(&port.to_be_bytes());
            }
        }
    }
}

fn name(out: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = cut(bytes);
    // MAX_NAME fits a byte.
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

/// Returns the first [`MAX_NAME`] bytes of a name.
pub fn cut(name: &[u8]) -> &[u8] {
    name.get(..MAX_NAME).unwrap_or(name)
}

/// An id and a secret.
type IdAndSecret<'a> = (&'a str, &'a [u8]);

/// Parses id and secret at the start of `bytes`, which begin after magic and version. Returns
/// them and their length; `None` if bytes are missing.
fn credentials(bytes: &[u8]) -> Result<Option<(IdAndSecret<'_>, usize)>, Malformed> {
    let Some((id, rest)) = read_name(bytes)? else {
        return Ok(None);
    };
    let id = std::str::from_utf8(id).map_err(|_| Malformed::NotText)?;
    let Some((secret, rest)) = read_name(rest)? else {
        return Ok(None);
    };
    Ok(Some(((id, secret), bytes.len() - rest.len())))
}

/// A parsed value and the bytes after it; `None` if bytes are missing.
pub type Read<'a, T> = Result<Option<(T, &'a [u8])>, Malformed>;

fn read_name(bytes: &[u8]) -> Read<'_, &[u8]> {
    let Some((&len, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    if len == 0 || usize::from(len) > MAX_NAME {
        return Err(Malformed::NameLength(u32::from(len)));
    }
    Ok(rest.split_at_checked(usize::from(len)))
}

/// A parser of a GT/1 hello that arrives in pieces, starting at the length of the id. Buffers at
/// most one incomplete item.
#[derive(Default)]
pub struct Gt1HelloReader {
    /// Bytes of an incomplete item.
    held: Vec<u8>,
    credentials: Option<(Box<str>, Proof)>,
    services: Vec<ServiceSpec>,
    complete: bool,
}

impl Gt1HelloReader {
    /// Consumes bytes and returns how many: all of them unless the hello ends among them. The first
    /// time, it stops after the credentials so that the caller can check them.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        self.held.extend_from_slice(bytes);
        let mut used = 0;
        if self.credentials.is_none() {
            let Some(((id, secret), n)) = credentials(&self.held)? else {
                return Ok(bytes.len());
            };
            self.credentials = Some((id.into(), Proof::Secret(secret.into())));
            used = n;
        } else {
            while !self.complete {
                let rest = self.held.get(used..).unwrap_or_default();
                let Some(((spec, more), after)) = read_service(rest, Version::One)? else {
                    break;
                };
                if self.services.len() >= MAX_OPTIONS {
                    return Err(Malformed::TooManyOptions);
                }
                self.services.push(spec);
                self.complete = !more;
                used += rest.len() - after.len();
            }
            if !self.complete {
                self.held.drain(..used);
                return Ok(bytes.len());
            }
        }
        // The bytes held before were incomplete, so whatever is left belongs to `bytes`.
        let left = self.held.len() - used;
        self.held = Vec::new();
        Ok(bytes.len().saturating_sub(left))
    }

    /// Returns id and secret once they have been read.
    pub fn credentials(&self) -> Option<Credentials<'_>> {
        let (id, proof) = self.credentials.as_ref()?;
        Some(Credentials { id, proof })
    }

    /// Returns the hello once its last service has been read, otherwise the reader.
    pub fn finish(self) -> Result<Hello, Self> {
        match self {
            Self {
                credentials: Some((id, proof)),
                services,
                complete: true,
                ..
            } => Ok(Hello {
                origins: false,
                bbr: false,
                instance: None,
                id,
                proof,
                services,
                window: 0,
            }),
            unfinished => Err(unfinished),
        }
    }
}

/// Splits off a text with its length in front, of at most `most` bytes.
fn split_text(bytes: &[u8], most: usize) -> Read<'_, &[u8]> {
    let Some((&length, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    if usize::from(length) > most {
        return Err(Malformed::NameLength(u32::from(length)));
    }
    Ok(rest.split_at_checked(usize::from(length)))
}

/// Parses the prefix and the domains of an option.
fn read_domains(bytes: &[u8], tls: bool) -> Read<'_, ServiceSpec> {
    let text = |bytes: &[u8]| -> Result<Box<str>, Malformed> {
        let text = std::str::from_utf8(bytes).map_err(|_| Malformed::NotText)?;
        Ok(text.into())
    };
    let Some((prefix, rest)) = split_text(bytes, MAX_NAME)? else {
        return Ok(None);
    };
    let Some((&count, list)) = rest.split_first() else {
        return Ok(None);
    };
    if count == 0 {
        return Err(Malformed::NameLength(0));
    }
    // Nothing is allocated before all of them are there: they may come byte by byte.
    let mut end = list;
    for _ in 0..count {
        match split_text(end, MAX_DOMAIN)? {
            Some(([], _)) => return Err(Malformed::NameLength(0)),
            Some((_, after)) => end = after,
            None => return Ok(None),
        }
    }
    let (mut domains, mut rest) = (Vec::with_capacity(usize::from(count)), list);
    while let Some((domain, after)) =
        split_text(rest, MAX_DOMAIN)?.filter(|_| rest.len() > end.len())
    {
        domains.push(text(domain)?);
        rest = after;
    }
    let prefix = Some(text(prefix)?).filter(|prefix| !prefix.is_empty());
    let spec = ServiceSpec::Domains {
        tls,
        prefix,
        domains,
    };
    Ok(Some((spec, end)))
}

/// Parses the request for a port, of which `spec` makes a service.
fn read_port(
    bytes: &[u8],
    spec: impl FnOnce(bool, u16) -> ServiceSpec,
) -> Option<(ServiceSpec, &[u8])> {
    let (&[random, high, low], rest) = bytes.split_first_chunk()?;
    Some((spec(random != 0, u16::from_be_bytes([high, low])), rest))
}

/// Parses one option. The flag tells whether another one follows.
pub fn read_service(bytes: &[u8], version: Version) -> Read<'_, (ServiceSpec, bool)> {
    let (more, bytes) = match bytes.split_first() {
        Some((&MORE, rest)) => (true, rest),
        _ => (false, bytes),
    };
    let found = match (read_group(bytes, version)?, bytes.first()) {
        (Some((group, rest)), _) => read_option(rest, version)?.map(|(service, rest)| {
            let (group, service) = (Box::new(group), Box::new(service));
            (ServiceSpec::Grouped { group, service }, rest)
        }),
        (None, Some(&GROUPED)) if version == Version::Two => None,
        (None, _) => read_option(bytes, version)?,
    };
    Ok(found.map(|(spec, rest)| ((spec, more), rest)))
}

/// Parses the group of the option behind it; `None` if there is none, too.
fn read_group(bytes: &[u8], version: Version) -> Read<'_, GroupSpec> {
    let Some((&GROUPED, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    if version == Version::One {
        return Err(Malformed::UnknownOption(GROUPED));
    }
    let Some((name, rest)) = split_text(rest, MAX_GROUP)? else {
        return Ok(None);
    };
    if name.is_empty() {
        return Err(Malformed::NameLength(0));
    }
    let name = std::str::from_utf8(name).map_err(|_| Malformed::NotText)?;
    let Some((key, rest)) = read_name(rest)? else {
        return Ok(None);
    };
    Ok(rest.split_first().map(|(flags, rest)| {
        let group = GroupSpec {
            name: name.into(),
            key: key.into(),
            // Further flags are of later versions.
            sticky: flags & STICKY != 0,
        };
        (group, rest)
    }))
}

/// Parses an option without a group.
fn read_option(bytes: &[u8], version: Version) -> Read<'_, ServiceSpec> {
    let Some((&code, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let tls = matches!(code, TLS_ID | TLS_PREFIX);
    let found = match code {
        HTTP_ID | TLS_ID => Some((ServiceSpec::Host { tls, prefix: None }, rest)),
        HTTP_PREFIX | TLS_PREFIX => match read_name(rest)? {
            Some((prefix, rest)) => {
                let prefix = std::str::from_utf8(prefix).map_err(|_| Malformed::NotText)?;
                let prefix = Some(prefix.into());
                Some((ServiceSpec::Host { tls, prefix }, rest))
            }
            None => None,
        },
        TCP => read_port(rest, |random, port| ServiceSpec::Tcp { random, port }),
        UDP if version == Version::Two => {
            read_port(rest, |random, port| ServiceSpec::Udp { random, port })
        }
        HTTP_DOMAINS | TLS_DOMAINS if version == Version::Two => {
            read_domains(rest, code == TLS_DOMAINS)?
        }
        unknown => return Err(Malformed::UnknownOption(unknown)),
    };
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Maximum length of encoded credentials.
    const MAX_CREDENTIALS: usize = 2 * (1 + MAX_NAME);
    use proptest::prelude::*;

    /// Reads `bytes`, starting at idLen, in pieces of `step`. Returns the hello and its length.
    fn decode(bytes: &[u8], step: usize) -> Result<(Hello, usize), Malformed> {
        let mut reader = Gt1HelloReader::default();
        let mut used = 0;
        loop {
            let piece = &bytes[used..bytes.len().min(used + step)];
            assert!(!piece.is_empty(), "the hello does not end");
            used += reader.feed(piece)?;
            reader = match reader.finish() {
                Ok(hello) => return Ok((hello, used)),
                Err(unfinished) => unfinished,
            };
        }
    }

    /// Returns the error for a list of services.
    fn refused(services: &[u8]) -> Malformed {
        decode(&[&[1, b'i', 1, b's'], services].concat(), 1000).unwrap_err()
    }

    #[test]
    fn the_example_of_the_wire_page_is_encoded_and_parsed() {
        let services = [
            ServiceSpec::Tcp {
                random: false,
                port: 2222,
            },
            ServiceSpec::Host {
                tls: false,
                prefix: Some("1".into()),
            },
            ServiceSpec::Host {
                tls: false,
                prefix: Some("2".into()),
            },
        ];
        let golden: &[u8] = &[
            0xF0, 0x01, // magic, version
            3, b'i', b'd', b'1', // id
            7, b's', b'e', b'c', b'r', b'e', b't', b'1', // secret
            0x02, 0x01, 0x00, 0x08, 0xAE, // more, tcp 2222
            0x02, 0x03, 0x01, 0x31, // more, prefix "1"
            0x03, 0x01, 0x32, // prefix "2"
        ];
        assert_eq!(encode("id1", b"secret1", &services), golden);
        let (hello, used) = decode(&golden[2..], 1).unwrap();
        assert_eq!(&*hello.id, "id1");
        assert_eq!(hello.proof.secret(), Some(&b"secret1"[..]));
        assert_eq!(hello.services, services);
        assert_eq!(used, golden.len() - 2);
    }

    #[test]
    fn every_option_has_its_byte() {
        for (spec, golden) in [
            (
                ServiceSpec::Host {
                    tls: false,
                    prefix: None,
                },
                &[0x00][..],
            ),
            (
                ServiceSpec::Tcp {
                    random: true,
                    port: 1,
                },
                &[0x01, 0x01, 0x00, 0x01],
            ),
            (
                ServiceSpec::Host {
                    tls: true,
                    prefix: None,
                },
                &[0x04],
            ),
            (
                ServiceSpec::Host {
                    tls: true,
                    prefix: Some("ab".into()),
                },
                &[0x05, 0x02, b'a', b'b'],
            ),
        ] {
            let mut bytes = Vec::new();
            encode_registration(&mut bytes, "i", b"s", std::slice::from_ref(&spec));
            assert_eq!(bytes[4..], *golden);
            assert_eq!(decode(&bytes, 1).unwrap().0.services, [spec]);
        }
    }

    #[test]
    fn names_of_invalid_length_are_rejected() {
        assert_eq!(credentials(&[0]), Err(Malformed::NameLength(0)));
        assert_eq!(credentials(&[201]), Err(Malformed::NameLength(201)));
        assert_eq!(credentials(&[1, b'i', 0]), Err(Malformed::NameLength(0)));
        assert_eq!(
            credentials(&[1, 0xFF, 1, b's']),
            Err(Malformed::NotText),
            "an id is text"
        );
        assert_eq!(refused(&[3, 255]), Malformed::NameLength(255));
    }

    #[test]
    fn unknown_options_are_rejected() {
        for code in [0x06u8, 0x09, 0x40, 0x80, 0xC0, 0xFF] {
            assert_eq!(refused(&[code]), Malformed::UnknownOption(code));
        }
        assert_eq!(refused(&[MORE, MORE]), Malformed::UnknownOption(MORE));
    }

    #[test]
    fn more_than_the_maximum_of_options_is_rejected() {
        let before = [MORE, HTTP_ID].repeat(MAX_OPTIONS - 1);
        let most = [&[1, b'i', 1, b's'], &before[..], &[HTTP_ID]].concat();
        assert_eq!(decode(&most, 7).unwrap().0.services.len(), MAX_OPTIONS);
        let one_more = [&before[..], &[MORE, HTTP_ID, HTTP_ID]].concat();
        assert_eq!(refused(&one_more), Malformed::TooManyOptions);
    }

    #[test]
    fn credentials_can_be_checked_before_the_services_are_read() {
        let bytes = encode(
            "id",
            b"secret",
            &[ServiceSpec::Tcp {
                random: true,
                port: 0,
            }],
        );
        let mut reader = Gt1HelloReader::default();
        let used = reader.feed(&bytes[2..]).unwrap();
        assert_eq!(used, 1 + 2 + 1 + 6);
        assert_eq!(reader.credentials().unwrap().id, "id");
        assert!(reader.finish().is_err());
    }

    fn any_service() -> impl Strategy<Value = ServiceSpec> {
        prop_oneof![
            (any::<bool>(), proptest::option::of("[a-z0-9é]{1,60}")).prop_map(|(tls, prefix)| {
                ServiceSpec::Host {
                    tls,
                    prefix: prefix.map(Into::into),
                }
            }),
            (any::<bool>(), any::<u16>())
                .prop_map(|(random, port)| ServiceSpec::Tcp { random, port }),
        ]
    }

    proptest! {
        #[test]
        fn a_hello_survives_encoding_in_pieces_of_any_size(
            id in "\\PC{1,50}",
            secret in proptest::collection::vec(any::<u8>(), 1..=MAX_NAME),
            services in proptest::collection::vec(any_service(), 1..40),
            step in 1usize..40,
        ) {
            let mut bytes = encode(&id, &secret, &services);
            prop_assert_eq!(&bytes[..2], &[0xF0, 0x01]);
            let len = bytes.len() - 2;
            bytes.extend_from_slice(&[0xAA; 50]);
            let (hello, used) = decode(&bytes[2..], step).unwrap();
            prop_assert_eq!((&*hello.id, hello.proof.secret()), (&*id, Some(&*secret)));
            prop_assert_eq!((hello.services, used), (services, len));
        }

        #[test]
        fn any_bytes_are_parsed_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..900)) {
            let mut reader = Gt1HelloReader::default();
            let mut at = 0;
            while at < bytes.len() {
                let piece = &bytes[at..bytes.len().min(at + 9)];
                let Ok(used) = reader.feed(piece) else { break };
                prop_assert!(used <= piece.len() && reader.held.len() <= MAX_CREDENTIALS);
                if reader.complete { break }
                at += used;
            }
        }
    }
}
