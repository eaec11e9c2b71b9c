//! The configuration as plain data: read from flags and yaml, merged, checked. Nothing here
//! listens, dials or logs; whoever gets a piece of it may rely on every check having been made.
//!
//! `value` reads texts. `layers` finds the text of each option, in the flags, the file or the defaults,
//! and reads it into the structs of `options`. `server` and `client` check what belongs together.
//! `yaml` and `file` are the file itself.

mod account;
mod address;
#[cfg(feature = "client")]
pub mod client;
mod duration;
pub mod file;
pub(crate) mod foreign;
pub(crate) mod label;
pub(crate) mod layers;
mod logging;
pub(crate) mod options;
mod secret;
#[cfg(feature = "server")]
pub mod server;
pub(crate) mod summary;
mod url;
pub mod value;
mod wire;
pub(crate) mod yaml;

use std::fmt;
use std::path::PathBuf;

pub use account::{account, AccountConfig};
pub use address::ListenAddr;
#[cfg(feature = "client")]
pub use client::{
    ClientConfig, Exposure, Local, Remote, Scheme, ServiceConfig, TcpForward, Uplink, WebRtc,
    WebRtcLevel,
};
pub use layers::Given;
pub use logging::{common, LogLevel, LoggingConfig, SentryConfig};
pub use secret::Secret;
#[cfg(feature = "server")]
pub use server::{
    AnyClient, ApiConfig, HostRules, Limits, Network, PortRange, ServerConfig, TcpRule, TlsVersion,
    User,
};
pub use url::Url;
use value::Scalar;
pub use wire::Wire;

/// Longest id, secret and host prefix in bytes, as the wire can carry them (WIRE.md, hello).
pub const MAX_NAME: usize = 200;

/// What one file, or the command line alone, says.
#[derive(Clone, Debug)]
pub struct RoleConfig {
    /// What to be, and how.
    pub role: Role,
    /// The file it came from, if any.
    pub source: Option<PathBuf>,
    /// Sentences for the log; none of them keeps anything from working as configured otherwise.
    pub warnings: Vec<String>,
    /// All options in one line for the log, without the secrets.
    pub shown: String,
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub enum Role {
    /// The public end.
    #[cfg(feature = "server")]
    Server(Box<ServerConfig>),
    /// The end behind NAT.
    #[cfg(feature = "client")]
    Client(Box<ClientConfig>),
}

impl Role {
    /// The server's, if it is one; the same call in a build of one role and of both.
    #[cfg(feature = "server")]
    pub fn server(&self) -> Option<&ServerConfig> {
        match self {
            Role::Server(server) => Some(server),
            #[cfg(feature = "client")]
            Role::Client(_) => None,
        }
    }

    /// The client's, if it is one.
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
    /// Which of the two it is.
    pub fn name(&self) -> RoleName {
        match self.role {
            #[cfg(feature = "server")]
            Role::Server(_) => RoleName::Server,
            #[cfg(feature = "client")]
            Role::Client(_) => RoleName::Client,
        }
    }

    /// Where its log goes.
    pub fn logging(&self) -> &LoggingConfig {
        match &self.role {
            #[cfg(feature = "server")]
            Role::Server(server) => &server.logging,
            #[cfg(feature = "client")]
            Role::Client(client) => &client.logging,
        }
    }

    /// Where its reports go.
    pub fn sentry(&self) -> Option<&SentryConfig> {
        match &self.role {
            #[cfg(feature = "server")]
            Role::Server(server) => server.sentry.as_ref(),
            #[cfg(feature = "client")]
            Role::Client(client) => client.sentry.as_ref(),
        }
    }

    /// Whether it listens on ports below 1024, or clients may have it listen there.
    pub fn low_ports(&self) -> bool {
        match &self.role {
            #[cfg(feature = "server")]
            Role::Server(server) => server.low_ports(),
            #[cfg(feature = "client")]
            Role::Client(client) => client.tcp_forward.iter().any(|it| it.addr.is_low()),
        }
    }

    /// Whom to become.
    pub fn account(&self) -> &AccountConfig {
        match &self.role {
            #[cfg(feature = "server")]
            Role::Server(server) => &server.account,
            #[cfg(feature = "client")]
            Role::Client(client) => &client.account,
        }
    }

    /// Executor threads, 1 to 64.
    pub fn threads(&self) -> usize {
        match &self.role {
            #[cfg(feature = "server")]
            Role::Server(server) => server.threads,
            #[cfg(feature = "client")]
            Role::Client(client) => client.threads,
        }
    }
}

/// A role by name, whether this program was built with it or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleName {
    /// The public end.
    Server,
    /// The end behind NAT.
    Client,
}

impl RoleName {
    /// Whether this program was built with it.
    pub const fn built(self) -> bool {
        match self {
            RoleName::Server => cfg!(feature = "server"),
            RoleName::Client => cfg!(feature = "client"),
        }
    }

    /// The only role this program was built with, if it is only one.
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

/// Why nothing can be started: sentences for the person who wrote the command line or the file.
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

/// Checks what the wire limits to [`MAX_NAME`] bytes; `what` begins the sentence.
fn check_length(what: &str, bytes: usize) -> Result<(), String> {
    match bytes {
        0 => Err(format!("{what} is empty: it needs 1 to {MAX_NAME} bytes.")),
        1..=MAX_NAME => Ok(()),
        _ => Err(format!("{what} has {bytes} bytes: the most is {MAX_NAME}.")),
    }
}

#[cfg(test)]
mod tests;
