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
    let looking_up = async {
        let place = LOOK_UPS.try_acquire().ok_or_else(|| {
            let why = "too many names are being looked up";
            io::Error::new(io::ErrorKind::ResourceBusy, why)
        })?;
        let ask = move || {
            // Until it is done: the visitor may have gone, and come again.
            let _place = place;
            kernel::look_up(&asked, 0)
        };
        let found = VISITOR_NAMES.run(ask).await?;
        match found.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::NotFound, "no address")),
            false => Ok(found),
        }
    };
    let found: io::Result<Vec<SocketAddr>> = looking_up.await;
    let found = found.map_err(|e| io::Error::new(e.kind(), format!("looking up {host}: {e}")))?;
    Ok(found
        .into_iter()
        .map(|addr| with_port(addr, port))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_std::task::block_on;

    #[test]
    fn spellings_of_an_address_are_looked_up_as_that_address() {
        for (host, expected) in [
            ("0x7f.1", "127.0.0.1:80"),
            ("2130706433", "127.0.0.1:80"),
            ("0300.0250.1.1", "192.168.1.1:80"),
            ("192.168.257", "192.168.1.1:80"),
        ] {
            let found = block_on(look_up_for_visitor(host, 80)).unwrap();
            assert!(
                found.iter().all(|addr| addr.to_string() == expected),
                "{host}: {found:?}"
            );
        }
    }

    #[test]
    fn a_failed_look_up_names_the_host() {
        let error = block_on(look_up_for_visitor("nobody.invalid", 80)).unwrap_err();
        assert!(
            error.to_string().starts_with("looking up nobody.invalid: "),
            "{error}"
        );
    }
}
