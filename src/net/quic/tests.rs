use super::connect;
use super::setup::{ClientSetup, ServerSetup};
use super::{Endpoint, QuicSocket, QuicStream};
use crate::net::tls::{Connector, QuicIdentity, ServerIdentity, ServerTrust};
use crate::net::{timeout, Conn, Dialer, Timer, WaitGroup};
use async_std::task::block_on;
use futures_lite::future;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// Time that a test allows for a connection, more than it takes on a slow machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// A server, and what counts the connections of both ends.
struct Ends {
    endpoint: Endpoint,
    setup: ServerSetup,
    connections: WaitGroup,
    /// Whether visitors have streams of their own.
    streams: bool,
}

impl Ends {
    fn new() -> Self {
        Self::with(false)
    }

    fn with(streams: bool) -> Self {
        let identity = QuicIdentity::new(ServerIdentity::new().unwrap()).unwrap();
        let setup = ServerSetup::new(&identity, false, streams).unwrap();
        let socket = QuicSocket::bind(Some("127.0.0.1"), 0).unwrap();
        Self {
            endpoint: Endpoint::start(socket, 1, &setup, None).unwrap(),
            setup,
            connections: WaitGroup::default(),
            streams,
        }
    }

    fn addr(&self) -> SocketAddr {
        self.endpoint.socket().addr()
    }

    async fn connect(&self, trust: ServerTrust<'_>) -> io::Result<Conn> {
        self.connect_by(self.addr(), trust).await
    }

    async fn connect_by(&self, addr: SocketAddr, trust: ServerTrust<'_>) -> io::Result<Conn> {
        let setup = ClientSetup::new(&Connector::new(trust).unwrap(), true, self.streams).unwrap();
        let connections = self.connections.clone();
        let guard = move || connections.begin();
        let dialer = Dialer::default();
        let to = (&dialer, "127.0.0.1", addr.port());
        let (conn, _) = connect(to, &setup, guard, CONNECT_TIMEOUT).await?;
        Ok(conn)
    }

    async fn accept(&self) -> io::Result<QuicStream> {
        let attempt = self.endpoint.attempt().await;
        let guard = self.connections.begin();
        let connection = attempt.accept(&self.setup, guard).await?;
        connection.established().await?;
        let protocol = match self.streams {
            true => &b"gt/2"[..],
            false => b"default",
        };
        assert_eq!(connection.protocol().as_deref(), Some(protocol));
        connection.accept_stream().await
    }

    /// Returns both ends of a connection, after a first byte: a stream is not known before.
    async fn pair(&self) -> (Conn, Conn) {
        self.pair_by(self.addr()).await
    }

    async fn pair_by(&self, addr: SocketAddr) -> (Conn, Conn) {
        let connecting = async {
            let client = self.connect_by(addr, ServerTrust::Nobody).await.unwrap();
            client.write_all(b"!").await.unwrap();
            client
        };
        let accepting = async {
            let server = Conn::from(self.accept().await.unwrap());
            assert_eq!(server.read(&mut [0; 9]).await.unwrap(), 1);
            server
        };
        future::zip(connecting, accepting).await
    }
}

/// Returns a client's and a server's end of a connection whose visitors have streams of their own.
pub async fn pair_with_streams() -> (Conn, Conn) {
    Ends::with(true).pair().await
}

