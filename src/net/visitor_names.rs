//! Look-ups of names that visitors have chosen. They have threads of their own and are not remembered, so
//! that visitors neither delay the look-ups of gt itself nor displace what those have found.

use super::kernel;
use super::resolve::with_port;
use super::shared_threads::VISITOR_NAMES;
use async_lock::Semaphore;
use std::io;
use std::net::SocketAddr;

/// Maximum number of look-ups at a time, with those that wait for a thread.
const MAX_LOOK_UPS: usize = 64;

static LOOK_UPS: Semaphore = Semaphore::new(MAX_LOOK_UPS);

/// Returns every address of `host` with `port`, in the system's order. The error names the host;
/// `ResourceBusy`: too many names are being looked up.
pub async fn look_up_for_visitor(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let asked = host.to_owned();
    let found = look_up_with(move || kernel::look_up(&asked, 0)).await;
    let found = found.map_err(|e| io::Error::new(e.kind(), format!("looking up {host}: {e}")))?;
    let addresses = found.into_iter();
    Ok(addresses.map(|addr| with_port(addr, port)).collect())
}

async fn look_up_with(
    ask: impl FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
) -> io::Result<Vec<SocketAddr>> {
    let place = LOOK_UPS.try_acquire().ok_or_else(|| {
        let why = "too many names are being looked up";
        io::Error::new(io::ErrorKind::ResourceBusy, why)
    })?;
    let ask = move || {
        // Until it is done: the visitor may have gone, and come again.
        let _place = place;
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
    use crate::sync::Mutex;
    use async_std::task::{block_on, spawn};
    use std::sync::mpsc::channel;

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
            let found = block_on(look_up_for_visitor(host, 80)).unwrap();
            let is_expected = |addr: &SocketAddr| addr.to_string() == expected;
            assert!(found.iter().all(is_expected), "{host}: {found:?}");
        }
    }

    #[test]
    fn a_failed_look_up_names_the_host() {
        let _alone = ALONE.lock();
        let error = block_on(look_up_for_visitor("nobody.invalid", 80)).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("looking up nobody.invalid: "), "{error}");
        let nothing = block_on(look_up_with(|| Ok(Vec::new())));
        assert_eq!(nothing.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn look_ups_that_hang_are_bounded_and_those_of_gt_go_on() {
        let _alone = ALONE.lock();
        let (mut hung, mut holds) = (Vec::new(), Vec::new());
        loop {
            let (hold, held) = channel::<()>();
            let hangs = move || {
                let _ = held.recv();
                Ok(vec![([192, 0, 2, 1], 0).into()])
            };
            let mut asking = Box::pin(look_up_with(hangs));
            let begun = block_on(futures_lite::future::poll_once(&mut asking));
            if let Some(result) = begun {
                assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ResourceBusy);
                break;
            }
            hung.push(spawn(asking));
            holds.push(hold);
        }
        assert_eq!(hung.len(), MAX_LOOK_UPS);
        assert_eq!(block_on(NAMES.run(|| 7)), 7);
        drop(holds);
        for asked in hung {
            assert_eq!(block_on(asked).unwrap().len(), 1);
        }
        assert!(block_on(look_up_for_visitor("127.0.0.1", 80)).is_ok());
    }
}
