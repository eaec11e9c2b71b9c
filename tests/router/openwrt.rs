//! The OpenWrt package: its content, and what its init script tells procd.

use crate::common::gt::server_of_id1;
use crate::common::process::{run, run_ok};
use crate::common::router::{make_ipk, package_script, unpack_part, Router, REPOSITORY};
use crate::common::scratch::Scratch;
use crate::common::visitor::get;
use crate::common::{eventually, service};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

const CLIENT: &str = "options:\n  remote: 127.0.0.1:1\n  id: id1\n  secret: secret1\n  \
    local: http://127.0.0.1:1\n";

/// Who an instance runs as.
enum RunsAs {
    /// The user gt from the start.
    User,
    /// Root, which becomes the user gt.
    RootFirst,
    Root,
}

/// Returns the calls of procd for the instance of a file, from first to last.
fn instance(file: &str, runs_as: &RunsAs) -> Vec<String> {
    let name = file.strip_prefix("/etc/").expect("a file in /etc");
    let switch = match runs_as {
        RunsAs::RootFirst => " -user gt",
        RunsAs::User | RunsAs::Root => "",
    };
    let mut calls = vec![
        format!("procd_open_instance {name}"),
        format!("procd_set_param command /usr/bin/gt -config {file}{switch}"),
        format!("procd_set_param file {file} /usr/bin/gt"),
        "procd_set_param respawn 3600 10 0".to_owned(),
        "procd_set_param limits nofile=16384 16384".to_owned(),
        "procd_set_param stdout 1".to_owned(),
        "procd_set_param stderr 1".to_owned(),
        "procd_set_param env GT_LOG=procd".to_owned(),
        "procd_set_param term_timeout 12".to_owned(),
    ];
    if let RunsAs::User = runs_as {
        calls.push("procd_set_param user gt".to_owned());
    }
    calls.push("procd_close_instance".to_owned());
    calls
}

/// Returns the calls of procd for the service with these instances.
fn service_of(instances: &[Vec<String>]) -> Vec<String> {
    let mut calls = vec!["procd_open_service gt".to_owned()];
    calls.extend(instances.concat());
    calls.push("procd_close_service ".to_owned());
    calls
}

/// Checks that the user gt can read a file, and nobody else.
fn assert_shared_with_user(router: &Router, name: &str) {
    let meta = fs::metadata(router.path(name)).unwrap();
    assert_eq!(meta.permissions().mode() & 0o777, 0o640, "{name}");
    if rustix::process::geteuid().is_root() {
        assert_eq!((meta.uid(), meta.gid()), (0, 1000), "{name}");
    }
}

#[test]
fn a_client_is_one_instance_with_its_own_user() {
    let router = Router::new();
    router.write("etc/gt.yaml", CLIENT);
    let (output, calls) = router.init(&["start"]);
    assert_eq!(
        calls,
        service_of(&[instance("/etc/gt.yaml", &RunsAs::User)])
    );
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    assert_shared_with_user(&router, "etc/gt.yaml");
}

#[test]
fn a_server_on_low_ports_opens_them_as_root_and_becomes_the_user() {
    let router = Router::new();
    router.write("etc/gt.yaml", "type: server\noptions: {addr: 80}\n");
    let (_, calls) = router.init(&["start"]);
    let server = instance("/etc/gt.yaml", &RunsAs::RootFirst);
    assert_eq!(calls, service_of(&[server]));
    assert_shared_with_user(&router, "etc/gt.yaml");
}

#[test]
fn a_user_in_the_file_is_the_user() {
    let router = Router::new();
    router.write(
        "etc/gt.yaml",
        "type: server\noptions: {addr: 80, user: root}\n",
    );
    let (_, calls) = router.init(&["start"]);
    let server = instance("/etc/gt.yaml", &RunsAs::Root);
    assert_eq!(calls, service_of(&[server]));
}

