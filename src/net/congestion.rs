//! The congestion control of TCP connections: the choice between BBR and the system's (`bbr`).

use super::kernel;

/// The kernel's name of BBR.
const BBR: &str = "bbr";

/// Warns, with what to do, if the kernel does not have BBR.
pub fn warn_without_bbr() {
    if let Err(e) = kernel::try_congestion(BBR) {
        let usual = kernel::usual_congestion();
        let usual = usual
            .as_deref()
            .unwrap_or("the system's congestion control");
        log::warn!(
            "bbr is set, but this kernel does not have it ({e}), so connections use {usual}: load it as \
             root with modprobe tcp_bbr, which on OpenWrt the package kmod-tcp-bbr brings, and then reload gt"
        );
    }
}

/// Returns the congestion control of new connections with and without `bbr`, where the kernel can be asked.
#[cfg(feature = "server")]
pub fn congestion_of_new(bbr: bool) -> Option<String> {
    match bbr && kernel::try_congestion(BBR).is_ok() {
        true => Some(BBR.to_owned()),
        false => kernel::usual_congestion(),
    }
}

/// Lets a connection, or those that a listener will accept, use BBR where the kernel has it.
pub fn use_bbr(socket: impl kernel::AsFd) {
    // `warn_without_bbr` has logged why this may fail.
    let _ = kernel::set_congestion(socket, BBR);
}

/// Lets the connections that a listener will accept use BBR or what the system uses. A listener of a
/// server that was reloaded or restarted may use the other one.
#[cfg(feature = "server")]
pub fn set_bbr(listener: impl kernel::AsFd, bbr: bool) {
    if bbr {
        return use_bbr(listener);
    }
    let now = kernel::congestion(&listener);
    if now.is_some_and(|now| now == BBR) {
        if let Some(usual) = kernel::usual_congestion() {
            let _ = kernel::set_congestion(listener, &usual);
        }
    }
}

#[cfg(all(test, target_os = "linux", not(feature = "sim")))]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn accepted_connections_use_what_their_listener_does() {
        let usual = kernel::usual_congestion().expect("the system's congestion control");
        // Every kernel has it.
        const OTHER: &str = "reno";
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let accepted = || {
            let _visitor = TcpStream::connect(listener.local_addr().unwrap()).expect("connect");
            let (conn, _) = listener.accept().expect("accept");
            kernel::congestion(&conn)
        };
        assert_eq!(accepted().as_deref(), Some(usual.as_str()));
        kernel::set_congestion(&listener, OTHER).expect("reno");
        assert_eq!(accepted().as_deref(), Some(OTHER));
        kernel::set_congestion(&listener, &usual).expect("the usual one");
        assert_eq!(accepted().as_deref(), Some(usual.as_str()));
    }

    #[test]
    fn what_the_kernel_does_not_have_is_an_error() {
        assert!(kernel::try_congestion("reno").is_ok());
        assert!(kernel::try_congestion("nosuch").is_err());
        assert!(kernel::try_congestion("a name of more than fifteen bytes").is_err());
    }
}
