//! The state that all connections of a server share. It refers to its parts only, and to none of
//! their users.

use super::acme::Acme;
use super::connection_limit::ConnectionLimit;
use super::counters::Counters;
use super::departed::Departed;
use super::first_secrets::FirstSecrets;
use super::lingering::Lingering;
use super::live_visitors::LiveVisitors;
use super::process_links::ProcessLinks;
use super::rate_limits::RateLimits;
use super::registry::Registry;
use super::self_test::SelfTest;
use super::settings::{CurrentSettings, Settings};
use crate::auth_lockout::AuthLockout;
use crate::logging::LogThrottle;
use crate::net::{clock, Shutdown, WaitGroup};
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// The shared state of one server.
pub(crate) struct ServerState {
    pub(super) registry: Registry,
    pub(super) settings: CurrentSettings,
    /// Certificates for the names of clients.
    pub(super) acme: Acme,
    pub(super) first_secrets: Arc<FirstSecrets>,
    pub(super) rate_limits: RateLimits,
    pub(super) auth_lockout: AuthLockout,
    pub(super) connection_limit: ConnectionLimit,
    /// Warnings of connections that should begin with a PROXY header.
    pub(super) front_warnings: LogThrottle,
    pub(super) lingering: Lingering,
    pub(super) live_visitors: LiveVisitors,
    pub(super) self_test: SelfTest,
    pub(super) counters: Counters,
    pub(super) departed: Departed,
    pub(super) transfer: ProcessLinks,
    pub(super) started: Instant,
    /// Triggered when the server stops accepting.
    pub(super) stop: Shutdown,
    /// Connections whose destination is not known yet.
    pub(super) handshakes: WaitGroup,
    /// Tunnels and relays that are still running.
    pub(super) serving: WaitGroup,
}

impl ServerState {
    pub(super) fn new(
        settings: Settings,
        first_secrets: Arc<FirstSecrets>,
        auth_lockout: AuthLockout,
    ) -> io::Result<Self> {
        Ok(Self {
            registry: Registry::default(),
            settings: CurrentSettings::new(settings),
            acme: Acme::default(),
            first_secrets,
            rate_limits: RateLimits::default(),
            auth_lockout,
            connection_limit: ConnectionLimit::default(),
            front_warnings: LogThrottle::new(),
            lingering: Lingering::default(),
            live_visitors: LiveVisitors::default(),
            self_test: SelfTest::new()?,
            counters: Counters::default(),
            departed: Departed::default(),
            transfer: ProcessLinks::default(),
            started: clock::now(),
            stop: Shutdown::default(),
            handshakes: WaitGroup::default(),
            serving: WaitGroup::default(),
        })
    }
}
