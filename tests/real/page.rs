//! The web page in Chromium: what a person does with it. Its pictures are written to target/page, to be looked at.

use crate::common::chromium::Chromium;
use crate::common::eventually;
use crate::common::gt::Gt;
use crate::common::password;
use crate::common::ports::free_port;
use crate::common::scratch::Scratch;
use crate::common::service::{self, assert_echo};
use crate::common::visitor::{connect, get, read_to_end};
use serde_json::{json, Value};
use std::net::SocketAddr;
use std::path::PathBuf;

/// More over the wire would be slow to load.
const MAX_LOADED: u64 = 35 * 1024;

/// A server and a client in one process, with a page.
struct Process {
    // The fields are dropped in this order.
    gt: Gt,
    scratch: Scratch,
    page: SocketAddr,
    visitors: SocketAddr,
}

impl Process {
    fn start(services: &str, more: &str) -> Process {
        let scratch = Scratch::new();
        let (port, hash) = (free_port(), password::hash("a", "secret"));
        let hash = hash.split_once(':').expect("a hash").1;
        scratch.file(
            "server.yaml",
            format!(
                "# the public end\ntype: server\noptions:\n  addr: 127.0.0.1:{port}\n  webAddr: 127.0.0.1:0\n  \
                 hostNumber: 5\n{more}users:\n  # the home\n  home:\n    secret: topsecret\n  office: {{secret: other}}\n\
                 admin: me\npassword: {hash}\n"
            ),
        );
        scratch.file(
            "client.yaml",
            format!(
                "# the end behind NAT\ntype: client\noptions:\n  id: home\n  secret: topsecret\n  \
                 remote: tcp://127.0.0.1:{port}\nservices:\n{services}"
            ),
        );
        let mut gt = Gt::start("gt", &[], &format!("-config {}", scratch.path().display()));
        let page = gt.web_addr();
        gt.wait_for("tunnel started");
        let visitors = ([127, 0, 0, 1], port).into();
        Process {
            gt,
            scratch,
            page,
            visitors,
        }
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.scratch.join(name)).expect("a file")
    }
}

/// A browser with the page.
struct Page {
    chromium: Chromium,
    addr: SocketAddr,
}

impl Page {
    fn open(process: &Process, more: &[String]) -> Page {
        let chromium = Chromium::with(more);
        chromium.set_screen(1280, 800);
        chromium.open(&format!("http://{}/", process.page));
        Page {
            chromium,
            addr: process.page,
        }
    }

    /// Runs a script with `$`, which waits for an element that matches a selector and has a text in it, and `put`,
    /// which types into an input.
    fn run(&self, script: &str, args: Value) -> Value {
        let helpers = "
            const wait = async find => {
              for (let i = 0; i < 500; i++) {
                const it = find();
                if (it) return it;
                await new Promise(done => setTimeout(done, 20));
              }
              throw new Error('waited in vain: ' + find + ' in ' + document.body.innerText);
            };
            const $ = (selector, text) => wait(() =>
              [...document.querySelectorAll(selector)].find(it => !text || it.textContent.includes(text)));
            const put = async (selector, value) => {
              const it = await $(selector);
              it.value = value;
              it.dispatchEvent(new Event('input', { bubbles: true }));
            };
            const label = (text) => wait(() => {
              const it = [...document.querySelectorAll('label')].find(it => it.textContent.startsWith(text));
              return it && it.querySelector('input, select, textarea');
            });
            window.confirm = () => true;";
        self.chromium.run(&format!("{helpers}\n{script}"), args)
    }

    fn sign_in(&self) {
        self.run(
            "(await label('Name')).value = 'me';
             (await label('Password')).value = 'secret';
             (await $('button', 'Sign in')).click();
             await $('h1', 'Overview');",
            json!([]),
        );
    }

    fn go(&self, hash: &str, title: &str) {
        self.run(
            "location.hash = args[0]; await $('h1', args[1]);",
            json!([hash, title]),
        );
    }

