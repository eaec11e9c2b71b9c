use super::*;
use crate::client::p2p::checks::{ConnectivityChecks, IceRole};
use crate::client::p2p::identity::Identity;
use crate::client::p2p::memory::MemoryShare;
use crate::client::p2p::portmap::PortMapper;
use crate::client::p2p::P2pOptions;
use crate::config::WebRtcLevel;

fn link(identity: &Identity) -> PeerHandle {
    let checks = ConnectivityChecks::new(Arc::default(), IceRole::Answers, Vec::new());
    let memory = MemoryShare::new(Arc::default());
    PeerHandle::new(Peer::new(identity, checks, memory, Instant::now()).unwrap())
}

#[test]
fn a_peer_ends_with_its_task() {
    let identity = Arc::new(Identity::new().unwrap());
    let options = P2pOptions {
        stun: Vec::new(),
        min_port: 0,
        max_port: 0,
        idle: Duration::ZERO,
        max_peers: 1,
        log_level: WebRtcLevel::Warning,
        port_map: false,
    };
    let endpoint = Endpoint::start(identity.clone(), &options, &PortMapper::new()).unwrap();
    let link = link(&identity);
    endpoint.add(link.clone());
    let driver = PeerDriver::new(link.clone(), endpoint.clone(), Duration::ZERO, |_, _| {});
    assert_eq!(endpoint.peers(), 1);
    drop(driver);
    assert_eq!(endpoint.peers(), 0);
    assert!(matches!(link.lock().state(), PeerState::Over(_)));
}
