//! The client's options. Not their meaning: see the parent module.

use std::path::PathBuf;
use std::time::Duration;

use super::health_check::HealthProbe;
use super::host_prefix::HostPrefix;
use super::password::UserPassword;
use super::proxy::Target;
use super::remote::Remote;
use super::remote_key::RemoteKey;
use super::service_ports::{LocalPorts, RemotePorts};
use super::visitor_rate::ConnectionRate;
use super::webrtc::WebRtcLevel;
use crate::config::layers::options;
use crate::config::value::{Bounded, Value};
use crate::config::{Domain, ListenAddr, Network, Secret, Url};
use crate::net::{LinkSource, ProxyServer};
use crate::wire::proxy_protocol::ProxyVersion;

options! {
    /// The options that a client has once.
    pub struct ClientOptions {
        /// the id of this client, and the host prefix of services without one of their own
        id: Option<String> => ("id", "string"),
        /// the key that proves the id in place of a secret, a file of gt keygen; the server's user has the line
        /// that gt keygen printed as publicKey
        key: Option<PathBuf> => ("key", "string"),
        /// delay after a failed attempt to connect; each further failure doubles it, up to 1m0s
        reconnect_delay: Duration = "5s" => ("reconnectDelay", "duration"),
        /// the server: tcp://host:port (default port 80), tls://host:port (default port 443), or in a
        /// WebSocket ws://host:port/path and wss://host:port/path (default path /gt); tcp:// may be left
        /// out; may be given several times: those of one host name are ways to one server, and several
        /// servers are used at once
        remote: Vec<Remote> => ("remote", "value"),
        /// the URL of an HTTP service that returns the address of the server
        remote_api: Option<Url> => ("remoteAPI", "string"),
        /// the interface or the source address of tunnels, like eth1 or 192.0.2.7; may be given several
        /// times to spread tunnels over them
        remote_bind: Vec<LinkSource> => ("remoteBind", "value"),
        /// the certificate of a tls:// server, or of its authority, to trust; a PEM file
        remote_cert: Option<PathBuf> => ("remoteCert", "string"),
        /// accept any certificate; an attacker between the two ends can then read and change everything
        remote_cert_insecure: bool => ("remoteCertInsecure", "bool"),
        /// trust the server that has this key, which gt fingerprint prints there (SHA256:…), whatever is in
        /// its certificate; or first for the key that it shows first, which is remembered in -stateDir; may
        /// be given several times
        remote_key: Vec<RemoteKey> => ("remoteKey", "value"),
        /// maximum number of tunnels to a server, 1 to 10
        remote_connections: Bounded<1, 10> = "3" => ("remoteConnections", "uint"),
        /// number of tunnels to keep open when idle, 1 to -remoteConnections
        remote_idle_connections: Bounded<0, 10> = "1" => ("remoteIdleConnections", "uint"),
        /// the proxy through which servers and the remoteAPI are reached: http://user:password@host:port
        /// (default port 3128) or socks5://user:password@host:port (default port 1080)
        remote_proxy: Option<ProxyServer> => ("remoteProxy", "string"),
        /// a STUN server for peer connections, host:port; may be given several times
        remote_stun: Vec<String> => ("remoteSTUN", "value"),
        /// close a tunnel that is silent for this time
        remote_timeout: Duration = "45s" => ("remoteTimeout", "duration"),
        /// the secret that proves the id; generated if none is given
        secret: Option<Secret> => ("secret", "string"),
        /// a file with the secret, in place of -secret; a line break at its end is ignored
        secret_file: Option<PathBuf> => ("secretFile", "string"),
        /// listen on this address and forward each connection to another client, peer to peer
        tcp_forward_addr: Option<ListenAddr> => ("tcpForwardAddr", "string"),
        /// number of peer connections for -tcpForwardAddr, 1 to 10
        tcp_forward_connections: Bounded<1, 10> = "3" => ("tcpForwardConnections", "uint"),
        /// use the server while there is no direct connection, for -tcpForwardAddr
        tcp_forward_fallback: bool = "true" => ("tcpForwardFallback", "bool"),
        /// the other client's host prefix, for -tcpForwardAddr
        tcp_forward_host_prefix: Option<HostPrefix> => ("tcpForwardHostPrefix", "string"),
        /// the key of the other client's private service, for -tcpForwardAddr
        tcp_forward_key: Option<Secret> => ("tcpForwardKey", "string"),
        /// a file with the key of -tcpForwardKey in it
        tcp_forward_key_file: Option<PathBuf> => ("tcpForwardKeyFile", "string"),
        /// listen on this UDP address and forward datagrams to another client, peer to peer; needs
        /// -udpForwardHostPrefix, and -udpForwardKey or -udpForwardPort
        udp_forward_addr: Option<ListenAddr> => ("udpForwardAddr", "string"),
        /// use the server while there is no direct connection, for -udpForwardAddr
        udp_forward_fallback: bool = "true" => ("udpForwardFallback", "bool"),
        /// the other client's host prefix, for -udpForwardAddr
        udp_forward_host_prefix: Option<HostPrefix> => ("udpForwardHostPrefix", "string"),
        /// the key of the other client's private service, for -udpForwardAddr
        udp_forward_key: Option<Secret> => ("udpForwardKey", "string"),
        /// a file with the key of -udpForwardKey in it
        udp_forward_key_file: Option<PathBuf> => ("udpForwardKeyFile", "string"),
        /// the -remoteUDPPort of the other client's service, for -udpForwardAddr without -udpForwardKey; 0 for none
        udp_forward_port: u16 = "0" => ("udpForwardPort", "uint"),
        /// close a peer connection that is idle for this time
        webrtc_connection_idle_timeout: Duration = "5m0s" => ("webrtcConnectionIdleTimeout", "duration"),
        /// maximum number of peers, 1 to 1000
        webrtc_connections: Bounded<1, 1000> = "30" => ("webrtcConnections", "uint"),
        /// level of messages about peers: verbose, info, warning or error
        webrtc_log_level: WebRtcLevel = "warning" => ("webrtcLogLevel", "string"),
        /// highest UDP port for peer connections; 0 for any
        webrtc_max_port: u16 = "0" => ("webrtcMaxPort", "uint"),
        /// lowest UDP port for peer connections; 0 for any
        webrtc_min_port: u16 = "0" => ("webrtcMinPort", "uint"),
        /// have the router open the UDP ports of peer connections, by PCP, NAT-PMP or UPnP
        webrtc_port_map: bool => ("webrtcPortMap", "bool"),
    }
}

