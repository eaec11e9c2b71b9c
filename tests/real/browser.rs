//! Chromium as the peer of a client through a real server, and etc/p2p.html in it.

use crate::common::chromium::Chromium;
use crate::common::gt::{client_of_id1, server_of_id1, Gt};
use crate::common::samples::{sha256, Random};
use crate::common::scratch::Scratch;
use crate::common::service::{self, Service};
use crate::common::{eventually, nginx};
use serde_json::{json, Value};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

const MIB: usize = 1 << 20;

/// A server with STUN, and a client with peers and these services.
struct Ends {
    // The fields are dropped in this order.
    client: Gt,
    _server: Gt,
    addr: SocketAddr,
    /// The client's command line.
    line: String,
}

impl Ends {
    fn start(services: &str) -> Ends {
        let mut server = server_of_id1("-stunAddr 127.0.0.1:0 -hostNumber 2");
        let (addr, stun) = (server.addr(), server.stun_addr());
        let line = format!("-remoteSTUN stun:{stun} -logLevel debug {services}");
        Ends {
            client: client_of_id1(addr, &line),
            _server: server,
            addr,
            line,
        }
    }

    /// Returns the URL of a page of the first service. Names below `localhost` are this machine,
    /// and as trusted as HTTPS.
    fn url(&self, path: &str) -> String {
        format!("http://id1.localhost:{}{path}", self.addr.port())
    }

    /// Starts Chromium with a page of the service, of which only the origin is used.
    fn browser(&self) -> Chromium {
        let chromium = Chromium::start();
        chromium.open(&self.url("/"));
        chromium
    }

    fn restart_client(&mut self) {
        self.client.kill();
        self.client = client_of_id1(self.addr, &self.line);
    }
}

fn run(chromium: &Chromium, script: &str, args: Value) -> Value {
    let script = format!("{}\n{script}", include_str!("browser.js"));
    chromium.run(&script, args)
}

/// Creates a folder with these files of random bytes.
fn files(sizes: &[(&str, usize)]) -> Scratch {
    let folder = Scratch::new();
    for (seed, &(name, size)) in (1..).zip(sizes) {
        folder.file(name, Random::new(seed).bytes(size));
    }
    folder.file("index.html", "<title>the service</title>");
    folder
}

fn assert_got(got: &Value, path: &Path) {
    let length = std::fs::metadata(path).expect("a file").len();
    assert_eq!(got["length"], length, "{path:?}");
    assert_eq!(got["sha256"], sha256(path), "{path:?}");
}

#[test]
fn ten_mebibytes_come_through_a_channel_from_nginx_and_from_files() {
    let nginx = nginx::start(None);
    let folder = files(&[("ten", 10 * MIB)]);
    let ends = Ends::start(&format!(
        "-local file://{} -hostPrefix id1 -local http://{} -hostPrefix web",
        folder.path().display(),
        nginx.http
    ));
    let chromium = ends.browser();
    let got = run(
        &chromium,
        "const p = await peer('gt:id1');
         return [await get(p, 'gt:id1', '/ten'), await get(p, 'gt:web', '/lines')];",
        json!([]),
    );
    assert_got(&got[0], &folder.join("ten"));
    let lines = Scratch::new();
    assert_got(&got[1], &lines.file("lines", nginx::lines()));
}

#[test]
fn twenty_concurrent_channels_get_their_own_bytes() {
    let sizes: Vec<(String, usize)> = (0..20).map(|n| (format!("file{n}"), n * 70_001)).collect();
    let named: Vec<_> = sizes.iter().map(|(n, s)| (n.as_str(), *s)).collect();
    let folder = files(&named);
    let ends = Ends::start(&format!("-local file://{}", folder.path().display()));
    let chromium = ends.browser();
    let got = run(
        &chromium,
        "const p = await peer('any');
         return Promise.all(args[0].map(name => get(p, 'any', '/' + name)));",
        json!([named.iter().map(|(name, _)| name).collect::<Vec<_>>()]),
    );
    for (number, (name, _)) in named.iter().enumerate() {
        assert_got(&got[number], &folder.join(name));
    }
}

/// Sends without end, and counts its connections.
fn endless() -> (Service, Arc<AtomicUsize>) {
    let count = Arc::<AtomicUsize>::default();
    let here = count.clone();
    let service = Service::start(0, move |mut stream| {
        stream.read_exact(&mut [0])?;
        here.fetch_add(1, Ordering::SeqCst);
        while stream.write_all(&[7; 16 * 1024]).is_ok() {}
        here.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    });
    (service, count)
}

