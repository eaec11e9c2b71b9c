//! Restarts and reloads while datagrams of a flow go back and forth.

use crate::common::eventually;
use crate::common::gt::{client_of_id1, server_of_id1, Gt};
use crate::common::ports::free_port;
use crate::common::udp::{UdpService, UdpVisitor};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Time between two datagrams of a pulse.
const BEAT: Duration = Duration::from_millis(20);

/// A visitor that sends a number in each beat until it is stopped, and gathers those that come back.
struct Pulse {
    answered: Arc<Mutex<HashSet<u32>>>,
    sent: Arc<Mutex<u32>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Pulse {
    fn start(to: SocketAddr) -> Pulse {
        let visitor = UdpVisitor::from("127.0.0.1", to);
        visitor.0.set_read_timeout(Some(BEAT)).expect("a timeout");
        let visitor = Arc::new(visitor);
        let mut pulse = Pulse {
            answered: Arc::default(),
            sent: Arc::default(),
            stop: Arc::default(),
            threads: Vec::new(),
        };
        let (sent, stop, sender) = (pulse.sent.clone(), pulse.stop.clone(), visitor.clone());
        let sending = std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                let mut sent = sent.lock().unwrap();
                sender.send(&sent.to_be_bytes());
                *sent += 1;
                drop(sent);
                std::thread::sleep(BEAT);
            }
        });
        let (answered, stop) = (pulse.answered.clone(), pulse.stop.clone());
        let receiving = std::thread::spawn(move || {
            let mut buf = [0; 4];
            while !stop.load(Ordering::SeqCst) {
                if let Ok(4) = visitor.0.recv(&mut buf) {
                    answered.lock().unwrap().insert(u32::from_be_bytes(buf));
                }
            }
        });
        pulse.threads = vec![sending, receiving];
        pulse
    }

    /// Waits until the answers to ten datagrams have come that are sent from now on.
    fn goes_on(&self) {
        let from = *self.sent.lock().unwrap();
        eventually("answers to later datagrams", || {
            let answered = self.answered.lock().unwrap();
            let later = answered.iter().filter(|number| **number >= from);
            (later.count() >= 10).then_some(())
        });
    }

    /// Returns how many of those that have been sent so far are not answered, once the later ones are.
    fn lost(&self) -> usize {
        let until = *self.sent.lock().unwrap();
        self.goes_on();
        let answered = self.answered.lock().unwrap();
        (0..until)
            .filter(|number| !answered.contains(number))
            .count()
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn echo_tunnel() -> (UdpService, Gt, Gt, SocketAddr) {
    let (service, port) = (UdpService::echo(), free_port());
    let mut server = server_of_id1(&format!("-udpRange {port}"));
    let local = format!("-local udp://{} -remoteUDPPort {port}", service.addr);
    let client = client_of_id1(server.addr(), &local);
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    (service, server, client, at)
}

/// Returns the sources of the datagrams that the service has got since the last call.
fn sources(service: &UdpService) -> HashSet<SocketAddr> {
    service.seen.try_iter().map(|(_, from)| from).collect()
}

#[test]
fn a_restart_of_the_server_loses_no_datagram_of_a_flow() {
    let (_service, mut server, mut client, at) = echo_tunnel();
    let pulse = Pulse::start(at);
    pulse.goes_on();
    let new = server.restart();
    client.wait_for_reconnect_request();
    client.wait_for_tunnels(2);
    // Nothing keeps the old process.
    assert_eq!(server.exit().code(), Some(0));
    assert_eq!(pulse.lost(), 0);
    let newer = server.restart_again(&new);
    new.wait_for_end();
    assert_eq!(pulse.lost(), 0);
    newer.signal("TERM");
    newer.wait_for_end();
}

#[test]
fn a_restart_of_the_client_moves_a_flow_to_the_new_process() {
    let (service, mut server, mut client, at) = echo_tunnel();
    let pulse = Pulse::start(at);
    pulse.goes_on();
    let before = sources(&service);
    let new = client.restart();
    server.wait_for_opened(2);
    assert_eq!(client.exit().code(), Some(0));
    pulse.goes_on();
    sources(&service);
    pulse.goes_on();
    assert!(before.is_disjoint(&sources(&service)), "another socket");
    // Those that are on their way when the old process ends its flow.
    let lost = pulse.lost();
    assert!(lost <= 10, "{lost}");
    new.signal("TERM");
    new.wait_for_end();
}

#[test]
fn a_reload_of_both_ends_loses_no_datagram_and_keeps_the_flow() {
    let (service, mut server, mut client, at) = echo_tunnel();
    let pulse = Pulse::start(at);
    pulse.goes_on();
    for _ in 0..3 {
        server.reload();
        client.reload();
        pulse.goes_on();
    }
    assert_eq!(pulse.lost(), 0);
    assert_eq!(sources(&service).len(), 1, "one flow");
}
