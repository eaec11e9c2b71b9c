//! The options of both roles, and the settings that they make. Not the meaning of these: see
//! `logging`, `account` and `wire`.

use std::path::PathBuf;

use super::account::AccountConfig;
use super::address::{HostName, ListenAddr};
use super::layers::{options, Given};
use super::logging::{
    AccessLogConfig, AccessLogTarget, Dsn, LogLevel, LoggingConfig, SentryConfig, SentryLevel,
};
use super::value::{Bounded, SampleRate};
use super::wire::Wire;

/// Options that need the feature `web`.
pub(super) const OF_WEB: &[&str] = &["webAddr", "webCertFile", "webHosts", "webKeyFile"];

options! {
    /// The options that both roles have.
    // Help texts are no markdown: `[::1]` is no link.
    #[allow(rustdoc::broken_intra_doc_links)]
    pub struct CommonOptions {
        /// write a line about each connection of a visitor, at its end, to this file; - for the log
        access_log: Option<AccessLogTarget> => ("accessLog", "string"),
        /// use the congestion control BBR for tunnels, and at the server for visitors, in place of the
        /// system's: much faster where packets get lost on the way, as on radio links
        bbr: bool => ("bbr", "bool"),
        /// the group to run as, with -user (default: the user's own)
        group: Option<String> => ("group", "string"),
        /// write the log to this file instead of stderr
        log_file: Option<PathBuf> => ("logFile", "string"),
        /// number of log files to keep, the current one included; 0 for no limit
        log_file_max_count: Given<u32> = "7" => ("logFileMaxCount", "uint"),
        /// rotate the log file at this size in bytes; 0 for never
        log_file_max_size: Given<u64> = "536870912" => ("logFileMaxSize", "uint"),
        /// trace, debug, info, warn, error, fatal, panic or disable
        log_level: Given<LogLevel> = "info" => ("logLevel", "string"),
        /// report errors to Sentry at this address: https://key@host/number
        sentry_dsn: Option<Dsn> => ("sentryDSN", "string"),
        /// print what the Sentry client does
        sentry_debug: bool => ("sentryDebug", "bool"),
        /// the environment to report to Sentry
        sentry_environment: Option<String> => ("sentryEnvironment", "string"),
        /// a level to report to Sentry: trace, debug, info, warn, error, fatal or panic; may be given
        /// several times
        sentry_level: Vec<SentryLevel> = "error, fatal and panic" => ("sentryLevel", "value"),
        /// the release to report to Sentry
        sentry_release: Option<String> = "what -version prints" => ("sentryRelease", "string"),
        /// fraction of events to report, 0.0 to 1.0
        sentry_sample_rate: SampleRate = "1" => ("sentrySampleRate", "float"),
        /// the server name to report to Sentry
        sentry_server_name: Option<String> => ("sentryServerName", "string"),
        /// keep what has to survive a restart in this directory, which gt creates: the key of a server
        /// without -certFile, and the servers that a client remembers; only its owner can read it
        state_dir: Option<PathBuf> => ("stateDir", "string"),
        /// number of threads, 1 to 64, each with its own share of the tunnels; more than one is for servers
        /// that keep a core busy
        threads: Bounded<1, 64> = "1" => ("threads", "uint"),
        /// let the kernel join and split UDP datagrams, which saves time; false is for network drivers and
        /// emulators that do it wrong
        udp_offload: bool = "true" => ("udpOffload", "bool"),
        /// the user to run as once all listeners are open; start gt as root, and give that user access
        /// to everything that is opened later
        user: Option<String> => ("user", "string"),
        /// listen on this address for the web page by which gt is run: 8086, :8086 or 192.168.1.1:8086; without a
        /// password in the file, on this machine alone (127.0.0.1 or [::1])
        web_addr: Option<ListenAddr> => ("webAddr", "string"),
        /// the certificate of the web page, a PEM file, or auto for one that gt makes, which browsers warn of
        web_cert_file: Option<PathBuf> => ("webCertFile", "string"),
        /// a host name that the web page answers to, besides IP addresses and localhost; may be given several
        /// times
        web_hosts: Vec<HostName> => ("webHosts", "value"),
        /// the key of the web page, a PEM file
        web_key_file: Option<PathBuf> => ("webKeyFile", "string"),
        /// version of the wire, the protocol of tunnels: 1, 2 or auto (2 if the other end supports it)
        wire: Wire = "auto" => ("wire", "string"),
    }
}

impl CommonOptions {
    pub(super) fn logging(&self) -> LoggingConfig {
        LoggingConfig {
            level: self.log_level,
            file: self.log_file.clone(),
            max_size: self.log_file_max_size,
            max_count: self.log_file_max_count,
        }
    }

    pub(super) fn access_log(&self) -> Option<AccessLogConfig> {
        Some(AccessLogConfig {
            target: self.access_log.clone()?,
            rotation: self.logging(),
        })
    }

    pub(super) fn sentry(&self) -> Option<SentryConfig> {
        Some(SentryConfig {
            dsn: self.sentry_dsn.clone()?.0,
            levels: self.sentry_level.iter().map(|level| level.0).collect(),
            sample_rate: self.sentry_sample_rate.0,
            release: self.sentry_release.clone(),
            environment: self.sentry_environment.clone(),
            server_name: self.sentry_server_name.clone(),
            debug: self.sentry_debug,
        })
    }

    pub(super) fn threads(&self) -> usize {
        usize::try_from(self.threads.0).unwrap_or(1)
    }

    pub(super) fn account(&self) -> AccountConfig {
        AccountConfig {
            user: self.user.clone(),
            group: self.group.clone(),
        }
    }
}
