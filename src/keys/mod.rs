//! Keys by which the ends authenticate each other: fingerprints of servers' keys, keys of clients, and the login
//! with a key. Not certificates, see `net::tls`, and not the bytes of a hello, see `wire`.

mod fingerprint;
mod login;
#[cfg(feature = "client")]
#[cfg_attr(not(feature = "keys"), path = "no_private_key.rs")]
mod private_key;
mod public_key;
#[cfg(feature = "p2p")]
mod shared_key;

pub use fingerprint::Fingerprint;
pub use login::{Binding, Challenge, CHALLENGE};
#[cfg(feature = "client")]
pub use private_key::PrivateKey;
pub use public_key::{AuthorizedKey, PublicKey, Signature, PUBLIC_KEY, SIGNATURE};
#[cfg(feature = "p2p")]
pub use shared_key::shared_key;
