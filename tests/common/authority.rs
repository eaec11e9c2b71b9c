//! An authority (ACME) that the test scripts: it issues certificates without looking at the names, and gives
//! any other answer where the test wants one.

use super::certs::Certs;
use super::process::run_ok;
use super::scratch::Scratch;
use super::service::Service;
use async_tls::pki_types::pem::PemObject;
use async_tls::pki_types::{CertificateDer, PrivateKeyDer};
use async_tls::rustls::crypto::ring::default_provider;
use async_tls::rustls::{ServerConfig, ServerConnection, StreamOwned};
use base64::prelude::{Engine, BASE64_URL_SAFE_NO_PAD};
use serde_json::{json, Value};
use std::fs;
use std::io::{BufRead, BufReader, Read, Result, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{channel, Sender};
use std::sync::{Arc, Mutex};

/// What an authority is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Directory,
    Nonce,
    Account,
    NewOrder,
    Order,
    Authorization,
    Challenge,
    Finalize,
    Certificate,
    Renewal,
}

impl Asked {
    pub const ALL: [Asked; 9] = [
        Asked::Directory,
        Asked::Nonce,
        Asked::Account,
        Asked::NewOrder,
        Asked::Order,
        Asked::Authorization,
        Asked::Challenge,
        Asked::Finalize,
        Asked::Certificate,
    ];

    fn of(path: &str) -> Self {
        match path.split('/').nth(1).unwrap_or_default() {
            "dir" => Self::Directory,
            "nonce" => Self::Nonce,
            "account" => Self::Account,
            "new" => Self::NewOrder,
            "order" => Self::Order,
            "authz" => Self::Authorization,
            "chall" => Self::Challenge,
            "finalize" => Self::Finalize,
            "cert" => Self::Certificate,
            "renewal" => Self::Renewal,
            other => panic!("gt asks for {other}"),
        }
    }
}

/// What the test wants of the authority.
#[derive(Default)]
pub struct Script {
    /// The bytes to answer with, once or each time.
    pub answer: Option<(Asked, Vec<u8>, bool)>,
    /// The request whose answer never comes; the sender is told.
    pub freeze: Option<(Asked, Sender<()>)>,
    /// The days that certificates are valid.
    pub days: u32,
}

pub struct Authority {
    pub addr: SocketAddr,
    script: Arc<Mutex<Script>>,
    state: Arc<State>,
    _service: Service,
}

struct State {
    scratch: Scratch,
    ca: PathBuf,
    ca_key: PathBuf,
    number: AtomicU32,
    asked: Mutex<Vec<Asked>>,
    /// The name of each order, and whether it has been proved, and its certificate.
    orders: Mutex<Vec<(String, bool, Option<String>)>>,
    /// The payloads of new orders.
    placed: Mutex<Vec<Value>>,
}

/// Starts an authority.
pub fn start(certs: &Certs) -> Authority {
    let state = Arc::new(State {
        scratch: Scratch::new(),
        ca: certs.ca.clone(),
        ca_key: certs.ca.with_extension("key"),
        number: AtomicU32::new(0),
        asked: Mutex::default(),
        orders: Mutex::default(),
        placed: Mutex::default(),
    });
    let script = Arc::new(Mutex::new(Script {
        days: 90,
        ..Script::default()
    }));
    let read = |path: &PathBuf| fs::read(path).expect("read PEM");
    let chain = CertificateDer::pem_slice_iter(&read(&certs.cert))
        .collect::<std::result::Result<Vec<_>, _>>()
        .expect("certificates");
    let key = PrivateKeyDer::from_pem_slice(&read(&certs.key)).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    let config = Arc::new(config);
    let service = {
        let (script, state) = (script.clone(), state.clone());
        Service::start(0, move |stream| {
            let port = stream.local_addr()?.port();
            let tls = ServerConnection::new(config.clone()).map_err(std::io::Error::other)?;
            let mut stream = BufReader::new(StreamOwned::new(tls, stream));
            while let Some((path, body)) = read_request(&mut stream)? {
                let asked = Asked::of(&path);
                state.asked.lock().unwrap().push(asked);
                let (answer, freeze) = {
                    let mut script = script.lock().unwrap();
                    let freeze = script.freeze.take_if(|(at, _)| *at == asked);
                    let answer = match &script.answer {
                        Some((at, bytes, again)) if *at == asked => Some((bytes.clone(), *again)),
                        _ => None,
                    };
                    if let Some((_, false)) = &answer {
                        script.answer = None;
                    }
                    (answer, freeze)
                };
                if let Some((_, frozen)) = freeze {
                    let _ = frozen.send(());
                    // Until gt has gone.
                    let _ = stream.read(&mut [0]);
                    return Ok(());
                }
                let bytes = match answer {
                    Some((bytes, _)) => bytes,
                    None => {
                        let days = script.lock().unwrap().days;
                        state.answer(asked, &path, &body, port, days)
                    }
                };
                stream.get_mut().write_all(&bytes)?;
                stream.get_mut().flush()?;
            }
            Ok(())
        })
    };
    Authority {
        addr: service.addr,
        script,
        state,
        _service: service,
    }
}

