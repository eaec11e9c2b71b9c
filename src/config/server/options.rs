//! The server's options as flags and yaml keys. Not their defaults' doing, see the parent.

use std::path::PathBuf;
use std::time::Duration;

use argh::{ArgsInfo, FromArgs};
use serde::Deserialize;

use super::limits::{Pattern, PortRange};
use super::networks::Network;
use super::tls::TlsOption;
use crate::config::value::{either, Scalar, Value};
use crate::config::{ListenAddr, Secret, Url};

/// Everything here is optional; a description is what `-h` prints.
#[derive(FromArgs, ArgsInfo, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerOptions {
    /// listen on this address for visitors and tunnels: 80, :80, 0.0.0.0:80 or [::1]:80; "" to
    /// disable (default 80)
    #[argh(option, arg_name = "string")]
    pub addr: Option<Value<ListenAddr>>,
    /// maximum number of connections, of visitors and tunnels, from one address; 0 for no limit
    /// (default 0)
    #[argh(option, arg_name = "uint")]
    pub address_connections: Option<Value<u32>>,
    /// admit clients that are not among the users
    #[argh(option, arg_name = "bool")]
    pub allow_any_client: Option<Value<bool>>,
    /// listen on this address for the API (/status, /metrics, /clients)
    #[argh(option, arg_name = "string")]
    pub api_addr: Option<Value<ListenAddr>>,
    /// the API's certificate, a PEM file; with -apiKeyFile the API uses HTTPS
    #[argh(option, arg_name = "string")]
    pub api_cert_file: Option<Value<PathBuf>>,
    /// a host name that the API answers to, besides IP addresses and localhost; may be given
    /// several times
    #[argh(option, arg_name = "value")]
    pub api_hosts: Vec<Value<HostName>>,
    /// the API's key, a PEM file
    #[argh(option, arg_name = "string")]
    pub api_key_file: Option<Value<PathBuf>>,
    /// oldest TLS version for -apiAddr: tls1.2 or tls1.3 (default "tls1.2")
    #[argh(option, arg_name = "string")]
    #[serde(rename = "apiTLSVersion")]
    pub api_tls_version: Option<Value<TlsOption>>,
    /// a URL that is asked about ids and secrets
    #[argh(option, arg_name = "string")]
    #[serde(rename = "authAPI")]
    pub auth_api: Option<Value<Url>>,
    /// the certificate for -tlsAddr, a PEM file
    #[argh(option, arg_name = "string")]
    pub cert_file: Option<Value<PathBuf>>,
    /// maximum number of tunnels of one client; 0 for no limit (default 10)
    #[argh(option, arg_name = "uint")]
    pub connections: Option<Value<u32>>,
    /// a reverse proxy in front of gt, like 10.0.0.0/8 or 192.0.2.1, whose connections carry
    /// requests of several visitors: each connection then carries one request; may be given several
    /// times
    #[argh(option, arg_name = "value")]
    pub front_proxies: Vec<Value<Network>>,
    /// maximum number of host prefixes of one client; 0 for no limit (default 1)
    #[argh(option, arg_name = "uint")]
    pub host_number: Option<Value<u32>>,
    /// a regular expression that host prefixes must match; may be given several times to allow
    /// several
    #[argh(option, arg_name = "value")]
    pub host_regex: Vec<Value<Pattern>>,
    /// publish a host prefix as id-prefix
    #[argh(option, arg_name = "bool")]
    #[serde(rename = "hostWithID")]
    pub host_with_id: Option<Value<bool>>,
    /// the header that contains the host prefix (default "Host")
    #[argh(option, arg_name = "string")]
    #[serde(rename = "httpMUXHeader")]
    pub http_mux_header: Option<Value<HeaderName>>,
    /// a user's id; may be given several times, each with a -secret
    #[argh(option, arg_name = "value")]
    pub id: Vec<Value<String>>,
    /// the key for -tlsAddr, a PEM file
    #[argh(option, arg_name = "string")]
    pub key_file: Option<Value<PathBuf>>,
    /// lock an address out for this time after -reconnectTimes failed logins (default 5m0s)
    #[argh(option, arg_name = "duration")]
    pub reconnect_duration: Option<Value<Duration>>,
    /// number of failed logins that an address may have; 0 for no limit (default 3)
    #[argh(option, arg_name = "uint")]
    pub reconnect_times: Option<Value<u32>>,
    /// a user's secret; the i-th belongs to the i-th -id
    #[argh(option, arg_name = "value")]
    pub secret: Vec<Value<Secret>>,
    /// listen on this address for TLS that is routed by its server name and not decrypted
    #[argh(option, arg_name = "string")]
    pub sni_addr: Option<Value<ListenAddr>>,
    /// maximum number of bytes per second of one user, in each direction; 0 for no limit (default
    /// 0)
    #[argh(option, arg_name = "uint")]
    pub speed: Option<Value<u64>>,
    /// listen on this UDP address for STUN, which tells P2P clients their public address: 3478,
    /// :3478 or 0.0.0.0:3478
    #[argh(option, arg_name = "string")]
    pub stun_addr: Option<Value<ListenAddr>>,
    /// maximum number of TCP ports of one user, for the -tcpRange given with it, or for all of them
    /// if given once; 0 for no limit
    #[argh(option, arg_name = "value")]
    pub tcp_number: Vec<Value<u32>>,
    /// a range of TCP ports that users may open, like 1024-65535; without one they may open none
    #[argh(option, arg_name = "value")]
    pub tcp_range: Vec<Value<PortRange>>,
    /// close a tunnel, or a visitor's HTTP or TLS connection, that is silent for this time; 0 for
    /// never (default 90s)
    #[argh(option, arg_name = "duration")]
    pub timeout: Option<Value<Duration>>,
    /// treat a connection with traffic in one direction only as silent
    #[argh(option, arg_name = "bool")]
    pub timeout_on_unidirectional_traffic: Option<Value<bool>>,
    /// listen on this address for visitors and tunnels over TLS; needs -certFile and -keyFile
    #[argh(option, arg_name = "string")]
    pub tls_addr: Option<Value<ListenAddr>>,
    /// oldest TLS version for -tlsAddr: tls1.2 or tls1.3 (default "tls1.2")
    #[argh(option, arg_name = "string")]
    pub tls_version: Option<Value<TlsOption>>,
    /// maximum number of connections, of visitors and tunnels; 0 for no limit (default 0)
    #[argh(option, arg_name = "uint")]
    pub total_connections: Option<Value<u32>>,
    /// a yaml file of users, by id
    #[argh(option, arg_name = "string")]
    pub users: Option<Value<PathBuf>>,
}

