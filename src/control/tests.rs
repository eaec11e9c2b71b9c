//! Unit tests that need no second process. tests/config/signals.rs tests what signals do to a
//! running gt.

use super::*;

/// A temporary folder, removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("gt-signals-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(fs::canonicalize(path).unwrap())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn each_control_signal_has_its_number() {
    let names = [
        ControlSignal::Reload,
        ControlSignal::Wake,
        ControlSignal::Restart,
        ControlSignal::Stop,
        ControlSignal::Kill,
    ];
    let numbers = names.map(|signal| number(signal).1.as_raw());
    assert_eq!(numbers, [1, Signal::USR1.as_raw(), 3, 15, 9]);
}

#[test]
fn caught_signals_are_read_from_a_status() {
    let usr1 = 1u64 << (Signal::USR1.as_raw() - 1);
    for (mask, caught) in [
        (format!("{usr1:016x}"), true),
        // As on MIPS.
        (format!("{:032x}", usr1 | 1), true),
        (format!("{:016x}", !usr1), false),
        (String::new(), false),
        ("x".to_owned(), false),
    ] {
        let status = format!("Name:\tgt\nSigIgn:\tffffffffffffffff\nSigCgt:\t{mask}\nx\n");
        assert_eq!(is_caught(&status, Signal::USR1), caught, "{mask}");
    }
    assert!(!is_caught("Name:\tgt\n", Signal::USR1));
}

#[test]
fn a_replaced_program_keeps_its_installed_path() {
    let as_installed = |path: &str| as_installed(path.into());
    assert_eq!(
        as_installed("/usr/bin/gt (deleted)"),
        Path::new("/usr/bin/gt")
    );
    assert_eq!(as_installed("/usr/bin/gt"), Path::new("/usr/bin/gt"));
}

#[test]
fn every_spelling_of_a_path_resolves_to_the_same() {
    let scratch = Folder::new();
    let folder = &scratch.0;
    let file = folder.join("gt.yaml");
    fs::write(&file, "").unwrap();
    fs::create_dir(folder.join("sub")).unwrap();
    let link = folder.join("link");
    std::os::unix::fs::symlink(folder, &link).unwrap();
    for same in ["gt.yaml", "./gt.yaml", "link/gt.yaml", "sub/../gt.yaml"] {
        assert_eq!(resolved(&folder.join(same)), file, "{same}");
    }
    assert_ne!(resolved(&folder.join("other.yaml")), file);
    fs::remove_file(&file).unwrap();
    for same in ["gt.yaml", "./gt.yaml", "link/gt.yaml"] {
        assert_eq!(resolved(&folder.join(same)), file, "{same} that is gone");
    }
    let here = std::env::current_dir().unwrap();
    let here = fs::canonicalize(here).unwrap();
    assert_eq!(
        resolved(Path::new("no-such.yaml")),
        here.join("no-such.yaml")
    );
}

#[test]
fn paths_that_are_not_utf8_are_accepted() {
    let odd = Path::new(std::ffi::OsStr::from_bytes(b"/\xff\xfe/\x80.yaml"));
    assert_eq!(resolved(odd), odd);
    let replaced = OsString::from_vec(b"/\xff/gt (deleted)".to_vec());
    let program = OsString::from_vec(b"/\xff/gt".to_vec());
    assert_eq!(as_installed(replaced.into()), Path::new(&program));
}

#[test]
fn a_process_of_another_user_is_matched_by_name() {
    let program = Path::new("/no-such/bin/gt");
    for (name, can_be) in [
        ("/no-such/bin/gt", true),
        ("/no-such/sbin/gt", false),
        ("gt", true),
        ("./gt", true),
        ("gtk", false),
        ("", false),
    ] {
        assert_eq!(may_be_program(name, program), can_be, "{name}");
    }
    // Here /proc/self is this process, not the one that was started under that name.
    let this = std::env::current_exe().unwrap();
    assert!(may_be_program(this.to_str().unwrap(), &this));
    assert!(!may_be_program("/proc/self/exe", &this));
}
