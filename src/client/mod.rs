//! The end behind NAT: keeps tunnels to its servers and connects each stream to a local
//! service.

mod backoff;
pub mod files;
mod host_header;
mod pool;
mod remote_api;
mod service;
mod session;

use crate::config::{self, Secret};
use crate::net::tls::{self, Connector, Trust};
use crate::net::{within, Stop};
use pool::{Pool, Source};
use remote_api::RemoteApi;
pub use service::Services;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// A running client.
pub struct Client {
    me: Arc<Me>,
    pools: Vec<Arc<Pool>>,
}

/// What every tunnel of a client needs.
struct Me {
    id: String,
    secret: Secret,
    tls: Tls,
    remote_timeout: Duration,
    reconnect_delay: Duration,
    /// Most tunnels to one server.
    connections: usize,
    /// Tunnels to one server that are always there.
    idle_connections: usize,
    services: Mutex<Arc<Services>>,
    stop: Stop,
}

impl Me {
    fn lock_services(&self) -> MutexGuard<'_, Arc<Services>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn services(&self) -> Arc<Services> {
        self.lock_services().clone()
    }
}

/// TLS to servers. Set up when it is first needed: a remoteAPI may name `tls://` servers, or
/// none.
struct Tls {
    insecure: bool,
    cert: Option<PathBuf>,
    connector: OnceLock<Connector>,
}

impl Tls {
    /// The error says which file cannot be used, or what the system lacks.
    fn connector(&self) -> io::Result<&Connector> {
        if let Some(connector) = self.connector.get() {
            return Ok(connector);
        }
        let connector = match &self.cert {
            _ if self.insecure => {
                log::warn!(
                    "remoteCertInsecure is set: anybody between here and the server can \
                     read and change everything; better set remoteCert to its certificate"
                );
                Connector::new(Trust::Nobody)?
            }
            Some(path) => Connector::new(Trust::File(path))?,
            None => Connector::new(Trust::System)
                .map_err(|e| io::Error::new(e.kind(), format!("{e}, or set remoteCert")))?,
        };
        Ok(self.connector.get_or_init(|| connector))
    }
}

impl Client {
    /// Begins to connect. The error says which file or folder cannot be used.
    pub fn start(config: &config::Client) -> io::Result<Self> {
        let mut sources: Vec<Source> = config.remotes.iter().cloned().map(Source::Fixed).collect();
        if let Some(url) = &config.remote_api {
            sources.push(Source::Asked(RemoteApi::new(url)?));
        }
        if sources.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "there is no remote to connect to; set remote or remoteAPI",
            ));
        }
        let tls = Tls {
            insecure: config.remote_cert_insecure,
            cert: config.remote_cert.clone(),
            connector: OnceLock::new(),
        };
        // A file that cannot be used is told now, not when the first tunnel needs it.
        if config.remotes.iter().any(|remote| remote.tls) {
            tls.connector()?;
        }
        let me = Arc::new(Me {
            id: config.id.clone(),
            secret: match &config.secret {
                Some(secret) => secret.clone(),
                None => made_up_secret()?,
            },
            tls,
            remote_timeout: config.remote_timeout,
            reconnect_delay: config.reconnect_delay,
            connections: config.connections,
            idle_connections: config.idle_connections.max(1),
            services: Mutex::new(Arc::new(Services::new(&config.services)?)),
            stop: Stop::default(),
        });
        let pools = sources.into_iter().map(|source| {
            if let Source::Fixed(remote) = &source {
                log::info!("remote url remote={remote} stun=");
            }
            Pool::start(me.clone(), source)
        });
        let pools = pools.collect();
        Ok(Self { me, pools })
    }

    /// What [`Client::reload`] needs of a new configuration. The error names the folder that
    /// cannot be served.
    pub fn prepare(config: &config::Client) -> io::Result<Services> {
        Services::new(&config.services)
    }

    /// Changes the services on every live tunnel; what runs goes on.
    pub fn reload(&self, services: Services) {
        let services = Arc::new(services);
        *self.me.lock_services() = services.clone();
        for pool in &self.pools {
            pool.offer(&services);
        }
    }

    /// Opens no more tunnels, lets what runs finish for as long as `patience`, and returns
    /// when it has, or then.
    pub async fn stop(&self, patience: Duration) {
        self.me.stop.say();
        for pool in &self.pools {
            pool.close();
        }
        let drained = async {
            for pool in &self.pools {
                pool.drained().await;
            }
        };
        within(patience, drained).await;
    }
}

/// For servers that take any client: 128 random bits in hexadecimal.
fn made_up_secret() -> io::Result<Secret> {
    let mut bytes = [0; 16];
    tls::fill_random(&mut bytes)?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Secret::new(hex))
}
