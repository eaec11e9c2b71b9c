//! The packet format of a handover: a kind byte, then big-endian numbers and strings. Readers
//! ignore fields that later versions append.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A writer of one packet.
pub struct PacketWriter(Vec<u8>);

impl PacketWriter {
    /// Starts a packet of this kind.
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

    /// Appends bytes without a length; they must come last.
    #[cfg(feature = "server")]
    pub fn rest(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// Appends a length and the bytes; more than 65,535 are cut.
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        let mut writer = self.u16(length);
        writer.0.extend(bytes.iter().take(usize::from(length)));
        writer
    }

    /// Appends a path; the empty path stands for `None`.
    pub fn path(self, path: Option<&Path>) -> Self {
        self.bytes(path.map_or(&[], |path| path.as_os_str().as_bytes()))
    }

    /// Returns the packet.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// A reader of one packet. Its methods return `None` if the packet is too short.
pub struct PacketReader<'a>(&'a [u8]);

impl<'a> PacketReader<'a> {
    pub fn new(packet: &'a [u8]) -> Self {
        Self(packet)
    }

    /// Whether everything has been read, so that the fields that later versions append are absent.
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

    /// Reads all remaining bytes.
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

    /// Reads a length and a string. `None` also if it is not UTF-8.
    pub fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    /// Reads a path; the empty path stands for `None`.
    pub fn path(&mut self) -> Option<Option<PathBuf>> {
        let path = self.bytes()?.to_vec();
        Some((!path.is_empty()).then(|| OsString::from_vec(path).into()))
    }
}
