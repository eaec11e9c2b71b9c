//! The messages of a SOCKS5 visitor (RFC 1928, RFC 1929), as bytes and as types. They touch no connection.

use super::datagram::{self, MAX_HEADER};
use super::destination::{Destination, DestinationHost};
use super::failure::ProxyFailure;
pub(crate) use crate::net::socks5::{reply, NO_METHOD, NO_PASSWORD, PASSWORD};
use crate::net::socks5::{CONNECT, IPV4, IPV6, NAME, PASSWORD_VERSION, UDP_ASSOCIATE, VERSION};
use smallvec::SmallVec;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// The message that is due from a visitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocksPhase {
    Greeting,
    Password,
    Request,
}

/// A message of a visitor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SocksMessage {
    /// The methods by which the visitor can say who it is.
    Greeting(Vec<u8>),
    /// A name and a password.
    Password(Vec<u8>, Vec<u8>),
    /// The command to connect to this destination.
    Connect(Destination),
    /// The command to pass datagrams on. The source address in the request is ignored: the visitor's network
    /// may translate addresses.
    Associate,
    /// A request that can only be refused, with this code.
    Refused(u8),
}

/// What the bytes so far are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SocksBytes {
    /// A message, of this many bytes.
    Whole(SocksMessage, usize),
    /// A part of one, to which at least this many bytes are missing, 1 or more.
    Part(usize),
    /// No SOCKS5.
    Wrong,
}

/// A reader of the fields of a message.
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Why a message has not been read.
pub(super) enum Unread {
    Missing(usize),
    Wrong,
    /// The rest of the message cannot be read.
    Refused(u8),
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Returns the bytes behind the fields that were taken.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Unread> {
        let end = self.at.saturating_add(count);
        let field = self.bytes.get(self.at..end);
        let field = field.ok_or(Unread::Missing(end.saturating_sub(self.bytes.len())))?;
        self.at = end;
        Ok(field)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Unread> {
        self.take(N)?.try_into().map_err(|_| Unread::Wrong)
    }

    fn byte(&mut self) -> Result<u8, Unread> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// Takes a field that begins with its length.
    fn text(&mut self) -> Result<&'a [u8], Unread> {
        let length = self.byte()?;
        self.take(length.into())
    }

    fn version(&mut self, expected: u8) -> Result<(), Unread> {
        match self.byte()? == expected {
            true => Ok(()),
            false => Err(Unread::Wrong),
        }
    }

    /// Takes the host of an address of this kind, `None` if it cannot be one, and its port.
    pub(super) fn host_and_port(
        &mut self,
        kind: u8,
    ) -> Result<(Option<DestinationHost>, u16), Unread> {
        let host = match kind {
            IPV4 => Some(DestinationHost::Address(
                Ipv4Addr::from(self.array::<4>()?).into(),
            )),
            NAME => DestinationHost::parse(self.text()?),
            IPV6 => Some(DestinationHost::Address(
                Ipv6Addr::from(self.array::<16>()?).into(),
            )),
            _ => return Err(Unread::Refused(reply::NO_ADDRESS_TYPE)),
        };
        Ok((host, u16::from_be_bytes(self.array()?)))
    }

    fn message(&mut self, phase: SocksPhase) -> Result<SocksMessage, Unread> {
        match phase {
            SocksPhase::Greeting => {
                self.version(VERSION)?;
                Ok(SocksMessage::Greeting(self.text()?.to_vec()))
            }
            SocksPhase::Password => {
                self.version(PASSWORD_VERSION)?;
                let (user, password) = (self.text()?, self.text()?);
                Ok(SocksMessage::Password(user.to_vec(), password.to_vec()))
            }
            SocksPhase::Request => {
                self.version(VERSION)?;
                let [command, _reserved, kind] = self.array()?;
                let (host, port) = self.host_and_port(kind)?;
                Ok(match host.filter(|_| port != 0) {
                    _ if command == UDP_ASSOCIATE => SocksMessage::Associate,
                    _ if command != CONNECT => SocksMessage::Refused(reply::NO_COMMAND),
                    Some(host) => SocksMessage::Connect(Destination { host, port }),
                    None => SocksMessage::Refused(reply::HOST_UNREACHABLE),
                })
            }
        }
    }
}

