//! Unit tests of the log within one process. tests/server/logging.rs tests what a running gt logs.

use super::*;
use crate::config::{Given, LoggingConfig};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A temporary folder, removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (process, next) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("gt-log-{process}-{next}"));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn log(&self) -> PathBuf {
        self.0.join("gt.log")
    }

    /// Returns the names of the files in the folder.
    fn names(&self) -> Vec<String> {
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| name(entry).into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn given<T>(value: T) -> Given<T> {
    Given { value, given: true }
}

fn to(file: &Path, max_size: u64, max_count: u32) -> LoggingConfig {
    LoggingConfig {
        file: Some(file.to_owned()),
        max_size: given(max_size),
        max_count: given(max_count),
        ..LoggingConfig::default()
    }
}

fn logger(output: &LogOutput) -> Logger {
    Logger {
        writer: *WriteLogger::new(LevelFilter::Trace, line_config(), output.clone()),
        output: output.clone(),
        level: RwLock::new(LogLevel::Info),
        reporter: None,
    }
}

fn log_at(logger: &Logger, level: Level, target: &str, message: fmt::Arguments<'_>) {
    let mut record = Record::builder();
    let record = record.level(level).target(target).args(message).build();
    logger.log(&record);
}

fn info(logger: &Logger, message: fmt::Arguments<'_>) {
    log_at(logger, Level::Info, "gt::test", message);
}

/// Returns the messages of log lines, and checks the format of each line.
fn messages(text: &str) -> Vec<&str> {
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    let message = |line| {
        let (time, rest) = str::split_at_checked(line, "Sat Nov 19 20:16:33 UTC 2022 ".len())?;
        assert!(time.contains(" UTC 2"), "{line:?}");
        Some(rest)
    };
    let message = |line| message(line).unwrap_or_else(|| panic!("half a line: {line:?}"));
    text.lines().map(message).collect()
}

#[test]
fn a_message_stays_on_its_line() {
    let name = "a\nSat INF forged\u{1b}[2J é";
    assert_eq!(
        OneLine(&format_args!("id={name}")).to_string(),
        "id=a\\nSat INF forged\\u{1b}[2J é"
    );
}

#[test]
fn a_line_has_time_level_and_message() {
    let folder = Folder::new();
    let logger = logger(&LogOutput::open(&to(&folder.log(), 0, 0)).unwrap());
    *logger.level.write() = LogLevel::Trace;
    for level in Level::iter() {
        log_at(
            &logger,
            level,
            "gt::x",
            format_args!("tunnel started connID=1"),
        );
    }
    log_at(&logger, Level::Error, PANIC, format_args!("p"));
    let text = folder.read("gt.log");
    let expected =
        ["ERR", "WRN", "INF", "DBG", "TRC"].map(|it| format!("{it} tunnel started connID=1"));
    assert_eq!(messages(&text)[..5], expected);
    assert_eq!(messages(&text)[5..], ["PNC p"]);
}

#[test]
fn a_new_log_file_is_not_for_all_users_and_one_that_is_there_stays_as_it_is() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let mode = || {
        let metadata = std::fs::metadata(folder.log()).unwrap();
        metadata.permissions().mode() & 0o777
    };
    LogOutput::open(&to(&folder.log(), 0, 0)).unwrap();
    assert_eq!(mode() & !0o640, 0, "{:o}", mode());
    let all = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(folder.log(), all).unwrap();
    LogOutput::open(&to(&folder.log(), 0, 0)).unwrap();
    assert_eq!(mode(), 0o644);
}

#[test]
fn each_level_includes_more_severe_ones() {
    let levels = [
        (LogLevel::Trace, 7),
        (LogLevel::Debug, 6),
        (LogLevel::Info, 5),
        (LogLevel::Warn, 4),
        (LogLevel::Error, 3),
        (LogLevel::Fatal, 2),
        (LogLevel::Panic, 1),
        (LogLevel::Disable, 0),
    ];
    for (level, count) in levels {
        let folder = Folder::new();
        let logger = logger(&LogOutput::open(&to(&folder.log(), 0, 0)).unwrap());
        *logger.level.write() = level;
        for level in Level::iter() {
            log_at(&logger, level, "gt::x", format_args!("x"));
        }
        log_at(&logger, Level::Error, FATAL, format_args!("x"));
        log_at(&logger, Level::Error, PANIC, format_args!("x"));
        let shown = messages(&folder.read("gt.log")).len();
        assert_eq!(shown, count, "{level:?}");
    }
}

