//! A malicious client, with the right secret or without.

use super::bound::{assert_at_most, note, Memory};
use super::crowd::connect_from;
use super::stage::Stage;
use crate::common::eventually;
use crate::common::peer::gt2::{
    credit, data, field, finish, frame, hello_with, identity, open, ping, reset, Frame, Peer,
};
use crate::common::peer::{gt1, gt2, port_option, ID_ALONE};
use crate::common::ports::free_port;
use crate::common::visitor::{connect, read_to_end};
use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Maximum memory that malformed hellos and violations may cost the server at a time, in KiB.
const LIES_KIB: usize = 2 * 1024;
/// Maximum memory that a flood of frames with unread answers may cost the server at a time, in KiB:
/// 256 KiB of answers, and as much again that is read and written.
const FLOOD_KIB: usize = 2 * 1024;
/// Bytes of a flood that the server must not have taken: more than the system's buffers hold.
const FLOOD: usize = 128 << 20;
/// Changes of services in a flood.
const CHANGES: usize = 5_000;
/// Maximum number of lines in the log about two floods of them: 20 a minute of each client.
const MOST_LINES: usize = 200;

const WINDOW: u32 = 32768;

fn hello2() -> Vec<u8> {
    gt2::hello("id2", "secret2", &ID_ALONE, WINDOW)
}

fn hello1() -> Vec<u8> {
    gt1::hello("id2", "secret2", &ID_ALONE)
}

/// Sends each of these on a connection of its own to each of these listeners, and waits until all
/// are closed.
fn lies_are_closed(
    attack: &str,
    listeners: &[SocketAddr],
    stage: &mut Stage,
    lies: &[Vec<u8>],
    hold: bool,
) {
    let memory = Memory::since_now(&stage.server);
    let mut closed = 0;
    for at in listeners {
        let liars: Vec<_> = lies
            .iter()
            .map(|lie| {
                let mut liar = connect(*at);
                // The server may close the connection before everything is sent.
                let _ = liar.write_all(lie);
                if !hold {
                    let _ = liar.shutdown(Shutdown::Write);
                }
                liar
            })
            .collect();
        for mut liar in liars {
            read_to_end(&mut liar);
            closed += 1;
        }
    }
    let sent = lies.len() * listeners.len();
    assert_eq!(closed, sent);
    let attack = format!("{sent} {attack}");
    note(&attack, "all closed", format!("{closed} closed"));
    let peak = memory.peak(&stage.server);
    assert_at_most(&format!("{attack}: server"), LIES_KIB, peak, "KiB");
    stage.assert_unharmed();
}

#[test]
fn half_hellos_are_closed() {
    let mut stage = Stage::set("", "");
    let mut halves = Vec::new();
    for whole in [hello1(), hello2()] {
        halves.extend((1..whole.len()).map(|end| whole[..end].to_vec()));
    }
    let listeners = [stage.addr, stage.sni];
    lies_are_closed("half hellos", &listeners, &mut stage, &halves, false);
}

#[test]
fn malformed_hellos_are_closed() {
    let mut stage = Stage::set("", "");
    let mut lies: Vec<Vec<u8>> = Vec::new();
    // Lengths that are zero or too large, in GT/1.
    for length in [0, 201, 255] {
        lies.push([&[0xF0, 0x01, length][..], &[b'a'; 255]].concat());
        lies.push([&b"\xF0\x01\x03id2"[..], &[length], &[b'a'; 255]].concat());
        lies.push(gt1::hello(
            "id2",
            "secret2",
            &[&[0x03, length][..], &[b'a'; 255]].concat(),
        ));
    }
    // Invalid text, unknown options, options without an end.
    lies.push(b"\xF0\x01\x02\xFF\xFE\x01s\x00".to_vec());
    for option in [0x06, 0x3F, 0x40, 0x80, 0xC0, 0xFF] {
        lies.push(gt1::hello("id2", "secret2", &[option; 64]));
    }
    lies.push(gt1::hello("id2", "secret2", &[0x02, 0x00].repeat(700)));
    // The same in GT/2: the whole, its fields, their order.
    for length in [0u32, 3, 131_073, 1 << 24, u32::MAX] {
        lies.push([&[0xF0, 0x20][..], &length.to_be_bytes(), &[0; 64]].concat());
    }
    let [id, secret] = [field(1, b"id2"), field(2, b"secret2")];
    for fields in [
        [&id[..], &id].concat(),
        [&id[..], &secret, &field(3, &[])].concat(),
        [&id[..], &secret, &field(3, &[2, 0].repeat(700))].concat(),
        field(3, &ID_ALONE),
        field(1, &[b'a'; 201]),
        field(2, b""),
        vec![1, 0xFF, 0xFF, 0xFF],
        field(4, &[0; 5]),
    ] {
        lies.push(hello_with(&fields));
    }
    // Unknown versions.
    for version in [0x00, 0x02, 0x21, 0xFF] {
        lies.push(vec![0xF0, version, 0, 0, 0, 4]);
    }
    let listeners = [stage.addr, stage.sni];
    lies_are_closed("hellos of lies", &listeners, &mut stage, &lies, true);
}

