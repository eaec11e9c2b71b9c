//! The promises of the file service, tested over a real socket.

use super::root::{FolderNode, FolderRoot, LinkPolicy};
use super::FileVisitor;
use super::{listing, serve};
use async_std::os::unix::net::UnixStream;
use async_std::task::{block_on, spawn};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use proptest::prelude::*;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const SECRET: &[u8] = b"nobody may read this";

/// A shared folder inside a private one that contains a secret.
struct Share(PathBuf);

impl Share {
    fn new() -> Share {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("gt-files-{}-{number}", std::process::id());
        let share = Share(std::env::temp_dir().join(name));
        fs::create_dir_all(share.path("")).unwrap();
        fs::write(share.0.join("secret.txt"), SECRET).unwrap();
        fs::create_dir_all(share.0.join("private")).unwrap();
        fs::write(share.0.join("private/secret.txt"), SECRET).unwrap();
        share
    }

    fn with(files: &[(&str, &[u8])]) -> Share {
        let share = Share::new();
        for (name, bytes) in files {
            share.write(name, bytes);
        }
        share
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join("shared").join(name)
    }

    fn write(&self, name: impl AsRef<Path>, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn root(&self) -> FolderRoot {
        FolderRoot::open(&self.path(""), false).unwrap()
    }

    /// Returns the root as this kernel opens it, and as an old one does.
    fn roots(&self) -> [FolderRoot; 2] {
        let mut old = self.root();
        old.set_links(LinkPolicy::Refused);
        [self.root(), old]
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A parsed response.
#[derive(Debug)]
struct Reply {
    code: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    /// Parses the first response in `bytes`; returns it and the rest.
    fn read(bytes: &[u8], to_head: bool) -> (Reply, &[u8]) {
        let end = bytes
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .expect("a whole head");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut reply = Reply {
            code: head[9..12].parse().unwrap(),
            head,
            body: Vec::new(),
        };
        let mut rest = &bytes[end + 4..];
        if to_head || reply.code == 304 {
        } else if let Some(length) = reply.field("content-length") {
            let (body, after) = rest.split_at(length.parse().unwrap());
            reply.body.extend_from_slice(body);
            rest = after;
        } else if reply.field("transfer-encoding") == Some("chunked") {
            loop {
                let line = rest
                    .windows(2)
                    .position(|two| two == b"\r\n")
                    .expect("a chunk's size");
                let size = std::str::from_utf8(&rest[..line]).unwrap();
                let size = usize::from_str_radix(size, 16).unwrap();
                reply.body.extend_from_slice(&rest[line + 2..][..size]);
                assert_eq!(&rest[line + 2 + size..][..2], b"\r\n");
                rest = &rest[line + size + 4..];
                if size == 0 {
                    break;
                }
            }
        } else {
            reply.body.extend_from_slice(rest);
            rest = b"";
        }
        (reply, rest)
    }

    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// Sends `bytes` and the end of the stream on one connection; returns everything that comes back.
fn exchange(root: &FolderRoot, bytes: &[u8]) -> Vec<u8> {
    block_on(async {
        let (mut near, far) = UnixStream::pair().unwrap();
        let root = root.clone();
        let server = spawn(async move { serve(&root, far, FileVisitor::default()).await });
        near.write_all(bytes).await.unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        near.read_to_end(&mut all).await.unwrap();
        server.await.unwrap();
        all
    })
}

/// Returns all responses to `bytes`, none of them to a HEAD.
fn replies(root: &FolderRoot, bytes: &[u8]) -> Vec<Reply> {
    let all = exchange(root, bytes);
    let mut rest = all.as_slice();
    let mut replies = Vec::new();
    while !rest.is_empty() {
        let (reply, after) = Reply::read(rest, false);
        replies.push(reply);
        rest = after;
    }
    replies
}

/// Sends one request with these fields; `start` is method and target.
fn ask(root: &FolderRoot, start: &str, fields: &[(&str, &str)]) -> Reply {
    let mut head = format!("{start} HTTP/1.1\r\nHost: example\r\n");
    for (name, value) in fields {
        head += &format!("{name}: {value}\r\n");
    }
    let all = exchange(root, format!("{head}\r\n").as_bytes());
    let (reply, rest) = Reply::read(&all, start.starts_with("HEAD"));
    assert_eq!(rest, b"", "one request, one answer");
    reply
}

fn get(root: &FolderRoot, target: &str) -> Reply {
    ask(root, &format!("GET {target}"), &[])
}

fn codes(replies: &[Reply]) -> Vec<u16> {
    replies.iter().map(|reply| reply.code).collect()
}

fn many_bytes(count: usize) -> Vec<u8> {
    (0..count)
        .map(|at| u8::try_from(at * 7 % 251).unwrap())
        .collect()
}

#[test]
fn a_file_comes_with_its_type_length_and_date() {
    let share = Share::with(&[("notes/a b.txt", b"hello")]);
    let file = File::options()
        .append(true)
        .open(share.path("notes/a b.txt"))
        .unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(784_111_777))
        .unwrap();
    for root in share.roots() {
        let reply = get(&root, "/notes/a%20b.txt");
        assert_eq!((reply.code, reply.text()), (200, "hello"));
        assert_eq!(
            reply.field("content-type"),
            Some("text/plain; charset=utf-8")
        );
        assert_eq!(reply.field("content-length"), Some("5"));
        assert_eq!(
            reply.field("last-modified"),
            Some("Sun, 06 Nov 1994 08:49:37 GMT")
        );
        assert_eq!(reply.field("accept-ranges"), Some("bytes"));
        assert!(reply
            .field("etag")
            .is_some_and(|tag| tag.starts_with('"') && tag.ends_with('"')));
        assert!(reply.field("date").is_some());
        assert_eq!(reply.field("connection"), None);
    }
}

#[test]
fn a_file_of_any_length_comes_whole() {
    let share = Share::new();
    for count in [0, 1, 32 * 1024 - 1, 32 * 1024, 32 * 1024 + 1, 1_000_000] {
        share.write("a", &many_bytes(count));
        let reply = get(&share.root(), "/a");
        assert_eq!(reply.code, 200);
        assert!(reply.body == many_bytes(count), "{count} bytes");
    }
}

#[test]
fn a_change_of_a_file_changes_its_tag() {
    let share = Share::with(&[("a", b"one")]);
    let root = share.root();
    let mut tags = vec![get(&root, "/a").field("etag").unwrap().to_string()];
    share.write("a", b"three");
    tags.push(get(&root, "/a").field("etag").unwrap().to_string());
    let file = File::options().append(true).open(share.path("a")).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_millis(1_500))
        .unwrap();
    tags.push(get(&root, "/a").field("etag").unwrap().to_string());
    file.set_modified(UNIX_EPOCH + Duration::from_millis(1_250))
        .unwrap();
    tags.push(get(&root, "/a").field("etag").unwrap().to_string());
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 4);
}

#[test]
fn a_date_in_the_future_is_not_sent() {
    let share = Share::with(&[("a", b"from tomorrow")]);
    let file = File::options().append(true).open(share.path("a")).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(90_000))
        .unwrap();
    let reply = get(&share.root(), "/a");
    assert_eq!((reply.code, reply.field("last-modified")), (200, None));
}

