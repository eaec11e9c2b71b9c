//! The configuration of QUIC between two peers: certificates, windows, timers.

use super::header::CHANNELS;
use crate::client::p2p::identity::{self, DtlsRole, Identity};
use crate::client::p2p::peer::RECEIVE;
use crate::client::p2p::P2pError;
use crate::net::quic::congestion::CongestionChoice;
use crate::net::tls::{fill_random, PeerTls};
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, InvalidCid,
    MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
};
use rtc_dtls::crypto_provider::SignatureScheme;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The application protocol (docs/p2p.md, "QUIC").
pub const PROTOCOL: &[u8] = b"gt-p2p";
/// Length in bytes of a peer's connection IDs, and of the part that they share.
const ID: usize = 8;
pub(super) const PREFIX: usize = 4;
/// Payload of a packet of 1500 bytes with the headers of IPv6 and UDP.
const MAX_MTU: u16 = 1452;
/// The round-trip time that is assumed before the first measurement. The connectivity checks have shown that
/// packets arrive, so a lost one is repeated sooner than RFC 9002 asks for (section 6.2.2).
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Bytes of datagrams (RFC 9221) that wait in each direction: the pieces of one of the longest, and more.
const DATAGRAM_BUFFER: usize = 128 * 1024;
/// Maximum bytes of packets that wait for the acceptance of the connection, which is immediate.
const INCOMING_BUFFER: u64 = 4 * 1024;

/// What a peer's end of a connection is created from.
pub(super) struct Setup {
    pub(super) endpoint: Arc<EndpointConfig>,
    pub(super) side: SideSetup,
    /// The beginning of the connection IDs that this end gives out.
    pub(super) prefix: [u8; PREFIX],
}

/// The configuration of one side of a connection.
pub(super) enum SideSetup {
    Client(ClientConfig),
    Server(Arc<ServerConfig>),
}

impl Setup {
    /// Creates the configuration of a connection with the peer whose certificate has this fingerprint.
    pub(super) fn new(
        identity: &Identity,
        side: DtlsRole,
        fingerprint: &str,
    ) -> Result<Self, P2pError> {
        Self::try_new(identity, side, fingerprint)
            .map_err(|e| P2pError::new("a QUIC connection", e))
    }

    fn try_new(identity: &Identity, side: DtlsRole, fingerprint: &str) -> io::Result<Self> {
        let mut prefix = [0; PREFIX];
        fill_random(&mut prefix)?;
        let mut secret = [0; 64];
        fill_random(&mut secret)?;
        let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
        let mut endpoint = EndpointConfig::new(Arc::new(reset_key));
        let mut seed = [0; 32];
        fill_random(&mut seed)?;
        endpoint
            .cid_generator(move || -> Box<dyn ConnectionIdGenerator> { Box::new(PeerIds(prefix)) })
            .rng_seed(Some(seed))
            // The first byte of a datagram tells QUIC from STUN and DTLS (RFC 9443, section 3).
            .grease_quic_bit(false);
        let tls = tls(identity, fingerprint)?;
        let side = match side {
            DtlsRole::Client => {
                let crypto = QuicClientConfig::try_from(tls.client(PROTOCOL)?);
                let mut config = ClientConfig::new(Arc::new(crypto.map_err(io::Error::other)?));
                config.transport_config(Arc::new(transport()));
                SideSetup::Client(config)
            }
            DtlsRole::Server => {
                let crypto = QuicServerConfig::try_from(tls.server(PROTOCOL)?);
                let crypto = Arc::new(crypto.map_err(io::Error::other)?);
                fill_random(&mut secret)?;
                let tokens = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, &[]).extract(&secret);
                let mut config = ServerConfig::new(crypto, Arc::new(tokens));
                config
                    .transport_config(Arc::new(transport()))
                    .migration(false)
                    .max_incoming(1)
                    .incoming_buffer_size(INCOMING_BUFFER)
                    .incoming_buffer_size_total(INCOMING_BUFFER);
                SideSetup::Server(Arc::new(config))
            }
        };
        Ok(Self {
            endpoint: Arc::new(endpoint),
            side,
            prefix,
        })
    }
}

/// Returns what both sides' handshakes need: this end's certificate, and how the peer's is recognized.
fn tls(identity: &Identity, fingerprint: &str) -> io::Result<PeerTls> {
    let certificate = identity.certificate.certificate.first();
    let certificate = certificate.ok_or_else(|| io::Error::other("there is no certificate"))?;
    let key = identity.certificate.private_key.signing_key.clone();
    let sign = move |message: &[u8]| key.sign(SignatureScheme::EcdsaP256Sha256, message).ok();
    let expected = fingerprint.to_ascii_uppercase();
    let is_peer = move |der: &[u8]| identity::fingerprint(der) == expected;
    Ok(PeerTls::new(
        certificate.to_vec(),
        Arc::new(sign),
        Arc::new(is_peer),
    ))
}

fn transport() -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MAX_MTU);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(CHANNELS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(RECEIVE))
        .receive_window(VarInt::from_u32(RECEIVE))
        // The connectivity checks find out whether the peer is still there.
        .max_idle_timeout(None)
        .keep_alive_interval(None)
        .initial_rtt(INITIAL_RTT)
        .mtu_discovery_config(Some(mtu))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .congestion_controller_factory(Arc::new(CongestionChoice::new(true)));
    config
}

/// Creates the connection IDs of a peer. They have a beginning in common, so that the peers that share a socket
/// recognize their packets.
struct PeerIds([u8; PREFIX]);

impl ConnectionIdGenerator for PeerIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID];
        rand::fill(&mut id);
        if let Some(beginning) = id.get_mut(..PREFIX) {
            beginning.copy_from_slice(&self.0);
        }
        ConnectionId::new(&id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        match id.starts_with(&self.0) {
            true => Ok(()),
            false => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        ID
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
