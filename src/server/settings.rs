//! The settings of a server that a reload can change, without its listeners: users, limits, and how
//! visitors are handled.

use super::acme::AcmeSettings;
use super::auth_api::AuthApi;
use super::first_secrets::FirstSecrets;
use super::users::{UnknownIds, Users};
use super::visitor_authorities::VisitorAuthorities;
use crate::config::{self, AddressRules, AnyClient, Network, TlsVersion, Wire, WsPlace};
use crate::current::{Current, Seen};
use crate::keys::Fingerprint;
use crate::logging::AccessLog;
use crate::net::tls::{
    Acceptor, ClientCertificates, MinVersion, NamedCertificates, ServerIdentity,
};
use crate::net::{self, Timer};
use crate::tunnel::Tunnel;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Number of tunnels that apply changed settings at once. With [`BATCH_INTERVAL`] in between,
/// 10,000 tunnels take less than a second and delay visitors by less than a millisecond at a time.
const WAKES_PER_BATCH: usize = 16;
/// Pause between two batches of [`WAKES_PER_BATCH`] tunnels.
const BATCH_INTERVAL: Duration = Duration::from_millis(1);

/// The reloadable settings of a server.
pub struct Settings {
    /// The users and their limits.
    pub users: Users,
    /// The protocol versions that tunnels may use.
    pub wire: Wire,
    /// The header by which HTTP visitors are routed.
    pub mux_header: String,
    /// Proxies whose connections carry one request each.
    pub front_proxies: Vec<Network>,
    /// Proxies whose connections begin with a header of the PROXY protocol.
    pub accept_proxy: Vec<Network>,
    /// The addresses that visitors may come from.
    pub visitors: AddressRules,
    /// The log of visitors.
    pub access_log: Option<AccessLog>,
    /// Idle timeout of tunnels and of visitors' connections; `None` for never.
    pub timeout: Option<Duration>,
    /// Time of silence after which a visitor's flow of datagrams ends.
    pub udp_timeout: Duration,
    /// Whether the idle timeout applies to each direction separately.
    pub unidirectional: bool,
    /// The TLS acceptor of the `tlsAddr` listener.
    pub acceptor: Option<Acceptor>,
    /// How the names of clients get certificates, which `acceptor` uses.
    pub acme: Option<Arc<AcmeSettings>>,
    /// The authorities of visitors of single users.
    pub authorities: VisitorAuthorities,
    /// Whether visitors of the `tlsAddr` listener need a certificate.
    pub certified_visitors: bool,
    /// The directory of the identity that the server has made; `None` with one from files.
    made_in: Option<PathBuf>,
    /// The fingerprint of the key of `acceptor`.
    pub fingerprint: Option<Fingerprint>,
    /// The file of the certificate, for the web page.
    #[cfg_attr(not(feature = "web"), allow(dead_code))]
    pub cert_file: Option<PathBuf>,
    /// Where tunnels in WebSockets are taken.
    pub ws: Option<WsPlace>,
    /// Whether connections use the congestion control BBR.
    pub bbr: bool,
}

impl Settings {
    /// Whether the ClientHello of a connection has to be read before its handshake.
    pub fn reads_hello(&self) -> bool {
        self.acme.is_some() || !self.authorities.is_empty()
    }

    /// Whether the connections of this address begin with a header of the PROXY protocol.
    pub fn accepts_proxy_header(&self, addr: IpAddr) -> bool {
        let mut fronts = self.accept_proxy.iter();
        fronts.any(|fronts| fronts.contains(addr))
    }

    /// Reads the settings, and opens the log of visitors. A key that the server has made before it is told to
    /// reload must be there. See [`Settings::new`].
    pub fn with_logs(
        config: &config::ServerConfig,
        first_secrets: &Arc<FirstSecrets>,
        before: Option<&Settings>,
    ) -> io::Result<Self> {
        let made_in = directory_of_identity(config)?;
        let is_kept = made_in.is_some() && before.is_some_and(|it| it.made_in == made_in);
        let identity = match made_in.as_deref().filter(|_| is_kept) {
            Some(directory) => Some(ServerIdentity::kept_in(directory)?),
            None => identity(config)?,
        };
        let identity = identity.filter(|_| config.tls_addr.is_some());
        let mut settings = Self::new(config, identity, first_secrets, before)?;
        settings.made_in = made_in;
        let log = config.access_log.as_ref().map(AccessLog::open);
        settings.access_log = log.transpose().map_err(io::Error::other)?;
        Ok(settings)
    }

