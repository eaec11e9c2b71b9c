use super::*;
use crate::client::p2p::checks::{ConnectivityChecks, IceRole};
use crate::client::p2p::identity::Identity;
use crate::client::p2p::memory::MemoryShare;

fn link(identity: &Identity) -> PeerHandle {
    let checks = ConnectivityChecks::new(Arc::default(), IceRole::Answers, Vec::new());
    let memory = MemoryShare::new(Arc::default());
    PeerHandle::new(Peer::new(identity, checks, memory, Instant::now()).unwrap())
}

#[test]
fn a_panic_ends_only_the_peer_that_caused_it() {
    let identity = Identity::new().unwrap();
    let link = link(&identity);
    assert!(link.contain(|_| panic!("a bug in a library")));
    assert!(matches!(link.lock().state(), PeerState::Over(_)));
}
