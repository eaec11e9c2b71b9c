//! The configuration of QUIC's two ends: protocols, windows, timers, certificates.

use super::congestion::CongestionChoice;
use crate::net::tls;
use quinn_proto::{
    ConnectionIdGenerator, EndpointConfig, HashedConnectionIdGenerator, IdleTimeout,
    MtuDiscoveryConfig, TransportConfig, VarInt,
};
use std::io;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "server")]
use super::resets::ServerIds;
#[cfg(feature = "client")]
use quinn_proto::crypto::rustls::QuicClientConfig;
#[cfg(feature = "server")]
use quinn_proto::crypto::rustls::QuicServerConfig;

/// The application protocol whose stream carries a tunnel as TCP would (docs/wire.md, "QUIC").
pub const PROTOCOL: &[u8] = b"gt-quic";
/// The application protocol of tunnels over QUIC with BBR as the congestion control.
pub const BBR_PROTOCOL: &[u8] = b"default";

/// The application protocol whose first stream carries hellos and signals, and each further one a visitor.
pub const STREAMS_PROTOCOL: &[u8] = b"gt/2";

/// Bytes of a connection that may have arrived and wait for their reader, most of them only because an earlier
/// packet is lost: a line of 80 Mbit/s and 100 ms.
pub const WINDOW: u32 = 1024 * 1024;
/// Bytes like [`WINDOW`] of one stream: no stream is held back but by the connection's window, which is raised after
/// the login.
const STREAM_WINDOW: u32 = 2 * WINDOW;
/// Bytes like [`WINDOW`] of a client that has not logged in: more than a hello has.
const LOGIN_WINDOW: u32 = 32 * 1024;
/// Maximum bytes that are sent and not acknowledged, or wait to be sent. See `driver::send_window`.
pub const MAX_SEND_WINDOW: u64 = 2 * 1024 * 1024;
/// Bytes of datagrams (RFC 9221) that wait in each direction.
const DATAGRAM_BUFFER: usize = 64 * 1024;
/// Time of silence after which both ends give a connection up.
const IDLE_TIMEOUT_MS: u32 = 60_000;
/// Time of silence after which a client sends a packet, so that NATs keep its mapping: some drop one after 30 s, though
/// RFC 4787 demands two minutes.
const KEEP_ALIVE: Duration = Duration::from_secs(25);
/// Payload of a packet of 1500 bytes with the headers of IPv6 and UDP, less what PPPoE takes.
const MAX_MTU: u16 = 1440;
/// Minimum time between two resets of connections that a server does not know, which are smaller than what they answer.
#[cfg(feature = "server")]
const RESET_INTERVAL: Duration = Duration::from_millis(5);
/// Maximum number of connections that have sent their first packet and are not accepted yet.
#[cfg(feature = "server")]
const MAX_INCOMING: usize = 256;
/// Maximum bytes of packets of one connection that is not accepted yet, and of all of them.
#[cfg(feature = "server")]
const INCOMING_BUFFER: (u64, u64) = (4 * 1024, 256 * 1024);

/// Returns the configuration of an endpoint whose connection IDs are recognized by `key`.
#[cfg(feature = "client")]
pub fn endpoint(key: u64) -> io::Result<EndpointConfig> {
    let mut secret = [0; 64];
    tls::fill_random(&mut secret)?;
    let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
    endpoint_with(reset_key, move || Box::new(generator(key)))
}

/// Returns the configuration of a server's endpoint like [`endpoint`], which resets connections that it does not know.
#[cfg(feature = "server")]
pub fn server_endpoint(key: u64, reset_key: &ring::hmac::Key) -> io::Result<EndpointConfig> {
    let ids = move || -> Box<dyn ConnectionIdGenerator> { Box::new(ServerIds(generator(key))) };
    let mut config = endpoint_with(reset_key.clone(), ids)?;
    config.min_reset_interval(RESET_INTERVAL);
    Ok(config)
}

fn endpoint_with(
    reset_key: ring::hmac::Key,
    ids: impl Fn() -> Box<dyn ConnectionIdGenerator> + Send + Sync + 'static,
) -> io::Result<EndpointConfig> {
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.cid_generator(ids);
    let mut seed = [0; 32];
    tls::fill_random(&mut seed)?;
    config.rng_seed(Some(seed));
    Ok(config)
}

