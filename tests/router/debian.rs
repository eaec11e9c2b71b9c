//! The Debian packages: their content, and what their scripts tell systemd.

use crate::common::debian::{make_deb, packer, stand_ins, Machine, TARGETS, VERSION};
use crate::common::process::{run, run_ok};
use crate::common::program::install_script;
use crate::common::router::REPOSITORY;
use crate::common::scratch::Scratch;
use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

const LIST_UNITS: &str =
    "systemctl list-units --plain --no-legend --state=active,reloading gt.service gt@*.service";

/// Returns the calls that create the user and look whether paths have an override.
fn first_calls(shared: &[&str]) -> Vec<String> {
    let mut calls = vec!["systemd-sysusers gt.conf".to_owned()];
    for path in ["/etc/gt.yaml", "/etc/gt"] {
        calls.push(format!("dpkg-statoverride --list {path}"));
        if shared.contains(&path) {
            calls.push(format!("chgrp gt {path}"));
        }
    }
    calls
}

/// Returns the calls of an upgrade that ask systemd what runs, and then `last`.
fn upgrade_calls(last: &[&str]) -> Vec<String> {
    let mut calls = first_calls(&["/etc/gt.yaml", "/etc/gt"]);
    calls.extend(["systemctl --system daemon-reload", LIST_UNITS].map(str::to_owned));
    calls.extend(last.iter().map(|call| (*call).to_owned()));
    calls
}

fn two_instances(machine: &Machine) {
    machine.write(
        "tmp/units",
        "gt.service      loaded active running gt, a reverse-proxy tunnel\n\
         gt@shop.service loaded active running gt, a reverse-proxy tunnel (shop)\n",
    );
}

#[test]
fn a_first_installation_creates_the_user_and_starts_nothing() {
    let machine = Machine::new();
    // Instances of an installation by hand, which this package does not know.
    two_instances(&machine);
    let mut calls = first_calls(&["/etc/gt.yaml", "/etc/gt"]);
    calls.push("systemctl --system daemon-reload".to_owned());
    assert_eq!(machine.calls_of(&["postinst", "configure", ""]), calls);
}

#[test]
fn an_upgrade_hands_every_running_instance_over() {
    let machine = Machine::new();
    two_instances(&machine);
    let calls = upgrade_calls(&[
        "systemctl kill --kill-whom=main --signal=QUIT gt.service",
        "systemctl kill --kill-whom=main --signal=QUIT gt@shop.service",
    ]);
    assert_eq!(
        machine.calls_of(&["postinst", "configure", "0.0.1-1"]),
        calls
    );
}

#[test]
fn an_upgrade_without_running_instances_starts_none() {
    let machine = Machine::new();
    let calls = machine.calls_of(&["postinst", "configure", "0.0.1-1"]);
    assert_eq!(calls, upgrade_calls(&[]));
}

#[test]
fn an_upgrade_before_systemd_252_uses_the_former_name_of_the_option() {
    let machine = Machine::new();
    machine.write("tmp/units", "gt.service loaded active running gt\n");
    machine.record(
        "systemctl",
        "case $* in list-units*) cat /tmp/units ;; *whom*) echo unknown >&2; exit 1 ;; esac\n",
    );
    let calls = upgrade_calls(&[
        "systemctl kill --kill-whom=main --signal=QUIT gt.service",
        "systemctl kill --kill-who=main --signal=QUIT gt.service",
    ]);
    assert_eq!(
        machine.calls_of(&["postinst", "configure", "0.0.1-1"]),
        calls
    );
}

