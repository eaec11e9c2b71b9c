//! Memory allocations of gt, counted in this process, which runs both ends: none for a request on
//! an existing connection, and few for a new connection.

#![cfg(all(feature = "server", feature = "client"))]

mod common;

use common::ports::free_port;
use common::service::{assert_echo, assert_echo_at, echo};
use common::visitor::connect;
use common::{eventually, role};
use gt::client::{self, Client};
use gt::handover::Inherited;
use gt::server::{self, Server};
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

struct Counting;

static ALLOCATIONS: AtomicU32 = AtomicU32::new(0);

// SAFETY: all of it is the system's own allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        System.alloc(layout)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        System.dealloc(memory, layout);
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        System.realloc(memory, layout, size)
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns the allocations for each of `times` during `work`: the minimum of a few tries, since a
/// busy machine only adds some.
fn fewest(times: u32, work: impl Fn()) -> f32 {
    let tries = (0..5).map(|_| {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        work();
        ALLOCATIONS.load(Ordering::Relaxed) - before
    });
    tries.min().expect("there are tries") as f32 / times as f32
}

#[test]
fn a_request_allocates_nothing_of_its_own_and_a_new_connection_little() {
    for wire in ["1", "2"] {
        let echo = echo();
        let (control, port) = (free_port(), free_port());
        let user = format!("-id id1 -secret secret1 -wire {wire}");
        let server = role(&format!(
            "gt server -addr 127.0.0.1:{control} {user} -tcpNumber 1 -tcpRange 1024-65535 \
             -udpRange 1024-65535"
        ));
        let udp = match wire {
            "2" => format!("-local udp://{} -remoteUDPPort {port}", echo_datagrams()),
            _ => String::new(),
        };
        let client = role(&format!(
            "gt client -remote tcp://127.0.0.1:{control} {user} -local tcp://{} -remoteTCPPort {port} {udp}",
            echo.addr
        ));
        gt::daemon::prepare(&[server.clone(), client.clone()]).expect("open files");
        let legacy = &mut Inherited::default();
        let plan = server::ServerPlan::new(server.role.server().unwrap(), &None, None, legacy);
        let server = Server::start(plan.expect("listen")).expect("start");
        let plan = client::ClientPlan::new(client.role.client().unwrap(), &None, None, legacy);
        let client = Client::start(plan.expect("plan a client"));

        let port = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        eventually("the port to be served", || TcpStream::connect(port).ok());
        assert_echo_at(port);
        let mut visitor = connect(port);
        // Neither the request nor the service allocates.
        let request = |mut visitor: &TcpStream| {
            let mut answer = [0; 100];
            visitor.write_all(&[7; 100]).expect("write");
            visitor.read_exact(&mut answer).expect("read");
        };
        let each = fewest(1000, || {
            (0..1000).for_each(|_| request(&visitor));
        });
        println!("GT/{wire}: {each} allocations for a request");
        // The runtime's task queue takes a block for every 31 turns; a request has 16.
        assert!(each <= 0.75, "{each} allocations for a request");

        let each = fewest(100, || {
            (0..100).for_each(|_| request(&TcpStream::connect(port).expect("connect")));
        });
        println!("GT/{wire}: {each} allocations for a connection");
        assert!(each <= 30.0, "{each} allocations for a connection");
        assert_echo(&mut visitor, b"and it goes on");
        if wire == "2" {
            count_datagrams(port);
        }

        async_std::task::block_on(async {
            client.stop(Duration::from_secs(1)).await;
            server.stop(Duration::from_secs(1)).await;
        });
    }
}

/// Sends datagrams back, without an allocation, until the process ends. Returns the address.
fn echo_datagrams() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let addr = socket.local_addr().expect("an address");
    std::thread::spawn(move || {
        let mut buf = [0; 2000];
        while let Ok((n, from)) = socket.recv_from(&mut buf) {
            let _ = socket.send_to(&buf[..n], from);
        }
    });
    addr
}

/// Checks that the datagrams of a flow allocate nothing, one by one and in bursts.
fn count_datagrams(port: SocketAddr) {
    let visitor = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    visitor.connect(port).expect("connect");
    visitor
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    for burst in [1, 10] {
        let exchange = || {
            let mut answer = [0; 2000];
            for _ in 0..burst {
                visitor.send(&[7; 1000]).expect("send");
            }
            for _ in 0..burst {
                visitor.recv(&mut answer).expect("an answer");
            }
        };
        exchange();
        let each = fewest(1000, || (0..1000 / burst).for_each(|_| exchange()));
        println!("{each} allocations for a datagram and its answer, {burst} at a time");
        // The runtime's task queue takes a block for every 31 turns; a datagram alone has 4 at each end.
        assert!(each <= 0.75, "{each} allocations for a datagram");
    }
}
