//! Fuzz entries for the configuration: files, flags, values.

use crate::cli::{self, Command};
use crate::config::file::Document;
use crate::config::foreign::Content;
use crate::config::value::Scalar;
use crate::config::yaml::YamlTree;
use crate::config::{ListenAddr, RoleConfig, Url};
use std::path::Path;
use std::time::Duration;

/// Maximum length of the summary of all options, with its ellipsis.
const SHOWN: usize = 16 * 1024 + 4;

/// Parses and checks a configuration file.
pub fn yaml(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    let start: String = text.chars().take(40).collect();
    assert_text_is_kept(&start);

    // The line breaks of YAML 1.1.
    let breaks = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];
    // The end of the file counts as a line of its own.
    let lines = text.matches(breaks).count() + 2;
    let document = match Document::parse(Path::new("gt.yaml"), text, Content::Configuration) {
        Ok(document) => document,
        Err(error) => return assert_line(&error.to_string(), lines),
    };
    let Ok(role) = document.role(None) else {
        return;
    };
    // It names another file, which would be opened.
    if document.node(&["options", "users"]).is_some() {
        return;
    }
    match cli::load(role, &[], Some(&document)) {
        Ok(loaded) => {
            assert_loaded(&loaded);
            assert!(loaded.source.is_some());
            let warnings = loaded.warnings.iter();
            warnings.for_each(|warning| assert_line(warning, lines));
        }
        Err(error) => assert_line(&error.to_string(), lines),
    }
}

/// Parses command-line arguments, one a line.
pub fn flags(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let words = text.split('\n').map(str::to_owned);
    let argv: Vec<String> = ["gt".to_owned()].into_iter().chain(words).collect();
    // These name files, which would be opened.
    let opens = |word: &String| {
        let name = word.trim_start_matches('-');
        let names = [
            "config",
            "users",
            "secretFile",
            "privateFile",
            "private-file",
            "tcpForwardKeyFile",
            "tcp-forward-key-file",
            "udpForwardKeyFile",
            "udp-forward-key-file",
            "secret-file",
            "passwordFile",
            "password-file",
        ];
        names.iter().any(|file| name.starts_with(file))
    };
    if argv.iter().any(opens) {
        return;
    }
    let usual = 64 * 1024;
    match cli::parse(&argv) {
        Ok(Command::Run(roles) | Command::Check(roles) | Command::Fingerprint(roles)) => {
            roles.iter().for_each(assert_loaded);
            assert_secrets_are_kept(&argv, &roles);
        }
        Ok(Command::Print(text)) => assert!(text.len() < usual),
        Ok(Command::Signal(_) | Command::Import(_)) => {}
        #[cfg(feature = "client")]
        Ok(Command::Bans(_) | Command::Keygen(_)) => {}
        #[cfg(any(feature = "client", feature = "web"))]
        Ok(Command::Status { .. }) => {}
        #[cfg(feature = "p2p")]
        Ok(Command::SharedKey) => {}
        #[cfg(feature = "password")]
        Ok(Command::Hash(_)) => {}
        Err(error) => assert!(error.to_string().len() < usual + 16 * data.len()),
    }
}

/// Parses values that are addresses, and durations.
pub fn urls(data: &[u8]) {
    let text = &String::from_utf8_lossy(data);
    if let Ok(url) = Url::read(text) {
        assert!(url.port != 0 && url.target.starts_with('/'));
        assert!(url.target.bytes().all(|byte| byte.is_ascii_graphic()));
        let shown = url.to_string();
        let (origin, _) = shown.split_at(shown.len() - shown_target(&url).len());
        assert_eq!(
            Url::read(&format!("{origin}{}", url.target)),
            Ok(url.clone())
        );
        let more = url.target_with("id", text);
        assert!(more.starts_with(&url.target));
        assert!(more.bytes().all(|byte| byte.is_ascii_graphic()));
    }
    if let Ok(addr) = ListenAddr::read(text) {
        assert_eq!(ListenAddr::read(&addr.to_string()), Ok(addr));
    }
    if let Ok(duration) = Duration::read(text) {
        // Callers add it to the present time.
        assert!(duration.as_nanos() <= i64::MAX.unsigned_abs().into());
    }
}

/// Returns a URL's target as its `Display` writes it.
fn shown_target(url: &Url) -> String {
    match url.target.split_once('?') {
        Some((path, _)) => format!("{path}?******"),
        None => url.target.clone(),
    }
}

/// Checks that any text can be written as a value and is read back unchanged.
fn assert_text_is_kept(text: &str) {
    let quoted: String = text
        .chars()
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | ' ' | ':' | '#' | '-' | '{' | '}' => c.to_string(),
            c => format!("\\U{:08X}", u32::from(c)),
        })
        .collect();
    let tree = YamlTree::parse(format!("k: \"{quoted}\"")).expect("yaml");
    let node = tree.node(&["k"]).expect("the value");
    assert_eq!(node.texts(), [text]);
}

/// Checks that a line named in an error exists.
fn assert_line(sentence: &str, lines: usize) {
    let rest = sentence.strip_prefix("gt.yaml: line ");
    let Some((line, _)) = rest.and_then(|rest| rest.split_once(':')) else {
        return;
    };
    let line: usize = line.parse().expect("a number");
    assert!((1..=lines).contains(&line), "{sentence} of {lines} lines");
}

fn assert_loaded(loaded: &RoleConfig) {
    assert!((1..=64).contains(&loaded.threads()));
    assert!(loaded.shown.len() < SHOWN);
    assert!(loaded.shown.starts_with('{'));
}

/// Checks that the summary does not depend on secrets.
fn assert_secrets_are_kept(argv: &[String], roles: &[RoleConfig]) {
    let text = |roles: &[RoleConfig]| {
        let texts = roles.iter().map(|it| format!("{it:?} {}", it.shown));
        texts.collect::<Vec<_>>()
    };
    // What follows a flag without a value may be its value.
    let is_flag = |at: usize| {
        let before = &argv[at.saturating_sub(1)];
        !before.starts_with('-') || before.contains('=')
    };
    for at in 1..argv.len() {
        let mut other = argv.to_vec();
        if argv[at].starts_with("-secret=") && argv[at].len() > "-secret=".len() && is_flag(at) {
            other[at] = "-secret=another".to_owned();
        } else if argv[at - 1] == "-secret" && !argv[at].is_empty() && is_flag(at - 1) {
            other[at] = "another".to_owned();
        } else {
            continue;
        }
        // Two secrets of one id have to be the same.
        if let Ok(Command::Run(others) | Command::Check(others)) = cli::parse(&other) {
            assert_eq!(text(&others), text(roles));
        }
    }
}
