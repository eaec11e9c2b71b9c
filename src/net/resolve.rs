//! Name resolution: at most one look-up at a time for each name, with the last known addresses as a
//! fallback when the system does not answer. It opens no sockets of its own.

use super::kernel::{self, PerProcess};
use super::shared_threads::NAMES;
use crate::sync::{Mutex, MutexGuard};
use event_listener::{Event, EventListener};
use futures_lite::future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Maximum number of names whose addresses are remembered.
const MAX_NAMES: usize = 256;
/// How long the system may take before the last known addresses are used instead (client response
/// timer, RFC 8767, section 5).
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1800);

/// The addresses of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolved {
    /// At least one address, in the system's order; without ports, and with the zones of IPv6.
    pub addresses: Vec<SocketAddr>,
    /// Why the addresses are those of an earlier look-up, if they are.
    pub stale: Option<String>,
}

/// A failed look-up. Not an [`io::Error`], which cannot be cloned for every waiter.
#[derive(Debug, Clone)]
struct LookupError {
    kind: io::ErrorKind,
    why: String,
}

impl LookupError {
    fn of(e: &io::Error) -> Self {
        Self {
            kind: e.kind(),
            why: e.to_string(),
        }
    }

    /// Whether the system says that the name does not exist, which makes its last known addresses
    /// wrong. Only the text of the error tells: two texts of glibc and one of musl.
    fn is_final(&self) -> bool {
        [
            "Name or service not known",
            "No address associated",
            "Name does not resolve",
        ]
        .iter()
        .any(|text| self.why.contains(text))
    }
}

#[derive(Default)]
struct CachedName {
    state: Mutex<NameState>,
    /// Triggered when a look-up has ended.
    answered: Event,
}

#[derive(Default)]
struct NameState {
    /// Whether a look-up is in progress.
    looking: bool,
    /// Result of the last look-up.
    last: Option<Result<Vec<SocketAddr>, LookupError>>,
    /// Addresses of the last successful look-up.
    known: Vec<SocketAddr>,
}

impl CachedName {
    fn lock(&self) -> MutexGuard<'_, NameState> {
        self.state.lock()
    }
}

/// The names that are remembered. A list, since there are few: most processes look up one.
static NAMES_KNOWN: PerProcess<Mutex<NamesKnown>> = PerProcess::new(Mutex::new(Vec::new()));

type NamesKnown = Vec<(String, Arc<CachedName>)>;

fn name(host: &str) -> Arc<CachedName> {
    NAMES_KNOWN.with(|names| name_of(&mut names.lock(), host))
}

fn name_of(names: &mut NamesKnown, host: &str) -> Arc<CachedName> {
    if let Some((_, name)) = names.iter().find(|(known, _)| known == host) {
        return name.clone();
    }
    if names.len() >= MAX_NAMES {
        names.retain(|(_, name)| name.lock().looking);
    }
    let name = Arc::<CachedName>::default();
    names.push((host.to_owned(), name.clone()));
    name
}

/// Looks up `host`. If the system fails or takes long, returns the last known addresses. The error
/// names the host.
pub(super) async fn look_up(host: &str) -> io::Result<Resolved> {
    let asked = host.to_owned();
    look_up_with(&name(host), move || kernel::look_up(&asked, 0))
        .await
        .map_err(|e| io::Error::new(e.kind, format!("looking up {host}: {}", e.why)))
}

async fn look_up_with(
    name: &Arc<CachedName>,
    ask: impl FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
) -> Result<Resolved, LookupError> {
    let (answered, is_known) = begin(name, ask);
    let answer = async {
        answered.await;
        true
    };
    let waits = async {
        crate::net::Timer::after(ANSWER_TIMEOUT).await;
        false
    };
    let has_answer = if is_known {
        future::or(answer, waits).await
    } else {
        answer.await
    };
    let state = name.lock();
    let stale = |why: String| Resolved {
        addresses: state.known.clone(),
        stale: Some(why),
    };
    match &state.last {
        _ if !has_answer => Ok(stale(format!("no answer within {ANSWER_TIMEOUT:?}"))),
        Some(Ok(addresses)) => Ok(Resolved {
            addresses: addresses.clone(),
            stale: None,
        }),
        Some(Err(e)) if e.is_final() || state.known.is_empty() => Err(e.clone()),
        Some(Err(e)) => Ok(stale(e.why.clone())),
        // The look-up task ended without a result.
        None => Err(LookupError {
            kind: io::ErrorKind::Interrupted,
            why: "the look-up was given up".to_owned(),
        }),
    }
}

