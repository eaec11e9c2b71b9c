//! More connections than are needed.

use super::bound::{assert_at_most, note, Memory};
use super::crowd::{address, connect_from, raise_descriptors, Crowd};
use super::stage::Stage;
use crate::common::eventually_within;
use crate::common::visitor::read_to_end;
use std::io::Write;
use std::time::{Duration, Instant};

/// Silent connections.
const SILENT: usize = 10_000;
/// Maximum memory of each at the server, in bytes.
const SILENT_BYTES: usize = 1024;
/// Maximum additional memory of the same number of later connections, in KiB.
const AGAIN_KIB: usize = 1024;
/// The server's deadline, and what a busy machine adds.
const DEADLINE: Duration = Duration::from_secs(15 + 15);

/// Limits for one address and for all, without the client's own connection.
const OF_ADDRESS: usize = 10;
const OF_ALL: usize = 25;

#[test]
fn ten_thousand_silent_connections_are_closed_after_the_deadline() {
    // This process has the other ends, and a few descriptors of its own.
    let silent = SILENT.min(raise_descriptors() - 200);
    let mut stage = Stage::set("", "");
    let memory = Memory::since_now(&stage.server);
    let begun = Instant::now();
    let mut crowd = Crowd::gather(stage.addr, silent);
    let gathered = begun.elapsed();
    let mut most = 0;
    eventually_within(DEADLINE, "all to be accepted, or gone again", || {
        most = most.max(stage.server_fds());
        (most >= silent || gathered > Duration::from_secs(10)).then_some(())
    });
    let visit = stage.visit();
    let each = memory.growth(&stage.server) * 1024 / most;
    let attack = format!("{silent} silent connections ({most} at once)");
    assert_at_most(
        &format!("{attack}: server, each"),
        SILENT_BYTES,
        each,
        "bytes",
    );
    note(
        &format!("{attack}: a visitor meanwhile"),
        "answered",
        format!("{visit:?}"),
    );
    eventually_within(DEADLINE * 2, "silent connections to be gone", || {
        (crowd.open() == 0).then_some(())
    });
    let last = begun.elapsed().saturating_sub(gathered);
    assert_at_most(
        &format!("{attack}: gone after"),
        DEADLINE.as_secs_f32(),
        last.as_secs_f32(),
        "s",
    );
    // The allocator reuses the memory for the next ten thousand, which cost nothing more.
    let mut again = Crowd::gather(stage.addr, silent);
    eventually_within(DEADLINE, "all to be accepted again, or gone", || {
        (stage.server_fds() >= most.min(silent) || again.open() < silent).then_some(())
    });
    let more = memory
        .growth(&stage.server)
        .saturating_sub(each * most / 1024);
    assert_at_most(&format!("{attack}: a second time"), AGAIN_KIB, more, "KiB");
    again.cut();
    stage.assert_unharmed_but(SILENT * SILENT_BYTES / 1024);
}

#[test]
fn connections_are_limited_for_each_address_and_in_total() {
    let limits = format!("-addressConnections {OF_ADDRESS} -totalConnections {OF_ALL}");
    let mut stage = Stage::set(&limits, "-remoteConnections 1");
    for at in [stage.addr, stage.sni, stage.port] {
        // The client's tunnel counts, too.
        let mut all: Vec<_> = Vec::new();
        let mut refused = 0;
        for number in 0..4 {
            for _ in 0..OF_ADDRESS + 5 {
                let mut visitor = connect_from(address(number), at).expect("connect");
                // A connection without a permit is closed at once, whatever it sends.
                let _ = visitor.write_all(b"\x16");
                all.push(visitor);
            }
        }
        let wanted = all.len() - (OF_ALL - 1);
        eventually_within(
            crate::common::PATIENCE,
            "those without a place to be closed",
            || {
                all.retain_mut(|visitor| {
                    visitor.set_nonblocking(true).expect("not wait");
                    match std::io::Read::read(visitor, &mut [0; 16]) {
                        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => true,
                        // The echo's answer.
                        Ok(1..) => true,
                        _ => {
                            refused += 1;
                            false
                        }
                    }
                });
                (refused >= wanted).then_some(())
            },
        );
        assert_eq!(refused, wanted, "more were refused than had no place");
        let of_first = all
            .iter()
            .filter(|visitor| visitor.local_addr().unwrap().ip() == address(0))
            .count();
        assert_at_most("connections of one address", OF_ADDRESS, of_first, "");
        assert_at_most("connections of all", OF_ALL, all.len() + 1, "");
        // No further address is admitted; admitted ones are served.
        let mut late = connect_from(address(9), at).expect("connect");
        assert_eq!(read_to_end(&mut late), b"");
        drop(all);
        let visit = || {
            connect_from(address(9), stage.addr)
                .ok()
                .map(|mut visitor| {
                    let request = b"GET / HTTP/1.1\r\nHost: id1.a\r\nConnection: close\r\n\r\n";
                    let _ = visitor.write_all(request);
                    read_to_end(&mut visitor)
                })
        };
        eventually_within(crate::common::PATIENCE, "places to be given back", || {
            visit()
                .filter(|answer| answer.starts_with(b"HTTP/1.1 200"))
                .map(|_| ())
        });
    }
    let lines = stage.server.lines_with("connections are refused");
    assert_eq!(lines.len(), 1, "{lines:?}");
    stage.assert_unharmed();
}
