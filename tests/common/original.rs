//! A client that behaves as the original does in GT/1, written by hand from docs/gt1.md: it reads
//! each frame under one deadline, takes the signal `reconnect` for garbage, sends 4096 bytes a
//! frame, and reconnects five seconds after its tunnel has ended.

use super::peer::gt1::{closed, data, CLOSE, PING};
use super::visitor::set_limits;
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Result, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Half of the original's remoteTimeout.
const DEADLINE: Duration = Duration::from_secs(5);
/// The original's reconnectDelay.
const DELAY: Duration = Duration::from_secs(5);
const FRAME: usize = 4096;

/// A running client; it ends with the test.
pub struct Original {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    tunnels: usize,
    /// Frames that it could not parse.
    faults: Vec<String>,
}

/// One tunnel, as its threads share it.
struct Tunnel {
    stream: TcpStream,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tasks: HashMap<u32, TcpStream>,
    closing: bool,
}

impl Original {
    /// Connects to `server` with `hello`; all its services are at `service`.
    pub fn start(server: SocketAddr, hello: Vec<u8>, service: SocketAddr) -> Original {
        let shared = Arc::new(Shared::default());
        let running = shared.clone();
        std::thread::spawn(move || {
            while !running.stop.load(Ordering::SeqCst) {
                if let Err(e) = running.run_tunnel(server, &hello, service) {
                    if e.kind() == ErrorKind::InvalidData {
                        running.log.lock().unwrap().faults.push(e.to_string());
                    }
                }
                std::thread::sleep(DELAY);
            }
        });
        Original { shared }
    }

    /// Returns how many tunnels it has had.
    pub fn tunnels(&self) -> usize {
        self.shared.log.lock().unwrap().tunnels
    }

    pub fn assert_understood_all(&self) {
        assert_eq!(self.shared.log.lock().unwrap().faults, [""; 0]);
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

fn corrupt(what: &str) -> std::io::Error {
    std::io::Error::new(ErrorKind::InvalidData, what)
}

impl Shared {
    fn run_tunnel(&self, server: SocketAddr, hello: &[u8], service: SocketAddr) -> Result<()> {
        let stream = TcpStream::connect(server)?;
        set_limits(&stream);
        stream.set_read_timeout(Some(DEADLINE))?;
        let mut input = stream.try_clone()?;
        let tunnel = Arc::new(Tunnel {
            stream,
            state: Mutex::default(),
        });
        tunnel.send(hello)?;
        let result = loop {
            if let Err(e) = self.frame(&tunnel, &mut input, service) {
                break Err(e);
            }
        };
        let _ = tunnel.stream.shutdown(Shutdown::Both);
        for (_, task) in tunnel.state.lock().unwrap().tasks.drain() {
            let _ = task.shutdown(Shutdown::Both);
        }
        result
    }

    /// Reads one frame and handles it. An error ends the tunnel.
    fn frame(
        &self,
        tunnel: &Arc<Tunnel>,
        input: &mut TcpStream,
        service: SocketAddr,
    ) -> Result<()> {
        let mut head = [0; 4];
        while let Err(e) = input.read_exact(&mut head[..1]) {
            match e.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => tunnel.send(&PING)?,
                _ => return Err(e),
            }
        }
        input.read_exact(&mut head[1..])?;
        let task = u32::from_be_bytes(head);
        match task {
            // ping, ready, services
            0xFFFF_FFFF | 0xFFFF_FFFD | 0xFFFF_FFFA => {
                self.log.lock().unwrap().tunnels += usize::from(task == 0xFFFF_FFFD);
                Ok(())
            }
            // close
            0xFFFF_FFFE => tunnel.close(),
            // error, info
            0xFFFF_FFFC => Err(corrupt("an error")),
            0xFFFF_FFFB => input.read_exact(&mut [0; 6]),
            0xFFFF_FFF9 => Err(corrupt("reconnect")),
            0xFFFF_F447.. => Err(corrupt("an unknown signal")),
            _ => {
                let mut op = [0; 2];
                input.read_exact(&mut op)?;
                match op {
                    [0, 0] => {
                        let bytes = block(input)?;
                        tunnel.deliver(task, &bytes);
                        Ok(())
                    }
                    [0, 1] => tunnel.end_task(task, false),
                    [0, 2] => {
                        input.read_exact(&mut [0; 2])?;
                        let bytes = block(input)?;
                        tunnel.clone().begin(task, service)?;
                        tunnel.deliver(task, &bytes);
                        Ok(())
                    }
                    _ => Err(corrupt("an unknown op")),
                }
            }
        }
    }
}

fn block(input: &mut TcpStream) -> Result<Vec<u8>> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let mut bytes = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

impl Tunnel {
    /// Sends whole frames.
    fn send(&self, frames: &[u8]) -> Result<()> {
        // Keeps frames whole.
        let _state = self.state.lock().unwrap();
        (&self.stream).write_all(frames)
    }

    /// Handles close: the server sends no new tasks, and open ones may finish.
    fn close(&self) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        if std::mem::replace(&mut state.closing, true) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        (&self.stream).write_all(&CLOSE)?;
        self.finish_if_idle(&state)
    }

    fn finish_if_idle(&self, state: &State) -> Result<()> {
        if state.closing && state.tasks.is_empty() {
            (&self.stream).write_all(&[CLOSE, CLOSE].concat())?;
            self.stream.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }

    fn begin(self: Arc<Self>, task: u32, service: SocketAddr) -> Result<()> {
        let conn = TcpStream::connect(service)?;
        set_limits(&conn);
        let mut from = conn.try_clone()?;
        let before = self.state.lock().unwrap().tasks.insert(task, conn);
        if before.is_some() {
            return Err(corrupt("a task begins twice"));
        }
        std::thread::spawn(move || {
            let mut bytes = [0; FRAME];
            while let Ok(n @ 1..) = from.read(&mut bytes) {
                if self.send(&data(task, &bytes[..n])).is_err() {
                    break;
                }
            }
            let _ = self.end_task(task, true);
        });
        Ok(())
    }

    /// Delivers bytes to a task; those of an unknown task are dropped.
    fn deliver(&self, task: u32, bytes: &[u8]) {
        let conn = {
            let state = self.state.lock().unwrap();
            let conn = state.tasks.get(&task);
            conn.map(|conn| conn.try_clone().expect("clone a socket"))
        };
        if let Some(mut conn) = conn {
            let _ = conn.write_all(bytes);
        }
    }

    /// Ends a task for the service or the server.
    fn end_task(&self, task: u32, by_service: bool) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        if let Some(conn) = state.tasks.remove(&task) {
            let _ = conn.shutdown(Shutdown::Both);
            if by_service {
                (&self.stream).write_all(&closed(task))?;
            }
            self.finish_if_idle(&state)?;
        }
        Ok(())
    }
}
