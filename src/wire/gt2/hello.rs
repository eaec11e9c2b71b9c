//! The GT/2 hello (docs/wire.md, "Hello"): length, capabilities, fields.

use crate::keys::{Challenge, PublicKey, CHALLENGE as CHALLENGE_LENGTH, PUBLIC_KEY, SIGNATURE};
use crate::wire::gt1::hello::{cut, encode_services, read_service};
use crate::wire::hello::{
    Credentials, Hello, Proof, ServiceKinds, ServiceSpec, SignedKey, INSTANCE as INSTANCE_LENGTH,
    MAX_LENGTH, MAX_NAME, MAX_OPTIONS,
};
use crate::wire::{kind_and_length, u32_at, Malformed, Version, MAGIC};

/// Bit of the capabilities: each stream begins with its visitor's origin.
const ORIGINS: u32 = 1;
/// Bit of the capabilities: services may have domains of their own.
const DOMAINS: u32 = 2;
/// Bit of the capabilities: services may have UDP ports.
const UDP: u32 = 4;
/// Bit of the capabilities: a client may tell which services are down.
const HEALTH: u32 = 8;
/// Bit of the capabilities: services may be of groups.
const GROUPS: u32 = 16;
/// Bit of the capabilities: the client's congestion control is BBR.
const BBR: u32 = 32;
/// Maximum length in bytes of a server's answer after its length field.
const MAX_ANSWER: u32 = 4096;

const FILLER: u8 = 0x00;
const ID: u8 = 0x01;
const SECRET: u8 = 0x02;
const SERVICES: u8 = 0x03;
const WINDOW: u8 = 0x04;
const INSTANCE: u8 = 0x05;
const CHALLENGE: u8 = 0x06;
const KEY: u8 = 0x07;

/// The first byte of the value of a key: an Ed25519 key follows.
const ED25519: u8 = 1;
/// Length in bytes of the value of a key without a signature.
const UNSIGNED_KEY: usize = 1 + PUBLIC_KEY;
/// Length in bytes of the value of a key with a signature.
const SIGNED_KEY: usize = UNSIGNED_KEY + SIGNATURE;

/// Encodes a complete hello. It ends like the head of an HTTP request, since a GT/1 server takes
/// it for one and must not wait for more bytes (docs/wire.md, "Hello").
pub fn encode(hello: &Hello) -> Vec<u8> {
    let mut fields = registration(hello, true);
    field(&mut fields, WINDOW, &hello.window.to_be_bytes());
    if let Some(instance) = &hello.instance {
        field(&mut fields, INSTANCE, instance);
    }
    field(&mut fields, FILLER, b"\r\n\r\n");
    let origins = if hello.origins { ORIGINS } else { 0 };
    let domains = if hello.has_domains() { DOMAINS } else { 0 };
    let udp = if hello.has_udp() { UDP } else { 0 };
    let groups = if hello.has_groups() { GROUPS } else { 0 };
    let bbr = if hello.bbr { BBR } else { 0 };
    begin(origins | domains | udp | groups | bbr, &fields)
}

/// Encodes the fields with credentials and services, without a signature.
pub fn encode_registration(hello: &Hello) -> Vec<u8> {
    registration(hello, false)
}

fn registration(hello: &Hello, signed: bool) -> Vec<u8> {
    let mut out = Vec::new();
    field(&mut out, ID, cut(hello.id.as_bytes()));
    match &hello.proof {
        Proof::Secret(secret) => field(&mut out, SECRET, cut(secret)),
        Proof::Key(key) => field(&mut out, KEY, &encode_key(key, signed)),
    }
    let mut services = Vec::new();
    encode_services(&mut services, &hello.services);
    field(&mut out, SERVICES, &services);
    out
}

/// Encodes the value of a key.
fn encode_key(key: &SignedKey, signed: bool) -> Vec<u8> {
    let signature = key.signature.as_ref().filter(|_| signed);
    let signature = signature.map_or(&[][..], |bytes| bytes);
    [&[ED25519], &key.key.0[..], signature].concat()
}

/// Parses the value of a key, whose length is checked.
fn read_key(value: &[u8]) -> Result<SignedKey, Malformed> {
    let wrong = Malformed::FieldLength(KEY);
    let (kind, rest) = value.split_first().ok_or(wrong)?;
    if *kind != ED25519 {
        return Err(Malformed::KeyKind(*kind));
    }
    let (key, rest) = rest.split_first_chunk().ok_or(wrong)?;
    let signature = match rest {
        [] => None,
        _ => Some(rest.try_into().map_err(|_| wrong)?),
    };
    Ok(SignedKey {
        key: PublicKey(*key),
        signature,
    })
}

