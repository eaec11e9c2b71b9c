//! The settings of peer-to-peer connections.

use std::time::Duration;

use crate::config::value::Scalar;
use crate::config::PortRange;

/// Settings of peer connections.
#[derive(Clone, Debug, PartialEq)]
pub struct WebRtc {
    /// Time after which an idle peer connection is closed.
    pub idle_timeout: Duration,
    /// Lowest level of messages about peers that is logged.
    pub log_level: WebRtcLevel,
    /// Lowest UDP port; 0 for any.
    pub min_port: u16,
    /// Highest UDP port, not below `min_port`; 0 for any.
    pub max_port: u16,
    /// Whether the gateway is asked to open the ports of peers.
    pub port_map: bool,
    /// Maximum number of peers, 1 to 1000.
    pub connections: usize,
}

impl WebRtc {
    /// Returns the UDP ports that peers connect to; `None` for any port, or without P2P.
    pub fn ports(&self) -> Option<PortRange> {
        let (first, last) = (self.min_port, self.max_port.max(self.min_port));
        (cfg!(feature = "p2p") && first != 0).then_some(PortRange { first, last })
    }
}

/// Log levels of messages about peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum WebRtcLevel {
    Verbose,
    Info,
    Warning,
    Error,
}

impl Scalar for WebRtcLevel {
    fn read(text: &str) -> Result<Self, String> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "verbose" => WebRtcLevel::Verbose,
            "info" => WebRtcLevel::Info,
            "warning" => WebRtcLevel::Warning,
            "error" => WebRtcLevel::Error,
            _ => {
                return Err(format!(
                    "\"{text}\" is not a level of WebRTC: write verbose, info, warning or error."
                ))
            }
        })
    }
}
