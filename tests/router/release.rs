//! The packages of a release that are not OpenWrt's: archives of programs, the container image, and the
//! command that makes everything. skopeo and umoci check the image where they are installed.

use crate::common::eventually;
use crate::common::gt::GT;
use crate::common::process::{run, run_ok};
use crate::common::program::install_script;
use crate::common::release::{
    inflated_sum, list, make_archive, make_image, release, stand_ins, sum, Image, TARGETS, VERSION,
};
use crate::common::router::REPOSITORY;
use crate::common::scratch::Scratch;
use serde_json::{json, Value};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits until a new file has a later time than `file`, in seconds.
fn wait_for_another_second(file: &Path) {
    let scratch = Scratch::new();
    let second = |path: &Path| fs::metadata(path).expect("a file").mtime();
    eventually("a second to pass", || {
        let now = scratch.file("now", "");
        (second(&now) > second(file)).then_some(())
    });
}

/// Whether a program of the checks is installed; says so if not.
fn is_installed(program: &str) -> bool {
    let output = run(Command::new("sh").args(["-c", &format!("command -v {program}")]));
    if !output.status.success() {
        eprintln!("not tested: {program} is not installed");
    }
    output.status.success()
}

#[test]
fn an_archive_has_its_files_modes_and_owners() {
    let scratch = Scratch::new();
    let archive = make_archive(&scratch, "x86_64");
    let entry =
        |(mode, name): (&str, &str)| format!("{mode} 0/0 2001-09-09 gt-{VERSION}-x86_64/{name}");
    let expected = [
        ("drwxr-xr-x", ""),
        ("-rw-r--r--", "LICENSE"),
        ("-rw-r--r--", "NOTICES"),
        ("-rw-r--r--", "README.md"),
        ("drwxr-xr-x", "etc/"),
        ("-rw-r--r--", "etc/gt.yaml"),
        ("-rwxr-xr-x", "gt"),
        ("-rw-r--r--", "gt.1"),
        ("-rw-r--r--", "gt.service"),
    ];
    assert_eq!(list(&archive), expected.map(entry));
    let program = format!("gt-{VERSION}-x86_64/gt");
    let mut command = Command::new("tar");
    command.args(["--extract", "--to-stdout", "--file"]);
    let program = run_ok(command.arg(&archive).arg(program));
    assert_eq!(program, "the program for x86_64\n");
}

