//! Gateways that lie, on loopback addresses. Debian's miniupnpd is in tests/network/portmap.rs.

use super::gateway::Gateway;
use super::mapping::Answered;
use super::protocol::{first, LocalPort, MapError, Protocol, Verdict};
use super::{Keeper, PortMapper};
use async_std::task::block_on;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

const HOME: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Another machine, from the gateway's network.
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
const EXTERNAL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(5, 6, 7, 8), 40_000);
const PORT: u16 = 40_000;

type Answer = Box<dyn FnMut(&[u8]) -> Vec<Vec<u8>> + Send>;

/// Answers the datagrams that come to a socket.
fn answer_datagrams(mut answer: Answer) -> u16 {
    let socket = UdpSocket::bind((HOME, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            for bytes in answer(&buffer[..length]) {
                let _ = socket.send_to(&bytes, from);
            }
        }
    });
    port
}

/// Answers each request over HTTP by the first of `pages` whose key is in the request.
fn serve_pages(pages: Vec<(&'static str, u16, String)>) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((HOME, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::<Mutex<Vec<String>>>::default();
    let noted = requests.clone();
    thread::spawn(move || {
        for conn in listener.incoming() {
            let (mut conn, mut request) = (conn.unwrap(), Vec::new());
            let mut buffer = [0; 4096];
            let has_all = |request: &[u8]| {
                let text = String::from_utf8_lossy(request).into_owned();
                text.starts_with("GET") && text.ends_with("\r\n\r\n")
                    || text.contains("Envelope>\r\n")
            };
            while !has_all(&request) {
                match conn.read(&mut buffer) {
                    Ok(n) if n > 0 => request.extend_from_slice(&buffer[..n]),
                    _ => break,
                }
            }
            let request = String::from_utf8(request).unwrap();
            let page = pages.iter().find(|(key, ..)| request.contains(key));
            if let Some((_, status, body)) = page {
                let head = format!(
                    "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                let _ = conn.write_all((head + body).as_bytes());
            }
            noted.lock().unwrap().push(request);
        }
    });
    (port, requests)
}

fn gateway(port: u16, search: u16) -> Gateway {
    let search = SocketAddrV4::new(HOME, search);
    Gateway {
        ip: HOME,
        source: HOME,
        port,
        search,
    }
}

/// Returns a gateway of these datagrams that knows no UPnP.
fn gateway_of(answer: impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Gateway {
    gateway(answer_datagrams(Box::new(answer)), 1)
}

fn local() -> LocalPort {
    LocalPort::new(PORT).unwrap()
}

/// The answer of PCP that grants a request.
fn pcp_grant(request: &[u8], external: SocketAddrV4, lifetime: u32, epoch: u32) -> Vec<u8> {
    let mut bytes = request.to_vec();
    bytes[1] |= 0x80;
    bytes[2..4].copy_from_slice(&[0, 0]);
    bytes[4..8].copy_from_slice(&lifetime.to_be_bytes());
    bytes[8..12].copy_from_slice(&epoch.to_be_bytes());
    bytes[12..24].fill(0);
    if bytes.len() >= 60 {
        bytes[42..44].copy_from_slice(&external.port().to_be_bytes());
        bytes[44..60].copy_from_slice(&external.ip().to_ipv6_mapped().octets());
    }
    bytes
}

fn mapped(lifetime: u32, epoch: u32) -> Answered {
    Answered::Mapped {
        external: EXTERNAL,
        lifetime,
        epoch,
    }
}

#[test]
fn pcp_comes_first_and_a_wrong_nonce_is_ignored() {
    let gateway = gateway_of(|request| {
        let grant = pcp_grant(request, EXTERNAL, 3600, 7);
        let mut forged = grant.clone();
        if let Some(nonce) = forged.get_mut(24) {
            *nonce ^= 1;
        }
        let junk = vec![0; 3];
        vec![junk, forged, grant]
    });
    let found = block_on(first(&gateway, local(), None));
    assert_eq!(found, Ok((Protocol::Pcp, mapped(3600, 7))));
    let verdict = block_on(Protocol::Pcp.check(&gateway, local(), EXTERNAL));
    assert_eq!(verdict, Verdict::Epoch(7));
}

#[test]
fn a_port_of_a_private_address_is_given_back_and_not_told() {
    for external in [
        "10.0.0.9:40000",
        "127.0.0.1:40000",
        "224.0.0.1:40000",
        "5.6.7.8:0",
    ] {
        let external: SocketAddrV4 = external.parse().unwrap();
        let lifetimes = Arc::<Mutex<Vec<[u8; 4]>>>::default();
        let noted = lifetimes.clone();
        let gateway = gateway_of(move |request| {
            noted.lock().unwrap().extend(request[4..].first_chunk());
            vec![pcp_grant(request, external, 3600, 7)]
        });
        let mut keeper = Keeper {
            mapper: PortMapper::new(),
            lease: Arc::default(),
            local: local(),
            said: None,
        };
        assert!(block_on(keeper.begin(&gateway, None)).is_none());
        let said = keeper.said.unwrap();
        assert!(said.contains("is not public"), "{said}");
        let lifetimes = lifetimes.lock().unwrap();
        assert_eq!(*lifetimes, [3600u32.to_be_bytes(), [0; 4]]);
    }
}

#[test]
fn answers_of_other_machines_are_ignored() {
    // The gateway itself is silent; another machine answers its searches and its requests.
    let searched = UdpSocket::bind((HOME, 0)).unwrap();
    let search = searched.local_addr().unwrap().port();
    let other = UdpSocket::bind((OTHER, 0)).unwrap();
    let (pages, requests) = serve_pages(vec![("GET", 200, description("/ctl"))]);
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = searched.recv_from(&mut buffer) {
            let device = "urn:schemas-upnp-org:device:InternetGatewayDevice:1";
            let answer = format!(
                "HTTP/1.1 200 OK\r\nST: {device}\r\nLOCATION: http://127.0.0.1:{pages}/\r\n\r\n"
            );
            let answer = match &buffer[..length] {
                [2, ..] => pcp_grant(&buffer[..length], EXTERNAL, 3600, 7),
                _ => answer.into_bytes(),
            };
            let _ = other.send_to(&answer, from);
        }
    });
    let gateway = gateway(search, search);
    assert_eq!(
        block_on(first(&gateway, local(), None)),
        Err(MapError::Silent)
    );
    assert_eq!(requests.lock().unwrap().len(), 0);
}

#[test]
fn nat_pmp_comes_next_where_the_gateway_knows_no_pcp() {
    let gateway = gateway_of(|request| match request {
        [0, 0] => vec![vec![0, 128, 0, 0, 0, 0, 0, 9, 5, 6, 7, 8]],
        [0, 1, ..] => {
            let mut bytes = vec![0, 129, 0, 0, 0, 0, 0, 9];
            bytes.extend(PORT.to_be_bytes());
            bytes.extend(EXTERNAL.port().to_be_bytes());
            bytes.extend(600u32.to_be_bytes());
            vec![bytes]
        }
        // Version 2: "unsupported version".
        _ => vec![vec![0, 129, 0, 1, 0, 0, 0, 9]],
    });
    let found = block_on(first(&gateway, local(), None));
    assert_eq!(found, Ok((Protocol::NatPmp, mapped(600, 9))));
    let check = |external| block_on(Protocol::NatPmp.check(&gateway, local(), external));
    assert_eq!(check(EXTERNAL), Verdict::Epoch(9));
    let moved = SocketAddrV4::new(Ipv4Addr::new(5, 6, 7, 9), PORT);
    assert_eq!(check(moved), Verdict::Gone);
}

#[test]
fn a_refusal_and_silence_are_told_apart() {
    let refusing = gateway_of(|request| match request {
        [0, ..] => Vec::new(),
        _ => {
            let mut bytes = pcp_grant(request, EXTERNAL, 0, 0);
            bytes[3] = 2;
            vec![bytes]
        }
    });
    let asked = block_on(first(&refusing, local(), None));
    assert_eq!(asked, Err(MapError::Refused(2)));
    let silent = gateway_of(|_| Vec::new());
    assert_eq!(
        block_on(first(&silent, local(), None)),
        Err(MapError::Silent)
    );
}

const SERVICE: &str = "urn:schemas-upnp-org:service:WANIPConnection:1";

fn description(control: &str) -> String {
    format!(
        "<root><device><serviceList><service><serviceType>{SERVICE}</serviceType>\
         <controlURL>{control}</controlURL></service></serviceList></device></root>"
    )
}

fn fault(code: u16) -> String {
    format!("<s:Fault><detail><errorCode>{code}</errorCode></detail></s:Fault>")
}

/// Returns a gateway that answers searches by this location.
fn upnp_gateway(location: String) -> Gateway {
    let search = answer_datagrams(Box::new(move |_| {
        let device = "urn:schemas-upnp-org:device:InternetGatewayDevice:1";
        let answer = format!("HTTP/1.1 200 OK\r\nST: {device}\r\nLOCATION: {location}\r\n\r\n");
        vec![b"junk".to_vec(), answer.into_bytes()]
    }));
    // Nothing listens at the port of PCP.
    gateway(1, search)
}

const ADDRESS: &str = "<NewExternalIPAddress>5.6.7.8</NewExternalIPAddress>";

#[test]
fn upnp_comes_last_and_takes_another_port_or_lifetime_where_it_must() {
    let (port, requests) = serve_pages(vec![
        ("GET /d.xml ", 200, description("/ctl")),
        ("#GetExternalIPAddress", 200, ADDRESS.to_owned()),
        ("<NewExternalPort>40000<", 500, fault(718)),
        ("<NewLeaseDuration>3600<", 500, fault(725)),
        ("#AddPortMapping", 200, "<ok></ok>".to_owned()),
    ]);
    let gateway = upnp_gateway(format!("http://127.0.0.1:{port}/d.xml"));
    let (protocol, answer) = block_on(first(&gateway, local(), None)).unwrap();
    let Answered::Mapped {
        external, lifetime, ..
    } = answer
    else {
        panic!("{answer:?}");
    };
    assert_eq!((external.ip(), lifetime), (EXTERNAL.ip(), 0));
    assert_ne!(external.port(), PORT);
    block_on(protocol.unmap(&gateway, local(), external));
    let last = requests.lock().unwrap().pop().unwrap();
    let port = format!("<NewExternalPort>{}<", external.port());
    assert!(
        last.contains("#DeletePortMapping") && last.contains(&port),
        "{last}"
    );
}

#[test]
fn a_location_or_control_page_elsewhere_is_not_asked() {
    let elsewhere = TcpListener::bind((OTHER, 0)).unwrap();
    let port = elsewhere.local_addr().unwrap().port();
    elsewhere.set_nonblocking(true).unwrap();
    let location = format!("http://{OTHER}:{port}/d.xml");
    let searched = block_on(upnp_gateway(location).services());
    assert_eq!(searched, []);
    let control = format!("http://{OTHER}:{port}/ctl");
    let (pages, _) = serve_pages(vec![("GET /d.xml ", 200, description(&control))]);
    let gateway = upnp_gateway(format!("http://127.0.0.1:{pages}/d.xml"));
    assert_eq!(block_on(gateway.services()), []);
    // A redirect is not followed, either.
    let (pages, _) = serve_pages(vec![("GET /d.xml ", 302, description("/ctl"))]);
    let gateway = upnp_gateway(format!("http://127.0.0.1:{pages}/d.xml"));
    assert_eq!(block_on(gateway.services()), []);
    assert!(elsewhere.accept().is_err(), "nothing has connected");
}

#[test]
fn large_answers_of_upnp_are_refused() {
    let (port, _) = serve_pages(vec![(
        "GET",
        200,
        " ".repeat(100_000) + &description("/ctl"),
    )]);
    let gateway = upnp_gateway(format!("http://127.0.0.1:{port}/d.xml"));
    assert_eq!(block_on(gateway.services()), []);
}

#[test]
fn a_mapping_that_leads_elsewhere_is_gone() {
    let entry = |client: &str, port: u16| {
        format!("<NewInternalPort>{port}</NewInternalPort><NewInternalClient>{client}</NewInternalClient>")
    };
    for (status, body, verdict) in [
        (200, entry("127.0.0.1", PORT), Verdict::There),
        (200, entry("127.0.0.2", PORT), Verdict::Gone),
        (200, entry("127.0.0.1", 9), Verdict::Gone),
        (500, fault(714), Verdict::Gone),
    ] {
        let (port, _) = serve_pages(vec![
            ("GET /d.xml ", 200, description("/ctl")),
            ("#GetSpecificPortMappingEntry", status, body),
            ("#GetExternalIPAddress", 200, ADDRESS.to_owned()),
        ]);
        let gateway = upnp_gateway(format!("http://127.0.0.1:{port}/d.xml"));
        let service = block_on(gateway.services()).remove(0);
        let protocol = Protocol::Upnp(service);
        let check = block_on(protocol.check(&gateway, local(), EXTERNAL));
        assert_eq!(check, verdict, "{status}");
    }
}