#[test]
fn the_directory_for_state_is_made_for_the_user_where_a_file_names_it() {
    let router = Router::new();
    let directory = router.path("etc/gt/state");
    router.write("etc/gt.yaml", CLIENT);
    router.init(&["start"]);
    assert!(!directory.exists());
    let server = "type: server\noptions: {tlsAddr: 8443, stateDir: /etc/gt/state}\n";
    router.write("etc/gt.yaml", server);
    let (output, _) = router.init(&["start"]);
    assert!(output.status.success(), "{output:?}");
    let meta = fs::metadata(&directory).unwrap();
    assert_eq!(meta.permissions().mode() & 0o777, 0o700);
    if rustix::process::geteuid().is_root() {
        assert_eq!((meta.uid(), meta.gid()), (1000, 1000));
    }
}

#[test]
fn more_files_are_more_instances() {
    let router = Router::new();
    router.write("etc/gt.yaml", CLIENT);
    router.write("etc/gt/my shop.yaml", CLIENT);
    router.write(
        "etc/gt/public.yaml",
        "type: server\noptions: {addr: 8080}\n",
    );
    let (_, calls) = router.init(&["start"]);
    let files = [
        "/etc/gt.yaml",
        "/etc/gt/my shop.yaml",
        "/etc/gt/public.yaml",
    ];
    let wanted = files.map(|file| instance(file, &RunsAs::User));
    assert_eq!(calls, service_of(&wanted));
}

#[test]
fn the_main_file_is_not_needed_beside_others() {
    let router = Router::new();
    fs::remove_file(router.path("etc/gt.yaml")).unwrap();
    router.write("etc/gt/shop.yaml", CLIENT);
    let (output, calls) = router.init(&["start"]);
    let shop = instance("/etc/gt/shop.yaml", &RunsAs::User);
    assert_eq!(calls, service_of(&[shop]));
    assert!(output.status.success(), "{output:?}");
}

/// Returns the only line that is logged and printed, while nothing is started.
fn refusal(router: &Router) -> String {
    let (output, calls) = router.init(&["start"]);
    assert_eq!(output.status.code(), Some(1));
    let (said, others): (Vec<_>, Vec<_>) = calls
        .into_iter()
        .partition(|call| call.starts_with("logger "));
    assert_eq!(others, service_of(&[]));
    let [line] = &said[..] else {
        panic!("one line: {said:?}");
    };
    let line = line.strip_prefix("logger -s -t gt -p daemon.err ");
    let line = line.unwrap_or_else(|| panic!("{said:?}"));
    assert_eq!(String::from_utf8_lossy(&output.stderr), format!("{line}\n"));
    let line = line.strip_prefix("not started: ");
    line.unwrap_or_else(|| panic!("{said:?}")).to_owned()
}

#[test]
fn a_file_that_cannot_run_is_one_line_of_the_log_and_nothing_starts() {
    let router = Router::new();
    let line = refusal(&router);
    assert!(line.contains("/etc/gt.yaml: There is no id"), "{line}");

    router.write("etc/gt.yaml", "options: {id: id1, remoteTimeout: soon}\n");
    let line = refusal(&router);
    assert!(line.contains("remoteTimeout"), "{line}");

    router.write("etc/gt.yaml", "options: [");
    let line = refusal(&router);
    assert!(line.contains("/etc/gt.yaml"), "{line}");

    fs::remove_file(router.path("etc/gt.yaml")).unwrap();
    let line = refusal(&router);
    assert!(line.contains("/etc/gt.yaml cannot be read"), "{line}");
}

#[test]
fn a_missing_disk_does_not_prevent_the_start() {
    let router = Router::new();
    router.write(
        "etc/gt.yaml",
        &CLIENT.replace("http://127.0.0.1:1", "file:///mnt/usb"),
    );
    let (_, calls) = router.init(&["start"]);
    let client = instance("/etc/gt.yaml", &RunsAs::User);
    assert_eq!(calls, service_of(&[client]));
}

#[test]
fn a_read_only_etc_makes_it_run_as_root_with_a_log_line() {
    let router = Router::new();
    router.write("etc/gt.yaml", CLIENT);
    let (output, mut calls) = router.init_with_read_only_etc(&["start"]);
    let at = calls.iter().position(|call| call.starts_with("logger "));
    let line = calls.remove(at.expect("a line of the log"));
    assert!(line.contains("daemon.warn gt runs as root"), "{line}");
    assert_eq!(
        calls,
        service_of(&[instance("/etc/gt.yaml", &RunsAs::Root)])
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.starts_with("gt runs as root"), "{said}");
}

