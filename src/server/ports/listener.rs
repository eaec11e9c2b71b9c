//! An open port of a client. Not how it was found, see `opening`.

use super::{InheritedPort, PortId, PortRequest, PortSocket};
use crate::net::Shutdown;
use crate::wire::frame::ServiceIndex;

/// An open port of one client. Dropping it closes the port.
pub struct PortListener {
    /// The client's request.
    request: PortRequest,
    /// The open port.
    pub port: u16,
    service: ServiceIndex,
    listener: PortSocket,
    stop: Shutdown,
    /// See [`InheritedPort::older`].
    older: Option<Shutdown>,
}

/// An open port to accept visitors on.
pub struct OpenedPort {
    pub port: u16,
    /// The socket to accept on.
    pub listener: PortSocket,
    /// Triggered when the port is closed.
    pub stop: Shutdown,
}

impl OpenedPort {
    /// Returns the number and the protocol.
    pub fn id(&self) -> PortId {
        (self.listener.protocol(), self.port)
    }
}

impl PortListener {
    /// Creates an open port of a client, and what accepts on it.
    pub(super) fn new(
        (request, port): (PortRequest, u16),
        service: ServiceIndex,
        listener: PortSocket,
        older: Option<Shutdown>,
    ) -> (Self, OpenedPort) {
        let stop = Shutdown::default();
        let opened = OpenedPort {
            port,
            listener: listener.clone(),
            stop: stop.clone(),
        };
        let port = Self {
            request,
            port,
            service,
            listener,
            stop,
            older,
        };
        (port, opened)
    }

    /// Returns the index of the service that the port belongs to.
    pub fn service(&self) -> ServiceIndex {
        self.service
    }

    /// Returns the number and the protocol.
    pub fn id(&self) -> PortId {
        (self.request.protocol, self.port)
    }

    /// Whether the port satisfies a request: the same request, or the same number.
    pub fn answers(&self, request: PortRequest) -> bool {
        self.request == request || self.id() == request.id()
    }

    /// Sets whether new visitors use the congestion control BBR.
    pub fn set_bbr(&self, bbr: bool) {
        self.listener.set_bbr(bbr);
    }

    /// Shares the port with another process, for which it stays open when this is dropped.
    pub fn share(&mut self) -> InheritedPort {
        self.listener.set_shared(true);
        InheritedPort {
            listener: Some(self.listener.clone()),
            older: self.older.clone(),
            ..self.number()
        }
    }

    /// Shares the port with another process and stops accepting here. `None` if it was done before.
    pub fn move_away(&mut self) -> Option<InheritedPort> {
        if self.stop.is_triggered() {
            return None;
        }
        self.stop.trigger();
        Some(self.share())
    }

    /// Returns the number without the listener, to reserve it.
    pub fn number(&self) -> InheritedPort {
        InheritedPort {
            request: self.request,
            port: self.port,
            listener: None,
            older: None,
        }
    }

    /// Undoes [`PortListener::share`], because the other process has failed.
    pub fn unshare(&mut self) {
        self.listener.set_shared(false);
    }

    /// Assigns the port to a service of a changed list.
    pub fn assign(&mut self, request: PortRequest, service: ServiceIndex) {
        self.request = request;
        self.service = service;
    }
}

impl Drop for PortListener {
    fn drop(&mut self) {
        self.stop.trigger();
        let has_older = self.older.as_ref().is_some_and(|gone| !gone.is_triggered());
        self.listener.close(has_older);
    }
}
