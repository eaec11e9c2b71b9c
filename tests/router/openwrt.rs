//! The OpenWrt package: its content, and what its init script tells procd.

use crate::common::gt::server_of_id1;
use crate::common::process::{run, run_ok};
use crate::common::router::{make_ipk, unpack_part, Router, REPOSITORY};
use crate::common::scratch::Scratch;
use crate::common::visitor::get;
use crate::common::{eventually, service};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

const CLIENT: &str = "options:\n  remote: 127.0.0.1:1\n  id: id1\n  secret: secret1\n  \
    local: http://127.0.0.1:1\n";
const TRIGGER: &str = "procd_add_raw_trigger interface.*.up 2000 /etc/init.d/gt wake";

/// Returns the calls of procd for an instance, from first to last.
fn instance(name: &str, file: &str, own_user: bool) -> Vec<String> {
    let mut calls = vec![
        format!("procd_open_instance {name}"),
        format!("procd_set_param command /usr/bin/gt -config {file}"),
        format!("procd_set_param file {file}"),
        "procd_set_param respawn 3600 10 0".to_owned(),
        "procd_set_param limits nofile=16384 16384".to_owned(),
        "procd_set_param stdout 1".to_owned(),
        "procd_set_param stderr 1".to_owned(),
        "procd_set_param term_timeout 12".to_owned(),
    ];
    if own_user {
        calls.push("procd_set_param user gt".to_owned());
        calls.push("procd_set_param no_new_privs 1".to_owned());
    }
    calls.push("procd_close_instance".to_owned());
    calls
}

/// Returns the calls of procd for the service with these instances.
fn service_of(instances: &[Vec<String>]) -> Vec<String> {
    let mut calls = vec!["procd_open_service gt".to_owned()];
    calls.extend(instances.concat());
    calls.push(TRIGGER.to_owned());
    calls.push("procd_close_service ".to_owned());
    calls
}

#[test]
fn a_client_is_one_instance_with_its_own_user() {
    let router = Router::new();
    router.write("etc/gt.yaml", CLIENT);
    let (_, calls) = router.init(&["start"]);
    assert_eq!(
        calls,
        service_of(&[instance("client", "/etc/gt.yaml", true)])
    );
    let mode = fs::metadata(router.path("etc/gt.yaml")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o640);
    if rustix::process::geteuid().is_root() {
        assert_eq!((mode.uid(), mode.gid()), (0, 1000));
    }
}

#[test]
fn a_server_on_low_ports_runs_as_root() {
    let router = Router::new();
    router.write("etc/gt.yaml", "type: server\noptions: {addr: 80}\n");
    let (_, calls) = router.init(&["start"]);
    let server = instance("server", "/etc/gt.yaml", false);
    assert_eq!(calls, service_of(&[server]));
}

#[test]
fn more_files_are_more_instances() {
    let router = Router::new();
    router.write("etc/gt.yaml", CLIENT);
    router.write(
        "etc/gt/public.yaml",
        "type: server\noptions: {addr: 8080}\n",
    );
    router.write("etc/gt/shop.yaml", CLIENT);
    let (_, calls) = router.init(&["start"]);
    let wanted = [
        instance("client", "/etc/gt.yaml", true),
        instance("server-public", "/etc/gt/public.yaml", true),
        instance("client-shop", "/etc/gt/shop.yaml", true),
    ];
    assert_eq!(calls, service_of(&wanted));
}