#[test]
fn a_system_without_the_user_makes_it_run_as_root() {
    let router = Router::new();
    router.write("etc/gt.yaml", CLIENT);
    router.write("etc/passwd", "root:x:0:0::/:/bin/sh\n");
    let (_, calls) = router.init(&["start"]);
    assert_eq!(
        calls,
        service_of(&[instance("/etc/gt.yaml", &RunsAs::Root)])
    );
}

#[test]
fn reload_signals_running_instances_and_starts_others() {
    let router = Router::new();
    router.write("etc/gt.yaml", CLIENT);
    router.write("etc/gt/shop.yaml", CLIENT);
    router.write("tmp/running", "gt gt.yaml\n");
    let (output, calls) = router.init(&["reload"]);
    let mut wanted = vec![
        "procd_send_signal gt gt.yaml HUP".to_owned(),
        "procd_open_service gt".to_owned(),
    ];
    wanted.extend(instance("/etc/gt/shop.yaml", &RunsAs::User));
    wanted.push("procd_close_service add".to_owned());
    assert_eq!(calls, wanted);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn reload_reaches_an_instance_whose_file_has_another_role_now() {
    let router = Router::new();
    router.write("etc/gt.yaml", "type: server\noptions: {addr: 8080}\n");
    router.write("tmp/running", "gt gt.yaml\n");
    let (_, calls) = router.init(&["reload"]);
    assert_eq!(calls, ["procd_send_signal gt gt.yaml HUP"]);
}

#[test]
fn reload_ends_instances_without_a_file() {
    let router = Router::new();
    router.write("etc/gt.yaml", CLIENT);
    router.write("etc/gt/my shop.yaml", CLIENT);
    router.write(
        "tmp/running",
        "gt gt.yaml\ngt gt/old shop.yaml\ngt gt/my shop.yaml\n",
    );
    let (_, calls) = router.init(&["reload"]);
    let wanted = [
        "procd_kill gt gt/old shop.yaml",
        "procd_send_signal gt gt.yaml HUP",
        "procd_send_signal gt gt/my shop.yaml HUP",
    ];
    assert_eq!(calls, wanted);
}

#[test]
fn reload_with_a_mistake_changes_nothing_and_says_so() {
    let router = Router::new();
    router.write("etc/gt.yaml", "options: {id: id1}\ntype: client\n");
    router.write("tmp/running", "gt gt.yaml\n");
    let (output, calls) = router.init(&["reload"]);
    assert_eq!(output.status.code(), Some(1));
    let [line] = &calls[..] else {
        panic!("one call: {calls:?}");
    };
    assert!(line.starts_with("logger -s -t gt -p daemon.err not reloaded: "));
    assert!(line.contains("There is no service"), "{line}");
}

#[test]
fn a_network_that_comes_up_and_a_clock_that_is_set_wake_clients() {
    let router = Router::new();
    for (script, action, wakes) in [
        ("iface", "ifup", true),
        ("iface", "ifdown", false),
        ("iface", "ifupdate", false),
        ("ntp", "step", true),
        ("ntp", "stratum", true),
        ("ntp", "periodic", false),
        ("ntp", "unsync", false),
    ] {
        let hotplug = format!("ACTION={action}; . /etc/hotplug.d/{script}/95-gt");
        let (output, calls) = router.script(&hotplug);
        assert!(output.status.success(), "{output:?}");
        let wanted: &[&str] = if wakes {
            &["procd_send_signal gt * USR1"]
        } else {
            &[]
        };
        assert_eq!(calls, wanted, "{script} {action}");
    }
}

#[test]
fn check_and_version_are_commands_of_the_service() {
    let router = Router::new();
    let (output, _) = router.init(&["check"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("There is no id"), "{said}");

    // Only root can become the user gt.
    if rustix::process::geteuid().is_root() {
        router.write("etc/gt.yaml", CLIENT);
        let (output, _) = router.init(&["check"]);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "/etc/gt.yaml: client, user gt\n"
        );
        // That user reads the file and what it names.
        router.write("etc/secret.crt", "");
        let secret = fs::Permissions::from_mode(0o600);
        fs::set_permissions(router.path("etc/secret.crt"), secret).expect("close a file");
        let with_file = "remote: tls://127.0.0.1:1\n  remoteCert: /etc/secret.crt";
        router.write(
            "etc/gt.yaml",
            &CLIENT.replace("remote: 127.0.0.1:1", with_file),
        );
        let (output, _) = router.init(&["check"]);
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains("/etc/secret.crt: Permission denied"),
            "{said}"
        );
    }

    let (output, _) = router.init(&["version"]);
    assert!(output.stdout.starts_with(b"gt "), "{output:?}");
}

