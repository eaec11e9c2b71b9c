//! The scripts of `release`, run with stand-ins for the programs, and what they pack.

use super::process::{run, run_ok};
use super::router::REPOSITORY;
use super::scratch::Scratch;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The targets of `openwrt/build`.
pub const TARGETS: [&str; 8] = [
    "x86_64",
    "aarch64",
    "armv7",
    "armv5",
    "mips",
    "mipsel",
    "riscv64",
    "loongarch64",
];

/// Writes a stand-in for the program of each target.
pub fn stand_ins(scratch: &Scratch, targets: &[&str]) {
    scratch.dir("programs");
    for target in targets {
        let program = format!("programs/gt-full-{target}");
        scratch.file(&program, format!("the program for {target}\n"));
    }
}

/// Runs a script of `release` with the programs in `programs` of a scratch folder. Its results are in
/// `out`.
pub fn release(scratch: &Scratch, script: &str, words: &[&str]) -> Output {
    run(
        Command::new(Path::new(REPOSITORY).join("release").join(script))
            .args(words)
            .env("GT_OUT", scratch.join("programs"))
            .env("GT_RELEASE_OUT", scratch.join("out"))
            .env("SOURCE_DATE_EPOCH", "1000000000"),
    )
}

/// Runs `release/programs`, and returns the path of the archive for a target.
pub fn make_archive(scratch: &Scratch, target: &str) -> PathBuf {
    stand_ins(scratch, &[target]);
    let output = release(scratch, "programs", &[target]);
    assert!(output.status.success(), "{output:?}");
    scratch.join(&format!("out/gt-{VERSION}-{target}.tar.gz"))
}

/// Runs `release/image`, and returns the path of the image.
pub fn make_image(scratch: &Scratch) -> PathBuf {
    stand_ins(scratch, &["x86_64", "aarch64"]);
    let output = release(scratch, "image", &[]);
    assert!(output.status.success(), "{output:?}");
    scratch.join(&format!("out/gt-{VERSION}-oci.tar"))
}

/// Lists a tar archive: mode, owner, date and name of each entry, sorted by name.
pub fn list(archive: &Path) -> Vec<String> {
    let mut command = Command::new("tar");
    command.args(["--list", "--verbose", "--numeric-owner", "--utc", "--file"]);
    let listing = run_ok(command.arg(archive));
    let entry = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [mode, owner, _, date, _, name] = words[..] else {
            panic!("another form: {line}");
        };
        format!("{mode} {owner} {date} {name}")
    };
    let mut entries: Vec<String> = listing.lines().map(entry).collect();
    entries.sort_by_key(|entry| entry.rsplit(' ').next().map(str::to_owned));
    entries
}

/// The unpacked archive of an image.
pub struct Image {
    scratch: Scratch,
}

impl Image {
    pub fn unpack(archive: &Path) -> Image {
        let image = Image {
            scratch: Scratch::new(),
        };
        let mut command = Command::new("tar");
        command.arg("--extract").arg("--file").arg(archive);
        run_ok(command.arg("--directory").arg(image.scratch.path()));
        image
    }

    /// Parses a file of the layout.
    pub fn json(&self, name: &str) -> Value {
        let path = self.scratch.join(name);
        let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Returns the path of the blob of a descriptor, after a check of its length.
    pub fn blob(&self, descriptor: &Value) -> PathBuf {
        let path = self.scratch.join(&Self::blob_name(descriptor));
        let length = fs::metadata(&path).unwrap_or_else(|e| panic!("{descriptor}: {e}"));
        assert_eq!(descriptor["size"].as_u64(), Some(length.len()));
        path
    }

    /// Parses the blob of a descriptor.
    pub fn json_blob(&self, descriptor: &Value) -> Value {
        self.blob(descriptor);
        self.json(&Self::blob_name(descriptor))
    }

    fn blob_name(descriptor: &Value) -> String {
        let digest = descriptor["digest"].as_str().expect("a digest");
        format!("blobs/{}", digest.replace(':', "/"))
    }

    /// Returns the SHA-256 sum of every blob, by its name.
    pub fn sums(&self) -> BTreeMap<String, String> {
        let blobs = fs::read_dir(self.scratch.join("blobs/sha256")).expect("blobs");
        let entry = |blob: std::io::Result<fs::DirEntry>| {
            let path = blob.expect("a blob").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            (name.into_owned(), sum(&path))
        };
        blobs.map(entry).collect()
    }

    /// Returns the index of the architectures.
    pub fn index(&self) -> Value {
        let manifests = self.json("index.json")["manifests"].clone();
        let [index] = &manifests.as_array().expect("manifests")[..] else {
            panic!("one image: {manifests}");
        };
        self.json_blob(index)
    }
}

/// Returns the SHA-256 sum of a file, in hexadecimal.
pub fn sum(path: &Path) -> String {
    let line = run_ok(Command::new("sha256sum").arg(path));
    line.split(' ').next().expect("a sum").to_owned()
}

/// Returns the SHA-256 sum of the content of a gzip file.
pub fn inflated_sum(path: &Path) -> String {
    let command = format!("gzip -dc '{}' | sha256sum", path.display());
    let line = run_ok(Command::new("sh").args(["-c", &command]));
    line.split(' ').next().expect("a sum").to_owned()
}