#[test]
fn a_channel_closed_in_the_middle_ends_its_connection_and_no_other() {
    let (endless, count) = endless();
    let folder = files(&[("one", MIB)]);
    let ends = Ends::start(&format!(
        "-local file://{} -hostPrefix id1 -local http://{} -hostPrefix flood",
        folder.path().display(),
        endless.addr
    ));
    let chromium = ends.browser();
    let got = run(
        &chromium,
        "const p = await peer('gt:id1');
         const cut = () => new Promise((resolve, reject) => {
           const channel = p.pc.createDataChannel('gt:flood');
           let length = 0;
           channel.onopen = () => channel.send('go');
           channel.binaryType = 'arraybuffer';
           channel.onmessage = e => {
             length += e.data.byteLength;
             if (length > 1 << 20) channel.close();
           };
           channel.onerror = e => reject(e.error);
           channel.onclose = () => resolve(length);
         });
         // Channel numbers are reused.
         let cuts = [];
         for (let round = 0; round < 5; round++) {
           cuts = cuts.concat(await Promise.all([cut(), cut(), cut()]));
         }
         globalThis.kept = p;
         return [cuts, await get(p, 'gt:id1', '/one')];",
        json!([]),
    );
    for cut in got[0].as_array().expect("lengths") {
        assert!(cut.as_u64() > Some(MIB as u64), "{got}");
    }
    assert_got(&got[1], &folder.join("one"));
    eventually("the connections to the service to end", || {
        (count.load(Ordering::SeqCst) == 0).then_some(())
    });
    // The peer is still connected.
    let again = run(
        &chromium,
        "return get(globalThis.kept, 'gt:id1', '/one');",
        json!([]),
    );
    assert_got(&again, &folder.join("one"));
}

#[test]
fn a_browser_reconnects_after_either_end_was_closed() {
    let folder = files(&[("one", MIB)]);
    let mut ends = Ends::start(&format!("-local file://{}", folder.path().display()));
    let chromium = ends.browser();
    let script = "const p = await peer('');
         const got = await get(p, '', '/one');
         p.pc.close();
         return got;";
    for _ in 0..3 {
        assert_got(&run(&chromium, script, json!([])), &folder.join("one"));
    }
    ends.client.wait_for_gone_peers(3);
    ends.restart_client();
    assert_got(&run(&chromium, script, json!([])), &folder.join("one"));
}

const PAGE: &str = "<title>home</title><h1>the page</h1><script>document.title = 'ran'</script>\
    <img src='dot.svg'><a id=next href='next.html'>next</a>";
const DOT: &str = "<svg xmlns='http://www.w3.org/2000/svg' width='7' height='9'/>";

/// What the page says of a direct connection.
const DIRECT: &str = "Connected directly: ";

/// Creates a service with a page and etc/p2p.html.
fn site() -> Scratch {
    let folder = Scratch::new();
    folder.file("index.html", PAGE);
    folder.file("next.html", "<h1>the next page</h1>");
    folder.file("dot.svg", DOT);
    folder.file("p2p.html", include_str!("../../etc/p2p.html"));
    folder
}

/// Waits until the page reports `state` and shows `heading`.
fn wait_for(chromium: &Chromium, state: &str, heading: &str) {
    let mut last = Value::Null;
    eventually(&format!("{state:?} and {heading:?}"), || {
        let now = chromium.run(
            "return [document.getElementById('state').textContent,
               document.getElementById('view').contentDocument?.querySelector('h1')?.textContent];",
            json!([]),
        );
        if now != last {
            eprintln!("the page says {now}");
            last = now.clone();
        }
        let said = now[0].as_str().unwrap_or_default();
        (said.starts_with(state) && now[1] == heading).then_some(())
    });
}

/// Waits until the page names this way.
fn wait_for_way(chromium: &Chromium, way: &str) {
    eventually(&format!("the way {way:?}"), || {
        let script = "return document.getElementById('way').textContent;";
        let now = chromium.run(script, json!([]));
        now.as_str()?.starts_with(way).then_some(())
    });
}

#[test]
fn the_page_fetches_from_the_service_directly_and_says_so() {
    let folder = site();
    let ends = Ends::start(&format!("-local file://{}", folder.path().display()));
    let chromium = Chromium::start();
    chromium.open(&ends.url("/p2p.html"));
    wait_for(&chromium, DIRECT, "the page");
    wait_for_way(&chromium, "direct, host ↔ ");
    let shown = chromium.run(
        "const page = document.getElementById('view').contentDocument;
         const image = page.querySelector('img');
         await image.decode();
         const shown = [image.width, image.height, page.title];
         page.getElementById('next').click();
         return shown;",
        json!([]),
    );
    // Its image was loaded, and its script did not run.
    assert_eq!(shown, json!([7, 9, "home"]));
    wait_for(&chromium, DIRECT, "the next page");
    // One visitor for the page itself and one for signaling: nothing else came through the server.
    assert_eq!(ends.client.peers(), 1);
}

