//! A client that behaves as the original does in GT/1, written from docs/gt1.md: it reads each frame under
//! one deadline, takes the signal *reconnect* for garbage, sends at most 4096 bytes a frame, ends both
//! directions of a stream at once, and connects again five seconds after its tunnel has ended.

use crate::referee::{Referee, Scope};
use crate::service;
use async_std::channel::{self, Receiver, Sender};
use gt::net::{dial, timeout, Conn};
use gt::sim::{self, HostId, ProcessId};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Half of the original's remoteTimeout.
const DEADLINE: Duration = Duration::from_secs(5);
/// Number of unanswered pings after which the original closes a tunnel.
const MAX_PINGS: u32 = 3;
/// The original's reconnectDelay.
const DELAY: Duration = Duration::from_secs(5);
const FRAME: usize = 4096;

const PING: u32 = 0xFFFF_FFFF;
const CLOSE: u32 = 0xFFFF_FFFE;
const READY: u32 = 0xFFFF_FFFD;
const ERROR: u32 = 0xFFFF_FFFC;
const INFO: u32 = 0xFFFF_FFFB;
const SERVICES: u32 = 0xFFFF_FFFA;
const FIRST_SIGNAL: u32 = 0xFFFF_F447;

/// An original client on a host.
#[derive(Clone)]
pub struct Original(Arc<Installed>);

struct Installed {
    client: usize,
    server: usize,
    host: HostId,
    /// The server's address and port.
    remote: (String, u16),
    /// The TCP port that it asks for.
    port: u16,
    tunnels: u64,
    referee: Referee,
    process: Mutex<Option<ProcessId>>,
}

/// One tunnel.
struct Tunnel {
    conn: Conn,
    /// Frames to send, in order.
    frames: Sender<Vec<u8>>,
    state: Mutex<TunnelState>,
}

#[derive(Default)]
struct TunnelState {
    /// Bytes for each stream's service; none for the end.
    streams: BTreeMap<u32, Sender<Vec<u8>>>,
    is_closing: bool,
}

fn corrupt<T>(what: impl Into<String>) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, what.into()))
}

impl Original {
    pub fn start(
        (client, server): (usize, usize),
        host: HostId,
        remote: (String, u16),
        port: u16,
        tunnels: u64,
        referee: Referee,
    ) -> Self {
        let installed = Installed {
            client,
            server,
            host,
            remote,
            port,
            tunnels,
            referee,
            process: Mutex::new(None),
        };
        let original = Self(Arc::new(installed));
        original.start_process();
        original
    }

    pub fn host(&self) -> HostId {
        self.0.host
    }

    pub fn process(&self) -> Option<ProcessId> {
        *self.0.process.lock().unwrap()
    }

    /// Kills the process and starts another one after a pause.
    pub async fn kill_and_start(&self, pause: Duration) {
        if let Some(process) = self.process() {
            sim::kill(process);
        }
        sim::pass(pause).await;
        let runs = self
            .process()
            .is_some_and(|id| sim::exit_status(id).is_none());
        if !runs {
            self.start_process();
        }
    }

    fn start_process(&self) {
        let process = sim::process(self.0.host, &format!("original{}", self.0.client));
        *self.0.process.lock().unwrap() = Some(process);
        for _ in 0..self.0.tunnels {
            let original = self.clone();
            sim::spawn(process, async move {
                loop {
                    let ended = original.run_tunnel(process).await;
                    sim::trace(format_args!("the tunnel has ended: {:?}", ended.err()));
                    sim::pass(DELAY).await;
                }
            });
        }
    }

    async fn run_tunnel(&self, process: ProcessId) -> io::Result<()> {
        let (host, port) = &self.0.remote;
        let conn = Conn::from(dial(host, *port, DEADLINE).await?);
        let (frames, outgoing) = channel::unbounded();
        let tunnel = Arc::new(Tunnel {
            conn,
            frames,
            state: Mutex::default(),
        });
        let sending = tunnel.clone();
        sim::spawn(process, async move {
            while let Ok(frame) = outgoing.recv().await {
                if frame.is_empty() || sending.conn.write_all(&frame).await.is_err() {
                    break;
                }
            }
            let _ = std::future::poll_fn(|cx| sending.conn.poll_shutdown(cx)).await;
        });
        tunnel.send(self.hello());
        let ended = loop {
            if let Err(e) = self.frame(&tunnel, process).await {
                break e;
            }
        };
        tunnel.state.lock().unwrap().streams.clear();
        tunnel.frames.close();
        if ended.kind() == io::ErrorKind::InvalidData {
            self.0
                .referee
                .fault(format!("client{}: {ended}", self.0.client));
        }
        Err(ended)
    }

    fn hello(&self) -> Vec<u8> {
        let mut hello = vec![0xF0, 1];
        for text in [format!("c{}", self.0.client), format!("s{}", self.0.client)] {
            hello.push(text.len() as u8);
            hello.extend_from_slice(text.as_bytes());
        }
        // Its id as an HTTP prefix, and a TCP port.
        hello.extend_from_slice(&[2, 0, 1, 0]);
        hello.extend_from_slice(&self.0.port.to_be_bytes());
        hello
    }

