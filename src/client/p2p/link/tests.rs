use super::*;
use crate::client::p2p::checks::{Checks, Role};
use crate::client::p2p::identity::Identity;
use crate::client::p2p::memory::Share;
use crate::client::p2p::Options;
use crate::config::WebRtcLevel;

fn link(identity: &Identity) -> Link {
    let checks = Checks::new(Arc::default(), Role::Answers, Vec::new());
    let memory = Share::new(Arc::default());
    Link::new(Peer::new(identity, checks, memory, Instant::now()).unwrap())
}

#[test]
fn a_panic_ends_the_peer_whose_datagram_it_was_and_nothing_else() {
    let identity = Identity::new().unwrap();
    let link = link(&identity);
    assert!(link.contain(|_| panic!("a bug in a library")));
    assert!(matches!(link.lock().state(), State::Over(_)));
}

#[test]
fn a_peer_goes_with_its_task() {
    let identity = Arc::new(Identity::new().unwrap());
    let options = Options {
        stun: Vec::new(),
        min_port: 0,
        max_port: 0,
        idle: Duration::ZERO,
        most: 1,
        log_level: WebRtcLevel::Warning,
    };
    let hub = Hub::start(identity.clone(), &options).unwrap();
    let link = link(&identity);
    hub.add(link.clone());
    let driver = Driver::new(link.clone(), hub.clone(), Duration::ZERO, |_, _| {});
    assert_eq!(hub.peers(), 1);
    drop(driver);
    assert_eq!(hub.peers(), 0);
    assert!(matches!(link.lock().state(), State::Over(_)));
}