/// Encodes a server's answer to a hello, sent before it checks the credentials. The challenge is for
/// clients with keys, if there are some.
pub fn answer(challenge: Option<&Challenge>) -> Vec<u8> {
    let mut fields = Vec::new();
    if let Some(challenge) = challenge {
        field(&mut fields, CHALLENGE, &challenge.0);
    }
    begin(ORIGINS | DOMAINS | UDP | HEALTH | GROUPS, &fields)
}

fn begin(capabilities: u32, fields: &[u8]) -> Vec<u8> {
    let mut out = vec![MAGIC, Version::Two.byte()];
    // Longer than MAX_LENGTH cannot happen with a valid configuration; a server rejects it.
    out.extend_from_slice(&(fields.len() as u32).saturating_add(4).to_be_bytes());
    out.extend_from_slice(&capabilities.to_be_bytes());
    out.extend_from_slice(fields);
    out
}

fn field(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let [_, length @ ..] = (value.len() as u32).to_be_bytes();
    out.push(kind);
    out.extend_from_slice(&length);
    out.extend_from_slice(value);
}

/// A server's answer to a hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HelloAnswer {
    /// Length in bytes of the answer.
    pub length: usize,
    /// Whether the server sends origins to a client that wants them.
    pub origins: bool,
    /// The kinds of services that the server can publish.
    pub kinds: ServiceKinds,
    /// Whether the server can be told which services are down.
    pub health: bool,
    /// What a client with a key has to sign; `None` if the server takes no keys.
    pub challenge: Option<Challenge>,
}

/// Parses the answer at the start of `bytes`; `None` if bytes are missing.
pub fn parse_answer(bytes: &[u8]) -> Result<Option<HelloAnswer>, Malformed> {
    let start = [MAGIC, Version::Two.byte()];
    let same = start.iter().zip(bytes).all(|(wanted, byte)| wanted == byte);
    if !same {
        return Err(Malformed::NotAnAnswer);
    }
    let Some(len) = u32_at(bytes, start.len()) else {
        return Ok(None);
    };
    if !(4..=MAX_ANSWER).contains(&len) {
        return Err(Malformed::HelloLength(len));
    }
    // `len` is at most MAX_ANSWER.
    let length = start.len() + 4 + len as usize;
    let Some(capabilities) = u32_at(bytes, start.len() + 4).filter(|_| bytes.len() >= length)
    else {
        return Ok(None);
    };
    let fields = bytes.get(start.len() + 8..length).unwrap_or_default();
    Ok(Some(HelloAnswer {
        length,
        origins: capabilities & ORIGINS != 0,
        kinds: ServiceKinds {
            domains: capabilities & DOMAINS != 0,
            udp: capabilities & UDP != 0,
            groups: capabilities & GROUPS != 0,
        },
        health: capabilities & HEALTH != 0,
        challenge: find_challenge(fields)?,
    }))
}

/// Finds the challenge among the fields of an answer. Fields that are not known yet may be anything.
fn find_challenge(mut fields: &[u8]) -> Result<Option<Challenge>, Malformed> {
    let mut challenge = None;
    while let Some((kind, length)) = kind_and_length(fields) {
        let wrong = Malformed::FieldLength(kind);
        // At most MAX_ANSWER if it fits.
        let value = fields.get(4..).and_then(|rest| rest.get(..length as usize));
        let value = value.ok_or(wrong)?;
        if kind == CHALLENGE {
            if challenge.is_some() {
                return Err(Malformed::FieldOrder(kind));
            }
            let bytes: [u8; CHALLENGE_LENGTH] = value.try_into().map_err(|_| wrong)?;
            challenge = Some(Challenge(bytes));
        }
        fields = fields.get(4 + value.len()..).unwrap_or_default();
    }
    Ok(challenge)
}

/// A parser of a GT/2 hello that arrives in pieces, starting at its length field. Buffers at most
/// one incomplete item.
pub struct Gt2HelloReader {
    /// Bytes of an incomplete item.
    held: Vec<u8>,
    /// Bytes of the hello that have not arrived yet.
    left: u32,
    stage: HelloStage,
    id: Option<Box<str>>,
    proof: Option<Proof>,
    services: Vec<ServiceSpec>,
    /// In a box, so that the reader stays small.
    optional: Box<OptionalFields>,
}