/// A line between a client and a server, which can lose the server's longer packets.
pub struct Line {
    /// The server's packets that are longer are lost.
    pub longest: Arc<AtomicUsize>,
    /// Number of packets that were lost.
    pub lost: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Line {
    /// Returns both ends of a connection like those of [`pair_with_streams`], and the line between them.
    pub async fn between() -> (Conn, Conn, Line) {
        let ends = Ends::with(true);
        let server = ends.addr();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let line = Line {
            longest: Arc::new(AtomicUsize::new(usize::MAX)),
            lost: Arc::default(),
            stop: Arc::default(),
        };
        let (longest, lost) = (line.longest.clone(), line.lost.clone());
        let stop = line.stop.clone();
        std::thread::spawn(move || {
            let (mut client, mut buf) = (None, vec![0; 2000]);
            while !stop.load(Ordering::SeqCst) {
                let Ok((n, from)) = socket.recv_from(&mut buf) else {
                    continue;
                };
                if from != server {
                    client = Some(from);
                    let _ = socket.send_to(&buf[..n], server);
                } else if n > longest.load(Ordering::SeqCst) {
                    lost.fetch_add(1, Ordering::SeqCst);
                } else if let Some(client) = client {
                    let _ = socket.send_to(&buf[..n], client);
                }
            }
        });
        let (client, server) = ends.pair_by(addr).await;
        (client, server, line)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

async fn read_to_end(conn: &Conn) -> io::Result<Vec<u8>> {
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 50_000]);
    loop {
        match conn.read(&mut piece).await? {
            0 => return Ok(bytes),
            n => bytes.extend_from_slice(&piece[..n]),
        }
    }
}

async fn shutdown(conn: &Conn) {
    poll_fn(|cx| conn.poll_shutdown(cx)).await.unwrap();
}

fn sample(seed: u32) -> Vec<u8> {
    (0..3_000_000u32)
        .map(|n| (n.wrapping_mul(seed) >> 9) as u8)
        .collect()
}

#[test]
fn all_bytes_arrive_in_both_directions_and_each_ends_alone() {
    block_on(async {
        let ends = Ends::new();
        let (client, server) = ends.pair().await;
        assert_eq!(client.peer_addr().unwrap(), ends.addr());
        assert_eq!(server.local_addr().unwrap(), ends.addr());
        assert_eq!(
            server.peer_addr().unwrap().port(),
            client.local_addr().unwrap().port()
        );
        let (up, down) = (sample(7919), sample(104_729));
        let sent = async {
            client.write_all(&up).await.unwrap();
            shutdown(&client).await;
        };
        let (_, got) = future::zip(sent, read_to_end(&server)).await;
        assert!(got.unwrap() == up);
        assert!(client.try_write(b"more").is_err());
        let sent = async {
            server.write_all(&down).await.unwrap();
            shutdown(&server).await;
        };
        let (_, got) = future::zip(sent, read_to_end(&client)).await;
        assert!(got.unwrap() == down);
        drop((client, server));
        timeout(CONNECT_TIMEOUT, ends.connections.idle())
            .await
            .unwrap();
    });
}

#[test]
fn what_was_written_arrives_though_the_connection_is_dropped_at_once() {
    block_on(async {
        let ends = Ends::new();
        let (client, server) = ends.pair().await;
        let bytes = sample(31);
        let writing = async {
            client.write_all(&bytes).await.unwrap();
            drop(client);
        };
        let (_, got) = future::zip(writing, read_to_end(&server)).await;
        assert!(got.unwrap() == bytes);
        drop(server);
        timeout(CONNECT_TIMEOUT, ends.connections.idle())
            .await
            .unwrap();
    });
}

#[test]
fn a_cut_shows_as_a_reset() {
    block_on(async {
        let ends = Ends::new();
        let (client, server) = ends.pair().await;
        client.write_all(b"half of ").await.unwrap();
        client.reset_on_close();
        drop(client);
        let cut = read_to_end(&server).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::ConnectionReset);
        assert!(server.has_failed() || server.try_write(b"x").is_err());
        drop(server);
        timeout(CONNECT_TIMEOUT, ends.connections.idle())
            .await
            .unwrap();
    });
}

#[test]
fn a_client_refuses_a_certificate_that_it_does_not_trust() {
    block_on(async {
        let ends = Ends::new();
        let accepting = async {
            assert!(ends.accept().await.is_err());
        };
        let connecting = async {
            let e = ends.connect(ServerTrust::System).await.unwrap_err();
            assert_eq!(e.kind(), io::ErrorKind::InvalidData, "{e}");
            assert!(e.to_string().contains("certificate"), "{e}");
            assert!(crate::net::tls::advice(&e).contains("remoteCert"), "{e}");
        };
        future::zip(connecting, accepting).await;
        timeout(CONNECT_TIMEOUT, ends.connections.idle())
            .await
            .unwrap();
    });
}

#[test]
fn a_connection_goes_on_from_another_socket() {
    block_on(async {
        let ends = Ends::new();
        let (client, server) = ends.pair().await;
        let bytes = sample(613);
        let before = server.peer_addr().unwrap();
        let writing = async {
            for piece in bytes.chunks(bytes.len() / 4 + 1) {
                client.write_all(piece).await.unwrap();
                if let Conn::Quic(stream) = &client {
                    stream.move_away();
                }
            }
            shutdown(&client).await;
        };
        let (_, got) = future::zip(writing, read_to_end(&server)).await;
        assert!(got.unwrap() == bytes);
        // The last bytes may have come from the socket before.
        let port = client.local_addr().unwrap().port();
        assert_ne!(before.port(), port);
        let moved = async {
            while server.peer_addr().unwrap().port() != port {
                Timer::after(Duration::from_millis(1)).await;
            }
        };
        timeout(CONNECT_TIMEOUT, moved).await.unwrap();
    });
}

