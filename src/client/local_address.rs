//! The address of a local service, and connections to it. Not what is sent over them: see `services` and
//! `health`.

use crate::config::{Local, Scheme};
use crate::net::{self, Conn};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// The address of a local service.
#[derive(Clone, PartialEq, Eq)]
pub struct LocalAddress {
    /// What the service speaks.
    pub scheme: Scheme,
    place: LocalPlace,
}

#[derive(Clone, PartialEq, Eq)]
enum LocalPlace {
    /// A host and a port.
    Tcp(String, u16),
    /// A host and a port for datagrams.
    Udp(String, u16),
    /// A Unix socket: a path, or `@` and a name.
    Unix(PathBuf),
}

impl LocalAddress {
    /// Returns the address of a service; `None` for one that gt is itself.
    pub fn of(local: &Local) -> Option<Self> {
        match local {
            Local::Tcp { scheme, host, port } => Some(Self {
                scheme: *scheme,
                place: LocalPlace::Tcp(host.clone(), *port),
            }),
            Local::Udp { host, port } => Some(Self {
                scheme: Scheme::Tcp,
                place: LocalPlace::Udp(host.clone(), *port),
            }),
            Local::Unix { scheme, socket } => Some(Self {
                scheme: *scheme,
                place: LocalPlace::Unix(socket.clone()),
            }),
            Local::Files(_) | Local::Proxy(_) | Local::Signaling => None,
        }
    }

    /// Returns the host and the port of a service that takes datagrams.
    pub fn udp(&self) -> Option<(&str, u16)> {
        match &self.place {
            LocalPlace::Udp(host, port) => Some((host, *port)),
            LocalPlace::Tcp(..) | LocalPlace::Unix(_) => None,
        }
    }

    /// Connects to the service within `patience`. Fails for one that takes datagrams.
    pub async fn connect(&self, patience: Duration) -> io::Result<Conn> {
        Ok(Conn::from(match &self.place {
            LocalPlace::Tcp(host, port) => net::dial(host, *port, patience).await?,
            LocalPlace::Unix(socket) => net::dial_unix(socket, patience).await?,
            LocalPlace::Udp(..) => return Err(io::ErrorKind::Unsupported.into()),
        }))
    }

    /// Returns the host that requests name with useLocalAsHTTPHost: the local address, without the
    /// scheme's default port; that of a Unix socket has no name of its own.
    pub fn name(&self) -> String {
        let Self { scheme, place } = self;
        let (LocalPlace::Tcp(host, port) | LocalPlace::Udp(host, port)) = place else {
            return "localhost".to_owned();
        };
        let host = match host.contains(':') {
            true => format!("[{host}]"),
            false => host.clone(),
        };
        match (scheme, port) {
            (Scheme::Http, 80) | (Scheme::Https, 443) => host,
            _ => format!("{host}:{port}"),
        }
    }
}