/// What a hello has besides credentials and services, of which it may lack fields.
#[derive(Default)]
struct OptionalFields {
    window: Option<u32>,
    instance: Option<[u8; INSTANCE_LENGTH]>,
    capabilities: u32,
    /// Whether the fields are those of a registration, whose key has no signature.
    of_registration: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HelloStage {
    /// Reading length and capabilities.
    Begin,
    /// Reading kind and length of a field.
    Field,
    /// Buffering a field of this kind and length.
    Value(u8, usize),
    /// Reading the list of services, with this many bytes buffered or yet to arrive.
    Services(usize),
    /// Skipping an unknown field, with this many bytes left.
    Skip(usize),
    Complete,
}

impl Gt2HelloReader {
    pub fn new() -> Self {
        Self {
            held: Vec::new(),
            left: 8,
            stage: HelloStage::Begin,
            id: None,
            proof: None,
            services: Vec::new(),
            optional: Box::default(),
        }
    }

    /// Creates a reader for `len` bytes of fields without length and capabilities.
    pub fn registration(len: u32) -> Self {
        let optional = OptionalFields {
            of_registration: true,
            ..OptionalFields::default()
        };
        Self {
            left: len,
            stage: HelloStage::Field,
            optional: Box::new(optional),
            ..Self::new()
        }
    }

    /// See [`crate::wire::codec::HelloReader::feed`].
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut rest = bytes;
        loop {
            match self.stage {
                HelloStage::Begin => {
                    if !self.hold(&mut rest, 8) {
                        break;
                    }
                    let len = u32_at(&self.held, 0).unwrap_or_default();
                    if !(4..=MAX_LENGTH).contains(&len) {
                        return Err(Malformed::HelloLength(len));
                    }
                    self.optional.capabilities = u32_at(&self.held, 4).unwrap_or_default();
                    self.held.clear();
                    self.left = len - 4;
                    self.stage = HelloStage::Field;
                }
                HelloStage::Field if self.left == 0 && self.held.is_empty() => {
                    self.check_complete()?;
                    self.held = Vec::new();
                    self.stage = HelloStage::Complete;
                }
                HelloStage::Field => {
                    // `held` has at most 4 bytes.
                    let most = self.left.saturating_add(self.held.len() as u32);
                    if most < 4 {
                        return Err(Malformed::HelloLength(most));
                    }
                    if !self.hold(&mut rest, 4) {
                        break;
                    }
                    let (kind, len) = kind_and_length(&self.held).unwrap_or_default();
                    self.held.clear();
                    if len > self.left {
                        return Err(Malformed::FieldLength(kind));
                    }
                    self.stage = self.field(kind, len)?;
                }
                HelloStage::Value(kind, len) => {
                    if !self.hold(&mut rest, len) {
                        break;
                    }
                    let value = std::mem::take(&mut self.held);
                    self.stage = HelloStage::Field;
                    match kind {
                        ID => {
                            let id = String::from_utf8(value).map_err(|_| Malformed::NotText)?;
                            self.id = Some(id.into());
                        }
                        SECRET => self.proof = Some(Proof::Secret(value.into())),
                        KEY => self.proof = Some(Proof::Key(Box::new(read_key(&value)?))),
                        INSTANCE => self.optional.instance = value.first_chunk().copied(),
                        _ => self.optional.window = u32_at(&value, 0),
                    }
                    let named = matches!(kind, ID | SECRET | KEY) && self.credentials().is_some();
                    if named && self.services.is_empty() {
                        break;
                    }
                }
                HelloStage::Services(len) => {
                    let before = self.held.len();
                    if rest.is_empty() && len > before {
                        break;
                    }
                    let more = rest.len().min(len - before);
                    let (now, after) = rest.split_at(more);
                    self.held.extend_from_slice(now);
                    self.count(more);
                    rest = after;
                    self.stage = self.services(len)?;
                }
                HelloStage::Skip(len) => {
                    let now = rest.len().min(len);
                    rest = rest.get(now..).unwrap_or_default();
                    self.count(now);
                    self.stage = match len - now {
                        0 => HelloStage::Field,
                        left => HelloStage::Skip(left),
                    };
                    if rest.is_empty() && self.stage != HelloStage::Field {
                        break;
                    }
                }
                HelloStage::Complete => break,
            }
        }
        Ok(bytes.len() - rest.len())
    }