/// Parses the message that `bytes` begin with. It has at most 513 bytes.
pub(crate) fn parse(phase: SocksPhase, bytes: &[u8]) -> SocksBytes {
    let mut fields = Fields::new(bytes);
    match fields.message(phase) {
        Ok(message) => SocksBytes::Whole(message, fields.at),
        Err(Unread::Missing(count)) => SocksBytes::Part(count),
        Err(Unread::Refused(code)) => SocksBytes::Whole(SocksMessage::Refused(code), fields.at),
        Err(Unread::Wrong) => SocksBytes::Wrong,
    }
}

/// Returns the answer to a greeting: the method that the visitor has to use.
pub(crate) fn method(method: u8) -> [u8; 2] {
    [VERSION, method]
}

/// Returns the answer to a name and a password.
pub(crate) fn password_status(is_right: bool) -> [u8; 2] {
    [PASSWORD_VERSION, u8::from(!is_right)]
}

/// Returns the reply to a request. It does not tell from which address the proxy has connected.
pub(crate) fn reply(code: u8) -> [u8; 10] {
    [VERSION, code, 0, IPV4, 0, 0, 0, 0, 0, 0]
}

/// Returns the reply to a request to pass datagrams on: where the visitor has to send them.
pub(crate) fn associated(addr: SocketAddr) -> SmallVec<[u8; MAX_HEADER]> {
    let mut message = datagram::header(addr);
    if let Some(first) = message.first_mut() {
        *first = VERSION;
    }
    message
}