impl ServerOptions {
    /// These, and those of the lower priority where these are not given.
    pub fn or(self, lower: Self) -> Self {
        ServerOptions {
            addr: self.addr.or(lower.addr),
            address_connections: self.address_connections.or(lower.address_connections),
            allow_any_client: self.allow_any_client.or(lower.allow_any_client),
            api_addr: self.api_addr.or(lower.api_addr),
            api_cert_file: self.api_cert_file.or(lower.api_cert_file),
            api_hosts: either(self.api_hosts, lower.api_hosts),
            api_key_file: self.api_key_file.or(lower.api_key_file),
            api_tls_version: self.api_tls_version.or(lower.api_tls_version),
            auth_api: self.auth_api.or(lower.auth_api),
            cert_file: self.cert_file.or(lower.cert_file),
            connections: self.connections.or(lower.connections),
            front_proxies: either(self.front_proxies, lower.front_proxies),
            host_number: self.host_number.or(lower.host_number),
            host_regex: either(self.host_regex, lower.host_regex),
            host_with_id: self.host_with_id.or(lower.host_with_id),
            http_mux_header: self.http_mux_header.or(lower.http_mux_header),
            id: either(self.id, lower.id),
            key_file: self.key_file.or(lower.key_file),
            reconnect_duration: self.reconnect_duration.or(lower.reconnect_duration),
            reconnect_times: self.reconnect_times.or(lower.reconnect_times),
            secret: either(self.secret, lower.secret),
            sni_addr: self.sni_addr.or(lower.sni_addr),
            speed: self.speed.or(lower.speed),
            stun_addr: self.stun_addr.or(lower.stun_addr),
            tcp_number: either(self.tcp_number, lower.tcp_number),
            tcp_range: either(self.tcp_range, lower.tcp_range),
            timeout: self.timeout.or(lower.timeout),
            timeout_on_unidirectional_traffic: self
                .timeout_on_unidirectional_traffic
                .or(lower.timeout_on_unidirectional_traffic),
            tls_addr: self.tls_addr.or(lower.tls_addr),
            tls_version: self.tls_version.or(lower.tls_version),
            total_connections: self.total_connections.or(lower.total_connections),
            users: self.users.or(lower.users),
        }
    }
}

/// A header's name as HTTP allows it (RFC 9110, section 5.6.2).
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderName(pub String);

impl Scalar for HeaderName {
    fn read(text: &str) -> Result<Self, String> {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if text.bytes().all(token) {
            Ok(HeaderName(text.to_owned()))
        } else {
            Err(format!(
                "\"{text}\" is not the name of a header: write it like Host, without a colon."
            ))
        }
    }
}

/// The name of a host as a URL has it (RFC 3986, section 3.2.2), without a port.
#[derive(Clone, Debug, PartialEq)]
pub struct HostName(pub String);

impl Scalar for HostName {
    fn read(text: &str) -> Result<Self, String> {
        let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if text.bytes().all(usual) {
            Ok(HostName(text.strip_suffix('.').unwrap_or(text).to_owned()))
        } else {
            Err(format!(
                "\"{text}\" is not the name of a host: write it like gt.example.com, without a \
                 scheme or a port."
            ))
        }
    }
}
