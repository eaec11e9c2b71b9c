//! Tunnels whose streams are streams of QUIC: the tests of other tunnels, and what only these can meet.

use super::*;
use crate::net::quic::tests::{pair_with_streams, Line};
use crate::net::quic::{QuicStreamId, QuicStreams, ReadEnd, StreamNews, Urgency};
use crate::wire::frame::ResetCode;
use crate::wire::stream_header::{StreamHeader, StreamKind};
use std::cell::Cell;
use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::task::Poll;

thread_local! {
    static OVER_QUIC: Cell<bool> = const { Cell::new(false) };
}

/// Runs a test with all of its ends over QUIC.
pub fn over_quic(test: impl Fn()) {
    eprintln!("over QUIC");
    OVER_QUIC.set(true);
    test();
    OVER_QUIC.set(false);
}

/// Returns the ends of a server and a client if the test runs over QUIC.
pub fn ends() -> Option<(End, End)> {
    if !OVER_QUIC.get() {
        return None;
    }
    let (client, server) = future::block_on(pair_with_streams());
    raise_window(&server);
    let policy = |peer| Policy {
        credit: FIRST_WINDOW,
        ..Policy::new(Version::Two, peer, Duration::from_secs(1))
    };
    Some((
        End::with(server, policy(PeerRole::Client)),
        End::with(client, policy(PeerRole::Server { streams: 100 })),
    ))
}

fn raise_window(server: &net::Conn) {
    let net::Conn::Quic(stream) = server else {
        panic!("not QUIC");
    };
    stream.raise_window();
}

/// A peer that is written by hand: the first stream of its connection, and the further ones.
struct Peer {
    conn: net::Conn,
    streams: QuicStreams,
}

impl Peer {
    fn new(conn: net::Conn) -> Self {
        let net::Conn::Quic(stream) = &conn else {
            panic!("not QUIC");
        };
        let streams = stream.streams().unwrap();
        Self { conn, streams }
    }

    async fn signal(&self, head: impl Into<Header>) {
        let head = Version::Two.encode(head);
        self.conn.write_all(head.as_slice()).await.unwrap();
    }

    /// Waits for credit of stream 1 and returns its bytes.
    async fn credit(&self) -> usize {
        loop {
            let mut bytes = read_exact(&self.conn, 8).await;
            let length = usize::from(bytes[3]);
            bytes.extend(read_exact(&self.conn, length).await);
            if let Some((Header::Credit { bytes, .. }, _)) = Version::Two.parse(&bytes).unwrap() {
                return usize::try_from(bytes).unwrap();
            }
        }
    }

    /// Opens a stream that begins with these bytes.
    async fn open(&self, bytes: &[u8]) -> QuicStreamId {
        let id = loop {
            match self.streams.open() {
                Some(id) => break id,
                None => Timer::after(Duration::from_millis(1)).await,
            }
        };
        self.write(id, bytes);
        id
    }

    fn write(&self, id: QuicStreamId, bytes: &[u8]) {
        let written = self.streams.write(id, bytes, Urgency::Urgent).unwrap();
        assert_eq!(written, bytes.len());
    }

    async fn news(&self) -> StreamNews {
        within(poll_fn(|cx| self.streams.poll_news(cx))).await
    }

    /// Returns the code with which the peer reads no more of a stream.
    async fn stopped(&self, id: QuicStreamId) -> u64 {
        loop {
            if let StreamNews::Stopped(stopped, code) = self.news().await {
                assert_eq!(stopped, id);
                return code;
            }
        }
    }