/// Returns the code that tells why a destination was not reached.
pub(crate) fn code_of(failure: &ProxyFailure) -> u8 {
    match failure {
        ProxyFailure::NotATarget => reply::NOT_ALLOWED,
        ProxyFailure::NoAddress(e) => match e.kind() {
            io::ErrorKind::ResourceBusy => reply::FAILED,
            io::ErrorKind::TimedOut => reply::EXPIRED,
            _ => reply::HOST_UNREACHABLE,
        },
        ProxyFailure::NoConnection(e) => match e.kind() {
            io::ErrorKind::ConnectionRefused => reply::REFUSED,
            io::ErrorKind::HostUnreachable => reply::HOST_UNREACHABLE,
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
                reply::NETWORK_UNREACHABLE
            }
            io::ErrorKind::TimedOut => reply::EXPIRED,
            _ => reply::FAILED,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses a message that comes byte by byte, with others behind it.
    fn parsed(phase: SocksPhase, bytes: &[u8]) -> Option<(SocksMessage, usize)> {
        let mut had = 0;
        loop {
            match parse(phase, &bytes[..had]) {
                SocksBytes::Whole(message, length) => {
                    assert_eq!(length, had, "nothing behind the message is asked for");
                    let whole = [&bytes[..had], b"behind it"].concat();
                    assert_eq!(parse(phase, &whole), SocksBytes::Whole(message, length));
                    let SocksBytes::Whole(message, length) = parse(phase, &whole) else {
                        unreachable!("the same bytes");
                    };
                    return Some((message, length));
                }
                SocksBytes::Part(missing) if had + missing > bytes.len() => return None,
                SocksBytes::Part(missing) => {
                    // As many as are missing at least, one by one.
                    for more in 1..missing {
                        let part = parse(phase, &bytes[..had + more]);
                        assert!(matches!(part, SocksBytes::Part(_)), "{part:?}");
                    }
                    had += missing;
                }
                SocksBytes::Wrong => return None,
            }
        }
    }

    fn connect(destination: &str) -> Option<SocksMessage> {
        let destination = Destination::parse(destination.as_bytes(), None);
        destination.map(SocksMessage::Connect)
    }

    #[test]
    fn messages_are_read_however_they_are_cut() {
        use SocksPhase::{Greeting, Password, Request};
        for (phase, bytes, expected) in [
            (
                Greeting,
                &b"\x05\x01\x00"[..],
                Some(SocksMessage::Greeting(vec![0])),
            ),
            (
                Greeting,
                b"\x05\x02\x00\x02",
                Some(SocksMessage::Greeting(vec![0, 2])),
            ),
            (Greeting, b"\x05\x00", Some(SocksMessage::Greeting(vec![]))),
            (Greeting, b"\x04\x01\x00", None),
            (Greeting, b"GET / HTTP/1.1\r\n", None),
            (Greeting, b"\x05\x02\x00", None),
            (
                Password,
                b"\x01\x05alice\x06secret",
                Some(SocksMessage::Password(
                    b"alice".to_vec(),
                    b"secret".to_vec(),
                )),
            ),
            (
                Password,
                b"\x01\x00\x00",
                Some(SocksMessage::Password(vec![], vec![])),
            ),
            (Password, b"\x05\x01a\x01b", None),
            (
                Request,
                b"\x05\x01\x00\x01\xC0\xA8\x01\x01\x00\x50",
                connect("192.168.1.1:80"),
            ),
            (
                Request,
                b"\x05\x01\x00\x03\x07nas.lan\x01\xBB",
                connect("nas.lan:443"),
            ),
            (
                Request,
                b"\x05\x01\x00\x03\x0b192.168.1.1\x01\xBB",
                connect("192.168.1.1:443"),
            ),
            (
                Request,
                b"\x05\x01\x00\x04\xFD\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x16",
                connect("[fd00::1]:22"),
            ),
            (
                Request,
                b"\x05\x02\x00\x01\0\0\0\0\0\0",
                Some(SocksMessage::Refused(7)),
            ),
            (
                Request,
                b"\x05\x03\x00\x01\0\0\0\0\0\0",
                Some(SocksMessage::Associate),
            ),
            (
                Request,
                b"\x05\x03\x00\x03\x07nas.lan\x01\xBB",
                Some(SocksMessage::Associate),
            ),
            (Request, b"\x05\x03\x00\x02", Some(SocksMessage::Refused(8))),
            (
                Request,
                b"\x05\x01\x00\x01\x0A\0\0\x01\0\0",
                Some(SocksMessage::Refused(4)),
            ),
            (Request, b"\x05\x01\x00\x02", Some(SocksMessage::Refused(8))),
            (
                Request,
                b"\x05\x01\x00\x03\x00\x00\x50",
                Some(SocksMessage::Refused(4)),
            ),
            (
                Request,
                b"\x05\x01\x00\x03\x03a b\x00\x50",
                Some(SocksMessage::Refused(4)),
            ),
            (
                Request,
                b"\x05\x01\x00\x03\x03a\0b\x00\x50",
                Some(SocksMessage::Refused(4)),
            ),
            (Request, b"\x04\x01\x00\x01\0\0\0\0\0\x01", None),
            (Request, b"\x05\x01\x00\x03\xFFnas.lan", None),
        ] {
            let read = parsed(phase, bytes);
            if let Some((_, length)) = &read {
                assert_eq!(*length, bytes.len());
            }
            assert_eq!(read.map(|(message, _)| message), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_failure_has_the_code_of_its_cause() {
        let no_connection = |kind: io::ErrorKind| ProxyFailure::NoConnection(kind.into());
        for (failure, code, status) in [
            (ProxyFailure::NotATarget, 2, 403),
            (no_connection(io::ErrorKind::NetworkUnreachable), 3, 502),
            (no_connection(io::ErrorKind::HostUnreachable), 4, 502),
            (no_connection(io::ErrorKind::ConnectionRefused), 5, 502),
            (no_connection(io::ErrorKind::TimedOut), 6, 504),
            (no_connection(io::ErrorKind::PermissionDenied), 1, 502),
            (ProxyFailure::NoAddress(io::Error::other("no name")), 4, 502),
            (
                ProxyFailure::NoAddress(io::ErrorKind::TimedOut.into()),
                6,
                504,
            ),
            (
                ProxyFailure::NoAddress(io::ErrorKind::ResourceBusy.into()),
                1,
                503,
            ),
        ] {
            assert_eq!(
                (code_of(&failure), failure.status_code()),
                (code, status),
                "{failure:?}"
            );
        }
    }
}
