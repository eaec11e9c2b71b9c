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
    /// listen here for visitors and tunnels: 80, :80, 0.0.0.0:80 or [::1]:80; "" for not at all
    /// (default 80)
    #[argh(option, arg_name = "string")]
    pub addr: Option<Value<ListenAddr>>,
    /// at most so many connections of one address at a time, of visitors and tunnels; 0 for any
    /// number (default 0)
    #[argh(option, arg_name = "uint")]
    pub address_connections: Option<Value<u32>>,
    /// let clients in that are not among the users
    #[argh(option, arg_name = "bool")]
    pub allow_any_client: Option<Value<bool>>,
    /// listen here for the API with its /status
    #[argh(option, arg_name = "string")]
    pub api_addr: Option<Value<ListenAddr>>,
    /// the API's certificate, a PEM file; with -apiKeyFile the API speaks HTTPS
    #[argh(option, arg_name = "string")]
    pub api_cert_file: Option<Value<PathBuf>>,
    /// a host name that requests to the API may be for, besides IP addresses and localhost; may be
    /// given several times
    #[argh(option, arg_name = "value")]
    pub api_hosts: Vec<Value<HostName>>,
    /// the API's key, a PEM file
    #[argh(option, arg_name = "string")]
    pub api_key_file: Option<Value<PathBuf>>,
    /// the oldest TLS to speak on -apiAddr: tls1.2 or tls1.3 (default "tls1.2")
    #[argh(option, arg_name = "string")]
    #[serde(rename = "apiTLSVersion")]
    pub api_tls_version: Option<Value<TlsOption>>,
    /// ask this URL about ids and secrets
    #[argh(option, arg_name = "string")]
    #[serde(rename = "authAPI")]
    pub auth_api: Option<Value<Url>>,
    /// the certificate for -tlsAddr, a PEM file
    #[argh(option, arg_name = "string")]
    pub cert_file: Option<Value<PathBuf>>,
    /// at most so many tunnels of one client; 0 for any number (default 10)
    #[argh(option, arg_name = "uint")]
    pub connections: Option<Value<u32>>,
    /// a proxy in front that may send several visitors' requests over one connection, like 10.0.0.0/8
    /// or 192.0.2.1: each of its connections carries one request; may be given several times
    #[argh(option, arg_name = "value")]
    pub front_proxies: Vec<Value<Network>>,
    /// at most so many host prefixes of one client; 0 for any number (default 1)
    #[argh(option, arg_name = "uint")]
    pub host_number: Option<Value<u32>>,
    /// a host prefix must match this regular expression; given several times, one of them
    #[argh(option, arg_name = "value")]
    pub host_regex: Vec<Value<Pattern>>,
    /// make a host prefix id-prefix
    #[argh(option, arg_name = "bool")]
    #[serde(rename = "hostWithID")]
    pub host_with_id: Option<Value<bool>>,
    /// the header that names the host prefix (default "Host")
    #[argh(option, arg_name = "string")]
    #[serde(rename = "httpMUXHeader")]
    pub http_mux_header: Option<Value<HeaderName>>,
    /// a user's id; may be given several times, each with a -secret
    #[argh(option, arg_name = "value")]
    pub id: Vec<Value<String>>,
    /// the key for -tlsAddr, a PEM file
    #[argh(option, arg_name = "string")]
    pub key_file: Option<Value<PathBuf>>,
    /// refuse an address for so long after -reconnectTimes failures (default 5m0s)
    #[argh(option, arg_name = "duration")]
    pub reconnect_duration: Option<Value<Duration>>,
    /// let an address fail to authenticate so often; 0 for any number (default 3)
    #[argh(option, arg_name = "uint")]
    pub reconnect_times: Option<Value<u32>>,
    /// a user's secret; the i-th belongs to the i-th -id
    #[argh(option, arg_name = "value")]
    pub secret: Vec<Value<Secret>>,
    /// listen here for TLS that is passed on as it comes, by its server name
    #[argh(option, arg_name = "string")]
    pub sni_addr: Option<Value<ListenAddr>>,
    /// at most so many bytes a second for one user, in each direction; 0 for any number (default 0)
    #[argh(option, arg_name = "uint")]
    pub speed: Option<Value<u64>>,
    /// listen here for STUN, which tells P2P clients their public address: 3478, :3478 or 0.0.0.0:3478
    #[argh(option, arg_name = "string")]
    pub stun_addr: Option<Value<ListenAddr>>,
    /// at most so many TCP ports for one user, out of the -tcpRange that goes with it, or out of all of them
    /// together if given once; 0 for any number
    #[argh(option, arg_name = "value")]
    pub tcp_number: Vec<Value<u32>>,
    /// a range of TCP ports that users may open, like 1024-65535; without one they may open none
    #[argh(option, arg_name = "value")]
    pub tcp_range: Vec<Value<PortRange>>,
    /// close a tunnel, or a visitor's HTTP or TLS connection, that was silent for so long; 0 for never (default 90s)
    #[argh(option, arg_name = "duration")]
    pub timeout: Option<Value<Duration>>,
    /// count traffic in one direction alone as silence
    #[argh(option, arg_name = "bool")]
    pub timeout_on_unidirectional_traffic: Option<Value<bool>>,
    /// listen here for visitors and tunnels over TLS; needs -certFile and -keyFile
    #[argh(option, arg_name = "string")]
    pub tls_addr: Option<Value<ListenAddr>>,
    /// the oldest TLS to speak on -tlsAddr: tls1.2 or tls1.3 (default "tls1.2")
    #[argh(option, arg_name = "string")]
    pub tls_version: Option<Value<TlsOption>>,
    /// at most so many connections at a time, of visitors and tunnels; 0 for any number (default 0)
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