    /// Reads the settings. An authAPI that is the same as `before` is kept with its connections.
    /// `identity` is that of the `tlsAddr` listener. The error names the file that cannot be used, or
    /// says why the authAPI cannot be asked.
    pub fn new(
        config: &config::ServerConfig,
        identity: Option<ServerIdentity>,
        first_secrets: &Arc<FirstSecrets>,
        before: Option<&Settings>,
    ) -> io::Result<Self> {
        if let Some(before) = before {
            before.users.check_reload(config)?;
        }
        let fingerprint = identity
            .as_ref()
            .map(ServerIdentity::fingerprint)
            .transpose()?;
        let acme = AcmeSettings::new(config, identity.as_ref())?;
        let names = acme.as_ref().map(AcmeSettings::certificates);
        let asked = match &config.client_ca {
            Some(path) => ClientCertificates::Optional(path),
            None => ClientCertificates::Unasked,
        };
        let authorities = identity
            .as_ref()
            .map(|identity| VisitorAuthorities::new(config, identity, names.as_ref()))
            .transpose()?;
        let acceptor = identity.map(|identity| acceptor(identity, config.tls_min, asked, names));
        let unknown_ids = match &config.auth_api {
            Some(url) => UnknownIds::AuthApi(
                match before.and_then(|settings| settings.users.auth_api()) {
                    Some(api) if api.is_at(url) => api.clone(),
                    _ => Arc::new(AuthApi::new(url)?),
                },
            ),
            None => match config.any_client {
                AnyClient::Refused => UnknownIds::Refused,
                AnyClient::Allowed | AnyClient::AllowedByDefault => {
                    UnknownIds::Admitted(first_secrets.clone())
                }
            },
        };
        if config.bbr {
            net::warn_without_bbr();
        }
        Ok(Self {
            users: Users::new(&config.users, unknown_ids, &config.limits),
            wire: config.wire,
            mux_header: config.http_mux_header.clone(),
            front_proxies: config.front_proxies.clone(),
            accept_proxy: config.accept_proxy.clone(),
            visitors: config.visitors.clone(),
            access_log: None,
            timeout: Some(config.timeout).filter(|timeout| !timeout.is_zero()),
            udp_timeout: config.udp_timeout,
            unidirectional: config.timeout_on_unidirectional_traffic,
            acceptor: acceptor.transpose()?,
            acme: acme.map(Arc::new),
            authorities: authorities.unwrap_or_default(),
            certified_visitors: config.client_ca.is_some(),
            made_in: None,
            fingerprint,
            cert_file: config.cert_file.clone(),
            ws: config.ws.clone(),
            bbr: config.bbr,
        })
    }
}

impl Settings {
    /// Logs the fingerprint of the server's key unless it is the one of `before`.
    pub fn log_fingerprint(&self, before: Option<Fingerprint>) {
        if let Some(fingerprint) = self.fingerprint.filter(|key| Some(*key) != before) {
            log::info!("the key of this server is {fingerprint} (remoteKey of clients)");
        }
    }

    /// Whether HTTP visitors are routed by the first label of their Host header rather than by
    /// the whole value of another header.
    pub fn routes_by_host(&self) -> bool {
        self.mux_header.eq_ignore_ascii_case("host")
    }
}

/// Returns the certificate and the key of a server: of its files, or else those that it keeps in its
/// `stateDir`, where it makes them first if needed; `None` without both. The error names the file.
pub fn identity(config: &config::ServerConfig) -> io::Result<Option<ServerIdentity>> {
    match (of_files(config)?, &config.state_dir) {
        (None, Some(directory)) => ServerIdentity::in_directory(directory).map(Some),
        (identity, _) => Ok(identity),
    }
}

/// Returns what [`identity`] does, but makes nothing.
pub fn present_identity(config: &config::ServerConfig) -> io::Result<Option<ServerIdentity>> {
    match (of_files(config)?, &config.state_dir) {
        (None, Some(directory)) => ServerIdentity::made_in(directory),
        (identity, _) => Ok(identity),
    }
}

/// Returns the directory of the identity that a server makes; `None` if it has one from files, or none.
fn directory_of_identity(config: &config::ServerConfig) -> io::Result<Option<PathBuf>> {
    let directory = config.state_dir.clone();
    Ok(match of_files(config)? {
        None => directory,
        Some(_) => None,
    })
}

fn of_files(config: &config::ServerConfig) -> io::Result<Option<ServerIdentity>> {
    let files = config.cert_file.as_ref().zip(config.key_file.as_ref());
    let is_used = config.tls_addr.is_some() || config.quic_addr.is_some();
    let files = files.filter(|_| is_used);
    let read = |(cert, key): (&PathBuf, &PathBuf)| ServerIdentity::from_files(cert, key);
    files.map(read).transpose()
}

/// Creates a TLS acceptor. The error names certificate and key.
pub fn acceptor(
    identity: ServerIdentity,
    min: TlsVersion,
    asked: ClientCertificates<'_>,
    names: Option<Arc<NamedCertificates>>,
) -> io::Result<Acceptor> {
    let min = match min {
        TlsVersion::Tls12 => MinVersion::Tls12,
        TlsVersion::Tls13 => MinVersion::Tls13,
    };
    Acceptor::new(identity, min, asked, names)
}

/// The settings in force. [`announce`] lets sessions and visitors apply changed ones.
pub type CurrentSettings = Current<Settings>;

