//! The Makefile for a feed of OpenWrt, under a make that knows the part of the SDK that it uses.

use crate::common::process::run_ok;
use crate::common::router::{make_ipk, unpack_part, REPOSITORY};
use crate::common::scratch::Scratch;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

fn make(goal: &str, root: &Path) -> String {
    let sdk = Path::new(REPOSITORY).join("tests/router/sdk");
    run_ok(
        Command::new("make")
            .args(["-s", "-C"])
            .arg(Path::new(REPOSITORY).join("openwrt/gt"))
            .arg(format!("TOPDIR={}", sdk.display()))
            .arg(format!("ROOT={}", root.display()))
            .arg(goal),
    )
}

/// Returns what the Makefile says of each package, by its name.
fn packages() -> Vec<(String, BTreeMap<String, String>)> {
    let said = make("list", Path::new("/nonexistent"));
    let package = |line: &str| {
        let (name, rest) = line.split_once(": ").expect("a name");
        let facts = rest.split("; ").map(|fact| {
            let (key, value) = fact.split_once(' ').unwrap_or((fact, ""));
            (key.to_owned(), value.to_owned())
        });
        (name.to_owned(), facts.collect())
    };
    said.lines().map(package).collect()
}

#[test]
fn conflicts_go_one_way_and_cover_all() {
    let packages = packages();
    let names: Vec<&str> = packages.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["gt", "gt-client", "gt-client-p2p", "gt-server"]);
    let conflicts = |one: &str, other: &str| {
        let (_, facts) = packages.iter().find(|(name, _)| name == one).expect("one");
        facts["conflicts"].split(' ').any(|name| name == other)
    };
    for (at, one) in names.iter().enumerate() {
        assert!(!conflicts(one, one));
        for other in &names[at + 1..] {
            assert!(
                conflicts(one, other) != conflicts(other, one),
                "{one} and {other}"
            );
        }
    }
}

#[test]
fn the_variants_have_the_features_of_the_profiles() {
    let build = fs::read_to_string(Path::new(REPOSITORY).join("openwrt/build")).expect("read");
    for (name, facts) in packages() {
        let profile = name.strip_prefix("gt-").unwrap_or("full");
        assert_eq!(facts["variant"], profile);
        let row = build
            .lines()
            .find(|line| line.split_whitespace().next() == Some(profile))
            .unwrap_or_else(|| panic!("no profile {profile}"));
        let features = row.split_whitespace().nth(1).expect("features");
        assert_eq!(facts["features"], features, "{name}");
        assert_eq!(facts["conffiles"], "/etc/gt.yaml");
        assert_eq!(facts["user"], "gt:gt");
    }
}

/// Returns the files below a folder with their modes and contents.
fn tree(root: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("list a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(root).expect("below the root");
            let mode = fs::metadata(&path).expect("a file").permissions().mode() & 0o7777;
            let content = fs::read(&path).expect("a file");
            files.insert(name.display().to_string(), (mode, content));
        }
    }
    files
}

#[test]
fn each_package_closes_the_firewall_when_it_is_removed_and_not_at_an_upgrade() {
    for (name, _) in packages() {
        let script = make(&format!("prerm-{name}"), Path::new("/nonexistent"));
        let closes = |environment: &[(&str, &str)]| {
            let script = script.replace("/etc/init.d/gt", "echo");
            let mut shell = Command::new("sh");
            shell.args(["-c", &script]).env_clear();
            run_ok(shell.envs(environment.iter().copied()))
        };
        assert_eq!(closes(&[]), "close\n", "{script}");
        assert_eq!(closes(&[("PKG_UPGRADE", "1")]), "");
        // The image builder removes nothing from the router that it runs for.
        assert_eq!(closes(&[("IPKG_INSTROOT", "/image")]), "");
    }
}

#[test]
fn its_files_are_those_of_the_package_script() {
    let scratch = Scratch::new();
    let (root, other) = (scratch.dir("root"), scratch.dir("other"));
    fs::create_dir_all(root.join("built/bin")).expect("make a folder");
    fs::write(root.join("built/bin/gt"), "the program\n").expect("write");
    make("install-gt", &root);
    fs::remove_dir_all(root.join("built")).expect("remove");
    assert!(root.join("etc/gt").is_dir());
    unpack_part(&make_ipk(&scratch), "data", &other);
    assert_eq!(tree(&root), tree(&other));
}
