//! No visitor gets out of a shared folder, and no name or header is misread on its way.

use crate::common;
use crate::common::api::{self, judgement};
use crate::common::gt::{client_of_id1, server, server_of_id1, Gt};
use crate::common::peer::gt1::{hello, Frame, Peer};
use crate::common::peer::{port_option, prefix_option, ID_ALONE};
use crate::common::ports::free_port;
use crate::common::scratch::Scratch;
use crate::common::service::Service;
use crate::common::visitor::{ask, connect, get, read_answer, read_to_end};
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, Receiver};
use std::sync::Mutex;

const NOT_ALLOWED: Frame = Frame::Error(6);
const SECRET: &[u8] = b"what nobody may see";

/// A shared folder beside a private file.
struct Share {
    scratch: Scratch,
    addr: SocketAddr,
    _server: Gt,
    _client: Gt,
}

impl Share {
    fn new(more: &str) -> Share {
        let scratch = Scratch::new();
        scratch.file("secret.txt", SECRET);
        fs::write(scratch.dir("private").join("secret.txt"), SECRET).expect("write a file");
        fs::write(scratch.dir("shared/a").join("b.txt"), "open").expect("write a file");
        let mut server = server_of_id1("");
        let addr = server.addr();
        let folder = scratch.join("shared");
        let client = client_of_id1(addr, &format!("-local file://{} {more}", folder.display()));
        Share {
            scratch,
            addr,
            _server: server,
            _client: client,
        }
    }

    fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.scratch.join("shared").join(name.as_ref())
    }

    /// Sends a target that no HTTP client would send, and returns the response.
    fn raw(&self, target: &[u8]) -> Vec<u8> {
        let mut visitor = connect(self.addr);
        let head = b" HTTP/1.1\r\nHost: id1.a\r\nConnection: close\r\n\r\n";
        let request = [b"GET ", target, head].concat();
        visitor.write_all(&request).expect("send a request");
        read_to_end(&mut visitor)
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|some| some == part)
}

#[test]
fn no_spelling_of_a_target_leaves_the_folder() {
    let share = Share::new("");
    let ups: [&[u8]; 20] = [
        b"..",
        b"%2e%2e",
        b"%2E.",
        b".%2e",
        b"%252e%252e",
        b"%25252e%25252e",
        b"..%00",
        b"%00..",
        b"%c0%ae%c0%ae",
        b"%e0%80%ae%e0%80%ae",
        b"%f0%80%80%ae.",
        b"\xc0\xae\xc0\xae",
        b"%uff0e%uff0e",
        b"%ef%bc%8e%ef%bc%8e",
        b"..;",
        b"..%20",
        b"..%09",
        b"...",
        b"a%2f..%2f..",
        b"a\\..\\..",
    ];
    let slashes: [&[u8]; 8] = [
        b"/", b"//", b"%2f", b"\\", b"%5c", b"%c0%af", b"/./", b"%252f",
    ];
    let begins: [&[u8]; 5] = [b"/", b"//", b"http://id1.a/", b"/a/", b"/a/../"];
    let folder = share.scratch.path().display().to_string();
    let mut targets: Vec<Vec<u8>> = vec![
        format!("{folder}/secret.txt").into_bytes(),
        format!("/{folder}/secret.txt").into_bytes(),
        format!("file://{folder}/secret.txt").into_bytes(),
        format!("http://id1.a{folder}/secret.txt").into_bytes(),
        b"http://../secret.txt".to_vec(),
        b"..".to_vec(),
        b"/a/b.txt/../../../secret.txt".to_vec(),
    ];
    for up in ups {
        for slash in slashes {
            for begin in begins {
                targets.push([begin, up, slash, b"secret.txt"].concat());
                targets.push([begin, up, slash, b"private", slash, b"secret.txt"].concat());
            }
        }
    }
    for target in &targets {
        let answer = share.raw(target);
        let shown = target.escape_ascii();
        assert!(!contains(&answer, SECRET), "{shown} leads out");
        let status = answer.get(9..12).unwrap_or_default();
        let refused = [b"400", b"404"].iter().any(|code| *code == status);
        assert!(refused, "{shown}: {}", answer.escape_ascii());
    }
    assert!(contains(&share.raw(b"/a/b.txt"), b"open"));
    assert!(contains(&share.raw(b"http://elsewhere/a/b.txt"), b"open"));
}