#[test]
fn other_crates_are_logged_from_warnings_up() {
    let folder = Folder::new();
    let logger = logger(&LogOutput::open(&to(&folder.log(), 0, 0)).unwrap());
    log_at(&logger, Level::Info, "ureq", format_args!("chatter"));
    log_at(&logger, Level::Warn, "ureq", format_args!("trouble"));
    assert_eq!(messages(&folder.read("gt.log")), ["WRN trouble"]);
}

#[test]
fn concurrent_threads_lose_and_tear_no_line_across_rotations() {
    const THREADS: usize = 4;
    const LINES: usize = 2_000;
    const SIZE: u64 = 4_000;
    let folder = Folder::new();
    let logger = logger(&LogOutput::open(&to(&folder.log(), SIZE, 0)).unwrap());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let logger = &logger;
            scope.spawn(move || {
                for n in 0..LINES {
                    let filler = "x".repeat(n % 60);
                    info(logger, format_args!("{thread} {n} {filler}"));
                }
            });
        }
    });
    let count = folder.names().len();
    assert!(count > 50, "{count} files");
    let mut next = [0; THREADS];
    for n in (0..count).rev() {
        let name = match n {
            0 => "gt.log".to_owned(),
            n => format!("gt.log.{n}"),
        };
        let text = folder.read(&name);
        assert!(!text.is_empty() && text.len() <= 4_000, "{name}");
        for message in messages(&text) {
            let mut words = message.split(' ').skip(1);
            let thread: usize = words.next().unwrap().parse().unwrap();
            let n = next[thread];
            let filler = "x".repeat(n % 60);
            assert_eq!(message, format!("INF {thread} {n} {filler}"), "{name}");
            next[thread] += 1;
        }
    }
    assert_eq!(next, [LINES; THREADS]);
}

#[test]
fn at_most_max_count_files_are_kept() {
    for (count, names) in [
        (1, vec!["gt.log"]),
        (3, vec!["gt.log", "gt.log.1", "gt.log.2"]),
    ] {
        let folder = Folder::new();
        let logger = logger(&LogOutput::open(&to(&folder.log(), 50, count)).unwrap());
        for n in 0..10 {
            // Each line fills a file.
            info(&logger, format_args!("{n} {:50}", ""));
        }
        assert_eq!(folder.names(), names);
        for (i, name) in names.iter().enumerate() {
            assert!(messages(&folder.read(name))[0].starts_with(&format!("INF {} ", 9 - i)));
        }
    }
}

#[test]
fn existing_files_are_kept_and_counted() {
    let folder = Folder::new();
    for name in ["gt.log", "gt.log.1", "gt.log.2", "gt.log.3", "gt.log.4"] {
        fs::write(folder.0.join(name), name).unwrap();
    }
    fs::write(folder.0.join("gt.log.5.gz"), "").unwrap();
    let output = LogOutput::open(&to(&folder.log(), 100, 3)).unwrap();
    info(&logger(&output), format_args!("{:70}", ""));
    // The maximum of three files applies to files left over from a higher one, too.
    let names = ["gt.log", "gt.log.1", "gt.log.2", "gt.log.5.gz"];
    assert_eq!(folder.names(), names);
    assert_eq!(folder.read("gt.log.1"), "gt.log");
    assert_eq!(folder.read("gt.log.2"), "gt.log.1");
}

#[test]
fn a_file_renamed_by_others_is_not_rotated_again() {
    let folder = Folder::new();
    let output = LogOutput::open(&to(&folder.log(), 60, 0)).unwrap();
    let logger = logger(&output);
    info(&logger, format_args!("one"));
    fs::rename(folder.log(), folder.0.join("kept")).unwrap();
    fs::write(folder.log(), "").unwrap();
    // Goes to the renamed file: the next rotation notices that it was renamed.
    info(&logger, format_args!("two {:50}", ""));
    assert_eq!(folder.names(), ["gt.log", "kept"]);
    info(&logger, format_args!("three"));
    assert_eq!(messages(&folder.read("gt.log")).last(), Some(&"INF three"));
}

