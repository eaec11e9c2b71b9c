//! TLS: the connecting side, the accepting side and certificates. No other module depends on
//! rustls.
//!
//! An end whose processor has no AES instructions puts ChaCha20-Poly1305 first; servers follow the
//! client's order, and the client is usually the weaker machine.

use super::runtime::costly_step;
use super::{Conn, Socket};
use crate::keys::{Binding, Fingerprint};
use crate::net::clock;
use async_tls::pki_types::{CertificateDer, ServerName};
use async_tls::rustls::crypto::{ring, CryptoProvider};
use async_tls::rustls::{self, version, SupportedCipherSuite};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

#[cfg(any(feature = "server", feature = "web"))]
mod acceptor;
#[cfg(feature = "acme")]
pub(crate) mod certificate_facts;
#[cfg(feature = "acme")]
mod certificate_key;
#[cfg(feature = "acme")]
mod challenge;
#[cfg(any(feature = "server", feature = "p2p", feature = "web"))]
mod der;
#[cfg(any(feature = "server", feature = "web"))]
mod der_reader;
#[cfg(any(feature = "server", feature = "web"))]
mod identity;
mod known_servers;
#[cfg(any(feature = "server", feature = "web"))]
mod named;
#[cfg(not(any(feature = "server", feature = "web")))]
mod no_keys;
#[cfg(feature = "p2p")]
pub mod peer;
// Private keys are read by servers, and by clients with keys.
#[cfg_attr(not(any(feature = "server", feature = "keys")), allow(dead_code))]
mod pem;
#[cfg(all(feature = "quic", feature = "p2p", not(feature = "sim")))]
mod pinned;
#[cfg(all(feature = "quic", feature = "server"))]
mod quic_identity;
#[cfg(any(feature = "server", feature = "p2p", feature = "web"))]
mod self_signed;
#[cfg(any(feature = "server", feature = "web"))]
pub(crate) mod subject;
mod verify;

#[cfg(any(feature = "server", feature = "web"))]
pub use acceptor::{
    check_client_ca, client_hello, is_plain_http, Acceptor, ClientCertificates, MinVersion,
    HANDSHAKE_RECORD, MAX_RECORD,
};
#[cfg(feature = "acme")]
pub use certificate_key::{first_certificate, CertificateKey};
#[cfg(feature = "acme")]
pub use challenge::ACME_TLS;
#[cfg(any(feature = "server", feature = "web"))]
pub use identity::ServerIdentity;
#[cfg(all(test, feature = "acme"))]
pub use named::NamedCertificate;
#[cfg(any(feature = "server", feature = "web"))]
pub use named::NamedCertificates;
#[cfg(all(feature = "client", feature = "keys"))]
pub(crate) use pem::pem_of;
#[cfg(feature = "p2p")]
pub(crate) use self_signed::self_signed;

#[cfg(all(feature = "quic", feature = "p2p", not(feature = "sim")))]
pub use pinned::PeerTls;
#[cfg(all(feature = "quic", feature = "server"))]
pub use quic_identity::QuicIdentity;

/// A TLS stream. Without the server feature there is one kind, which keeps the server's code out of
/// the program.
#[cfg(any(feature = "server", feature = "web"))]
pub type Stream = async_tls::TlsStream<Socket>;
/// A TLS stream, of a client only: this program has no server.
#[cfg(not(any(feature = "server", feature = "web")))]
pub type Stream = async_tls::client::TlsStream<Socket>;

/// Returns ring's algorithms. No other function refers to them, so that the compiler can drop those
/// that are not used.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    if !has_aes_instructions() {
        put_chacha_first(&mut provider.cipher_suites);
    }
    #[cfg(not(any(feature = "server", feature = "web")))]
    {
        provider.key_provider = &no_keys::NoKeys;
    }
    Arc::new(provider)
}

fn put_chacha_first(suites: &mut [SupportedCipherSuite]) {
    // A stable sort keeps the order of the others.
    suites.sort_by_key(|suite| {
        use rustls::CipherSuite as Suite;
        let chacha = matches!(
            suite.suite(),
            Suite::TLS13_CHACHA20_POLY1305_SHA256
                | Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
                | Suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        );
        (suite.tls13().is_none(), !chacha)
    });
}

#[cfg(feature = "sim")]
pub use super::kernel::fill_random;
/// Fills `bytes` with random bytes that are fit for secrets.
#[cfg(not(feature = "sim"))]
pub fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    provider()
        .secure_random
        .fill(bytes)
        .map_err(|_| io::Error::other("the system has no random numbers"))
}

