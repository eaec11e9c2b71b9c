//! The filter between a peer's datagrams and the DTLS library, which may see only some of the
//! records. It parses record and handshake headers; it decrypts nothing and holds no bytes.
//!
//! rtc-dtls 0.21 trusts its peer. It joins the fragments of a handshake message by recursion, one
//! call for each fragment; it splits a record by the length of the whole message instead of the
//! fragment's; it keeps records of the next epoch and complete handshake messages without a limit
//! until the handshake is over; it answers plaintext application data and malformed alerts with a
//! fatal alert; and it obeys a ChangeCipherSpec of any epoch without a key, after which it ignores
//! everything that its real peer sends. The limits here prevent all of this, and permit a handshake
//! with every flight repeated as often as either side repeats it.

use crate::wire::u16_at;
use bytes::BytesMut;

/// Length in bytes of a record's header (RFC 6347, section 4.1).
const RECORD_HEADER: usize = 13;
/// Length in bytes of a handshake message's header (RFC 6347, section 4.2.2).
const MESSAGE_HEADER: usize = 12;
/// Content types of a record (RFC 5246, section 6.2.1).
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// Maximum number of records that a peer may send before the handshake is over; each further
/// fragment in a record counts as one, too. The longest flight has six, a certificate in three
/// fragments eight; BoringSSL repeats it 12 times at most, rtc-dtls 7 times. This is also the
/// maximum depth of the recursion.
const HANDSHAKE_RECORDS: usize = 256;
/// Maximum number of bytes that a peer may send before the handshake is over, headers included. A
/// flight with an RSA certificate has about 2 KiB.
const HANDSHAKE_BYTES: usize = 64 * 1024;
/// Maximum length in bytes of a handshake message. The longest one has a chain of certificates;
/// WebRTC peers send a single self-signed one.
const MESSAGE_LENGTH: usize = 32 * 1024;
/// Maximum sequence number of a handshake message before encryption. A client sends six messages,
/// a server seven, a HelloVerifyRequest included.
const MESSAGE_SEQUENCE: u16 = 16;
/// Maximum length in bytes of an encrypted handshake or alert record. Finished has 24 bytes; the
/// longest cipher, CBC with SHA-1, makes 80 of them.
const ENCRYPTED_LENGTH: usize = 128;
/// Maximum number of encrypted handshake records in the life of a connection: Finished, repeated.
/// The fragments in them cannot be counted; [`ENCRYPTED_LENGTH`] bounds their number.
const ENCRYPTED_RECORDS: usize = 32;

/// The filter of one peer's records, with the number that it may still send.
#[derive(Debug)]
pub struct RecordFilter {
    stage: HandshakeStage,
    /// Number of encrypted handshake records that may still come.
    encrypted: usize,
}

/// The stage of the handshake.
#[derive(Debug)]
enum HandshakeStage {
    /// The handshake is not over; these numbers of records and bytes may still come.
    Handshake {
        records: usize,
        bytes: usize,
    },
    Established,
}

impl Default for RecordFilter {
    fn default() -> Self {
        Self {
            stage: HandshakeStage::Handshake {
                records: HANDSHAKE_RECORDS,
                bytes: HANDSHAKE_BYTES,
            },
            encrypted: ENCRYPTED_RECORDS,
        }
    }
}

/// A record of DTLS 1.0 or 1.2, as its header describes it.
struct Record<'a> {
    content_type: u8,
    epoch: u16,
    body: &'a [u8],
    /// The header and the body.
    bytes: &'a [u8],
}

impl RecordFilter {
    /// Takes a datagram and returns the records in it that DTLS may have, in their order.
    pub fn admit(&mut self, datagram: &[u8]) -> BytesMut {
        let mut admitted = BytesMut::with_capacity(datagram.len());
        for record in records(datagram) {
            if self.admits(&record) {
                admitted.extend_from_slice(record.bytes);
            }
        }
        admitted
    }