#[test]
fn the_page_works_from_another_origin_than_the_service() {
    let folder = site();
    let ends = Ends::start(&format!("-local file://{}", folder.path().display()));
    let elsewhere = elsewhere();
    let chromium = Chromium::start();
    chromium.open(&format!(
        "http://{}/?server=http://localhost:{}&prefix=id1&go",
        elsewhere.addr,
        ends.addr.port()
    ));
    wait_for(&chromium, DIRECT, "the page");
    let file = folder.join("p2p.html");
    chromium.open(&format!(
        "file://{}?server=http://localhost:{}&prefix=id1&go",
        file.display(),
        ends.addr.port()
    ));
    wait_for(&chromium, DIRECT, "the page");
}

/// The page at another origin.
fn elsewhere() -> Service {
    Service::start(0, |mut stream| {
        let mut head = [0; 4096];
        let _ = stream.read(&mut head)?;
        let page = include_str!("../../etc/p2p.html");
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{page}",
            page.len()
        )
    })
}

#[test]
fn the_page_uses_the_server_without_a_direct_connection() {
    let folder = site();
    let mut server = server_of_id1("");
    let addr = server.addr();
    let _client = client_of_id1(addr, &format!("-local file://{}", folder.path().display()));
    let chromium = Chromium::start();
    chromium.open(&format!("http://id1.localhost:{}/p2p.html", addr.port()));
    let state =
        "Through the server: the client of this service takes no peers, since it has no remoteSTUN";
    wait_for(&chromium, state, "the page");
    wait_for_way(&chromium, "server (relay)");
}

#[test]
fn the_page_shows_what_is_wrong() {
    let ends = Ends::start(&format!("-local http://{}", service::silent().addr));
    let elsewhere = elsewhere();
    let chromium = Chromium::start();
    chromium.open(&format!(
        "http://{}/?server=http://localhost:{}&prefix=nobody&go",
        elsewhere.addr,
        ends.addr.port()
    ));
    let mut said = String::new();
    eventually("the page to say what is wrong", || {
        let now = chromium.run(
            "return document.getElementById('state').textContent;",
            json!([]),
        );
        said = now.as_str().unwrap_or_default().to_owned();
        said.starts_with("No answer. ").then_some(())
    });
    let site = format!("http://nobody.localhost:{}", ends.addr.port());
    assert!(said.contains(&site), "{said}");
}

#[test]
fn the_page_shows_the_progress_of_a_download_and_saves_every_byte() {
    let folder = site();
    folder.file("ten", Random::new(7).bytes(10 * MIB));
    let ends = Ends::start(&format!("-local file://{}", folder.path().display()));
    let chromium = Chromium::start();
    chromium.open(&ends.url("/p2p.html"));
    wait_for(&chromium, DIRECT, "the page");
    let got = chromium.run(
        "const seen = new Set();
         const watch = new MutationObserver(() => {
           const bar = document.querySelector('#downloads progress');
           if (bar) seen.add(`${bar.getAttribute('aria-label')} of ${bar.max}`);
         });
         const list = document.getElementById('downloads');
         watch.observe(list, { childList: true, subtree: true, attributes: true });
         open('/ten');
         let link;
         while (!(link = list.querySelector('a.save'))) await new Promise(next => setTimeout(next, 20));
         const bytes = await (await fetch(link.href)).arrayBuffer();
         const sum = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
         const sha256 = [...sum].map(n => n.toString(16).padStart(2, '0')).join('');
         const words = list.textContent;
         return { seen: [...seen], name: link.download, words, length: bytes.byteLength, sha256 };",
        json!([]),
    );
    assert_eq!(got["seen"], json!([format!("ten of {}", 10 * MIB)]));
    assert_eq!(got["name"], "ten");
    assert_eq!(got["words"], "ten10.5\u{a0}MB, savedSave");
    assert_got(&got, &folder.join("ten"));
    assert_eq!(ends.client.peers(), 1);
}

