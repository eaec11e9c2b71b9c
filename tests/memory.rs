//! Memory that waiting tunnels take at the server, counted in this process: what the allocator has
//! given out, with its own overhead.

#![cfg(feature = "server")]

mod common;

use common::peer::{gt1, gt2, ID_ALONE};
use common::ports::free_port;
use common::{eventually, role};
use gt::handover::Inherited;
use gt::server::{Server, ServerPlan};
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

struct Counting;

/// Bytes that are allocated.
static BYTES: AtomicUsize = AtomicUsize::new(0);

/// Returns the bytes that glibc takes for an allocation of `size` bytes on a 64-bit machine.
fn taken(size: usize) -> usize {
    (size + 8).next_multiple_of(16).max(32)
}

// SAFETY: all of it is the system's own allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(taken(layout.size()), Ordering::Relaxed);
        System.alloc(layout)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        BYTES.fetch_sub(taken(layout.size()), Ordering::Relaxed);
        System.dealloc(memory, layout);
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        BYTES.fetch_add(taken(size), Ordering::Relaxed);
        BYTES.fetch_sub(taken(layout.size()), Ordering::Relaxed);
        System.realloc(memory, layout, size)
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The time after which tunnels rest, and a little more. It is an eighth of the server's timeout.
const REST: Duration = Duration::from_millis(2500);
/// Clients of one measurement. With all tunnels, tables that double in size are almost full.
const CLIENTS: usize = 500;
/// Tunnels of each client that has several.
const TUNNELS: usize = 4;
/// Memory of a client with its first tunnel.
const CLIENT_BYTES: usize = 3 * 1024;
/// Memory of each further tunnel.
const TUNNEL_BYTES: usize = 1024;

/// Opens a tunnel and waits until the server is ready.
fn open(server: SocketAddr, wire: u8, client: usize) -> TcpStream {
    let id = format!("client{client}");
    let (hello, answer, ready) = match wire {
        1 => (
            gt1::hello(&id, "secret1", &ID_ALONE),
            &[][..],
            &gt1::READY[..],
        ),
        _ => (
            gt2::hello(&id, "secret1", &ID_ALONE, 0),
            <gt2::Frame as common::peer::Frame>::ANSWER,
            <gt2::Frame as common::peer::Frame>::READY_BYTES,
        ),
    };
    let mut tunnel = TcpStream::connect(server).expect("connect");
    tunnel.write_all(&hello).expect("send a hello");
    let mut answer = vec![0; answer.len() + ready.len()];
    tunnel.read_exact(&mut answer).expect("read an answer");
    tunnel
}

/// Returns the bytes that are allocated when they do not change any more within `time`.
fn settled(time: Duration) -> usize {
    let mut before = 0;
    eventually("the memory to settle", || {
        std::thread::sleep(time);
        let now = BYTES.load(Ordering::Relaxed);
        (std::mem::replace(&mut before, now) == now).then_some(now)
    })
}

#[test]
fn a_waiting_client_takes_three_kib_and_each_further_tunnel_one() {
    for wire in [1, 2] {
        let port = free_port();
        let server = role(&format!(
            "gt server -addr 127.0.0.1:{port} -allowAnyClient -timeout 16s -connections {TUNNELS}"
        ));
        gt::daemon::prepare(std::slice::from_ref(&server)).expect("open files");
        let plan = ServerPlan::new(
            server.role.server().unwrap(),
            &None,
            None,
            &mut Inherited::default(),
        );
        let server = Server::start(plan.expect("listen")).expect("start");
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        drop(open(addr, wire, 0));
        let empty = settled(REST / 5);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| open(addr, wire, client))
            .collect();
        let first = settled(REST);
        let further: Vec<_> = (0..CLIENTS * (TUNNELS - 1))
            .map(|number| open(addr, wire, number % CLIENTS))
            .collect();
        let all = settled(REST);
        let client = (first - empty) / CLIENTS;
        let tunnel = (all - first) / further.len();
        println!("GT/{wire}: {client} bytes for a client, {tunnel} for each further tunnel");
        assert!(client <= CLIENT_BYTES, "{client} bytes for a client");
        assert!(
            tunnel <= TUNNEL_BYTES,
            "{tunnel} bytes for a further tunnel"
        );
        drop((clients, further));
        async_std::task::block_on(server.stop(Duration::from_secs(1)));
    }
}
