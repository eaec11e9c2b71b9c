//! Look-ups of names that visitors have chosen. They have threads of their own and are not remembered, so
//! that visitors neither delay the look-ups of gt itself nor displace what those have found. Each visitor
//! has one look-up at a time, so that one whose names get no answer leaves a thread to the others.

use super::kernel;
use super::network_of;
use super::resolve::with_port;
use super::shared_threads::VISITOR_NAMES;
use crate::sync::Mutex;
use async_lock::Semaphore;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Maximum number of look-ups at a time, with those that wait for a thread.
const MAX_LOOK_UPS: usize = 64;
/// Maximum number of look-ups of one visitor, with those that wait for their turn.
const MAX_OF_VISITOR: usize = 16;

/// The visitors that have look-ups, each once.
static VISITORS: Mutex<Vec<VisitorShare>> = Mutex::new(Vec::new());

/// The look-ups of one visitor.
struct VisitorShare {
    /// The address or IPv6 network of the visitor; `None` for all visitors whose address is not known.
    visitor: Option<IpAddr>,
    count: usize,
    turn: Arc<Semaphore>,
}

/// The place of one look-up among those of its visitor, which is free again when this is dropped.
struct LookUpPlace {
    visitor: Option<IpAddr>,
    turn: Arc<Semaphore>,
}

impl LookUpPlace {
    /// Takes a place for a look-up of a visitor; `None` if it, or all together, have too many.
    fn take(visitor: Option<IpAddr>) -> Option<Self> {
        let visitor = visitor.map(network_of);
        let mut shares = VISITORS.lock();
        if shares.iter().map(|share| share.count).sum::<usize>() >= MAX_LOOK_UPS {
            return None;
        }
        let turn = match shares.iter_mut().find(|share| share.visitor == visitor) {
            Some(share) if share.count >= MAX_OF_VISITOR => return None,
            Some(share) => {
                share.count += 1;
                share.turn.clone()
            }
            None => {
                let turn = Arc::new(Semaphore::new(1));
                shares.push(VisitorShare {
                    visitor,
                    count: 1,
                    turn: turn.clone(),
                });
                turn
            }
        };
        Some(Self { visitor, turn })
    }
}

impl Drop for LookUpPlace {
    fn drop(&mut self) {
        let mut shares = VISITORS.lock();
        let same = |share: &VisitorShare| share.visitor == self.visitor;
        let Some(at) = shares.iter().position(same) else {
            return;
        };
        if let Some(share) = shares.get_mut(at) {
            share.count -= 1;
            if share.count == 0 {
                shares.swap_remove(at);
            }
        }
    }
}

/// Returns every address of `host` with `port`, in the system's order, for a visitor from this address, if
/// that is known. The error names the host; `ResourceBusy`: too many names are being looked up.
pub async fn look_up_for_visitor(
    visitor: Option<IpAddr>,
    host: &str,
    port: u16,
) -> io::Result<Vec<SocketAddr>> {
    let asked = host.to_owned();
    let found = look_up_with(visitor, move || kernel::look_up(&asked, 0)).await;
    let found = found.map_err(|e| io::Error::new(e.kind(), format!("looking up {host}: {e}")))?;
    let addresses = found.into_iter();
    Ok(addresses.map(|addr| with_port(addr, port)).collect())
}

