//! Tunnels that only wait: their sessions are woken when something can be due, and not before.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
/// Length of a ping of GT/2, in bytes.
const PING: usize = 16;

/// A tunnel whose session is the test.
fn tunnel() -> (Tunnel, Inbox, Socket) {
    let (here, there) = sockets();
    let policy = Policy {
        credit: FIRST_WINDOW,
        ..Policy::new(Version::Two, PeerRole::Client, Duration::from_secs(1))
    };
    let (tunnel, inbox) = Tunnel::new(Arc::new(here.into()), Vec::new(), policy);
    (tunnel, inbox, there)
}

async fn tick(inbox: &mut Inbox) {
    let event = within(inbox.next()).await;
    assert!(matches!(event, Event::Tick), "another event than a tick");
}

/// Lets the tunnel rest, and checks that `stir` ends that.
async fn is_stirred(stir: impl FnOnce(&Tunnel)) {
    let (tunnel, mut inbox, _peer) = tunnel();
    tick(&mut inbox).await;
    inbox.rest(HOUR);
    assert!(lock(&tunnel.0).rests);
    assert!(future::poll_once(inbox.next()).await.is_none());
    stir(&tunnel);
    assert!(!lock(&tunnel.0).rests);
    tick(&mut inbox).await;
}

#[test]
fn a_tunnel_that_rests_is_checked_again_once_it_is_used() {
    task::block_on(async {
        is_stirred(|tunnel| {
            // Without an owner it would end at once.
            std::mem::forget(tunnel.open(StreamId(1), ServiceIndex(0)));
        })
        .await;
        is_stirred(Tunnel::close).await;
        is_stirred(Tunnel::end_rest).await;
    });
}

#[test]
fn a_tunnel_in_use_does_not_rest() {
    task::block_on(async {
        let (tunnel, mut inbox, _peer) = tunnel();
        let stream = tunnel.open(StreamId(1), ServiceIndex(0)).unwrap();
        inbox.rest(HOUR);
        tick(&mut inbox).await;
        drop(stream);
        inbox.rest(Duration::ZERO);
        tick(&mut inbox).await;
        tunnel.close();
        inbox.rest(HOUR);
        tick(&mut inbox).await;
    });
}

#[test]
fn a_tunnel_that_may_not_read_is_checked_again() {
    task::block_on(async {
        let (here, there) = sockets();
        let bucket = Arc::new(TokenBucket::new(1));
        // Another tunnel of the user has taken all that there is.
        bucket.take(1000);
        let policy = Policy {
            speed: Some(SpeedLimit {
                send: Arc::new(TokenBucket::new(0)),
                receive: bucket,
            }),
            ..Policy::new(Version::One, PeerRole::Client, Duration::from_secs(1))
        };
        let (tunnel, mut inbox) = Tunnel::new(Arc::new(here.into()), Vec::new(), policy);
        inbox.rest(HOUR);
        assert!(lock(&tunnel.0).rests);
        // A ping.
        let peer = net::Conn::from(there);
        peer.write_all(&[0xFF; 4]).await.unwrap();
        tick(&mut inbox).await;
        assert!(inbox.is_held_back() && !lock(&tunnel.0).rests);
    });
}

#[test]
fn a_stream_that_the_peer_opens_ends_the_rest() {
    task::block_on(async {
        let (server, client) = sockets();
        let policy = |peer| Policy {
            credit: FIRST_WINDOW,
            ..Policy::new(Version::Two, peer, Duration::from_secs(1))
        };
        let server = End::with(server, policy(PeerRole::Client));
        let policy = policy(PeerRole::Server { streams: 9 });
        let (tunnel, mut inbox) = Tunnel::new(Arc::new(client.into()), Vec::new(), policy);
        tick(&mut inbox).await;
        inbox.rest(HOUR);
        let stream = server.open(1);
        stream.announce();
        let Event::Opened(_opened, _) = within(inbox.next()).await else {
            panic!("another event than the stream");
        };
        assert!(!lock(&tunnel.0).rests);
        tick(&mut inbox).await;
    });
}

/// Whether the outbox has everything sent, with or without a writer.
fn is_idle(tunnel: &Tunnel) -> bool {
    lock(&tunnel.0).outbox.is_idle()
}

#[test]
fn a_tunnel_that_only_waits_has_a_writer_while_there_is_something_to_send() {
    task::block_on(async {
        let (tunnel, mut inbox, peer) = tunnel();
        let peer = net::Conn::from(peer);
        let mut ping = [0; PING];
        // The first measurement of the round trip.
        within(peer.read(&mut ping)).await.unwrap();
        for _ in 0..3 {
            tick(&mut inbox).await;
            inbox.rest(HOUR);
            until(|| !lock(&tunnel.0).outbox.has_writer()).await;
            // Without a stream, it ends when it has sent.
            tunnel.ping();
            within(peer.read(&mut ping)).await.unwrap();
            until(|| !lock(&tunnel.0).outbox.has_writer()).await;
            assert!(is_idle(&tunnel));
            // After a stream it stays until the tunnel rests.
            let stream = tunnel.open(StreamId(1), ServiceIndex(0)).unwrap();
            stream.announce();
            within(peer.read(&mut [0; 100])).await.unwrap();
            until(|| is_idle(&tunnel)).await;
            drop(stream);
            within(peer.read(&mut [0; 100])).await.unwrap();
            until(|| is_idle(&tunnel)).await;
            assert!(lock(&tunnel.0).outbox.has_writer());
        }
    });
}

#[test]
fn frames_that_come_while_a_writer_ends_are_sent() {
    task::block_on(async {
        let (tunnel, _inbox, peer) = tunnel();
        let peer = net::Conn::from(peer);
        let mut sent = 1;
        for _ in 0..1000 {
            // The writer, on another thread, is ending or not.
            tunnel.ping();
            sent += 1;
        }
        let mut came = 0;
        while came < sent * PING {
            came += within(peer.read(&mut [0; 1000])).await.unwrap();
        }
        assert_eq!(came, sent * PING);
    });
}

#[test]
fn a_tunnel_that_rests_ends_in_good_order() {
    task::block_on(async {
        let (tunnel, mut inbox, peer) = tunnel();
        tick(&mut inbox).await;
        inbox.rest(HOUR);
        until(|| !lock(&tunnel.0).outbox.has_writer()).await;
        tunnel.finish();
        let end = async { while !matches!(inbox.next().await, Event::End(Ok(()))) {} };
        within(end).await;
        let peer = net::Conn::from(peer);
        let mut bytes = [0; 100];
        while within(peer.read(&mut bytes)).await.unwrap() > 0 {}
        assert!(!lock(&tunnel.0).outbox.has_writer());
    });
}

#[test]
#[cfg(feature = "server")]
fn a_notice_reaches_the_session_of_a_tunnel_that_may_not_read() {
    task::block_on(async {
        let (here, _peer) = sockets();
        let policy = Policy::new(Version::One, PeerRole::Client, Duration::from_secs(60));
        let (tunnel, mut inbox) = Tunnel::new(Arc::new(here.into()), Vec::new(), policy);
        // As if a backlog were.
        lock(&tunnel.0).full = 1;
        assert!(future::poll_once(inbox.next()).await.is_none());
        tunnel.notify();
        tunnel.notify();
        let event = within(inbox.next()).await;
        assert!(matches!(event, Event::Notice));
        assert!(
            future::poll_once(inbox.next()).await.is_none(),
            "one for both"
        );
    });
}
