//! The documentation: its links lead somewhere, and README.md and README_CN.md have the same examples.

use crate::common::gt::GT;
use crate::common::process::run;
use crate::common::scratch::Scratch;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The blocks of code, each with its language.
fn examples(name: &str) -> Vec<String> {
    let text = read(&repository().join(name));
    let blocks = text.split("\n```").collect::<Vec<_>>();
    assert_eq!(blocks.len() % 2, 1, "{name}: a block has no end");
    let examples = blocks.into_iter().skip(1).step_by(2);
    examples.map(str::to_owned).collect()
}

/// All pages, from the root and docs/.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for folder in [
        repository(),
        repository().join("docs"),
        repository().join("tests"),
    ] {
        let files = fs::read_dir(folder).expect("a folder");
        let files = files.map(|file| file.expect("a file").path());
        pages.extend(files.filter(|path| path.extension().is_some_and(|end| end == "md")));
    }
    pages
}

/// The anchor that a heading gets: lower case, a dash for each space, no punctuation.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let heading = heading.trim().to_lowercase();
    heading
        .chars()
        .filter(kept)
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn both_readmes_have_the_same_examples_and_at_most_200_lines() {
    let examples_of_both = examples("README.md");
    assert!(examples_of_both.len() > 10);
    assert_eq!(examples_of_both, examples("README_CN.md"));
    for name in ["README.md", "README_CN.md"] {
        assert!(
            read(&repository().join(name)).lines().count() <= 200,
            "{name}"
        );
    }
}

#[test]
fn links_between_pages_lead_to_files_and_headings() {
    let pages = pages();
    assert!(pages.len() > 10);
    let mut links = 0;
    for page in pages {
        let text = read(&page);
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap_or_default();
            if link.contains("://") {
                continue;
            }
            links += 1;
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.clone(),
                file => page.parent().expect("a folder").join(file),
            };
            let shown = format!("{}: {link}", page.display());
            assert!(target.exists(), "{shown}");
            if !heading.is_empty() {
                let target = read(&target);
                let headings = target.lines().filter(|line| line.starts_with('#'));
                let mut anchors = headings.map(|line| anchor(line.trim_start_matches('#')));
                assert!(anchors.any(|anchor| anchor == heading), "{shown}");
            }
        }
    }
    assert!(links > 30, "{links}");
}

/// The examples of whole files in the pages: they have a `type`.
#[test]
fn gt_check_accepts_the_files_on_all_pages() {
    let mut files = 0;
    for page in pages() {
        let page = page.strip_prefix(repository()).expect("a page").to_owned();
        for example in examples(&page.display().to_string()) {
            let Some(text) = example.strip_prefix("yaml\n") else {
                continue;
            };
            if !text.lines().any(|line| line.starts_with("type:")) {
                continue;
            }
            files += 1;
            let scratch = Scratch::new();
            scratch.file("gt.yaml", text);
            scratch.file("users.yaml", "id3: {secret: secret3}");
            let mut check = Command::new(GT);
            check.args(["check", "-config", "gt.yaml"]);
            let output = run(check.current_dir(scratch.path()));
            let shown = format!("{}:\n{text}\n{output:?}", page.display());
            assert!(output.status.success(), "{shown}");
        }
    }
    assert!(files >= 3, "{files}");
}
