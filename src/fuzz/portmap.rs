//! Fuzz entries for the answers of gateways that open ports.

use crate::client::p2p::portmap::ssdp::GatewayUrl;
use crate::client::p2p::portmap::{igd, natpmp, pcp, ssdp};
use std::net::{Ipv4Addr, SocketAddrV4};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

/// Parses a datagram as an answer of PCP and of NAT-PMP.
pub fn port_mapping(data: &[u8]) {
    let request = pcp::MapRequest {
        nonce: *b"twelve bytes",
        source: Ipv4Addr::new(192, 168, 1, 2),
        port: 40_000,
        suggested: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 40_000),
        lifetime: 3600,
    };
    let is_pcp = request.answer(data).is_some();
    // Only a holder of the nonce can answer.
    assert!(!is_pcp || data[24..36] == request.nonce);
    let is_announced = pcp::announced(data).is_some();
    let is_nat_pmp = natpmp::address(data).is_some() || natpmp::mapped(data, 40_000).is_some();
    assert!(
        [is_pcp, is_announced, is_nat_pmp]
            .iter()
            .filter(|it| **it)
            .count()
            <= 1
    );
    // A request answers nothing.
    assert!(request.answer(&request.write()).is_none());
}

/// Parses the texts of a gateway with UPnP: an answer to a search, a description and the answer to an action.
pub fn upnp(data: &[u8]) {
    if let Some(page) = ssdp::location(data, GATEWAY) {
        check(&page);
    }
    let text = String::from_utf8_lossy(data);
    let base = GatewayUrl {
        port: 5000,
        path: "/d.xml".to_owned(),
    };
    for service in igd::services(&text, &base, GATEWAY) {
        check(&service.control);
        // The request has the lines that gt writes, and no others.
        let request = service.request(igd::Action::Delete(1), GATEWAY);
        let request = String::from_utf8_lossy(&request).into_owned();
        let head = request.split("\r\n\r\n").next().unwrap_or_default();
        assert_eq!(head.lines().count(), 6, "{head}");
    }
    for succeeded in [true, false] {
        let answered = igd::answer(&text, succeeded);
        assert!(succeeded || answered.is_err());
    }
}

fn check(page: &GatewayUrl) {
    assert!(page.path.starts_with('/') && page.path.len() <= 256 && page.port != 0);
    assert!(page.path.bytes().all(|byte| byte.is_ascii_graphic()));
    let url = format!("http://{GATEWAY}:{}{}", page.port, page.path);
    assert_eq!(GatewayUrl::parse(&url, GATEWAY).as_ref(), Some(page));
    assert_eq!(GatewayUrl::parse(&url, Ipv4Addr::new(192, 168, 1, 3)), None);
}
