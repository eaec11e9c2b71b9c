//! The accepting side of TLS: certificate, key, minimum version.

use super::named::{NamedCertificates, Resolver};
use super::verify::version1_key;
use super::{invalid, pem, provider, Conn, ServerIdentity, Socket, Stream};
use crate::net::runtime::costly_step;
use crate::net::with_read_buf;
use async_tls::pki_types::PrivateKeyDer;
use async_tls::rustls::crypto::ring::Ticketer;
use async_tls::rustls::server::danger::ClientCertVerifier;
use async_tls::rustls::server::NoServerSessionStorage;
use async_tls::rustls::server::WebPkiClientVerifier;
use async_tls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use async_tls::rustls::{self, version, InconsistentKeys, RootCertStore, SupportedProtocolVersion};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The minimum TLS version of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// The certificates that a server asks its clients for.
#[derive(Debug, Clone, Copy)]
pub enum ClientCertificates<'a> {
    /// None.
    Unasked,
    /// Certificates that the authorities in this PEM file have signed. Others are refused in the handshake;
    /// a client may have none.
    Optional(&'a Path),
    /// The same, but a client without one is refused, too.
    Required(&'a Path),
}

/// The TLS configuration of a listener.
#[derive(Clone)]
pub struct Acceptor(async_tls::TlsAcceptor);

impl From<rustls::ServerConfig> for Acceptor {
    fn from(config: rustls::ServerConfig) -> Self {
        Self(Arc::new(config).into())
    }
}

impl Acceptor {
    /// Creates the configuration of a server with this identity, and with other certificates for some names.
    /// The error names certificate and key, or the file of authorities. If it asks for certificates, each
    /// handshake is a full one.
    pub fn new(
        identity: ServerIdentity,
        min: MinVersion,
        asked: ClientCertificates<'_>,
        names: Option<Arc<NamedCertificates>>,
    ) -> io::Result<Self> {
        let verifier = match asked {
            ClientCertificates::Unasked => None,
            ClientCertificates::Optional(path) => Some(client_verifier(path, false)?),
            ClientCertificates::Required(path) => Some(client_verifier(path, true)?),
        };
        let versions: &[&'static SupportedProtocolVersion] = match min {
            MinVersion::Tls12 => &[&version::TLS13, &version::TLS12],
            MinVersion::Tls13 => &[&version::TLS13],
        };
        let is_asked = verifier.is_some();
        let mut config = server_config(identity, versions, verifier)?;
        if let Some(names) = names {
            let default = config.cert_resolver;
            config.cert_resolver = Arc::new(Resolver { names, default });
        }
        // Clients keep their sessions themselves, as tickets: sessions of visitors do not displace those of tunnels,
        // and a visitor leaves nothing in the server's memory.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        match is_asked {
            // The certificate of a resumed session is not checked again: it would stay valid for as long as its
            // owner comes back before each ticket ends.
            true => config.send_tls13_tickets = 0,
            false => {
                config.ticketer =
                    Ticketer::new().map_err(|e| invalid(format!("setting up TLS: {e}")))?;
            }
        }
        Ok(Self::from(config))
    }

    /// Performs the handshake when its turn has come. Its first step has the signature.
    pub async fn accept(&self, socket: Socket) -> io::Result<Conn> {
        costly_step().await;
        // Nothing of it exists before: a crowd may wait for its turn.
        let stream = Box::pin(self.0.accept(socket)).await?;
        Ok(Conn::from(Stream::from(stream)))
    }
}

/// Creates the configuration of a server with this identity, for TLS of these versions, and with this
/// verifier of clients' certificates. The error names certificate and key.
pub(super) fn server_config(
    identity: ServerIdentity,
    versions: &[&'static SupportedProtocolVersion],
    verifier: Option<Arc<dyn ClientCertVerifier>>,
) -> io::Result<rustls::ServerConfig> {
    let ServerIdentity {
        certificates,
        key,
        name,
    } = identity;
    let advice = key_advice(&key);
    rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .and_then(|builder| {
            let builder = match verifier {
                Some(verifier) => builder.with_client_cert_verifier(verifier),
                None => builder.with_no_client_auth(),
            };
            match certificates.first().and_then(version1_key) {
                // rustls compares certificate and key only if it can parse the certificate.
                Some(public) => {
                    let private = provider().key_provider.load_private_key(key)?;
                    if private.public_key().is_some_and(|key| key != public) {
                        return Err(InconsistentKeys::KeyMismatch.into());
                    }
                    let both = CertifiedKey::new(certificates, private);
                    Ok(builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(both))))
                }
                None => builder.with_single_cert(certificates, key),
            }
        })
        .map_err(|e| invalid(format!("using {name}: {e}{advice}")))
}

