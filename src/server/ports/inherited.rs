//! A port as another process, or a client that is away, has had it. Not an open port of a client, see `listener`.

use super::{PortId, PortRequest, PortSocket};
use crate::net::Shutdown;

/// A client's port as handed over to another process, or reserved for a client that is away.
#[derive(Clone)]
pub struct InheritedPort {
    /// The client's request.
    pub request: PortRequest,
    /// The port that the client has got.
    pub port: u16,
    /// The socket; `None` if only the number is reserved.
    pub listener: Option<PortSocket>,
    /// Triggered when the parent process, which may accept on the listener too, has ended. `None`
    /// if the listener belongs to this process alone.
    pub older: Option<Shutdown>,
}

impl InheritedPort {
    /// Notes whether a child process has the listener, too, or is about to: it must not be closed for
    /// both, whoever takes the port here meanwhile.
    pub fn set_shared(&self, shared: bool) {
        if let Some(listener) = &self.listener {
            listener.set_shared(shared);
        }
    }

    /// Returns the number and the protocol.
    pub fn id(&self) -> PortId {
        (self.request.protocol, self.port)
    }

    /// Whether the port satisfies a request: the same request, or the same number.
    pub(super) fn answers(&self, request: PortRequest) -> bool {
        self.request == request || self.id() == request.id()
    }
}
