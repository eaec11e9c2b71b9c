use super::*;
use rtc_ice::candidate::unmarshal_candidate;

const OWN: &str = "192.0.2.77";

fn checks(role: IceRole) -> ConnectivityChecks {
    ConnectivityChecks::new(Arc::default(), role, vec![OWN.parse().unwrap()])
}

fn named(checks: &mut ConnectivityChecks, addr: &str, now: Instant) -> bool {
    let addr: SocketAddr = addr.parse().unwrap();
    let (ip, port) = (addr.ip(), addr.port());
    let text = format!("1 1 udp 1 {ip} {port} typ host");
    checks.learn(&unmarshal_candidate(&text).unwrap(), now)
}

/// Builds a STUN message without attributes.
fn message(kind: u16, transaction: u32) -> Vec<u8> {
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend([0, 0, 0x21, 0x12, 0xa4, 0x42]);
    bytes.extend([0; 8]);
    bytes.extend(transaction.to_be_bytes());
    bytes
}

/// Returns when the checks of one address are sent, in milliseconds, while ICE writes one every 10
/// ms.
fn times(
    checks: &mut ConnectivityChecks,
    addr: SocketAddr,
    begin: Instant,
    seconds: u64,
) -> Vec<u64> {
    let times = (0..seconds * 1000).step_by(10).filter(|ms| {
        let now = begin + Duration::from_millis(*ms);
        checks.leaves(addr, &message(REQUEST, 1), now)
    });
    times.collect()
}

#[test]
fn own_and_link_local_addresses_are_not_checked_because_a_visitor_names_them() {
    let now = Instant::now();
    let never = [
        "0.0.0.0:5000",
        "0.1.2.3:5000",
        "169.254.1.1:5000",
        "224.0.0.251:5353",
        "255.255.255.255:5000",
        "10.0.0.1:0",
        "10.0.0.1:5353",
        "[2001:db8::1]:5353",
        "[::]:5000",
        "[fe80::1]:5000",
        "[ff02::1]:5000",
        "[::ffff:10.0.0.1]:5000",
    ];
    let own = [
        "127.0.0.1:5000",
        "127.9.9.9:5000",
        "[::1]:5000",
        "192.0.2.77:5000",
    ];
    for role in [IceRole::Answers, IceRole::Offers, IceRole::Dials] {
        for addr in never {
            assert!(!named(&mut checks(role), addr, now), "{addr} as {role:?}");
        }
        for addr in own {
            let checked = named(&mut checks(role), addr, now);
            assert_eq!(checked, role == IceRole::Dials, "{addr} as {role:?}");
        }
        for addr in ["10.0.0.1:5000", "[2001:db8::1]:53"] {
            assert!(named(&mut checks(role), addr, now), "{addr} as {role:?}");
        }
        assert!(!named(&mut checks(role), "127.0.0.1:53", now));
    }
}

#[test]
fn named_addresses_are_limited_and_leave_room_for_heard_ones() {
    let now = Instant::now();
    let mut checks = checks(IceRole::Answers);
    assert!(named(&mut checks, "10.0.0.1:1", now));
    assert!(!named(&mut checks, "10.0.0.1:1", now));
    let of_host = (2..100).filter(|port| named(&mut checks, &format!("10.0.0.1:{port}"), now));
    assert_eq!(1 + of_host.count(), MAX_NAMED_OF_HOST);
    let others = (2..100).filter(|host| named(&mut checks, &format!("10.0.0.{host}:1"), now));
    assert_eq!(MAX_NAMED_OF_HOST + others.count(), MAX_NAMED);
    let heard = (0..1000u16).filter(|port| {
        let from = SocketAddr::from(([10, 1, 1, 1], *port + 1));
        // One a second, so that their rate is not the limit.
        let now = now + Duration::from_secs(u64::from(*port));
        let admitted = checks.admit(from, &message(REQUEST, 0), now);
        if let Some(message) = admitted {
            checks.accept(from, message, now);
        }
        admitted.is_some()
    });
    assert_eq!(heard.count(), MAX_REMOTES - MAX_NAMED);
    assert_eq!(checks.remotes.len(), MAX_REMOTES);
}

#[test]
fn an_address_that_does_not_answer_gets_eight_checks_with_growing_pauses() {
    let begin = Instant::now();
    let mut checks = checks(IceRole::Answers);
    assert!(named(&mut checks, "10.0.0.1:1", begin));
    let addr = "10.0.0.1:1".parse().unwrap();
    let times = times(&mut checks, addr, begin, 60);
    assert_eq!(times, [0, 200, 400, 800, 1600, 3200, 5600, 8000]);
}

