//! A Sentry server that keeps what it receives.

use super::eventually;
use super::service::Service;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

pub struct Sentry {
    service: Service,
    connections: Arc<AtomicUsize>,
    /// Requests, head and body together.
    requests: Arc<Mutex<Vec<String>>>,
}

pub fn start() -> Sentry {
    let (connections, requests) = (Arc::default(), Arc::new(Mutex::new(Vec::new())));
    let (counted, kept): (Arc<AtomicUsize>, _) = (connections, requests);
    let (connections, requests) = (counted.clone(), kept.clone());
    let service = Service::start(0, move |mut stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let (mut head, mut length) = (String::new(), 0);
            while !head.ends_with("\r\n\r\n") {
                let begun = head.len();
                if reader.read_line(&mut head)? == 0 {
                    return Ok(());
                }
                let line = head[begun..].to_ascii_lowercase();
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a length");
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            let request = head + &String::from_utf8_lossy(&body);
            kept.lock().unwrap().push(request);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")?;
        }
    });
    Sentry {
        service,
        connections,
        requests,
    }
}

impl Sentry {
    pub fn dsn(&self) -> String {
        format!("http://dsnkey@{}/42", self.service.addr)
    }

    /// Returns how many connections there have been.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// Waits for an event that contains `text`.
    pub fn wait_for(&self, text: &str) -> String {
        eventually(&format!("an event with {text:?}"), || {
            self.requests().into_iter().find(|it| it.contains(text))
        })
    }
}
