//! A malicious server and a real client.

use super::bound::{assert_at_most, note, Memory};
use crate::common::gt::{client, Gt};
use crate::common::peer::gt2::{credit, data, finish, frame, hello, open, ping, reset, Frame};
use crate::common::peer::{self, gt1, port_option, Peer, PeerServer};
use crate::common::service::{self, Service};
use std::io::Write;
use std::time::Duration;

/// Maximum memory that violations may cost the client at a time, in KiB.
const LIES_KIB: usize = 2 * 1024;
/// Maximum memory that floods may cost, in KiB: a stream takes 1 KB, and unread answers stop
/// further reading.
const FLOOD_KIB: usize = 6 * 1024;
/// Streams of a flood, to an unknown service and to a real one.
const OPENS: usize = 50_000;
const SERVED: usize = 3_000;
/// Descriptors that it may have more after the attacks.
const FDS: usize = 2;

const WINDOW: u32 = 32768;

/// A client whose server speaks the version of the wire that has the frames `F`.
struct Stage<F> {
    server: PeerServer<F>,
    client: Gt,
    _echo: Service,
    hello: Vec<u8>,
    fds: usize,
}

fn gt1_stage() -> (Stage<gt1::Frame>, Memory) {
    let hello = gt1::hello("id1", "secret1", &port_option(true, 0));
    Stage::set("-wire 1", hello, drop)
}

fn gt2_stage() -> (Stage<Frame>, Memory) {
    let hello = hello("id1", "secret1", &port_option(true, 0), WINDOW);
    Stage::set("-wire 2", hello, |mut tunnel| assert_serves(&mut tunnel))
}

impl<F: peer::Frame> Stage<F> {
    /// Starts a client, and passes its first tunnel to `visit`, which is not measured.
    fn set(wire: &str, hello: Vec<u8>, visit: impl FnOnce(Peer<F>)) -> (Stage<F>, Memory) {
        let echo = service::echo();
        let server = PeerServer::start();
        let client = client(&format!(
            "-remote tcp://{} -id id1 -secret secret1 -reconnectDelay 10ms -remoteTimeout 120s \
             -remoteConnections 1 -local tcp://{} -remoteTCPRandom {wire}",
            server.addr, echo.addr
        ));
        let mut stage = Stage {
            server,
            client,
            _echo: echo,
            hello,
            fds: 0,
        };
        visit(stage.tunnel());
        stage.fds = stage.client.fds();
        let memory = Memory::since_now(&stage.client);
        (stage, memory)
    }

    /// Accepts the client's next tunnel.
    fn tunnel(&self) -> Peer<F> {
        self.server.accept_ready(&self.hello)
    }

