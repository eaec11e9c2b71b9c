//! Reports to Sentry: log records as events, sent by a thread of its own. The parent module chooses
//! the records.

use super::OneLine;
use crate::config::{LogLevel, SentryConfig as Config};
use crate::net::tls;
use sentry::protocol::{Event, Level};
use sentry::transports::UreqHttpTransportOptions;
use sentry::types::{Dsn, Scheme};
use sentry::{Client, ClientOptions, Hub, Transport, TransportFactory, TransportOptions};
use std::fmt;
use std::sync::{mpsc, Arc};
use std::time::Duration;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::Agent;

/// Maximum time to send one event.
const SEND_TIMEOUT: Duration = Duration::from_secs(15);

/// A sender of events to a Sentry project.
pub struct Reporter {
    client: Arc<Client>,
    levels: Vec<LogLevel>,
}

impl Reporter {
    /// Starts the sending thread. The error never shows the DSN.
    pub fn start(config: &Config) -> Result<Self, String> {
        let dsn: Dsn = std::str::from_utf8(config.dsn.as_bytes())
            .ok()
            .and_then(|dsn| dsn.parse().ok())
            .ok_or("sentryDSN is not the address of a project; expected https://key@host/number")?;
        let agent = agent(dsn.scheme() == Scheme::Https)?;
        let mut options = ClientOptions::new()
            .sample_rate(config.sample_rate as f32)
            .debug(config.debug)
            .transport(Ureq(agent))
            .release(match &config.release {
                Some(release) => release.clone(),
                None => crate::version::VERSION.to_owned(),
            });
        options.dsn = Some(dsn);
        options.environment = config.environment.clone().map(Into::into);
        options.server_name = config.server_name.clone().map(Into::into);
        let client = Arc::new(Client::with_options(options));
        // The client's debug output looks up its options there.
        Hub::current().bind_client(Some(client.clone()));
        Ok(Self {
            client,
            levels: config.levels.clone(),
        })
    }

    /// Whether records of this level are reported.
    pub fn wants(&self, level: LogLevel) -> bool {
        self.levels.contains(&level)
    }

    /// Returns the most verbose level that is reported.
    pub fn lowest(&self) -> LogLevel {
        self.levels
            .iter()
            .min()
            .copied()
            .unwrap_or(LogLevel::Disable)
    }

    /// Queues an event for the sending thread; drops it if the queue is full.
    pub fn report(&self, level: LogLevel, logger: &str, message: &fmt::Arguments<'_>) {
        let event = Event {
            level: match level {
                LogLevel::Trace | LogLevel::Debug => Level::Debug,
                LogLevel::Info => Level::Info,
                LogLevel::Warn => Level::Warning,
                LogLevel::Error => Level::Error,
                LogLevel::Fatal | LogLevel::Panic | LogLevel::Disable => Level::Fatal,
            },
            logger: Some(logger.to_owned()),
            message: Some(OneLine(message).to_string()),
            ..Event::default()
        };
        self.client.capture_event(event, None);
    }

    /// Waits until all events are sent, at most for `patience`.
    pub fn flush(&self, patience: Duration) {
        let (done, is_done) = mpsc::sync_channel(1);
        let client = self.client.clone();
        // The client's own timeout starts only once its queue has room.
        let waiting = std::thread::Builder::new().spawn(move || {
            client.flush(Some(patience));
            let _ = done.send(());
        });
        if waiting.is_ok() {
            let _ = is_done.recv_timeout(patience);
        }
    }
}

struct Ureq(Agent);

impl TransportFactory for Ureq {
    fn create_transport_with_options(&self, options: TransportOptions) -> Arc<dyn Transport> {
        let options = UreqHttpTransportOptions::from(options).with_agent(self.0.clone());
        Arc::new(options.build())
    }
}

fn agent(secure: bool) -> Result<Agent, String> {
    let mut config = Agent::config_builder()
        .timeout_global(Some(SEND_TIMEOUT))
        .max_idle_connections(1);
    if secure {
        let system = tls::system_certificates().map_err(|e| e.to_string())?;
        let roots = system
            .iter()
            .map(|certificate| Certificate::from_der(certificate).to_owned());
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::from(roots))
            .unversioned_rustls_crypto_provider(tls::provider());
        config = config.tls_config(tls.build());
    }
    Ok(config.build().new_agent())
}
