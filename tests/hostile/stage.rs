//! A server and a client with a service of each kind, and well-behaved visitors.

use super::bound::Memory;
use crate::common::certs::{self, Certs};
use crate::common::eventually;
use crate::common::gt::{client, server, Gt};
use crate::common::ports::free_port;
use crate::common::service::{self, Service};
use crate::common::visitor::get;
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Maximum memory that an attack may leave behind at either end, in KiB: what the allocator keeps
/// for reuse.
pub const LEFT_KIB: usize = 5 * 1024;

pub struct Stage {
    pub server: Gt,
    pub client: Gt,
    pub addr: SocketAddr,
    pub tls: SocketAddr,
    pub sni: SocketAddr,
    pub api: SocketAddr,
    /// The port of an echo service.
    pub port: SocketAddr,
    /// The port of a service that never stops sending.
    pub endless: SocketAddr,
    /// The port of a service that never sends.
    pub silent: SocketAddr,
    _services: [Service; 5],
    _certs: Certs,
    pids: [u32; 2],
    /// Descriptors of both ends while idle.
    fds: [usize; 2],
    memory: [Memory; 2],
}

impl Stage {
    /// Starts both with additional arguments; the client's id is `id1`. The attacker may be a
    /// client `id2`.
    pub fn set(for_server: &str, for_client: &str) -> Stage {
        let ports = [free_port(), free_port(), free_port()];
        let certs = certs::make();
        let services = [
            service::http(0, "here"),
            service::echo(),
            Service::start(0, |_| Ok(())),
            Service::start(0, |mut stream| loop {
                stream.write_all(&[7; 16384])?;
            }),
            service::silent(),
        ];
        let mut server = server(&format!(
            "-addr 127.0.0.1:0 -tlsAddr 127.0.0.1:0 -sniAddr 127.0.0.1:0 -apiAddr 127.0.0.1:0 {} \
             -id id1 -secret secret1 -id id2 -secret secret2 -hostNumber 3 -tcpNumber 5 \
             -tcpRange 1024-65535 -reconnectTimes 0 {for_server}",
            certs.flags()
        ));
        let (addr, tls) = (server.addr(), server.tls_addr());
        let (sni, api) = (server.sni_addr(), server.api_addr());
        let mut client = client(&format!(
            "-remote {addr} -id id1 -secret secret1 -reconnectDelay 10ms {for_client} \
             -local http://{} -local tcp://{} -remoteTCPPort {} \
             -local https://{} -hostPrefix safe \
             -local tcp://{} -remoteTCPPort {} -local tcp://{} -remoteTCPPort {}",
            services[0].addr,
            services[1].addr,
            ports[0],
            services[2].addr,
            services[3].addr,
            ports[1],
            services[4].addr,
            ports[2],
        ));
        client.wait_for_tunnel();
        let [port, endless, silent] = ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        // Warm up before measuring: some memory is allocated on first use.
        for _ in 0..20 {
            visit(addr);
            service::assert_echo_at(port);
        }
        let pids = [server.pid(), client.pid()];
        let fds = [0, 0];
        let memory = [Memory::since_now(&server), Memory::since_now(&client)];
        let mut stage = Stage {
            server,
            client,
            addr,
            tls,
            sni,
            api,
            port,
            endless,
            silent,
            _services: services,
            _certs: certs,
            pids,
            fds,
            memory,
        };
        stage.fds = stage.settled();
        stage
    }

    /// Returns the descriptors of both ends once they do not change any more.
    fn settled(&self) -> [usize; 2] {
        let count = || [self.server.fds(), self.client.fds()];
        let mut before = (count(), Instant::now());
        eventually("descriptors not to change", || {
            let now = count();
            if now != before.0 {
                before = (now, Instant::now());
            }
            (before.1.elapsed() > Duration::from_millis(300)).then_some(now)
        })
    }

    /// Checks that a well-behaved visitor is answered; returns how long it took.
    pub fn visit(&self) -> Duration {
        visit(self.addr)
    }

    /// Returns by how many KiB the server has grown: now, and at its peak.
    pub fn server_kib(&self) -> (usize, usize) {
        let memory = &self.memory[0];
        (memory.growth(&self.server), memory.peak(&self.server))
    }

    /// Returns by how many KiB the client has grown: now, and at its peak.
    pub fn client_kib(&self) -> (usize, usize) {
        let memory = &self.memory[1];
        (memory.growth(&self.client), memory.peak(&self.client))
    }

    /// Returns how many descriptors the server has more than at the beginning.
    pub fn server_fds(&self) -> usize {
        self.server.fds().saturating_sub(self.fds[0])
    }

    /// Returns how many descriptors the client has more than at the beginning.
    pub fn client_fds(&self) -> usize {
        self.client.fds().saturating_sub(self.fds[1])
    }

    /// Returns the bytes that the client's tunnels have carried to visitors.
    pub fn carried(&self) -> u64 {
        const BEFORE: &str = "\"bytesUp\": ";
        let page = get(self.api, "localhost", "/clients").text();
        let (_, after) = page.split_once(BEFORE).expect("a client");
        let digits = after.split(|c: char| !c.is_ascii_digit()).next();
        digits.unwrap_or_default().parse().expect("a number")
    }

    /// Checks that the same processes serve after an attack, and hold nothing of it.
    pub fn assert_unharmed(&mut self) {
        self.assert_unharmed_but(LEFT_KIB);
    }

    /// [`Stage::assert_unharmed`] with another limit for memory.
    pub fn assert_unharmed_but(&mut self, kib: usize) {
        self.visit();
        service::assert_echo_at(self.port);
        assert_eq!(self.server.has_ended().or(self.client.has_ended()), None);
        assert_eq!([self.server.pid(), self.client.pid()], self.pids);
        // A busy client has two more tunnels for a while; and there may be another client.
        let more = 3;
        self.server.wait_for_fds(self.fds[0] + more);
        self.client.wait_for_fds(self.fds[1] + more);
        eventually("the memory to fall back", || {
            let left = self.server_kib().0.max(self.client_kib().0);
            (left <= kib).then_some(())
        });
        let log = self.server.log() + &self.client.log();
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// See [`Stage::visit`].
pub fn visit(addr: SocketAddr) -> Duration {
    let begun = Instant::now();
    assert_eq!(get(addr, "id1.a", "/").text(), "here / id1.a");
    begun.elapsed()
}