#[test]
fn head_has_the_fields_of_get_and_no_body() {
    let share = Share::with(&[("a.txt", b"hello"), ("folder/b", b"")]);
    for target in ["/a.txt", "/folder/", "/folder", "/none", "/%zz"] {
        let strip = |reply: &Reply| {
            let lines = reply.head.lines().filter(|line| !line.starts_with("Date"));
            lines.map(str::to_string).collect::<Vec<_>>()
        };
        let (get, head) = (
            get(&share.root(), target),
            ask(&share.root(), &format!("HEAD {target}"), &[]),
        );
        assert_eq!(strip(&get), strip(&head), "{target}");
        assert!(!get.body.is_empty());
    }
}

#[test]
fn pipelined_requests_are_answered_in_their_order_on_one_connection() {
    let share = Share::with(&[
        ("a", b"first"),
        ("b", &many_bytes(100_000)),
        ("c", b"third"),
    ]);
    let request = |name: &str| format!("GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n");
    let all = ["a", "none", "b", "c", ""].map(request).concat();
    let replies = replies(&share.root(), all.as_bytes());
    assert_eq!(codes(&replies), [200, 404, 200, 200, 200]);
    assert_eq!(replies[0].body, b"first");
    assert!(replies[2].body == many_bytes(100_000));
    assert_eq!(replies[3].body, b"third");
}

#[test]
fn the_second_request_may_wait_for_the_first_answer() {
    let share = Share::with(&[("a", b"hello")]);
    let root = share.root();
    block_on(async {
        let (mut near, far) = UnixStream::pair().unwrap();
        let server = spawn(async move { serve(&root, far, FileVisitor::default()).await });
        for _ in 0..3 {
            near.write_all(b"\r\nHEAD /a HTTP/1.1\r\nHost: x\r\n\r\n")
                .await
                .unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                near.read_exact(&mut byte).await.unwrap();
                seen.push(byte[0]);
            }
            assert!(seen.starts_with(b"HTTP/1.1 200 OK\r\n"));
        }
        drop(near);
        server.await.unwrap();
    });
}