#[test]
fn all_targets_have_an_archive() {
    let scratch = Scratch::new();
    stand_ins(&scratch, &TARGETS);
    let output = release(&scratch, "programs", &["all"]);
    assert!(output.status.success(), "{output:?}");
    let mut names: Vec<String> = fs::read_dir(scratch.join("out"))
        .expect("results")
        .map(|file| file.expect("a file").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    let mut expected = TARGETS.map(|target| format!("gt-{VERSION}-{target}.tar.gz"));
    expected.sort();
    assert_eq!(names, expected);
}

#[test]
fn archives_and_the_image_are_reproducible() {
    let (one, other) = (Scratch::new(), Scratch::new());
    let archive = make_archive(&one, "mips");
    let image = make_image(&one);
    wait_for_another_second(&image);
    assert!(sum(&archive) == sum(&make_archive(&other, "mips")));
    assert!(sum(&image) == sum(&make_image(&other)));
}

#[test]
fn the_notices_have_the_licence_of_each_crate() {
    let notices = run_ok(&mut Command::new(
        Path::new(REPOSITORY).join("release/notices"),
    ));
    let mut tree = Command::new("cargo");
    tree.args(["tree", "--locked", "--edges", "normal", "--prefix", "none"]);
    tree.args(["--format", "{p}|{l}"]).current_dir(REPOSITORY);
    for line in run_ok(&mut tree).lines().skip(1) {
        let (crate_, licence) = line.split_once('|').expect("a licence");
        let mut words = crate_.split(' ');
        let (name, version) = (
            words.next().expect("a name"),
            words.next().expect("a version"),
        );
        let crate_ = format!("{name} {}", &version[1..]);
        let licence = licence.trim_end_matches(" (*)");
        let listed = notices
            .lines()
            .any(|it| it == format!("{crate_}: {licence}"));
        assert!(listed, "{crate_}: {licence}");
        let is_whole = |line: &str| line.starts_with("== ") && line.contains(&crate_);
        let needs_text = !licence.contains("Apache-2.0") || licence.contains("AND");
        assert_eq!(
            notices.lines().any(is_whole),
            needs_text,
            "{crate_}: {licence}"
        );
    }
    assert!(notices.contains("and musl, which has this licence:"));
}

#[test]
fn a_missing_program_is_an_error_that_says_how_to_build_it() {
    let scratch = Scratch::new();
    stand_ins(&scratch, &["x86_64"]);
    for (script, words) in [("programs", &["x86_64", "aarch64"][..]), ("image", &[])] {
        let output = release(&scratch, script, words);
        assert_eq!(output.status.code(), Some(1), "{script}: {output:?}");
        let said = errors(&output);
        let wanted = "/programs/gt-full-aarch64 does not exist; \
                      build it with: openwrt/build aarch64 full\n";
        assert!(said.starts_with(&format!("release/{script}: ")), "{said}");
        assert!(said.ends_with(wanted), "{said}");
        assert!(!scratch.join("out").exists(), "{script} packs nothing");
    }
}

#[test]
fn the_error_for_an_unknown_target_lists_the_known_ones() {
    let scratch = Scratch::new();
    for words in [&["mips64"][..], &[]] {
        let output = release(&scratch, "programs", words);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = errors(&output);
        assert!(said.contains(&TARGETS.join(" ")), "{said}");
    }
    let said = errors(&release(&scratch, "programs", &["mips64"]));
    assert!(said.contains("mips64 is not a target"), "{said}");
    for script in ["image", "all"] {
        let output = release(&scratch, script, &["x86_64"]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}

#[test]
fn every_blob_of_the_image_has_its_sum_as_name_and_its_length_in_the_descriptor() {
    let scratch = Scratch::new();
    let image = Image::unpack(&make_image(&scratch));
    for (name, sum) in image.sums() {
        assert_eq!(name, sum);
    }
    let index = image.index();
    let mut used = 1;
    let mut layers = Vec::new();
    for descriptor in index["manifests"].as_array().expect("manifests") {
        let manifest = image.json_blob(descriptor);
        let config = image.json_blob(&manifest["config"]);
        used += 2;
        let ids = config["rootfs"]["diff_ids"].as_array().expect("diff_ids");
        let its_layers = manifest["layers"].as_array().expect("layers");
        assert_eq!(ids.len(), its_layers.len());
        for (layer, id) in its_layers.iter().zip(ids) {
            let sum = inflated_sum(&image.blob(layer));
            assert_eq!(id.as_str(), Some(format!("sha256:{sum}").as_str()));
            layers.push(layer["digest"].clone());
        }
        let history = config["history"].as_array().expect("history");
        assert_eq!(history.len(), ids.len());
    }
    layers.sort_by_key(Value::to_string);
    layers.dedup();
    assert_eq!(layers.len(), 3, "the architectures share a layer");
    let blobs = image.sums().len();
    assert_eq!(blobs, used + layers.len(), "every blob is in use");
}

#[test]
fn the_image_names_its_platforms_version_licence_and_user() {
    let scratch = Scratch::new();
    let image = Image::unpack(&make_image(&scratch));
    assert_eq!(
        image.json("oci-layout"),
        json!({"imageLayoutVersion": "1.0.0"})
    );
    let top = image.json("index.json");
    assert_eq!(
        top["manifests"][0]["annotations"],
        json!({
            "org.opencontainers.image.ref.name": VERSION,
            "io.containerd.image.name": format!("localhost/gt:{VERSION}"),
        })
    );
    let index = image.index();
    let mut architectures = Vec::new();
    for descriptor in index["manifests"].as_array().expect("manifests") {
        let manifest = image.json_blob(descriptor);
        let config = image.json_blob(&manifest["config"]);
        assert_eq!(descriptor["platform"]["os"], "linux");
        assert_eq!(descriptor["platform"]["os"], config["os"]);
        let architecture = &config["architecture"];
        assert_eq!(&descriptor["platform"]["architecture"], architecture);
        architectures.push(architecture.clone());

        let labels = &config["config"]["Labels"];
        assert_eq!(labels, &manifest["annotations"]);
        assert_eq!(labels, &index["annotations"]);
        assert_eq!(labels["org.opencontainers.image.title"], "gt");
        assert_eq!(labels["org.opencontainers.image.version"], VERSION);
        assert_eq!(labels["org.opencontainers.image.licenses"], "Apache-2.0");
        assert_eq!(
            labels["org.opencontainers.image.created"],
            "2001-09-09T01:46:40Z"
        );
        let mut query = Command::new("dpkg-query");
        query.args(["--show", "--showformat", "${Version}", "ca-certificates"]);
        assert_eq!(labels["gt.ca-certificates"], run_ok(&mut query));

        let process = &config["config"];
        assert_eq!(process["User"], "65532:65532");
        assert_eq!(process["Entrypoint"], json!(["/usr/bin/gt"]));
        assert_eq!(process["Cmd"], json!(["-config", "/etc/gt/gt.yaml"]));
        assert_eq!(process["StopSignal"], "SIGTERM");
    }
    assert_eq!(architectures, ["amd64", "arm64"]);
}

#[test]
fn the_image_has_only_the_program_the_accounts_the_certificates_and_the_licences() {
    let scratch = Scratch::new();
    let image = Image::unpack(&make_image(&scratch));
    for descriptor in image.index()["manifests"].as_array().expect("manifests") {
        let manifest = image.json_blob(descriptor);
        let [common, program] = &manifest["layers"].as_array().expect("layers")[..] else {
            panic!("two layers: {manifest}");
        };
        let entry = |(mode, name): (&str, &str)| format!("{mode} 0/0 2001-09-09 {name}");
        let expected = [
            ("drwxr-xr-x", "etc/"),
            ("-rw-r--r--", "etc/group"),
            ("drwxr-xr-x", "etc/gt/"),
            ("-rw-r--r--", "etc/passwd"),
            ("drwxr-xr-x", "etc/ssl/"),
            ("drwxr-xr-x", "etc/ssl/certs/"),
            ("-rw-r--r--", "etc/ssl/certs/ca-certificates.crt"),
            ("drwxr-xr-x", "licenses/"),
            ("-rw-r--r--", "licenses/LICENSE"),
            ("-rw-r--r--", "licenses/NOTICES"),
        ];
        assert_eq!(list(&image.blob(common)), expected.map(entry));
        let expected = [
            ("drwxr-xr-x", "usr/"),
            ("drwxr-xr-x", "usr/bin/"),
            ("-rwxr-xr-x", "usr/bin/gt"),
        ];
        assert_eq!(list(&image.blob(program)), expected.map(entry));
    }
}

#[test]
fn the_image_trusts_the_authorities_of_the_package_and_no_local_ones() {
    let scratch = Scratch::new();
    let image = Image::unpack(&make_image(&scratch));
    let manifest = image.json_blob(&image.index()["manifests"][0]);
    let mut command = Command::new("tar");
    command.args(["--extract", "--gzip", "--to-stdout", "--file"]);
    command.arg(image.blob(&manifest["layers"][0]));
    let inside = run_ok(command.arg("etc/ssl/certs/ca-certificates.crt"));
    let package = run_ok(Command::new("dpkg-query").args(["--listfiles", "ca-certificates"]));
    let folder = "/usr/share/ca-certificates/";
    let files = package.lines().filter(|line| line.starts_with(folder));
    let files = files.filter(|line| line.ends_with(".crt"));
    let mut authorities = 0;
    for file in files {
        let certificate = fs::read_to_string(file).expect("read a certificate");
        assert!(inside.contains(certificate.trim()), "{file}");
        authorities += certificate.matches("BEGIN CERTIFICATE").count();
    }
    assert!(authorities > 50, "{authorities}");
    assert_eq!(inside.matches("BEGIN CERTIFICATE").count(), authorities);
}

/// Docker without the image store of containerd reads manifest.json.
#[test]
fn the_image_has_a_manifest_for_docker() {
    let scratch = Scratch::new();
    let image = Image::unpack(&make_image(&scratch));
    let index = image.index();
    let for_docker = image.json("manifest.json");
    for (at, architecture) in ["amd64", "arm64"].into_iter().enumerate() {
        let manifest = image.json_blob(&index["manifests"][at]);
        let name = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().expect("a digest");
            format!("blobs/{}", digest.replace(':', "/"))
        };
        let layers = manifest["layers"].as_array().expect("layers");
        let expected = json!({
            "Config": name(&manifest["config"]),
            "Layers": layers.iter().map(name).collect::<Vec<_>>(),
            "RepoTags": [format!("localhost/gt:{VERSION}-{architecture}")],
        });
        assert_eq!(for_docker[at], expected);
    }
}

#[test]
fn skopeo_reads_both_platforms_and_copies_the_image() {
    if !is_installed("skopeo") {
        return;
    }
    let scratch = Scratch::new();
    let image = make_image(&scratch);
    let source = format!("oci-archive:{}", image.display());
    for architecture in ["amd64", "arm64"] {
        let mut command = Command::new("skopeo");
        command.args(["--override-arch", architecture, "inspect", &source]);
        let shown: Value = serde_json::from_str(&run_ok(&mut command)).expect("JSON");
        assert_eq!(shown["Architecture"], architecture);
        assert_eq!(shown["Layers"].as_array().map(Vec::len), Some(2));

        // As Docker reads it.
        let docker = format!(
            "docker-archive:{}:localhost/gt:{VERSION}-{architecture}",
            image.display()
        );
        let mut command = Command::new("skopeo");
        command.args(["--override-arch", architecture, "inspect", &docker]);
        let shown: Value = serde_json::from_str(&run_ok(&mut command)).expect("JSON");
        assert_eq!(shown["Architecture"], architecture);
    }
    // Reads and verifies every blob.
    let copy = format!("oci:{}:copy", scratch.join("copy").display());
    run_ok(Command::new("skopeo").args(["copy", "--insecure-policy", "--all", &source, &copy]));
}

#[test]
fn umoci_unpacks_the_image_into_a_root_that_runs_gt_as_its_user() {
    if !is_installed("skopeo") || !is_installed("umoci") {
        return;
    }
    let scratch = Scratch::new();
    let source = format!("oci-archive:{}", make_image(&scratch).display());
    let layout = scratch.join("layout").display().to_string();
    let mut copy = Command::new("skopeo");
    copy.args(["--override-arch", "arm64", "copy", "--insecure-policy"]);
    run_ok(copy.args([&source, &format!("oci:{layout}:gt")]));
    let bundle = scratch.join("bundle");
    let mut unpack = Command::new("umoci");
    unpack.args(["unpack", "--image", &format!("{layout}:gt")]);
    if !rustix::process::geteuid().is_root() {
        unpack.arg("--rootless");
    }
    run_ok(unpack.arg(&bundle));

    let program = bundle.join("rootfs/usr/bin/gt");
    let text = fs::read_to_string(&program).expect("read the program");
    assert_eq!(text, "the program for aarch64\n");
    let mode = fs::metadata(&program).expect("a program").permissions();
    assert_eq!(mode.mode() & 0o7777, 0o755);
    let config = fs::read(bundle.join("config.json")).expect("read a file");
    let config: Value = serde_json::from_slice(&config).expect("JSON");
    let process = &config["process"];
    assert_eq!(
        process["args"],
        json!(["/usr/bin/gt", "-config", "/etc/gt/gt.yaml"])
    );
    assert_eq!(process["user"]["uid"], 65532);
    assert_eq!(process["user"]["gid"], 65532);
}

/// A copy of the repository in which everything that `release/all` calls only records the call.
struct Rehearsal {
    scratch: Scratch,
}

impl Rehearsal {
    fn new() -> Rehearsal {
        let rehearsal = Rehearsal {
            scratch: Scratch::new(),
        };
        for folder in ["release", "openwrt/out"] {
            rehearsal.scratch.dir(folder);
        }
        for name in ["Cargo.toml", "CHANGELOG.md", "openwrt/architectures"] {
            let text = fs::read(Path::new(REPOSITORY).join(name)).expect("read a file");
            rehearsal.scratch.file(name, text);
        }
        let all = fs::read_to_string(Path::new(REPOSITORY).join("release/all"));
        let all = all.expect("read the script");
        install_script(&rehearsal.scratch.join("release/all"), &all);
        for name in ["debian", "programs", "image"] {
            let result = format!("echo {name} >release/out/{name}");
            rehearsal.write(&format!("release/{name}"), &result);
        }
        rehearsal.write("openwrt/build", ":");
        let package = format!("echo $* >openwrt/out/gt-$2_{VERSION}-r1_$3.$1");
        rehearsal.write("openwrt/package", &package);
        rehearsal
    }

    /// Replaces a script by one that records its call and runs `command`.
    fn write(&self, name: &str, command: &str) {
        let text = format!("#!/bin/sh\necho {name} $* >>calls\n{command}\n");
        install_script(&self.scratch.join(name), &text);
    }

    fn run(&self) -> Output {
        let mut command = Command::new(self.scratch.join("release/all"));
        run(command.env_remove("GT_OUT").env_remove("GT_RELEASE_OUT"))
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.scratch.join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    fn result(&self, name: &str) -> String {
        let path = self.scratch.join("release/out").join(name);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }
}

#[test]
fn a_release_has_all_packages_with_notes_and_checksums() {
    let rehearsal = Rehearsal::new();
    let output = rehearsal.run();
    assert!(output.status.success(), "{output:?}");

    let calls = rehearsal.calls();
    assert_eq!(calls.first().map(String::as_str), Some("openwrt/build all"));
    let last = [
        "release/debian all",
        "release/programs all",
        "release/image ",
    ];
    assert_eq!(calls[calls.len() - 3..], last.map(str::trim));
    let packages = &calls[1..calls.len() - 3];
    for call in [
        "openwrt/package ipk client mipsel_24kc",
        "openwrt/package apk client mipsel_24kc",
        "openwrt/package apk full x86_64",
        "openwrt/package apk client-p2p aarch64_cortex-a53",
        "openwrt/package ipk server riscv64_generic",
    ] {
        assert!(packages.iter().any(|it| it == call), "{call}: {packages:?}");
    }
    let sums = rehearsal.result("SHA256SUMS");
    let files = packages.len() + ["debian", "programs", "image", "NOTES.md"].len();
    assert_eq!(sums.lines().count(), files, "{sums}");
    let mut check = Command::new("sha256sum");
    check.args(["--check", "--strict", "--quiet", "SHA256SUMS"]);
    run_ok(check.current_dir(rehearsal.scratch.join("release/out")));
}

#[test]
fn the_notes_are_the_section_of_the_version_or_else_the_unreleased_one() {
    let later = "## [Unreleased]\n\n- Later.\n\n";
    let earlier = "## [0.0.1] - 2020-01-01\n\n- Earlier.\n";
    let ours = format!("## [{VERSION}] - 2021-01-01\n\n### Added\n\n- This.\n\n");
    for (changelog, notes) in [
        (format!("# Changelog\n\n{later}{earlier}"), "- Later.\n"),
        (
            format!("# Changelog\n\n{later}{ours}{earlier}"),
            "### Added\n\n- This.\n",
        ),
    ] {
        let rehearsal = Rehearsal::new();
        rehearsal.scratch.file("CHANGELOG.md", &changelog);
        let output = rehearsal.run();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(rehearsal.result("NOTES.md"), notes);
    }
    let rehearsal = Rehearsal::new();
    rehearsal.scratch.file("CHANGELOG.md", earlier);
    let output = rehearsal.run();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = errors(&output);
    assert!(said.contains("CHANGELOG.md has neither"), "{said}");
}

#[test]
fn a_release_stops_at_the_first_step_that_fails() {
    let rehearsal = Rehearsal::new();
    rehearsal.write("release/debian", "exit 3");
    let output = rehearsal.run();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = errors(&output);
    assert_eq!(
        said,
        "release/all: this step has failed: release/debian all\n"
    );
    let calls = rehearsal.calls();
    assert_eq!(calls.last().map(String::as_str), Some("release/debian all"));
}

#[test]
fn a_release_without_a_package_that_it_made_fails() {
    let rehearsal = Rehearsal::new();
    rehearsal.write("openwrt/package", ":");
    let output = rehearsal.run();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = errors(&output);
    assert!(said.contains("openwrt/out has 0 packages"), "{said}");
}

#[test]
fn a_release_does_not_begin_with_old_results_or_without_a_script() {
    let rehearsal = Rehearsal::new();
    rehearsal.scratch.dir("release/out");
    rehearsal.scratch.file("release/out/old", "");
    let said = errors(&rehearsal.run());
    assert!(
        said.ends_with("earlier run; remove them: rm -r release/out\n"),
        "{said}"
    );

    fs::remove_file(rehearsal.scratch.join("release/out/old")).expect("remove a file");
    fs::remove_file(rehearsal.scratch.join("release/debian")).expect("remove a script");
    let said = errors(&rehearsal.run());
    assert!(said.contains("release/debian does not exist"), "{said}");
    assert_eq!(rehearsal.calls(), [""; 0]);
}

#[test]
fn the_page_about_containers_names_this_version() {
    let page = Path::new(REPOSITORY).join("docs/containers.md");
    let page = fs::read_to_string(page).expect("read the page");
    let archive = format!("release/out/gt-{VERSION}-oci.tar");
    assert!(page.contains(&archive), "{page}");
    for name in page.split("localhost/gt:").skip(1) {
        assert!(name.starts_with(VERSION), "localhost/gt:{name}");
    }
}

#[test]
fn the_compose_example_runs_this_version_with_files_that_gt_accepts() {
    let folder = Path::new(REPOSITORY).join("etc/compose");
    let compose = fs::read_to_string(folder.join("compose.yaml")).expect("read the example");
    let image = format!("  image: localhost/gt:{VERSION}\n");
    assert!(compose.contains(&image), "{compose}");
    let example = Scratch::new();
    example.dir("srv");
    for role in ["server", "client"] {
        assert!(compose.contains(&format!("- ./{role}:/etc/gt:ro")));
        let config = fs::read_to_string(folder.join(role).join("gt.yaml")).expect("read a file");
        // The folder that the container has at /srv.
        let config = config.replace("file:///srv", "file://./srv");
        let config = example.file(&format!("{role}.yaml"), config);
        run_ok(Command::new(GT).args(["check", "-config"]).arg(config));
    }
}
