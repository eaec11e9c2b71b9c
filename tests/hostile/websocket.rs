//! Malicious ends of WebSockets, before and after the hello of a tunnel.

use super::bound::{assert_at_most, note, Memory};
use super::stage::Stage;
use crate::common::peer::{gt1, ID_ALONE};
use crate::common::upgrade::{frame, open, read_frame, BINARY, CLOSE, PING, TEXT};
use crate::common::visitor::read_to_end;
use std::io::Write;
use std::net::{Shutdown, TcpStream};

/// Maximum memory that wrong frames may cost the server at a time, in KiB.
const LIES_KIB: usize = 2 * 1024;
/// Maximum memory that a flood of frames may cost the server at a time, in KiB.
const FLOOD_KIB: usize = 2 * 1024;
/// Bytes of a flood.
const FLOOD: usize = 8 << 20;

/// Frames that end a WebSocket, with what the log says.
fn lies() -> Vec<(Vec<u8>, &'static str)> {
    let huge = |length: u64| [&[BINARY, 0xFF][..], &length.to_be_bytes(), &[0; 4]].concat();
    vec![
        (frame(TEXT, b"hello"), "a text message"),
        (frame(BINARY | 0x40, b""), "a reserved bit is set"),
        (frame(BINARY | 0x20, b""), "a reserved bit is set"),
        (frame(BINARY | 0x10, b""), "a reserved bit is set"),
        (frame(0x83, b""), "its opcode is unknown"),
        (frame(0x8F, b""), "its opcode is unknown"),
        (
            frame(PING & 0x7F, b""),
            "a control frame that is a fragment",
        ),
        (
            frame(CLOSE & 0x7F, b""),
            "a control frame that is a fragment",
        ),
        (
            frame(PING, &[0; 126]),
            "a control frame of more than 125 bytes",
        ),
        (vec![BINARY, 1, 0], "a client's frame without a mask"),
        (huge(1 << 63), "its length is 2^63 or more"),
        (huge(u64::MAX), "its length is 2^63 or more"),
        (huge(1), "its length is not in the shortest form"),
        (frame(0x80, b"a"), "a continuation of no message"),
        (
            [frame(0x02, b""), frame(BINARY, b"")].concat(),
            "a message that begins within another one",
        ),
    ]
}

/// Opens a WebSocket whose tunnel is ready.
fn tunnel(stage: &Stage) -> TcpStream {
    let mut stream = open(stage.addr);
    let hello = gt1::hello("id2", "secret2", &ID_ALONE);
    stream.write_all(&frame(BINARY, &hello)).expect("log in");
    assert_eq!(read_frame(&mut stream), (BINARY, gt1::READY.to_vec()));
    stream
}

#[test]
fn each_wrong_frame_ends_its_websocket_with_a_line_in_the_log() {
    let mut stage = Stage::set("-logLevel debug", "");
    let memory = Memory::since_now(&stage.server);
    let lies = lies();
    for (lie, said) in &lies {
        let said = format!("bad WebSocket frame: {said}");
        for (is_ready, mut liar) in [(false, open(stage.addr)), (true, tunnel(&stage))] {
            let addr = liar.local_addr().expect("an address");
            liar.write_all(lie).expect("send a lie");
            let left = read_to_end(&mut liar);
            // A tunnel says why it closes.
            assert_eq!(left == [CLOSE, 2, 0x03, 0xEA], is_ready, "{said}: {left:?}");
            let line = stage.server.wait_for(&format!("{addr}: {said}"));
            assert!(line.contains(&said), "{line}");
        }
    }
    let attack = format!("{} wrong frames of WebSockets", 2 * lies.len());
    note(&attack, "all closed", "all closed");
    let peak = memory.peak(&stage.server);
    assert_at_most(&format!("{attack}: server"), LIES_KIB, peak, "KiB");
    stage.assert_unharmed();
}

#[test]
fn a_flood_of_frames_without_payload_costs_no_memory_and_stalls_nobody() {
    let mut stage = Stage::set("", "");
    for (what, one) in [
        ("pings whose answers are not read", frame(PING, &[7; 125])),
        ("empty messages", frame(BINARY, b"")),
        ("empty fragments", frame(0x02, b"")),
    ] {
        let memory = Memory::since_now(&stage.server);
        let mut flooder = tunnel(&stage);
        let mut piece = one.repeat(64 * 1024 / one.len());
        if one[0] == 0x02 {
            // Only the first one begins a message.
            flooder.write_all(&one).expect("begin");
            piece
                .iter_mut()
                .step_by(one.len())
                .for_each(|first| *first = 0);
        }
        let mut sent = 0;
        while sent < FLOOD {
            flooder.write_all(&piece).expect("flood");
            sent += piece.len();
        }
        stage.visit();
        let peak = memory.peak(&stage.server);
        let attack = format!("{} MiB of {what}: server", FLOOD >> 20);
        assert_at_most(&attack, FLOOD_KIB, peak, "KiB");
        drop(flooder);
    }
    stage.assert_unharmed();
}

#[test]
fn a_huge_message_is_not_awaited_and_its_bytes_are_used_as_they_come() {
    let mut stage = Stage::set("", "");
    let memory = Memory::since_now(&stage.server);
    let hello = gt1::hello("id2", "secret2", &ID_ALONE);
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = open(stage.addr);
        let length = u64::MAX >> 1;
        let head = [&[BINARY, 0xFF][..], &length.to_be_bytes(), &[0; 4], &hello];
        stream.write_all(&head.concat()).expect("begin a message");
        assert_eq!(read_frame(&mut stream), (BINARY, gt1::READY.to_vec()));
        streams.push(stream);
    }
    let attack = "3 messages of 2^63 - 1 bytes: server";
    assert_at_most(attack, LIES_KIB, memory.peak(&stage.server), "KiB");
    streams.iter().for_each(|stream| {
        let _ = stream.shutdown(Shutdown::Both);
    });
    stage.assert_unharmed();
}

#[test]
fn what_is_no_tunnel_in_a_websocket_is_closed() {
    let mut stage = Stage::set("", "");
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n"[..],
        b"\x16\x03\x01",
        b"\xF0\x07",
    ] {
        let mut stream = open(stage.addr);
        stream.write_all(&frame(BINARY, bytes)).expect("send");
        assert_eq!(read_to_end(&mut stream), b"");
    }
    stage.assert_unharmed();
}
