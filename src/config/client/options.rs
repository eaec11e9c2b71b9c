//! The client's options as flags and yaml keys. Not their defaults' doing, see the parent.

use std::path::PathBuf;
use std::time::Duration;

use argh::{ArgsInfo, FromArgs};
use serde::Deserialize;

use super::local::Local;
use super::remote::Remote;
use super::service::Prefix;
use super::WebRtcLevel;
use crate::config::value::{either, Value, Within};
use crate::config::{ListenAddr, Secret, Url};

/// What there is once for a client, all of it optional; a description is what `-h` prints.
#[derive(FromArgs, ArgsInfo, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientOptions {
    /// who this client is, and the host prefix of a service that has none of its own
    #[argh(option, arg_name = "string")]
    pub id: Option<Value<String>>,
    /// wait so long before connecting again (default 5s)
    #[argh(option, arg_name = "duration")]
    pub reconnect_delay: Option<Value<Duration>>,
    /// the server, by tcp:// (port 80 unless given) or tls:// (port 443), tcp:// if neither; given
    /// several times, several servers at once
    #[argh(option, arg_name = "value")]
    pub remote: Vec<Value<Remote>>,
    /// ask this URL where the server is
    #[argh(option, arg_name = "string")]
    #[serde(rename = "remoteAPI")]
    pub remote_api: Option<Value<Url>>,
    /// the certificate to trust in the server, a PEM file
    #[argh(option, arg_name = "string")]
    pub remote_cert: Option<Value<PathBuf>>,
    /// trust any certificate: whoever is in between can then read everything
    #[argh(option, arg_name = "bool")]
    pub remote_cert_insecure: Option<Value<bool>>,
    /// at most so many tunnels, 1 to 10 (default 3)
    #[argh(option, arg_name = "uint")]
    pub remote_connections: Option<Value<Within<1, 10>>>,
    /// keep so many idle tunnels (default 1)
    #[argh(option, arg_name = "uint")]
    pub remote_idle_connections: Option<Value<Within<0, 10>>>,
    /// a STUN server, host:port; may be given several times
    #[argh(option, arg_name = "value")]
    #[serde(rename = "remoteSTUN")]
    pub remote_stun: Vec<Value<String>>,
    /// give a tunnel up that was silent for so long (default 45s)
    #[argh(option, arg_name = "duration")]
    pub remote_timeout: Option<Value<Duration>>,
    /// what proves the id; made up if none is given
    #[argh(option, arg_name = "string")]
    pub secret: Option<Value<Secret>>,
    /// listen here and take each connection to another client, peer to peer
    #[argh(option, arg_name = "string")]
    pub tcp_forward_addr: Option<Value<ListenAddr>>,
    /// so many peer connections for -tcpForwardAddr, 1 to 10 (default 3)
    #[argh(option, arg_name = "uint")]
    pub tcp_forward_connections: Option<Value<Within<1, 10>>>,
    /// go through the server while there is no direct way, for -tcpForwardAddr (default true)
    #[argh(option, arg_name = "bool")]
    pub tcp_forward_fallback: Option<Value<bool>>,
    /// the other client's host prefix, for -tcpForwardAddr
    #[argh(option, arg_name = "string")]
    pub tcp_forward_host_prefix: Option<Value<Prefix>>,
    /// close a peer connection that was idle for so long (default 5m0s)
    #[argh(option, arg_name = "duration")]
    pub webrtc_connection_idle_timeout: Option<Value<Duration>>,
    /// at most so many peers at a time, 1 to 1000 (default 30)
    #[argh(option, arg_name = "uint")]
    pub webrtc_connections: Option<Value<Within<1, 1000>>>,
    /// verbose, info, warning or error (default "warning")
    #[argh(option, arg_name = "string")]
    pub webrtc_log_level: Option<Value<WebRtcLevel>>,
    /// the highest port for peer connections; 0 for any (default 0)
    #[argh(option, arg_name = "uint")]
    pub webrtc_max_port: Option<Value<u16>>,
    /// the lowest port for peer connections; 0 for any (default 0)
    #[argh(option, arg_name = "uint")]
    pub webrtc_min_port: Option<Value<u16>>,
}