    /// Takes pictures of what is shown, on a wide and on a narrow screen. Nothing may be wider than the screen.
    fn picture(&self, name: &str) {
        for width in [1280, 360] {
            self.chromium.set_screen(width, 800);
            let wide = self.run(
                "await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
                 return document.documentElement.scrollWidth;",
                json!([]),
            );
            let file = folder().join(format!("{name}-{width}.png"));
            std::fs::write(&file, self.chromium.screenshot()).expect("write a picture");
            // A scroll bar takes some of the width.
            assert!(
                wide.as_u64() <= Some(width.into()),
                "{name} is wider than the screen: {wide}"
            );
        }
        self.chromium.set_screen(1280, 800);
    }
}

fn folder() -> PathBuf {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/page"));
    std::fs::create_dir_all(&folder).expect("create a folder");
    folder
}

#[test]
fn a_person_signs_in_publishes_a_service_and_visits_it() {
    let (one, two) = (service::http(0, "one"), service::http(0, "two"));
    let process = Process::start(
        &format!("  - local: http://{}\n    hostPrefix: home\n", one.addr),
        "",
    );
    let page = Page::open(&process, &[]);
    page.run("await $('button', 'Sign in');", json!([]));
    page.picture("login");
    page.run(
        "(await label('Name')).value = 'me';
         (await label('Password')).value = 'wrong';
         (await $('button', 'Sign in')).click();
         await $('.bad', 'wrong');",
        json!([]),
    );
    page.sign_in();
    page.run(
        "await $('.sentence', 'Connected to tcp://127.0.0.1');",
        json!([]),
    );
    page.run(
        "await $('.sentence', 'One client is connected.');",
        json!([]),
    );
    page.picture("overview");

    page.go("#/services", "Services");
    page.run(
        "await $('td', args[1]);
         (await label('Local address')).value = args[0];
         (await label('Value')).value = 'second';
         (await $('button', 'Add')).click();
         await $('td', args[0]);
         (await $('button', 'Test')).click();
         await $('#notice', 'answers');
         const buttons = [...document.querySelectorAll('button')].filter(it => it.textContent === 'QR code');
         buttons[1].click();
         await $('svg.qr');",
        json!([format!("http://{}", two.addr), format!("http://{}", one.addr)]),
    );
    page.picture("services");
    eventually("the service to be published", || {
        (get(process.visitors, "second.a", "/").text() == "two / second.a").then_some(())
    });
    let link = page.run(
        "return (await $('td a', 'second.localhost')).href;",
        json!([]),
    );
    page.chromium.open(link.as_str().expect("a link"));
    let shown = page
        .chromium
        .run("return document.body.innerText;", json!([]));
    assert!(
        shown
            .as_str()
            .is_some_and(|text| text.starts_with("two / second.localhost")),
        "{shown}"
    );
    assert!(process
        .text("client.yaml")
        .starts_with("# the end behind NAT\n"));
    // The session goes on.
    page.chromium
        .open(&format!("http://{}/#/services", page.addr));
    page.run("await $('td', 'second.localhost');", json!([]));
}

#[test]
fn a_mistake_in_the_yaml_is_shown_with_its_line_and_not_saved() {
    let one = service::http(0, "one");
    let process = Process::start(&format!("  - local: http://{}\n", one.addr), "");
    let page = Page::open(&process, &[]);
    page.sign_in();
    page.go("#/config", "Configuration");
    let before = process.text("client.yaml");
    let selected = page.run(
        "await wait(() => document.querySelector('textarea').value);
         const choice = await $('select');
         choice.value = [...choice.options].find(it => it.text.includes('client.yaml')).value;
         choice.dispatchEvent(new Event('change'));
         await wait(() => document.querySelector('textarea').value.includes('behind NAT'));
         const text = document.querySelector('textarea');
         if (text.value.includes('topsecret')) throw new Error('a secret');
         text.value = text.value.replace('services:', 'services:\\n  - local: ftp://x');
         (await $('button', 'Save')).click();
         await $('#result', 'line 8');
         return text.value.slice(text.selectionStart, text.selectionEnd);",
        json!([]),
    );
    assert_eq!(selected, json!("  - local: ftp://x"));
    page.picture("config");
    assert_eq!(process.text("client.yaml"), before);
    page.run(
        "const text = document.querySelector('textarea');
         text.value = text.value.replace('ftp://x', 'http://127.0.0.1:1\\n    hostPrefix: third');
         (await $('button', 'Check')).click();
         await $('#result', 'is right');
         (await $('button', 'Save')).click();
         await $('#result', '.bak');",
        json!([]),
    );
    assert!(process.text("client.yaml").contains("secret: topsecret\n"));
    assert!(process.text("client.yaml").contains("hostPrefix: third\n"));
    assert_eq!(process.text("client.yaml.bak"), before);
}