    fn assert_unharmed(&mut self, memory: &Memory, attack: &str, kib: usize) {
        let peak = memory.peak(&self.client);
        assert_at_most(&format!("{attack}: client"), kib, peak, "KiB");
        assert_eq!(self.client.has_ended(), None);
        self.client.wait_for_fds(self.fds + FDS);
        let log = self.client.log();
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// Checks that a stream is relayed to the service and back.
fn assert_serves(tunnel: &mut Peer<Frame>) {
    const STREAM: u32 = 0x7000_0001;
    tunnel.send(&[open(STREAM, 0, 1000, b"hello"), finish(STREAM)].concat());
    let mut came = Vec::new();
    loop {
        match tunnel.frame() {
            Frame::Data(STREAM, bytes) => came.extend(bytes),
            Frame::Finish(STREAM) => break,
            // Frames of earlier streams.
            Frame::Finish(_) | Frame::Reset(..) | Frame::Credit(..) | Frame::Data(..) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(came, b"hello");
}

#[test]
fn violations_by_a_server_end_its_tunnel_and_the_client_reconnects() {
    let overrun = usize::try_from(WINDOW).unwrap() + 1;
    let violations = [
        ("a kind that must be known", frame(0x81, 1, &[])),
        ("data of stream 0", data(0, b"x")),
        ("a stream 0", open(0, 0, 1000, b"x")),
        ("a stream without a window", frame(2, 1, &[0, 0])),
        ("an end with a book", frame(3, 1, &[7; 65])),
        ("an error of a byte", frame(0x0A, 0, &[1])),
        (
            "first bytes beyond the window",
            open(1, 0, 1000, &vec![7; overrun]),
        ),
        (
            "a window overrun",
            [open(1, 0, 0, b""), data(1, &vec![7; overrun])].concat(),
        ),
        (
            "too much credit",
            [open(1, 0, 1000, b"x"), credit(1, u32::MAX)].concat(),
        ),
    ];
    // A client waits longer and longer for a server whose tunnels do not last, so each client gets
    // only a few.
    for few in violations.chunks(3) {
        let (mut stage, memory) = gt2_stage();
        for (name, bytes) in few {
            let mut tunnel = stage.tunnel();
            // The client may close the tunnel before everything is sent.
            let _ = tunnel.writer().write_all(bytes);
            while tunnel.frame_or_end().is_some() {}
            let attack = format!("a violation of a server, {name}");
            note(&attack, "the tunnel ends", "it has ended");
        }
        let mut tunnel = stage.tunnel();
        assert_serves(&mut tunnel);
        stage.assert_unharmed(&memory, "violations of a server", LIES_KIB);
    }
}

#[test]
fn violations_by_a_gt_1_server_end_its_tunnel_and_the_client_reconnects() {
    let (mut stage, memory) = gt1_stage();
    let violations = [
        ("an operation nobody knows", vec![0, 0, 0, 1, 0, 3]),
        (
            "a signal nobody knows",
            0xFFFF_F448u32.to_be_bytes().to_vec(),
        ),
    ];
    for (name, bytes) in &violations {
        let mut tunnel = stage.tunnel();
        tunnel.send(bytes);
        while tunnel.frame_or_end().is_some() {}
        note(
            "a violation of a server of GT/1",
            "the tunnel ends",
            format!("{name}: it has ended"),
        );
    }
    let mut tunnel = stage.tunnel();
    // Bytes of no stream, and a frame of 4 GiB of them.
    tunnel.send(&[gt1::data(9, &[7; 9000]), gt1::closed(9)].concat());
    tunnel.send(&gt1::first(1, 0, b"hello"));
    assert_eq!(tunnel.gather(1, 5), b"hello");
    tunnel.send(&gt1::closed(1));
    tunnel.send(&gt1::data_head(9, 0xFFFF_FFFF));
    tunnel.send(&vec![7; 8 << 20]);
    stage.assert_unharmed(
        &memory,
        "violations of a server of GT/1, and 4 GiB for nobody",
        LIES_KIB,
    );
}

#[test]
fn floods_of_a_server_are_bounded() {
    let (mut stage, memory) = gt2_stage();
    let mut tunnel = stage.tunnel();
    let answers = std::thread::scope(|scope| {
        let mut writer = tunnel.writer();
        scope.spawn(move || {
            writer
                .set_write_timeout(Some(Duration::from_secs(30)))
                .expect("limit writes");
            for number in 0..OPENS {
                let stream = u32::try_from(number).unwrap() + 1;
                writer
                    .write_all(&open(stream, 77, 1000, b"x"))
                    .expect("send");
            }
            for number in 0..SERVED {
                let stream = u32::try_from(OPENS + number).unwrap() + 1;
                let both = [open(stream, 0, 1000, b"x"), reset(stream, 1)].concat();
                writer.write_all(&both).expect("send");
            }
            writer.write_all(&ping(7)).expect("send");
        });
        let mut answers = 0;
        loop {
            match tunnel.frame() {
                Frame::Pong(7) => break answers,
                // There is no such service, or there are too many streams.
                Frame::Reset(stream, 4 | 5) if stream <= OPENS as u32 => answers += 1,
                _ => {}
            }
        }
    });
    assert_at_most(
        "streams to a service there is not, answered",
        OPENS,
        answers,
        "",
    );
    assert_serves(&mut tunnel);
    let attack = format!("{OPENS} streams to no service, {SERVED} opened and reset");
    stage.assert_unharmed(&memory, &attack, FLOOD_KIB);

    // Unread answers, which the client must not gather.
    let mut writer = tunnel.writer();
    writer
        .set_write_timeout(Some(Duration::from_millis(500)))
        .expect("limit writes");
    let pings = ping(7).repeat(4096);
    let mut sent = 0;
    // Until the client takes no more.
    while sent < 256 << 20 {
        match writer.write(&pings) {
            Ok(n) => sent += n,
            Err(_) => break,
        }
    }
    assert!(sent < 256 << 20, "it takes pings for ever");
    stage.assert_unharmed(&memory, "pings until no more are taken", FLOOD_KIB);
}
