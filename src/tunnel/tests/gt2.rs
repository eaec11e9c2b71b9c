//! Tunnel behaviour that only GT/2 has.

use super::*;
use crate::wire::frame::{ResetCode, StreamId};

/// Encodes a whole frame.
fn frame(head: impl Into<Header>, payload: &[u8]) -> Vec<u8> {
    [Version::Two.encode(head).as_slice(), payload].concat()
}

/// Returns an end whose peer is a bare connection; the end may send 1000 bytes on streams of its
/// own.
fn end_and_wire_of(peer: PeerRole) -> (End, Arc<net::Conn>) {
    let (here, there) = sockets();
    let policy = Policy {
        credit: 1000,
        ..Policy::new(Version::Two, peer, Duration::from_secs(60))
    };
    (End::with(here, policy), Arc::new(there.into()))
}

const OF_CLIENT: PeerRole = PeerRole::Server { streams: 10 };

fn data(stream_id: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap();
    frame(data_head(stream_id, len), payload)
}

fn open(stream_id: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap();
    let head = Header::Open {
        stream_id: StreamId(stream_id),
        service: ServiceIndex(7),
        window: 1000,
        len,
    };
    frame(head, payload)
}

fn finish(stream_id: u32) -> Header {
    let stream_id = StreamId(stream_id);
    Header::Finish { stream_id }
}

fn reset(stream_id: u32, reason: ResetCode) -> Header {
    let stream_id = StreamId(stream_id);
    Header::Reset { stream_id, reason }
}

fn credit(stream_id: u32, bytes: u32) -> Header {
    let stream_id = StreamId(stream_id);
    Header::Credit { stream_id, bytes }
}

/// Sends whole frames, or parts of them.
async fn send(conn: &net::Conn, bytes: &[u8]) {
    conn.write_all(bytes).await.unwrap();
}

/// Sends a frame without a payload.
async fn send_head(conn: &net::Conn, head: impl Into<Header>) {
    send(conn, &frame(head, b"")).await;
}

/// Checks the header of the next frame.
async fn expect_head(conn: &net::Conn, head: Header) {
    assert_eq!(next_frame(conn).await.0, head);
}

/// Reads the next header and its payload, skipping pings.
async fn next_frame(conn: &net::Conn) -> (Header, Vec<u8>) {
    loop {
        let mut bytes = read_exact(conn, 8).await;
        let head = loop {
            match Version::Two.parse(&bytes).unwrap() {
                Some((head, _)) => break head,
                None => bytes.extend(read_exact(conn, 1).await),
            }
        };
        let len = match head {
            Header::Ping(_) => continue,
            Header::Data { len, .. } | Header::Open { len, .. } => len,
            _ => 0,
        };
        let payload = read_exact(conn, usize::try_from(len).unwrap()).await;
        return (head, payload);
    }
}

async fn expect_violation(end: &End, why: &str) {
    let Event::End(Err(e)) = end.event().await else {
        panic!("it goes on");
    };
    assert!(e.to_string().contains(why), "{e}");
}

#[test]
fn a_stopped_reader_costs_its_window_and_delays_no_other_stream() {
    both_ways(|| async {
        let (server, client) = ends_of(Version::Two);
        let mut lazy = server.open(1);
        lazy.announce();
        let mut lazy_there = client.opened().await;
        task::spawn(async move {
            // Sends as much as it may, then waits for ever.
            lazy_there
                .write_all(&noise(1, 8 * 1024 * 1024))
                .await
                .unwrap();
        });
        until(|| lazy.backlog_len() == 64 * 1024).await;
        // Megabytes pass on another stream.
        let len = 4 * 1024 * 1024;
        let mut quick = server.open(2);
        quick.announce();
        let mut there = client.opened().await;
        task::spawn(async move { there.write_all(&noise(2, len)).await.unwrap() });
        let mut got = vec![0; len];
        within(quick.read_exact(&mut got)).await.unwrap();
        assert!(got == noise(2, len));
        assert_eq!(lazy.backlog_len(), 64 * 1024, "its window, to the byte");
        assert_eq!(inside(&server).waiting, 64 * 1024);
        // When it reads again, everything arrives.
        let mut got = vec![0; 8 * 1024 * 1024];
        within(lazy.read_exact(&mut got)).await.unwrap();
        assert!(got == noise(1, 8 * 1024 * 1024));
    });
}

