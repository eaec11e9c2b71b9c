//! Services and visitors over UDP.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, Receiver};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Time that an answer may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time after which a datagram that must not come has not.
pub const SILENCE: Duration = Duration::from_millis(500);

/// A service that answers datagrams until it is dropped.
pub struct UdpService {
    pub addr: SocketAddr,
    /// The datagrams that have come, with their sources.
    pub seen: Receiver<(Vec<u8>, SocketAddr)>,
    stop: Arc<AtomicBool>,
    answering: Option<JoinHandle<()>>,
}

impl UdpService {
    /// Sends each datagram back.
    pub fn echo() -> UdpService {
        Self::start(|datagram| vec![datagram.to_vec()])
    }

    /// Answers each datagram with some.
    pub fn start(answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> UdpService {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a timeout");
        let addr = socket.local_addr().expect("an address");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let (tell, seen) = channel();
        let answering = std::thread::spawn(move || {
            let mut buf = vec![0; 70_000];
            while !stopped.load(Ordering::SeqCst) {
                let Ok((n, from)) = socket.recv_from(&mut buf) else {
                    continue;
                };
                for answer in answer(&buf[..n]) {
                    let _ = socket.send_to(&answer, from);
                }
                let _ = tell.send((buf[..n].to_vec(), from));
            }
        });
        UdpService {
            addr,
            seen,
            stop,
            answering: Some(answering),
        }
    }

    /// Waits for the next datagram and its source.
    pub fn next(&self) -> (Vec<u8>, SocketAddr) {
        self.seen.recv_timeout(PATIENCE).expect("a datagram")
    }

    /// Whether no datagram comes for a while.
    pub fn is_silent(&self) -> bool {
        self.seen.recv_timeout(SILENCE).is_err()
    }
}

impl Drop for UdpService {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(answering) = self.answering.take() {
            let _ = answering.join();
        }
    }
}

/// A visitor that sends to one address, and takes answers from there alone.
pub struct UdpVisitor(pub UdpSocket);

impl UdpVisitor {
    /// A visitor from this address.
    pub fn from(from: &str, to: SocketAddr) -> UdpVisitor {
        let from: IpAddr = from.parse().expect("an address");
        let socket = UdpSocket::bind((from, 0)).expect("a socket");
        socket.connect(to).expect("connect");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        UdpVisitor(socket)
    }

    pub fn send(&self, datagram: &[u8]) {
        self.0.send(datagram).expect("send");
    }

    /// Waits for a datagram.
    pub fn receive(&self) -> Vec<u8> {
        let mut buf = vec![0; 70_000];
        let n = self.0.recv(&mut buf).expect("an answer");
        buf.truncate(n);
        buf
    }

    /// Sends a datagram and waits for the answer.
    pub fn ask(&self, datagram: &[u8]) -> Vec<u8> {
        self.send(datagram);
        self.receive()
    }

    /// Sends a datagram again and again until an answer comes, as while a tunnel or a port is not there.
    pub fn insist(&self, datagram: &[u8]) -> Vec<u8> {
        let mut buf = vec![0; 70_000];
        self.0
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("a timeout");
        for _ in 0..PATIENCE.as_millis() / 100 {
            // Nobody may listen there yet.
            let _ = self.0.send(datagram);
            if let Ok(n) = self.0.recv(&mut buf) {
                self.0.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                buf.truncate(n);
                return buf;
            }
        }
        panic!("no answer");
    }

    /// Sends a datagram again and again until it comes back. Late answers to others are left out.
    pub fn insist_on_echo(&self, datagram: &[u8]) {
        let tries = PATIENCE.as_millis() / 100;
        let came = (0..tries).any(|_| self.insist(datagram) == datagram);
        assert!(came, "{} bytes did not come back", datagram.len());
    }

    /// Whether no datagram comes for a while.
    pub fn is_silent(&self) -> bool {
        self.0.set_read_timeout(Some(SILENCE)).expect("a timeout");
        let received = self.0.recv(&mut [0; 10]);
        self.0.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        match received {
            Ok(_) => false,
            Err(e) => matches!(
                e.kind(),
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionRefused
            ),
        }
    }
}