/// What there is once for a service: the flags from one `-local` to the next, an entry of
/// `services:`, or the one service that `options:` may hold.
#[derive(FromArgs, ArgsInfo, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceOptions {
    /// of a file:///directory, follow symbolic links that lead out of it; visitors can then read all
    /// that they lead to
    #[argh(option, arg_name = "bool")]
    pub follow_links_outside: Option<Value<bool>>,
    /// visitors come under this host prefix (default: the id)
    #[argh(option, arg_name = "value")]
    pub host_prefix: Option<Value<Prefix>>,
    /// the service: http://host:port, https://host:port, tcp://host:port or file:///directory; may
    /// be given several times, and the flags of a service stand between its -local and the next
    #[argh(option, arg_name = "value")]
    pub local: Option<Value<Local>>,
    /// close a connection to the service that was silent for so long (default: never), and wait so long for a new one (default 2m0s)
    #[argh(option, arg_name = "duration")]
    pub local_timeout: Option<Value<Duration>>,
    /// visitors come on this TCP port of the server
    #[argh(option, arg_name = "uint")]
    #[serde(rename = "remoteTCPPort")]
    pub remote_tcp_port: Option<Value<u16>>,
    /// visitors come on a TCP port that the server picks; with -remoteTCPPort, if that one is taken
    #[argh(option, arg_name = "bool")]
    #[serde(rename = "remoteTCPRandom")]
    pub remote_tcp_random: Option<Value<bool>>,
    /// put the host of -local into the Host header of every request; visitors must speak HTTP/1
    #[argh(option, arg_name = "bool")]
    #[serde(rename = "useLocalAsHTTPHost")]
    pub use_local_as_http_host: Option<Value<bool>>,
}

impl ClientOptions {
    /// These, and those of the lower priority where these are not given.
    pub fn or(self, lower: Self) -> Self {
        ClientOptions {
            id: self.id.or(lower.id),
            reconnect_delay: self.reconnect_delay.or(lower.reconnect_delay),
            remote: either(self.remote, lower.remote),
            remote_api: self.remote_api.or(lower.remote_api),
            remote_cert: self.remote_cert.or(lower.remote_cert),
            remote_cert_insecure: self.remote_cert_insecure.or(lower.remote_cert_insecure),
            remote_connections: self.remote_connections.or(lower.remote_connections),
            remote_idle_connections: self
                .remote_idle_connections
                .or(lower.remote_idle_connections),
            remote_stun: either(self.remote_stun, lower.remote_stun),
            remote_timeout: self.remote_timeout.or(lower.remote_timeout),
            secret: self.secret.or(lower.secret),
            tcp_forward_addr: self.tcp_forward_addr.or(lower.tcp_forward_addr),
            tcp_forward_connections: self
                .tcp_forward_connections
                .or(lower.tcp_forward_connections),
            tcp_forward_fallback: self.tcp_forward_fallback.or(lower.tcp_forward_fallback),
            tcp_forward_host_prefix: self
                .tcp_forward_host_prefix
                .or(lower.tcp_forward_host_prefix),
            webrtc_connection_idle_timeout: self
                .webrtc_connection_idle_timeout
                .or(lower.webrtc_connection_idle_timeout),
            webrtc_connections: self.webrtc_connections.or(lower.webrtc_connections),
            webrtc_log_level: self.webrtc_log_level.or(lower.webrtc_log_level),
            webrtc_max_port: self.webrtc_max_port.or(lower.webrtc_max_port),
            webrtc_min_port: self.webrtc_min_port.or(lower.webrtc_min_port),
        }
    }
}

impl ServiceOptions {
    /// These, and those of the lower priority where these are not given.
    pub fn or(self, lower: Self) -> Self {
        ServiceOptions {
            follow_links_outside: self.follow_links_outside.or(lower.follow_links_outside),
            host_prefix: self.host_prefix.or(lower.host_prefix),
            local: self.local.or(lower.local),
            local_timeout: self.local_timeout.or(lower.local_timeout),
            remote_tcp_port: self.remote_tcp_port.or(lower.remote_tcp_port),
            remote_tcp_random: self.remote_tcp_random.or(lower.remote_tcp_random),
            use_local_as_http_host: self.use_local_as_http_host.or(lower.use_local_as_http_host),
        }
    }
}
