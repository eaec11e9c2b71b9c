//! Two tunnel ends over loopback, one for each role, with access to their state.

mod gt2;
#[cfg(all(
    feature = "quic",
    feature = "server",
    feature = "client",
    not(feature = "sim")
))]
mod quic;
#[cfg(not(all(
    feature = "quic",
    feature = "server",
    feature = "client",
    not(feature = "sim")
)))]
#[path = "no_quic.rs"]
mod quic;
mod rest;
mod turns;

use super::tunnel_state::TunnelState;
use super::*;
use crate::net::{self, Socket, Timer};
use crate::wire::frame::{Header, ServiceIndex, StreamId};
use async_std::channel::{self, Receiver};
use async_std::task;
use futures_lite::{future, AsyncReadExt, AsyncWriteExt};
use std::net::{TcpListener, TcpStream};

const LONG: Duration = Duration::from_secs(20);

/// One end: the handle, and the events of its session.
struct End {
    tunnel: Tunnel,
    events: Receiver<Event>,
}

impl End {
    /// Creates an end whose inbox is polled by a task, as in a session.
    fn new(socket: Socket, peer: PeerRole) -> Self {
        Self::with(
            socket,
            Policy::new(Version::One, peer, Duration::from_secs(1)),
        )
    }

    fn with(conn: impl Into<net::Conn>, policy: Policy) -> Self {
        let (tunnel, mut inbox) = Tunnel::new(Arc::new(conn.into()), Vec::new(), policy);
        let (sender, events) = channel::unbounded();
        task::spawn(async move {
            loop {
                let event = inbox.next().await;
                let last = matches!(event, Event::End(_));
                if !matches!(event, Event::Tick) && sender.send(event).await.is_err() || last {
                    return;
                }
            }
        });
        Self { tunnel, events }
    }

    /// Opens a stream to the service of [`Self::opened`].
    fn open(&self, stream_id: u32) -> Stream {
        let stream = self.tunnel.open(StreamId(stream_id), ServiceIndex(7));
        stream.expect("the tunnel takes streams")
    }

    async fn event(&self) -> Event {
        within(self.events.recv())
            .await
            .expect("the session goes on")
    }

    async fn opened(&self) -> Stream {
        match self.event().await {
            Event::Opened(stream, ServiceIndex(7)) => stream,
            _ => panic!("another event than the stream that was opened"),
        }
    }
}

async fn within<T>(task: impl std::future::Future<Output = T>) -> T {
    future::or(async { Some(task.await) }, async {
        Timer::after(LONG).await;
        None
    })
    .await
    .expect("it takes too long")
}

fn inside(end: &End) -> MutexGuard<'_, TunnelState> {
    lock(&end.tunnel.0)
}

/// Waits for a condition that depends on time and other tasks.
async fn until(condition: impl Fn() -> bool) {
    within(async {
        while !condition() {
            Timer::after(Duration::from_millis(5)).await;
        }
    })
    .await;
}

fn sockets() -> (Socket, Socket) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (there, _) = listener.accept().unwrap();
    let socket = |stream: TcpStream| {
        stream.set_nonblocking(true).unwrap();
        Socket::new(stream, false).unwrap()
    };
    (socket(here), socket(there))
}

/// Returns the server's end, which opens streams, and the client's.
fn ends_of(version: Version) -> (End, End) {
    if let Some(ends) = quic::ends() {
        return ends;
    }
    let (here, there) = sockets();
    let policy = |peer| Policy {
        credit: FIRST_WINDOW,
        ..Policy::new(version, peer, Duration::from_secs(1))
    };
    let client = PeerRole::Server { streams: 100 };
    (
        End::with(here, policy(PeerRole::Client)),
        End::with(there, policy(client)),
    )
}

/// Returns two ends of GT/1.
fn ends() -> (End, End) {
    ends_of(Version::One)
}

/// Runs a test for both wire versions.
fn both<F: std::future::Future<Output = ()>>(test: impl Fn(Version) -> F) {
    for version in [Version::One, Version::Two] {
        eprintln!("{version:?}");
        task::block_on(test(version));
    }
    quic::over_quic(|| task::block_on(test(Version::Two)));
}