#[test]
fn an_upgrade_succeeds_and_says_so_if_an_instance_cannot_be_handed_over() {
    let machine = Machine::new();
    two_instances(&machine);
    machine.record(
        "systemctl",
        "case $* in list-units*) cat /tmp/units ;; *gt.service) exit 1 ;; esac\n",
    );
    let (output, calls) = machine.run_script(&["postinst", "configure", "0.0.1-1"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "gt: gt.service still runs the version before this upgrade\n"
    );
    let last = calls.last().expect("calls");
    assert_eq!(
        last,
        "systemctl kill --kill-whom=main --signal=QUIT gt@shop.service"
    );
}

#[test]
fn a_policy_of_the_machine_can_forbid_a_handover() {
    let machine = Machine::new();
    two_instances(&machine);
    machine.record(
        "policy-rc.d",
        "[ \"$1\" != gt.service ] || exit 101\nexit 104\n",
    );
    let calls = upgrade_calls(&[
        "policy-rc.d gt.service restart",
        "policy-rc.d gt@shop.service restart",
        "systemctl kill --kill-whom=main --signal=QUIT gt@shop.service",
    ]);
    assert_eq!(
        machine.calls_of(&["postinst", "configure", "0.0.1-1"]),
        calls
    );
}

#[test]
fn owners_modes_and_overrides_of_the_administrator_stay() {
    let machine = Machine::new();
    machine.write("tmp/overrides", "/etc/gt.yaml\n");
    let mode = fs::Permissions::from_mode(0o700);
    fs::set_permissions(machine.path("etc/gt"), mode).expect("change a mode");
    let mut calls = first_calls(&[]);
    calls.push("systemctl --system daemon-reload".to_owned());
    assert_eq!(machine.calls_of(&["postinst", "configure", ""]), calls);

    // A configuration that has been deleted is not an error.
    machine.write("tmp/overrides", "");
    fs::remove_file(machine.path("etc/gt.yaml")).expect("delete the configuration");
    assert_eq!(machine.calls_of(&["postinst", "configure", ""]), calls);
}

#[test]
fn without_systemd_the_scripts_call_nothing_of_it() {
    let machine = Machine::new();
    fs::remove_dir(machine.path("run/systemd/system")).expect("end systemd");
    let calls = machine.calls_of(&["postinst", "configure", "0.0.1-1"]);
    assert_eq!(calls, first_calls(&["/etc/gt.yaml", "/etc/gt"]));
    for words in [["prerm", "remove"], ["postrm", "remove"]] {
        assert_eq!(machine.calls_of(&words), [""; 0], "{words:?}");
    }
}

#[test]
fn a_removal_stops_all_instances_and_an_upgrade_none() {
    let machine = Machine::new();
    assert_eq!(
        machine.calls_of(&["prerm", "remove"]),
        ["deb-systemd-invoke stop gt.service gt@*.service"]
    );
    for words in [
        &["prerm", "upgrade", "9.0.0-1"][..],
        &["postrm", "upgrade", "9.0.0-1"],
        &["postinst", "abort-upgrade", "9.0.0-1"],
    ] {
        assert_eq!(machine.calls_of(words), [""; 0], "{words:?}");
    }
}

#[test]
fn a_removal_keeps_the_configuration_and_a_purge_deletes_it() {
    let machine = Machine::new();
    let wants = machine.path("etc/systemd/system/multi-user.target.wants");
    for folder in [&wants, &machine.path("var/log/gt")] {
        fs::create_dir_all(folder).expect("make a folder");
    }
    machine.write("etc/gt/shop.yaml", "");
    machine.write("var/log/gt/gt.log", "");
    for (name, unit) in [
        ("gt.service", "/lib/systemd/system/gt.service"),
        ("gt@shop.service", "/lib/systemd/system/gt@.service"),
        // Units that are installed by hand.
        ("gt@own.service", "../gt@.service"),
        ("other.service", "../other.service"),
    ] {
        symlink(unit, wants.join(name)).expect("enable a unit");
    }
    machine.write("etc/systemd/system/gt@.service", "");
    let enabled = || {
        let links = fs::read_dir(&wants).expect("the enabled units");
        let mut names: Vec<_> = links
            .map(|link| link.expect("a link").file_name())
            .collect();
        names.sort();
        names
    };
    let before = enabled();
    let reload = ["systemctl --system daemon-reload"];
    assert_eq!(machine.calls_of(&["postrm", "remove"]), reload);
    assert_eq!(enabled(), before);
    assert!(machine.path("etc/gt/shop.yaml").exists());
    assert!(machine.path("var/log/gt/gt.log").exists());
    assert_eq!(machine.calls_of(&["postrm", "purge"]), reload);
    assert_eq!(enabled(), ["gt@own.service", "other.service"]);
    assert!(!machine.path("etc/gt").exists());
    assert!(!machine.path("var/log/gt").exists());
}

/// Returns what `dpkg-deb` prints.
fn dpkg_deb(option: &str, deb: &Path, more: &[&str]) -> String {
    run_ok(Command::new("dpkg-deb").arg(option).arg(deb).args(more))
}

/// Unpacks a package, its control files included; returns the folder.
fn unpack(scratch: &Scratch, deb: &Path) -> PathBuf {
    let root = scratch.dir("root");
    run_ok(Command::new("dpkg-deb").arg("-R").args([deb, &root]));
    root
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn one_command_packs_the_program_of_each_architecture() {
    let scratch = Scratch::new();
    let out = scratch.join("packages");
    run_ok(packer(Path::new(REPOSITORY), &stand_ins(&scratch), &out).arg("all"));
    for (target, arch) in TARGETS {
        let deb = out.join(format!("gt_{VERSION}_{arch}.deb"));
        let fields = ["Package", "Version", "Architecture"];
        let said = dpkg_deb("-f", &deb, &fields);
        let wanted = format!("Package: gt\nVersion: {VERSION}\nArchitecture: {arch}\n");
        assert_eq!(said, wanted);
        let root = scratch.dir(arch);
        run_ok(Command::new("dpkg-deb").arg("-x").args([&deb, &root]));
        assert_eq!(read(root.join("usr/bin/gt")), target);
    }
}

#[test]
fn the_package_has_its_files_owners_modes_and_fields() {
    let scratch = Scratch::new();
    let deb = make_deb(&scratch, "amd64");
    let list = dpkg_deb("-c", &deb, &[]);
    let files: Vec<(&str, &str)> = list
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!((words[1], words.len()), ("root/root", 6), "{line}");
            (words[5], words[0])
        })
        .collect();
    for file in [
        ("./etc/gt.yaml", "-rw-r-----"),
        ("./etc/gt/", "drwxr-x---"),
        ("./etc/needrestart/conf.d/gt.conf", "-rw-r--r--"),
        ("./usr/bin/gt", "-rwxr-xr-x"),
        ("./usr/lib/systemd/system/gt.service", "-rw-r--r--"),
        ("./usr/lib/systemd/system/gt@.service", "-rw-r--r--"),
        ("./usr/lib/sysusers.d/gt.conf", "-rw-r--r--"),
        ("./usr/share/doc/gt/README.Debian", "-rw-r--r--"),
        ("./usr/share/doc/gt/NOTICES.gz", "-rw-r--r--"),
        ("./usr/share/doc/gt/changelog.Debian.gz", "-rw-r--r--"),
        ("./usr/share/doc/gt/changelog.gz", "-rw-r--r--"),
        ("./usr/share/doc/gt/copyright", "-rw-r--r--"),
        ("./usr/share/doc/gt/docs/operations.md", "-rw-r--r--"),
        ("./usr/share/man/man1/gt.1.gz", "-rw-r--r--"),
    ] {
        assert!(files.contains(&file), "{file:?}: {list}");
    }
    let root = unpack(&scratch, &deb);
    assert_eq!(
        read(root.join("DEBIAN/conffiles")),
        "/etc/gt.yaml\n/etc/needrestart/conf.d/gt.conf\n"
    );
    assert_eq!(
        dpkg_deb("-f", &deb, &["Depends", "Recommends", "Conflicts"]),
        "Depends: systemd | systemd-standalone-sysusers | systemd-sysusers\n\
         Recommends: ca-certificates\n\
         Conflicts: genometools\n"
    );
    run_ok(
        Command::new("md5sum")
            .args(["--quiet", "-c", "DEBIAN/md5sums"])
            .current_dir(&root),
    );
    let sample = read(Path::new(REPOSITORY).join("etc/gt.yaml"));
    assert_eq!(read(root.join("etc/gt.yaml")), sample);
    let page = run_ok(
        Command::new("gzip")
            .arg("-dc")
            .arg(root.join("usr/share/man/man1/gt.1.gz")),
    );
    assert_eq!(page, read(Path::new(REPOSITORY).join("etc/gt.1")));
}