#[test]
fn a_link_leads_out_of_the_folder_only_if_configured() {
    for (more, status) in [("", 404), ("-followLinksOutside", 200)] {
        let share = Share::new(more);
        symlink("../secret.txt", share.path("out")).expect("make a link");
        symlink(share.scratch.join("private"), share.path("folder")).expect("make a link");
        symlink("a/b.txt", share.path("in")).expect("make a link");
        for target in ["/out", "/folder/secret.txt"] {
            assert_eq!(get(share.addr, "id1.a", target).status, status, "{target}");
        }
        let listed = get(share.addr, "id1.a", "/").text().contains("folder");
        assert_eq!(listed, status == 200);
    }
}

#[test]
fn a_folder_replaced_by_a_link_meanwhile_leads_nowhere() {
    let share = Share::new("");
    let (place, spare) = (share.path("place"), share.path("spare"));
    fs::create_dir(&place).expect("make a folder");
    fs::write(place.join("secret.txt"), "open").expect("write a file");
    symlink("../private", &spare).expect("make a link");
    let done = AtomicBool::new(false);
    let (mut opened, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use rustix::fs::{renameat_with, RenameFlags, CWD};
            while !done.load(Ordering::Relaxed) {
                // The name always exists: either the folder or the link.
                renameat_with(CWD, &place, CWD, &spare, RenameFlags::EXCHANGE)
                    .expect("exchange the two");
            }
        });
        let mut visitor = connect(share.addr);
        let request = b"GET /place/secret.txt HTTP/1.1\r\nHost: id1.a\r\n\r\n";
        let ask = || {
            visitor.write_all(request).expect("send a request");
            let answer = read_answer(&mut visitor);
            match answer.status {
                200 => {
                    assert_eq!(answer.text(), "open", "it has led out");
                    opened += 1;
                }
                // The kernel gives up if it is disturbed too often.
                404 | 503 => refused += 1,
                other => panic!("{other}: {}", answer.text()),
            }
            (opened >= 200 && refused >= 200).then_some(())
        };
        let all = std::panic::AssertUnwindSafe(|| {
            let mut ask = ask;
            let end = std::time::Instant::now() + common::PATIENCE;
            while ask().is_none() {
                assert!(std::time::Instant::now() < end, "one of the two never came");
            }
        });
        let result = std::panic::catch_unwind(all);
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn a_name_stays_a_name_in_a_listing_and_in_a_redirect() {
    let share = Share::new("");
    let names: [&[u8]; 9] = [
        b"<img src=x onerror=alert(1)>",
        b"a\"b'c&d&lt;e",
        b"new\nline\r\nEvil: yes",
        b"\xff\xfe\xc0\xae",
        b"javascript:alert(1)",
        b"?q#f%41",
        b"x%2f..",
        b"\xe2\x80\xaegpj.exe",
        b"<script>",
    ];
    for (n, name) in names.iter().enumerate() {
        let name = OsStr::from_bytes(name);
        fs::write(share.path(name), n.to_string()).expect("write a file");
        fs::create_dir_all(share.path("folders").join(name)).expect("make a folder");
    }
    let page = get(share.addr, "id1.a", "/");
    for markup in ["<img", "<script", "javascript:alert(1)\"", "new\n"] {
        assert!(!page.text().contains(markup), "{markup} in {}", page.text());
    }
    let links = |page: &str| -> Vec<String> {
        let parts = page.split("<a href=\"").skip(1);
        parts
            .map(|part| part.split('"').next().unwrap_or_default().to_owned())
            .collect()
    };
    let files: Vec<_> = links(&page.text())
        .into_iter()
        .filter(|link| !link.ends_with('/'))
        .collect();
    let mut contents: Vec<String> = files
        .iter()
        .map(|link| get(share.addr, "id1.a", &format!("/{link}")).text())
        .collect();
    contents.sort();
    let wanted: Vec<String> = (0..names.len()).map(|n| n.to_string()).collect();
    assert_eq!(contents, wanted);

    let folders = links(&get(share.addr, "id1.a", "/folders/").text());
    let folders: Vec<_> = folders.iter().filter(|link| *link != "../").collect();
    assert_eq!(folders.len(), names.len());
    for folder in folders {
        let bare = folder.strip_suffix('/').expect("a folder");
        let answer = get(share.addr, "id1.a", &format!("/folders/{bare}"));
        assert_eq!(answer.status, 301, "{folder}");
        let location = format!("Location: {folder}");
        assert!(
            answer.head.lines().any(|line| line == location),
            "{}",
            answer.head
        );
        assert!(!answer.head.contains("\nEvil"), "{}", answer.head);
    }
}

