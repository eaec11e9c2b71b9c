//! An end whose configuration is a file that tests change.

use super::gt::{client, server, Gt, Successor};
use super::scratch::Scratch;
use std::net::SocketAddr;

/// A service behind gt with a file for the end that is tested.
pub struct Filed {
    scratch: Scratch,
    text: Box<dyn Fn(&str) -> String>,
    pub gt: Gt,
}

impl Filed {
    pub fn start(role: &str, text: impl Fn(&str) -> String + 'static, rules: &str) -> Self {
        let scratch = Scratch::new();
        let file = scratch.file("gt.yaml", text(rules));
        let line = format!("-config {}", file.display());
        let gt = match role {
            "server" => server(&line),
            _ => client(&line),
        };
        Self {
            scratch,
            text: Box::new(text),
            gt,
        }
    }

    /// Starts a client whose file has this service, and waits for its tunnel. Rules are added behind
    /// the service.
    pub fn client(remote: SocketAddr, service: String, rules: &str) -> Self {
        let text = move |rules: &str| {
            format!(
                "options: {{remote: \"tcp://{remote}\", id: id1, secret: secret1}}\nservices:\n\
                 - {{{service}{rules}}}\n"
            )
        };
        let mut filed = Self::start("client", text, rules);
        filed.gt.wait_for_tunnel();
        filed
    }

    /// Restarts with other rules, and waits until the new process has taken over.
    pub fn restart(&mut self, rules: &str) -> Successor {
        self.scratch.file("gt.yaml", (self.text)(rules));
        self.gt.restart()
    }

    pub fn reload(&mut self, rules: &str) {
        self.scratch.file("gt.yaml", (self.text)(rules));
        self.gt.reload();
    }
}