    /// Notes that the handshake is over. From now on only encrypted records of the first epoch
    /// pass: renegotiation is not used, and a peer that repeats its last flight includes its
    /// Finished, which is enough for DTLS to repeat its own.
    pub fn establish(&mut self) {
        self.stage = HandshakeStage::Established;
    }

    fn admits(&mut self, record: &Record<'_>) -> bool {
        let Some(cost) = self.cost(record) else {
            return false;
        };
        let is_encrypted_handshake = record.epoch > 0 && record.content_type == HANDSHAKE;
        let encrypted = match self.encrypted.checked_sub(is_encrypted_handshake.into()) {
            Some(encrypted) => encrypted,
            None => return false,
        };
        if let HandshakeStage::Handshake { records, bytes } = &mut self.stage {
            let (Some(fewer), Some(less)) = (
                records.checked_sub(cost),
                bytes.checked_sub(record.bytes.len()),
            ) else {
                return false;
            };
            (*records, *bytes) = (fewer, less);
        }
        self.encrypted = encrypted;
        true
    }

    /// Returns the number of records for which a record counts; `None` if DTLS must not see it.
    fn cost(&self, record: &Record<'_>) -> Option<usize> {
        match (record.epoch, record.content_type) {
            (0, _) if matches!(self.stage, HandshakeStage::Established) => None,
            (0, HANDSHAKE) => fragments(record.body),
            (0, CHANGE_CIPHER_SPEC) => (record.body == [1]).then_some(1),
            (0, ALERT) => (record.body.len() == 2).then_some(1),
            (1, HANDSHAKE | ALERT) => (record.body.len() <= ENCRYPTED_LENGTH).then_some(1),
            (1, APPLICATION_DATA) => Some(1),
            _ => None,
        }
    }
}

/// Returns the records of a datagram, up to the first that is truncated or empty.
fn records(datagram: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || loop {
        let length = usize::from(u16_at(rest, 11)?);
        let end = RECORD_HEADER + length;
        let (bytes, body) = (rest.get(..end)?, rest.get(RECORD_HEADER..end)?);
        let (content_type, version, epoch) = (*rest.first()?, u16_at(rest, 1)?, u16_at(rest, 3)?);
        rest = rest.get(end..)?;
        // DTLS drops a whole datagram for an empty record in it.
        if !body.is_empty() && matches!(version, 0xFEFD | 0xFEFF) {
            return Some(Record {
                content_type,
                epoch,
                body,
                bytes,
            });
        }
    })
}

/// Returns the number of fragments of a plaintext handshake record; `None` if one of them violates
/// what DTLS assumes: that it is within its message, and as long as it says.
fn fragments(mut body: &[u8]) -> Option<usize> {
    let mut count = 0;
    while !body.is_empty() {
        let header: &[u8; MESSAGE_HEADER] = body.first_chunk()?;
        let [_, l0, l1, l2, s0, s1, o0, o1, o2, f0, f1, f2] = *header;
        let number = |a, b, c| usize::try_from(u32::from_be_bytes([0, a, b, c])).ok();
        let (length, offset, fragment) = (
            number(l0, l1, l2)?,
            number(o0, o1, o2)?,
            number(f0, f1, f2)?,
        );
        let after = body.get(MESSAGE_HEADER..)?;
        // DTLS takes the message's length for the fragment's: bytes behind a partial fragment would
        // become part of it.
        let present = length.min(after.len());
        let is_within = offset.checked_add(fragment)? <= length;
        let is_empty = fragment == 0 && length > 0;
        let is_known = length <= MESSAGE_LENGTH && u16::from_be_bytes([s0, s1]) <= MESSAGE_SEQUENCE;
        if !is_known || !is_within || is_empty || fragment != present {
            return None;
        }
        body = after.get(fragment..)?;
        count += 1;
    }
    Some(count)
}

#[cfg(test)]
mod tests;
