//! The rule of OpenWrt's firewall for peers: which calls of uci the init script and the package make.

use crate::common::process::run;
use crate::common::program::install_script;
use crate::common::router::Router;
use std::fs;

/// A client with these further options.
fn client(options: &str) -> String {
    format!(
        "options: {{remote: 127.0.0.1:1, id: id1, secret: secret1, local: 'http://127.0.0.1:1'{options}}}\n"
    )
}

const RANGE: &str = ", webrtcMinPort: 50000, webrtcMaxPort: 50010";

/// Returns a router with a firewall and the configuration of a client with these further options.
fn router(options: &str) -> Router {
    let router = Router::new();
    fs::create_dir_all(router.path("etc/config")).expect("make a folder");
    router.write("etc/config/firewall", "");
    install_script(
        &router.path("etc/init.d/firewall"),
        "#!/bin/sh\necho \"firewall $*\" >>/tmp/calls\n",
    );
    router.write("etc/gt.yaml", &client(options));
    router
}

/// Runs the init script, which succeeds; returns its calls of uci, the firewall and the log.
fn init(router: &Router, words: &[&str]) -> Vec<String> {
    let (output, calls) = router.init(words);
    assert!(output.status.success(), "{output:?}");
    of_firewall(calls)
}

fn of_firewall(calls: Vec<String>) -> Vec<String> {
    let procd = |call: &String| call.starts_with("procd_");
    calls.into_iter().filter(|call| !procd(call)).collect()
}

/// Returns the calls that make the rule.
fn made(ports: &str) -> Vec<String> {
    let mut calls: Vec<String> = [
        "uci set firewall.gt=rule",
        "uci set firewall.gt.name=gt: peers",
        "uci set firewall.gt.src=wan",
        "uci set firewall.gt.proto=udp",
        "uci set firewall.gt.target=ACCEPT",
    ]
    .map(str::to_owned)
    .into();
    calls.extend(changed(ports));
    calls
}

/// Returns the calls that change the ports of the rule.
fn changed(ports: &str) -> Vec<String> {
    vec![
        format!("uci set firewall.gt.dest_port={ports}"),
        "uci commit firewall".to_owned(),
        "firewall reload".to_owned(),
        format!(
            "logger -s -t gt -p daemon.info the firewall lets peers in at the UDP ports {ports}"
        ),
    ]
}

const REMOVED: [&str; 4] = [
    "uci delete firewall.gt",
    "uci commit firewall",
    "firewall reload",
    "logger -s -t gt -p daemon.info the firewall lets no peers in any more",
];

#[test]
fn the_ports_of_peers_of_all_files_are_one_rule_that_is_written_once() {
    let router = router(RANGE);
    router.write("etc/gt/shop.yaml", &client(", webrtcMinPort: 50020"));
    router.write("etc/gt/other.yaml", &client(""));
    let (_, calls) = router.init(&["start"]);
    let last = calls.iter().rposition(|call| call.starts_with("procd_"));
    let first = calls.iter().position(|call| call.starts_with("uci "));
    assert!(last < first, "procd knows the instances first: {calls:?}");
    assert_eq!(of_firewall(calls), made("50000-50010 50020"));
    assert!(init(&router, &["start"]).is_empty());
    assert!(init(&router, &["stop"]).is_empty());
    assert!(init(&router, &["reload"]).is_empty());
}

#[test]
fn a_reload_changes_the_ports_alone_and_removes_the_rule_with_the_options() {
    let router = router(RANGE);
    router.write("tmp/running", "gt gt.yaml\n");
    assert_eq!(init(&router, &["reload"]), made("50000-50010"));
    let rule = fs::read_to_string(router.path("tmp/uci")).expect("the rule");
    // The user has turned it off.
    router.write("tmp/uci", &format!("{rule}firewall.gt.enabled=0\n"));
    router.write("etc/gt.yaml", &client(", webrtcMinPort: 50005"));
    assert_eq!(init(&router, &["reload"]), changed("50005"));
    let rule = fs::read_to_string(router.path("tmp/uci")).expect("the rule");
    assert!(rule.contains("firewall.gt.enabled=0\n"), "{rule}");
    router.write("etc/gt.yaml", &client(", webrtcMaxPort: 50010"));
    assert_eq!(init(&router, &["reload"]), REMOVED);
    assert!(init(&router, &["reload"]).is_empty());
}