/// Returns the only line that is logged, while nothing is started.
fn refusal(router: &Router) -> String {
    let (_, calls) = router.init(&["start"]);
    let (said, others): (Vec<_>, Vec<_>) = calls
        .into_iter()
        .partition(|call| call.starts_with("logger "));
    assert_eq!(others, service_of(&[]));
    let [line] = &said[..] else {
        panic!("one line: {said:?}");
    };
    let line = line.strip_prefix("logger -t gt -p daemon.err not started: ");
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
    let client = instance("client", "/etc/gt.yaml", true);
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
        service_of(&[instance("client", "/etc/gt.yaml", false)])
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn a_system_without_the_user_makes_it_run_as_root() {
    let router = Router::new();
    router.write("etc/gt.yaml", CLIENT);
    router.write("etc/passwd", "root:x:0:0::/:/bin/sh\n");
    let (_, calls) = router.init(&["start"]);
    assert_eq!(
        calls,
        service_of(&[instance("client", "/etc/gt.yaml", false)])
    );
}

#[test]
fn reload_signals_running_instances_and_starts_others() {
    let router = Router::new();
    router.write("etc/gt.yaml", CLIENT);
    router.write("etc/gt/shop.yaml", CLIENT);
    router.write("tmp/running", "gt client\n");
    let (_, calls) = router.init(&["reload"]);
    let mut wanted = vec![
        "procd_send_signal gt client HUP".to_owned(),
        "procd_open_service gt".to_owned(),
    ];
    wanted.extend(instance("client-shop", "/etc/gt/shop.yaml", true));
    wanted.extend([TRIGGER.to_owned(), "procd_close_service add".to_owned()]);
    assert_eq!(calls, wanted);
}

#[test]
fn reload_with_a_mistake_changes_nothing_and_logs_it() {
    let router = Router::new();
    router.write("etc/gt.yaml", "options: {id: id1}\ntype: client\n");
    router.write("tmp/running", "gt client\n");
    let (_, calls) = router.init(&["reload"]);
    let [line] = &calls[..] else {
        panic!("one call: {calls:?}");
    };
    assert!(line.starts_with("logger -t gt -p daemon.err not reloaded: "));
    assert!(line.contains("There is no service"), "{line}");
}

#[test]
fn a_network_that_comes_up_reloads_all_instances() {
    let router = Router::new();
    let (_, calls) = router.init(&["wake"]);
    assert_eq!(calls, ["procd_send_signal gt * HUP"]);
}

#[test]
fn check_and_version_are_commands_of_the_service() {
    let router = Router::new();
    let (output, _) = router.init(&["check"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("There is no id"), "{said}");

    router.write("etc/gt.yaml", CLIENT);
    let (output, _) = router.init(&["check"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "/etc/gt.yaml: client\n"
    );

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
        concat!("Version: ", env!("CARGO_PKG_VERSION"), "-1"),
        "Architecture: x86_64",
        "Conflicts: gt-client, gt-client-p2p, gt-server",
        "Require-User: gt:gt",
    ] {
        assert!(control.lines().any(|other| other == line), "{control}");
    }
    assert_eq!(info("conffiles"), "/etc/gt.yaml\n/etc/gt/\n");
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
        for target in [
            "mipsel_24kc",
            "mips_24kc",
            "arm_cortex-a7",
            "aarch64_generic",
        ] {
            assert!(said.contains(target), "{words:?}: {said}");
        }
    }
    let output = run(Command::new(Path::new(REPOSITORY).join("openwrt/ipk"))
        .args(["client", "mips64"])
        .env("GT_OUT", "/nonexistent"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("build it with: openwrt/build mips64 client"),
        "{said}"
    );
}

#[test]
fn the_sample_needs_only_a_server_an_id_and_a_service() {
    let sample = fs::read_to_string(Path::new(REPOSITORY).join("etc/gt.yaml")).unwrap();
    let wanted = ["remote: ", "id: ", "secret: ", "- local: http"];
    let mut filled_in = String::new();
    let mut found = 0;
    for line in sample.lines() {
        let bare = line.trim_start().strip_prefix('#');
        let bare = bare.filter(|bare| wanted.iter().any(|key| bare.starts_with(key)));
        match bare.filter(|_| line.starts_with("  #")) {
            Some(bare) => {
                found += 1;
                filled_in += &format!("  {bare}\n");
            }
            None => filled_in += &format!("{line}\n"),
        }
    }
    assert_eq!(found, wanted.len(), "{sample}");
    let router = Router::new();
    router.write("etc/gt.yaml", &filled_in.replace("tls://", "tcp://"));
    let (output, _) = router.init(&["check"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), said.as_str()), (Some(0), ""));
}