/// Runs a test for GT/2 in one connection and with a stream of QUIC for each stream.
fn both_ways<F: std::future::Future<Output = ()>>(test: impl Fn() -> F) {
    task::block_on(test());
    quic::over_quic(|| task::block_on(test()));
}

/// Returns a server's end whose peer is a bare connection.
fn end_and_wire() -> (End, Arc<net::Conn>) {
    let (here, there) = sockets();
    (End::new(here, PeerRole::Client), Arc::new(there.into()))
}

/// Returns a client's end that accepts `streams` streams and whose peer is a bare connection.
fn client_and_wire(streams: u32) -> (End, Arc<net::Conn>) {
    let (here, there) = sockets();
    let client = End::new(here, PeerRole::Server { streams });
    (client, Arc::new(there.into()))
}

/// Starts the relay of a visitor on the server's stream 1; returns it with the visitor.
fn relayed(server: &End) -> (task::JoinHandle<RelayOutcome>, net::Conn) {
    let (visitor, accepted) = sockets();
    let relay = Relay::visitor(server.open(1), Arc::new(accepted.into()), true);
    (task::spawn(relay), visitor.into())
}

async fn read_exact(conn: &net::Conn, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    let mut at = 0;
    while at < n {
        let got = within(conn.read(&mut bytes[at..])).await.unwrap();
        assert!(got > 0, "the connection ended after {at} of {n} bytes");
        at += got;
    }
    bytes
}

/// Encodes a header or signal of GT/1.
fn encode_gt1(head: impl Into<Header>) -> Vec<u8> {
    Version::One.encode(head).as_slice().to_vec()
}

/// Returns the header of a stream's first frame in GT/1.
fn open_head(stream_id: u32, len: u32) -> Header {
    Header::Open {
        stream_id: StreamId(stream_id),
        service: ServiceIndex(7),
        window: 0,
        len,
    }
}

fn data_head(stream_id: u32, len: u32) -> Header {
    let stream_id = StreamId(stream_id);
    Header::Data { stream_id, len }
}

fn close_head(stream_id: u32) -> Header {
    let stream_id = StreamId(stream_id);
    Header::Close { stream_id }
}

/// Returns bytes that depend on position and `seed`.
fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn bytes_of_many_streams_arrive_whole_both_ways() {
    both(|version| async move {
        let (server, client) = ends_of(version);
        let lengths = [0, 1, 4095, 70_000, 1_000_000];
        let senders = lengths.into_iter().zip(1u32..).map(|(len, id)| {
            let mut stream = server.open(id);
            stream.announce();
            task::spawn(async move {
                stream.write_all(&noise(id, len)).await.unwrap();
                let mut back = vec![0; len];
                stream.read_exact(&mut back).await.unwrap();
                assert!(back == noise(!id, len), "stream {id}");
            })
        });
        let senders: Vec<_> = senders.collect();
        for _ in lengths {
            let mut stream = client.opened().await;
            // Over QUIC they may come in another order.
            let id = stream.id().0;
            let len = lengths[usize::try_from(id - 1).unwrap()];
            task::spawn(async move {
                let mut bytes = vec![0; len];
                stream.read_exact(&mut bytes).await.unwrap();
                assert!(bytes == noise(id, len), "stream {id}");
                stream.write_all(&noise(!id, len)).await.unwrap();
                // The other side ends the stream.
                assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
            });
        }
        for sender in senders {
            within(sender).await;
        }
        until(|| client.tunnel.streams() == 0).await;
    });
}

#[test]
fn the_end_of_a_stream_comes_behind_its_bytes() {
    task::block_on(async {
        let (server, client) = ends();
        let mut stream = server.open(1);
        let bytes = noise(1, 200_000);
        let (sent, all) = (bytes.clone(), bytes.len());
        task::spawn(async move { stream.write_all(&sent).await.unwrap() });
        let mut stream = client.opened().await;
        // The reader is late; the stream has ended long before.
        until(|| stream.has_ended()).await;
        let mut got = Vec::new();
        assert_eq!(within(stream.read_to_end(&mut got)).await.unwrap(), all);
        assert!(got == bytes);
    });
}

