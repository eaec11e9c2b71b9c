//! A gt with a page, and calls of its API.

#![allow(dead_code)]

use crate::common::eventually;
use crate::common::gt::Gt;
use crate::common::password;
use crate::common::process::run;
use crate::common::scratch::Scratch;
use crate::common::visitor::{ask, Answer};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The header line of the name and the password `admin:secret`.
pub const BASIC: &str = "Authorization: Basic YWRtaW46c2VjcmV0\r\n";

/// Returns the line of a file with the hash of the password `secret`.
pub fn password_line() -> &'static str {
    static LINE: OnceLock<String> = OnceLock::new();
    LINE.get_or_init(|| {
        let hash = password::hash("a", "secret");
        format!("password: {}\n", hash.split_once(':').expect("a hash").1)
    })
}

/// A gt of files, with a page.
pub struct Paged {
    // The fields are dropped in this order.
    pub gt: Gt,
    pub scratch: Scratch,
    pub addr: SocketAddr,
    is_tls: bool,
}

impl Paged {
    /// Starts gt with this file, and the option webAddr in it.
    pub fn start(text: &str) -> Paged {
        Paged::of_files(&[("gt.yaml", text)])
    }

    /// Starts gt with a directory of files.
    pub fn of_files(files: &[(&str, &str)]) -> Paged {
        let scratch = Scratch::new();
        for (name, text) in files {
            scratch.file(name, text);
        }
        let path = match files {
            [(name, _)] => scratch.join(name),
            _ => scratch.path().to_owned(),
        };
        let mut gt = Gt::start("gt", &[], &format!("-config {}", path.display()));
        let addr = gt.web_addr();
        let is_tls = files.iter().any(|(_, text)| text.contains("webCertFile"));
        Paged {
            gt,
            scratch,
            addr,
            is_tls,
        }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    pub fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).expect("a file")
    }

    /// Returns the end of the last link in the log.
    pub fn link(&mut self) -> String {
        self.gt.wait_for("#link=");
        let line = self.gt.lines_with("#link=").pop().expect("a link");
        let (_, rest) = line.split_once("#link=").expect("a link");
        rest.split(' ').next().expect("a link").to_owned()
    }

    /// Sends a request with these further header lines.
    pub fn send(&self, method: &str, path: &str, fields: &str, body: &str) -> Answer {
        assert!(!self.is_tls, "curl has TLS");
        send(self.addr, method, path, fields, body)
    }

    /// Calls the API with the password, and returns the status and the answer.
    pub fn call(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let answer = self.send(method, path, BASIC, body);
        let value = serde_json::from_slice(&answer.body);
        (
            answer.status,
            value.unwrap_or_else(|e| panic!("{path}: {e}: {}", answer.text())),
        )
    }

    /// Calls the API with the password; it must succeed.
    pub fn get(&self, path: &str) -> Value {
        let (status, value) = self.call("GET", path, "");
        assert_eq!(status, 200, "{path}: {value}");
        value
    }

    /// Calls the API with the password to change something; it must succeed.
    pub fn change(&self, method: &str, path: &str, body: &str) -> Value {
        let (status, value) = self.call(method, path, body);
        assert_eq!(status, 200, "{method} {path}: {value}");
        assert_eq!(
            value["reloadError"],
            Value::Null,
            "{method} {path}: {value}"
        );
        value
    }

    /// Signs in by the link in the log.
    pub fn sign_in(&mut self) -> Signed {
        let body = format!("{{\"link\": \"{}\"}}", self.link());
        let answer = self.send("POST", "/api/login", "", &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        Signed::of(&answer)
    }

    /// Waits until the page answers a call as it should.
    pub fn wait_for(&self, what: &str, path: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || {
            let (status, value) = self.call("GET", path, "");
            (status == 200 && is_it(&value)).then_some(value)
        })
    }
}

/// A session: its cookie and token.
pub struct Signed {
    pub cookie: String,
    pub csrf: String,
}

impl Signed {
    pub fn of(answer: &Answer) -> Signed {
        let lines = answer.head.lines();
        let mut cookie = lines.filter_map(|line| line.strip_prefix("Set-Cookie: "));
        let cookie = cookie.next_back().expect("a cookie");
        let value: Value = serde_json::from_slice(&answer.body).expect("JSON");
        Signed {
            cookie: cookie.split(';').next().expect("a cookie").to_owned(),
            csrf: value["csrf"].as_str().expect("a token").to_owned(),
        }
    }

    /// Returns the header lines of a request of the page itself.
    pub fn fields(&self) -> String {
        format!("{}X-CSRF-Token: {}\r\n", self.cookie_field(), self.csrf)
    }

    pub fn cookie_field(&self) -> String {
        format!("Cookie: a=b; {}; c=d\r\n", self.cookie)
    }
}

/// Sends a request to a page.
pub fn send(addr: SocketAddr, method: &str, path: &str, fields: &str, body: &str) -> Answer {
    let kind = match body {
        "" => "",
        _ => "Content-Type: application/json\r\n",
    };
    let host = match fields.contains("Host: ") {
        true => String::new(),
        false => format!("Host: {addr}\r\n"),
    };
    ask(
        addr,
        &format!(
            "{method} {path} HTTP/1.1\r\n{host}Connection: close\r\n{kind}{fields}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    )
}

/// Returns what curl prints.
pub fn curl(arguments: &[&str]) -> String {
    let mut command = std::process::Command::new("curl");
    let output = run(command.args(["-sS", "--max-time", "30"]).args(arguments));
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