#[test]
fn a_visitor_is_cut_and_gt_reloads_and_restarts_under_the_page() {
    let echo = service::echo();
    let port = free_port();
    let process = Process::start(
        &format!(
            "  - local: tcp://{}\n    remoteTCPPort: {port}\n",
            echo.addr
        ),
        &format!("  tcpNumber: 1\n  tcpRange: {port}\n"),
    );
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    let (mut visitor, mut other) = (connect(to), connect(to));
    assert_echo(&mut visitor, b"1234567");
    assert_echo(&mut other, b"1");
    let page = Page::open(&process, &[]);
    page.sign_in();
    page.go("#/clients", "Clients");
    page.run(
        "await $('td a', 'home'); (await $('input[type=search]')).value;",
        json!([]),
    );
    page.picture("clients");
    for (column, sort) in [("Rate", "rate"), ("Ports", "ports"), ("Way", "way")] {
        page.run(
            "(await $('th button', args[0])).click(); await $('th button', args[0] + ' ↑');
             (await $('th button', args[0])).click(); await $('th button', args[0] + ' ↓');
             const choice = document.querySelector('.narrow select');
             if (choice.value !== '-' + args[1]) throw new Error(choice.value);",
            json!([column, sort]),
        );
    }
    page.run(
        "(await $('td a', 'home')).click(); await $('h1', 'home'); await $('td', '7 B');",
        json!([]),
    );
    page.picture("client");
    page.run(
        "const rows = [...document.querySelectorAll('tr')];
         rows.find(it => it.textContent.includes('7 B')).querySelector('button').click();
         await $('#notice', 'is cut');
         await wait(() => !document.body.innerText.includes('7 B ↓ 7 B') || null);",
        json!([]),
    );
    assert_eq!(read_to_end(&mut visitor), b"");
    assert_echo(&mut other, b"still here");

    page.go("#/users", "Users");
    let secret = page.run(
        "await $('td', 'office');
         (await label('Id')).value = 'boat';
         (await label('Speed limit')).value = '100000';
         (await $('button', 'Add')).click();
         return (await $('code')).textContent;",
        json!([]),
    );
    let secret = secret.as_str().expect("a secret");
    assert!(process.text("server.yaml").contains(&format!(
        "  boat:\n    secret: {secret}\n    speed: 100000\n"
    )));
    page.picture("users");
    for (hash, title) in [
        ("#/certificates", "Certificates"),
        ("#/lockouts", "Lockouts"),
        ("#/bans", "Bans"),
        ("#/log", "Log"),
    ] {
        page.go(hash, title);
        page.run(
            "await wait(() => document.querySelector('main').innerText.length > 20);",
            json!([]),
        );
        page.picture(&title.to_lowercase());
    }

    page.go("#/", "Overview");
    page.run(
        "await $('button', 'Reload');
         (await $('button', 'Reload')).click();
         await $('#notice', 'Reloaded.');
         (await $('button', 'Restart')).click();
         await $('#notice', 'gt has restarted.');
         await $('.sentence', 'One client is connected.');",
        json!([]),
    );
    let log = process.gt.log();
    let (_, rest) = log.rsplit_once("INF process ").expect("a restart");
    let pid = rest.split(' ').next().expect("a number");
    assert_echo(&mut other, b"and after the restart");
    page.go("#/users", "Users");
    page.run("await $('td', 'boat');", json!([]));
    let kill = std::process::Command::new("kill").arg(pid).status();
    assert!(kill.expect("run kill").success());
}