#[test]
fn a_reader_that_waits_bounds_what_the_sender_can_push() {
    task::block_on(async {
        let (server, client) = ends();
        let mut sender = server.open(1);
        let total = 64 * 1024 * 1024;
        let pushed = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = pushed.clone();
        let sending = task::spawn(async move {
            let piece = noise(1, 32 * 1024);
            while count.fetch_add(piece.len(), std::sync::atomic::Ordering::SeqCst) < total {
                sender.write_all(&piece).await.unwrap();
            }
        });
        let mut stream = client.opened().await;
        let backlog = || stream.backlog_len();
        until(|| backlog() > 256 * 1024).await;
        let limit = 256 * 1024 + net::READ;
        assert!(backlog() <= limit, "{} bytes wait", backlog());
        assert!(pushed.load(std::sync::atomic::Ordering::SeqCst) < total);
        let mut got = 0;
        let mut piece = vec![0; 100_000];
        while got < total {
            let n = within(stream.read(&mut piece)).await.unwrap();
            let expected = noise(1, 32 * 1024);
            let first = (got % expected.len()).min(expected.len());
            assert_eq!(piece[0], expected[first], "at {got}");
            got += n;
            assert!(stream.backlog_len() <= limit);
        }
        within(sending).await;
    });
}

#[test]
fn an_idle_tunnel_holds_no_buffer() {
    both(|version| async move {
        let (server, client) = ends_of(version);
        let mut here = server.open(1);
        here.write_all(b"hello").await.unwrap();
        let mut there = client.opened().await;
        let mut bytes = [0; 5];
        within(there.read_exact(&mut bytes)).await.unwrap();
        there.write_all(&bytes).await.unwrap();
        within(here.read_exact(&mut bytes)).await.unwrap();
        until(|| {
            let idle = |end: &End| inside(end).outbox.memory() == 0;
            idle(&server) && idle(&client) && there.backlog_len() == 0
        })
        .await;
    });
}

#[test]
fn a_stream_dropped_on_one_side_ends_on_the_other() {
    both(|version| async move {
        let (server, client) = ends_of(version);
        let stream = server.open(1);
        stream.announce();
        let mut there = client.opened().await;
        drop(stream);
        assert_eq!(within(there.read(&mut [0])).await.unwrap(), 0);
        drop(there);
        // Bytes for an unknown stream are ignored.
        let mut again = server.open(2);
        again.write_all(b"x").await.unwrap();
        drop(client.opened().await);
        until(|| again.has_ended()).await;
        assert_eq!((server.tunnel.streams(), client.tunnel.streams()), (1, 0));
    });
}

#[test]
fn a_graceful_end_lets_streams_finish_and_takes_no_new_ones() {
    both(|version| async move {
        let (server, client) = ends_of(version);
        let mut stream = server.open(1);
        stream.announce();
        let mut there = client.opened().await;
        client.tunnel.close();
        assert!(matches!(server.event().await, Event::Close));
        assert!(server.tunnel.open(StreamId(2), ServiceIndex(7)).is_none());
        stream.write_all(b"still here").await.unwrap();
        let mut bytes = [0; 10];
        within(there.read_exact(&mut bytes)).await.unwrap();
        there.write_all(b"bye").await.unwrap();
        drop(there);
        let mut rest = String::new();
        within(stream.read_to_string(&mut rest)).await.unwrap();
        assert_eq!(rest, "bye");
        drop(stream);
        for end in [&server, &client] {
            loop {
                match end.event().await {
                    Event::End(result) => break result.unwrap(),
                    Event::Close => {}
                    _ => panic!("nothing else was said"),
                }
            }
        }
    });
}