    /// Reads one frame and handles it. An error ends the tunnel.
    async fn frame(&self, tunnel: &Arc<Tunnel>, process: ProcessId) -> io::Result<()> {
        let mut head = [0; 4];
        let mut pings = 0;
        while !matches!(
            timeout(DEADLINE, tunnel.read(&mut head[..1]))
                .await
                .transpose()?,
            Some(())
        ) {
            pings += 1;
            if pings > MAX_PINGS {
                return Err(io::ErrorKind::TimedOut.into());
            }
            tunnel.send(PING.to_be_bytes().to_vec());
        }
        let began = sim::elapsed();
        match timeout(DEADLINE, self.rest(tunnel, process, head)).await {
            Some(result) => result,
            None => {
                let scopes = [Scope::Server(self.0.server), Scope::Client(self.0.client)];
                let what = format!("the original client{} waited for a frame", self.0.client);
                self.0.referee.check(&what, &scopes, began);
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    async fn rest(
        &self,
        tunnel: &Arc<Tunnel>,
        process: ProcessId,
        mut head: [u8; 4],
    ) -> io::Result<()> {
        tunnel.read(&mut head[1..]).await?;
        let number = u32::from_be_bytes(head);
        match number {
            PING | READY | SERVICES => Ok(()),
            CLOSE => tunnel.close(),
            ERROR => {
                let mut code = [0; 2];
                tunnel.read(&mut code).await?;
                Err(io::Error::other(format!("refused with code {}", code[1])))
            }
            INFO => tunnel.read(&mut [0; 6]).await,
            FIRST_SIGNAL.. => corrupt(format!("the unknown signal {number:X}")),
            _ => {
                let mut operation = [0; 2];
                tunnel.read(&mut operation).await?;
                match operation {
                    [0, 0] => {
                        let bytes = tunnel.block().await?;
                        tunnel.deliver(number, bytes);
                        Ok(())
                    }
                    [0, 1] => {
                        tunnel.end(number, false);
                        Ok(())
                    }
                    [0, 2] => {
                        let mut service = [0; 2];
                        tunnel.read(&mut service).await?;
                        let bytes = tunnel.block().await?;
                        tunnel.begin(number, service, process)?;
                        tunnel.deliver(number, bytes);
                        Ok(())
                    }
                    _ => corrupt("an unknown operation"),
                }
            }
        }
    }
}

impl Tunnel {
    fn send(&self, frame: Vec<u8>) {
        // Fails when the tunnel has ended.
        let _ = self.frames.try_send(frame);
    }

    async fn read(&self, buf: &mut [u8]) -> io::Result<()> {
        let mut at = 0;
        while at < buf.len() {
            match self.conn.read(&mut buf[at..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => at += count,
            }
        }
        Ok(())
    }

    async fn block(&self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.read(&mut length).await?;
        let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
        self.read(&mut bytes).await?;
        Ok(bytes)
    }

    /// Handles *close*: no new streams come, and open ones may finish.
    fn close(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        if std::mem::replace(&mut state.is_closing, true) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.send(CLOSE.to_be_bytes().to_vec());
        self.finish_if_idle(&state);
        Ok(())
    }

    fn finish_if_idle(&self, state: &TunnelState) {
        if state.is_closing && state.streams.is_empty() {
            self.send([CLOSE.to_be_bytes(), CLOSE.to_be_bytes()].concat());
            self.send(Vec::new());
        }
    }

    fn begin(
        self: &Arc<Self>,
        number: u32,
        service: [u8; 2],
        process: ProcessId,
    ) -> io::Result<()> {
        let port = match service {
            [0, 0] => service::HTTP,
            [0, 1] => service::TCP,
            _ => return corrupt(format!("a stream for the service {service:?}")),
        };
        let (sender, bytes) = channel::unbounded();
        let mut state = self.state.lock().unwrap();
        if state.streams.insert(number, sender).is_some() {
            return corrupt("a stream begins twice");
        }
        drop(state);
        let tunnel = self.clone();
        sim::spawn(process, async move {
            tunnel.serve(number, port, bytes, process).await;
            tunnel.end(number, true);
        });
        Ok(())
    }

    /// Passes the bytes of a stream to its service and back.
    async fn serve(&self, number: u32, port: u16, bytes: Receiver<Vec<u8>>, process: ProcessId) {
        let Ok(socket) = dial("127.0.0.1", port, DEADLINE).await else {
            return;
        };
        let conn = Arc::new(Conn::from(socket));
        let to_service = conn.clone();
        sim::spawn(process, async move {
            while let Ok(piece) = bytes.recv().await {
                if to_service.write_all(&piece).await.is_err() {
                    break;
                }
            }
            let _ = std::future::poll_fn(|cx| to_service.poll_shutdown(cx)).await;
        });
        let mut buf = vec![0; FRAME];
        while let Ok(count @ 1..) = conn.read(&mut buf).await {
            let mut frame = number.to_be_bytes().to_vec();
            frame.extend_from_slice(&[0, 0]);
            frame.extend_from_slice(&(count as u32).to_be_bytes());
            frame.extend_from_slice(&buf[..count]);
            self.send(frame);
        }
    }

    /// Delivers bytes to a stream; those of an unknown one are dropped.
    fn deliver(&self, number: u32, bytes: Vec<u8>) {
        let state = self.state.lock().unwrap();
        if let Some(stream) = state.streams.get(&number) {
            let _ = stream.try_send(bytes);
        }
    }

    /// Ends a stream for the service or the server.
    fn end(&self, number: u32, by_service: bool) {
        let mut state = self.state.lock().unwrap();
        if state.streams.remove(&number).is_some() {
            if by_service {
                let mut frame = number.to_be_bytes().to_vec();
                frame.extend_from_slice(&[0, 1]);
                self.send(frame);
            }
            self.finish_if_idle(&state);
        }
    }
}
