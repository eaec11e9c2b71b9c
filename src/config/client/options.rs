//! The client's options as flags and yaml keys. Not their defaults' doing, see the parent.

use std::path::PathBuf;
use std::time::Duration;

use argh::{ArgsInfo, FromArgs};
use serde::Deserialize;

use super::local::Local;
use super::remote::Remote;
use super::service::HostPrefix;
use super::WebRtcLevel;
use crate::config::value::{either, Bounded, Value};
use crate::config::{ListenAddr, Secret, Url};

/// What there is once for a client, all of it optional; a description is what `-h` prints.
#[derive(FromArgs, ArgsInfo, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientOptions {
    /// the id of this client, and the host prefix of services without one of their own
    #[argh(option, arg_name = "string")]
    pub id: Option<Value<String>>,
    /// first delay before reconnecting (default 5s)
    #[argh(option, arg_name = "duration")]
    pub reconnect_delay: Option<Value<Duration>>,
    /// the server: tcp://host:port (port 80 by default) or tls://host:port (port 443), tcp:// if
    /// neither; may be given several times to use several servers at once
    #[argh(option, arg_name = "value")]
    pub remote: Vec<Value<Remote>>,
    /// a URL that is asked for the address of the server
    #[argh(option, arg_name = "string")]
    #[serde(rename = "remoteAPI")]
    pub remote_api: Option<Value<Url>>,
    /// the certificate to trust in the server, a PEM file
    #[argh(option, arg_name = "string")]
    pub remote_cert: Option<Value<PathBuf>>,
    /// accept any certificate; an attacker between the two ends can then read and change everything
    #[argh(option, arg_name = "bool")]
    pub remote_cert_insecure: Option<Value<bool>>,
    /// maximum number of tunnels to a server, 1 to 10 (default 3)
    #[argh(option, arg_name = "uint")]
    pub remote_connections: Option<Value<Bounded<1, 10>>>,
    /// number of idle tunnels to keep open (default 1)
    #[argh(option, arg_name = "uint")]
    pub remote_idle_connections: Option<Value<Bounded<0, 10>>>,
    /// a STUN server, host:port; may be given several times
    #[argh(option, arg_name = "value")]
    #[serde(rename = "remoteSTUN")]
    pub remote_stun: Vec<Value<String>>,
    /// close a tunnel that is silent for this time (default 45s)
    #[argh(option, arg_name = "duration")]
    pub remote_timeout: Option<Value<Duration>>,
    /// the secret that proves the id; generated if none is given
    #[argh(option, arg_name = "string")]
    pub secret: Option<Value<Secret>>,
    /// listen on this address and forward each connection to another client, peer to peer
    #[argh(option, arg_name = "string")]
    pub tcp_forward_addr: Option<Value<ListenAddr>>,
    /// number of peer connections for -tcpForwardAddr, 1 to 10 (default 3)
    #[argh(option, arg_name = "uint")]
    pub tcp_forward_connections: Option<Value<Bounded<1, 10>>>,
    /// use the server while there is no direct way, for -tcpForwardAddr (default true)
    #[argh(option, arg_name = "bool")]
    pub tcp_forward_fallback: Option<Value<bool>>,
    /// the other client's host prefix, for -tcpForwardAddr
    #[argh(option, arg_name = "string")]
    pub tcp_forward_host_prefix: Option<Value<HostPrefix>>,
    /// close a peer connection that is idle for this time (default 5m0s)
    #[argh(option, arg_name = "duration")]
    pub webrtc_connection_idle_timeout: Option<Value<Duration>>,
    /// maximum number of peers, 1 to 1000 (default 30)
    #[argh(option, arg_name = "uint")]
    pub webrtc_connections: Option<Value<Bounded<1, 1000>>>,
    /// level of messages about peers: verbose, info, warning or error (default "warning")
    #[argh(option, arg_name = "string")]
    pub webrtc_log_level: Option<Value<WebRtcLevel>>,
    /// highest UDP port for peer connections; 0 for any (default 0)
    #[argh(option, arg_name = "uint")]
    pub webrtc_max_port: Option<Value<u16>>,
    /// lowest UDP port for peer connections; 0 for any (default 0)
    #[argh(option, arg_name = "uint")]
    pub webrtc_min_port: Option<Value<u16>>,
}

/// What there is once for a service: the flags from one `-local` to the next, an entry of
/// `services:`, or the one service that `options:` may hold.
#[derive(FromArgs, ArgsInfo, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceOptions {
    /// for file:///directory, follow symbolic links that lead out of the directory; visitors can
    /// then read their targets
    #[argh(option, arg_name = "bool")]
    pub follow_links_outside: Option<Value<bool>>,
    /// the host prefix of the service (default: the id)
    #[argh(option, arg_name = "value")]
    pub host_prefix: Option<Value<HostPrefix>>,
    /// the service to publish: http://host:port, https://host:port, tcp://host:port or
    /// file:///directory; may be given several times, each followed by the flags of that service
    #[argh(option, arg_name = "value")]
    pub local: Option<Value<Local>>,
    /// close a connection to the service that is silent for this time (default: never), and limit
    /// the time to open one (default 2m0s)
    #[argh(option, arg_name = "duration")]
    pub local_timeout: Option<Value<Duration>>,
    /// the TCP port of the server to publish the service on
    #[argh(option, arg_name = "uint")]
    #[serde(rename = "remoteTCPPort")]
    pub remote_tcp_port: Option<Value<u16>>,
    /// publish the service on a TCP port that the server chooses; with -remoteTCPPort, only if that
    /// port is taken
    #[argh(option, arg_name = "bool")]
    #[serde(rename = "remoteTCPRandom")]
    pub remote_tcp_random: Option<Value<bool>>,
    /// replace the Host header of every request with the host of -local; visitors must speak HTTP/1
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
