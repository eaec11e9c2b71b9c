//! WebSockets against another implementation, the crate tungstenite.

use super::*;
use crate::net::{Socket, WakeCount};
use async_std::task::block_on;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;
use tungstenite::protocol::{Role, WebSocket};
use tungstenite::{Error, Message};

/// Returns an end of ours and the stream of its peer.
fn pair(side: Side, early: &[u8]) -> (Conn, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    theirs
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let ours = Socket::adopt(listener.accept().unwrap().0.into()).unwrap();
    (
        start(Arc::new(Conn::from(ours)), side, early.to_vec()),
        theirs,
    )
}

fn other(side: Side) -> Role {
    match side {
        Side::Client => Role::Server,
        Side::Server => Role::Client,
    }
}

const SIDES: [Side; 2] = [Side::Client, Side::Server];

fn read_all(conn: &Conn) -> io::Result<Vec<u8>> {
    let (mut all, mut buf) = (Vec::new(), [0; 1000]);
    loop {
        match block_on(conn.read(&mut buf))? {
            0 => return Ok(all),
            n => all.extend_from_slice(&buf[..n]),
        }
    }
}

#[test]
fn bytes_of_every_length_arrive_at_another_implementation_and_come_back() {
    for side in SIDES {
        let (ours, theirs) = pair(side, &[]);
        let peer = thread::spawn(move || {
            let mut peer = WebSocket::from_raw_socket(theirs, other(side), None);
            loop {
                match peer.read() {
                    // What it sends back comes in other messages than what it was sent.
                    Ok(Message::Binary(bytes)) => {
                        let (one, rest) = bytes.split_at(bytes.len() / 3);
                        peer.send(Message::binary(one.to_vec())).unwrap();
                        peer.send(Message::Ping(vec![b'p'; 125].into())).unwrap();
                        peer.send(Message::binary(rest.to_vec())).unwrap();
                    }
                    // The answers to its pings, and to its close.
                    Ok(Message::Pong(bytes)) => assert_eq!(bytes.len(), 125),
                    Ok(Message::Close(frame)) => assert_eq!(u16::from(frame.unwrap().code), 1000),
                    Err(Error::ConnectionClosed) => return,
                    other => panic!("{other:?}"),
                }
            }
        });
        let sent: Vec<u8> = (0..400_000u32).map(|n| (n / 7) as u8).collect();
        for length in [1, 125, 126, 127, 65535, 65536, 131_072, sent.len()] {
            let mut come = vec![0; length];
            block_on(async {
                let reading = async {
                    let mut at = 0;
                    while at < length {
                        let n = ours.read(&mut come[at..]).await.unwrap();
                        assert!(n > 0);
                        at += n;
                    }
                };
                let writing = async { ours.write_all(&sent[..length]).await.unwrap() };
                futures_lite::future::zip(reading, writing).await;
            });
            assert!(come == sent[..length], "{length}");
        }
        block_on(std::future::poll_fn(|cx| ours.poll_shutdown(cx))).unwrap();
        assert_eq!(read_all(&ours).unwrap(), b"");
        drop(ours);
        peer.join().unwrap();
    }
}

#[test]
fn bytes_that_were_read_with_the_request_come_first() {
    let (ours, mut theirs) = pair(Side::Client, b"\x82\x03ab");
    io::Write::write_all(&mut theirs, b"c\x88\x00").unwrap();
    assert_eq!(read_all(&ours).unwrap(), b"abc");
}

#[test]
fn what_is_written_does_not_show_on_the_wire() {
    let (ours, mut theirs) = pair(Side::Client, &[]);
    let payload = [b'x'; 64];
    block_on(ours.write_all(&payload)).unwrap();
    block_on(ours.write_all(&payload)).unwrap();
    let mut frames = [0; 2 * (2 + 4 + 64)];
    theirs.read_exact(&mut frames).unwrap();
    let [one, other] = [&frames[..70], &frames[70..]];
    for frame in [one, other] {
        assert_eq!(frame[..2], [0x82, 0x80 | 64]);
        let plain = frame[6..]
            .iter()
            .zip(frame[2..6].iter().cycle())
            .map(|(a, b)| a ^ b);
        assert!(plain.eq(payload));
    }
    assert_ne!(one[2..6], other[2..6], "each frame has a mask of its own");
}

