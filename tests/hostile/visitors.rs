//! Misbehaving visitors and services.

use super::bound::{assert_at_most, note};
use super::crowd::{address, connect_from, cut, Crowd};
use super::stage::Stage;
use crate::common::gt::client;
use crate::common::hello::client_hello;
use crate::common::visitor::get;
use crate::common::{eventually, service};
use socket2::{Domain, Socket, Type};
use std::cell::OnceCell;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Number of visitors that do not read from a service that never stops sending.
const UNREADING: usize = 40;
/// Maximum memory of the bytes that wait for them at the server, in KiB: 8 MiB of a tunnel in GT/2,
/// 4 MiB of each of three in GT/1; buffers have spare capacity.
const WAITING_KIB: usize = 16 * 1024;
/// Maximum memory at the client, in KiB: it must not read from the service what it cannot send.
const STOPPED_KIB: usize = 3 * 1024;

/// Number of visitors of a service that never answers, and their maximum memory at either end.
const UNANSWERED: usize = 1000;
const UNANSWERED_KIB: usize = 3 * 1024;

/// Number of visitors that connect and reset, and their maximum memory at either end at a time.
const RESETS: usize = 4000;
const RESETS_KIB: usize = 4 * 1024;

/// Connects a visitor with minimal kernel buffers.
fn connect_narrow(to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("set a buffer");
    socket.connect(&to.into()).expect("connect");
    socket.into()
}

fn visitors_never_read(wire: &str, of: &str, visit: impl Fn(&Stage) -> Duration) {
    let mut stage = Stage::set("", wire);
    let visitors: Vec<_> = (0..UNREADING)
        .map(|_| connect_narrow(stage.endless))
        .collect();
    // Until all buffers on the path are full; those of the systems take megabytes for each.
    let mut before = (0, Instant::now());
    eventually("the service to be stopped", || {
        let now = stage.carried();
        if now != before.0 {
            before = (now, Instant::now());
        }
        (now > 0 && before.1.elapsed() > Duration::from_secs(1)).then_some(())
    });
    let mut visits: Vec<_> = (0..5).map(|_| visit(&stage)).collect();
    visits.sort();
    let attack = format!("{UNREADING} visitors that never read, {wire}");
    note(
        &format!("{attack}: a visitor {of} meanwhile"),
        "answered",
        format!("{} times, the slowest {:?}", visits.len(), visits[4]),
    );
    let peaks = [stage.server_kib().1, stage.client_kib().1];
    assert_at_most(&format!("{attack}: server"), WAITING_KIB, peaks[0], "KiB");
    assert_at_most(&format!("{attack}: client"), STOPPED_KIB, peaks[1], "KiB");
    visitors.into_iter().for_each(cut);
    stage.assert_unharmed_but(WAITING_KIB);
}

#[test]
fn visitors_that_never_read_are_held_within_bounds() {
    visitors_never_read("-wire 2", "of the same client", Stage::visit);
}

/// Without windows, streams of the same tunnels wait for a visitor that does not read until it is
/// cut, and then for the next one. Other tunnels do not wait.
#[test]
fn visitors_that_never_read_harm_no_other_client_in_gt_1() {
    let page = service::http(0, "there");
    let other = OnceCell::new();
    visitors_never_read("-wire 1", "of another client", |stage| {
        other.get_or_init(|| {
            let mut other = client(&format!(
                "-remote {} -id id2 -secret secret2 -wire 1 -local http://{}",
                stage.addr, page.addr
            ));
            other.wait_for_tunnel();
            other
        });
        let begun = Instant::now();
        assert_eq!(get(stage.addr, "id2.a", "/").text(), "there / id2.a");
        begun.elapsed()
    });
}

#[test]
fn services_that_never_answer_cost_little() {
    let mut stage = Stage::set("", "");
    let mut crowd = Crowd::gather(stage.silent, UNANSWERED);
    crowd.say(b"anybody there?");
    eventually("all to reach the service", || {
        let fds = [stage.server_fds(), stage.client_fds()];
        fds.iter().all(|fds| *fds >= UNANSWERED).then_some(())
    });
    let visit = stage.visit();
    let attack = format!("{UNANSWERED} visitors without an answer");
    note(
        &format!("{attack}: another visitor"),
        "answered",
        format!("{visit:?}"),
    );
    let peaks = [stage.server_kib().1, stage.client_kib().1];
    assert_at_most(
        &format!("{attack}: server"),
        UNANSWERED_KIB,
        peaks[0],
        "KiB",
    );
    assert_at_most(
        &format!("{attack}: client"),
        UNANSWERED_KIB,
        peaks[1],
        "KiB",
    );
    assert_eq!(crowd.open(), UNANSWERED, "they may wait");
    crowd.cut();
    stage.assert_unharmed();
}

#[test]
fn visitors_that_connect_and_reset_cost_little() {
    let mut stage = Stage::set("", "");
    let request = b"GET / HTTP/1.1\r\nHost: id1.a\r\n\r\n".to_vec();
    let attacks = [
        ("TCP port", stage.port, b"x".to_vec()),
        ("HTTP", stage.addr, request),
        ("SNI", stage.sni, client_hello("safe.a")),
        ("TLS", stage.tls, client_hello("safe.a")),
    ];
    let each = RESETS / attacks.len();
    for (name, at, bytes) in attacks {
        let mut visits = Vec::new();
        for number in 0..each {
            let mut visitor = connect_from(address(number % 8), at).expect("connect");
            if number % 2 == 0 {
                let _ = visitor.write_all(&bytes);
            }
            cut(visitor);
            if number % 100 == 0 {
                visits.push(stage.visit());
            }
        }
        let attack = format!("{each} visitors that connect and reset, {name}");
        let peaks = [stage.server_kib().1, stage.client_kib().1];
        assert_at_most(&format!("{attack}: server"), RESETS_KIB, peaks[0], "KiB");
        assert_at_most(&format!("{attack}: client"), RESETS_KIB, peaks[1], "KiB");
        visits.sort();
        note(
            &format!("{attack}: a visitor meanwhile"),
            "answered",
            format!("{} times, the slowest {:?}", visits.len(), visits.last()),
        );
        stage.assert_unharmed();
    }
}
