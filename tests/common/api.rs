//! A small HTTP server that plays the APIs gt calls. Tests set its responses.

use super::service::Service;
use super::PATIENCE;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::sync::mpsc::{channel, Receiver};
use std::sync::Mutex;

pub struct Api {
    pub addr: SocketAddr,
    requests: Receiver<Request>,
    _service: Service,
}

#[derive(Debug, Clone)]
pub struct Request {
    /// Method and target.
    pub line: String,
    /// The header fields as received.
    pub fields: Vec<String>,
    pub body: String,
}

impl Request {
    /// Returns the value of the header `name`.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find_map(|field| {
            let (field, value) = field.split_once(": ")?;
            field.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// Returns the prefixes in a request to an authAPI.
    pub fn prefixes(&self) -> Vec<String> {
        let body: serde_json::Value = serde_json::from_str(&self.body).expect("a JSON body");
        let list = body["appletTokens"].as_array().expect("a list of prefixes");
        let names = list
            .iter()
            .map(|name| name.as_str().expect("a text").to_owned());
        names.collect()
    }
}

/// Builds a response with this status and body that keeps the connection open.
pub fn answer(status: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// Builds the response of an authAPI.
pub fn judgement(result: bool, prefixes: &[&str]) -> Vec<u8> {
    let json = serde_json::json!({"result": result, "appletTokens": prefixes});
    answer(200, &json.to_string())
}

/// Listens on `port`, any if 0. `say` returns the bytes of each response. The connection stays open
/// unless these say that it closes, or are empty.
pub fn start(port: u16, say: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Api {
    let (tell, requests) = channel();
    let tell = Mutex::new(tell);
    let service = Service::start(port, move |mut stream| {
        let mut input = BufReader::new(stream.try_clone()?);
        while let Some(request) = read(&mut input)? {
            let bytes = say(&request);
            // The test may have stopped listening.
            let _ = tell.lock().unwrap().send(request);
            stream.write_all(&bytes)?;
            let closes = b"Connection: close";
            if bytes.is_empty() || bytes.windows(closes.len()).any(|some| some == closes) {
                break;
            }
        }
        Ok(())
    });
    Api {
        addr: service.addr,
        requests,
        _service: service,
    }
}

fn read(input: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let line = lines.remove(0);
    let mut request = Request {
        line: line.trim_end_matches(" HTTP/1.1").to_owned(),
        fields: lines,
        body: String::new(),
    };
    let length = request.field("content-length");
    let length = length.map_or(0, |length| length.parse().expect("a length"));
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    request.body = String::from_utf8(body).expect("a body of text");
    Ok(Some(request))
}

impl Api {
    /// Waits for the next request; its response may still be on its way.
    pub fn request(&self) -> Request {
        self.requests
            .recv_timeout(PATIENCE)
            .expect("a request to the API")
    }

    /// Returns the number of requests that were not taken yet.
    pub fn more_requests(&self) -> usize {
        self.requests.try_iter().count()
    }
}