#[test]
fn no_response_repeats_the_visitor_s_input() {
    let share = Share::new("");
    for head in [
        "GET /<script>%0d%0aEvil:%20yes HTTP/1.1\r\nHost: id1.a\r\n",
        "GET / HTTP/1.1\r\nHost: <script>.a\r\n",
        "GET / HTTP/1.1\r\nHost: id2\rEvil: yes\r\n",
        "GET / HTTP/1.1\r\n<script>: x\r\nHost: id1.a\r\n",
        "<script> / HTTP/1.1\r\nHost: id1.a\r\n",
        "Evil / HTTP/1.1\r\nHost: id1.a\r\n",
    ] {
        let answer = ask(share.addr, &format!("{head}Connection: close\r\n\r\n"));
        assert!((400..500).contains(&answer.status), "{head:?}");
        let all = answer.head.clone() + &answer.text();
        assert!(!all.contains("script") && !all.contains("Evil"), "{all}");
    }
}

/// Starts a service that passes on the request heads it gets.
fn heads() -> (Service, Receiver<String>) {
    let (tell, heads) = channel();
    let tell = Mutex::new(tell);
    let service = Service::start(0, move |mut stream| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte)? == 0 {
                return Ok(());
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let _ = tell.lock().unwrap().send(head);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    });
    (service, heads)
}

#[test]
fn a_service_never_gets_another_host_than_its_own() {
    let (service, heads) = heads();
    let mut server = server_of_id1("");
    let addr = server.addr();
    let more = format!("-useLocalAsHTTPHost -local http://{}", service.addr);
    let _client = client_of_id1(addr, &more);
    for head in [
        "GET / HTTP/1.1\r\nHost: id1.a\r\nHost: evil\r\nhost:evil\r\n",
        "GET http://evil/ HTTP/1.1\r\nHost: id1.a\r\n",
        "GET http://u:p@evil:1?x HTTP/1.1\r\nHost: id1.a\r\n",
    ] {
        let answer = ask(addr, &format!("{head}X: end\r\n\r\n"));
        assert_eq!(answer.status, 200, "{head:?}");
        let came = heads.recv_timeout(common::PATIENCE).expect("a head");
        assert!(
            came.contains(&format!("Host: {}\r\n", service.addr)),
            "{came}"
        );
        assert!(!came.contains("evil") && !came.contains("id1"), "{came}");
        assert!(came.ends_with("\r\nX: end\r\n\r\n"), "{came}");
    }
    for head in [
        "GET / HTTP/1.1\r\nHost: id1.a\rHost: evil\r\n",
        "GET / HTTP/1.1\r\nHost: id1.a\r\nX: y\rHost: evil\r\n",
        "GET / HTTP/1.1\r\nHost: id1.a\r\nX: y\0\r\n",
        "GET / HTTP/1.1\r\nHost: id1.a\r\n evil\r\n\tevil\r\n",
        "GET / HTTP/1.1\r\nHost: id1.a\r\nX: y\r\n Host: evil\r\n",
        "GET / HTTP/1.1\r\nHost: id1.a\r\nHost : evil\r\n",
        "GET /\u{1} HTTP/1.1\r\nHost: id1.a\r\n",
        "GET / HTTP/1.1\r\nHost: id1.a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let status = ask(addr, &format!("{head}\r\n")).status;
        // The first request has no valid host until its lines are parsed correctly.
        assert!(matches!(status, 400 | 404), "{status} for {head:?}");
    }
    assert_eq!(get(addr, "id1.a", "/last").status, 200);
    let last = heads.recv_timeout(common::PATIENCE).expect("a head");
    assert!(last.starts_with("GET /last "), "{last} came before");
}