#[test]
fn a_head_may_come_a_byte_at_a_time() {
    let share = Share::with(&[("a", b"hello")]);
    let root = share.root();
    block_on(async {
        let (mut near, far) = UnixStream::pair().unwrap();
        let server = spawn(async move { serve(&root, far, FileVisitor::default()).await });
        for byte in b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" {
            near.write_all(&[*byte]).await.unwrap();
            async_std::task::yield_now().await;
        }
        let mut all = Vec::new();
        near.read_to_end(&mut all).await.unwrap();
        server.await.unwrap();
        assert_eq!(Reply::read(&all, false).0.body, b"hello");
    });
}

#[test]
fn connection_close_is_honoured_and_http_1_0_closes_by_default() {
    let share = Share::with(&[("a", b"hello"), ("folder/b", b"")]);
    let root = share.root();
    let twice = |head: &str| replies(&root, head.repeat(2).as_bytes());
    let close = twice("GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(codes(&close), [200]);
    assert_eq!(close[0].field("connection"), Some("close"));
    assert_eq!(codes(&twice("GET /a HTTP/1.0\r\n\r\n")), [200]);
    let keep = twice("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(codes(&keep), [200, 200]);
    assert_eq!(keep[0].field("connection"), Some("keep-alive"));
    let page = twice("GET /folder/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(
        codes(&page),
        [200],
        "a page without chunks ends with the connection"
    );
    assert_eq!(page[0].field("connection"), Some("close"));
    assert!(page[0].text().ends_with("</html>\n"));
}

#[test]
fn only_get_and_head_are_allowed() {
    let share = Share::with(&[("a", b"hello")]);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PROPFIND", "get"] {
        let reply = ask(&share.root(), &format!("{method} /a"), &[]);
        assert_eq!(
            (reply.code, reply.field("allow")),
            (405, Some("GET, HEAD")),
            "{method}"
        );
    }
    assert_eq!(fs::read(share.path("a")).unwrap(), b"hello");
}

#[test]
fn a_body_is_never_taken_for_a_request() {
    let share = Share::with(&[("a", b"hello")]);
    let inner = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
    for (method, code) in [("POST", 405), ("GET", 200), ("HEAD", 200)] {
        for field in [
            format!("Content-Length: {}", inner.len()),
            "Transfer-Encoding: chunked".into(),
        ] {
            let all = format!("{method} /a HTTP/1.1\r\nHost: x\r\n{field}\r\n\r\n{inner}");
            let all = exchange(&share.root(), all.as_bytes());
            let (reply, rest) = Reply::read(&all, method == "HEAD");
            assert_eq!((reply.code, rest.len()), (code, 0), "{method} {field}");
            assert_eq!(reply.field("connection"), Some("close"));
        }
    }
}

#[test]
fn a_client_that_goes_on_sending_a_body_still_gets_its_answer() {
    let share = Share::new();
    let mut all = b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n".to_vec();
    all.extend_from_slice(&[b'x'; 100_000]);
    assert_eq!(codes(&replies(&share.root(), &all)), [405]);
    assert!(!share.path("a").exists());
}

#[test]
fn a_bad_head_gets_its_status_and_the_connection_ends() {
    let share = Share::with(&[("a", b"hello")]);
    let long = format!(
        "GET /a HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n",
        "x".repeat(16 * 1024)
    );
    let endless = format!("GET /{}", "x".repeat(20 * 1024));
    let fits = format!(
        "GET /a HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n",
        "x".repeat(16 * 1024 - 33)
    );
    assert_eq!(fits.len(), 16 * 1024);
    let again = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
    for (head, code) in [
        ("nonsense\r\n\r\n", 400),
        ("GET /a HTTP/1.1\r\n\r\n", 400),
        ("GET /a HTT", 400),
        ("GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("\x16\x03\x01", 400),
        ("GET /a HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (long.as_str(), 431),
        (endless.as_str(), 431),
    ] {
        let replies = replies(&share.root(), head.as_bytes());
        assert_eq!(codes(&replies), [code], "{:.40}", head);
        assert!(replies[0].text().starts_with(&format!("{code} ")));
        assert_eq!(replies[0].field("x-content-type-options"), Some("nosniff"));
        if !head.contains('*') {
            assert_eq!(replies[0].field("connection"), Some("close"));
        }
    }
    assert_eq!(
        codes(&replies(&share.root(), (fits + again).as_bytes())),
        [200, 200]
    );
    let bad_then_good = format!("nonsense\r\n\r\n{again}");
    assert_eq!(
        codes(&replies(&share.root(), bad_then_good.as_bytes())),
        [400]
    );
}

#[test]
fn a_tls_handshake_is_answered_without_waiting_for_more() {
    let share = Share::new();
    let root = share.root();
    block_on(async {
        let (mut near, far) = UnixStream::pair().unwrap();
        let server = spawn(async move { serve(&root, far, FileVisitor::default()).await });
        near.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
        let mut start = [0; 12];
        near.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 400");
        drop(near);
        server.await.unwrap();
    });
}

#[test]
fn an_unchanged_file_is_not_sent_again() {
    let share = Share::with(&[("a", b"hello")]);
    let root = share.root();
    let file = File::options().append(true).open(share.path("a")).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_millis(784_111_777_500))
        .unwrap();
    let first = get(&root, "/a");
    let (tag, date) = (
        first.field("etag").unwrap(),
        first.field("last-modified").unwrap(),
    );
    let (weak, list) = (format!("W/{tag}"), format!("\"x\", {tag}"));
    let (before, after) = (
        "Sun, 06 Nov 1994 08:49:36 GMT",
        "Mon, 07 Nov 1994 08:49:37 GMT",
    );
    for (fields, code) in [
        (vec![("If-None-Match", tag)], 304),
        (vec![("If-None-Match", &weak)], 304),
        (vec![("If-None-Match", &list)], 304),
        (
            vec![("If-None-Match", "\"x\""), ("If-None-Match", tag)],
            304,
        ),
        (vec![("If-None-Match", "*")], 304),
        (vec![("If-None-Match", "\"x\"")], 200),
        (vec![("If-Modified-Since", date)], 304),
        (vec![("If-Modified-Since", after)], 304),
        (vec![("If-Modified-Since", before)], 200),
        (vec![("If-Modified-Since", "yesterday")], 200),
        (
            vec![("If-None-Match", "\"x\""), ("If-Modified-Since", date)],
            200,
        ),
        (
            vec![("If-None-Match", tag), ("If-Modified-Since", before)],
            304,
        ),
        (vec![("If-None-Match", tag), ("Range", "bytes=0-1")], 304),
        (vec![("If-Match", tag)], 200),
        (vec![("If-Match", "*")], 200),
        (vec![("If-Match", &weak)], 412),
        (vec![("If-Match", "\"x\"")], 412),
        (vec![("If-Unmodified-Since", date)], 200),
        (vec![("If-Unmodified-Since", before)], 412),
    ] {
        let reply = ask(&root, "GET /a", &fields);
        assert_eq!(reply.code, code, "{fields:?}");
        if code == 304 {
            assert_eq!(reply.field("etag"), Some(tag));
            assert_eq!(reply.field("content-length"), None);
        }
    }
}

#[test]
fn a_range_returns_exactly_the_requested_part() {
    let share = Share::with(&[("a", b"0123456789"), ("empty", b"")]);
    let root = share.root();
    let tag = get(&root, "/a").field("etag").unwrap().to_string();
    let date = get(&root, "/a").field("last-modified").unwrap().to_string();
    let weak = format!("W/{tag}");
    for (range, known, code, content_range, body) in [
        ("bytes=2-4", None, 206, Some("bytes 2-4/10"), "234"),
        ("bytes=0-0", None, 206, Some("bytes 0-0/10"), "0"),
        ("bytes=7-", None, 206, Some("bytes 7-9/10"), "789"),
        ("bytes=-3", None, 206, Some("bytes 7-9/10"), "789"),
        ("bytes=-30", None, 206, Some("bytes 0-9/10"), "0123456789"),
        ("bytes=2-4", Some(&tag), 206, Some("bytes 2-4/10"), "234"),
        ("bytes=2-4", Some(&date), 206, Some("bytes 2-4/10"), "234"),
        ("bytes=2-4", Some(&weak), 200, None, "0123456789"),
        ("bytes=2-4,6-7", None, 200, None, "0123456789"),
        ("lines=2-4", None, 200, None, "0123456789"),
        ("bytes=4-2", None, 200, None, "0123456789"),
    ] {
        let mut fields = vec![("Range", range)];
        fields.extend(known.map(|known| ("If-Range", known.as_str())));
        let reply = ask(&root, "GET /a", &fields);
        assert_eq!((reply.code, reply.text()), (code, body), "{fields:?}");
        assert_eq!(reply.field("content-range"), content_range);
    }
    for (target, range, size) in [
        ("/a", "bytes=10-", 10),
        ("/a", "bytes=-0", 10),
        ("/empty", "bytes=0-", 0),
    ] {
        let reply = ask(&root, &format!("GET {target}"), &[("Range", range)]);
        assert_eq!(reply.code, 416);
        assert_eq!(
            reply.field("content-range"),
            Some(format!("bytes */{size}").as_str())
        );
    }
    let head = ask(&root, "HEAD /a", &[("Range", "bytes=2-4")]);
    assert_eq!((head.code, head.field("content-length")), (200, Some("10")));
}

#[test]
fn a_file_of_more_than_4_gib_is_served_to_its_end() {
    let share = Share::with(&[("large", b"")]);
    let size = (5_u64 << 30) + 3;
    let file = File::options()
        .write(true)
        .open(share.path("large"))
        .unwrap();
    file.set_len(size).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"end", size - 3).unwrap();
    for root in share.roots() {
        let head = ask(&root, "HEAD /large", &[]);
        assert_eq!(head.field("content-length"), Some("5368709123"));
        let reply = ask(&root, "GET /large", &[("Range", "bytes=5368709120-")]);
        assert_eq!((reply.code, reply.text()), (206, "end"));
        assert_eq!(
            reply.field("content-range"),
            Some("bytes 5368709120-5368709122/5368709123")
        );
    }
}

/// Requests an 8 MiB file, far more than a socket holds, and changes it once its head has come.
/// Returns how much came, how much was announced, and the server's result.
fn change_while_sent(change: impl FnOnce(&Path)) -> (usize, usize, io::Result<()>) {
    let size = 8 << 20;
    let share = Share::with(&[("a", &many_bytes(size))]);
    let root = share.root();
    block_on(async {
        let (mut near, far) = UnixStream::pair().unwrap();
        let server = spawn(async move { serve(&root, far, FileVisitor::default()).await });
        let head = b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        near.write_all(head).await.unwrap();
        let mut all = vec![0; 1024];
        near.read_exact(&mut all).await.unwrap();
        change(&share.path("a"));
        near.read_to_end(&mut all).await.unwrap();
        let head = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        (all.len() - head, size, server.await)
    })
}

#[test]
fn a_file_that_shrinks_while_sent_is_cut_not_padded() {
    let (came, announced, result) = change_while_sent(|path| {
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(10)
            .unwrap()
    });
    assert!(came < announced);
    let error = result.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(error.to_string().contains("path=\"/a\""), "{error}");
}

#[test]
fn a_file_that_grows_while_sent_ends_at_its_announced_length() {
    let (came, announced, result) = change_while_sent(|path| {
        io::Write::write_all(
            &mut File::options().append(true).open(path).unwrap(),
            b"more",
        )
        .unwrap();
    });
    assert_eq!(came, announced);
    result.unwrap();
}

#[test]
fn a_folder_without_its_slash_is_redirected_relative_to_its_parent() {
    let share = Share::with(&[
        ("folder/a", b""),
        ("a/b c/d", b""),
        ("evil.example/a", b""),
        ("x\r\nSet-Cookie: y/a", b""),
        ("b:c/a", b""),
    ]);
    for (target, location) in [
        ("/folder", "folder/"),
        ("/folder?a=b&c", "folder/?a=b&c"),
        ("/a/b%20c", "b%20c/"),
        ("//evil.example", "evil.example/"),
        ("/%2fevil.example/../folder", ""),
        ("/x%0d%0aSet-Cookie:%20y", "x%0D%0ASet-Cookie%3A%20y/"),
        ("/b:c", "b%3Ac/"),
        ("http://elsewhere/folder", "folder/"),
    ] {
        let reply = get(&share.root(), target);
        match location {
            "" => assert_eq!(reply.code, 404, "{target}"),
            _ => {
                assert_eq!(
                    (reply.code, reply.field("location")),
                    (301, Some(location)),
                    "{target}"
                );
                assert_eq!(reply.field("set-cookie"), None);
            }
        }
    }
}

#[test]
fn a_file_with_a_slash_is_not_found() {
    let share = Share::with(&[("a", b"hello")]);
    for root in share.roots() {
        for target in ["/a/", "/a/b", "/a/index.html"] {
            assert_eq!(get(&root, target).code, 404, "{target}");
        }
    }
}

#[test]
fn a_folder_with_an_index_serves_it() {
    let share = Share::with(&[
        ("site/index.html", b"<p>welcome"),
        ("odd/index.html/a", b""),
    ]);
    for root in share.roots() {
        let reply = get(&root, "/site/");
        assert_eq!((reply.code, reply.text()), (200, "<p>welcome"));
        assert_eq!(
            reply.field("content-type"),
            Some("text/html; charset=utf-8")
        );
        let odd = get(&root, "/odd/");
        assert!(
            odd.text().contains("index.html/"),
            "a folder of that name is just a folder"
        );
    }
}

/// Returns the links of a page as written.
fn links(page: &str) -> Vec<&str> {
    page.split("<a href=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect()
}

#[test]
fn a_folder_lists_folders_first_then_files_and_nothing_hidden() {
    let share = Share::with(&[
        ("dir/b.txt", &[0; 1536]),
        ("dir/A.txt", b""),
        ("dir/.hidden", b""),
        ("dir/zoo/x", b""),
        ("dir/Bar/x", b""),
        ("dir/.git/x", b""),
    ]);
    for root in share.roots() {
        let reply = get(&root, "/dir/");
        assert_eq!(reply.code, 200);
        assert_eq!(
            reply.field("content-type"),
            Some("text/html; charset=utf-8")
        );
        assert_eq!(
            links(reply.text()),
            ["../", "Bar/", "zoo/", "A.txt", "b.txt"]
        );
        assert!(reply.text().contains("<td>1.5 KiB<td>20"));
        assert!(!reply.text().contains("hidden"));
        assert_eq!(
            links(get(&root, "/").text()),
            ["dir/"],
            "the top has no parent"
        );
    }
}

#[test]
fn every_link_of_a_listing_leads_to_its_file() {
    let share = Share::new();
    let names: [&[u8]; 9] = [
        b"<script>alert(1)</script>"
            .split(|byte| *byte == b'/')
            .next()
            .unwrap(),
        b"a&b\"c'd.txt",
        b"100%?#;",
        b"back\\slash:colon",
        b"\xff\xfe not utf-8",
        b"line\r\nend",
        "\u{4f60}\u{597d}".as_bytes(),
        b"javascript:alert(1)",
        b" space ",
    ];
    for name in names {
        share.write(std::ffi::OsStr::from_bytes(name), name);
    }
    let page = get(&share.root(), "/");
    let mut found = Vec::new();
    for link in links(page.text()) {
        found.push(get(&share.root(), &format!("/{link}")).body);
    }
    found.sort();
    let mut names = names.map(<[u8]>::to_vec);
    names.sort();
    assert_eq!(found, names);
    assert!(!page.text().contains("<script"));
    assert_eq!(page.text().matches("</style>").count(), 1);
}

#[test]
fn a_huge_folder_lists_the_first_names_and_the_number_of_others() {
    let share = Share::with(&[("last/a", b"")]);
    let count = listing::NAMES_MAX + 24;
    for number in 0..count {
        File::create(share.path(format!("{number:06}"))).unwrap();
    }
    let reply = get(&share.root(), "/");
    let links = links(reply.text());
    assert_eq!(links.len(), listing::NAMES_MAX);
    assert_eq!(links[..3], ["last/", "000000", "000001"]);
    assert_eq!(
        links.last(),
        Some(&format!("{:06}", listing::NAMES_MAX - 2).as_str())
    );
    assert!(reply.text().contains("and 25 more"));
}

#[test]
fn hidden_names_are_not_served() {
    let share = Share::with(&[
        (".htpasswd", SECRET),
        (".git/config", SECRET),
        ("a/.b", SECRET),
    ]);
    for root in share.roots() {
        for target in [
            "/.htpasswd",
            "/%2ehtpasswd",
            "/.git/",
            "/.git/config",
            "/a/.b",
            "/a/%2Eb",
        ] {
            assert_eq!(get(&root, target).code, 404, "{target}");
        }
    }
}

#[test]
fn no_spelling_of_a_path_leaves_the_folder() {
    let share = Share::with(&[("a/b", b"fine")]);
    for root in share.roots() {
        for target in [
            "/../secret.txt",
            "/a/../../secret.txt",
            "/%2e%2e/secret.txt",
            "/%2e%2e%2fsecret.txt",
            "/..%2fsecret.txt",
            "/a/..%2f..%2fsecret.txt",
            "/..%5csecret.txt",
            "/..\\secret.txt",
            "/%c0%ae%c0%ae/secret.txt",
            "/%c0%ae%c0%ae%c0%afsecret.txt",
            "/..%00/secret.txt",
            "/%252e%252e/secret.txt",
            "/./../secret.txt",
            "//../secret.txt",
            "http://x/../secret.txt",
        ] {
            let reply = get(&root, target);
            assert_eq!(reply.code, 404, "{target}");
        }
        let absolute = get(&root, share.0.join("secret.txt").to_str().unwrap());
        assert_eq!(absolute.code, 404);
    }
}

/// Creates links that leave the folder in every way, and some that stay.
fn share_of_links() -> Share {
    let share = Share::with(&[("a/b.txt", b"fine"), ("c.txt", b"also fine")]);
    for (to, link) in [
        ("../secret.txt", "out"),
        ("../../secret.txt", "a/out"),
        ("../private", "out-folder"),
        ("..", "up"),
        ("/", "top"),
        ("/proc/self/root", "magic"),
        ("/proc/self/cwd", "here"),
        ("loop", "loop"),
        ("nowhere", "dangling"),
        ("b.txt", "a/in"),
        ("../c.txt", "a/in-above"),
        ("a", "in-folder"),
    ] {
        symlink(to, share.path(link)).unwrap();
    }
    symlink(share.0.join("secret.txt"), share.path("out-absolute")).unwrap();
    symlink(share.path("out"), share.path("chain")).unwrap();
    share
}

#[test]
fn no_symbolic_link_leads_out_of_the_folder() {
    let share = share_of_links();
    for root in share.roots() {
        for target in [
            "/out",
            "/a/out",
            "/out-absolute",
            "/chain",
            "/out-folder",
            "/out-folder/",
            "/out-folder/secret.txt",
            "/up",
            "/up/",
            "/up/secret.txt",
            "/top/",
            "/top/etc/passwd",
            "/magic/",
            "/here/",
            "/loop",
            "/dangling",
            "/up/shared/c.txt",
            "/in-folder/out",
        ] {
            assert_eq!(
                get(&root, target).code,
                404,
                "{target} with {:?}",
                root.links()
            );
        }
        let page = get(&root, "/");
        let listed = links(page.text());
        for link in [
            "out",
            "out-absolute",
            "chain",
            "out-folder/",
            "up/",
            "top/",
            "loop",
        ] {
            assert!(!listed.contains(&link), "{link} is listed");
        }
    }
}

#[test]
fn links_that_stay_inside_work_where_the_kernel_supports_it() {
    let share = share_of_links();
    let [new, old] = share.roots();
    let beneath = new.links() == LinkPolicy::Beneath;
    for (root, works) in [(new, beneath), (old, false)] {
        let code = if works { 200 } else { 404 };
        for target in [
            "/a/in",
            "/a/in-above",
            "/in-folder/b.txt",
            "/in-folder/in",
            "/in-folder/",
        ] {
            assert_eq!(
                get(&root, target).code,
                code,
                "{target} with {:?}",
                root.links()
            );
        }
        let (top, a) = (get(&root, "/"), get(&root, "/a/"));
        assert_eq!(links(top.text()).contains(&"in-folder/"), works);
        assert_eq!(links(a.text()).contains(&"in"), works);
        assert_eq!(links(a.text()).contains(&"in-above"), works);
    }
}

#[test]
fn links_lead_anywhere_only_with_follow_links_outside() {
    let share = share_of_links();
    let root = FolderRoot::open(&share.path(""), true).unwrap();
    for target in [
        "/out",
        "/a/out",
        "/out-absolute",
        "/chain",
        "/up/secret.txt",
        "/a/in",
    ] {
        assert_eq!(get(&root, target).code, 200, "{target}");
    }
    assert!(links(get(&root, "/").text()).contains(&"out-folder/"));
    for target in [
        "/loop",
        "/dangling",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/a%2f../c.txt",
    ] {
        assert_eq!(get(&root, target).code, 404, "{target}");
    }
}

#[test]
fn a_folder_replaced_by_a_link_leads_nowhere_on_any_kernel() {
    use rustix::fs::{renameat_with, RenameFlags, CWD};
    let share = Share::with(&[("place/secret.txt", b"fine")]);
    symlink("../private", share.path("spare")).unwrap();
    let (place, spare) = (share.path("place"), share.path("spare"));
    let (done, end) = (
        AtomicBool::new(false),
        Instant::now() + Duration::from_secs(30),
    );
    let look = |root: &FolderRoot| {
        let node = root.tree().unwrap().open(b"place/secret.txt");
        let Ok(FolderNode::File(mut file, _)) = node else {
            return None;
        };
        let mut bytes = Vec::new();
        Read::read_to_end(&mut file, &mut bytes).unwrap();
        Some(bytes)
    };
    std::thread::scope(|scope| {
        let exchanging = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) && Instant::now() < end {
                renameat_with(CWD, &place, CWD, &spare, RenameFlags::EXCHANGE).unwrap();
            }
        });
        for root in share.roots() {
            let (mut opened, mut refused, mut led_out) = (0, 0, false);
            while (opened < 100 || refused < 100) && !led_out && Instant::now() < end {
                match look(&root) {
                    Some(bytes) => {
                        opened += 1;
                        led_out |= bytes != b"fine";
                    }
                    None => refused += 1,
                }
            }
            if root.links() == LinkPolicy::Refused || led_out {
                done.store(true, Ordering::Relaxed);
            }
            let links = root.links();
            assert!(!led_out, "it has led out with {links:?}");
            assert!(
                opened >= 100 && refused >= 100,
                "one of the two never came with {links:?}"
            );
        }
        exchanging.join().unwrap();
    });
}