#[test]
fn the_closing_handshake_is_one_close_then_two() {
    task::block_on(async {
        let (server, wire) = end_and_wire();
        let close = encode_gt1(Signal::Close);
        server.tunnel.close();
        assert_eq!(read_exact(&wire, 4).await, close);
        wire.write_all(&close).await.unwrap();
        assert_eq!(read_exact(&wire, 8).await, close.repeat(2));
        assert_eq!(within(wire.read(&mut [0])).await.unwrap(), 0);
    });
}

#[test]
fn a_lost_tunnel_is_an_error_for_its_streams_not_an_end() {
    task::block_on(async {
        let (server, wire) = end_and_wire();
        let mut stream = server.tunnel.open(StreamId(1), ServiceIndex(0)).unwrap();
        stream.announce();
        read_exact(&wire, 12).await;
        drop(wire);
        let error = within(stream.read(&mut [0])).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert!(matches!(server.event().await, Event::End(Err(_))));
    });
}

#[test]
fn frames_are_parsed_however_they_are_cut() {
    task::block_on(async {
        let (client, wire) = client_and_wire(10);
        let mut bytes = Vec::new();
        let payload = noise(3, 1000);
        for head in [open_head(1, 1000), data_head(9, 1000), data_head(1, 1000)] {
            bytes.extend(encode_gt1(head));
            bytes.extend_from_slice(&payload);
        }
        bytes.extend([encode_gt1(Signal::Ready), encode_gt1(close_head(1))].concat());
        for piece in bytes.chunks(7) {
            wire.write_all(piece).await.unwrap();
        }
        let mut stream = client.opened().await;
        let mut got = Vec::new();
        within(stream.read_to_end(&mut got)).await.unwrap();
        assert!(got == payload.repeat(2));
        assert!(matches!(client.event().await, Event::Signal(Signal::Ready)));
    });
}

#[test]
fn garbage_ends_the_tunnel_with_a_reason() {
    task::block_on(async {
        let (server, wire) = end_and_wire();
        wire.write_all(&[0xFF, 0xFF, 0xFF, 0x00]).await.unwrap();
        let Event::End(Err(e)) = server.event().await else {
            panic!("it goes on");
        };
        assert!(e.to_string().contains("unknown signal"), "{e}");
    });
}

#[test]
fn more_streams_than_allowed_are_closed_at_once() {
    task::block_on(async {
        let (client, wire) = client_and_wire(1);
        for stream_id in 1..=2 {
            let head = encode_gt1(open_head(stream_id, 0));
            wire.write_all(&head).await.unwrap();
        }
        let _first = client.opened().await;
        assert_eq!(read_exact(&wire, 6).await, encode_gt1(close_head(2)));
    });
}

#[test]
fn a_peer_that_does_not_read_its_answers_is_not_read() {
    task::block_on(async {
        let (socket, wire) = sockets();
        let wire = Arc::new(net::Conn::from(wire));
        let policy = Policy::new(Version::One, PeerRole::Client, Duration::from_secs(1));
        let (tunnel, mut inbox) = Tunnel::new(Arc::new(socket.into()), Vec::new(), policy);
        let state = tunnel.0.clone();
        // As a session does: each event is answered before the next one is asked for.
        task::spawn(async move {
            loop {
                match inbox.next().await {
                    // A long answer, as if the peer had asked for more than a ping.
                    Event::Ping => tunnel.send_bytes(&[0xFF; 64 * 1024]),
                    Event::End(_) => return,
                    _ => {}
                }
            }
        });
        let flood = encode_gt1(Signal::Ping).repeat(4096);
        let flooding = async {
            // Until both kernels' buffers are full too.
            loop {
                wire.write_all(&flood).await.unwrap();
            }
        };
        let waiting = until(|| lock(&state).outbox.is_flooded());
        future::or(flooding, waiting).await;
        let most = outbox::FLOODED + 64 * 1024;
        let held = lock(&state).outbox.len();
        assert!(held <= most, "{held} bytes");
    });
}