/// What ends the tunnel that it comes on, and nothing else.
#[test]
fn violations_end_the_tunnel_they_come_on() {
    let mut stage = Stage::set("", "");
    let memory = Memory::since_now(&stage.server);
    let mut one = vec![(
        "an operation nobody knows",
        [&1u32.to_be_bytes()[..], &[0, 3]].concat(),
    )];
    for signal in [0xFFFF_FFF8u32, 0xFFFF_F448] {
        one.push(("a signal nobody knows", signal.to_be_bytes().to_vec()));
    }
    one.push(("services of nobody", [&gt1::SERVICES[..], &[0; 8]].concat()));
    one.push((
        "services of another",
        [
            &gt1::SERVICES[..],
            &gt1::identity("id1", "guess", &ID_ALONE),
        ]
        .concat(),
    ));
    let two = vec![
        ("a kind that must be known", frame(0x81, 1, &[])),
        ("data of stream 0", data(0, b"x")),
        ("an end of stream 0", finish(0)),
        ("a credit without a number", frame(5, 1, &[0])),
        ("a ping of a byte", frame(6, 0, &[1])),
        ("a close with a book", frame(8, 0, &[7; 65])),
        (
            "services of another",
            frame(0x0C, 0, &identity("id1", "guess", &ID_ALONE)),
        ),
        ("services of nobody", frame(0x0C, 0, &[])),
    ];
    let mut ended = 0;
    for (name, bytes) in &one {
        let mut tunnel = gt1::Peer::ready_client(stage.addr, &hello1());
        tunnel.send(bytes);
        // An error may be sent first.
        while tunnel.frame_or_end().is_some() {}
        println!("a violation of GT/1 | the tunnel ends | {name}: it has ended");
        ended += 1;
        stage.visit();
    }
    for (name, bytes) in &two {
        let mut tunnel = Peer::ready_client(stage.addr, &hello2());
        tunnel.send(bytes);
        while tunnel.frame_or_end().is_some() {}
        println!("a violation of GT/2 | the tunnel ends | {name}: it has ended");
        ended += 1;
        stage.visit();
    }
    assert_eq!(ended, one.len() + two.len());
    let peak = memory.peak(&stage.server);
    assert_at_most(
        &format!("{ended} violations: server"),
        LIES_KIB,
        peak,
        "KiB",
    );
    stage.assert_unharmed();
}

/// Opens a GT/2 tunnel of the attacker with a visitor; returns the stream's number, too.
fn with_stream(stage: &Stage) -> (Peer, TcpStream, u32, u32) {
    let mut tunnel = Peer::ready_client(stage.addr, &hello2());
    let mut visitor = connect(stage.addr);
    visitor
        .write_all(b"GET / HTTP/1.1\r\nHost: id2.a\r\n\r\n")
        .expect("send a request");
    let (stream, window, _) = tunnel.opened();
    (tunnel, visitor, stream, window)
}

/// Sends these frames repeatedly, up to `most` bytes or until the other end takes no more; returns
/// how many bytes it took.
fn flood(mut tunnel: TcpStream, frames: &[u8], most: usize) -> usize {
    tunnel
        .set_write_timeout(Some(Duration::from_secs(1)))
        .expect("limit writes");
    let mut sent = 0;
    while sent < most {
        match tunnel.write(&frames[sent % frames.len()..]) {
            Ok(n) => sent += n,
            Err(_) => break,
        }
    }
    sent
}

