//! Ports that the gateway opens for the sockets of peers, by PCP, NAT-PMP or UPnP-IGD (docs/p2p.md, "Port mapping").
//!
//! The bytes of [`pcp`] and [`natpmp`] and the texts of [`ssdp`] and [`igd`] are without sockets, [`mapping`] knows
//! what is due when, [`protocol`] asks the [`gateway`], and a task for each port keeps its mapping here.

pub(super) mod gateway;
pub(crate) mod igd;
pub(super) mod mapping;
pub(crate) mod natpmp;
pub(crate) mod pcp;
pub(super) mod protocol;
pub(crate) mod ssdp;
#[cfg(test)]
mod tests;
pub(crate) mod xml;

use super::nat_kind::is_on_internet;
use crate::net::{clock, timeout, timeout_at, NetworkChanges, Shutdown, WaitGroup};
use crate::sync::Mutex;
use event_listener::Event;
use futures_lite::future;
use gateway::Gateway;
use mapping::{Answered, Due, Epoch, Schedule};
use protocol::{LocalPort, MapError, Protocol, Verdict};
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pause before a gateway that has made no mapping is asked again, unless the network changes.
const RETRY_INTERVAL: Duration = Duration::from_secs(600);
/// Pause before a gateway that has made a mapping before is asked again.
const LOST_RETRY_INTERVAL: Duration = Duration::from_secs(15);
/// Time in which a mapping is given back at the end.
const RETURN_TIMEOUT: Duration = Duration::from_secs(1);

/// The mappings of a client.
#[derive(Clone, Default)]
pub struct PortMapper {
    /// The tasks that keep mappings.
    tasks: WaitGroup,
    /// Ends them.
    stop: Shutdown,
    /// The protocol that a gateway has spoken last, which the next port begins with.
    known: Arc<Mutex<Option<(Gateway, Protocol)>>>,
}

/// A port that is mapped until this is dropped.
pub struct PortLease(Arc<LeaseState>);

#[derive(Default)]
struct LeaseState {
    mapping: Mutex<LeasePhase>,
    changed: Event,
    ended: Shutdown,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum LeasePhase {
    /// The gateway has not been asked yet.
    #[default]
    Asking,
    /// There is no mapping.
    None,
    /// Datagrams to this address arrive.
    Mapped(SocketAddrV4),
}

impl PortMapper {
    /// Creates a mapper without mappings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts to keep a mapping of a UDP port of this machine.
    pub fn open(&self, port: u16) -> Option<PortLease> {
        let lease = Arc::<LeaseState>::default();
        let keeper = Keeper {
            mapper: self.clone(),
            lease: lease.clone(),
            local: LocalPort::new(port)?,
            said: None,
        };
        let running = self.tasks.begin();
        crate::net::spawn(async move {
            keeper.run().await;
            drop(running);
        });
        Some(PortLease(lease))
    }

    /// Gives all mappings back, and waits for the gateway's answers, but not for long.
    pub async fn close(&self) {
        self.stop.trigger();
        timeout(2 * RETURN_TIMEOUT, self.tasks.idle()).await;
    }
}

impl PortLease {
    /// Waits until there is a mapping and returns its address, or `None` once there is none or at the deadline.
    pub async fn external(&self, deadline: Instant) -> Option<SocketAddr> {
        let settled = async {
            loop {
                let changed = self.0.changed.listen();
                match *self.0.mapping.lock() {
                    LeasePhase::Asking => {}
                    LeasePhase::None => return None,
                    LeasePhase::Mapped(external) => return Some(external.into()),
                }
                changed.await;
            }
        };
        timeout_at(deadline, settled).await.flatten()
    }
}

impl Drop for PortLease {
    fn drop(&mut self) {
        self.0.ended.trigger();
    }
}

/// The task that keeps one mapping.
struct Keeper {
    mapper: PortMapper,
    lease: Arc<LeaseState>,
    local: LocalPort,
    /// The last line of the log, which is not repeated.
    said: Option<String>,
}

/// A mapping as its gateway has made it.
struct Mapping {
    gateway: Gateway,
    protocol: Protocol,
    external: SocketAddrV4,
    /// The gateway's time; `None` if its protocol does not tell.
    epoch: Option<Epoch>,
    schedule: Schedule,
}

/// Why a task stops to wait.
enum Wakeup {
    Ended,
    NetworkChanged,
    Due,
}

impl Keeper {
    async fn run(mut self) {
        let network = NetworkChanges::watch();
        let mut before = None;
        loop {
            let gateway = Gateway::find();
            let mapping = match &gateway {
                Some(gateway) => self.begin(gateway, before).await,
                None => None,
            };
            let Some(mapping) = mapping else {
                self.set(LeasePhase::None);
                let pause = match before {
                    Some(_) => LOST_RETRY_INTERVAL,
                    None => RETRY_INTERVAL,
                };
                match self.wait(&network, clock::now() + pause).await {
                    Wakeup::Ended => return,
                    Wakeup::NetworkChanged | Wakeup::Due => continue,
                }
            };
            before = Some(mapping.external);
            if self.keep(mapping, &network).await.is_none() {
                return;
            }
        }
    }