#[test]
fn a_visitor_that_has_ended_its_direction_still_gets_the_answer() {
    both(|version| async move {
        let (server, client) = ends_of(version);
        let (relay, visitor) = relayed(&server);
        visitor.write_all(b"question").await.unwrap();
        visitor_end(&visitor).await;
        let mut there = client.opened().await;
        let mut bytes = [0; 8];
        within(there.read_exact(&mut bytes)).await.unwrap();
        there.write_all(b"answer").await.unwrap();
        drop(there);
        assert_eq!(read_exact(&visitor, 6).await, b"answer");
        assert_eq!(within(visitor.read(&mut [0])).await.unwrap(), 0);
        assert_eq!(within(relay).await, RelayOutcome::Done);
    });
}

#[test]
fn the_rest_of_an_answer_that_a_speed_limit_holds_up_is_waited_for() {
    task::block_on(async {
        let (here, there) = sockets();
        let bucket = |rate| Arc::new(TokenBucket::new(rate));
        let speed = SpeedLimit {
            send: bucket(1_000_000),
            receive: bucket(10_000),
        };
        let policy = Policy {
            speed: Some(speed),
            ..Policy::new(Version::One, PeerRole::Client, Duration::from_secs(60))
        };
        let server = End::with(here, policy);
        let wire = net::Conn::from(there);
        let (_relay, visitor) = relayed(&server);
        let other = server.open(2);
        other.announce();
        visitor.write_all(b"question").await.unwrap();
        visitor_end(&visitor).await;
        let frame = |stream_id, payload: &[u8]| {
            let head = encode_gt1(data_head(stream_id, payload.len() as u32));
            [&head, payload].concat()
        };
        // These bytes take twice as long as a visitor that has ended its direction is kept.
        let bytes = [
            frame(1, b"an"),
            frame(2, &noise(2, 40_000)),
            frame(1, b"swer"),
        ];
        wire.write_all(&bytes.concat()).await.unwrap();
        assert_eq!(read_exact(&visitor, 6).await, b"answer");
    });
}

#[test]
fn an_idle_visitor_sees_an_end_and_one_of_a_silent_tunnel_a_reset() {
    task::block_on(async {
        for is_silent in [false, true] {
            let (server, wire) = end_and_wire();
            let (accepted, visitor) = sockets();
            let stream = server.open(1);
            stream.limit_idle(Some(Duration::from_millis(600)), false);
            let relay = Relay::visitor(stream, Arc::new(accepted.into()), true);
            let relay = task::spawn(relay);
            let visitor = net::Conn::from(visitor);
            visitor.write_all(b"question").await.unwrap();
            let answer = [&encode_gt1(data_head(1, 6)), &b"answer"[..]].concat();
            wire.write_all(&answer).await.unwrap();
            assert_eq!(read_exact(&visitor, 6).await, b"answer");
            let speaking = async {
                loop {
                    if !is_silent {
                        wire.write_all(&encode_gt1(Signal::Ping)).await.unwrap();
                    }
                    Timer::after(Duration::from_millis(50)).await;
                }
            };
            let ended = async { within(visitor.read(&mut [0])).await.map_err(|e| e.kind()) };
            let ended = future::or(ended, speaking).await;
            match is_silent {
                false => assert_eq!(ended, Ok(0)),
                true => assert_eq!(ended, Err(std::io::ErrorKind::ConnectionReset)),
            }
            drop(relay);
        }
    });
}

async fn visitor_end(visitor: &net::Conn) {
    std::future::poll_fn(|cx| visitor.poll_shutdown(cx))
        .await
        .unwrap();
}

/// Checks that the relay leaves its visitor to the caller, for this reason.
async fn expect_unanswered(stream: Stream, reason: CloseReason) {
    let (_visitor, accepted) = sockets();
    let relay = Relay::visitor(stream, Arc::new(accepted.into()), true);
    assert_eq!(within(relay).await, RelayOutcome::Unanswered(reason));
}

#[test]
fn a_visitor_of_a_silent_service_is_left_to_the_caller() {
    both(|version| async move {
        let (server, client) = ends_of(version);
        let stream = server.open(1);
        stream.announce();
        drop(client.opened().await);
        expect_unanswered(stream, CloseReason::Closed).await;
    });
}