#[test]
fn a_cancelled_download_ends_its_connection() {
    let count = Arc::<AtomicUsize>::default();
    let here = count.clone();
    // A page, and for every other request an endless file.
    let service = Service::start(0, move |mut stream| {
        let mut head = [0; 4096];
        let length = stream.read(&mut head)?;
        if !head[..length].starts_with(b"GET /endless ") {
            let page = include_str!("../../etc/p2p.html");
            return write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n{page}"
            );
        }
        here.fetch_add(1, Ordering::SeqCst);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\n\r\n")?;
        while stream.write_all(&[7; 16 * 1024]).is_ok() {}
        here.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    });
    let ends = Ends::start(&format!("-local http://{}", service.addr));
    let chromium = Chromium::start();
    chromium.open(&ends.url("/p2p.html"));
    let words = chromium.run(
        "const list = document.getElementById('downloads');
         const until = async check => {
           while (!check()) await new Promise(next => setTimeout(next, 20));
         };
         await until(() => document.body.dataset.state === 'direct');
         open('/endless');
         await until(() => list.querySelector('button'));
         list.querySelector('button').click();
         await until(() => !list.querySelector('progress'));
         return list.textContent;",
        json!([]),
    );
    let words = words.as_str().expect("words");
    assert!(words.ends_with(", stopped: cancelled"), "{words}");
    eventually("the connection to the service to end", || {
        (count.load(Ordering::SeqCst) == 0).then_some(())
    });
}

#[test]
fn the_page_reads_answers_in_pieces_of_any_size() {
    let folder = site();
    let file = folder.join("p2p.html");
    let chromium = Chromium::start();
    chromium.open(&format!("file://{}", file.display()));
    let got = chromium.run(
        r#"const read = (bytes, piece) => {
             const got = { body: "", ended: 0 };
             const on = {
               head: head => { got.status = head.status; got.length = head.length; },
               body: part => { got.body += new TextDecoder().decode(part); },
               end: () => { got.ended++; },
             };
             const answer = parser(on);
             try {
               for (let at = 0; at < bytes.length; at += piece) answer.take(bytes.subarray(at, at + piece));
               answer.close();
             } catch (e) { return e.message; }
             return JSON.stringify(got);
           };
           return args[0].map(text => {
             const bytes = new TextEncoder().encode(text), all = new Set();
             for (let piece = 1; piece <= bytes.length; piece++) all.add(read(bytes, piece));
             return [...all];
           });"#,
        json!([[
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nA: b\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n",
            "HTTP/1.1 200 OK\r\nContent",
            "SSH-2.0-server\r\n",
        ]]),
    );
    let whole = |status, length: Value, body: &str| {
        json!([format!(
            "{{\"body\":\"{body}\",\"ended\":1,\"status\":{status},\"length\":{length}}}"
        )])
    };
    let cut = json!(["the answer ended too early"]);
    let malformed = json!(["the answer is malformed"]);
    let expected = [
        whole(200, json!(5), "hello"),
        whole(404, json!(0), ""),
        whole(200, Value::Null, "hello"),
        whole(200, Value::Null, "hello"),
        cut.clone(),
        cut.clone(),
        malformed.clone(),
        cut,
        malformed,
    ];
    assert_eq!(got, json!(expected));
}

#[test]
fn the_page_is_usable_on_a_phone_by_keyboard_and_in_two_languages() {
    let folder = site();
    let file = folder.join("p2p.html");
    for (language, state) in [("en-GB", "Not connected. "), ("zh-CN", "未连接。")] {
        let chromium = Chromium::with(&[format!("--accept-lang={language}")]);
        chromium.set_screen(360, 740);
        chromium.open(&format!("file://{}", file.display()));
        let got = chromium.run(
            "const inputs = [...document.querySelectorAll('input')];
             const names = inputs.map(input => input.labels[0]?.textContent.trim());
             const others = [...document.querySelectorAll('button, summary, iframe[title], ul')];
             const unnamed = others.filter(e =>
               !(e.getAttribute('aria-label') || e.title || e.textContent.trim()));
             return {
               state: document.getElementById('state').textContent,
               lang: document.documentElement.lang,
               width: document.documentElement.scrollWidth,
               // An input is as tall as a finger needs.
               low: inputs.filter(input => input.getBoundingClientRect().height < 44).length,
               named: names.filter(Boolean).length === 4 && !unnamed.length,
               unreachable: document.querySelectorAll('[tabindex=\"-1\"], [onclick]').length,
               untold: Object.keys(TEXTS.en).filter(key => !TEXTS.zh[key]).concat(
                 Object.keys(TEXTS.zh).filter(key => !TEXTS.en[key])),
               unsaid: [...document.querySelectorAll('[data-say], [data-name]')].filter(e =>
                 !TEXTS[language][e.dataset.say || e.dataset.name]).length,
             };",
            json!([]),
        );
        let said = got["state"].as_str().expect("a sentence");
        assert!(said.starts_with(state), "{said}");
        assert_eq!(&got["lang"], &language.replace("en-GB", "en"));
        assert_eq!((&got["width"], &got["low"]), (&json!(360), &json!(0)));
        assert_eq!(got["named"], true, "{got}");
        assert_eq!(got["unreachable"], 0);
        assert_eq!(got["untold"], json!([]));
        assert_eq!(got["unsaid"], 0);
    }
}
