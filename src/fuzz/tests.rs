//! The fuzz entries without a fuzzer: every target's corpus, and ten thousand deterministic inputs.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, Index};
use proptest::test_runner::{RngSeed, TestRunner};
use std::fs;
use std::path::Path;

/// Number of inputs for each target, unless `GT_FUZZ_CASES` says another.
const CASES: u32 = 10_000;
/// Longer samples are not varied: they show limits, and their variants add nothing.
const LONG: usize = 800;

fn cases() -> u32 {
    let asked = std::env::var("GT_FUZZ_CASES").ok();
    asked.map_or(CASES, |number| number.parse().unwrap())
}

/// Returns the files of a target's corpus in a fixed order.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(target);
    let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{path:?} is empty");
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// A change of an input.
#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    /// Copies a piece to another position.
    Copy(Index, Index, usize),
}

impl Change {
    fn apply(self, input: &mut Vec<u8>) {
        if input.is_empty() {
            return;
        }
        let at = |index: Index| index.index(input.len());
        match self {
            Change::Set(index, byte) => {
                let at = at(index);
                input[at] = byte;
            }
            Change::Flip(index, bit) => {
                let at = at(index);
                input[at] ^= 1 << bit;
            }
            Change::Insert(index, bytes) => {
                let at = at(index);
                input.splice(at..at, bytes);
            }
            Change::Remove(index, count) => {
                let at = at(index);
                input.drain(at..input.len().min(at + count));
            }
            Change::Copy(from, to, count) => {
                let (from, to) = (at(from), at(to));
                let piece = input[from..input.len().min(from + count)].to_vec();
                input.splice(to..to, piece);
            }
        }
    }
}

fn any_change() -> impl Strategy<Value = Change> {
    // Bytes that begin, end or delimit something in one of the formats.
    let byte = prop_oneof![
        any::<u8>(),
        select(&b"\0\x01\x02\x03\x7F\x80\xFF\r\n \t:/%.-_=;,\"'{}[]!&*?#@09aZ"[..]),
    ];
    let index = any::<Index>;
    prop_oneof![
        (index(), byte.clone()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (index(), 0..8u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (index(), vec(byte, 1..4)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (index(), 1..9usize).prop_map(|(at, count)| Change::Remove(at, count)),
        (index(), index(), 1..40usize).prop_map(|(from, to, n)| Change::Copy(from, to, n)),
    ]
}

fn any_input(samples: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let changed = (select(samples), vec(any_change(), 1..6)).prop_map(|(mut input, changes)| {
        changes
            .into_iter()
            .for_each(|change| change.apply(&mut input));
        input
    });
    prop_oneof![
        4 => changed,
        1 => vec(any::<u8>(), 0..80),
    ]
}

fn run(target: &str, probe: fn(&[u8])) {
    run_some(target, probe, cases());
}

/// Probes this many inputs, besides those of the corpus.
fn run_some(target: &str, probe: fn(&[u8]), cases: u32) {
    let mut samples = corpus(target);
    samples.iter().for_each(|sample| probe(sample));
    samples.retain(|sample| sample.len() <= LONG);
    let config = ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let tested = TestRunner::new(config).run(&any_input(samples), |input| {
        probe(&input);
        Ok(())
    });
    if let Err(error) = tested {
        panic!("{error}");
    }
}

macro_rules! hold {
    ($($probe:ident)*) => {
        $(
            #[test]
            fn $probe() {
                crate::fuzz::tests::run(stringify!($probe), crate::fuzz::$probe);
            }
        )*
    };
}

mod promises_of_every_gt {
    hold!(datagrams flags gt1_frames gt1_hello gt2_frames gt2_hello http_answer http_requests keys origins urls yaml);
}

#[cfg(feature = "client")]
mod promises_of_the_client {
    hold!(files health_status locals visitor_fields);
}

#[cfg(all(feature = "client", feature = "outbound"))]
mod promises_of_the_way_out {
    hold!(outbound_options proxy_answers);
}

#[cfg(feature = "web")]
mod promises_of_the_page {
    hold!(config_edits web_requests);
}

#[cfg(feature = "import")]
mod promises_of_the_import {
    hold!(import_files);
}

#[cfg(all(feature = "client", feature = "password"))]
mod promises_of_passwords {
    hold!(passwords);
}

#[cfg(all(feature = "client", feature = "proxy"))]
mod promises_of_proxies {
    hold!(proxy_requests socks_datagrams socks_requests);
}

#[cfg(all(feature = "client", feature = "p2p"))]
mod promises_of_peers {
    hold!(dtls_records handshake_fragments ice_stun pieces resets sctp_chunks signaling);
}

#[cfg(all(
    feature = "client",
    feature = "p2p",
    feature = "quic",
    not(feature = "sim")
))]
mod promises_of_peers_over_quic {
    hold!(stream_header);

    /// Each input has a handshake of two ends.
    #[test]
    fn peer_packets() {
        let cases = crate::fuzz::tests::cases().div_ceil(10);
        crate::fuzz::tests::run_some("peer_packets", crate::fuzz::peer_packets, cases);
    }
}

#[cfg(feature = "portmap")]
mod promises_of_port_mapping {
    hold!(port_mapping upnp);
}

#[cfg(feature = "server")]
mod promises_of_the_server {
    hold!(client_hello http_head proxy_header subjects);
}

#[cfg(all(feature = "acme", not(feature = "sim")))]
mod promises_of_acme {
    hold!(acme_answers);
}

#[cfg(feature = "ws")]
mod promises_of_websockets {
    hold!(websocket);
}

#[cfg(all(
    feature = "server",
    feature = "client",
    feature = "quic",
    not(feature = "sim")
))]
mod promises_of_quic {
    hold!(quic_packets stream_headers);
}

#[cfg(all(feature = "server", feature = "p2p"))]
mod promises_of_the_stun_server {
    hold!(stun);
}
