//! TLS 1.3 between two clients that share a key, within a connection that their server relays. Certificates
//! prove nothing here: each end proves the key for what both export from the session.

use super::{invalid, provider, self_signed, verify};
use crate::net::runtime::costly_step;
use async_tls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use async_tls::rustls::crypto::ring::sign::any_ecdsa_type;
use async_tls::rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use async_tls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use async_tls::rustls::{self, version};
use async_tls::{client, server, TlsAcceptor, TlsConnector};
use futures_lite::{AsyncRead, AsyncWrite};
use ring::rand::SystemRandom;
use ring::signature::{EcdsaKeyPair, KeyPair, ECDSA_P256_SHA256_ASN1_SIGNING};
use std::io;
use std::sync::{Arc, OnceLock};

/// The label of the keying material that both ends export (RFC 8446, section 7.5).
const LABEL: &[u8] = b"EXPORTER-gt-private-service";
/// The name that the dialling end asks for, which no certificate has.
const NAME: &str = "gt.invalid";

/// The alert `access_denied` (RFC 8446, section 6), which an end that was dialled sends in place of a handshake.
pub const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// The alert `internal_error`, which an end that was dialled sends likewise if it has too many connections.
pub const INTERNAL_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

/// Why an end that was dialled has refused the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedHandshake {
    /// By [`ACCESS_DENIED`].
    AccessDenied,
    /// By [`INTERNAL_ERROR`].
    InternalError,
}

/// Returns why a handshake was refused; `None` if it has failed otherwise.
pub fn refused(e: &io::Error) -> Option<RefusedHandshake> {
    let inner = e.get_ref()?;
    match inner.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(rustls::AlertDescription::AccessDenied) => {
            Some(RefusedHandshake::AccessDenied)
        }
        rustls::Error::AlertReceived(rustls::AlertDescription::InternalError) => {
            Some(RefusedHandshake::InternalError)
        }
        _ => None,
    }
}

/// What both ends of a session, and nobody else, know.
pub type Exported = [u8; 32];

/// The connection of the end that has dialled.
pub type Dialled<IO> = client::TlsStream<IO>;
/// The connection of the end that was dialled.
pub type Accepted<IO> = server::TlsStream<IO>;

/// The TLS of this process for both roles. Its certificate lasts as long as the process.
struct PeerTls {
    connector: TlsConnector,
    acceptor: TlsAcceptor,
}

impl PeerTls {
    fn new() -> io::Result<Self> {
        let failed = |e: rustls::Error| invalid(format!("setting up TLS between clients: {e}"));
        let provider = provider();
        let mut config = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(verify::anybody(&provider))
            .with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        let mut accepting = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])
            .map_err(failed)?
            .with_no_client_auth()
            .with_cert_resolver(certificate()?);
        accepting.session_storage = Arc::new(NoServerSessionStorage {});
        accepting.send_tls13_tickets = 0;
        Ok(Self {
            connector: Arc::new(config).into(),
            acceptor: Arc::new(accepting).into(),
        })
    }

    fn get() -> io::Result<&'static Self> {
        static TLS: OnceLock<PeerTls> = OnceLock::new();
        match TLS.get() {
            Some(tls) => Ok(tls),
            None => {
                let tls = Self::new()?;
                Ok(TLS.get_or_init(|| tls))
            }
        }
    }
}

/// Makes a key and a certificate for it.
fn certificate() -> io::Result<Arc<dyn ResolvesServerCert>> {
    let failed = |_| io::Error::other("making a key: the system has no random numbers");
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(failed)?;
    let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random)
        .map_err(|e| io::Error::other(format!("making a key: {e}")))?;
    let mut serial = [0; 16];
    super::fill_random(&mut serial)?;
    let sign = |signed: &[u8]| {
        let signature = key.sign(&random, signed).map_err(failed)?;
        Ok::<_, io::Error>(signature.as_ref().to_vec())
    };
    let der: CertificateDer<'static> = self_signed(key.public_key().as_ref(), serial, sign)?.into();
    let pkcs8: PrivateKeyDer<'static> = PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec()).into();
    let signing = any_ecdsa_type(&pkcs8).map_err(|e| invalid(format!("using a key: {e}")))?;
    let both = CertifiedKey::new(vec![der], signing);
    Ok(Arc::new(SingleCertAndKey::from(both)))
}

/// Performs the handshake as the end that dials. Anyone may be at the other end.
pub async fn dial<IO: AsyncRead + AsyncWrite + Unpin>(
    io: IO,
) -> io::Result<(Dialled<IO>, Exported)> {
    let tls = PeerTls::get()?;
    let name = ServerName::try_from(NAME).map_err(|e| invalid(e.to_string()))?;
    costly_step().await;
    let stream = tls.connector.connect(name, io).await?;
    let exported = stream.get_ref().1;
    let exported = exported.export_keying_material([0; 32], LABEL, None);
    let exported = exported.map_err(io::Error::other)?;
    Ok((stream, exported))
}

/// Performs the handshake as the end that was dialled. Anyone may be at the other end.
pub async fn accept<IO: AsyncRead + AsyncWrite + Unpin>(
    io: IO,
) -> io::Result<(Accepted<IO>, Exported)> {
    let tls = PeerTls::get()?;
    costly_step().await;
    let stream = Box::pin(tls.acceptor.accept(io)).await?;
    let exported = stream.get_ref().1;
    let exported = exported.export_keying_material([0; 32], LABEL, None);
    let exported = exported.map_err(io::Error::other)?;
    Ok((stream, exported))
}
