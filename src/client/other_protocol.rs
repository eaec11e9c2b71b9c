//! Recognition of programs other than gt servers by their first bytes. No sockets.

use std::fmt;

/// A program that speaks another protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OtherProtocol {
    /// HTTP, with its status line.
    Http(String),
    /// SSH, with its identification string (RFC 4253, section 4.2).
    Ssh(String),
    /// TLS.
    Tls,
    /// Another protocol, with its first bytes, escaped.
    Unknown(String),
}

/// Maximum bytes of a first line that are shown.
const MAX_SHOWN: usize = 60;
/// Number of bytes that suffice to recognise any of these programs.
pub const ENOUGH_BYTES: usize = 255;

impl OtherProtocol {
    /// Recognises the program that has sent these bytes. `None` if it may be a gt server, whose
    /// first bytes in GT/1 are signals.
    pub fn of(first: &[u8]) -> Option<Self> {
        Some(match first {
            [] | [0xFF, ..] => return None,
            [b'H', b'T', b'T', b'P', b'/', ..] => Self::Http(line(first)),
            [b'S', b'S', b'H', b'-', ..] => Self::Ssh(line(first)),
            // An alert or a handshake record of SSL 3 or TLS (RFC 8446, section 5.1).
            [21 | 22, 3, 0..=4, ..] => Self::Tls,
            _ => Self::Unknown(line(first)),
        })
    }

    /// Whether more bytes would not change the result.
    pub fn is_whole(first: &[u8]) -> bool {
        matches!(first, [0xFF, ..]) || first.len() >= ENOUGH_BYTES || first.contains(&b'\n')
    }
}

/// Returns the first line, escaped and cut for the log.
fn line(bytes: &[u8]) -> String {
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next();
    let line = line.unwrap_or_default();
    let shown = line.get(..MAX_SHOWN).unwrap_or(line);
    shown.escape_ascii().to_string()
}

impl fmt::Display for OtherProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ADVICE: &str = "use the address and port of the gt server";
        match self {
            Self::Http(line) => {
                write!(f, "a web server answers at this address ({line}); {ADVICE}")
            }
            Self::Ssh(line) => write!(
                f,
                "an SSH server answers at this address ({line}); {ADVICE}"
            ),
            Self::Tls => f.write_str(
                "the server expects TLS; use tls:// instead of tcp:// in remote, and wss:// instead of ws://",
            ),
            Self::Unknown(line) => {
                write!(
                    f,
                    "another program answers at this address ({line:?}); {ADVICE}"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_protocols_are_recognised_by_their_first_bytes() {
        let told = |bytes: &[u8]| OtherProtocol::of(bytes).map(|stranger| stranger.to_string());
        let said = |bytes: &[u8]| told(bytes).unwrap_or_default();
        assert!(
            said(b"HTTP/1.1 400 Bad Request\r\nServer: x").contains("(HTTP/1.1 400 Bad Request)")
        );
        assert!(said(b"SSH-2.0-OpenSSH_9.2p1\r\n").contains("(SSH-2.0-OpenSSH_9.2p1)"));
        assert!(said(&[21, 3, 3, 0, 2, 2, 70]).contains("tls://"));
        let mail = said(b"220 mail \x1B[2J ESMTP\r\n");
        assert!(
            mail.contains("220 mail") && !mail.contains('\x1B'),
            "{mail}"
        );
        assert!(said(&[b'x'; 4096]).len() < 200);
        assert_eq!((told(b""), told(&[0xFF, 0xFF, 0xFF, 0xFD])), (None, None));
    }

    #[test]
    fn reading_ends_with_a_line_or_a_limit() {
        assert!(!OtherProtocol::is_whole(b"HTTP/1.1 4"));
        assert!(OtherProtocol::is_whole(b"HTTP/1.1 400\r\n"));
        assert!(OtherProtocol::is_whole(&[0xFF]));
        assert!(OtherProtocol::is_whole(&[b'x'; ENOUGH_BYTES]));
    }
}