/// Starts a look-up unless one is in progress. Returns a listener for its end, and whether earlier
/// addresses are known.
fn begin(
    name: &Arc<CachedName>,
    ask: impl FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
) -> (EventListener, bool) {
    let mut state = name.lock();
    let answered = name.answered.listen();
    let is_known = !state.known.is_empty();
    if !std::mem::replace(&mut state.looking, true) {
        let name = name.clone();
        // A separate task, since the caller may give up while others wait for the same result.
        crate::net::spawn(async move {
            let asked = NAMES.run(ask).await;
            let answer = match asked {
                Ok(addresses) if addresses.is_empty() => Err(LookupError {
                    kind: io::ErrorKind::NotFound,
                    why: "no address".to_owned(),
                }),
                answer => answer.map_err(|e| LookupError::of(&e)),
            };
            let mut state = name.lock();
            if let Ok(addresses) = &answer {
                state.known.clone_from(addresses);
            }
            state.last = Some(answer);
            state.looking = false;
            drop(state);
            name.answered.notify(usize::MAX);
        });
    }
    (answered, is_known)
}

/// Returns every address of `host` with `port`; an IP address resolves to itself. The error names
/// the host.
#[cfg(any(feature = "client", feature = "p2p"))]
pub async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<std::net::IpAddr>() {
        return Ok(vec![(ip, port).into()]);
    }
    let found = look_up(host).await?;
    let addresses = found.addresses.into_iter();
    Ok(addresses.map(|addr| with_port(addr, port)).collect())
}

/// Returns the address with another port; its IPv6 zone stays.
pub(super) fn with_port(mut addr: SocketAddr, port: u16) -> SocketAddr {
    addr.set_port(port);
    addr
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_std::task::block_on;
    use std::sync::atomic::{AtomicU32, Ordering};

    use std::net::IpAddr;

    const ONE: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 0);

    fn failing(text: &'static str) -> impl FnOnce() -> io::Result<Vec<SocketAddr>> {
        move || Err(io::Error::other(text))
    }

    #[test]
    fn the_last_known_addresses_are_used_when_the_system_fails() {
        let name = Arc::default();
        let ask = |answer: io::Result<Vec<SocketAddr>>| {
            block_on(look_up_with(&name, move || answer)).map_err(|e| e.why)
        };
        let temporary = || io::Error::other("Temporary failure in name resolution");
        assert!(ask(Err(temporary())).unwrap_err().starts_with("Temporary"));
        let found = ask(Ok(vec![ONE])).unwrap();
        assert_eq!((found.addresses, found.stale), (vec![ONE], None));
        let found = ask(Err(temporary())).unwrap();
        assert_eq!(found.addresses, [ONE]);
        assert!(found.stale.unwrap().starts_with("Temporary"));
        // The name no longer exists.
        let gone = ask(Err(io::Error::other("Name or service not known")));
        assert!(gone.unwrap_err().contains("not known"));
        assert_eq!(ask(Ok(Vec::new())).unwrap().addresses, [ONE], "no answer");
    }

    #[test]
    fn an_address_keeps_its_zone_and_gets_its_port() {
        // Every system has a loopback interface; its index is usually 1.
        let found = block_on(look_up("fe80::1%lo")).unwrap();
        let [SocketAddr::V6(addr)] = found.addresses[..] else {
            panic!("{found:?}");
        };
        assert_ne!(addr.scope_id(), 0);
        let SocketAddr::V6(moved) = with_port(addr.into(), 7) else {
            panic!("another kind of address");
        };
        assert_eq!((moved.ip(), moved.scope_id()), (addr.ip(), addr.scope_id()));
        assert_eq!(moved.port(), 7);
        #[cfg(feature = "p2p")]
        assert_eq!(
            block_on(addresses("fe80::1%lo", 7)).unwrap(),
            [SocketAddr::V6(moved)]
        );
    }

    #[test]
    fn a_silent_resolver_does_not_delay_a_name_with_known_addresses() {
        let name = Arc::default();
        block_on(look_up_with(&name, || Ok(vec![ONE]))).unwrap();
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let found = block_on(look_up_with(&name, move || {
            let _ = held.recv();
            Err(io::Error::other("late"))
        }));
        let found = found.unwrap();
        assert_eq!(found.addresses, [ONE]);
        assert!(found.stale.unwrap().starts_with("no answer"));
        drop(hold);
    }

    #[test]
    fn concurrent_look_ups_of_a_name_are_one() {
        static ASKED: AtomicU32 = AtomicU32::new(0);
        let name = Arc::default();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let first = begin(&name, move || {
            ASKED.fetch_add(1, Ordering::Relaxed);
            let _ = gone.recv();
            Ok(vec![ONE])
        });
        let second = begin(&name, failing("nobody should ask twice"));
        drop(go);
        block_on(first.0);
        block_on(second.0);
        assert_eq!(ASKED.load(Ordering::Relaxed), 1);
        assert_eq!(name.lock().known, [ONE]);
    }
}
