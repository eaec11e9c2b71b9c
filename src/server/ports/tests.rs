use super::opening::{candidates, MAX_TRIES};
use super::PortFailure::{NoneFree, NotAllowed, System, TooMany};
use super::*;
use crate::config::{Limits, PortLimits, PortRange, PortRule};
use crate::net::{self, Listener, Shutdown};
use crate::wire::frame::{PortCause, ServiceIndex};
use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

fn rule(number: u32, first: u16, last: u16) -> PortRule {
    let range = PortRange { first, last };
    PortRule { number, range }
}

fn duplicate(socket: &PortSocket) -> OwnedFd {
    let socket = socket.to_send().expect("it is open");
    let duplicate = socket.as_fd().try_clone_to_owned();
    duplicate.expect("a descriptor")
}

/// Returns a port that is free now.
fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("[::]:0").unwrap();
    socket.local_addr().unwrap().port()
}

fn ask(port: u16, random: bool) -> PortRequest {
    PortRequest {
        protocol: Protocol::Tcp,
        random,
        port,
    }
}

fn limits(tcp: &[PortRule], total: u32) -> Limits {
    Limits {
        tcp: PortLimits {
            rules: tcp.to_vec(),
            total,
        },
        ..Limits::of_one_prefix()
    }
}

fn open(
    quota: &mut PortQuota<'_>,
    inherited: &mut Vec<InheritedPort>,
    request: PortRequest,
    service: ServiceIndex,
) -> Result<(PortListener, OpenedPort), PortFailure> {
    super::open(quota, inherited, request, service, &mut MAX_TRIES.clone())
}

fn open_one(
    rules: &[PortRule],
    request: PortRequest,
    service: ServiceIndex,
) -> Result<(PortListener, OpenedPort), PortFailure> {
    let limits = limits(rules, 0);
    open(
        &mut PortQuota::new(&limits),
        &mut Vec::new(),
        request,
        service,
    )
}

#[test]
fn a_requested_port_is_opened_if_allowed_and_free() {
    let port = free_port();
    let limits = limits(&[rule(1, port, port)], 0);
    let mut quota = PortQuota::new(&limits);
    let (mine, opened) = open(
        &mut quota,
        &mut Vec::new(),
        ask(port, false),
        ServiceIndex(3),
    )
    .unwrap();
    assert_eq!((mine.port, opened.listener.addr().port()), (port, port));
    assert_eq!((mine.service(), opened.port), (ServiceIndex(3), port));
    let again = open_one(&[rule(0, port, port)], ask(port, false), ServiceIndex(4));
    let again = again.err().expect("it is in use");
    assert!(matches!(again, System(_)), "{again}");
    assert_eq!(again.cause(), PortCause::InUse);
    let more = open(
        &mut quota,
        &mut Vec::new(),
        ask(port, false),
        ServiceIndex(4),
    );
    assert!(matches!(more.err(), Some(TooMany)));
}

#[test]
fn the_maximum_over_all_rules_is_enforced() {
    let limits = limits(&[rule(0, 20000, 40000), rule(0, 40001, 60000)], 2);
    let mut quota = PortQuota::new(&limits);
    let _first = open(&mut quota, &mut Vec::new(), ask(0, true), ServiceIndex(0)).unwrap();
    let _second = open(&mut quota, &mut Vec::new(), ask(0, true), ServiceIndex(1)).unwrap();
    let third = open(&mut quota, &mut Vec::new(), ask(0, true), ServiceIndex(2));
    assert!(matches!(third.err(), Some(TooMany)));
}

#[test]
fn no_port_outside_of_the_rules_is_opened() {
    let port = free_port();
    let failed = open_one(&[], ask(port, true), ServiceIndex(0)).err();
    assert!(matches!(failed, Some(NotAllowed)), "{failed:?}");
    let failed = open_one(&[rule(0, 1, 1)], ask(port, false), ServiceIndex(1)).err();
    assert!(matches!(failed, Some(NotAllowed)), "{failed:?}");
}

#[test]
fn an_inherited_port_is_used_if_still_allowed() {
    let inherit = || {
        let listener = net::listen(None, 0).unwrap();
        let port = listener.addr().port();
        let shared = InheritedPort {
            request: ask(0, true),
            port,
            listener: Some(PortSocket::Tcp(Arc::new(listener))),
            older: None,
        };
        (port, shared)
    };
    let (port, one) = inherit();
    let mut all = vec![one, inherit().1];
    let limits = limits(&[rule(0, port, port)], 0);
    let mut quota = PortQuota::new(&limits);
    let (mine, _opened) = open(&mut quota, &mut all, ask(0, true), ServiceIndex(0)).unwrap();
    assert_eq!((mine.port, all.len()), (port, 1));
    let other = open(&mut quota, &mut all, ask(0, true), ServiceIndex(1));
    let other = other.err().expect("it is outside of the rules");
    assert!(matches!(other, NoneFree), "{other}");
    assert!(all.is_empty(), "unusable ports are closed");
}