#[test]
fn both_units_have_all_settings_of_the_unit_in_etc() {
    let scratch = Scratch::new();
    let root = unpack(&scratch, &make_deb(&scratch, "amd64"));
    let unit = read(Path::new(REPOSITORY).join("etc/gt.service"));
    let (_, settings) = unit.split_once("\n\n").expect("a comment at the top");
    for (name, config, description) in [
        ("gt.service", "/etc/gt.yaml", "gt, a reverse-proxy tunnel"),
        (
            "gt@.service",
            "/etc/gt/%i.yaml",
            "gt, a reverse-proxy tunnel (%i)",
        ),
    ] {
        let wanted = settings
            .replacen(
                "ExecStart=/usr/local/bin/gt -config /etc/gt.yaml\n",
                &format!("ExecStart=/usr/bin/gt -config {config}\n"),
                1,
            )
            .replacen(
                "Description=gt, a reverse-proxy tunnel\n",
                &format!("Description={description}\n"),
                1,
            );
        assert!(wanted.contains("ExecStart=/usr/bin/gt "), "{wanted}");
        let packed = read(root.join("usr/lib/systemd/system").join(name));
        let (_, packed) = packed.split_once("\n\n").expect("a comment at the top");
        assert_eq!(packed, wanted, "{name}");
    }
}

/// Copies what the packer reads into another folder.
fn copy_sources(scratch: &Scratch) -> PathBuf {
    let tree = scratch.dir("tree");
    let names = [
        "CHANGELOG.md",
        "Cargo.toml",
        "README.md",
        "SECURITY.md",
        "docs",
        "etc",
        "release",
    ];
    let sources = names.map(|name| Path::new(REPOSITORY).join(name));
    run_ok(Command::new("cp").arg("-r").args(sources).arg(&tree));
    // cargo knows the crates of the whole repository only.
    let notices = format!("#!/bin/sh\nexec {REPOSITORY}/release/notices\n");
    install_script(&tree.join("release/notices"), &notices);
    tree
}