    /// Reads a stream up to its end.
    async fn read(&self, id: QuicStreamId) -> (Vec<u8>, ReadEnd) {
        let (mut bytes, mut buf) = (Vec::new(), [0; 1000]);
        within(poll_fn(|cx| loop {
            let (n, end) = self.streams.read(id, &mut buf);
            bytes.extend_from_slice(&buf[..n]);
            match end {
                ReadEnd::More => {}
                ReadEnd::Blocked => {
                    if self.streams.poll_news(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                end => return Poll::Ready((std::mem::take(&mut bytes), end)),
            }
        }))
        .await
    }
}

/// Returns a client's end, and its server.
async fn client_and_peer() -> (End, Peer) {
    client_of(10).await
}

/// Returns the end of a client that takes this many streams, and its server.
async fn client_of(streams: u32) -> (End, Peer) {
    let (client, server) = pair_with_streams().await;
    client_over(client, server, streams)
}

/// Returns the end of a client that takes this many streams over a connection, and its server.
fn client_over(client: net::Conn, server: net::Conn, streams: u32) -> (End, Peer) {
    raise_window(&server);
    let policy = Policy::new(
        Version::Two,
        PeerRole::Server { streams },
        Duration::from_secs(60),
    );
    (End::with(client, policy), Peer::new(server))
}

fn header(stream_id: u32, registration: u16) -> StreamHeader {
    StreamHeader {
        kind: StreamKind::Connection,
        stream_id: StreamId(stream_id),
        registration,
        service: ServiceIndex(7),
        window: 1000,
    }
}

/// Returns the header of a stream and the bytes behind it.
fn begin(stream_id: u32, registration: u16, bytes: &[u8]) -> Vec<u8> {
    [&header(stream_id, registration).encode(), bytes].concat()
}

async fn expect_violation(client: &End, why: &str) {
    let Event::End(Err(e)) = client.event().await else {
        panic!("it goes on");
    };
    assert!(e.to_string().contains(why), "{e}");
}

#[test]
fn a_stream_waits_for_the_signal_that_its_services_are_of() {
    task::block_on(async {
        let (client, peer) = client_and_peer().await;
        // It is there before the server is ready, and one even before the next change.
        peer.open(&begin(2, 2, b"second")).await;
        peer.open(&begin(1, 1, b"first")).await;
        until(|| inside(&client).streamless_lanes() == 2).await;
        assert!(client.events.is_empty());
        peer.signal(Signal::Ready).await;
        assert!(matches!(client.event().await, Event::Signal(Signal::Ready)));
        let mut first = client.opened().await;
        let mut got = [0; 5];
        within(first.read_exact(&mut got)).await.unwrap();
        assert_eq!(&got, b"first");
        assert!(client.events.is_empty());
        peer.signal(Signal::Services).await;
        assert!(matches!(client.event().await, Event::Services(None)));
        let mut second = client.opened().await;
        let mut got = [0; 6];
        within(second.read_exact(&mut got)).await.unwrap();
        assert_eq!(&got, b"second");
        // One that the signal has overtaken is of the services before it; an older one is of none.
        peer.open(&begin(3, 1, b"late")).await;
        let Event::OpenedBefore(_late, ServiceIndex(7)) = client.event().await else {
            panic!("another event");
        };
        let older = peer.open(&begin(4, 0, b"too late")).await;
        let code = u64::from(ResetCode::UnknownService.code());
        assert_eq!(peer.stopped(older).await, code);
        assert_eq!(peer.read(older).await, (Vec::new(), ReadEnd::Reset(code)));
    });
}

#[test]
fn what_waits_for_a_signal_does_not_hold_the_window_of_the_connection() {
    task::block_on(async {
        let (client, peer) = client_of(100).await;
        // Together more than the window, which the signal that they wait for needs, too.
        let window = usize::try_from(FIRST_WINDOW).unwrap();
        let piece = noise(1, window);
        let count = 2 * 1024 * 1024 / FIRST_WINDOW;
        let mut ids = Vec::new();
        for number in 1..=count {
            let id = peer.open(&header(number, 1).encode()).await;
            let mut sent = 0;
            within(async {
                while sent < window {
                    match peer.streams.write(id, &piece[sent..], Urgency::Bulk) {
                        Ok(n) => sent += n,
                        // It was reset, since too many bytes wait.
                        Err(_) => return,
                    }
                    Timer::after(Duration::from_millis(1)).await;
                }
                peer.streams.finish(id);
            })
            .await;
            ids.push(id);
        }
        let held = 512 * 1024 / FIRST_WINDOW;
        let code = u64::from(ResetCode::Overloaded.code());
        for id in &ids[held as usize..] {
            assert_eq!(peer.read(*id).await, (Vec::new(), ReadEnd::Reset(code)));
        }
        peer.signal(Signal::Ready).await;
        assert!(matches!(client.event().await, Event::Signal(Signal::Ready)));
        // A reader may be as slow as it likes.
        let mut streams = Vec::new();
        for _ in 0..held {
            streams.push(client.opened().await);
        }
        for mut stream in streams {
            let mut got = Vec::new();
            within(stream.read_to_end(&mut got)).await.unwrap();
            assert!(got == piece);
        }
        assert!(client.events.is_empty());
        // One byte more than a stream may have.
        let id = peer.open(&begin(1, 2, &piece)).await;
        peer.write(id, b"!");
        expect_violation(&client, "more bytes for stream 1").await;
    });
}

#[test]
fn streams_whose_signal_does_not_come_are_reset() {
    task::block_on(async {
        let (client, peer) = client_and_peer().await;
        let id = peer.open(&begin(1, 1, b"early")).await;
        until(|| inside(&client).streamless_lanes() == 1).await;
        let now = clock::now();
        inside(&client).sweep(Tick::at(now));
        assert_eq!(inside(&client).streamless_lanes(), 1);
        inside(&client).sweep(Tick::at(now + Duration::from_secs(15)));
        assert_eq!(inside(&client).streamless_lanes(), 0);
        assert_eq!(peer.read(id).await, (Vec::new(), ReadEnd::Reset(1)));
    });
}

#[test]
fn streams_without_a_good_header_are_refused_or_end_the_tunnel() {
    task::block_on(async {
        let (client, peer) = client_and_peer().await;
        // A kind of a later version.
        let mut bytes = begin(1, 0, b"");
        bytes[0] = 9;
        let id = peer.open(&bytes).await;
        let code = u64::from(ResetCode::UnknownService.code());
        assert_eq!(peer.stopped(id).await, code);
        // One that ends within its header, and one that is cut there.
        let id = peer.open(&bytes[..5]).await;
        peer.streams.finish(id);
        assert_eq!(peer.read(id).await, (Vec::new(), ReadEnd::Reset(1)));
        let id = peer.open(&bytes[..5]).await;
        until(|| inside(&client).streamless_lanes() == 1).await;
        peer.streams.reset(id, 3);
        until(|| inside(&client).streamless_lanes() == 0).await;
        // A header in pieces.
        let bytes = begin(5, 0, b"whole");
        let id = peer.open(&bytes[..1]).await;
        for byte in &bytes[1..] {
            peer.write(id, &[*byte]);
            Timer::after(Duration::from_millis(1)).await;
        }
        let mut stream = client.opened().await;
        let mut got = [0; 5];
        within(stream.read_exact(&mut got)).await.unwrap();
        assert_eq!(&got, b"whole");
        // The number of an open stream.
        peer.open(&begin(5, 0, b"")).await;
        expect_violation(&client, "stream 5 is opened twice").await;

        let (client, peer) = client_and_peer().await;
        peer.open(&[0xAA, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await;
        expect_violation(&client, "stream id 0").await;
        let (client, peer) = client_and_peer().await;
        peer.signal(data_head(1, 10)).await;
        expect_violation(&client, "a stream of QUIC").await;
    });
}

#[test]
fn a_peer_that_exceeds_its_credit_over_quic_loses_the_tunnel() {
    task::block_on(async {
        let (client, peer) = client_and_peer().await;
        let window = usize::try_from(FIRST_WINDOW).unwrap();
        let id = peer.open(&begin(1, 0, &noise(1, window))).await;
        let stream = client.opened().await;
        until(|| stream.backlog_len() == window).await;
        peer.write(id, b"!");
        expect_violation(&client, "more bytes for stream 1").await;
    });
}

#[test]
fn ends_and_resets_are_those_of_quic_in_both_directions() {
    task::block_on(async {
        let (client, peer) = client_and_peer().await;
        // The client closes: it has sent everything and reads no more.
        let id = peer.open(&begin(1, 0, b"")).await;
        let mut stream = client.opened().await;
        stream.write_all(b"answer").await.unwrap();
        drop(stream);
        assert_eq!(peer.read(id).await, (b"answer".to_vec(), ReadEnd::Finished));
        // A reset with its reason.
        let id = peer.open(&begin(2, 0, b"")).await;
        let stream = client.opened().await;
        stream.fail(ResetCode::Unreachable);
        drop(stream);
        assert_eq!(peer.read(id).await, (Vec::new(), ReadEnd::Reset(2)));
        // The server resets, by either frame.
        for n in 0..2u32 {
            let id = peer.open(&begin(3 + n, 0, b"some")).await;
            let stream = client.opened().await;
            match n {
                0 => peer.streams.reset(id, 7),
                _ => peer.streams.stop(id, 7),
            }
            until(|| stream.is_reset()).await;
            let cut = stream.with_state(|stream| stream.cut()).flatten();
            assert_eq!(cut, Some(CloseReason::Reset(ResetCode::NotAllowed)));
        }
        // The server closes: what it has sent before is delivered.
        let id = peer.open(&begin(9, 0, b"all")).await;
        let mut stream = client.opened().await;
        peer.streams.stop(id, 0);
        until(|| peer_has_stopped(&stream)).await;
        peer.write(id, b" of it");
        peer.streams.finish(id);
        let mut got = Vec::new();
        within(stream.read_to_end(&mut got)).await.unwrap();
        assert_eq!(got, b"all of it");
        let cut = stream.with_state(|stream| stream.cut()).flatten();
        assert_eq!(cut, Some(CloseReason::Closed));
        drop(stream);
        until(|| client.tunnel.streams() == 0).await;
    });
}

#[test]
fn the_last_bytes_of_a_stream_that_has_ended_are_sent_as_soon_as_the_connection_takes_them() {
    task::block_on(async {
        let piece = noise(1, 32 * 1024);
        for closes in [true, false] {
            let (client, peer) = client_and_peer().await;
            let mut sent = Vec::new();
            let mut is_left = false;
            while !is_left {
                let number = u32::try_from(sent.len()).unwrap() + 1;
                let header = StreamHeader {
                    window: 32 * 1024,
                    ..header(number, 0)
                };
                let id = peer.open(&header.encode()).await;
                let mut stream = client.opened().await;
                let mut count = 0;
                while count < piece.len() {
                    match future::poll_once(stream.write(&piece[count..])).await {
                        Some(written) => count += written.unwrap(),
                        None => break,
                    }
                }
                sent.push((id, count));
                let unsent = stream.with_state(|it| it.lane.as_ref().unwrap().has_unsent());
                is_left = unsent == Some(true);
                if closes {
                    stream.close().await.unwrap();
                }
            }
            for (id, count) in sent {
                assert!(peer.read(id).await == (piece[..count].to_vec(), ReadEnd::Finished));
            }
            until(|| inside(&client).streamless_lanes() == 0).await;
        }
    });
}

fn peer_has_stopped(stream: &Stream) -> bool {
    let lane = |stream: &mut StreamState| stream.lane.as_ref().is_some_and(|it| it.is_stopped());
    stream.with_state(lane) == Some(true)
}

#[test]
fn a_tunnel_that_closes_waits_for_streams_that_are_on_the_way() {
    task::block_on(async {
        let (client, peer) = client_and_peer().await;
        // Two were opened before the close; the client has none yet.
        peer.signal(Header::StreamsOpened(2)).await;
        peer.signal(Signal::Close).await;
        assert!(matches!(client.event().await, Event::Close));
        let id = peer.open(&begin(1, 0, b"one")).await;
        drop(client.opened().await);
        assert_eq!(peer.read(id).await, (Vec::new(), ReadEnd::Finished));
        until(|| client.tunnel.streams() == 0).await;
        assert!(!client.tunnel.is_over());
        // The server's last word overtakes the second one's bytes.
        peer.signal(Signal::Close).await;
        assert!(matches!(client.event().await, Event::Close));
        let id = peer.open(&begin(2, 0, b"t")).await;
        let mut stream = client.opened().await;
        assert!(!client.tunnel.is_over());
        peer.write(id, b"wo");
        peer.streams.finish(id);
        let mut got = Vec::new();
        within(stream.read_to_end(&mut got)).await.unwrap();
        assert_eq!(got, b"two");
        let Event::End(Ok(())) = client.event().await else {
            panic!("it goes on");
        };
    });
}

#[test]
fn a_stream_that_may_not_be_opened_yet_is_announced_when_the_peer_allows_it() {
    task::block_on(async {
        let (client, server) = pair_with_streams().await;
        raise_window(&server);
        let peer = Peer::new(client);
        let policy = Policy {
            credit: 1000,
            ..Policy::new(Version::Two, PeerRole::Client, Duration::from_secs(60))
        };
        let server = End::with(server, policy);
        // As many as a client allows at first.
        let first: Vec<_> = (1..=64).map(|n| server.open(n)).collect();
        until(|| {
            first.iter().for_each(Stream::announce);
            inside(&server).streams.unannounced().count() == 0
        })
        .await;
        let silent = server.open(101);
        silent.announce();
        let mut speaking = server.open(102);
        let sending = task::spawn(async move {
            speaking.write_all(b"hello").await.unwrap();
            speaking
        });
        until(|| inside(&server).traffic.streams == 66).await;
        assert_eq!(inside(&server).streams.unannounced().count(), 2);
        peer.streams.accept_up_to(100);
        let accepting = async {
            let mut got = Vec::new();
            while got.len() < 66 {
                if let StreamNews::Opened(id) = peer.news().await {
                    got.push(id);
                }
            }
            got
        };
        let (ids, last) = future::zip(accepting, within(sending)).await;
        drop((first, last, silent));
        let mut got = Vec::new();
        for id in ids {
            let (bytes, end) = peer.read(id).await;
            assert_eq!(end, ReadEnd::Finished);
            let (head, rest) = bytes.split_first_chunk().unwrap();
            let stream_id = StreamHeader::parse(head).unwrap().stream_id.0;
            got.push((stream_id, rest.to_vec()));
        }
        got.sort();
        let last = [(101, Vec::new()), (102, b"hello".to_vec())];
        assert_eq!(got[64..], last);
    });
}

#[test]
fn a_stream_that_ends_before_it_may_be_opened_holds_up_none_behind_it() {
    task::block_on(async {
        let (client, server) = pair_with_streams().await;
        raise_window(&server);
        let peer = Peer::new(client);
        let policy = Policy::new(Version::Two, PeerRole::Client, Duration::from_secs(60));
        let server = End::with(server, policy);
        let first: Vec<_> = (1..=64).map(|n| server.open(n)).collect();
        until(|| {
            first.iter().for_each(Stream::announce);
            inside(&server).streams.unannounced().count() == 0
        })
        .await;
        let behind: Vec<_> = (101..=130).map(|n| server.open(n)).collect();
        behind.iter().for_each(Stream::announce);
        for stream in &behind[..29] {
            stream.with_state(|stream| stream.end(CloseReason::TimedOut));
        }
        peer.streams.accept_up_to(100);
        let mut count = 0;
        while count < 65 {
            if let StreamNews::Opened(_) = peer.news().await {
                count += 1;
            }
        }
        let is_announced = |stream: &mut StreamState| stream.unannounced.is_none();
        assert_eq!(behind[29].with_state(is_announced), Some(true));
    });
}

#[test]
fn a_peer_that_is_gone_is_noticed_after_bytes_have_moved() {
    task::block_on(async {
        let (client, server, line) = Line::between().await;
        raise_window(&server);
        let policy = |peer| Policy {
            credit: FIRST_WINDOW,
            ..Policy::new(Version::Two, peer, Duration::from_secs(1))
        };
        let client = End::with(client, policy(PeerRole::Server { streams: 10 }));
        let server = End::with(server, policy(PeerRole::Client));
        let mut sending = server.open(1);
        sending.write_all(b"hello").await.unwrap();
        let receiving = client.opened().await;
        until(|| receiving.backlog_len() == 5).await;
        let is_watched = |end: &End| inside(end).liveness.is_watched();
        // Nothing of the server arrives any more: neither answers to what the client has not sent, nor to its probe.
        line.longest.store(0, Ordering::SeqCst);
        until(|| is_watched(&client)).await;
        until(|| client.tunnel.lateness() == Lateness::Overdue).await;
        until(|| inside(&client).liveness.is_lost()).await;
        line.longest.store(usize::MAX, Ordering::SeqCst);
        until(|| !is_watched(&client)).await;
        assert_eq!(client.tunnel.lateness(), Lateness::InTime);
    });
}

#[test]
fn a_short_answer_does_not_wait_for_the_bytes_of_a_download() {
    task::block_on(async {
        let (client, server, line) = Line::between().await;
        let (client, peer) = client_over(client, server, 10);
        let header = |number| StreamHeader {
            window: 4 * 1024 * 1024,
            ..header(number, 0)
        };
        let asking = peer.open(&header(1).encode()).await;
        let mut answering = client.opened().await;
        peer.open(&header(2).encode()).await;
        let mut download = client.opened().await;
        // It has sent much for a keystroke, and is asked again.
        answering.write_all(&noise(1, 40 * 1024)).await.unwrap();
        peer.write(asking, b"?");
        until(|| answering.backlog_len() == 1).await;
        // Nothing is acknowledged any more, so that the connection takes little.
        line.longest.store(0, Ordering::SeqCst);
        let piece = noise(2, 64 * 1024);
        while future::poll_once(download.write(&piece)).await.is_some() {}
        for _ in 0..4 {
            let written = future::poll_once(answering.write(&piece[..2048])).await;
            assert_eq!(written.unwrap().unwrap(), 2048);
        }
        assert!(future::poll_once(download.write(&piece)).await.is_none());
    });
}

#[test]
fn a_lost_packet_of_one_stream_holds_up_no_other() {
    task::block_on(async {
        let (client, server, line) = Line::between().await;
        let (client, peer) = client_over(client, server, 10);
        let held = peer.open(&begin(1, 0, b"")).await;
        let stream = client.opened().await;
        let other = peer.open(&begin(2, 0, b"")).await;
        let passing = client.opened().await;
        // From now on, no packet with the large piece gets through.
        line.longest.store(500, Ordering::SeqCst);
        let lost = line.lost.load(Ordering::SeqCst);
        peer.write(held, &noise(1, 900));
        until(|| line.lost.load(Ordering::SeqCst) > lost).await;
        let mut sent = 0;
        while passing.backlog_len() < 10 {
            // One that goes with the large piece, which is sent again now and then, is lost, too.
            peer.write(other, b"!");
            sent += 1;
            Timer::after(Duration::from_millis(20)).await;
            assert!(sent < 500, "{} of {sent}", passing.backlog_len());
        }
        assert_eq!(stream.backlog_len(), 0);
        line.longest.store(usize::MAX, Ordering::SeqCst);
        until(|| stream.backlog_len() == 900).await;
        until(|| passing.backlog_len() == sent).await;
    });
}

#[test]
fn datagrams_reach_their_flow_and_others_are_dropped() {
    task::block_on(async {
        let (client, peer) = client_and_peer().await;
        let flow = StreamHeader {
            kind: StreamKind::Flow,
            window: 100_000,
            ..header(1, 0)
        };
        let record = |datagram: &[u8]| [&[0, datagram.len() as u8], datagram].concat();
        // A flow that is not known, and no flow at all.
        for number in [5u32, 77] {
            assert!(peer.streams.send_datagram([&number.to_be_bytes(), b"lost"]));
        }
        assert!(peer.streams.send_datagram([b"!!", b""]));
        let id = peer.open(&flow.encode()).await;
        let mut stream = client.opened().await;
        peer.write(id, &record(b"in the stream"));
        until(|| stream.backlog_len() == 15).await;
        // A record that has not come whole does not get in the way of a datagram.
        peer.write(id, &record(b"in two pieces")[..6]);
        assert!(peer.streams.send_datagram([&1u32.to_be_bytes(), b"alone"]));
        assert!(peer.streams.send_datagram([&1u32.to_be_bytes(), b""]));
        until(|| stream.backlog_len() == 15 + 7 + 2).await;
        peer.write(id, &record(b"in two pieces")[6..]);
        let expected = [
            record(b"in the stream"),
            record(b"alone"),
            record(b""),
            record(b"in two pieces"),
        ]
        .concat();
        let mut got = vec![0; expected.len()];
        within(stream.read_exact(&mut got)).await.unwrap();
        assert_eq!(got, expected);
        // What comes back is a DATAGRAM, unless it is too large.
        let large = noise(1, 2000);
        let large = [&[7, 208], &large[..]].concat();
        let answers = [record(b"answer"), large.clone(), record(b"more")];
        stream.write_all(&answers.concat()).await.unwrap();
        stream.close().await.unwrap();
        let mut came = Vec::new();
        while came.len() < 2 {
            if let StreamNews::Datagram(bytes) = peer.news().await {
                came.push(bytes.to_vec());
            }
        }
        assert_eq!(came, [&b"\0\0\0\x01answer"[..], b"\0\0\0\x01more"]);
        assert_eq!(peer.read(id).await, (large, ReadEnd::Finished));
    });
}

#[test]
fn the_first_datagrams_of_a_flow_go_in_its_stream_until_it_is_answered() {
    task::block_on(async {
        let (client, server) = pair_with_streams().await;
        raise_window(&server);
        let peer = Peer::new(client);
        let policy = Policy {
            credit: 1000,
            ..Policy::new(Version::Two, PeerRole::Client, Duration::from_secs(60))
        };
        let server = End::with(server, policy);
        let mut flow = server.open(1);
        flow.carry_datagrams();
        // The header can be lost, and the datagrams that follow it at once.
        flow.write_all(&[0, 2, 1, 1, 0, 2]).await.unwrap();
        flow.write_all(&[2, 2]).await.unwrap();
        let id = loop {
            if let StreamNews::Opened(id) = peer.news().await {
                break id;
            }
        };
        let mut bytes = Vec::new();
        while bytes.len() < 21 {
            let mut buf = [0; 100];
            match peer.streams.read(id, &mut buf) {
                (0, _) => drop(peer.news().await),
                (n, _) => bytes.extend_from_slice(&buf[..n]),
            }
        }
        let (head, rest) = bytes.split_first_chunk().unwrap();
        assert_eq!(StreamHeader::parse(head).unwrap().kind, StreamKind::Flow);
        assert_eq!(rest, [0, 2, 1, 1, 0, 2, 2, 2]);
        assert!(peer.streams.send_datagram([&1u32.to_be_bytes(), b"yes"]));
        let mut got = [0; 5];
        within(flow.read_exact(&mut got)).await.unwrap();
        assert_eq!(&got, b"\0\x03yes");
        flow.write_all(&[0, 1, 9]).await.unwrap();
        loop {
            if let StreamNews::Datagram(bytes) = peer.news().await {
                assert_eq!(&bytes[..], [0, 0, 0, 1, 9]);
                break;
            }
        }
    });
}

#[test]
fn a_datagram_that_is_larger_than_the_window_comes_whole() {
    task::block_on(async {
        let (client, peer) = client_and_peer().await;
        let flow = StreamHeader {
            kind: StreamKind::Flow,
            ..header(1, 0)
        };
        let window = usize::try_from(FIRST_WINDOW).unwrap();
        let record = [&60_000u16.to_be_bytes()[..], &noise(1, 60_000)].concat();
        let id = peer.open(&flow.encode()).await;
        let mut stream = client.opened().await;
        peer.write(id, &record[..window]);
        let mut sent = window;
        while sent < record.len() {
            let more = peer.credit().await.min(record.len() - sent);
            peer.write(id, &record[sent..sent + more]);
            sent += more;
        }
        let mut got = vec![0; record.len()];
        within(stream.read_exact(&mut got)).await.unwrap();
        assert!(got == record);
    });
}