    /// Asks the gateway for a mapping; `None` if it makes none that is of use.
    async fn begin(&mut self, gateway: &Gateway, before: Option<SocketAddrV4>) -> Option<Mapping> {
        let known = self.mapper.known.lock().clone();
        let known = known.filter(|(of, _)| of == gateway);
        let local = self.local;
        let asked = async {
            if let Some((_, protocol)) = known {
                let answer = protocol.map(gateway, local, before).await;
                if let Some(answer @ Answered::Mapped { .. }) = answer {
                    return Ok((protocol, answer));
                }
            }
            protocol::first(gateway, local, before).await
        };
        let (protocol, answer) = match asked.await {
            Ok(answered) => answered,
            Err(error) => {
                let why = match error {
                    MapError::Silent => "speaks neither PCP, NAT-PMP nor UPnP".to_owned(),
                    MapError::Refused(code) => format!("refuses (code {code})"),
                };
                self.say(format!("no port mapping: the gateway {} {why}", gateway.ip));
                return None;
            }
        };
        let mapping = Mapping::new(*gateway, protocol, answer, clock::now())?;
        if !is_on_internet(mapping.external) {
            self.say(format!(
                "no port mapping: {}, the address of the gateway {} by {}, is not public, so it is behind another NAT",
                mapping.external.ip(),
                gateway.ip,
                mapping.protocol
            ));
            self.give_back(&mapping).await;
            return None;
        }
        *self.mapper.known.lock() = Some((*gateway, mapping.protocol.clone()));
        self.say(format!(
            "port mapping: {} leads to UDP port {} of this machine, by {} of the gateway {}",
            mapping.external, local.port, mapping.protocol, gateway.ip
        ));
        Some(mapping)
    }

    /// Keeps a mapping until it is lost; `None` if it is not needed any more, and given back.
    async fn keep(&mut self, mut mapping: Mapping, network: &NetworkChanges) -> Option<()> {
        loop {
            self.set(LeasePhase::Mapped(mapping.external));
            let due = match mapping.schedule.due(clock::now()) {
                Due::At(at) => match self.wait(network, at).await {
                    Wakeup::Ended => {
                        self.set(LeasePhase::None);
                        self.give_back(&mapping).await;
                        return None;
                    }
                    Wakeup::Due => continue,
                    Wakeup::NetworkChanged => {
                        if Gateway::find() != Some(mapping.gateway) {
                            self.set(LeasePhase::None);
                            // It may still be there, over another link.
                            self.give_back(&mapping).await;
                            return Some(());
                        }
                        Due::Check
                    }
                },
                due => due,
            };
            let is_kept = match due {
                Due::Check => self.check(&mut mapping).await,
                Due::Renew | Due::At(_) => self.renew(&mut mapping).await,
            };
            if !is_kept {
                log::info!(
                    "port mapping: the gateway {} has lost {}",
                    mapping.gateway.ip,
                    mapping.external
                );
                self.said = None;
                self.set(LeasePhase::Asking);
                return Some(());
            }
        }
    }

    /// Whether the gateway still has the mapping, as far as can be found out.
    async fn check(&self, mapping: &mut Mapping) -> bool {
        let (gateway, external) = (mapping.gateway, mapping.external);
        let verdict = mapping.protocol.check(&gateway, self.local, external).await;
        let now = clock::now();
        mapping.schedule.checked(now);
        match verdict {
            Verdict::Epoch(epoch) => mapping.passes(epoch, now),
            // A busy gateway loses datagrams; a renewal in vain decides.
            Verdict::There | Verdict::Silent => true,
            Verdict::Gone => false,
        }
    }

    /// Renews the mapping. False if the gateway does not, or has lost it in between.
    async fn renew(&self, mapping: &mut Mapping) -> bool {
        let (gateway, before) = (mapping.gateway, mapping.external);
        let answer = mapping
            .protocol
            .map(&gateway, self.local, Some(before))
            .await;
        let now = clock::now();
        let protocol = mapping.protocol.clone();
        let renewed = answer.and_then(|answer| Mapping::new(gateway, protocol, answer, now));
        match renewed {
            Some(renewed) if is_on_internet(renewed.external) => {
                if renewed.external != before {
                    log::info!("port mapping: {before} has become {}", renewed.external);
                }
                *mapping = renewed;
                true
            }
            _ => false,
        }
    }

    async fn give_back(&self, mapping: &Mapping) {
        let (gateway, external) = (mapping.gateway, mapping.external);
        let returning = mapping.protocol.unmap(&gateway, self.local, external);
        timeout(RETURN_TIMEOUT, returning).await;
    }

    async fn wait(&self, network: &NetworkChanges, until: Instant) -> Wakeup {
        let ended = async {
            future::or(self.lease.ended.wait(), self.mapper.stop.wait()).await;
            Wakeup::Ended
        };
        let changed = async {
            network.next().await;
            Wakeup::NetworkChanged
        };
        let waiting = timeout_at(until, future::or(ended, changed));
        waiting.await.unwrap_or(Wakeup::Due)
    }

    fn set(&self, phase: LeasePhase) {
        *self.lease.mapping.lock() = phase;
        self.lease.changed.notify(usize::MAX);
    }

    fn say(&mut self, line: String) {
        if self.said.as_ref() != Some(&line) {
            log::info!("{line}");
            self.said = Some(line);
        }
    }
}

impl Mapping {
    fn new(gateway: Gateway, protocol: Protocol, answer: Answered, now: Instant) -> Option<Self> {
        let Answered::Mapped {
            external,
            lifetime,
            epoch,
        } = answer
        else {
            return None;
        };
        let tells_epoch = !matches!(protocol, Protocol::Upnp(_));
        Some(Self {
            gateway,
            protocol,
            external,
            epoch: tells_epoch.then(|| Epoch::new(epoch, now)),
            schedule: Schedule::new(lifetime, now),
        })
    }

    fn passes(&mut self, epoch: u32, now: Instant) -> bool {
        self.epoch
            .as_mut()
            .is_none_or(|known| known.passes(epoch, now))
    }
}
