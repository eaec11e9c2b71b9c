//! A way to a server: a TCP forwarder that can hold back what visitors send, and be cut.

use super::eventually;
use super::service::Service;
use super::visitor::connect;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

pub struct Forwarder {
    pub addr: SocketAddr,
    is_held: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    _service: Service,
}

impl Forwarder {
    /// Listens on `port`, any if 0, and connects each visitor to `to`.
    pub fn start(port: u16, to: SocketAddr) -> Forwarder {
        Self::with(port, to, false)
    }

    /// The same, but no byte of a visitor gets to the other end before [`Self::release`].
    pub fn holding(to: SocketAddr) -> Forwarder {
        Self::with(0, to, true)
    }

    fn with(port: u16, to: SocketAddr, held: bool) -> Forwarder {
        let is_held = Arc::new(AtomicBool::new(held));
        let open: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let (hold, known) = (is_held.clone(), open.clone());
        let service = Service::start(port, move |visitor| {
            let server = connect(to);
            known
                .lock()
                .unwrap()
                .extend([visitor.try_clone()?, server.try_clone()?]);
            eventually("the way to be released", || {
                (!hold.load(Ordering::SeqCst)).then_some(())
            });
            carry(visitor, server)
        });
        Forwarder {
            addr: service.addr,
            is_held,
            open,
            _service: service,
        }
    }

    /// Passes on what has come.
    pub fn release(&self) {
        self.is_held.store(false, Ordering::SeqCst);
    }

    /// Ends all connections.
    pub fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Moves bytes between two connections in both directions up to their ends.
pub fn carry(one: TcpStream, other: TcpStream) -> std::io::Result<()> {
    for stream in [&one, &other] {
        stream.set_read_timeout(None)?;
    }
    let (mut from, mut to) = (other.try_clone()?, one.try_clone()?);
    let back = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let (mut from, mut to) = (one, other);
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
    let _ = back.join();
    Ok(())
}
