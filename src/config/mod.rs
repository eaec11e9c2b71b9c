//! The configuration as plain data, read from flags and yaml and checked. Not its use: nothing here
//! listens, dials or logs.
//!
//! `value` parses texts. `layers` finds the text of each option, in the flags, the file or the
//! defaults, and reads it into the structs of `options`. `server` and `client` check options that
//! depend on each other. `yaml` and `file` read the file.

mod account;
mod address;
#[cfg(feature = "client")]
pub mod client;
mod domain;
mod duration;
#[cfg(feature = "web")]
pub(crate) mod edit;
#[cfg(feature = "web")]
pub(crate) mod edit_check;
pub mod file;
pub(crate) mod foreign;
pub(crate) mod hint;
pub(crate) mod label;
pub(crate) mod layers;
mod logging;
#[cfg(feature = "web")]
pub(crate) mod masked;
mod networks;
pub(crate) mod options;
mod port_range;
mod role;
mod secret;
pub(crate) mod secret_file;
#[cfg(feature = "server")]
pub mod server;
pub(crate) mod summary;
mod url;
pub mod value;
#[cfg_attr(not(feature = "web"), path = "no_web.rs")]
mod web;
mod wire;
pub(crate) mod yaml;

use std::fmt;
use std::path::{Path, PathBuf};

pub use account::{account, AccountConfig};
pub use address::ListenAddr;
#[cfg(all(feature = "server", feature = "quic"))]
pub use address::ListenScope;
#[cfg(feature = "client")]
pub use client::{
    servers, ClientConfig, Exposure, HealthCheck, HealthProbe, Local, ProxyKind, Remote, Scheme,
    ServerKeys, ServiceConfig, Target, TcpForward, Transport, UdpForward, UdpTarget, Uplink,
    UserPassword, VisitorRate, WebRtc, WebRtcLevel,
};
pub use domain::Domain;
pub use layers::Given;
pub use logging::{
    common, AccessLogConfig, AccessLogTarget, LogLevel, LoggingConfig, SentryConfig,
};
pub use networks::{AddressRules, Network};
pub use port_range::PortRange;
pub use secret::Secret;
#[cfg(feature = "server")]
pub use server::{
    AcmeConfig, AnyClient, ApiConfig, HostRules, Limits, PortLimits, PortRule, ServerConfig,
    TlsVersion, User, WsPlace,
};
pub use url::Url;
use value::Scalar;
pub use web::WebConfig;
#[cfg(feature = "web")]
pub use web::WebTls;
pub use wire::Wire;

/// Maximum length of ids, secrets and host prefixes in bytes (docs/gt1.md, "Hello").
pub const MAX_NAME: usize = 200;

/// The configuration of one role, from a file and the command line.
#[derive(Clone, Debug)]
pub struct RoleConfig {
    /// The role and its settings.
    pub role: Role,
    /// Path of the file, if there is one.
    pub source: Option<PathBuf>,
    /// Warnings for the log. The rest of the configuration works in spite of them.
    pub warnings: Vec<String>,
    /// Files with secrets or keys, which others should not read.
    pub secret_files: Vec<PathBuf>,
    /// All options in one line for the log, without secrets.
    pub shown: String,
}

/// The checked configuration of a server or a client.
#[derive(Clone, Debug)]
pub enum Role {
    /// The server, the public end.
    #[cfg(feature = "server")]
    Server(Box<ServerConfig>),
    /// The client, the end behind NAT.
    #[cfg(feature = "client")]
    Client(Box<ClientConfig>),
}

impl Role {
    /// Returns the server's configuration, if the role is server.
    #[cfg(feature = "server")]
    pub fn server(&self) -> Option<&ServerConfig> {
        match self {
            Role::Server(server) => Some(server),
            #[cfg(feature = "client")]
            Role::Client(_) => None,
        }
    }

    /// Returns the client's configuration, if the role is client.
    #[cfg(feature = "client")]
    pub fn client(&self) -> Option<&ClientConfig> {
        match self {
            Role::Client(client) => Some(client),
            #[cfg(feature = "server")]
            Role::Server(_) => None,
        }
    }
}

impl RoleConfig {
    /// Returns the name of the role.
    pub fn name(&self) -> RoleName {
        match self.role {
            #[cfg(feature = "server")]
            Role::Server(_) => RoleName::Server,
            #[cfg(feature = "client")]
            Role::Client(_) => RoleName::Client,
        }
    }

    /// Returns the settings of the log.
    pub fn logging(&self) -> &LoggingConfig {
        match &self.role {
            #[cfg(feature = "server")]
            Role::Server(server) => &server.logging,
            #[cfg(feature = "client")]
            Role::Client(client) => &client.logging,
        }
    }

    /// Returns the settings of reports to Sentry.
    pub fn sentry(&self) -> Option<&SentryConfig> {
        match &self.role {
            #[cfg(feature = "server")]
            Role::Server(server) => server.sentry.as_ref(),
            #[cfg(feature = "client")]
            Role::Client(client) => client.sentry.as_ref(),
        }
    }

