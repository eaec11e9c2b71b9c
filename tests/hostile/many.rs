//! More connections than anybody needs.

use super::bound::{assert_at_most, note, Memory};
use super::crowd::{address, connect_from, raise_descriptors, Crowd};
use super::stage::Stage;
use crate::common::eventually_within;
use crate::common::visitor::read_to_end;
use std::io::Write;
use std::time::{Duration, Instant};

/// Connections that say nothing.
const SILENT: usize = 10_000;
/// What each may cost the server.
const SILENT_BYTES: usize = 1024;
/// What as many of them may cost that come when those are gone.
const AGAIN_KIB: usize = 1024;
/// How long they may stay: the server's deadline, and what a busy machine adds.
const DEADLINE: Duration = Duration::from_secs(15 + 15);

/// What is allowed of one address and of all, in the test of that; without the client's own.
const OF_ADDRESS: usize = 10;
const OF_ALL: usize = 25;

#[test]
fn ten_thousand_who_say_nothing_are_gone_after_the_deadline() {
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
    // What the allocator keeps is there for the next ten thousand: they cost nothing more.
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
fn an_address_has_as_many_connections_as_it_may_and_all_have_theirs() {
    let limits = format!("-addressConnections {OF_ADDRESS} -totalConnections {OF_ALL}");
    let mut stage = Stage::set(&limits, "-remoteConnections 1");
    for at in [stage.addr, stage.sni, stage.port] {
        // The client's tunnel is one of all.
        let mut all: Vec<_> = Vec::new();
        let mut refused = 0;
        for number in 0..4 {
            for _ in 0..OF_ADDRESS + 5 {
                let mut visitor = connect_from(address(number), at).expect("connect");
                // Whoever has no place is closed at once, whatever he says.
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
                        // The echo's.
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
        // Now nobody else gets in; those who are in are served.
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