#[test]
fn the_page_is_small_speaks_chinese_and_needs_no_mouse() {
    let one = service::http(0, "one");
    let process = Process::start(&format!("  - local: http://{}\n", one.addr), "");
    let chinese = ["--lang=zh-CN".to_owned(), "--accept-lang=zh-CN".to_owned()];
    let page = Page::open(&process, &chinese);
    let loaded = page.run(
        "await $('button', '登录');
         const all = [...performance.getEntriesByType('resource'), ...performance.getEntriesByType('navigation')];
         const sum = all.reduce((sum, it) => sum + it.transferSize, 0);
         return [sum, Math.round(performance.getEntriesByType('navigation')[0].loadEventEnd), document.documentElement.lang];",
        json!([]),
    );
    println!(
        "the page: {} bytes, loaded after {} ms",
        loaded[0], loaded[1]
    );
    assert!(
        loaded[0].as_u64().is_some_and(|bytes| bytes <= MAX_LOADED),
        "{loaded}"
    );
    assert_eq!(loaded[2], "zh-CN");
    page.run(
        "document.querySelectorAll('input')[0].value = 'me';
         document.querySelectorAll('input')[1].value = 'secret';
         (await $('button', '登录')).click();
         await $('h1', '概览');
         await $('.sentence', '已通过 TCP 连接到');",
        json!([]),
    );
    page.chromium.set_dark(true);
    // Everything that can be used has a name, and can be reached.
    for hash in [
        "#/",
        "#/clients",
        "#/clients/home",
        "#/users",
        "#/certificates",
        "#/services",
        "#/bans",
        "#/lockouts",
        "#/config",
        "#/log",
    ] {
        let nameless = page.run(
            "location.hash = args[0];
             await new Promise(done => setTimeout(done, 500));
             return [...document.querySelectorAll('button, a, input, select, textarea')].filter(it =>
               !(it.textContent.trim() || it.getAttribute('aria-label') || (it.labels && it.labels.length)) || it.tabIndex < 0)
               .map(it => it.outerHTML);",
            json!([hash]),
        );
        assert_eq!(nameless, json!([]), "{hash}");
        let name = hash.trim_matches(['#', '/']).replace('/', "-");
        page.picture(&format!("chinese-dark-{name}"));
    }
    // A tab that is loaded again stays signed in; without what the tab keeps, the cookie signs nobody in.
    page.chromium.open(&format!("http://{}/", page.addr));
    page.run("await $('h1', '概览'); sessionStorage.clear();", json!([]));
    page.chromium.open(&format!("http://{}/#/log", page.addr));
    page.chromium.run("location.reload();", json!([]));
    page.run("await $('button', '登录');", json!([]));
}

#[test]
fn clients_may_have_the_names_of_what_scripts_have() {
    let names = ["constructor", "__proto__"];
    let process = Process::start(
        "  - local: http://127.0.0.1:1\n    hostPrefix: home\n",
        "  allowAnyClient: true\n",
    );
    let remote = format!("tcp://{}", process.visitors);
    let _clients = [("one", names[0]), ("two", names[1])].map(|(prefix, name)| {
        let mut client = Gt::start(
            name,
            &[],
            &format!("client -id {name} -secret s -remote {remote} -local http://127.0.0.1:1 -hostPrefix {prefix}"),
        );
        client.wait_for("tunnel started");
        client
    });
    let page = Page::open(&process, &[]);
    page.sign_in();
    page.go("#/clients", "Clients");
    for name in names {
        page.run("await $('td a', args[0]);", json!([name]));
    }
    let rates = page.run("return window.gtRates();", json!([]));
    assert_eq!(rates.as_array().map(Vec::len), Some(3), "{rates}");
    page.go("#/clients/__proto__", "__proto__");
    page.go("#/constructor", "Overview");
    page.go("#/clients", "Clients");
    page.run(
        "const search = await $('input[type=search]');
         search.value = 'constructor';
         search.dispatchEvent(new Event('input', { bubbles: true }));
         await wait(() => window.gtRates().join() === 'constructor');",
        json!([]),
    );
    page.go("#/clients/%zz", "%zz");
}
