//! What of it can be told without a process. What signals do to a running gt is tested in
//! tests/signals.rs.

use super::*;

/// A folder that is gone after the test.
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
fn each_word_has_its_signal() {
    let names = [
        ControlSignal::Reload,
        ControlSignal::Restart,
        ControlSignal::Stop,
        ControlSignal::Kill,
    ];
    let numbers = names.map(|signal| of(signal).1.as_raw());
    assert_eq!(numbers, [1, 3, 15, 9]);
}

#[test]
fn a_program_that_was_replaced_is_still_the_same() {
    let as_installed = |path: &str| as_installed(path.into());
    assert_eq!(
        as_installed("/usr/bin/gt (deleted)"),
        Path::new("/usr/bin/gt")
    );
    assert_eq!(as_installed("/usr/bin/gt"), Path::new("/usr/bin/gt"));
}

#[test]
fn a_path_is_the_same_however_it_is_written() {
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
fn bytes_that_are_no_text_are_a_path_like_any() {
    let odd = Path::new(std::ffi::OsStr::from_bytes(b"/\xff\xfe/\x80.yaml"));
    assert_eq!(resolved(odd), odd);
    let replaced = OsString::from_vec(b"/\xff/gt (deleted)".to_vec());
    let program = OsString::from_vec(b"/\xff/gt".to_vec());
    assert_eq!(as_installed(replaced.into()), Path::new(&program));
}

#[test]
fn another_users_process_is_guessed_by_its_name() {
    let program = Path::new("/no-such/bin/gt");
    for (name, can_be) in [
        ("/no-such/bin/gt", true),
        ("/no-such/sbin/gt", false),
        ("gt", true),
        ("./gt", true),
        ("gtk", false),
        ("", false),
    ] {
        assert_eq!(is_called(name, program), can_be, "{name}");
    }
    // What another process calls itself so is not this one.
    let this = std::env::current_exe().unwrap();
    assert!(is_called(this.to_str().unwrap(), &this));
    assert!(!is_called("/proc/self/exe", &this));
}