#[test]
fn the_command_given_to_procd_starts_a_tunnel() {
    let mut server = server_of_id1("");
    let service = service::http(0, "from the router");
    let router = Router::new();
    let client = CLIENT
        .replace("remote: 127.0.0.1:1", &format!("remote: {}", server.addr()))
        .replace("http://127.0.0.1:1", &format!("http://{}", service.addr));
    router.write("etc/gt.yaml", &client);
    let (_, calls) = router.init(&["start"]);
    let command = calls
        .iter()
        .find_map(|call| call.strip_prefix("procd_set_param command "))
        .expect("a command");
    let words: Vec<&str> = command.split(' ').collect();
    let mut client = router.spawn(&words);
    client.wait_for_tunnel();
    let answer = get(server.addr(), "id1.example.com", "/");
    assert_eq!(answer.status, 200);
    assert!(answer.text().starts_with("from the router"), "{answer:?}");
    client.signal("TERM");
    assert_eq!(client.exit().code(), Some(0));
}

#[test]
fn the_package_has_its_files_modes_and_control_data() {
    let scratch = Scratch::new();
    let ipk = make_ipk(&scratch);
    let root = scratch.dir("root");
    unpack_part(&ipk, "data", &root);
    unpack_part(&ipk, "control", &root);
    for (name, mode) in [
        ("usr/bin/gt", 0o755),
        ("etc/init.d/gt", 0o755),
        ("etc/gt.yaml", 0o600),
        ("etc/gt", 0o755),
        ("etc/hotplug.d/iface/95-gt", 0o644),
        ("etc/hotplug.d/ntp/95-gt", 0o644),
        ("usr/lib/opkg/info/postinst", 0o755),
        ("usr/lib/opkg/info/prerm", 0o755),
    ] {
        let found = fs::metadata(root.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(found.permissions().mode() & 0o7777, mode, "{name}");
    }
    let info = |name: &str| {
        let path = root.join("usr/lib/opkg/info").join(name);
        fs::read_to_string(path).unwrap_or_else(|e| panic!("{name}: {e}"))
    };
    let control = info("control");
    for line in [
        "Package: gt",
        concat!("Version: ", env!("CARGO_PKG_VERSION"), "-r1"),
        "Architecture: x86_64",
        "Conflicts: gt-client, gt-client-p2p, gt-server",
        "Require-User: gt:gt",
    ] {
        assert!(control.lines().any(|other| other == line), "{control}");
    }
    assert_eq!(info("conffiles"), "/etc/gt.yaml\n");
    let kept = fs::read_to_string(root.join("lib/upgrade/keep.d/gt"));
    assert_eq!(kept.expect("the list for firmware upgrades"), "/etc/gt/\n");
}

#[test]
fn the_package_is_reproducible() {
    let (one, other) = (Scratch::new(), Scratch::new());
    let one = fs::read(make_ipk(&one)).unwrap();
    eventually("a second to pass", || {
        let second = |path: &Path| fs::metadata(path).unwrap().mtime();
        let now = other.file("now", "");
        (second(&now) > second(Path::new(&other.path()))).then_some(())
    });
    assert!(one == fs::read(make_ipk(&other)).unwrap(), "they differ");
}

#[test]
fn installing_enables_the_service_and_removing_stops_it() {
    let router = Router::new();
    router.write(
        "lib/functions.sh",
        "default_postinst() { echo \"postinst $*\"; }\ndefault_prerm() { echo \"prerm $*\"; }\n",
    );
    for moment in ["postinst", "prerm"] {
        let script = format!("/usr/lib/opkg/info/{moment}");
        let said = run_ok(&mut router.command(&["/bin/sh", &script, "configure"]));
        assert_eq!(said, format!("{moment} {script} configure\n"));
    }
}

#[test]
fn the_error_for_a_wrong_target_lists_the_right_ones() {
    for (script, words) in [
        ("openwrt/build", &["mips64"][..]),
        ("openwrt/build", &[]),
        ("openwrt/build", &["client"]),
    ] {
        let output = run(Command::new(Path::new(REPOSITORY).join(script)).args(words));
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        for target in ["mipsel", "armv7-soft", "aarch64_cortex-a53", "arm_xscale"] {
            assert!(said.contains(target), "{words:?}: {said}");
        }
    }
    for (words, code, why) in [
        (
            &["apk", "client", "mipsel_24kc"][..],
            1,
            "openwrt/build mipsel client",
        ),
        (
            &["apk", "client", "mips64"],
            2,
            "mips64 is neither a target nor an architecture",
        ),
        (&["apk", "client", "mipsel"], 2, "give that of the router"),
        (
            &["apk", "client", "mipsel", "mipsel_99"],
            1,
            "openwrt/build mipsel client",
        ),
        (
            &["deb", "client", "mipsel_24kc"],
            2,
            "openwrt/package ipk|apk PROFILE",
        ),
        (
            &["ipk", "router", "mipsel_24kc"],
            2,
            "openwrt/package ipk|apk PROFILE",
        ),
    ] {
        let output = run(package_script().args(words).env("GT_OUT", "/nonexistent"));
        assert_eq!(output.status.code(), Some(code), "{words:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(why), "{words:?}: {said}");
    }
}

#[test]
fn every_architecture_has_a_target_whose_program_runs_on_it() {
    let read = |name: &str| fs::read_to_string(Path::new(REPOSITORY).join(name)).expect(name);
    let build = read("openwrt/build");
    let targets: Vec<_> = build
        .lines()
        .filter_map(|line| line.split_once("-unknown-linux-musl"))
        .filter_map(|(begin, _)| begin.split_once(' '))
        .collect();
    let table = read("openwrt/architectures");
    let rows: Vec<(&str, &str)> = table
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_once(' ').expect("two words"))
        .map(|(architecture, target)| (architecture, target.trim()))
        .collect();
    assert!(rows.is_sorted(), "the architectures are not sorted");
    for (architecture, target) in &rows {
        let processor = targets.iter().find(|(name, _)| name == target);
        let (_, processor) = processor.unwrap_or_else(|| panic!("no target {target}"));
        // Rust's name for the processor, and whether it has a floating-point unit.
        let (family, has_float) = (
            architecture.split('_').next().expect("a family"),
            architecture.contains("vfpv") || architecture.contains("neon"),
        );
        let wanted: &[&str] = match family {
            "arm" if has_float => &["armv7"],
            "arm" if target.ends_with("-soft") => &["armv7"],
            "arm" => &["armv5te"],
            "riscv64" => &["riscv64gc"],
            "i386" => &["i686"],
            "x86" => &["x86_64"],
            _ => &[family],
        };
        assert!(
            wanted.contains(&processor.trim()),
            "{architecture}: {target}"
        );
        assert_eq!(
            family == "arm" && has_float,
            *target == "armv7",
            "{architecture}"
        );
    }
    let of = |name: &str| rows.iter().find(|row| row.0 == name).map(|row| row.1);
    // Filogic and Raspberry Pi 3, Kirkwood, mvebu, MediaTek MT7621.
    assert_eq!(of("aarch64_cortex-a53"), Some("aarch64"));
    assert_eq!(of("arm_xscale"), Some("armv5"));
    assert_eq!(of("arm_cortex-a9_vfpv3-d16"), Some("armv7"));
    assert_eq!(of("mipsel_24kc"), Some("mipsel"));
}