/// Whether these settings still admit a visitor that an earlier version of them has admitted.
pub fn still_admits(settings: &CurrentSettings, seen: &mut Seen, visitor: IpAddr) -> bool {
    let news = settings.news(seen);
    news.is_none_or(|settings| settings.visitors.admit(visitor))
}

/// Lets the sessions of these tunnels, and their visitors, apply changed settings, in batches: that
/// takes each of them a moment, and there may be thousands.
pub async fn announce(tunnels: Vec<Tunnel>) {
    for batch in tunnels.chunks(WAKES_PER_BATCH) {
        batch.iter().for_each(Tunnel::notify);
        batch.iter().for_each(Tunnel::wake_streams);
        Timer::after(BATCH_INTERVAL).await;
    }
}

#[cfg(test)]
impl Settings {
    /// Settings of a server without users.
    pub fn without_users() -> Self {
        let limits = config::Limits::of_one_prefix();
        Self {
            users: Users::new(&[], UnknownIds::Refused, &limits),
            wire: Wire::default(),
            mux_header: "Host".to_owned(),
            front_proxies: Vec::new(),
            accept_proxy: Vec::new(),
            visitors: AddressRules::default(),
            access_log: None,
            timeout: None,
            udp_timeout: Duration::from_secs(60),
            unidirectional: false,
            acceptor: None,
            acme: None,
            authorities: VisitorAuthorities::default(),
            certified_visitors: false,
            made_in: None,
            fingerprint: None,
            cert_file: None,
            ws: None,
            bbr: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{self, Command};
    use crate::net::bridge;
    use crate::state_dir::{scratch, IDENTITY};
    use crate::tunnel::{Event, Inbox, PeerRole, Policy};
    use crate::wire::Version;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn sessions_are_told_of_changed_settings_in_batches() {
        const TUNNELS: usize = 40;
        let settings = CurrentSettings::new(Settings::without_users());
        let known = settings.get();
        assert!(settings.newer(&known).is_none());
        settings.replace(Settings::without_users());
        assert!(settings.newer(&known).is_some());

        let (tunnels, mut inboxes): (Vec<_>, Vec<_>) = (0..TUNNELS)
            .map(|_| {
                let (conn, far) = bridge::bridge().expect("a connection");
                let policy = Policy::new(Version::One, PeerRole::Client, Duration::from_secs(60));
                let (tunnel, inbox) = Tunnel::new(Arc::new(conn), Vec::new(), policy);
                (tunnel, (inbox, far))
            })
            .unzip();
        let told = |(inbox, _far): &mut (Inbox, _)| {
            let event = block_on(poll_once(inbox.next()));
            matches!(event, Some(Event::Notice))
        };
        let mut announcing = Box::pin(announce(tunnels));
        assert!(block_on(poll_once(&mut announcing)).is_none());
        assert_eq!(
            inboxes
                .iter_mut()
                .filter_map(|inbox| told(inbox).then_some(()))
                .count(),
            WAKES_PER_BATCH
        );
        block_on(announcing);
        assert_eq!(
            inboxes
                .iter_mut()
                .filter_map(|inbox| told(inbox).then_some(()))
                .count(),
            TUNNELS - WAKES_PER_BATCH
        );
    }

    #[test]
    fn a_reload_makes_no_other_key_in_place_of_one_that_is_gone() {
        let read = |state: &std::path::Path, before: Option<&Settings>| {
            let state = state.to_str().unwrap();
            let line =
                format!("gt server -tlsAddr 127.0.0.1:0 -id id1 -secret s -stateDir {state}");
            let line: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let Ok(Command::Run(roles)) = cli::parse(&line) else {
                panic!("a command line that runs");
            };
            let config = roles[0].role.server().unwrap();
            Settings::with_logs(config, &Arc::default(), before)
        };
        let (one, two) = (scratch("settings-key"), scratch("settings-other-key"));
        let first = read(&one, None).unwrap();
        let again = read(&one, Some(&first)).unwrap();
        assert_eq!(again.fingerprint, first.fingerprint);
        let kept = one.join("kept");
        std::fs::rename(one.join(IDENTITY), &kept).unwrap();
        let why = read(&one, Some(&again)).err().unwrap().to_string();
        assert!(
            why.contains("identity.pem") && why.contains("is missing"),
            "{why}"
        );
        assert!(!one.join(IDENTITY).exists());
        // Another directory is another key, on purpose.
        let other = read(&two, Some(&again)).unwrap();
        assert_ne!(other.fingerprint, first.fingerprint);
        std::fs::rename(&kept, one.join(IDENTITY)).unwrap();
        let back = read(&one, Some(&again)).unwrap();
        assert_eq!(back.fingerprint, first.fingerprint);
        // A directory that is not there at all, as one that is not mounted.
        std::fs::remove_dir_all(&one).unwrap();
        assert!(read(&one, Some(&back)).is_err() && !one.exists());
        std::fs::remove_dir_all(&two).unwrap();
    }
}