#[test]
fn an_address_heard_late_is_checked_again_for_a_limited_time() {
    let begin = Instant::now();
    let mut checks = checks(IceRole::Answers);
    assert!(named(&mut checks, "10.0.0.1:1", begin));
    let addr = "10.0.0.1:1".parse().unwrap();
    assert_eq!(times(&mut checks, addr, begin, 20).len(), 8);
    let late = begin + Duration::from_secs(20);
    let mut sent = 0;
    for ms in (0..20_000).step_by(20) {
        let now = late + Duration::from_millis(ms);
        let message = checks.admit(addr, &message(REQUEST, 0), now);
        checks.accept(addr, message.unwrap(), now);
        sent += u8::from(checks.leaves(addr, &self::message(REQUEST, 1), now));
        assert!(ms > 0 || sent == 1, "the first check is answered at once");
    }
    assert_eq!(8 + sent, HEARD_CHECKS);
}

#[test]
fn an_answer_counts_once_and_only_from_the_checked_address() {
    let now = Instant::now();
    let mut checks = checks(IceRole::Answers);
    assert!(named(&mut checks, "10.0.0.1:1", now));
    let [addr, other] = ["10.0.0.1:1", "10.0.0.2:1"].map(|addr| addr.parse().unwrap());
    assert_eq!(checks.admit(addr, &message(SUCCESS, 7), now), None);
    assert!(checks.leaves(addr, &message(REQUEST, 7), now));
    assert_eq!(checks.admit(other, &message(SUCCESS, 7), now), None);
    assert!(!checks.has_answered(addr));
    let answer = checks.admit(addr, &message(SUCCESS, 7), now).unwrap();
    checks.accept(addr, answer, now);
    assert!(checks.has_answered(addr));
    assert_eq!(checks.admit(addr, &message(SUCCESS, 7), now), None);
    // It has agreed to be checked.
    let sent = times(&mut checks, addr, now, 60).len();
    assert!(sent > 600, "{sent} checks");
}

#[test]
fn all_peers_share_a_budget_and_half_of_it_is_for_heard_addresses() {
    let begin = Instant::now();
    let budget = Arc::<CheckBudget>::default();
    let mut sent = 0;
    let mut peers: Vec<ConnectivityChecks> = (0..30u8)
        .map(|peer| {
            let mut checks = ConnectivityChecks::new(budget.clone(), IceRole::Answers, Vec::new());
            (1..=24).for_each(|host| {
                assert!(named(&mut checks, &format!("10.0.{peer}.{host}:1"), begin));
            });
            checks
        })
        .collect();
    for ms in (0..10_000).step_by(10) {
        let now = begin + Duration::from_millis(ms);
        for (peer, checks) in (0u8..).zip(&mut peers) {
            for host in 1..=24 {
                let addr = SocketAddr::from(([10, 0, peer, host], 1));
                sent += u32::from(checks.leaves(addr, &message(REQUEST, 1), now));
            }
        }
    }
    let share = BUDGET - RESERVE + 10_000 / 20;
    assert!((share - 10..=share).contains(&sent), "{sent} checks");
    let (late, from) = (
        begin + Duration::from_secs(10),
        "10.9.9.9:9".parse().unwrap(),
    );
    let heard = peers[0].admit(from, &message(REQUEST, 0), late).unwrap();
    peers[0].accept(from, heard, late);
    assert!(peers[0].leaves(from, &message(REQUEST, 1), late));
}

#[test]
fn the_peer_s_checks_are_rate_limited() {
    let begin = Instant::now();
    let mut checks = checks(IceRole::Answers);
    let from = "10.0.0.1:1".parse().unwrap();
    let taken = (0..100_000u64).filter(|n| {
        let now = begin + Duration::from_micros(*n * 100);
        checks.admit(from, &message(REQUEST, 0), now).is_some()
    });
    let most = u64::from(MAX_REQUESTS) + 10_000 / 20;
    let taken = u64::try_from(taken.count()).unwrap();
    assert!((most - 1..=most).contains(&taken), "{taken} checks");
}

#[test]
fn datagrams_from_the_multicast_dns_port_are_dropped() {
    let now = Instant::now();
    let mut checks = checks(IceRole::Answers);
    for (port, is_admitted) in [(5352, true), (5353, false), (5354, true)] {
        let from = SocketAddr::from(([10, 0, 0, 1], port));
        let admitted = checks.admit(from, &message(REQUEST, 0), now);
        assert_eq!(admitted.is_some(), is_admitted, "from port {port}");
    }
}