/// Returns the generator that creates and recognizes the connection IDs of an endpoint.
pub fn generator(key: u64) -> HashedConnectionIdGenerator {
    HashedConnectionIdGenerator::from_key(key)
}

fn transport(congestion: CongestionChoice, is_server: bool) -> TransportConfig {
    let mut config = TransportConfig::default();
    let idle = IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS));
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MAX_MTU);
    let window = match is_server {
        true => LOGIN_WINDOW,
        false => WINDOW,
    };
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(u32::from(is_server)))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(window))
        .send_window(MAX_SEND_WINDOW)
        .max_idle_timeout(Some(idle))
        .keep_alive_interval((!is_server).then_some(KEEP_ALIVE))
        .mtu_discovery_config(Some(mtu))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .congestion_controller_factory(Arc::new(congestion));
    config
}

/// The configuration of connections to servers.
#[cfg(feature = "client")]
#[derive(Clone)]
pub struct ClientSetup {
    crypto: Arc<QuicClientConfig>,
    bbr: bool,
}

#[cfg(feature = "client")]
impl ClientSetup {
    /// Uses a connector's certificates, and BBR as the congestion control, or else CUBIC. Offers a stream for each
    /// visitor if `streams`.
    pub fn new(connector: &tls::Connector, bbr: bool, streams: bool) -> io::Result<Self> {
        let one = match bbr {
            true => BBR_PROTOCOL,
            false => PROTOCOL,
        };
        let config = match streams {
            true => connector.config_for(&[STREAMS_PROTOCOL, one]),
            false => connector.config_for(&[one]),
        };
        let crypto = QuicClientConfig::try_from(config);
        let crypto = Arc::new(crypto.map_err(io::Error::other)?);
        Ok(Self { crypto, bbr })
    }

    /// Returns the configuration of a connection.
    pub fn config(&self) -> quinn_proto::ClientConfig {
        let mut config = quinn_proto::ClientConfig::new(self.crypto.clone());
        let transport = transport(CongestionChoice::new(self.bbr), false);
        config.transport_config(Arc::new(transport));
        config
    }
}

/// The configuration of a server's connections.
#[cfg(feature = "server")]
#[derive(Clone)]
pub struct ServerSetup {
    config: quinn_proto::ServerConfig,
    bbr: bool,
    /// The key of resets, which is the same after the server was killed.
    pub reset_key: ring::hmac::Key,
}

#[cfg(feature = "server")]
impl ServerSetup {
    /// Uses a certificate, and BBR as the congestion control of all connections, or else of those whose
    /// client uses it. Takes clients that want a stream for each visitor if `streams`.
    pub fn new(identity: &tls::QuicIdentity, bbr: bool, streams: bool) -> io::Result<Self> {
        let tls = match streams {
            true => identity.config_for(&[STREAMS_PROTOCOL, PROTOCOL, BBR_PROTOCOL]),
            false => identity.config_for(&[PROTOCOL, BBR_PROTOCOL]),
        };
        let crypto = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
        let mut secret = [0; 64];
        tls::fill_random(&mut secret)?;
        let token_key = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, &[]).extract(&secret);
        let mut config = quinn_proto::ServerConfig::new(Arc::new(crypto), Arc::new(token_key));
        config
            .max_incoming(MAX_INCOMING)
            .incoming_buffer_size(INCOMING_BUFFER.0)
            .incoming_buffer_size_total(INCOMING_BUFFER.1);
        let reset_key = identity.hmac_key(b"gt QUIC stateless reset")?;
        Ok(Self {
            config,
            bbr,
            reset_key,
        })
    }

    /// Returns the configuration of endpoints.
    pub fn for_endpoint(&self) -> Arc<quinn_proto::ServerConfig> {
        Arc::new(self.config.clone())
    }

    /// Returns the configuration of one connection, and its choice of the congestion control.
    pub fn for_connection(&self) -> (Arc<quinn_proto::ServerConfig>, CongestionChoice) {
        let choice = CongestionChoice::new(self.bbr);
        let mut config = self.config.clone();
        config.transport_config(Arc::new(transport(choice.clone(), true)));
        (Arc::new(config), choice)
    }
}
