//! The protocols by which gateways open ports: what each is asked, in which order they are tried.

use super::gateway::Gateway;
use super::igd::{self, Action, WanService, Wish};
use super::mapping::{suggestion, Answered, LIFETIME};
use super::natpmp::{self, UNSUPPORTED_VERSION};
use super::pcp::{self, MapRequest, Nonce};
use crate::net::{random, tls};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Number of ports that a gateway with UPnP is asked for when others have the first.
const PORT_TRIES: usize = 4;

/// A protocol that a gateway speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// PCP, RFC 6887.
    Pcp,
    /// NAT-PMP, RFC 6886.
    NatPmp,
    /// UPnP-IGD, with this service.
    Upnp(WanService),
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp(_) => "UPnP",
        })
    }
}

/// What a gateway says of a mapping that it has made before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The gateway's time, which shows whether it still has the mapping.
    Epoch(u32),
    /// The mapping is there.
    There,
    /// It is not.
    Gone,
    /// There is no answer.
    Silent,
}

/// The port of this machine that is mapped, and the nonce by which PCP knows its owner.
#[derive(Debug, Clone, Copy)]
pub struct LocalPort {
    /// The UDP port.
    pub port: u16,
    nonce: Nonce,
}

impl LocalPort {
    /// Takes a port. `None` if the system has no random numbers.
    pub fn new(port: u16) -> Option<Self> {
        let mut nonce = [0; 12];
        tls::fill_random(&mut nonce).ok()?;
        Some(Self { port, nonce })
    }
}

/// Why a gateway makes no mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapError {
    /// It answers none of the protocols.
    Silent,
    /// It refuses; the number of the last protocol that it speaks.
    Refused(u16),
}

/// Tries the protocols in turn, and returns the first by which the gateway maps the port, with its answer.
pub async fn first(
    gateway: &Gateway,
    local: LocalPort,
    before: Option<SocketAddrV4>,
) -> Result<(Protocol, Answered), MapError> {
    let mut error = MapError::Silent;
    for protocol in [Protocol::Pcp, Protocol::NatPmp] {
        match protocol.map(gateway, local, before).await {
            Some(Answered::Refused(UNSUPPORTED_VERSION)) | None => {}
            Some(Answered::Refused(code)) => error = MapError::Refused(code),
            Some(answer) => return Ok((protocol, answer)),
        }
    }
    for service in gateway.services().await {
        let protocol = Protocol::Upnp(service);
        match protocol.map(gateway, local, before).await {
            None => {}
            Some(Answered::Refused(code)) => error = MapError::Refused(code),
            Some(answer) => return Ok((protocol, answer)),
        }
    }
    Err(error)
}

impl Protocol {
    /// Asks for a mapping, or for its renewal if there is one `before`; `None` without an answer.
    pub async fn map(
        &self,
        gateway: &Gateway,
        local: LocalPort,
        before: Option<SocketAddrV4>,
    ) -> Option<Answered> {
        let suggested = suggestion(local.port, before);
        match self {
            Self::Pcp => {
                let request = pcp_request(gateway, local, suggested, LIFETIME);
                let parse = |bytes: &[u8]| match natpmp::refuses_version(bytes) {
                    true => Some(Answered::Refused(UNSUPPORTED_VERSION)),
                    false => request.answer(bytes),
                };
                gateway.ask(&request.write(), parse).await
            }
            Self::NatPmp => {
                let asked = gateway.ask(&natpmp::ADDRESS_REQUEST, natpmp::address);
                let (ip, _) = match asked.await? {
                    Ok(address) => address,
                    Err(code) => return Some(Answered::Refused(code)),
                };
                let request = natpmp::map_request(local.port, suggested.port(), LIFETIME);
                let parse = |bytes: &[u8]| natpmp::mapped(bytes, local.port);
                Some(match gateway.ask(&request, parse).await? {
                    Ok(mapped) => Answered::Mapped {
                        external: SocketAddrV4::new(ip, mapped.port),
                        lifetime: mapped.lifetime,
                        epoch: mapped.epoch,
                    },
                    Err(code) => Answered::Refused(code),
                })
            }
            Self::Upnp(service) => add(gateway, service, local.port, suggested.port()).await,
        }
    }