#[test]
fn a_silent_stream_ends_at_its_limit() {
    both(|version| async move {
        let (server, client) = ends_of(version);
        let stream = server.open(1);
        stream.announce();
        stream.limit_idle(Some(Duration::from_millis(300)), false);
        let _there = client.opened().await;
        expect_unanswered(stream, CloseReason::TimedOut).await;
    });
}

#[test]
fn one_way_traffic_counts_as_silence_only_if_configured() {
    let limit = Duration::from_millis(300);
    both(|version| async move {
        let (server, client) = ends_of(version);
        let [mut patient, mut strict] = [1, 2].map(|stream_id| server.open(stream_id));
        patient.limit_idle(Some(limit), false);
        strict.limit_idle(Some(limit), true);
        // The peer receives all the time and sends nothing.
        let begun = std::time::Instant::now();
        within(async {
            while !strict.has_ended() || begun.elapsed() < 3 * limit {
                patient.write_all(b"x").await.unwrap();
                let _ = strict.write_all(b"x").await;
                Timer::after(limit / 10).await;
            }
        })
        .await;
        assert!(!patient.has_ended());
        drop(client);
    });
}

#[test]
fn a_limited_tunnel_keeps_its_rate_and_loses_nothing() {
    task::block_on(async {
        let (here, there) = sockets();
        let bucket = || Arc::new(TokenBucket::new(2_000_000));
        let speed = SpeedLimit {
            send: bucket(),
            receive: bucket(),
        };
        let policy = Policy {
            speed: Some(speed),
            ..Policy::new(Version::One, PeerRole::Client, Duration::from_secs(1))
        };
        let server = End::with(here, policy);
        let client = End::new(there, PeerRole::Server { streams: 1 });
        let mut stream = server.open(1);
        stream.announce();
        let len = 600_000;
        let mut echo = client.opened().await;
        let begun = std::time::Instant::now();
        task::spawn(async move {
            let mut bytes = vec![0; len];
            echo.read_exact(&mut bytes).await.unwrap();
            echo.write_all(&bytes).await.unwrap();
            assert_eq!(echo.read(&mut [0]).await.unwrap(), 0);
        });
        stream.write_all(&noise(1, len)).await.unwrap();
        let mut bytes = vec![0; len];
        within(stream.read_exact(&mut bytes)).await.unwrap();
        assert!(bytes == noise(1, len));
        // 600 KB at 2 MB/s, there and back, less a burst of 100 ms each.
        assert!(
            begun.elapsed() >= Duration::from_millis(400),
            "{:?}",
            begun.elapsed()
        );
    });
}

#[test]
fn a_relay_is_small() {
    let size = std::mem::size_of::<Relay>();
    assert!(size <= 96, "a relay takes {size} bytes");
    let size = std::mem::size_of::<StreamState>();
    assert!(size <= 192, "a stream's state takes {size} bytes");
}

#[test]
fn an_ended_stream_with_a_full_backlog_does_not_stall_the_tunnel() {
    task::block_on(async {
        let (client, wire) = client_and_wire(10);
        let mut bytes = Vec::new();
        for stream_id in 1..=2 {
            bytes.extend(encode_gt1(open_head(stream_id, 0)));
        }
        // Almost fill the backlog of the first stream, which is never read.
        let data = |len: u32| {
            let mut bytes = encode_gt1(data_head(1, len));
            bytes.resize(bytes.len() + len as usize, 1);
            bytes
        };
        bytes.extend(data(250 * 1024));
        let writing = wire.clone();
        task::spawn(async move { writing.write_all(&bytes).await.unwrap() });
        let (first, mut second) = (client.opened().await, client.opened().await);
        until(|| first.backlog_len() == 250 * 1024).await;
        // The frame that fills it and the end of the stream come in one read.
        let mut last = data(20 * 1024);
        last.extend(encode_gt1(close_head(1)));
        wire.write_all(&last).await.unwrap();
        until(|| first.has_ended()).await;
        assert_eq!(first.backlog_len(), 270 * 1024);
        wire.write_all(&encode_gt1(data_head(2, 5))).await.unwrap();
        wire.write_all(b"hello").await.unwrap();
        let mut got = [0; 5];
        within(second.read_exact(&mut got)).await.unwrap();
        assert_eq!(&got, b"hello");
    });
}

