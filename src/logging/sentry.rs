//! Reports to Sentry: log records as events, sent by a thread of their own. Not the choice of what
//! is logged.

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

/// How long sending one event may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(15);

/// Where events go.
pub struct Reporter {
    client: Arc<Client>,
    levels: Vec<LogLevel>,
}

impl Reporter {
    /// Starts the thread that sends. The error says why not, and never shows the DSN.
    pub fn start(config: &Config) -> Result<Self, String> {
        let dsn: Dsn = std::str::from_utf8(config.dsn.as_bytes())
            .ok()
            .and_then(|dsn| dsn.parse().ok())
            .ok_or(
                "sentryDSN is not the address of a project: write it like https://key@host/number",
            )?;
        let agent = agent(dsn.scheme() == Scheme::Https)?;
        let mut options = ClientOptions::new()
            .sample_rate(config.sample_rate as f32)
            .debug(config.debug)
            .transport(Ureq(agent))
            .release(match &config.release {
                Some(release) => release.clone(),
                None => crate::cli::VERSION.to_owned(),
            });
        options.dsn = Some(dsn);
        options.environment = config.environment.clone().map(Into::into);
        options.server_name = config.server_name.clone().map(Into::into);
        let client = Arc::new(Client::with_options(options));
        // The client looks there for whether to tell what it does.
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

    /// The most talkative level that is reported.
    pub fn lowest(&self) -> LogLevel {
        self.levels
            .iter()
            .min()
            .copied()
            .unwrap_or(LogLevel::Disable)
    }

    /// Leaves an event with the thread that sends; drops it if too many wait there already.
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

    /// Returns when all events are sent, or after `patience`.
    pub fn flush(&self, patience: Duration) {
        let (done, is_done) = mpsc::sync_channel(1);
        let client = self.client.clone();
        // The client's own patience begins only when its queue has room.
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
