//! Peers that send nothing, or a byte now and then.

use super::bound::{assert_at_most, note, Memory};
use super::crowd::Crowd;
use super::stage::Stage;
use crate::common::eventually_within;
use crate::common::hello::client_hello;
use crate::common::peer::{gt1, gt2, ID_ALONE};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Number of slow peers of one listener at a time.
const SLOW: usize = 1000;
/// Maximum memory that all of them may cost the server, in KiB.
const SLOW_KIB: usize = 2 * 1024;
/// Number of bytes that each sends meanwhile.
const BYTES: usize = 8;

/// Number of unidentified connections.
const UNKNOWN: usize = 5000;
/// Maximum memory of each at the server, in bytes.
const UNKNOWN_BYTES: usize = 1024;

/// How long the server waits for the first request or hello, and what a busy machine may add.
const DEADLINE: Duration = Duration::from_secs(15 + 8);

/// When slow peers send their second byte.
const LATE: Duration = Duration::from_secs(13);

/// Number of listeners.
const LISTENERS: usize = 7;

/// Returns the first bytes of everything that a listener accepts, and the listener.
fn beginnings(stage: &Stage) -> Vec<(&'static str, SocketAddr, Vec<u8>)> {
    let request = b"GET / HTTP/1.1\r\nX-Slow: yes".to_vec();
    let hello = client_hello("safe.example.com");
    let one = gt1::hello("id2", "secret2", &ID_ALONE);
    let two = gt2::hello("id2", "secret2", &ID_ALONE, 1000);
    vec![
        ("HTTP", stage.addr, request.clone()),
        ("TLS", stage.tls, hello.clone()),
        ("SNI", stage.sni, hello),
        ("tunnel, GT/1", stage.addr, one),
        ("tunnel, GT/2", stage.addr, two),
        ("API", stage.api, request),
        ("TCP port", stage.port, b"a byte now and then".to_vec()),
    ]
}

#[test]
fn slow_peers_of_every_listener_cost_little_and_delay_no_other_client() {
    for number in 0..LISTENERS {
        // A new server each time, since memory used by one attack is free for the next.
        let mut stage = Stage::set("", "");
        let (name, at, beginning) = beginnings(&stage).swap_remove(number);
        let memory = Memory::since_now(&stage.server);
        let mut crowd = Crowd::gather(at, SLOW);
        let (mut most, mut kib, mut visits) = (0, 0, Vec::new());
        for byte in beginning.chunks(1).take(BYTES) {
            crowd.say(byte);
            visits.push(stage.visit());
            most = most.max(stage.server_fds());
            kib = kib.max(memory.growth(&stage.server));
        }
        let attack = format!("{SLOW} slow peers, {name}");
        assert_at_most(&format!("{attack}: server"), SLOW_KIB, kib, "KiB");
        // The API serves a few at a time.
        let wanted = if at == stage.api { 32 } else { SLOW };
        assert!(most >= wanted, "{attack}: {most} at once");
        visits.sort();
        note(
            &format!("{attack}: a visitor meanwhile"),
            "answered",
            format!(
                "{} times, the slowest {:?}",
                visits.len(),
                visits[visits.len() - 1]
            ),
        );
        crowd.cut();
        stage.assert_unharmed();
    }
}

#[test]
fn slow_peers_are_closed_after_one_deadline_whatever_they_send() {
    const EACH: usize = 20;
    let mut stage = Stage::set("", "");
    let mut crowds: Vec<_> = beginnings(&stage)
        .into_iter()
        // Visitors of a TCP port may be silent for any time.
        .filter(|(_, at, _)| *at != stage.port)
        .map(|(name, at, beginning)| (name, beginning, 0, Crowd::gather(at, EACH), Instant::now()))
        .collect();
    let mut gone = Vec::new();
    eventually_within(DEADLINE * 4, "slow peers to be gone", || {
        crowds.retain_mut(|(name, beginning, said, crowd, begun)| {
            // The last byte never comes, and the first ones late: no byte extends the deadline.
            let silent = if *said == 1 { LATE } else { Duration::ZERO };
            let often = Duration::from_millis(200) * u32::try_from(*said).unwrap();
            if *said < beginning.len() - 1 && begun.elapsed() > silent + often {
                crowd.say(&beginning[*said..=*said]);
                *said += 1;
            }
            if crowd.open() > 0 {
                return true;
            }
            gone.push((*name, begun.elapsed()));
            false
        });
        crowds.is_empty().then_some(())
    });
    for (name, after) in gone {
        assert_at_most(
            &format!("slow peers are gone, {name}"),
            DEADLINE.as_secs_f32(),
            after.as_secs_f32(),
            "s",
        );
    }
    stage.assert_unharmed();
}

#[test]
fn an_unidentified_connection_costs_less_than_a_kibibyte() {
    let one = gt1::hello("id2", "secret2", &ID_ALONE);
    let two = gt2::hello("id2", "secret2", &ID_ALONE, 1000);
    type Listener = fn(&Stage) -> SocketAddr;
    let attacks: [(&str, Listener, &[u8]); 5] = [
        ("nothing", |stage| stage.addr, &[]),
        ("nothing to TLS", |stage| stage.tls, &[]),
        (
            "half a hello of GT/1",
            |stage| stage.addr,
            &one[..one.len() / 2],
        ),
        (
            "half a hello of GT/2",
            |stage| stage.addr,
            &two[..two.len() / 2],
        ),
        (
            "half a record to TLS",
            |stage| stage.tls,
            &client_hello("safe.a")[..40],
        ),
    ];
    for (name, at, bytes) in attacks {
        // A new server each time, since memory used by one attack is free for the next.
        let mut stage = Stage::set("", "");
        let at = at(&stage);
        let memory = Memory::since_now(&stage.server);
        let mut crowd = Crowd::gather(at, UNKNOWN);
        crowd.say(bytes);
        eventually_within(crate::common::PATIENCE, "all to be accepted", || {
            (stage.server_fds() >= UNKNOWN).then_some(())
        });
        stage.visit();
        let each = memory.growth(&stage.server) * 1024 / UNKNOWN;
        let attack = format!("{UNKNOWN} peers that say {name}: server, each");
        assert_at_most(&attack, UNKNOWN_BYTES, each, "bytes");
        crowd.cut();
        stage.assert_unharmed();
    }
}
