//! The server's side of TLS: certificate, key, lowest version.

use super::{invalid, provider, read_certificates, Conn, Socket, Stream};
use async_tls::pki_types::pem::PemObject;
use async_tls::pki_types::PrivateKeyDer;
use async_tls::rustls::{self, version, SupportedProtocolVersion};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The lowest version a server accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinVersion {
    Tls12,
    Tls13,
}

/// What a TLS listener needs.
#[derive(Clone)]
pub struct Acceptor(async_tls::TlsAcceptor);

impl Acceptor {
    /// Errors name the file and what is wrong with it.
    pub fn new(cert_file: &Path, key_file: &Path, min: MinVersion) -> io::Result<Self> {
        let certificates = read_certificates(cert_file)?;
        let key = PrivateKeyDer::from_pem_file(key_file).map_err(|e| {
            invalid(format!(
                "reading the private key from {}: {e}",
                key_file.display()
            ))
        })?;
        let versions: &[&SupportedProtocolVersion] = match min {
            MinVersion::Tls12 => &[&version::TLS13, &version::TLS12],
            MinVersion::Tls13 => &[&version::TLS13],
        };
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .and_then(|builder| {
                builder
                    .with_no_client_auth()
                    .with_single_cert(certificates, key)
            })
            .map_err(|e| {
                invalid(format!(
                    "using the certificate {} with the key {}: {e}",
                    cert_file.display(),
                    key_file.display()
                ))
            })?;
        Ok(Self(Arc::new(config).into()))
    }

    pub async fn accept(&self, socket: Socket) -> io::Result<Conn> {
        let stream = self.0.accept(socket).await?;
        Ok(Conn::from(Stream::from(stream)))
    }
}
