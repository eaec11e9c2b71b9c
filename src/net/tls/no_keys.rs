//! A client has no key of its own, and what could sign with one would be a tenth of its TLS.

use async_tls::pki_types::PrivateKeyDer;
use async_tls::rustls::crypto::KeyProvider;
use async_tls::rustls::sign::SigningKey;
use async_tls::rustls::Error;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(&self, _: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        Err(Error::General("this gt was built without keys".into()))
    }
}