fn has_aes_instructions() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Which server certificates a client accepts.
pub enum ServerTrust<'a> {
    /// Certificates signed by the system's authorities.
    System,
    /// Certificates in a PEM file, authorities or the server's own, and certificates signed by
    /// them.
    File(&'a Path),
    /// Certificates of these keys, whatever else is in them.
    Keys(&'a [Fingerprint]),
    /// Certificates of any key at the first connection to a host, and then of this one alone, which
    /// is remembered in this directory.
    FirstKey(&'a Path),
    /// Any certificate.
    Nobody,
}

/// Number of sessions that a connector remembers, so that the next handshake with a server needs no
/// signature and no certificate: eight for each of the last eight servers. A remembered session counts for
/// the certificates that its connector trusts.
const SESSIONS: usize = 64;

/// Reads the first private key in a PEM file, in the encoding that it has there. The error names the file.
#[cfg(all(feature = "client", feature = "keys"))]
pub(crate) fn private_key_in(path: &Path) -> io::Result<Vec<u8>> {
    let key = pem::private_key(path)?;
    Ok(key.secret_der().to_vec())
}

/// The verified certificate of a visitor.
#[cfg(any(feature = "server", feature = "web"))]
pub struct ClientCertificate(CertificateDer<'static>);

#[cfg(any(feature = "server", feature = "web"))]
impl ClientCertificate {
    /// Returns the subject of the certificate as printable ASCII; `None` if it has none, or one longer than
    /// [`MAX_SUBJECT`](crate::wire::origin::MAX_SUBJECT).
    pub fn subject(&self) -> Option<String> {
        subject::subject(&self.0)
    }
}

/// Returns the certificate of the client at the other end of a connection that this end has accepted.
#[cfg(feature = "server")]
pub(crate) fn client_certificate(stream: &Stream) -> Option<ClientCertificate> {
    match stream {
        Stream::Client(_) => None,
        Stream::Server(stream) => {
            let certificates = stream.get_ref().1.peer_certificates()?;
            let first = certificates.first()?;
            Some(ClientCertificate(first.clone().into_owned()))
        }
    }
}

/// The label of the exported keying material that binds a login to a connection (RFC 9266).
pub(crate) const BINDING: &[u8] = b"EXPORTER-Channel-Binding";

/// Returns what binds a login to the connection: exported keying material. `None` before TLS 1.3, where
/// two connections may have the same.
pub(crate) fn binding(stream: &Stream) -> Option<Binding> {
    #[cfg(any(feature = "server", feature = "web"))]
    let (version, exported) = match stream {
        Stream::Client(stream) => {
            let session = stream.get_ref().1;
            let exported = session.export_keying_material([0; 32], BINDING, Some(b""));
            (session.protocol_version(), exported)
        }
        Stream::Server(stream) => {
            let session = stream.get_ref().1;
            let exported = session.export_keying_material([0; 32], BINDING, Some(b""));
            (session.protocol_version(), exported)
        }
    };
    #[cfg(not(any(feature = "server", feature = "web")))]
    let (version, exported) = {
        let session = stream.get_ref().1;
        let exported = session.export_keying_material([0; 32], BINDING, Some(b""));
        (session.protocol_version(), exported)
    };
    let is_1_3 = version == Some(rustls::ProtocolVersion::TLSv1_3);
    let exported = exported.ok().filter(|_| is_1_3)?;
    Some(Binding::TlsExporter(exported))
}

/// The client's side of TLS.
#[derive(Clone)]
pub struct Connector(Arc<rustls::ClientConfig>);

impl Connector {
    /// Reads the certificates. Errors name the file and its fault.
    pub fn new(trust: ServerTrust<'_>) -> io::Result<Self> {
        let provider = provider();
        let resumption = match trust {
            // A key whose line has been deleted from known_servers, or changed there, counts no longer.
            ServerTrust::FirstKey(_) => rustls::client::Resumption::disabled(),
            _ => rustls::client::Resumption::in_memory_sessions(SESSIONS),
        };
        let verifier = match trust {
            ServerTrust::System => verify::authorities(system_certificates()?, &provider)?,
            ServerTrust::File(path) => verify::these(pem::certificates(path)?, &provider)?,
            ServerTrust::Keys(keys) => verify::keys(keys, &provider),
            ServerTrust::FirstKey(directory) => verify::first_key(directory, &provider),
            ServerTrust::Nobody => verify::anybody(&provider),
        };
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(|e| invalid(format!("setting up TLS: {e}")))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.resumption = resumption;
        Ok(Self(Arc::new(config)))
    }

    /// Returns the configuration for these application protocols (RFC 7301), the best first.
    #[cfg(feature = "quic")]
    pub fn config_for(&self, protocols: &[&[u8]]) -> rustls::ClientConfig {
        let mut config = (*self.0).clone();
        config.resumption = rustls::client::Resumption::disabled();
        config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
        config
    }

    /// Performs the handshake when its turn has come. The certificate must be for `host`.
    pub async fn connect(&self, host: &str, socket: Socket) -> io::Result<Conn> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| invalid(format!("{host} is no name for a certificate")))?;
        costly_step().await;
        let connector = async_tls::TlsConnector::from(self.0.clone());
        let stream = connector.connect(name, socket).await.map_err(plain)?;
        let (_, session) = stream.get_ref();
        if session.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
            log::debug!("TLS session with {host} resumed");
        }
        Ok(Conn::from(Stream::from(stream)))
    }
}