#[test]
fn overrun_windows_and_too_much_credit_end_the_tunnel() {
    let mut stage = Stage::set("", "");
    let memory = Memory::since_now(&stage.server);
    let (mut tunnel, visitor, stream, window) = with_stream(&stage);
    let length = usize::try_from(window).unwrap() + 1;
    // The header is enough: nothing of the payload is held.
    tunnel.send(&data(stream, &vec![7; length]));
    while tunnel.frame_or_end().is_some() {}
    stage.server.wait_for_overrun();
    drop(visitor);
    note(
        "a window overrun by a byte",
        "the tunnel ends",
        "it has ended",
    );

    let (mut tunnel, visitor, stream, _) = with_stream(&stage);
    tunnel.send(&credit(stream, (1 << 31) - 1));
    while tunnel.frame_or_end().is_some() {}
    drop(visitor);
    note("credit beyond 2^31 - 1", "the tunnel ends", "it has ended");
    let peak = memory.peak(&stage.server);
    assert_at_most(
        "windows overrun, too much credit: server",
        LIES_KIB,
        peak,
        "KiB",
    );
    stage.assert_unharmed();
}

#[test]
fn frames_of_unknown_streams_are_dropped() {
    let mut stage = Stage::set("", "");
    let memory = Memory::since_now(&stage.server);
    let mut tunnel = Peer::ready_client(stage.addr, &hello2());
    let mut frames = Vec::new();
    for n in 1..=2000u32 {
        let stream = n.wrapping_mul(2_654_435_761) | 1;
        frames.extend(data(stream, &[7; 100]));
        frames.extend(credit(stream, u32::MAX));
        frames.extend([finish(stream), reset(stream, 1), reset(stream, 99)].concat());
        frames.extend(frame(0x7F, stream, &[9; 100]));
    }
    tunnel.send(&frames);
    tunnel.sync();

    let mut old = gt1::Peer::ready_client(stage.addr, &hello1());
    let mut frames = Vec::new();
    for n in 1..=2000u32 {
        let stream = n.wrapping_mul(2_654_435_761) % 0xFFFF_0000 + 1;
        frames.extend(gt1::data(stream, &[7; 100]));
        frames.extend([gt1::closed(stream), gt1::first(stream, 3, b"x")].concat());
    }
    // A stream without an end.
    frames.extend(gt1::PING);
    old.send(&frames);
    loop {
        match old.frame() {
            gt1::Frame::Ping => break,
            gt1::Frame::Closed(_) => {}
            other => panic!("{other:?}"),
        }
    }
    old.send(&gt1::data_head(5, 0xFFFF_FFFF));
    flood(old.writer(), &[7; 65536], 8 << 20);
    let peak = memory.peak(&stage.server);
    assert_at_most(
        "20 000 frames of streams that there are not, and one of 4 GiB: server",
        LIES_KIB,
        peak,
        "KiB",
    );
    drop((tunnel, old));
    stage.assert_unharmed();
}

#[test]
fn data_of_ended_streams_are_dropped() {
    let mut stage = Stage::set("", "");
    let memory = Memory::since_now(&stage.server);
    let (mut tunnel, visitor, stream, window) = with_stream(&stage);
    // The visitor gets an answer first, so that a cut shows.
    tunnel.send(&data(stream, b"HTTP/1.1 200 OK\r\n"));
    super::crowd::cut(visitor);
    loop {
        match tunnel.frame() {
            Frame::Reset(of, _) if of == stream => break,
            Frame::Credit(..) => {}
            other => panic!("{other:?}"),
        }
    }
    let window = usize::try_from(window).unwrap();
    for _ in 0..100 {
        tunnel.send(&data(stream, &vec![7; window]));
    }
    tunnel.sync();
    let peak = memory.peak(&stage.server);
    assert_at_most(
        "100 windows for an ended stream: server",
        LIES_KIB,
        peak,
        "KiB",
    );
    drop(tunnel);
    stage.assert_unharmed();
}

#[test]
fn floods_with_unread_answers_are_not_read() {
    let pings = ping(7).repeat(1000);
    let opens: Vec<u8> = (1..=1000)
        .flat_map(|stream| open(stream, 0, 1000, b"x"))
        .collect();
    for (name, frames) in [("pings", pings), ("opens", opens)] {
        let mut stage = Stage::set("", "");
        let memory = Memory::since_now(&stage.server);
        let tunnel = Peer::ready_client(stage.addr, &hello2());
        let sent = flood(tunnel.writer(), &frames, FLOOD);
        stage.visit();
        let attack = format!("{name} of GT/2 until no more are taken");
        assert_at_most(&attack, FLOOD - 1, sent, "bytes");
        let peak = memory.peak(&stage.server);
        assert_at_most(&format!("{attack}: server"), FLOOD_KIB, peak, "KiB");
        drop(tunnel);
        stage.assert_unharmed();
    }
}