async fn look_up_with(
    visitor: Option<IpAddr>,
    ask: impl FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
) -> io::Result<Vec<SocketAddr>> {
    let place = LookUpPlace::take(visitor).ok_or_else(|| {
        let why = "too many names are being looked up";
        io::Error::new(io::ErrorKind::ResourceBusy, why)
    })?;
    let turn = place.turn.acquire_arc().await;
    let ask = move || {
        // Until it is done: the visitor may have gone, and come again.
        let _held = (turn, place);
        ask()
    };
    let found = VISITOR_NAMES.run(ask).await?;
    match found.is_empty() {
        true => Err(io::Error::new(io::ErrorKind::NotFound, "no address")),
        false => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::super::shared_threads::NAMES;
    use super::*;
    use async_std::task::{block_on, spawn, JoinHandle};
    use std::sync::mpsc::{channel, Sender};

    /// Held by each test: they share the number of look-ups.
    static ALONE: Mutex<()> = Mutex::new(());

    #[test]
    fn spellings_of_an_address_are_looked_up_as_that_address() {
        let _alone = ALONE.lock();
        for (host, expected) in [
            ("0x7f.1", "127.0.0.1:80"),
            ("2130706433", "127.0.0.1:80"),
            ("0300.0250.1.1", "192.168.1.1:80"),
            ("192.168.257", "192.168.1.1:80"),
        ] {
            let found = block_on(look_up_for_visitor(None, host, 80)).unwrap();
            let is_expected = |addr: &SocketAddr| addr.to_string() == expected;
            assert!(found.iter().all(is_expected), "{host}: {found:?}");
        }
    }

    #[test]
    fn a_failed_look_up_names_the_host() {
        let _alone = ALONE.lock();
        let error = block_on(look_up_for_visitor(None, "nobody.invalid", 80)).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("looking up nobody.invalid: "), "{error}");
        let nothing = block_on(look_up_with(None, || Ok(Vec::new())));
        assert_eq!(nothing.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    /// Look-ups that hang, each with what it waits for.
    #[derive(Default)]
    struct Hung {
        asking: Vec<JoinHandle<io::Result<Vec<SocketAddr>>>>,
        holds: Vec<Sender<()>>,
    }

    impl Hung {
        /// Begins a look-up for a visitor that hangs. False if it is refused.
        fn add(&mut self, visitor: IpAddr, begun: &Sender<IpAddr>) -> bool {
            let (hold, held) = channel::<()>();
            let begun = begun.clone();
            let hangs = move || {
                let _ = begun.send(visitor);
                let _ = held.recv();
                Ok(vec![([192, 0, 2, 1], 0).into()])
            };
            let mut asking = Box::pin(look_up_with(Some(visitor), hangs));
            if let Some(result) = block_on(futures_lite::future::poll_once(&mut asking)) {
                assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ResourceBusy);
                return false;
            }
            self.asking.push(spawn(asking));
            self.holds.push(hold);
            true
        }

        fn end(self) {
            drop(self.holds);
            for asked in self.asking {
                assert_eq!(block_on(asked).unwrap().len(), 1);
            }
            assert!(VISITORS.lock().is_empty());
        }
    }

    #[test]
    fn look_ups_that_hang_are_bounded_and_those_of_gt_go_on() {
        let _alone = ALONE.lock();
        let (begun, _begins) = channel();
        let mut hung = Hung::default();
        let visitors = (0..=255u8).map(|n| IpAddr::from([192, 0, 2, n]));
        let count = visitors
            .take_while(|visitor| hung.add(*visitor, &begun))
            .count();
        assert_eq!(count, MAX_LOOK_UPS);
        assert_eq!(block_on(NAMES.run(|| 7)), 7);
        hung.end();
        assert!(block_on(look_up_for_visitor(None, "127.0.0.1", 80)).is_ok());
    }

    #[test]
    fn look_ups_of_one_visitor_that_hang_leave_a_thread_to_the_others() {
        let _alone = ALONE.lock();
        let (begun, begins) = channel();
        let mut hung = Hung::default();
        // One network of IPv6 is one visitor.
        let addresses = (0..=255u16).map(|n| IpAddr::from([0x2001, 0xDB8, 0, 0, n, 0, 0, 1]));
        let count = addresses
            .take_while(|visitor| hung.add(*visitor, &begun))
            .count();
        assert_eq!(count, MAX_OF_VISITOR);
        begins.recv().unwrap();
        let other = Some(IpAddr::from([192, 0, 2, 1]));
        for _ in 0..3 {
            assert!(block_on(look_up_for_visitor(other, "127.0.0.1", 80)).is_ok());
        }
        assert!(begins.try_recv().is_err(), "a second one has a thread");
        hung.end();
    }
}
