//! A stub of signing for clients, which have no private key: the code would be a tenth of their
//! TLS.

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