#[test]
fn reopening_leaves_a_renamed_file_alone() {
    let folder = Folder::new();
    let config = to(&folder.log(), 0, 0);
    let output = LogOutput::open(&config).unwrap();
    let logger = logger(&output);
    info(&logger, format_args!("one"));
    fs::rename(folder.log(), folder.0.join("gt.log.1")).unwrap();
    info(&logger, format_args!("two"));
    output.reopen(None).unwrap();
    info(&logger, format_args!("three"));
    assert_eq!(messages(&folder.read("gt.log.1")), ["INF one", "INF two"]);
    assert_eq!(messages(&folder.read("gt.log")), ["INF three"]);
    // A target that cannot be opened changes nothing.
    let error = output.reopen(Some(&to(&folder.0.join("no/gt.log"), 0, 0)));
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("no/gt.log cannot be opened: No such file"),
        "{error}"
    );
    info(&logger, format_args!("four"));
    assert_eq!(messages(&folder.read("gt.log")).last(), Some(&"INF four"));
}

#[test]
fn a_full_disk_drops_lines_and_their_number_is_logged() {
    let folder = Folder::new();
    let output = LogOutput::open(&to(Path::new("/dev/full"), 100, 3)).unwrap();
    let logger = logger(&output);
    for n in 0..7 {
        info(&logger, format_args!("{n}"));
    }
    output.reopen(Some(&to(&folder.log(), 0, 0))).unwrap();
    info(&logger, format_args!("there is room"));
    info(&logger, format_args!("again"));
    let text = folder.read("gt.log");
    let messages = messages(&text);
    assert!(
        messages[0].starts_with("WRN lines of the log were lost count=7: No space left"),
        "{messages:?}"
    );
    assert_eq!(messages[1..], ["INF there is room", "INF again"]);
    assert!(Path::new("/dev/full").exists() && !Path::new("/dev/full.1").exists());
}

#[test]
fn a_failed_rotation_loses_no_line_and_is_not_retried_for_each() {
    let folder = Folder::new();
    // A non-empty folder blocks the name of the new file.
    fs::create_dir_all(folder.0.join("gt.log.new/x")).unwrap();
    let logger = logger(&LogOutput::open(&to(&folder.log(), 300, 3)).unwrap());
    for n in 0..30 {
        info(&logger, format_args!("{n:20}"));
    }
    let text = folder.read("gt.log");
    let (told, lines): (Vec<_>, Vec<_>) = messages(&text)
        .into_iter()
        .partition(|message| message.starts_with("WRN the log file cannot be rotated"));
    let expected: Vec<_> = (0..30).map(|n| format!("INF {n:20}")).collect();
    assert_eq!(lines, expected);
    assert!((1..=9).contains(&told.len()), "{told:?}");
    fs::remove_dir_all(folder.0.join("gt.log.new")).unwrap();
    for n in 0..30 {
        info(&logger, format_args!("{n:20}"));
    }
    assert_eq!(folder.names(), ["gt.log", "gt.log.1", "gt.log.2"]);
}

#[test]
fn a_symbolic_link_to_the_log_stays() {
    let folder = Folder::new();
    fs::create_dir(folder.0.join("disk")).unwrap();
    fs::write(folder.0.join("disk/real"), "").unwrap();
    std::os::unix::fs::symlink("disk/real", folder.log()).unwrap();
    let logger = logger(&LogOutput::open(&to(&folder.log(), 50, 2)).unwrap());
    for n in 0..3 {
        info(&logger, format_args!("{n} {:50}", ""));
    }
    assert_eq!(folder.names(), ["disk", "gt.log"]);
    assert!(folder.log().is_symlink());
    assert!(messages(&folder.read("disk/real"))[0].starts_with("INF 2"));
    assert!(messages(&folder.read("disk/real.1"))[0].starts_with("INF 1"));
}