#[test]
fn a_client_without_these_options_leaves_the_firewall_alone() {
    let router = router(", remoteSTUN: 'stun:127.0.0.1:1'");
    assert!(init(&router, &["start"]).is_empty());
    assert!(init(&router, &["close"]).is_empty());
}

#[test]
fn a_system_without_the_firewall_starts_clients_as_well() {
    let router = router(RANGE);
    fs::remove_file(router.path("etc/config/firewall")).expect("remove");
    assert!(init(&router, &["start"]).is_empty());
}

#[test]
fn the_ports_of_files_that_were_not_examined_stay_open() {
    let router = router(RANGE);
    router.write("etc/gt/shop.yaml", &client(", webrtcMinPort: 50020"));
    assert_eq!(init(&router, &["start"]), made("50000-50010 50020"));
    assert!(init(&router, &["start", "gt.yaml"]).len() <= 4);
    // A mistake: the instance that runs keeps its ports.
    router.write("tmp/running", "gt gt.yaml\ngt gt/shop.yaml\n");
    router.write("etc/gt.yaml", "options: {id: id1}\n");
    let (output, calls) = router.init(&["reload"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!calls.concat().contains("uci delete"), "{calls:?}");
    let rule = fs::read_to_string(router.path("tmp/uci")).expect("the rule");
    for ports in ["50000-50010", "50020"] {
        assert!(rule.contains(ports), "{rule}");
    }
}

#[test]
fn a_rule_of_the_user_with_this_name_is_left_alone() {
    let router = router(RANGE);
    router.write(
        "tmp/uci",
        "firewall.gt=rule\nfirewall.gt.name=my gt\nfirewall.gt.dest_port=8080\n",
    );
    let calls = init(&router, &["start"]);
    let [line] = &calls[..] else {
        panic!("a warning alone: {calls:?}");
    };
    assert!(
        line.starts_with("logger -s -t gt -p daemon.warn "),
        "{line}"
    );
    assert!(
        line.ends_with("another rule is named firewall.gt"),
        "{line}"
    );
    assert!(init(&router, &["close"]).is_empty());
}

#[test]
fn a_rule_that_cannot_be_written_is_an_error_in_the_log_and_the_client_starts() {
    let router = router(RANGE);
    router.write("tmp/uci-fails", "");
    let calls = init(&router, &["start"]);
    let end = [
        "uci commit firewall",
        "uci revert firewall.gt",
        "logger -s -t gt -p daemon.err the firewall's rule for peers cannot be changed: uci commit firewall failed",
    ];
    assert_eq!(calls[calls.len() - 3..], end);
}

#[test]
fn the_rule_goes_with_the_package_and_not_with_an_upgrade() {
    let router = router(RANGE);
    router.write("lib/functions.sh", "default_prerm() { :; }\n");
    assert_eq!(init(&router, &["start"]), made("50000-50010"));
    let prerm = "/usr/lib/opkg/info/prerm";
    for (words, calls) in [(&["upgrade", "2"][..], &[][..]), (&["remove"], &REMOVED)] {
        let _ = fs::remove_file(router.path("tmp/calls"));
        let line = [&["/bin/sh", prerm], words].concat();
        let output = run(&mut router.command(&line));
        assert!(output.status.success(), "{output:?}");
        let made = fs::read_to_string(router.path("tmp/calls")).unwrap_or_default();
        assert_eq!(made.lines().collect::<Vec<_>>(), calls, "{words:?}");
    }
}
