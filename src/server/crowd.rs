//! A server with many clients, for tests.

use super::registry::Login;
use super::settings::Settings;
use super::state::ServerState;
use crate::auth_lockout::AuthLockout;
use crate::config::Limits;
use crate::net::{Conn, Socket};
use crate::tunnel::{PeerRole, Policy, Tunnel};
use crate::wire::hello::ServiceSpec;
use crate::wire::Version;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Returns the state of a server with this many clients, `id00000` and so on, and the tunnel that all of them have.
pub fn crowd(clients: usize) -> (Arc<ServerState>, Tunnel) {
    let lockout = AuthLockout::new(0, Duration::ZERO);
    let state = ServerState::new(Settings::without_users(), Arc::default(), lockout);
    let state = Arc::new(state.unwrap());
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = TcpStream::connect(target.local_addr().unwrap()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let conn = Conn::from(Socket::new(socket, false).unwrap());
    let policy = Policy::new(Version::One, PeerRole::Client, Duration::from_secs(60));
    let (tunnel, _inbox) = Tunnel::new(Arc::new(conn), Vec::new(), policy);
    let limits = Limits::of_one_prefix();
    for n in 0..clients {
        let spec = ServiceSpec::Host {
            tls: false,
            prefix: None,
        };
        let (id, settings) = (id_of(n), state.settings.get());
        let login = Login::of_user(&id, &limits, &settings);
        let registry = &state.registry;
        assert!(registry.register(&login, vec![Some(spec)], &tunnel).is_ok());
        // A reload checks every client, too.
        assert!(registry.enforce(&login).is_ok());
    }
    (state, tunnel)
}

/// Returns the id of a client in a crowd.
pub fn id_of(n: usize) -> String {
    format!("id{n:05}")
}