/// Checks whether certificates of clients can be verified by the authorities in a file. The error names it.
pub fn check_client_ca(path: &Path) -> io::Result<()> {
    client_verifier(path, false).map(drop)
}

/// Creates the verifier of clients' certificates. The error names the file.
fn client_verifier(path: &Path, is_required: bool) -> io::Result<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(pem::certificates(path)?);
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let builder = match is_required {
        true => builder,
        false => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|e| {
        let path = path.display();
        invalid(format!("using the authorities in {path} for clients: {e}"))
    })
}

/// Returns what can be done about a key that rustls does not accept.
fn key_advice(key: &PrivateKeyDer<'_>) -> &'static str {
    // Object identifiers of the curves in DER.
    const P521: [u8; 7] = [6, 5, 0x2B, 0x81, 4, 0, 0x23];
    const SECP256K1: [u8; 7] = [6, 5, 0x2B, 0x81, 4, 0, 0x0A];
    let names = |curve: &[u8]| {
        key.secret_der()
            .windows(curve.len())
            .any(|part| part == curve)
    };
    if names(&P521) || names(&SECP256K1) {
        "; gt does not support this curve; create a key on another: openssl genpkey -algorithm EC \
         -pkeyopt ec_paramgen_curve:P-256 -out key.pem"
    } else {
        ""
    }
}

/// The record type of handshake messages (RFC 8446, section 5.1).
pub const HANDSHAKE_RECORD: u8 = 22;
/// Maximum length in bytes of a record's fragment (RFC 8446, section 5.1).
pub const MAX_RECORD: usize = 1 << 14;

/// Waits until the client's first record has arrived, leaves it in the socket and returns what `read` gets
/// from it, or from less at the end of the stream or if it is not TLS; until then TLS needs no memory here.
pub async fn client_hello<T>(socket: &Socket, read: impl Fn(&[u8]) -> T) -> io::Result<T> {
    // Bytes seen before, and how often no more came.
    let (mut before, mut same) = (0, 0);
    let mut seen = None;
    let mut is_enough = |there: &[u8]| {
        same = if there.len() == before { same + 1 } else { 0 };
        before = there.len();
        // The end of the stream shows as an event without new bytes. That may happen once before
        // the end, for bytes that came before the first wait.
        let is_enough = same > 1 || holds_record(there);
        if is_enough {
            seen = Some(read(there));
        }
        is_enough
    };
    std::future::poll_fn(|cx| {
        with_read_buf(|scratch| socket.poll_peek(cx, scratch, &mut is_enough))
    })
    .await?;
    Ok(seen.unwrap_or_else(|| read(&[])))
}

/// Whether a connection that begins with this byte is plain HTTP: a method begins with a letter.
pub fn is_plain_http(first: Option<u8>) -> bool {
    first.is_some_and(|byte| byte.is_ascii_alphabetic())
}

/// Whether a whole record has arrived, or bytes that are not a record (RFC 8446, section 5.1).
fn holds_record(bytes: &[u8]) -> bool {
    match bytes {
        [HANDSHAKE_RECORD, _, _, high, low, rest @ ..] => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            rest.len() >= length.min(MAX_RECORD)
        }
        []
        | [HANDSHAKE_RECORD]
        | [HANDSHAKE_RECORD, _]
        | [HANDSHAKE_RECORD, _, _]
        | [HANDSHAKE_RECORD, _, _, _] => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Connector, ServerTrust};
    use super::*;
    use crate::net::kernel;
    use async_std::task::block_on;
    use async_tls::pki_types::ServerName;
    use futures_lite::{future, AsyncReadExt, AsyncWriteExt};
    use std::path::Path;

    /// Connects `connector` to `acceptor` and returns how the handshake went, when the client has read what
    /// the server sent behind it.
    fn handshake(connector: &Connector, acceptor: &Acceptor) -> rustls::HandshakeKind {
        let (near, far) = kernel::loopback_pair().unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        block_on(async {
            let (near, far) = (Socket::new(near, false).unwrap(), {
                far.set_nonblocking(true).unwrap();
                Socket::new(far, false).unwrap()
            });
            let accepting = async {
                let mut stream = acceptor.0.accept(far).await?;
                stream.write_all(b"x").await?;
                stream.flush().await.map(|()| stream)
            };
            let connecting = async {
                let connector = async_tls::TlsConnector::from(connector.0.clone());
                let mut stream = connector.connect(name, near).await?;
                stream.read_exact(&mut [0]).await.map(|()| stream)
            };
            let (server, client) = future::try_zip(accepting, connecting).await.unwrap();
            let kind = client.get_ref().1.handshake_kind().unwrap();
            assert_eq!(server.get_ref().1.handshake_kind(), Some(kind));
            kind
        })
    }

    #[test]
    fn a_second_handshake_with_a_server_is_short_and_other_servers_visitors_do_not_matter() {
        use rustls::HandshakeKind::{Full, Resumed};
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sim");
        let (cert, key) = (tests.join("tls.crt"), tests.join("tls.key"));
        for min in [MinVersion::Tls12, MinVersion::Tls13] {
            let acceptor = || {
                let identity = ServerIdentity::from_files(&cert, &key).unwrap();
                Acceptor::new(identity, min, ClientCertificates::Unasked, None).unwrap()
            };
            let (acceptor, other) = (acceptor(), acceptor());
            let connector = Connector::new(ServerTrust::File(&cert)).unwrap();
            assert_eq!(handshake(&connector, &acceptor), Full);
            for _ in 0..300 {
                let visitor = Connector::new(ServerTrust::Nobody).unwrap();
                assert_eq!(handshake(&visitor, &acceptor), Full);
            }
            assert_eq!(handshake(&connector, &acceptor), Resumed);
            assert_eq!(handshake(&connector, &acceptor), Resumed);
            // Tickets of another process, or from before a reload, are of no use.
            assert_eq!(handshake(&connector, &other), Full);
        }
    }

    #[test]
    fn no_session_is_resumed_where_certificates_of_clients_or_remembered_keys_count() {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sim");
        let (cert, key) = (tests.join("tls.crt"), tests.join("tls.key"));
        let known = crate::state_dir::scratch("acceptor-known");
        for min in [MinVersion::Tls12, MinVersion::Tls13] {
            for (client_ca, trust) in [
                (
                    ClientCertificates::Optional(&cert),
                    ServerTrust::File(&cert),
                ),
                (ClientCertificates::Unasked, ServerTrust::FirstKey(&known)),
            ] {
                let identity = ServerIdentity::from_files(&cert, &key).unwrap();
                let acceptor = Acceptor::new(identity, min, client_ca, None).unwrap();
                let connector = Connector::new(trust).unwrap();
                for _ in 0..3 {
                    let kind = handshake(&connector, &acceptor);
                    assert_eq!(kind, rustls::HandshakeKind::Full, "{min:?} {client_ca:?}");
                }
            }
        }
        std::fs::remove_dir_all(&known).unwrap();
    }

    #[test]
    fn only_a_started_tls_record_is_waited_for() {
        let record = [22, 3, 1, 0, 3, 1, 2, 3];
        for cut in 0..record.len() {
            assert!(!holds_record(&record[..cut]), "cut at {cut}");
        }
        assert!(holds_record(&record));
        assert!(holds_record(&[22, 3, 1, 0, 1, 1, 9, 9]));
        assert!(holds_record(b"GET"));
        let too_long = [&[22, 3, 1, 0xFF, 0xFF][..], &[0; MAX_RECORD]].concat();
        assert!(holds_record(&too_long));
    }
}
