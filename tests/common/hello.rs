//! A minimal hand-written TLS ClientHello (RFC 8446, section 4.1.2), and a relay that cuts a real
//! one into pieces.

use super::service::Service;
use super::visitor::{connect, read};
use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

/// Builds one record with a ClientHello for `name`.
pub fn client_hello(name: &str) -> Vec<u8> {
    let name_length = u16::try_from(name.len()).unwrap();
    let mut extension = vec![0x00, 0x00]; // server_name
    extension.extend((name_length + 5).to_be_bytes());
    extension.extend((name_length + 3).to_be_bytes());
    extension.push(0x00); // host_name
    extension.extend(name_length.to_be_bytes());
    extension.extend(name.as_bytes());

    let mut body = vec![0x03, 0x03];
    body.extend([0x55; 32]); // random
    body.push(0); // no session
    body.extend([0x00, 0x02, 0x13, 0x01]); // TLS_AES_128_GCM_SHA256
    body.extend([0x01, 0x00]); // no compression
    body.extend(u16::try_from(extension.len()).unwrap().to_be_bytes());
    body.extend(extension);

    let length = u16::try_from(body.len()).unwrap();
    let mut handshake = vec![0x01, 0x00];
    handshake.extend(length.to_be_bytes());
    handshake.extend(body);
    record(&handshake)
}

/// Builds a handshake record around `bytes`.
pub fn record(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[0x16, 0x03, 0x01], &length[..], bytes].concat()
}

/// How a visitor's first record is cut.
#[derive(Clone, Copy)]
pub enum Cut {
    /// Into segments of one byte.
    Bytes,
    /// Into records with this many bytes of the handshake each.
    Records(usize),
}

/// Starts a relay to `target` that cuts the first record of each connection.
pub fn cutter(target: SocketAddr, cut: Cut) -> Service {
    Service::start(0, move |mut visitor| {
        let mut target = connect(target);
        let head = read(&mut visitor, 5);
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        let body = read(&mut visitor, length);
        match cut {
            Cut::Bytes => {
                for byte in [head, body].concat() {
                    target.write_all(&[byte])?;
                    // Without a pause the receiver would find the pieces joined.
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            Cut::Records(size) => {
                for piece in body.chunks(size) {
                    target.write_all(&record(piece))?;
                }
            }
        }
        let (mut back, mut from) = (visitor.try_clone()?, target.try_clone()?);
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut back);
            let _ = back.shutdown(Shutdown::Write);
        });
        std::io::copy(&mut visitor, &mut target)?;
        target.shutdown(Shutdown::Write)
    })
}