    /// Buffers up to `n` bytes; returns whether all of them have arrived.
    fn hold(&mut self, rest: &mut &[u8], n: usize) -> bool {
        let more = rest.len().min(n.saturating_sub(self.held.len()));
        let (now, after) = rest.split_at(more);
        self.held.extend_from_slice(now);
        self.count(more);
        *rest = after;
        self.held.len() >= n
    }

    fn count(&mut self, n: usize) {
        // `n` never exceeds `left`.
        self.left = self.left.saturating_sub(n as u32);
    }

    /// Returns the stage that reads a field of this kind and length.
    fn field(&self, kind: u8, len: u32) -> Result<HelloStage, Malformed> {
        // At most MAX_LENGTH, which fits.
        let size = len as usize;
        let again = match kind {
            ID => self.id.is_some(),
            // A client has one or the other.
            SECRET | KEY => self.proof.is_some(),
            SERVICES => !self.services.is_empty() || self.credentials().is_none(),
            WINDOW => self.optional.window.is_some(),
            INSTANCE => self.optional.instance.is_some(),
            _ => false,
        };
        let key_length = match self.optional.of_registration {
            true => UNSIGNED_KEY,
            false => SIGNED_KEY,
        };
        match kind {
            _ if again => Err(Malformed::FieldOrder(kind)),
            ID | SECRET if !(1..=MAX_NAME).contains(&size) => Err(Malformed::NameLength(len)),
            WINDOW if size != 4 => Err(Malformed::FieldLength(kind)),
            INSTANCE if size != INSTANCE_LENGTH => Err(Malformed::FieldLength(kind)),
            KEY if size != key_length => Err(Malformed::FieldLength(kind)),
            ID | SECRET | WINDOW | INSTANCE | KEY => Ok(HelloStage::Value(kind, size)),
            SERVICES if size == 0 => Err(Malformed::ServicesLength),
            SERVICES => Ok(HelloStage::Services(size)),
            _ => Ok(HelloStage::Skip(size)),
        }
    }

    /// Parses the complete options; `len` bytes of the list are buffered or yet to arrive.
    fn services(&mut self, len: usize) -> Result<HelloStage, Malformed> {
        let mut used = 0;
        loop {
            let rest = self.held.get(used..).unwrap_or_default();
            let Some(((spec, more), after)) = read_service(rest, Version::Two)? else {
                if rest.len() == len - used {
                    // The field ends in the middle of an option.
                    return Err(Malformed::ServicesLength);
                }
                break;
            };
            if self.services.len() >= MAX_OPTIONS {
                return Err(Malformed::TooManyOptions);
            }
            used += rest.len() - after.len();
            self.services.push(spec);
            match (more, len - used) {
                (true, 0) => return Err(Malformed::ServicesLength),
                (true, _) => {}
                (false, 0) => {
                    self.held.clear();
                    return Ok(HelloStage::Field);
                }
                (false, _) => return Err(Malformed::ServicesLength),
            }
        }
        self.held.drain(..used);
        Ok(HelloStage::Services(len - used))
    }

    fn check_complete(&self) -> Result<(), Malformed> {
        let missing = [
            (ID, self.id.is_none()),
            (SECRET, self.proof.is_none()),
            (SERVICES, self.services.is_empty()),
        ];
        match missing.into_iter().find(|(_, missing)| *missing) {
            Some((kind, _)) => Err(Malformed::FieldMissing(kind)),
            None => Ok(()),
        }
    }

    /// Returns id and proof once they have been read.
    pub fn credentials(&self) -> Option<Credentials<'_>> {
        let (id, proof) = (self.id.as_deref()?, self.proof.as_ref()?);
        Some(Credentials { id, proof })
    }

    /// Returns the hello once it is complete, otherwise the reader.
    pub fn finish(self) -> Result<Hello, Self> {
        match self {
            Self {
                stage: HelloStage::Complete,
                id: Some(id),
                proof: Some(proof),
                services,
                optional,
                ..
            } => Ok(Hello {
                id,
                proof,
                services,
                window: optional.window.unwrap_or_default(),
                origins: optional.capabilities & ORIGINS != 0,
                bbr: optional.capabilities & BBR != 0,
                instance: optional.instance,
            }),
            unfinished => Err(unfinished),
        }
    }
}

#[cfg(test)]
mod tests;
