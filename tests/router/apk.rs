//! The package of OpenWrt 25.12 and later, in the format of apk-tools 3: read by a reader of its own,
//! and compared with a package that apk-tools made.

use crate::common::process::{run, run_ok};
use crate::common::release::sum;
use crate::common::router::{make_package, package_script, REPOSITORY};
use crate::common::scratch::Scratch;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a program in Python that can use `openwrt/apk.py`; returns what it prints.
fn python(program: &str) -> String {
    run_ok(
        Command::new("python3")
            .args(["-B", "-c", program])
            .env("PYTHONPATH", Path::new(REPOSITORY).join("openwrt")),
    )
}

#[test]
fn the_bytes_are_those_of_apk_tools() {
    let made = python(
        r##"
import apk
info = {
    apk.NAME: "gt", apk.VERSION: "0.1.0-r1", apk.DESCRIPTION: "A tunnel",
    apk.ARCHITECTURE: "mipsel_24kc", apk.LICENSE: "Apache-2.0",
    apk.DEPENDS: ["!gt-server", "!gt-client"],
}
folders = {path: 0o755 for path in ("usr/bin", "usr", "etc", "etc/d")}
files = {"usr/bin/p": (0o755, b"#!/bin/sh\n"), "etc/a.yaml": (0o600, b"x: 1\n")}
scripts = {"post-install": "#!/bin/sh\nexit 0\n"}
print(apk.unpacked(info, folders, files, scripts, 1000000000).hex())
"##,
    );
    let golden = include_str!("apk-v3-golden.hex");
    let golden: String = golden.split_whitespace().collect();
    assert_eq!(made.trim(), golden);
}

/// An unpacked package.
struct Apk {
    bytes: Vec<u8>,
    /// Where the heap begins.
    heap: usize,
    /// The kind and the payload of each block after the heap.
    blocks: Vec<(u32, Vec<u8>)>,
}

impl Apk {
    fn open(path: &Path) -> Apk {
        let inflate = "import sys, zlib; data = open(sys.argv[1], 'rb').read(); \
                       assert data[:4] == b'ADBd'; print(zlib.decompress(data[4:], -15).hex())";
        let said = run_ok(Command::new("python3").args(["-c", inflate]).arg(path));
        let digits = said.trim().as_bytes();
        let digit = |byte: u8| char::from(byte).to_digit(16).expect("a digit") as u8;
        let bytes: Vec<u8> = digits
            .chunks(2)
            .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
            .collect();
        assert_eq!(&bytes[..8], b"ADB.pckg");
        let mut apk = Apk {
            bytes,
            heap: 12,
            blocks: Vec::new(),
        };
        let mut at = 8;
        while at < apk.bytes.len() {
            let head = apk.u32_at(at);
            let length = (head & 0x0FFF_FFFF) as usize;
            let payload = apk.bytes[at + 4..at + length].to_vec();
            apk.blocks.push((head >> 30, payload));
            at += length.next_multiple_of(8);
        }
        assert_eq!(at, apk.bytes.len(), "the last block is not padded");
        assert_eq!(apk.blocks[0].0, 0);
        apk
    }

    fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().expect("four bytes"))
    }

    /// The values of an object or array from slot 1 on.
    fn list(&self, value: u32) -> Vec<u32> {
        if value == 0 {
            return Vec::new();
        }
        assert_eq!(value >> 28, 0xE, "{value:x} is no list");
        let at = self.heap + (value & 0x0FFF_FFFF) as usize;
        let count = self.u32_at(at) as usize;
        (1..count).map(|slot| self.u32_at(at + 4 * slot)).collect()
    }

    fn number(&self, value: u32) -> u32 {
        let low = value & 0x0FFF_FFFF;
        match value >> 28 {
            1 => low,
            2 => self.u32_at(self.heap + low as usize),
            _ => panic!("{value:x} is no number"),
        }
    }

    fn blob(&self, value: u32) -> &[u8] {
        if value == 0 {
            return &[];
        }
        let at = self.heap + (value & 0x0FFF_FFFF) as usize;
        let (length, begin) = match value >> 28 {
            8 => (usize::from(self.bytes[at]), at + 1),
            9 => {
                let bytes = [self.bytes[at], self.bytes[at + 1]];
                (usize::from(u16::from_le_bytes(bytes)), at + 2)
            }
            _ => panic!("{value:x} is no blob"),
        };
        &self.bytes[begin..begin + length]
    }

    fn text(&self, value: u32) -> String {
        String::from_utf8(self.blob(value).to_vec()).expect("text")
    }

    fn root(&self) -> Vec<u32> {
        self.list(self.u32_at(self.heap + 4))
    }

    /// A slot of the package's description.
    fn info(&self, slot: usize) -> u32 {
        let info = self.list(self.root()[0]);
        info.get(slot - 1).copied().unwrap_or(0)
    }

    /// The mode and the content of each file, and the mode of each folder, by path.
    fn tree(&self) -> BTreeMap<String, (u32, Option<Vec<u8>>)> {
        let mode = |acl| {
            let acl = self.list(acl);
            assert_eq!(
                (self.text(acl[1]), self.text(acl[2])),
                ("root".into(), "root".into())
            );
            self.number(acl[0])
        };
        let mut tree = BTreeMap::new();
        let mut data = self.blocks.iter().filter(|block| block.0 == 2);
        for (folder, number) in self.list(self.root()[1]).into_iter().zip(1u32..) {
            let folder = self.list(folder);
            let path = self.text(folder[0]);
            tree.insert(path.clone(), (mode(folder[1]), None));
            let files = folder
                .get(2)
                .map_or_else(Vec::new, |files| self.list(*files));
            for (file, at) in files.into_iter().zip(1u32..) {
                let file = self.list(file);
                assert_eq!(self.number(file[3]), 1_000_000_000, "the time");
                let (_, block) = data.next().expect("the content of a file");
                let place = [number.to_le_bytes(), at.to_le_bytes()].concat();
                assert_eq!(&block[..8], place);
                assert_eq!(block.len() - 8, self.number(file[2]) as usize);
                let name = format!("{path}/{}", self.text(file[0]));
                tree.insert(name, (mode(file[1]), Some(block[8..].to_vec())));
            }
        }
        assert!(data.next().is_none(), "content without a file");
        tree
    }

    /// A script, by its slot.
    fn script(&self, slot: usize) -> String {
        let scripts = self.list(self.root()[2]);
        self.text(scripts.get(slot - 1).copied().unwrap_or(0))
    }
}

fn apk_in(out: &Path) -> PathBuf {
    out.join(concat!("gt-", env!("CARGO_PKG_VERSION"), "-r1-x86_64.apk"))
}

#[test]
fn the_package_has_what_openwrt_s_own_packages_have() {
    let scratch = Scratch::new();
    let apk = Apk::open(&apk_in(&make_package(&scratch, "apk")));
    assert_eq!(apk.text(apk.info(1)), "gt");
    assert_eq!(
        apk.text(apk.info(2)),
        concat!(env!("CARGO_PKG_VERSION"), "-r1")
    );
    assert_eq!(apk.text(apk.info(5)), "x86_64");
    let conflicts = apk.list(apk.info(15)).into_iter().map(|one| {
        let one = apk.list(one);
        assert_eq!(apk.number(one[2]), 0x17, "a dependency on the absence");
        apk.text(one[0])
    });
    let conflicts: Vec<String> = conflicts.collect();
    assert_eq!(conflicts, ["gt-client", "gt-client-p2p", "gt-server"]);
    assert_eq!(apk.blob(apk.info(3)).len(), 20, "the identity");

    let tree = apk.tree();
    let content = |path: &str| {
        let (mode, content) = tree.get(path).unwrap_or_else(|| panic!("no {path}"));
        let content = content
            .as_ref()
            .unwrap_or_else(|| panic!("{path}: a folder"));
        (*mode, String::from_utf8(content.clone()).expect("text"))
    };
    for (path, mode) in [
        ("usr/bin/gt", 0o755),
        ("etc/init.d/gt", 0o755),
        ("etc/hotplug.d/iface/95-gt", 0o644),
        ("etc/hotplug.d/ntp/95-gt", 0o644),
        ("etc/gt.yaml", 0o600),
    ] {
        assert_eq!(content(path).0, mode, "{path}");
    }
    assert_eq!(tree.get("etc/gt"), Some(&(0o755, None)));
    let of_openwrt = |name: &str| content(&format!("lib/apk/packages/gt.{name}")).1;
    assert_eq!(of_openwrt("rusers"), "gt:gt\n");
    assert_eq!(of_openwrt("conffiles"), "/etc/gt.yaml\n");
    let config = Path::new(REPOSITORY).join("etc/gt.yaml");
    let digest = sum(&config);
    assert_eq!(
        of_openwrt("conffiles_static"),
        format!("/etc/gt.yaml {digest}\n")
    );
    let list = of_openwrt("list");
    assert!(list.lines().is_sorted(), "{list}");
    assert!(list.lines().any(|path| path == "/etc/init.d/gt"), "{list}");
    assert_eq!(content("lib/upgrade/keep.d/gt").1, "/etc/gt/\n");
}