fn read_request(stream: &mut impl BufRead) -> Result<Option<(String, Vec<u8>)>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Ok(None);
        }
    }
    let length = head
        .lines()
        .find_map(|it| it.strip_prefix("Content-Length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body)?;
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    Ok(Some((path, body)))
}

/// Returns an answer with this status and these fields.
pub fn response(status: &str, fields: &str, body: &str) -> Vec<u8> {
    static NONCE: AtomicU32 = AtomicU32::new(0);
    let nonce = NONCE.fetch_add(1, Ordering::Relaxed);
    format!(
        "HTTP/1.1 {status}\r\nReplay-Nonce: n{nonce}\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Returns an answer with status 200.
pub fn ok(body: &str) -> Vec<u8> {
    response("200 OK", "", body)
}

impl State {
    fn answer(&self, asked: Asked, path: &str, body: &[u8], port: u16, days: u32) -> Vec<u8> {
        let url = |path: &str| format!("https://localhost:{port}/{path}");
        let number: usize = path
            .rsplit('/')
            .next()
            .and_then(|it| it.parse().ok())
            .unwrap_or(0);
        let payload = || -> Value {
            let body: Value = serde_json::from_slice(body).expect("a signed request");
            let payload = BASE64_URL_SAFE_NO_PAD.decode(body["payload"].as_str().unwrap());
            serde_json::from_slice(&payload.unwrap()).unwrap_or_default()
        };
        let mut orders = self.orders.lock().unwrap();
        match asked {
            Asked::Directory => ok(&json!({
                "newNonce": url("nonce"), "newAccount": url("account"), "newOrder": url("new"),
                "renewalInfo": url("renewal"),
            })
            .to_string()),
            Asked::Nonce => response("204 No Content", "", ""),
            Asked::Account => {
                let location = format!("Location: {}\r\n", url("account/1"));
                response("201 Created", &location, r#"{"status": "valid"}"#)
            }
            Asked::NewOrder => {
                let order = payload();
                let name = order["identifiers"][0]["value"]
                    .as_str()
                    .unwrap()
                    .to_owned();
                self.placed.lock().unwrap().push(order);
                orders.push((name, false, None));
                let number = orders.len() - 1;
                let location = format!("Location: {}\r\n", url(&format!("order/{number}")));
                let authorization = url(&format!("authz/{number}"));
                let body = json!({"status": "pending", "authorizations": [authorization]});
                response("201 Created", &location, &body.to_string())
            }
            Asked::Order => {
                let authorization = url(&format!("authz/{number}"));
                ok(&match &orders[number] {
                    (_, false, _) => {
                        json!({"status": "pending", "authorizations": [authorization]})
                    }
                    (_, true, None) => {
                        json!({"status": "ready", "finalize": url(&format!("finalize/{number}"))})
                    }
                    (_, true, Some(_)) => {
                        json!({"status": "valid", "certificate": url(&format!("cert/{number}"))})
                    }
                }
                .to_string())
            }
            Asked::Authorization => {
                let (name, proved, _) = &orders[number];
                let status = if *proved { "valid" } else { "pending" };
                let challenge = url(&format!("chall/{number}"));
                ok(&json!({
                    "status": status, "identifier": {"type": "dns", "value": name},
                    "challenges": [{"type": "tls-alpn-01", "status": "pending", "token": "t0", "url": challenge}],
                })
                .to_string())
            }
            Asked::Challenge => {
                orders[number].1 = true;
                ok("{}")
            }
            Asked::Finalize => {
                let request = payload()["csr"].as_str().unwrap().to_owned();
                let request = BASE64_URL_SAFE_NO_PAD.decode(request).unwrap();
                orders[number].2 = Some(self.issue(&request, days));
                ok(r#"{"status": "processing"}"#)
            }
            Asked::Certificate => ok(orders[number].2.as_deref().unwrap()),
            Asked::Renewal => response("404 Not Found", "", ""),
        }
    }

    /// Signs a request for a certificate.
    fn issue(&self, request: &[u8], days: u32) -> String {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let file = self.scratch.file(&format!("{number}.der"), request);
        let mut openssl = Command::new("openssl");
        openssl.args([
            "x509",
            "-req",
            "-inform",
            "der",
            "-copy_extensions",
            "copyall",
        ]);
        openssl.arg("-in").arg(file).arg("-CA").arg(&self.ca);
        openssl.arg("-CAkey").arg(&self.ca_key);
        let identifier = self
            .scratch
            .file("extensions", "authorityKeyIdentifier=keyid\n");
        openssl.arg("-extfile").arg(identifier);
        openssl.args([
            "-days",
            &days.to_string(),
            "-set_serial",
            &(1000 + number).to_string(),
        ]);
        run_ok(&mut openssl)
    }
}

impl Authority {
    /// Returns the flags of a server that gets certificates for `example.com` here.
    pub fn flags(&self, certs: &Certs) -> String {
        format!(
            "-acmeDomain example.com -acmeDirectory https://localhost:{}/dir -acmeCA {}",
            self.addr.port(),
            certs.ca.display()
        )
    }

    /// Changes what the authority does.
    pub fn script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }

    /// Never answers the next request of this kind; returns what tells of it.
    pub fn freeze(&self, asked: Asked) -> std::sync::mpsc::Receiver<()> {
        let (tell, told) = channel();
        self.script(|script| script.freeze = Some((asked, tell)));
        told
    }

    /// Returns how often gt has asked for this.
    pub fn count(&self, asked: Asked) -> usize {
        let all = self.state.asked.lock().unwrap();
        all.iter().filter(|it| **it == asked).count()
    }

    /// Returns the orders that gt has placed.
    pub fn placed(&self) -> Vec<Value> {
        self.state.placed.lock().unwrap().clone()
    }
}