#[test]
fn floods_of_services_and_pings_cost_little() {
    let mut stage = Stage::set("", "");
    let change = frame(0x0C, 0, &identity("id2", "secret2", &ID_ALONE));
    let old_change = [
        &gt1::SERVICES[..],
        &gt1::identity("id2", "secret2", &ID_ALONE),
    ]
    .concat();
    let memory = Memory::since_now(&stage.server);
    let mut tunnel = Peer::ready_client(stage.addr, &hello2());
    let sent = flood(tunnel.writer(), &change, change.len() * CHANGES);
    assert_eq!(sent, change.len() * CHANGES);
    for _ in 0..CHANGES {
        assert!(matches!(tunnel.frame(), Frame::Services(_)));
    }
    drop(tunnel);
    let peak = memory.peak(&stage.server);
    let attack = format!("{CHANGES} changes of services of GT/2");
    assert_at_most(&format!("{attack}: server"), FLOOD_KIB, peak, "KiB");

    let mut old = gt1::Peer::ready_client(stage.addr, &hello1());
    flood(old.writer(), &old_change, old_change.len() * CHANGES);
    for _ in 0..CHANGES {
        old.expect(gt1::Frame::Services);
    }
    let lines = stage.server.changes_of("id2");
    assert_at_most("lines in the log of both", MOST_LINES, lines, "lines");
    let peak = memory.peak(&stage.server);
    let attack = format!("{CHANGES} changes of services of GT/1");
    assert_at_most(&format!("{attack}: server"), FLOOD_KIB, peak, "KiB");

    let pings = 4 << 20;
    flood(old.writer(), &gt1::PING.repeat(4096), pings);
    stage.visit();
    let peak = memory.peak(&stage.server);
    let attack = format!("{} pings of GT/1", pings / 4);
    assert_at_most(&format!("{attack}: server"), FLOOD_KIB, peak, "KiB");
    drop(old);
    stage.assert_unharmed();
}

#[test]
fn short_lived_tunnels_leave_nothing_behind() {
    const TUNNELS: usize = 1000;
    let mut stage = Stage::set("", "");
    let memory = Memory::since_now(&stage.server);
    let port = free_port();
    let services = [&[0x02][..], &port_option(false, port), &ID_ALONE].concat();
    let hellos = [
        gt2::hello("id2", "secret2", &services, WINDOW),
        gt1::hello("id2", "secret2", &services),
    ];
    for n in 0..TUNNELS {
        let from = Ipv4Addr::LOCALHOST;
        let mut tunnel = connect_from(from, stage.addr).expect("connect");
        let _ = tunnel.write_all(&hellos[n % 2]);
        super::crowd::cut(tunnel);
        if n % 100 == 0 {
            stage.visit();
        }
    }
    let peak = memory.peak(&stage.server);
    assert_at_most(
        &format!("{TUNNELS} tunnels that come and go: server"),
        4 * TUNNELS,
        peak,
        "KiB",
    );
    eventually("the port to be closed again", || {
        std::net::TcpListener::bind(("127.0.0.1", port)).ok()
    });
    stage.assert_unharmed();
}

#[test]
fn a_client_that_ends_streams_at_once_harms_no_other_client() {
    const VISITORS: usize = 2000;
    let mut stage = Stage::set("", "");
    let memory = Memory::since_now(&stage.server);
    let mut tunnel = Peer::ready_client(stage.addr, &hello2());
    let ending = std::thread::spawn(move || {
        let mut ended = 0;
        // Until the server has sent everything.
        while let Some(frame) = tunnel.frame_or_end() {
            if let Frame::Open(stream, ..) = frame {
                tunnel.send(&match stream % 3 {
                    0 => reset(stream, 1),
                    1 => [finish(stream), reset(stream, 0)].concat(),
                    _ => [data(stream, b"HTTP/1.1 200 OK\r\n\r\n"), finish(stream)].concat(),
                });
                ended += 1;
            }
        }
        ended
    });
    for n in 0..VISITORS {
        let mut visitor = connect(stage.addr);
        let _ = visitor.write_all(b"GET / HTTP/1.1\r\nHost: id2.a\r\n\r\n");
        if n % 200 == 0 {
            stage.visit();
        }
        if n % 2 == 0 {
            super::crowd::cut(visitor);
        }
    }
    let peak = memory.peak(&stage.server);
    assert_at_most(
        &format!("{VISITORS} streams ended as they come: server"),
        LIES_KIB,
        peak,
        "KiB",
    );
    // The tunnel ends with its last stream.
    stage.assert_unharmed();
    stage.server.stop();
    let ended = ending.join().expect("the client to end");
    // Visitors that are gone before they have sent a request have no stream.
    assert!(ended >= VISITORS / 2, "{ended} streams");
}