#[test]
fn the_packages_are_the_same_bytes_from_another_folder() {
    let (one, other) = (Scratch::new(), Scratch::new());
    let packed = make_deb(&one, "amd64");
    let tree = copy_sources(&other);
    let out = other.join("packages");
    let command = packer(&tree, &stand_ins(&other), &out);
    // A user whose files are private, and with more processors.
    let mut private = Command::new("sh");
    private
        .args(["-c", "umask 077 && exec \"$@\"", "sh"])
        .arg(command.get_program())
        .arg("amd64");
    for (name, value) in command.get_envs() {
        private.env(name, value.unwrap_or_default());
    }
    run_ok(private.env("DPKG_DEB_THREADS_MAX", "8"));
    let again = out.join(format!("gt_{VERSION}_amd64.deb"));
    assert!(
        fs::read(packed).unwrap() == fs::read(again).unwrap(),
        "they differ"
    );
}

#[test]
fn a_release_candidate_precedes_its_release() {
    let scratch = Scratch::new();
    let tree = copy_sources(&scratch);
    let cargo = read(tree.join("Cargo.toml"));
    let version = concat!("version = \"", env!("CARGO_PKG_VERSION"), "\"");
    let cargo = cargo.replacen(version, "version = \"1.0.0-rc.1\"", 1);
    fs::write(tree.join("Cargo.toml"), cargo).expect("write Cargo.toml");
    let out = scratch.join("packages");
    run_ok(packer(&tree, &stand_ins(&scratch), &out).arg("armhf"));
    let deb = out.join("gt_1.0.0~rc.1-1_armhf.deb");
    let version = dpkg_deb("-f", &deb, &["Version"]);
    run_ok(Command::new("dpkg").args(["--compare-versions", version.trim(), "lt", "1.0.0-1"]));
}

#[test]
fn debians_changelog_has_the_changes_of_this_version() {
    let scratch = Scratch::new();
    let tree = copy_sources(&scratch);
    let long = "word ".repeat(40);
    let changes = format!(
        "# Changelog\n\n## [Unreleased]\n\n- Later.\n\n## [{0}] - 2001-02-03\n\n### Added\n\n\
         - One thing,\n  with a second line.\n- {long}\n\n### Fixed\n\n- Another.\n\n\
         ## [0.0.1] - 2000-01-01\n\n- Earlier.\n",
        env!("CARGO_PKG_VERSION")
    );
    fs::write(tree.join("CHANGELOG.md"), changes).expect("write CHANGELOG.md");
    let out = scratch.join("packages");
    let mut command = packer(&tree, &stand_ins(&scratch), &out);
    run_ok(
        command
            .arg("amd64")
            .env("DEBEMAIL", "ann@example.com")
            .env("DEBFULLNAME", "Ann"),
    );
    let root = unpack(&scratch, &out.join(format!("gt_{VERSION}_amd64.deb")));
    let file = root.join("usr/share/doc/gt/changelog.Debian.gz");
    let said = run_ok(Command::new("gzip").arg("-dc").arg(file));
    let (fifteen, ten) = ("word ".repeat(15), "word ".repeat(10));
    let wanted = format!(
        "gt ({VERSION}) unstable; urgency=medium\n\n  [ Added ]\n  * One thing, with a second line.\n  \
         * {}\n    {}\n    {}\n\n  [ Fixed ]\n  * Another.\n\n \
         -- Ann <ann@example.com>  Sun, 09 Sep 2001 01:46:40 +0000\n",
        fifteen.trim(),
        fifteen.trim(),
        ten.trim()
    );
    assert_eq!(said, wanted);
}

#[test]
fn the_error_for_a_missing_program_says_how_to_build_it() {
    let scratch = Scratch::new();
    let programs = scratch.dir("programs");
    scratch.file("programs/gt-full-x86_64", "x86_64");
    let out = scratch.join("packages");
    let output = run(packer(Path::new(REPOSITORY), &programs, &out).arg("all"));
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let wanted = "gt-full-aarch64 does not exist; build it with: openwrt/build aarch64 full\n";
    assert!(said.ends_with(wanted), "{said}");
    assert!(!out.exists(), "nothing is packed");
}

#[test]
fn the_error_for_an_unknown_architecture_lists_the_known_ones() {
    for words in [&["amd64", "mips"][..], &["x86_64"], &[]] {
        let output = run(Command::new(Path::new(REPOSITORY).join("release/debian")).args(words));
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains("architectures: amd64, arm64, armhf\n"),
            "{said}"
        );
    }
}
