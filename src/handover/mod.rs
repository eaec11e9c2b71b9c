//! One process takes another's place: the running gt starts the program that is installed now,
//! gives it its listening sockets, and makes way when it is ready. See `legacy` for what is
//! given.
//!
//! They talk over a pair of sockets, the new process's standard input, in packets of JSON. A
//! socket travels with the packet that says what it is for.

mod legacy;

pub use legacy::{Legacy, Piece};

use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_timeout, Timeout};
use rustix::net::{
    recvmsg, sendmsg, socketpair, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage,
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

/// Says to a new process that its standard input is its predecessor.
const VARIABLE: &str = "GT_TAKES_OVER";
/// Longest packet; ids, prefixes and secrets have 200 bytes at most, and a byte of a secret takes
/// four in JSON.
const MAX_PACKET: usize = 4096;
/// The other process is on the same machine and has nothing else to do.
const PATIENCE: Duration = Duration::from_secs(10);

/// How to start this program again.
pub struct Program {
    /// The file as it was when this process began; another one may be there now.
    file: PathBuf,
    argv: Vec<OsString>,
}

/// What the new process says to the old one.
#[derive(Serialize, Deserialize)]
pub enum Word {
    /// Its servers serve.
    Listening,
    /// Its clients have their tunnels, or have tried.
    Connected,
    /// It cannot run: a sentence. It ends.
    Failed(String),
}

impl Program {
    /// To be called when the process begins. The error says what the system does not tell.
    pub fn this() -> io::Result<Self> {
        Ok(Self {
            file: std::env::current_exe()?,
            argv: std::env::args_os().collect(),
        })
    }
}

/// The process that takes this one's place.
pub struct Successor {
    child: Child,
    socket: OwnedFd,
}

impl Successor {
    /// Starts it and gives it all pieces. Blocks.
    pub fn start(program: &Program, pieces: &[(Piece, Option<OwnedFd>)]) -> io::Result<Self> {
        let (socket, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
        let mut command = Command::new(&program.file);
        let mut argv = program.argv.iter();
        if let Some(name) = argv.next() {
            command.arg0(name);
        }
        command.args(argv).env(VARIABLE, "1").stdin(theirs);
        let child = command.spawn().map_err(|e| {
            io::Error::new(
                e.kind(),
                format!("starting {}: {e}", program.file.display()),
            )
        })?;
        drop(command);
        let mut successor = Self { child, socket };
        let end = (Piece::End, None);
        for (piece, socket) in pieces.iter().chain([&end]) {
            if let Err(e) = send(&successor.socket, piece, socket.as_ref()) {
                return Err(successor.failed(e));
            }
        }
        Ok(successor)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its next word. The error says why there will be none; then it is gone. Blocks for as long
    /// as `patience`.
    pub fn hear(&mut self, patience: Duration) -> io::Result<Word> {
        let heard = set_socket_timeout(&self.socket, Timeout::Recv, Some(patience))
            .map_err(io::Error::from)
            .and_then(|()| receive(&self.socket));
        match heard {
            Ok((Word::Failed(why), _)) => Err(self.failed(io::Error::other(why))),
            Ok((word, _)) => Ok(word),
            Err(e) => Err(self.failed(e)),
        }
    }

    /// It has not come to anything, or cannot be relied on.
    fn failed(&mut self, e: io::Error) -> io::Error {
        let why = match e.kind() {
            // One that ends by itself is given the time to do so.
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset => match self.child.wait() {
                Ok(status) => format!("the new process has ended: {status}"),
                Err(_) => e.to_string(),
            },
            io::ErrorKind::WouldBlock => "the new process says nothing".to_owned(),
            _ => e.to_string(),
        };
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
        io::Error::other(why)
    }
}

/// A process that is to take another one's place.
pub struct Heir(OwnedFd);

impl Heir {
    /// Finds out whether this process is one, and takes what it is given. To be called once,
    /// first of all.
    pub fn find() -> io::Result<Option<(Self, Legacy)>> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        std::env::remove_var(VARIABLE);
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        // What this process starts, and whoever looks at it, finds nothing special there.
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        let mut legacy = Legacy::default();
        loop {
            match receive(&socket)? {
                (Piece::End, _) => return Ok(Some((Self(socket), legacy))),
                (piece, socket) => legacy.add(piece, socket),
            }
        }
    }

    /// Tells the old process, which may be gone.
    pub fn say(&self, word: &Word) {
        if let Err(e) = send(&self.0, word, None) {
            log::debug!("telling the old process: {e}");
        }
    }
}

fn send(to: &OwnedFd, what: &impl Serialize, socket: Option<&OwnedFd>) -> io::Result<()> {
    let packet = serde_json::to_vec(what)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sockets: Vec<_> = socket.iter().map(|socket| socket.as_fd()).collect();
    if !sockets.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&sockets));
    }
    let bytes = [IoSlice::new(&packet)];
    loop {
        match sendmsg(to, &bytes, &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => return sent.map(drop).map_err(io::Error::from),
        }
    }
}

fn receive<T: for<'de> Deserialize<'de>>(from: &OwnedFd) -> io::Result<(T, Option<OwnedFd>)> {
    let mut packet = vec![0; MAX_PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut bytes = [IoSliceMut::new(&mut packet)];
        match recvmsg(from, &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            received => break received?,
        }
    };
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut sockets = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
        _ => None,
    });
    let socket = sockets.next();
    let what = serde_json::from_slice(packet.get(..received.bytes).unwrap_or_default())?;
    Ok((what, socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_listening_socket_arrives_with_what_it_is_for() {
        let (here, there) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let secret = Piece::Secret {
            id: "id".repeat(100),
            secret: vec![0xFF; 200],
        };
        send(&here, &secret, None).unwrap();
        let door = Piece::Listener { addr: "80".into() };
        send(&here, &door, Some(&listener.into())).unwrap();
        drop(here);
        let (piece, none) = receive::<Piece>(&there).unwrap();
        assert!(matches!(piece, Piece::Secret { secret, .. } if secret == [0xFF; 200]));
        assert!(none.is_none());
        let (piece, socket) = receive::<Piece>(&there).unwrap();
        assert!(matches!(piece, Piece::Listener { addr } if addr == "80"));
        let listener = TcpListener::from(socket.unwrap());
        TcpStream::connect(addr).unwrap();
        listener.accept().unwrap();
        let end = receive::<Piece>(&there).map(drop).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }
}
