//! The key that two clients share for a private service, and their server does not know.

use crate::encoding::BASE64;
use crate::net::tls;
use base64::Engine;
use std::io;

/// Makes a key of 256 random bits, as text.
pub fn shared_key() -> io::Result<String> {
    let mut bytes = [0; 32];
    tls::fill_random(&mut bytes)?;
    Ok(BASE64.encode(bytes))
}