#[test]
fn a_sender_stops_at_its_credit_and_goes_on_with_more() {
    task::block_on(async {
        let (server, wire) = end_and_wire_of(PeerRole::Client);
        let mut stream = server.open(1);
        let sending = task::spawn(async move {
            stream.write_all(&noise(1, 5000)).await.unwrap();
            stream
        });
        let (head, mut got) = next_frame(&wire).await;
        let opened = Header::Open {
            stream_id: StreamId(1),
            service: ServiceIndex(7),
            window: 64 * 1024,
            len: 1000,
        };
        assert_eq!(head, opened);
        // The next frame answers this, so nothing was sent before.
        send_head(&wire, Header::Ping(9)).await;
        expect_head(&wire, Header::Pong(9)).await;
        for bytes in [1, 2000, 1999] {
            send_head(&wire, credit(1, bytes)).await;
            let (head, more) = next_frame(&wire).await;
            assert_eq!(head, data_head(1, bytes));
            got.extend(more);
        }
        assert!(got == noise(1, 5000));
        drop(within(sending).await);
        expect_head(&wire, close_head(1)).await;
    });
}

#[test]
fn credit_is_given_for_bytes_that_were_taken() {
    task::block_on(async {
        let (client, wire) = end_and_wire_of(OF_CLIENT);
        let half = usize::try_from(FIRST_WINDOW / 2).unwrap();
        send(&wire, &open(1, &noise(1, half))).await;
        send(&wire, &data(1, &noise(2, half))).await;
        let mut stream = client.opened().await;
        until(|| stream.backlog_len() == 2 * half).await;
        let mut got = vec![0; half];
        within(stream.read_exact(&mut got)).await.unwrap();
        let bytes = FIRST_WINDOW / 2;
        expect_head(&wire, credit(1, bytes)).await;
        // A smaller credit is sent along with the next answer.
        let mut got = vec![0; half / 2];
        within(stream.read_exact(&mut got)).await.unwrap();
        stream.write_all(b"answer").await.unwrap();
        assert_eq!(next_frame(&wire).await.1, b"answer");
        expect_head(&wire, credit(1, bytes / 2)).await;
    });
}

#[test]
fn a_peer_that_exceeds_its_credit_loses_the_tunnel() {
    task::block_on(async {
        let most = usize::try_from(FIRST_WINDOW).unwrap();
        let (client, wire) = end_and_wire_of(OF_CLIENT);
        send(&wire, &open(1, &noise(1, most))).await;
        let stream = client.opened().await;
        until(|| stream.backlog_len() == most).await;
        send(&wire, &data(1, b"x")).await;
        expect_violation(&client, "more bytes for stream 1 than its window allows").await;

        // The header alone is enough.
        let (client, wire) = end_and_wire_of(OF_CLIENT);
        let head = Header::Open {
            stream_id: StreamId(3),
            service: ServiceIndex(7),
            window: 0,
            len: FIRST_WINDOW + 1,
        };
        send(&wire, &frame(head, b"")).await;
        expect_violation(&client, "more bytes for stream 3").await;
    });
}

#[test]
fn a_peer_that_gives_too_much_credit_loses_the_tunnel() {
    task::block_on(async {
        let (client, wire) = end_and_wire_of(OF_CLIENT);
        send(&wire, &open(1, b"")).await;
        let _stream = client.opened().await;
        for bytes in [(1 << 31) - 1 - 1000, 1] {
            send_head(&wire, credit(1, bytes)).await;
        }
        expect_violation(&client, "more credit for stream 1").await;
    });
}

