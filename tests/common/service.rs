//! Small services behind a tunnel, each a few lines on threads. Real programs have their own files:
//! nginx, sshd, smbd, websocket.

use super::visitor::{connect, set_limits};
use socket2::{Domain, Socket, Type};
use std::io::{BufRead, BufReader, Read, Result, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, Receiver};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A service that stops listening when it is dropped; its connections go on.
pub struct Service {
    pub addr: SocketAddr,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Service {
    /// Runs `handle` on a thread for each connection; `port` 0 is any.
    pub fn start(
        port: u16,
        handle: impl Fn(TcpStream) -> Result<()> + Send + Sync + 'static,
    ) -> Service {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .unwrap_or_else(|e| panic!("listen on port {port}: {e}"));
        let addr = listener.local_addr().expect("ask for the address");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let handle = Arc::new(handle);
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let handle = handle.clone();
                let stream = stream.expect("accept");
                set_limits(&stream);
                // The other end judges how a connection ends.
                std::thread::spawn(move || handle(stream));
            }
        });
        Service {
            addr,
            stop,
            accepting: Some(accepting),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then ends.
        let _ = TcpStream::connect(self.addr);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

/// Echoes everything.
pub fn echo() -> Service {
    Service::start(0, |mut stream| {
        std::io::copy(&mut stream.try_clone()?, &mut stream)?;
        Ok(())
    })
}

/// Sends `text` first, then echoes.
pub fn banner(text: &'static str) -> Service {
    Service::start(0, move |mut stream| {
        stream.write_all(text.as_bytes())?;
        std::io::copy(&mut stream.try_clone()?, &mut stream)?;
        Ok(())
    })
}

/// Sends `bytes` on each connection and ends its direction.
pub fn source(bytes: Arc<Vec<u8>>) -> Service {
    Service::start(0, move |mut stream| {
        stream.write_all(&bytes)?;
        stream.shutdown(Shutdown::Write)?;
        // Closing with unread bytes would be a reset, which may discard the bytes sent.
        stream.read_to_end(&mut Vec::new())?;
        Ok(())
    })
}

/// Reads each connection to its end, then passes on what came. Each read is acknowledged with a
/// byte: GT/1 has no half-close, and a visitor without any answer is kept for long.
pub fn sink() -> (Service, Receiver<Vec<u8>>) {
    let (report, reports) = channel();
    let report = Mutex::new(report);
    let service = Service::start(0, move |mut stream| {
        let (mut bytes, mut buffer) = (Vec::new(), vec![0; 65536]);
        loop {
            match stream.read(&mut buffer)? {
                0 => break,
                n => bytes.extend_from_slice(&buffer[..n]),
            }
            let _ = stream.write_all(b".");
        }
        let _ = report.lock().unwrap().send(bytes);
        Ok(())
    });
    (service, reports)
}

/// An HTTP request to a service.
pub struct Request {
    pub method: String,
    pub target: String,
    /// In lower case.
    pub host: String,
    /// The request line and the fields, without the empty line.
    pub head: String,
    pub body: Vec<u8>,
}

/// Answers every HTTP request with the body that `answer` returns.
pub fn answering(
    port: u16,
    answer: impl Fn(Request) -> Vec<u8> + Send + Sync + 'static,
) -> Service {
    Service::start(port, move |mut stream| {
        let mut requests = BufReader::new(stream.try_clone()?);
        loop {
            let mut line = String::new();
            if requests.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let mut words = line.split(' ').map(str::to_owned);
            let mut request = Request {
                method: words.next().unwrap_or_default(),
                target: words.next().unwrap_or_else(|| "?".to_owned()),
                host: String::new(),
                head: line.clone(),
                body: Vec::new(),
            };
            let mut close = false;
            loop {
                line.clear();
                requests.read_line(&mut line)?;
                let lower = line.trim_end().to_ascii_lowercase();
                if lower.is_empty() {
                    break;
                }
                request.head.push_str(&line);
                close |= lower == "connection: close";
                if let Some(value) = lower.strip_prefix("host:") {
                    request.host = value.trim().to_owned();
                }
                if let Some(value) = lower.strip_prefix("content-length:") {
                    request.body = vec![0; value.trim().parse().unwrap_or(0)];
                }
            }
            requests.read_exact(&mut request.body)?;
            let body = answer(request);
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            // At once: no visitor of a small answer gets only a part of it.
            stream.write_all(&[head.as_bytes(), &body].concat())?;
            if close {
                return Ok(());
            }
        }
    })
}

/// Answers every HTTP request with `<name> <target> <host>`.
pub fn http(port: u16, name: &'static str) -> Service {
    answering(port, move |request| {
        format!("{name} {} {}", request.target, request.host).into_bytes()
    })
}

/// Accepts connections and sends nothing until the visitor closes.
pub fn silent() -> Service {
    Service::start(0, |mut stream| {
        stream.read_to_end(&mut Vec::new())?;
        Ok(())
    })
}

/// An address whose connections are neither accepted nor refused while this is held.
pub struct Unanswering {
    pub addr: SocketAddr,
    _held: (Socket, Vec<Socket>),
}

pub fn unanswering() -> Unanswering {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    listener.bind(&any.into()).expect("bind");
    listener.listen(0).expect("listen");
    let local = listener.local_addr().expect("ask for the address");
    // The kernel drops further connections once the accept queue is full.
    let waiting = (0..4)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.set_nonblocking(true).expect("not wait");
            let _ = socket.connect(&local);
            socket
        })
        .collect();
    Unanswering {
        addr: local.as_socket().expect("an address"),
        _held: (listener, waiting),
    }
}

/// Checks that `stream` leads to an echo.
pub fn assert_echo(stream: &mut TcpStream, bytes: &[u8]) {
    let mut writer = stream.try_clone().expect("clone a socket");
    std::thread::scope(|scope| {
        scope.spawn(move || writer.write_all(bytes).expect("send to the echo"));
        let mut back = vec![0; bytes.len()];
        stream.read_exact(&mut back).expect("read from the echo");
        assert!(back == bytes, "the echo differs from what was sent");
    });
}

/// Connects to `addr` and checks that it leads to an echo.
pub fn assert_echo_at(addr: SocketAddr) {
    assert_echo(&mut connect(addr), b"anyone there?");
}