#[test]
fn a_client_may_send_little_before_it_has_logged_in() {
    block_on(async {
        let ends = Ends::new();
        let (client, server) = ends.pair().await;
        let mut sent = 0;
        while let Ok(count) = client.try_write(&[0; 1000]) {
            sent += count;
            assert!(sent <= 32 * 1024);
        }
        assert!(sent > 0);
        let Conn::Quic(stream) = &server else {
            panic!("not QUIC");
        };
        stream.raise_window();
        client.write_all(&[0; 900_000]).await.unwrap();
    });
}

#[test]
fn an_endpoint_that_is_closed_opens_again_with_its_connections() {
    block_on(async {
        let ends = Ends::new();
        let (client, server) = ends.pair().await;
        let Ends {
            endpoint,
            setup,
            connections,
            streams,
        } = ends;
        let closed = endpoint.close();
        let handle = closed.get().unwrap();
        let ends = Ends {
            endpoint: Endpoint::reopen(handle, &setup),
            setup,
            connections,
            streams,
        };
        // The user of the closed one goes later.
        drop((endpoint, closed));
        let (other, its_server) = ends.pair().await;
        for (client, server) in [(client, server), (other, its_server)] {
            client.write_all(b"still").await.unwrap();
            let mut got = [0; 5];
            assert_eq!(server.read(&mut got).await.unwrap(), 5);
        }
    });
}

#[test]
fn an_endpoint_that_is_dropped_serves_its_connections_on() {
    block_on(async {
        let ends = Ends::new();
        let (client, server) = ends.pair().await;
        let Ends {
            endpoint,
            connections,
            ..
        } = ends;
        drop(endpoint);
        client.write_all(b"still").await.unwrap();
        let mut got = [0; 5];
        assert_eq!(server.read(&mut got).await.unwrap(), 5);
        drop((client, server));
        timeout(CONNECT_TIMEOUT, connections.idle()).await.unwrap();
    });
}

#[test]
fn a_process_that_takes_over_passes_on_the_packets_of_the_others_connections() {
    block_on(async {
        let ends = Ends::new();
        let (client, server) = ends.pair().await;
        // Both processes are this one.
        let theirs = super::link(&ends.endpoint.handle()).unwrap();
        let socket = ends.endpoint.socket();
        let socket = std::os::fd::AsFd::as_fd(&*socket)
            .try_clone_to_owned()
            .unwrap();
        let socket = QuicSocket::adopt(socket).unwrap();
        let parent = super::PacketLink::new(theirs, 1).unwrap();
        let parent = (parent, ends.connections.begin());
        let child = Endpoint::start(socket, 2, &ends.setup, Some(parent)).unwrap();
        let Ends {
            endpoint,
            setup,
            connections,
            streams,
        } = ends;
        drop(endpoint);
        let bytes = sample(17);
        let sent = async {
            client.write_all(&bytes).await.unwrap();
            shutdown(&client).await;
        };
        let (_, got) = future::zip(sent, read_to_end(&server)).await;
        assert!(got.unwrap() == bytes);
        // New connections are the child's.
        let ends = Ends {
            endpoint: child,
            setup,
            connections,
            streams,
        };
        let (client, server) = ends.pair().await;
        server.write_all(b"new").await.unwrap();
        assert_eq!(client.read(&mut [0; 9]).await.unwrap(), 3);
    });
}

#[test]
fn datagrams_of_a_probe_come_back_until_the_last_one() {
    block_on(async {
        let ends = Ends::new();
        let (client, server) = ends.pair().await;
        let (Conn::Quic(client), Conn::Quic(server)) = (client, server) else {
            panic!("not QUIC");
        };
        let probing = async {
            for number in 0..10 {
                client.send_datagram(&[number; 9]).unwrap();
                assert_eq!(client.datagram().await.unwrap()[..], [number; 9]);
            }
            client.send_datagram(&[0xFF]).unwrap();
        };
        future::zip(probing, server.echo_datagrams(100, &[0xFF])).await;
    });
}