options! {
    /// The options that each service of a client has: the flags from one `-local` to the next, an entry
    /// of `services:`, or the one service that `options:` may hold.
    pub struct ServiceOptions {
        /// an address or network that visitors of the service may come from, like 192.0.2.1 or
        /// 10.0.0.0/8 (default: any); may be given several times
        allow: Vec<Value<Network>> = "any" => ("allow", "value"),
        /// with -visitorRate, refuse an address for this time after it has connected too often; 0 to refuse
        /// only what is too much
        ban_for: Duration = "10m0s" => ("banFor", "duration"),
        /// an address or network that visitors of the service may not come from, also if it is allowed;
        /// may be given several times
        deny: Vec<Value<Network>> => ("deny", "value"),
        /// a host name of the service's own, like shop.example.com, *.example.com or *, which the server must
        /// allow (-domains there); may be given several times
        domain: Vec<Value<Domain>> => ("domain", "value"),
        /// for file:///directory, follow symbolic links that lead out of the directory; visitors can
        /// then read their targets
        follow_links_outside: bool => ("followLinksOutside", "bool"),
        /// tell the service where visitors come from, in the fields X-Forwarded-For, X-Real-IP,
        /// X-Forwarded-Proto and X-Forwarded-Host of every request; visitors must speak HTTP/1
        forwarded: bool => ("forwarded", "bool"),
        /// what the members of -serviceGroup know, and others do not; 1 to 200 bytes
        group_key: Option<Secret> => ("groupKey", "string"),
        /// with -serviceGroup, visitors of one address come to the same member as long as it takes visitors
        group_sticky: bool => ("groupSticky", "bool"),
        /// check whether the service works, and tell the server, which answers visitors with 503 while it does
        /// not: tcp to open a connection, or the path of a page to request, like /health
        health_check: Option<HealthProbe> => ("healthCheck", "string"),
        /// time from one health check to the next
        health_check_every: Duration = "10s" => ("healthCheckEvery", "duration"),
        /// number of failed health checks in a row after which the service is down; the first check of all
        /// decides by itself
        health_check_fail: Bounded<1, 100> = "3" => ("healthCheckFail", "uint"),
        /// number of passed health checks in a row after which the service is up again
        health_check_pass: Bounded<1, 100> = "1" => ("healthCheckPass", "uint"),
        /// time after which a health check without a result has failed
        health_check_timeout: Duration = "3s" => ("healthCheckTimeout", "duration"),
        /// the host prefix of the service (default: the id)
        host_prefix: Option<HostPrefix> => ("hostPrefix", "value"),
        /// the service to publish: http://host:port, https://host:port, tcp://host:port, udp://host:port,
        /// tcp+udp://host:port, unix:///socket, http+unix:///socket, file:///directory, or a proxy, socks5: or
        /// httpproxy:; ports may be a range, like 6000-6010, with as many of -remoteTCPPort; may be given
        /// several times, each followed by the flags of that service
        local: Option<LocalPorts> => ("local", "value"),
        /// close a connection to the service that is silent for this time (default: never), and limit
        /// the time to open one (default 2m0s)
        local_timeout: Option<Duration> => ("localTimeout", "duration"),
        /// the name and the hashed password of a visitor, as "gt hash USER" prints them; requests without
        /// one of them are refused; visitors must speak HTTP/1, or SOCKS5 with socks5:; may be given several
        /// times
        password: Vec<Value<UserPassword>> => ("password", "value"),
        /// a file with the names and hashed passwords of visitors, one in a line, beside those of -password
        password_file: Option<PathBuf> => ("passwordFile", "string"),
        /// publish the service to no visitors, only to clients that have this key (-tcpForwardKey, -udpForwardKey
        /// there), directly or through the server, which cannot use the service itself; 16 to 200 bytes, as
        /// "gt keygen -shared" prints one
        private: Option<Secret> => ("private", "string"),
        /// a file with the key of -private in it
        private_file: Option<PathBuf> => ("privateFile", "string"),
        /// send the visitor's address to the service in a header of the PROXY protocol, version 1 or 2,
        /// before each connection; the service must expect it
        proxy_protocol: Option<ProxyVersion> => ("proxyProtocol", "uint"),
        /// for tcp+udp://host:port and socks5:, the TCP port and the UDP port of the server, which have one
        /// number, or a range for a range of local ports
        remote_port: Option<RemotePorts> => ("remotePort", "uint"),
        /// the TCP port of the server to publish the service on, or a range for a range of local ports
        remote_tcp_port: Option<RemotePorts> => ("remoteTCPPort", "uint"),
        /// publish the service on a TCP port that the server chooses; with -remoteTCPPort, only if that
        /// port is taken
        remote_tcp_random: Option<bool> => ("remoteTCPRandom", "bool"),
        /// the UDP port of the server to publish a udp:// service on, or a range for a range of local ports;
        /// for socks5:, the port of its datagrams beside -remoteTCPPort
        remote_udp_port: Option<RemotePorts> => ("remoteUDPPort", "uint"),
        /// publish a udp:// service on a UDP port that the server chooses; with -remoteUDPPort, only if that
        /// port is taken
        remote_udp_random: Option<bool> => ("remoteUDPRandom", "bool"),
        /// share the host prefix, the domains or the port of the service with other clients' services of this
        /// group, which have the same -groupKey; each visitor comes to one of them
        service_group: Option<String> => ("serviceGroup", "string"),
        /// maximum number of bytes per second of all visitors of the service together, in each direction; 0
        /// for no limit
        speed: u64 = "0" => ("speed", "uint"),
        /// for socks5: and httpproxy:, a network or a name that visitors may go to, with ports or without,
        /// like 192.168.1.0/24, 192.168.1.5:80 or *.lan:22 (default: private networks, which need a
        /// password or -allow); may be given several times
        targets: Vec<Value<Target>> => ("targets", "value"),
        /// replace the Host header of every request with the host of -local; visitors must speak HTTP/1
        use_local_as_http_host: bool => ("useLocalAsHTTPHost", "bool"),
        /// maximum number of new connections of one address in a time, like 20/1m; for IPv6, of one /64
        visitor_rate: Option<ConnectionRate> => ("visitorRate", "value"),
        /// maximum number of bytes per second of each connection of a visitor, in each direction; 0 for no
        /// limit
        visitor_speed: u64 = "0" => ("visitorSpeed", "uint"),
    }
}