    /// Asks whether the gateway still has a mapping.
    pub async fn check(
        &self,
        gateway: &Gateway,
        local: LocalPort,
        external: SocketAddrV4,
    ) -> Verdict {
        match self {
            Self::Pcp => {
                let request = pcp::announce(gateway.source);
                let epoch = gateway.ask(&request, pcp::announced).await;
                epoch.map_or(Verdict::Silent, Verdict::Epoch)
            }
            Self::NatPmp => {
                let asked = gateway.ask(&natpmp::ADDRESS_REQUEST, natpmp::address);
                match asked.await {
                    Some(Ok((ip, epoch))) if ip == *external.ip() => Verdict::Epoch(epoch),
                    Some(_) => Verdict::Gone,
                    None => Verdict::Silent,
                }
            }
            Self::Upnp(service) => {
                let get = Action::Get(external.port());
                let Some(entry) = gateway.act(service, get).await else {
                    return Verdict::Silent;
                };
                let here = (Some(gateway.source), Some(local.port));
                if entry == Err(igd::NO_SUCH_ENTRY) || entry.is_ok_and(|it| it.internal != here) {
                    return Verdict::Gone;
                }
                match gateway.act(service, Action::ExternalAddress).await {
                    Some(Ok(values)) if values.address == Some(*external.ip()) => Verdict::There,
                    Some(Ok(_)) => Verdict::Gone,
                    _ => Verdict::Silent,
                }
            }
        }
    }

    /// Gives a mapping back, and waits for the answer.
    pub async fn unmap(&self, gateway: &Gateway, local: LocalPort, external: SocketAddrV4) {
        match self {
            Self::Pcp => {
                // The RFC demands the suggested address of the deletion to be unspecified or the mapped one.
                let request = pcp_request(gateway, local, external, 0);
                let parse = |bytes: &[u8]| request.answer(bytes);
                gateway.ask(&request.write(), parse).await;
            }
            Self::NatPmp => {
                let request = natpmp::map_request(local.port, 0, 0);
                let parse = |bytes: &[u8]| natpmp::mapped(bytes, local.port);
                gateway.ask(&request, parse).await;
            }
            Self::Upnp(service) => {
                let delete = Action::Delete(external.port());
                gateway.act(service, delete).await;
            }
        }
    }
}

fn pcp_request(
    gateway: &Gateway,
    local: LocalPort,
    suggested: SocketAddrV4,
    lifetime: u32,
) -> MapRequest {
    MapRequest {
        nonce: local.nonce,
        source: gateway.source,
        port: local.port,
        suggested,
        lifetime,
    }
}

/// Maps a port by UPnP: the wanted one, or others if that is taken.
async fn add(gateway: &Gateway, service: &WanService, port: u16, wanted: u16) -> Option<Answered> {
    let address = match gateway.act(service, Action::ExternalAddress).await? {
        // Without one, the gateway is not connected.
        Ok(values) => values.address.unwrap_or(Ipv4Addr::UNSPECIFIED),
        Err(code) => return Some(Answered::Refused(code)),
    };
    let mut wish = Wish {
        external: wanted,
        internal: SocketAddrV4::new(gateway.source, port),
        lifetime: LIFETIME,
    };
    let mut code = igd::CONFLICT;
    for _ in 0..PORT_TRIES {
        let action = match service.chooses_ports() {
            true => Action::AddAny(wish),
            false => Action::Add(wish),
        };
        code = match gateway.act(service, action).await? {
            Ok(values) => {
                let external = values.reserved_port.unwrap_or(wish.external);
                return Some(Answered::Mapped {
                    external: SocketAddrV4::new(address, external),
                    lifetime: wish.lifetime,
                    epoch: 0,
                });
            }
            Err(code) => code,
        };
        match code {
            igd::ONLY_PERMANENT if wish.lifetime != 0 => wish.lifetime = 0,
            igd::CONFLICT => wish.external = other_port(),
            _ => break,
        }
    }
    Some(Answered::Refused(code))
}

/// Returns a random port that no privileged program has.
fn other_port() -> u16 {
    // At most 65,023.
    1024 + u16::try_from(random() % 64_000).unwrap_or_default()
}