#[test]
fn frames_of_unknown_streams_and_later_versions_are_ignored() {
    task::block_on(async {
        let (client, wire) = end_and_wire_of(OF_CLIENT);
        let bytes = [
            data(99, b"hello"),
            frame(credit(99, 7), b""),
            frame(finish(99), b""),
            frame(reset(99, ResetCode::Aborted), b""),
            [&[0x7F, 0, 0x80, 0, 0, 0, 0, 0][..], &[0xAA; 0x8000]].concat(),
            frame(Header::Ping(5), b""),
        ]
        .concat();
        for piece in bytes.chunks(1009) {
            wire.write_all(piece).await.unwrap();
        }
        expect_head(&wire, Header::Pong(5)).await;
        wire.write_all(&[0x80, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
        expect_violation(&client, "unknown frame 0x80").await;
    });
}

#[test]
fn each_direction_ends_independently() {
    both_ways(|| async {
        let (server, client) = ends_of(Version::Two);
        let mut stream = server.open(1);
        stream.write_all(b"question").await.unwrap();
        stream.close().await.unwrap();
        assert!(stream.write_all(b"more").await.is_err(), "it has ended");
        let mut there = client.opened().await;
        let mut question = Vec::new();
        within(there.read_to_end(&mut question)).await.unwrap();
        assert_eq!(question, b"question");
        // Long after the end of the question.
        let answer = noise(3, 300_000);
        let sent = answer.clone();
        task::spawn(async move {
            there.write_all(&sent).await.unwrap();
            there.close().await.unwrap();
        });
        let mut got = Vec::new();
        within(stream.read_to_end(&mut got)).await.unwrap();
        assert!(got == answer);
        drop(stream);
        until(|| server.tunnel.streams() + client.tunnel.streams() == 0).await;
    });
}

#[test]
fn a_stream_that_ended_both_ways_needs_no_close_frame() {
    task::block_on(async {
        let (client, wire) = end_and_wire_of(OF_CLIENT);
        send(&wire, &open(1, b"")).await;
        send_head(&wire, finish(1)).await;
        let mut stream = client.opened().await;
        assert_eq!(within(stream.read(&mut [0])).await.unwrap(), 0);
        stream.close().await.unwrap();
        drop(stream);
        expect_head(&wire, finish(1)).await;
        send_head(&wire, Header::Ping(1)).await;
        expect_head(&wire, Header::Pong(1)).await;
    });
}

#[test]
fn a_reset_carries_its_reason_and_wakes_readers_and_writers_without_credit() {
    task::block_on(async {
        let (client, wire) = end_and_wire_of(OF_CLIENT);
        send(&wire, &open(1, b"")).await;
        let mut stream = client.opened().await;
        let writing = task::spawn(async move { stream.write_all(&noise(1, 9000)).await });
        assert_eq!(next_frame(&wire).await.1.len(), 1000);
        send_head(&wire, reset(1, ResetCode::Aborted)).await;
        assert!(within(writing).await.is_err());

        send(&wire, &open(2, b"")).await;
        let stream = client.opened().await;
        stream.fail(ResetCode::Unreachable);
        drop(stream);
        expect_head(&wire, reset(2, ResetCode::Unreachable)).await;
    });
}

#[test]
fn more_streams_than_allowed_are_refused_with_the_reason() {
    task::block_on(async {
        let (client, wire) = end_and_wire_of(PeerRole::Server { streams: 1 });
        for stream_id in 1..=2 {
            send(&wire, &open(stream_id, b"")).await;
        }
        let _first = client.opened().await;
        expect_head(&wire, reset(2, ResetCode::TooManyStreams)).await;
    });
}

/// Returns the relay of a visitor that gets an error page, the visitor, and the wire to its
/// service. The stream has been announced.
async fn asking() -> (
    task::JoinHandle<RelayOutcome>,
    net::Conn,
    Arc<net::Conn>,
    End,
) {
    let (server, wire) = end_and_wire_of(PeerRole::Client);
    let (visitor, accepted) = sockets();
    let stream = server.open(1);
    stream.announce();
    next_frame(&wire).await;
    let relay = task::spawn(Relay::visitor(stream, Arc::new(accepted.into()), true));
    (relay, visitor.into(), wire, server)
}

#[test]
fn a_reset_before_the_first_byte_is_left_to_the_caller() {
    task::block_on(async {
        for reason in [
            ResetCode::Unreachable,
            ResetCode::TimedOut,
            ResetCode::Other(77),
        ] {
            let (relay, _visitor, wire, _server) = asking().await;
            send_head(&wire, reset(1, reason)).await;
            let finish = RelayOutcome::Unanswered(CloseReason::Reset(reason));
            assert_eq!(within(relay).await, finish);
        }
        let (relay, _visitor, wire, _server) = asking().await;
        send_head(&wire, finish(1)).await;
        assert_eq!(
            within(relay).await,
            RelayOutcome::Unanswered(CloseReason::Finished)
        );
    });
}

#[test]
fn a_reset_after_the_first_byte_resets_the_visitor() {
    task::block_on(async {
        let (relay, visitor, wire, _server) = asking().await;
        send(&wire, &data(1, b"HTTP/1.1 200 OK")).await;
        read_exact(&visitor, 15).await;
        send_head(&wire, reset(1, ResetCode::Aborted)).await;
        let error = within(visitor.read(&mut [0])).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(within(relay).await, RelayOutcome::Done);
    });
}

#[test]
fn a_connection_that_is_reset_resets_the_stream() {
    task::block_on(async {
        let (_relay, visitor, wire, _server) = asking().await;
        visitor.reset_on_close();
        drop(visitor);
        expect_head(&wire, reset(1, ResetCode::Aborted)).await;
    });
}

#[test]
fn the_end_of_each_side_is_the_end_of_one_direction() {
    task::block_on(async {
        // The visitor ends first.
        let (relay, visitor, wire, _server) = asking().await;
        visitor.write_all(b"question").await.unwrap();
        visitor_end(&visitor).await;
        assert_eq!(next_frame(&wire).await.1, b"question");
        expect_head(&wire, finish(1)).await;
        let end = frame(finish(1), b"");
        send(&wire, &[data(1, b"answer"), end.clone()].concat()).await;
        assert_eq!(read_exact(&visitor, 6).await, b"answer");
        assert_eq!(within(visitor.read(&mut [0])).await.unwrap(), 0);
        assert_eq!(within(relay).await, RelayOutcome::Done);

        // The service ends first.
        let (relay, visitor, wire, _server) = asking().await;
        send(&wire, &[data(1, b"banner"), end].concat()).await;
        assert_eq!(read_exact(&visitor, 6).await, b"banner");
        assert_eq!(within(visitor.read(&mut [0])).await.unwrap(), 0);
        visitor.write_all(b"and yet").await.unwrap();
        assert_eq!(next_frame(&wire).await.1, b"and yet");
        visitor_end(&visitor).await;
        expect_head(&wire, finish(1)).await;
        assert_eq!(within(relay).await, RelayOutcome::Done);
    });
}

#[test]
fn a_half_closed_visitor_that_is_gone_is_detected() {
    both_ways(|| async {
        let (server, client) = ends_of(Version::Two);
        let (relay, visitor) = relayed(&server);
        visitor.write_all(b"question").await.unwrap();
        visitor_end(&visitor).await;
        let there = client.opened().await;
        until(|| there.with_state(|state| !state.expects_more()) == Some(true)).await;
        visitor.reset_on_close();
        drop(visitor);
        // Nothing is sent to it whose failure would show.
        assert_eq!(within(relay).await, RelayOutcome::Done);
    });
}

#[test]
fn excess_backlog_is_shed_from_the_reader_that_took_nothing_longest() {
    task::block_on(async {
        let (here, there) = sockets();
        let policy = Policy {
            backlogs: 100_000,
            ..Policy::new(Version::Two, OF_CLIENT, Duration::from_secs(60))
        };
        let client = End::with(here, policy);
        let wire: net::Conn = there.into();
        let len = 30_000;
        let mut streams = Vec::new();
        for stream_id in 1..=3 {
            send(&wire, &open(stream_id, &noise(stream_id, len))).await;
            streams.push(client.opened().await);
            until(|| streams[streams.len() - 1].backlog_len() == len).await;
            // A tick of the clock that measures how long readers have taken nothing.
            Timer::after(Duration::from_millis(250)).await;
        }
        send(&wire, &open(4, &noise(4, len))).await;
        let mut last = client.opened().await;
        until(|| streams[0].has_ended()).await;
        assert_eq!(inside(&client).waiting, 3 * len);
        let mut got = vec![0; len];
        within(last.read_exact(&mut got)).await.unwrap();
        assert!(got == noise(4, len));
        within(streams[1].read_exact(&mut got)).await.unwrap();
        assert!(got == noise(2, len));
        drop(streams);
        let mut resets = Vec::new();
        while resets.len() < 3 {
            match next_frame(&wire).await.0 {
                Header::Credit { .. } => {}
                head => resets.push(head),
            }
        }
        for head in [reset(1, ResetCode::Overloaded), close_head(2)] {
            assert!(resets.contains(&head), "{resets:?}");
        }
    });
}

#[test]
fn the_round_trip_is_measured_once_bytes_move() {
    task::block_on(async {
        let (server, client) = ends_of(Version::Two);
        until(|| server.tunnel.round_trip().is_some() && client.tunnel.round_trip().is_some())
            .await;
        let (server, client) = ends_of(Version::One);
        server.tunnel.ping();
        assert!(matches!(client.event().await, Event::Ping));
        assert_eq!(server.tunnel.round_trip(), None);
    });
}

#[test]
fn a_peer_is_not_silent_while_the_ping_waits_behind_a_speed_limit() {
    task::block_on(async {
        let send = Arc::new(TokenBucket::new(1));
        // At this rate nothing is sent for more than a day.
        send.take(100_000);
        let receive = Arc::new(TokenBucket::new(0));
        let policy = Policy {
            speed: Some(SpeedLimit { send, receive }),
            ..Policy::new(Version::Two, PeerRole::Client, Duration::from_secs(60))
        };
        let (here, _there) = sockets();
        let limited = End::with(here, policy);
        // The first round-trip measurement waits in the writer, the next ping behind it.
        until(|| inside(&limited).outbox.len() == 0).await;
        assert!(!limited.tunnel.is_silent());
        limited.tunnel.ping();
        assert!(limited.tunnel.owes_answer() && !limited.tunnel.is_silent());
        let tunnels = vec![limited.tunnel.clone()];
        assert!(find_dead(tunnels, Duration::ZERO).await.is_empty());

        // A ping that was sent and is not answered does count.
        let (server, _there) = end_and_wire_of(PeerRole::Client);
        server.tunnel.ping();
        until(|| server.tunnel.owes_answer() && server.tunnel.is_silent()).await;
    });
}