#[test]
fn pipes_and_sockets_are_not_found() {
    let share = Share::with(&[("a", b"")]);
    let pipe = share.path("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(share.path("socket")).unwrap();
    for root in share.roots() {
        assert_eq!(get(&root, "/pipe").code, 404);
        assert_eq!(get(&root, "/socket").code, 404);
        assert_eq!(links(get(&root, "/").text()), ["a"]);
    }
}

#[test]
fn a_folder_that_is_gone_is_503_until_it_is_back() {
    let share = Share::with(&[("a", b"hello")]);
    let root = share.root();
    let away = share.0.join("away");
    fs::rename(share.path(""), &away).unwrap();
    assert_eq!(get(&root, "/a").code, 503);
    fs::rename(&away, share.path("")).unwrap();
    assert_eq!(get(&root, "/a").code, 200);
}

#[test]
fn the_error_for_a_root_that_is_not_a_folder_names_it() {
    let share = Share::with(&[("a", b"hello")]);
    for (name, hint) in [("a", "folder that holds the file"), ("none", "create it")] {
        let path = share.path(name);
        let error = FolderRoot::open(&path, false).unwrap_err().to_string();
        assert!(
            error.contains(path.to_str().unwrap()) && error.contains(hint),
            "{error}"
        );
    }
}

#[test]
fn a_waiting_connection_holds_no_buffer() {
    let share = Share::new();
    let (_near, far) = block_on(async { UnixStream::pair().unwrap() });
    let root = share.root();
    let waiting = serve(&root, far, FileVisitor::default());
    let size = std::mem::size_of_val(&waiting);
    assert!(size < 2048, "{size} bytes");
}

/// Pieces of targets that have led out of other servers' folders.
fn nasty_target() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/",
        "//",
        "..",
        ".",
        "%2e",
        "%2E%2e",
        "%2f",
        "\\",
        "%5c",
        "%00",
        "%c0%ae",
        "%c0%af",
        "%",
        "%zz",
        "a",
        "b.txt",
        "out",
        "up",
        "top",
        "magic",
        "here",
        "loop",
        "out-folder",
        "in-folder",
        "secret.txt",
        "private",
        "shared",
        "etc/passwd",
        "?",
        "#",
        ";",
        ":",
        "~",
        "\u{ff0e}",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

fn reveals_nothing(all: &[u8]) -> bool {
    !all.windows(SECRET.len()).any(|bytes| bytes == SECRET)
        && !all.windows(5).any(|bytes| bytes == b"root:")
        && !all.windows(8).any(|bytes| bytes == b"private/")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_target_reaches_outside_the_folder(
        targets in prop::collection::vec(nasty_target(), 40),
    ) {
        let share = share_of_links();
        let mut all = String::new();
        for target in &targets {
            all += &format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        }
        for root in share.roots() {
            let replies = replies(&root, all.as_bytes());
            prop_assert_eq!(replies.len(), targets.len());
            for (reply, target) in replies.iter().zip(&targets) {
                prop_assert!(matches!(reply.code, 200 | 301 | 400 | 404), "{} {}", reply.code, target);
                prop_assert!(reveals_nothing(&reply.body), "{}", target);
            }
        }
    }

    #[test]
    fn any_bytes_get_well_formed_responses(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        start in prop::sample::select(vec!["", "GET /", "GET / HTTP/1.1\r\nHost: x\r\n", "\r\n"]),
    ) {
        bytes.splice(..0, start.bytes());
        bytes.extend_from_slice(b"\r\n\r\n");
        let share = share_of_links();
        let all = exchange(&share.root(), &bytes);
        prop_assert!(reveals_nothing(&all));
        prop_assert!(all.is_empty() || all.starts_with(b"HTTP/1.1 "));
    }
}