#[test]
fn the_sum_of_backlogs_is_bounded_and_stuck_readers_are_cut() {
    task::block_on(async {
        let (client, wire) = client_and_wire(100);
        let sending = wire.clone();
        task::spawn(async move {
            for stream_id in 1..=40 {
                let len = 200 * 1024;
                let head = encode_gt1(open_head(stream_id, len));
                sending.write_all(&head).await.unwrap();
                sending.write_all(&vec![1; len as usize]).await.unwrap();
            }
        });
        let mut streams = Vec::new();
        until(|| inside(&client).is_stalled()).await;
        let held = inside(&client).waiting;
        assert!(held <= 4 * 1024 * 1024 + net::READ, "{held} bytes wait");
        // Streams that are not read are cut, and in the end all others have been served.
        while streams.len() < 40 {
            let mut stream = client.opened().await;
            let mut first = [0; 1];
            if streams.len() < 30 {
                within(stream.read_exact(&mut first)).await.unwrap();
                streams.push(None);
            } else {
                streams.push(Some(stream));
            }
        }
        // The count is exact.
        until(|| {
            let waiting: usize = streams.iter().flatten().map(Stream::backlog_len).sum();
            waiting == 10 * 200 * 1024 && inside(&client).waiting == waiting
        })
        .await;
    });
}

#[test]
fn a_half_closed_visitor_that_reads_slowly_gets_every_byte() {
    both(|version| async move {
        let (server, client) = ends_of(version);
        let (relay, visitor) = relayed(&server);
        visitor.write_all(b"question").await.unwrap();
        visitor_end(&visitor).await;
        let mut there = client.opened().await;
        let answer = noise(5, 8 * 1024 * 1024);
        let sent = answer.clone();
        task::spawn(async move {
            there.write_all(&sent).await.unwrap();
        });
        let mut got = 0;
        let mut piece = vec![0; 1024 * 1024];
        let mut pauses = 0;
        while got < answer.len() {
            if pauses < 2 && got > pauses * 2_000_000 {
                // Longer than the timeout for an answer when nothing is in flight.
                Timer::after(Duration::from_millis(2500)).await;
                pauses += 1;
            }
            let n = within(visitor.read(&mut piece)).await.unwrap();
            assert!(n > 0, "the end after {got} bytes");
            assert!(piece[..n] == answer[got..got + n], "at {got}");
            got += n;
        }
        assert_eq!(within(relay).await, RelayOutcome::Done);
    });
}

#[test]
fn a_flood_of_pings_does_not_starve_other_tasks() {
    task::block_on(async {
        let (here, there) = sockets();
        let policy = Policy::new(Version::One, PeerRole::Client, Duration::from_secs(60));
        let (_tunnel, mut inbox) = Tunnel::new(Arc::new(here.into()), Vec::new(), policy);
        let wire: net::Conn = there.into();
        let close_then_ping = [encode_gt1(Signal::Ping), encode_gt1(close_head(1))].concat();
        task::spawn(
            async move { while wire.write_all(&close_then_ping.repeat(64)).await.is_ok() {} },
        );
        // One poll of this future must not run for ever.
        let mut events = 0u32;
        let mut polls = 0u32;
        let mut flooded = Box::pin(async {
            loop {
                inbox.next().await;
                events += 1;
            }
        });
        std::future::poll_fn(|cx| {
            assert!(std::future::Future::poll(flooded.as_mut(), cx).is_pending());
            polls += 1;
            if polls < 200 {
                std::task::Poll::Pending
            } else {
                std::task::Poll::Ready(())
            }
        })
        .await;
        drop(flooded);
        assert!(events <= polls * 40, "{events} events in {polls} polls");
    });
}
