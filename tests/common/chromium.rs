//! A headless Chromium, driven through WebDriver (W3C) by chromedriver.

use super::ports::free_port;
use super::process::Process;
use super::scratch::Scratch;
use super::visitor::{connect, read_answer};
use super::{eventually, PATIENCE};
use serde_json::{json, Value};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;

pub struct Chromium {
    driver: SocketAddr,
    session: String,
    _process: Process,
}

impl Chromium {
    pub fn start() -> Chromium {
        Chromium::with(&[])
    }

    /// Starts it with these arguments besides the usual ones.
    pub fn with(more: &[String]) -> Chromium {
        let port = free_port();
        let scratch = Scratch::new();
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}"));
        // Its profile and crash reports are deleted with the test.
        command.env("TMPDIR", scratch.path());
        command.env("HOME", scratch.path());
        let profile = scratch.dir("profile");
        let mut process = Process::spawn("chromedriver", scratch, &mut command);
        let driver = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        eventually("chromedriver to listen", || {
            let ended = process.has_ended();
            assert!(ended.is_none(), "chromedriver: {}", process.log());
            TcpStream::connect(driver).ok()
        });
        let mut chromium = Chromium {
            driver,
            session: String::new(),
            _process: process,
        };
        let mut args = vec![
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--no-first-run".to_owned(),
            format!("--user-data-dir={}", profile.display()),
        ];
        args.extend_from_slice(more);
        let wanted = json!({"capabilities": {"alwaysMatch": {
            // A page's dialog must not block a test.
            "unhandledPromptBehavior": "dismiss",
            "goog:chromeOptions": {"args": args},
        }}});
        let session = chromium.call("POST", "/session", &wanted);
        let id = session["sessionId"].as_str().expect("a session");
        chromium.session = id.to_owned();
        let limits = json!({"script": 2 * PATIENCE.as_millis() as u64});
        chromium.command("timeouts", &limits);
        chromium
    }

    pub fn open(&self, url: &str) {
        self.command("url", &json!({ "url": url }));
    }

    /// Makes the page as large as the screen of a phone, for example, in CSS pixels.
    pub fn set_screen(&self, width: u32, height: u32) {
        let params = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500,
        });
        let command = json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": params});
        self.command("goog/cdp/execute", &command);
    }

    /// Sets whether pages are to be dark.
    pub fn set_dark(&self, dark: bool) {
        let scheme = if dark { "dark" } else { "light" };
        let params = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        let command = json!({"cmd": "Emulation.setEmulatedMedia", "params": params});
        self.command("goog/cdp/execute", &command);
    }

    /// Returns a picture of the whole page as PNG.
    pub fn screenshot(&self) -> Vec<u8> {
        let params = json!({"format": "png", "captureBeyondViewport": true});
        let command = json!({"cmd": "Page.captureScreenshot", "params": params});
        let answer = self.command("goog/cdp/execute", &command);
        let data = answer["data"].as_str().expect("a picture");
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, data).expect("base64")
    }

    /// Runs the body of an async function in the page and returns its result; an exception fails
    /// the test.
    pub fn run(&self, script: &str, args: Value) -> Value {
        let script = format!(
            "const done = arguments[arguments.length - 1];
             (async args => {{ {script} }})([...arguments].slice(0, -1)).then(
                 value => done({{ value }}), e => done({{ error: String(e) }}));"
        );
        let answer = self.command("execute/async", &json!({"script": script, "args": args}));
        let error = &answer["error"];
        assert!(error.is_null(), "the page: {error}");
        answer["value"].clone()
    }

    fn command(&self, name: &str, body: &Value) -> Value {
        self.call("POST", &format!("/session/{}/{name}", self.session), body)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let mut stream = connect(self.driver);
        // Scripts may take long.
        let limit = Some(4 * PATIENCE);
        stream.set_read_timeout(limit).expect("set a limit");
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("ask chromedriver");
        // The driver always keeps the connection open.
        let answer = read_answer(&mut stream);
        let answer: Value = serde_json::from_slice(&answer.body).expect("an answer in JSON");
        let value = &answer["value"];
        assert!(value["error"].is_null(), "{path}: {value}");
        value.clone()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Killing the driver would leave the browser running.
        if !self.session.is_empty() && TcpStream::connect(self.driver).is_ok() {
            let session = format!("/session/{}", std::mem::take(&mut self.session));
            self.call("DELETE", &session, &json!({}));
        }
    }
}
