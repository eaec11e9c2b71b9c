//! Messages of UPnP's Internet Gateway Device (WANIPConnection, versions 1 and 2, and WANPPPConnection): its
//! description, and the SOAP of the actions that gt uses. Texts and values only.

use super::ssdp::GatewayUrl;
use super::xml::{Step, Steps};
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Maximum number of services of a description.
const MAX_SERVICES: usize = 64;

/// Errors of a gateway that gt reacts to (WANIPConnection:2, section 2.5).
pub const NO_SUCH_ENTRY: u16 = 714;
/// Another mapping has the external port.
pub const CONFLICT: u16 = 718;
/// The gateway has only mappings that never end.
pub const ONLY_PERMANENT: u16 = 725;
/// The code of a refusal without one, among those of UPnP "action failed".
const ACTION_FAILED: u16 = 501;

/// The service of a gateway that has mappings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WanService {
    /// Where its actions are requested.
    pub control: GatewayUrl,
    kind: WanKind,
}

/// The kinds of services with mappings, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum WanKind {
    IpV2,
    IpV1,
    Ppp,
}

impl WanKind {
    const ALL: [WanKind; 3] = [Self::IpV2, Self::IpV1, Self::Ppp];

    fn urn(self) -> &'static str {
        match self {
            Self::IpV2 => "urn:schemas-upnp-org:service:WANIPConnection:2",
            Self::IpV1 => "urn:schemas-upnp-org:service:WANIPConnection:1",
            Self::Ppp => "urn:schemas-upnp-org:service:WANPPPConnection:1",
        }
    }
}

/// Finds the services with mappings in the description of `gateway` at `base`, the best first.
pub fn services(description: &str, base: &GatewayUrl, gateway: Ipv4Addr) -> Vec<WanService> {
    let mut base = base.clone();
    let (mut kind, mut control) = (None, None);
    let mut found: Vec<WanService> = Vec::new();
    let mut count = 0;
    for step in Steps::new(description) {
        match step {
            Step::Text("URLBase", url) => {
                if let Some(url) = GatewayUrl::parse(&url, gateway) {
                    base = url;
                }
            }
            Step::Text("serviceType", urn) => {
                kind = WanKind::ALL.into_iter().find(|kind| kind.urn() == urn);
            }
            Step::Text("controlURL", url) => control = base.resolve(&url, gateway),
            Step::End("service") => {
                if let (Some(kind), Some(control)) = (kind.take(), control.take()) {
                    found.push(WanService { control, kind });
                }
                count += 1;
                if count == MAX_SERVICES {
                    break;
                }
            }
            _ => {}
        }
    }
    found.sort_by_key(|service| service.kind);
    found
}

/// An action of a gateway. Ports are of UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Ask for the external address.
    ExternalAddress,
    /// Map a port.
    Add(Wish),
    /// Map a port, or any other if it is taken. Only of version 2.
    AddAny(Wish),
    /// Ask for the mapping of this external port.
    Get(u16),
    /// Give the mapping of this external port back.
    Delete(u16),
}

/// A mapping that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// The external port.
    pub external: u16,
    /// The address and port of this machine.
    pub internal: SocketAddrV4,
    /// Lifetime in seconds; 0 for ever.
    pub lifetime: u32,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::ExternalAddress => "GetExternalIPAddress",
            Self::Add(_) => "AddPortMapping",
            Self::AddAny(_) => "AddAnyPortMapping",
            Self::Get(_) => "GetSpecificPortMappingEntry",
            Self::Delete(_) => "DeletePortMapping",
        }
    }

    fn arguments(self) -> String {
        let of_port = |port| {
            format!(
                "<NewRemoteHost></NewRemoteHost><NewExternalPort>{port}</NewExternalPort>\
                 <NewProtocol>UDP</NewProtocol>"
            )
        };
        match self {
            Self::ExternalAddress => String::new(),
            Self::Get(port) | Self::Delete(port) => of_port(port),
            Self::Add(wish) | Self::AddAny(wish) => {
                let mut text = of_port(wish.external);
                // Writing to a String cannot fail.
                let _ = write!(
                    text,
                    "<NewInternalPort>{}</NewInternalPort><NewInternalClient>{}</NewInternalClient>\
                     <NewEnabled>1</NewEnabled>\
                     <NewPortMappingDescription>gt</NewPortMappingDescription>\
                     <NewLeaseDuration>{}</NewLeaseDuration>",
                    wish.internal.port(),
                    wish.internal.ip(),
                    wish.lifetime
                );
                text
            }
        }
    }
}

impl WanService {
    /// Whether the gateway chooses another port where the one that is asked for is taken.
    pub fn chooses_ports(&self) -> bool {
        self.kind == WanKind::IpV2
    }

    /// Writes the request for an action.
    pub fn request(&self, action: Action, gateway: Ipv4Addr) -> Vec<u8> {
        let (name, urn) = (action.name(), self.kind.urn());
        let body = format!(
            "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body><u:{name} xmlns:u=\"{urn}\">\
             {}</u:{name}></s:Body></s:Envelope>\r\n",
            action.arguments()
        );
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {gateway}:{}\r\nContent-Type: text/xml; charset=\"utf-8\"\r\n\
             SOAPAction: \"{urn}#{name}\"\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            self.control.path,
            self.control.port,
            body.len()
        );
        (head + &body).into_bytes()
    }
}

