//! The form of what two processes tell each other: a byte that says what it is, then numbers and
//! strings. What a later version adds at the end is passed over.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Writes one packet.
pub struct PacketWriter(Vec<u8>);

impl PacketWriter {
    pub fn new(kind: u8) -> Self {
        Self(vec![kind])
    }

    pub fn u16(mut self, number: u16) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    #[cfg(feature = "server")]
    pub fn u32(mut self, number: u32) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    /// Bytes that nothing follows, however many there are.
    #[cfg(feature = "server")]
    pub fn rest(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// Of more than 65535 bytes the first ones.
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        let mut writer = self.u16(length);
        writer.0.extend(bytes.iter().take(usize::from(length)));
        writer
    }

    pub fn path(self, path: Option<&Path>) -> Self {
        self.bytes(path.map_or(&[], |path| path.as_os_str().as_bytes()))
    }

    pub fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Reads one packet. `None` means that it ends too early.
pub struct PacketReader<'a>(&'a [u8]);

impl<'a> PacketReader<'a> {
    pub fn new(packet: &'a [u8]) -> Self {
        Self(packet)
    }

    /// Whether all of it has been read: what only later versions write is missing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub fn u16(&mut self) -> Option<u16> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*first))
    }

    #[cfg(feature = "server")]
    pub fn u32(&mut self) -> Option<u32> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*first))
    }

    /// All that is left.
    #[cfg(feature = "server")]
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.u16()?);
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    /// Also `None` if it is none.
    pub fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    pub fn path(&mut self) -> Option<Option<PathBuf>> {
        let path = self.bytes()?.to_vec();
        Some((!path.is_empty()).then(|| OsString::from_vec(path).into()))
    }
}