/// Runs a script of the package with OpenWrt's functions replaced; returns what it prints.
fn run_script(script: &str, no_script: &str) -> String {
    let scratch = Scratch::new();
    scratch.dir("root/lib");
    scratch.file(
        "root/lib/functions.sh",
        "for name in add_group_and_user default_postinst default_prerm; do\n\
         eval \"$name() { echo $name \\$pkgname upgrade=\\$PKG_UPGRADE; }\"\ndone\n",
    );
    let file = scratch.file("script", script);
    run_ok(
        Command::new("sh")
            .arg(file)
            .env("IPKG_INSTROOT", scratch.join("root"))
            .env("IPKG_NO_SCRIPT", no_script),
    )
}

#[test]
fn its_scripts_call_those_of_openwrt() {
    let scratch = Scratch::new();
    let apk = Apk::open(&apk_in(&make_package(&scratch, "apk")));
    let [install, upgrade, remove] = [3, 7, 4].map(|slot| apk.script(slot));
    assert_eq!(
        run_script(&install, ""),
        "add_group_and_user gt upgrade=\ndefault_postinst gt upgrade=\n"
    );
    assert_eq!(
        run_script(&upgrade, ""),
        "add_group_and_user gt upgrade=1\ndefault_postinst gt upgrade=1\n"
    );
    assert_eq!(run_script(&remove, ""), "default_prerm gt upgrade=\n");
    // While an image is built.
    assert_eq!(run_script(&install, "1"), "");
    for slot in [2, 5, 6] {
        assert_eq!(apk.script(slot), "");
    }
}

#[test]
fn the_package_can_be_signed() {
    let scratch = Scratch::new();
    make_package(&scratch, "apk");
    let (key, public) = (scratch.join("key.pem"), scratch.join("public.pem"));
    let openssl = |words: &[&str], more: &[&Path]| {
        run_ok(Command::new("openssl").args(words).args(more));
    };
    let curve = [
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-out",
    ];
    openssl(&curve, &[&key]);
    openssl(
        &["pkey", "-pubout", "-in"],
        &[&key, Path::new("-out"), &public],
    );
    let out = scratch.join("out");
    let sign = |key: &Path| {
        let mut script = package_script();
        script.args(["apk", "full", "x86_64"]);
        run(script.env("GT_OUT", &out).env("GT_APK_KEY", key))
    };
    assert!(sign(&key).status.success());
    let apk = Apk::open(&apk_in(&out));
    let (kind, signature) = &apk.blocks[1];
    // Version 0, SHA-512, 16 bytes that name the key, the signature.
    assert_eq!((*kind, &signature[..2]), (1, &[0, 4][..]));
    let adb = scratch.join("adb");
    fs::write(&adb, &apk.blocks[0].1).expect("write");
    let digest = run(Command::new("openssl")
        .args(["dgst", "-sha512", "-binary"])
        .arg(&adb));
    let signed = [b"pckg", &signature[..18], &digest.stdout].concat();
    let (data, by) = (scratch.join("signed"), scratch.join("signature"));
    fs::write(&data, signed).expect("write");
    fs::write(&by, &signature[18..]).expect("write");
    let verify = ["dgst", "-sha512", "-verify"];
    openssl(&verify, &[&public, Path::new("-signature"), &by, &data]);

    let output = sign(&scratch.file("none.pem", "no key\n"));
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("openwrt/package: signing with"), "{said}");
}