/// Names that no visitor can ask for, or that are misread where they are shown.
const NO_PREFIXES: [&str; 14] = [
    "a b", "a\r\nb", "a\0b", "a/b", "../a", "a:80", "a@b", "a?b", "a#b", "<b>", "a\"b", "a%2eb",
    "a\\b", "[::1]",
];

#[test]
fn a_server_publishes_nothing_under_an_invalid_host_prefix() {
    let port = free_port();
    let mut server = server(&format!(
        "-addr 127.0.0.1:0 -allowAnyClient -hostNumber 0 -reconnectTimes 0 \
         -tcpNumber 0 -tcpRange {port}-{port}"
    ));
    let addr = server.addr();
    for name in NO_PREFIXES {
        let mut peer = Peer::client(addr, &hello("id1", "s", &prefix_option(name)));
        peer.expect(NOT_ALLOWED);
        peer.expect_end();
        let mut peer = Peer::client(addr, &hello(name, "s", &ID_ALONE));
        peer.expect(NOT_ALLOWED);
        peer.expect_end();
    }
    // As an id without a prefix it is harmless.
    let _peer = Peer::ready_client(addr, &hello("a\r\nb", "s", &port_option(false, port)));
    for name in ["a", "A-1_b~c&d'e", "\u{fc}ber"] {
        let _peer = Peer::ready_client(addr, &hello("id1", "s", &prefix_option(name)));
    }
}

#[test]
fn prefixes_granted_by_an_api_have_to_be_valid() {
    let api = api::start(0, |_| judgement(true, &NO_PREFIXES));
    let mut server = server(&format!(
        "-addr 127.0.0.1:0 -hostNumber 0 -authAPI http://{}/",
        api.addr
    ));
    let addr = server.addr();
    for name in NO_PREFIXES {
        let mut peer = Peer::client(addr, &hello("id1", "s", &prefix_option(name)));
        peer.expect(NOT_ALLOWED);
        peer.expect_end();
    }
    let _peer = Peer::ready_client(addr, &hello("id1", "s", &ID_ALONE));
}

#[test]
fn a_client_rejects_an_invalid_host_prefix_before_it_connects() {
    let parse = |line: &[&str]| {
        let argv: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
        gt::cli::parse(&argv).map(drop).map_err(|e| e.to_string())
    };
    let start = ["gt", "client", "-remote", "h", "-local", "http://h"];
    for name in NO_PREFIXES {
        for more in [
            ["-id", "a", "-hostPrefix", name],
            ["-hostPrefix", "", "-id", name],
        ] {
            let why = parse(&[&start[..], &more[..]].concat()).unwrap_err();
            assert!(why.contains("is not a host prefix"), "{why}");
            assert!(!why.contains(['\r', '\n', '\0']), "{why:?}");
        }
    }
    let fine = ["-id", "a b", "-hostPrefix", "a"];
    assert_eq!(parse(&[&start[..], &fine[..]].concat()), Ok(()));
}