#[test]
fn a_reserved_port_is_opened_for_its_client_only() {
    let port = free_port();
    let limits = limits(&[rule(0, port, port)], 0);
    let is_others = |id| id == (Protocol::Tcp, port);
    for request in [ask(port, false), ask(port, true), ask(0, true)] {
        let mut quota = PortQuota::new(&limits).without(&is_others);
        let refused = open(&mut quota, &mut Vec::new(), request, ServiceIndex(2));
        assert!(refused.is_err(), "{request:?}");
    }
    let mut kept = vec![InheritedPort {
        request: ask(0, true),
        port,
        listener: None,
        older: None,
    }];
    let mut quota = PortQuota::new(&limits);
    let (mine, opened) = open(&mut quota, &mut kept, ask(0, true), ServiceIndex(0)).unwrap();
    assert_eq!((mine.port, opened.listener.addr().port()), (port, port));
}

#[test]
fn dropping_a_shared_port_does_not_close_it_for_the_other_process() {
    let other_process = |port: &mut PortListener| {
        let listener = port.share().listener.expect("a listener");
        duplicate(&listener)
    };
    let (mut mine, opened) = open_one(&[rule(0, 1, 65535)], ask(0, true), ServiceIndex(0)).unwrap();
    let (number, socket) = (mine.port, other_process(&mut mine));
    drop((mine, opened));
    let listener = Listener::adopt(socket).expect("it listens");
    assert_eq!(listener.addr().port(), number);
    let (mut mine, _opened) =
        open_one(&[rule(0, 1, 65535)], ask(0, true), ServiceIndex(0)).unwrap();
    let socket = other_process(&mut mine);
    mine.unshare();
    drop(mine);
    assert!(Listener::adopt(socket).is_err(), "it was closed");
}

#[test]
fn a_port_of_the_parent_process_is_not_closed_before_that_has_ended() {
    let rules = [rule(0, 1, 65535)];
    let limits = limits(&rules, 0);
    let gone = Shutdown::default();
    let inherit = |of_other_process: OwnedFd| {
        let listener = Listener::adopt(of_other_process).expect("it listens");
        let mut kept = vec![InheritedPort {
            request: ask(0, true),
            port: listener.addr().port(),
            listener: Some(PortSocket::Tcp(Arc::new(listener))),
            older: Some(gone.clone()),
        }];
        let mut quota = PortQuota::new(&limits);
        let (mine, _) = open(&mut quota, &mut kept, ask(0, true), ServiceIndex(0)).unwrap();
        mine
    };
    let theirs = net::listen(None, 0).expect("listen");
    let socket = || theirs.as_fd().try_clone_to_owned().expect("a descriptor");
    drop(inherit(socket()));
    assert!(Listener::adopt(socket()).is_ok(), "the parent accepts");
    let mine = inherit(socket());
    gone.trigger();
    drop(mine);
    assert!(Listener::adopt(socket()).is_err(), "it was closed");
    // A port opened early belongs to this process alone.
    let mut early = open_early(&limits, &[ask(0, true)], Vec::new());
    let opened = early[0].listener.clone().expect("a listener");
    let socket = duplicate(&opened);
    let mut quota = PortQuota::new(&limits);
    drop(open(&mut quota, &mut early, ask(0, true), ServiceIndex(0)).unwrap());
    assert!(Listener::adopt(socket).is_err(), "it was closed");
}

#[test]
fn a_random_request_gets_another_port_of_the_range() {
    let taken = std::net::TcpListener::bind("[::]:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let rules = [rule(0, 20000, 60000)];
    let (mine, _opened) = open_one(&rules, ask(port, true), ServiceIndex(0)).unwrap();
    assert!(mine.port != port && rules[0].range.contains(mine.port));
}

#[test]
fn ports_opened_early_take_no_try_under_the_lock() {
    let limits = limits(&[rule(0, 1024, 65535)], 0);
    let wanted = [ask(free_port(), false), ask(0, true), ask(0, true)];
    let mut early = open_early(&limits, &wanted, Vec::new());
    assert_eq!(early.len(), 3);
    let mut quota = PortQuota::new(&limits);
    let mut open = Vec::new();
    for (service, request) in (0..).zip(wanted) {
        open.push(
            super::open(
                &mut quota,
                &mut early,
                request,
                ServiceIndex(service),
                &mut 0,
            )
            .unwrap(),
        );
    }
    assert!(early.is_empty());
    let request = ask(free_port(), false);
    let locked = super::open(&mut quota, &mut early, request, ServiceIndex(3), &mut 0);
    assert!(matches!(locked, Err(PortFailure::Later)));
}

#[test]
fn every_port_of_a_small_range_is_tried() {
    let rules = [rule(0, 100, 109)];
    let tried: BTreeSet<u16> = candidates(&rules, 0).collect();
    let all: BTreeSet<u16> = (100..=109).collect();
    assert_eq!(tried, all);
    assert_eq!(
        candidates(&[rule(0, 1, 65535)], 0).count(),
        MAX_TRIES as usize
    );
}