/// Returns the error of one of gt's verifiers without the prefix that rustls adds.
fn plain(e: io::Error) -> io::Error {
    let inner = e.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::Other(why)) => invalid(why.to_string()),
        _ => e,
    }
}

const UNKNOWN: &str = "; set remoteCert to the server's certificate or its authority's, or remoteKey to what gt fingerprint prints there";

/// Returns advice for the user of a client about a failed handshake; empty if there is none.
pub fn advice(e: &io::Error) -> &'static str {
    use rustls::CertificateError as Certificate;
    let inner = e.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    let why = match inner {
        Some(rustls::Error::InvalidCertificate(why)) => why,
        Some(rustls::Error::InvalidMessage(_)) => {
            return "; the server does not speak TLS on this port: use another port, or tcp:// in place of tls://, or ws:// in place of wss://"
        }
        _ => return "",
    };
    match why {
        Certificate::UnknownIssuer => UNKNOWN,
        // A self-signed certificate that is also an authority, as openssl creates it, or one of
        // version 1.
        Certificate::Other(_) => UNKNOWN,
        Certificate::UnsupportedSignatureAlgorithmContext { .. }
        | Certificate::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "; it is signed in a way that gt does not support, such as with a key on P-521; \
             set remoteCert to the certificate itself"
        }
        Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
            if clock_is_unset() {
                "; the clock of this machine is wrong; set it first"
            } else {
                "; is the clock of this machine right?"
            }
        }
        Certificate::Expired | Certificate::ExpiredContext { .. } => {
            "; the server needs a new one, unless the clock of this machine is wrong"
        }
        Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
            "; use the name in remote that the certificate is for, or set remoteCert to \
             the certificate itself"
        }
        _ => "",
    }
}

/// Returns advice for the user of any server about a failed handshake: whether the clock is the reason; empty if
/// it is not.
pub fn clock_advice(e: &io::Error) -> &'static str {
    use rustls::CertificateError as Certificate;
    let inner = e.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    let is_of_clock = |why: &Certificate| {
        matches!(
            why,
            Certificate::NotValidYet
                | Certificate::NotValidYetContext { .. }
                | Certificate::Expired
                | Certificate::ExpiredContext { .. }
        )
    };
    match inner {
        Some(rustls::Error::InvalidCertificate(why)) if is_of_clock(why) => advice(e),
        _ => "",
    }
}

/// Returns the error for a certificate that QUIC has refused with this alert (RFC 8446, section 6.2), with the
/// text of rustls; `None` if the alert is about something else.
#[cfg(all(feature = "quic", not(feature = "sim")))]
pub fn certificate_error(alert: u8, reason: &str) -> Option<io::Error> {
    use rustls::{CertificateError as Certificate, OtherError};
    let why = match alert {
        42 => Certificate::NotValidForName,
        45 if reason.contains("NotValidYet") || reason.contains("not valid yet") => {
            Certificate::NotValidYet
        }
        45 => Certificate::Expired,
        46 => Certificate::Other(OtherError(Arc::new(io::Error::other(reason.to_owned())))),
        48 => Certificate::UnknownIssuer,
        _ => return None,
    };
    Some(invalid_certificate(why))
}

#[cfg(all(feature = "quic", not(feature = "sim")))]
fn invalid_certificate(why: rustls::CertificateError) -> io::Error {
    let error = rustls::Error::InvalidCertificate(why);
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Whether the clock shows a time before 2025. Routers have no battery: until the network sets the
/// clock, it shows 1970 or the year of their firmware.
fn clock_is_unset() -> bool {
    const BEGIN_OF_2025: Duration = Duration::from_secs(1_735_689_600);
    let now = clock::time_of_day().duration_since(UNIX_EPOCH);
    now.map_or(true, |now| now < BEGIN_OF_2025)
}

/// Reads the certificate authorities of the system.
pub(crate) fn system_certificates() -> io::Result<Vec<CertificateDer<'static>>> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the system has no certificate authorities; install its package \
             (ca-certificates, on OpenWrt ca-bundle)",
        ));
    }
    Ok(found.certs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_aes_instructions_chacha_comes_first_in_each_version() {
        let mut suites = ring::default_provider().cipher_suites;
        let all = suites.len();
        put_chacha_first(&mut suites);
        let names: Vec<String> = suites
            .iter()
            .map(|suite| format!("{:?}", suite.suite()))
            .collect();
        let of = |version: &str| -> Vec<bool> {
            let these = names.iter().filter(|name| name.starts_with(version));
            these.map(|name| name.contains("CHACHA20")).collect()
        };
        assert_eq!(of("TLS13_"), [true, false, false], "{names:?}");
        assert_eq!(
            of("TLS_"),
            [true, true, false, false, false, false],
            "{names:?}"
        );
        assert!(names[0].starts_with("TLS13_") && names.len() == all);
    }
}
