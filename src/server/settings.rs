//! What of a server's configuration may change while it runs, beside its listeners: who may
//! connect, what is allowed to whom, and how visitors are met.

use super::auth_api::AuthApi;
use super::first_secrets::FirstSecrets;
use super::users::{UnknownIds, Users};
use crate::config::{self, AnyClient, Network, TlsVersion, Wire};
use crate::net::tls::{Acceptor, MinVersion};
use async_io::Timer;
use event_listener::{Event, IntoNotification};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many tunnels get other rules at once, and the pause before the next ones: 10 000 tunnels have
/// them within a second, and hold up visitors for less than a millisecond at a time.
const WAKES_PER_BATCH: usize = 16;
const BATCH_INTERVAL: Duration = Duration::from_millis(1);

pub struct Settings {
    pub users: Users,
    /// What tunnels may speak.
    pub wire: Wire,
    /// The header that routes.
    pub mux_header: String,
    /// Proxies whose connections carry one request each.
    pub front_proxies: Vec<Network>,
    /// Silence that ends a tunnel, or a visitor's connection.
    pub timeout: Option<Duration>,
    /// One direction without traffic is silence enough.
    pub unidirectional: bool,
    /// For the listener with TLS, if there is one.
    pub acceptor: Option<Acceptor>,
}

impl Settings {
    /// The error says which file cannot be used, or what the authAPI lacks. What is the same
    /// as in the rules `before` is kept: an authAPI keeps its connections.
    pub fn new(
        config: &config::ServerConfig,
        claims: &Arc<FirstSecrets>,
        before: Option<&Settings>,
    ) -> io::Result<Self> {
        if let Some(before) = before {
            before.users.check_successor(config)?;
        }
        let acceptor = match (&config.cert_file, &config.key_file) {
            (Some(cert), Some(key)) if config.tls_addr.is_some() => {
                Some(acceptor(cert, key, config.tls_min)?)
            }
            _ => None,
        };
        let strangers = match &config.auth_api {
            Some(url) => {
                UnknownIds::AskedAbout(match before.and_then(|rules| rules.users.auth_api()) {
                    Some(api) if api.is_at(url) => api.clone(),
                    _ => Arc::new(AuthApi::new(url)?),
                })
            }
            None => match config.any_client {
                AnyClient::Refused => UnknownIds::Refused,
                AnyClient::Allowed | AnyClient::AllowedByDefault => {
                    UnknownIds::Welcome(claims.clone())
                }
            },
        };
        Ok(Self {
            users: Users::new(&config.users, strangers, &config.limits),
            wire: config.wire,
            mux_header: config.http_mux_header.clone(),
            front_proxies: config.front_proxies.clone(),
            timeout: Some(config.timeout).filter(|timeout| !timeout.is_zero()),
            unidirectional: config.timeout_on_unidirectional_traffic,
            acceptor,
        })
    }
}

impl Settings {
    /// Whether HTTP visitors are routed by the first label of their Host header, and not by the
    /// whole value of another header.
    pub fn routes_by_host(&self) -> bool {
        self.mux_header.eq_ignore_ascii_case("host")
    }
}

/// The error says what is wrong with which file.
pub fn acceptor(cert: &Path, key: &Path, min: TlsVersion) -> io::Result<Acceptor> {
    let min = match min {
        TlsVersion::Tls12 => MinVersion::Tls12,
        TlsVersion::Tls13 => MinVersion::Tls13,
    };
    Acceptor::new(cert, key, min)
}

/// The rules in force. Who has taken them keeps them until it asks again.
pub struct Watch {
    rules: Mutex<Arc<Settings>>,
    changed: Event,
}

impl Watch {
    pub fn new(rules: Settings) -> Self {
        Self {
            rules: Mutex::new(Arc::new(rules)),
            changed: Event::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Settings>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self) -> Arc<Settings> {
        self.lock().clone()
    }

    pub fn replace(&self, rules: Settings) {
        *self.lock() = Arc::new(rules);
    }

    /// Has all that wait for other rules see that there are some. To apply them takes each of them a
    /// moment, and there may be thousands, so others have their turn in between.
    pub async fn announce(&self) {
        let mut left = self.changed.total_listeners();
        while left > 0 {
            self.changed.notify(WAKES_PER_BATCH.additional());
            left = left.saturating_sub(WAKES_PER_BATCH);
            Timer::after(BATCH_INTERVAL).await;
        }
    }

    /// Waits until the rules are others than `known`, and returns them.
    pub async fn changed(&self, known: &Arc<Settings>) -> Arc<Settings> {
        loop {
            let changed = self.changed.listen();
            let rules = self.get();
            if !Arc::ptr_eq(&rules, known) {
                return rules;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
impl Settings {
    /// The rules of a server without users.
    pub fn of_nobody() -> Self {
        let limits = config::Limits::of_one_prefix();
        Self {
            users: Users::new(&[], UnknownIds::Refused, &limits),
            wire: Wire::default(),
            mux_header: "Host".to_owned(),
            front_proxies: Vec::new(),
            timeout: None,
            unidirectional: false,
            acceptor: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};
    use std::future::Future;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    #[derive(Default)]
    struct WatcherCount(AtomicUsize);

    impl Wake for WatcherCount {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn thousands_of_tunnels_hear_of_new_rules_a_few_at_a_time() {
        const TUNNELS: usize = 200;
        let in_force = Watch::new(Settings::of_nobody());
        let known = in_force.get();
        let woken = Arc::new(WatcherCount::default());
        let waker = Waker::from(woken.clone());
        let mut context = Context::from_waker(&waker);
        let mut waiting: Vec<_> = (0..TUNNELS)
            .map(|_| Box::pin(in_force.changed(&known)))
            .collect();
        for tunnel in &mut waiting {
            assert!(tunnel.as_mut().poll(&mut context).is_pending());
        }
        in_force.replace(Settings::of_nobody());
        let mut announcing = Box::pin(in_force.announce());
        assert!(block_on(poll_once(&mut announcing)).is_none());
        assert_eq!(woken.0.load(Ordering::SeqCst), WAKES_PER_BATCH);
        block_on(announcing);
        assert_eq!(woken.0.load(Ordering::SeqCst), TUNNELS);
        for tunnel in &mut waiting {
            assert!(matches!(tunnel.as_mut().poll(&mut context), Poll::Ready(_)));
        }
    }
}
