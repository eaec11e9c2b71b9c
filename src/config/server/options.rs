//! The server's options. Not their meaning: see the parent module.

use std::path::PathBuf;
use std::time::Duration;

use super::acme::Email;
use super::limits::Pattern;
use super::tls::TlsOption;
use super::ws_place::WsPlace;
use crate::config::address::HostName;
use crate::config::layers::options;
use crate::config::value::{Scalar, Value};
use crate::config::PortRange;
use crate::config::{Domain, ListenAddr, Network, Secret, Url};

options! {
    /// The server's options that are looked up one by one: in the flags, the file and the defaults.
    // Help texts are no markdown: `[::1]:80` is no link.
    #[allow(rustdoc::broken_intra_doc_links)]
    pub struct ServerOptions {
        /// the address or network of a proxy in front of gt whose connections must begin with a header
        /// of the PROXY protocol, version 1 or 2; may be given several times
        accept_proxy: Vec<Network> => ("acceptProxy", "value"),
        /// PEM file with the authorities that have signed the certificate of -acmeDirectory itself (default:
        /// those of the system); for an authority of your own
        acme_ca: Option<PathBuf> => ("acmeCA", "string"),
        /// the URL of the authority's ACME directory (RFC 8555) for -acmeDomain; to use it is to agree to the
        /// authority's terms
        acme_directory: Url = "https://acme-v02.api.letsencrypt.org/directory" => ("acmeDirectory", "string"),
        /// get certificates for -tlsAddr from an authority (ACME), for the host prefixes of clients below this
        /// domain, like example.com, and for their own domains; needs -stateDir; may be given several times
        acme_domain: Vec<Domain> => ("acmeDomain", "value"),
        /// the email address that the authority of -acmeDomain may write to
        acme_email: Option<Email> => ("acmeEmail", "string"),
        /// listen on this address for visitors and tunnels: 80, :80, 0.0.0.0:80 or [::1]:80; "" to
        /// disable
        addr: Value<ListenAddr> = "80" => ("addr", "string"),
        /// maximum number of connections, of visitors and tunnels, from one address; 0 for no limit
        address_connections: u32 = "0" => ("addressConnections", "uint"),
        /// an address or network that visitors may come from, like 192.0.2.1 or 10.0.0.0/8 (default:
        /// any); may be given several times
        allow: Vec<Value<Network>> = "any" => ("allow", "value"),
        /// admit clients that are not among the users
        allow_any_client: bool => ("allowAnyClient", "bool"),
        /// listen on this address for the API (/status, /metrics, /clients)
        api_addr: Option<ListenAddr> => ("apiAddr", "string"),
        /// the API's certificate, a PEM file; with -apiKeyFile the API uses HTTPS
        api_cert_file: Option<PathBuf> => ("apiCertFile", "string"),
        /// a host name that the API answers to, besides IP addresses and localhost; may be given
        /// several times
        api_hosts: Vec<HostName> => ("apiHosts", "value"),
        /// the API's key, a PEM file
        api_key_file: Option<PathBuf> => ("apiKeyFile", "string"),
        /// oldest TLS version for -apiAddr: tls1.2 or tls1.3
        api_tls_version: TlsOption = "tls1.2" => ("apiTLSVersion", "string"),
        /// the URL of an HTTP service that decides about ids that are not among the users
        auth_api: Option<Url> => ("authAPI", "string"),
        /// the certificate for -tlsAddr and -quicAddr, a PEM file
        cert_file: Option<PathBuf> => ("certFile", "string"),
        /// the certificates of authorities, a PEM file: visitors of -tlsAddr must have a certificate that one of
        /// them has signed; tunnels need none
        client_ca: Option<PathBuf> => ("clientCA", "string"),
        /// maximum number of tunnels of one client; 0 for no limit
        connections: u32 = "10" => ("connections", "uint"),
        /// an address or network that visitors may not come from, also if it is allowed; may be given
        /// several times
        deny: Vec<Value<Network>> => ("deny", "value"),
        /// a domain that clients may have for their services (-domain there): shop.example.com,
        /// *.example.com for all names below it, or * for all; may be given several times
        domains: Vec<Domain> => ("domains", "value"),
        /// the address or network of a reverse proxy in front of gt, like 192.0.2.1 or 10.0.0.0/8: each
        /// of its connections then carries only one request; may be given several times
        front_proxies: Vec<Network> => ("frontProxies", "value"),
        /// maximum number of host prefixes of one client; 0 for no limit
        host_number: u32 = "1" => ("hostNumber", "uint"),
        /// a regular expression that host prefixes must match; may be given several times to allow
        /// several
        host_regex: Vec<Pattern> => ("hostRegex", "value"),
        /// publish a host prefix as the id, a dash and the prefix
        host_with_id: bool => ("hostWithID", "bool"),
        /// the header that contains the host prefix
        http_mux_header: HeaderName = "Host" => ("httpMUXHeader", "string"),
        /// the key for -tlsAddr and -quicAddr, a PEM file
        key_file: Option<PathBuf> => ("keyFile", "string"),
        /// listen on this UDP address for tunnels over QUIC: 443, :443 or 0.0.0.0:443; without -certFile
        /// and -keyFile, with a certificate that the server makes itself
        quic_addr: Option<ListenAddr> => ("quicAddr", "string"),
        /// lock an address out for this time after more than -reconnectTimes failed logins
        reconnect_duration: Duration = "5m0s" => ("reconnectDuration", "duration"),
        /// maximum number of failed logins from one address; 0 for no limit
        reconnect_times: u32 = "3" => ("reconnectTimes", "uint"),
        /// listen on this address for TLS that is routed by its server name and not decrypted
        sni_addr: Option<ListenAddr> => ("sniAddr", "string"),
        /// maximum number of bytes per second of one user, in each direction; 0 for no limit
        speed: u64 = "0" => ("speed", "uint"),
        /// listen on this UDP address for STUN, which tells P2P clients their public address: 3478,
        /// :3478 or 0.0.0.0:3478
        stun_addr: Option<ListenAddr> => ("stunAddr", "string"),
        /// close a tunnel, or a visitor's HTTP or TLS connection, that is silent for this time; 0 for
        /// never
        timeout: Duration = "90s" => ("timeout", "duration"),
        /// count a connection as silent if it has traffic in only one direction
        timeout_on_unidirectional_traffic: bool => ("timeoutOnUnidirectionalTraffic", "bool"),
        /// listen on this address for visitors and tunnels over TLS; needs -certFile and -keyFile, or
        /// -stateDir for a certificate that gt makes, which browsers warn of
        tls_addr: Option<ListenAddr> => ("tlsAddr", "string"),
        /// oldest TLS version for -tlsAddr: tls1.2 or tls1.3
        tls_version: TlsOption = "tls1.2" => ("tlsVersion", "string"),
        /// maximum number of connections, of visitors and tunnels; 0 for no limit
        total_connections: u32 = "0" => ("totalConnections", "uint"),
        /// forget a visitor of a UDP port that has been silent, as its service has, for this time, 1s to 1h
        udp_timeout: Duration = "1m0s" => ("udpTimeout", "duration"),
        /// a yaml file of users: their ids, each with a secret and limits
        users: Option<PathBuf> => ("users", "string"),
        /// take tunnels in WebSockets at this path of -addr and -tlsAddr, for clients with ws:// or
        /// wss:// servers: /path for all hosts, host/path for one; "" to disable
        ws_path: Value<WsPlace> = "/gt" => ("wsPath", "string"),
    }
}

options! {
    /// The server's options whose values belong together by their order. Those of the flags and
    /// those of the file are read separately, so that they are not mixed.
    pub struct PairedOptions {
        /// a user's id; may be given several times, each with a -secret
        id: Vec<Value<String>> => ("id", "value"),
        /// a user's secret; the i-th belongs to the i-th -id
        secret: Vec<Value<Secret>> => ("secret", "value"),
        /// maximum number of TCP ports of one user, for the -tcpRange given with it, or for all of them
        /// if given once; 0 for no limit
        tcp_number: Vec<u32> => ("tcpNumber", "value"),
        /// a range of TCP ports that users may open, like 1024-65535; without one they may open none
        tcp_range: Vec<PortRange> => ("tcpRange", "value"),
        /// maximum number of UDP ports of one user, for the -udpRange given with it, or for all of them
        /// if given once; 0 for no limit
        udp_number: Vec<u32> => ("udpNumber", "value"),
        /// a range of UDP ports that users may open, like 1024-65535; without one they may open none
        udp_range: Vec<PortRange> => ("udpRange", "value"),
    }
}

/// A header's name: a token of HTTP (RFC 9110, section 5.6.2).
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