    /// Whether the role is a server to which no client can connect, because there is no user.
    #[cfg(feature = "web")]
    pub fn admits_nobody(&self) -> bool {
        match &self.role {
            #[cfg(feature = "server")]
            Role::Server(server) => server.admits_nobody(),
            #[cfg(feature = "client")]
            Role::Client(_) => false,
        }
    }

    /// Whether the role listens on ports below 1024, or lets clients open such ports.
    pub fn low_ports(&self) -> bool {
        match &self.role {
            #[cfg(feature = "server")]
            Role::Server(server) => server.low_ports(),
            #[cfg(feature = "client")]
            Role::Client(client) => {
                let web = client.web.as_ref().map(WebConfig::addr);
                let tcp = client.tcp_forward.as_ref().map(|it| &it.addr);
                let udp = client.udp_forward.as_ref().map(|it| &it.addr);
                [web, tcp, udp]
                    .into_iter()
                    .flatten()
                    .any(ListenAddr::is_low)
            }
        }
    }

    /// Returns the UDP ports that peers of a client connect to, if they are fixed.
    pub fn peer_ports(&self) -> Option<PortRange> {
        match &self.role {
            #[cfg(feature = "server")]
            Role::Server(_) => None,
            #[cfg(feature = "client")]
            Role::Client(client) => client.webrtc.ports(),
        }
    }

    /// Returns the user and group to run as.
    pub fn account(&self) -> &AccountConfig {
        match &self.role {
            #[cfg(feature = "server")]
            Role::Server(server) => &server.account,
            #[cfg(feature = "client")]
            Role::Client(client) => &client.account,
        }
    }

    /// Returns the directory that the role keeps something in; `None` if it keeps nothing.
    pub fn state_dir(&self) -> Option<&Path> {
        let of_web = self.web().and_then(WebConfig::state_dir);
        let of_role = match &self.role {
            #[cfg(feature = "server")]
            Role::Server(server) => {
                let directory = server.state_dir.as_deref();
                directory.filter(|_| server.cert_file.is_none())
            }
            #[cfg(feature = "client")]
            Role::Client(client) => match &client.link.server_keys {
                ServerKeys::First(directory) => Some(directory.as_path()),
                _ => None,
            },
        };
        of_role.or(of_web)
    }

    /// Returns the settings of the web page; `None` for no page.
    pub fn web(&self) -> Option<&WebConfig> {
        match &self.role {
            #[cfg(feature = "server")]
            Role::Server(server) => server.web.as_ref(),
            #[cfg(feature = "client")]
            Role::Client(client) => client.web.as_ref(),
        }
    }

    /// Returns the number of executor threads, 1 to 64.
    pub fn threads(&self) -> usize {
        match &self.role {
            #[cfg(feature = "server")]
            Role::Server(server) => server.threads,
            #[cfg(feature = "client")]
            Role::Client(client) => client.threads,
        }
    }

    /// Returns whether the kernel may join and split UDP datagrams.
    pub fn udp_offload(&self) -> bool {
        match &self.role {
            #[cfg(feature = "server")]
            Role::Server(server) => server.udp_offload,
            #[cfg(feature = "client")]
            Role::Client(client) => client.udp_offload,
        }
    }
}

/// The name of a role. The program may have been built without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleName {
    /// The server, the public end.
    Server,
    /// The client, the end behind NAT.
    Client,
}

impl RoleName {
    /// Whether this program was built with the role.
    pub const fn built(self) -> bool {
        match self {
            RoleName::Server => cfg!(feature = "server"),
            RoleName::Client => cfg!(feature = "client"),
        }
    }

    /// Returns the role of a program that was built with one role.
    pub const fn only() -> Option<RoleName> {
        match (RoleName::Server.built(), RoleName::Client.built()) {
            (true, false) => Some(RoleName::Server),
            (false, true) => Some(RoleName::Client),
            _ => None,
        }
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RoleName::Server => "server",
            RoleName::Client => "client",
        })
    }
}

impl Scalar for RoleName {
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "server" => Ok(RoleName::Server),
            "client" => Ok(RoleName::Client),
            _ => Err(format!("\"{text}\" is not a role: write server or client.")),
        }
    }
}

/// A mistake in the command line or a file, as sentences for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl ConfigError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        ConfigError(text.into())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// Checks that a name has 1 to [`MAX_NAME`] bytes. `what` is the subject of the error's sentence.
fn check_length(what: &str, bytes: usize) -> Result<(), String> {
    match bytes {
        0 => Err(format!("{what} is empty: it needs 1 to {MAX_NAME} bytes.")),
        1..=MAX_NAME => Ok(()),
        _ => Err(format!(
            "{what} has {bytes} bytes: the maximum is {MAX_NAME}."
        )),
    }
}

#[cfg(test)]
mod tests;