/// The values of the answer to an action.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// The external address.
    pub address: Option<Ipv4Addr>,
    /// The external port that the gateway has chosen.
    pub reserved_port: Option<u16>,
    /// The address and port of this network that a mapping leads to.
    pub internal: (Option<Ipv4Addr>, Option<u16>),
}

/// Parses the answer to an action, whose status says whether it `succeeded`. The error is UPnP's code.
pub fn answer(body: &str, succeeded: bool) -> Result<Values, u16> {
    let mut values = Values::default();
    let mut code = None;
    for step in Steps::new(body) {
        let Step::Text(name, text) = step else {
            continue;
        };
        match name {
            "errorCode" => code = text.parse().ok(),
            "NewExternalIPAddress" => values.address = text.parse().ok(),
            "NewReservedPort" => values.reserved_port = text.parse().ok(),
            "NewInternalClient" => values.internal.0 = text.parse().ok(),
            "NewInternalPort" => values.internal.1 = text.parse().ok(),
            _ => {}
        }
    }
    match (succeeded, code) {
        (true, None) => Ok(values),
        (_, code) => Err(code.unwrap_or(ACTION_FAILED)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn service(urn: &str, control: &str) -> String {
        format!(
            "<service><serviceType>{urn}</serviceType><controlURL>{control}</controlURL></service>"
        )
    }

    fn base() -> GatewayUrl {
        GatewayUrl::parse("http://10.0.0.1:5000/d.xml", GATEWAY).unwrap()
    }

    #[test]
    fn the_best_service_with_mappings_is_found() {
        let description = [
            "<root><device><serviceList>".to_owned(),
            service("urn:schemas-upnp-org:service:Layer3Forwarding:1", "/l3"),
            service("urn:schemas-upnp-org:service:WANIPConnection:1", "/one"),
            service("urn:schemas-upnp-org:service:WANPPPConnection:1", "/ppp"),
            service("urn:schemas-upnp-org:service:WANIPConnection:2", "two"),
            service(
                "urn:schemas-upnp-org:service:WANIPConnection:2",
                "http://192.0.2.1/elsewhere",
            ),
            "</serviceList></device></root>".to_owned(),
        ];
        let found = services(&description.concat(), &base(), GATEWAY);
        let paths: Vec<_> = found.iter().map(|it| it.control.path.as_str()).collect();
        assert_eq!(paths, ["/two", "/one", "/ppp"]);
        assert!(found[0].chooses_ports() && !found[1].chooses_ports());
        let moved = description.concat().replace(
            "<device>",
            "<URLBase>http://10.0.0.1:6000/</URLBase><device>",
        );
        assert_eq!(services(&moved, &base(), GATEWAY)[0].control.port, 6000);
        // A base elsewhere is ignored.
        let moved = moved.replace("10.0.0.1:6000", "192.0.2.1:6000");
        assert_eq!(services(&moved, &base(), GATEWAY)[0].control.port, 5000);
        let many = service("urn:schemas-upnp-org:service:WANIPConnection:1", "/x").repeat(1000);
        assert_eq!(services(&many, &base(), GATEWAY).len(), MAX_SERVICES);
    }

    #[test]
    fn a_request_names_the_action_and_the_mapping() {
        let service = WanService {
            control: base(),
            kind: WanKind::IpV1,
        };
        let wish = Wish {
            external: 40_001,
            internal: "10.0.0.2:40000".parse().unwrap(),
            lifetime: 3600,
        };
        let request = String::from_utf8(service.request(Action::Add(wish), GATEWAY)).unwrap();
        for part in [
            "POST /d.xml HTTP/1.1\r\nHost: 10.0.0.1:5000\r\n",
            "SOAPAction: \"urn:schemas-upnp-org:service:WANIPConnection:1#AddPortMapping\"\r\n",
            "<NewExternalPort>40001</NewExternalPort><NewProtocol>UDP</NewProtocol>",
            "<NewInternalPort>40000</NewInternalPort><NewInternalClient>10.0.0.2</NewInternalClient>",
            "<NewLeaseDuration>3600</NewLeaseDuration>",
        ] {
            assert!(request.contains(part), "{part} in {request}");
        }
    }

    #[test]
    fn an_answer_has_values_or_a_code() {
        let body =
            "<s:Envelope><s:Body><u:R><NewExternalIPAddress>192.0.2.7</NewExternalIPAddress>\
                    <NewReservedPort>40001</NewReservedPort></u:R></s:Body></s:Envelope>";
        let values = answer(body, true).unwrap();
        assert_eq!(values.address, Some(Ipv4Addr::new(192, 0, 2, 7)));
        assert_eq!(values.reserved_port, Some(40_001));
        let fault =
            "<s:Fault><detail><UPnPError><errorCode>718</errorCode></UPnPError></detail></s:Fault>";
        assert_eq!(answer(fault, false), Err(CONFLICT));
        assert_eq!(answer(fault, true), Err(CONFLICT));
        assert_eq!(answer("", false), Err(ACTION_FAILED));
        assert_eq!(
            answer("<NewExternalIPAddress></NewExternalIPAddress>", true),
            Ok(Values::default())
        );
    }
}