/// A frame of a client with the mask 0, which its payload does not show.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = 0x80 | u8::try_from(payload.len()).unwrap();
    [&[first, length, 0, 0, 0, 0], payload].concat()
}

#[test]
fn each_violation_ends_the_connection_with_its_reason_behind_what_came_before() {
    let good = masked(0x82, b"ab");
    for (frame, violation) in [
        (masked(0xC2, b""), Violation::ReservedBits),
        (masked(0xA2, b""), Violation::ReservedBits),
        (masked(0x92, b""), Violation::ReservedBits),
        (masked(0x83, b""), Violation::UnknownOpcode),
        (masked(0x8F, b""), Violation::UnknownOpcode),
        (masked(0x81, b"a"), Violation::Text),
        (masked(0x09, b""), Violation::FragmentedControl),
        (vec![0x89, 0xFE, 0, 126, 0, 0, 0, 0], Violation::LongControl),
        (vec![0x82, 0x01, b'a'], Violation::Unmasked),
        (
            [&[0x82, 0xFF, 0x80][..], &[0; 11]].concat(),
            Violation::TooLong,
        ),
        (vec![0x82, 0xFE, 0, 1, 0, 0, 0, 0], Violation::NotShortest),
        (masked(0x80, b"a"), Violation::NothingToContinue),
        (
            [masked(0x02, b""), masked(0x82, b"")].concat(),
            Violation::Interrupted,
        ),
    ] {
        let (ours, mut theirs) = pair(Side::Server, &[]);
        io::Write::write_all(&mut theirs, &[&good[..], &frame].concat()).unwrap();
        let mut buf = [0; 100];
        assert_eq!(block_on(ours.read(&mut buf)).unwrap(), 2, "{violation:?}");
        let error = block_on(ours.read(&mut buf)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(error.to_string(), violation.to_string());
        block_on(std::future::poll_fn(|cx| ours.poll_shutdown(cx))).unwrap();
        drop(ours);
        let mut told = Vec::new();
        theirs.read_to_end(&mut told).unwrap();
        assert_eq!(
            told,
            [0x88, 2, 0x03, 0xEA],
            "{violation:?}: a close with 1002"
        );
    }
    let (ours, mut theirs) = pair(Side::Client, &[]);
    io::Write::write_all(&mut theirs, &good).unwrap();
    let error = block_on(ours.read(&mut [0; 9])).unwrap_err();
    assert_eq!(error.to_string(), Violation::Masked.to_string());
}

#[test]
fn fragments_with_control_frames_between_them_are_one_stream_of_bytes() {
    let (ours, mut theirs) = pair(Side::Server, &[]);
    let frames = [
        masked(0x02, b"one "),
        masked(0x89, b"ping"),
        masked(0x00, b""),
        masked(0x8A, b"pong"),
        masked(0x80, b"message"),
        masked(0x88, b""),
        masked(0x82, b"too late"),
    ]
    .concat();
    io::Write::write_all(&mut theirs, &frames).unwrap();
    assert_eq!(read_all(&ours).unwrap(), b"one message");
    let mut pong = [0; 6];
    theirs.read_exact(&mut pong).unwrap();
    assert_eq!(&pong, b"\x8A\x04ping");
}

#[test]
fn a_flood_of_frames_without_payload_lets_other_tasks_run() {
    const FRAMES: usize = 10_000;
    let flood = masked(0x8A, b"").repeat(FRAMES);
    let (ours, _theirs) = pair(Side::Server, &flood);
    let woken = Arc::new(WakeCount::default());
    let waker = Waker::from(woken.clone());
    let mut buf = [0; 600];
    // It wakes itself as long as there is more.
    let mut polls = 0;
    while woken.get() == polls {
        let mut cx = Context::from_waker(&waker);
        assert!(ours.poll_read(&mut cx, &mut buf).is_pending());
        polls += 1;
    }
    let per_poll = buf.len() * MAX_READS_IN_A_ROW as usize;
    assert_eq!(polls, flood.len().div_ceil(per_poll) + 1);
}

#[test]
fn nothing_can_be_written_behind_a_close() {
    let (ours, _theirs) = pair(Side::Server, &[]);
    block_on(std::future::poll_fn(|cx| ours.poll_shutdown(cx))).unwrap();
    assert!(block_on(ours.write_all(b"a")).is_err());
}
