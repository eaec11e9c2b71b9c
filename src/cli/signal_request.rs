//! `-s`: which signal to send to which running processes of gt. `control` sends it.

use crate::config::value::Scalar;
use crate::config::RoleName;
use std::path::PathBuf;

/// A signal and the processes that are to get it.
#[derive(Debug)]
pub struct SignalRequest {
    /// The signal to send.
    pub signal: ControlSignal,
    /// Only processes with this role; `None` for any.
    pub role: Option<RoleName>,
    /// Only processes with this `-config`; `None` for any.
    pub config: Option<PathBuf>,
}

/// A signal for running processes of gt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlSignal {
    /// Read the configuration again.
    Reload,
    /// Make clients that wait before their next attempt connect at once.
    Wake,
    /// Start the installed program as a successor and hand over all connections.
    Restart,
    /// Finish the open connections and exit.
    Stop,
    /// Exit at once.
    Kill,
}

impl Scalar for ControlSignal {
    fn read(text: &str) -> Result<Self, String> {
        Ok(match text {
            "reload" => ControlSignal::Reload,
            "wake" => ControlSignal::Wake,
            "restart" => ControlSignal::Restart,
            "stop" => ControlSignal::Stop,
            "kill" => ControlSignal::Kill,
            _ => {
                return Err(format!(
                    "\"{text}\" is not a signal: write reload, wake, restart, stop or kill."
                ))
            }
        })
    }
}
