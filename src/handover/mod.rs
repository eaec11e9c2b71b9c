//! One process takes another's place: the running gt starts the program that is installed now,
//! gives it its listening sockets, and makes way when it is ready. See `legacy` for what is
//! given.
//!
//! They talk over a pair of sockets, the new process's standard input, in packets. A socket
//! travels with the packet that says what it is for.
//!
//! Servers go on talking while the old one drains, over a [`Link`]: the new process sends its end
//! of it with [`Word::Listening`]. Versions before the link drop it, or send none.

mod inherited;
#[cfg(feature = "server")]
mod link;
#[cfg(feature = "server")]
mod message;
mod packet;

pub use inherited::{Inherited, Item, Outgoing};
#[cfg(feature = "server")]
pub use link::{ProcessLink, ProcessMessages};
#[cfg(feature = "server")]
pub use message::{Destination, HostKey, Message, MovedTunnel};

use crate::net::timeout;
use async_io::{Async, Timer};
use packet::{PacketReader, PacketWriter};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_timeout, Timeout};
use rustix::net::{
    recvmsg, sendmsg, socketpair, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage,
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::process::{kill_process, Pid, Signal};
use signal_hook::consts::{SIGHUP, SIGQUIT};
use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

/// Says to a new process that its standard input is its predecessor.
const VARIABLE: &str = "GT_TAKES_OVER";
/// Longest packet: a path is the longest thing in one.
const MAX_PACKET: usize = 8192;
/// Longest reason that is told.
const MAX_REASON: usize = 4096;
/// The other process is on the same machine and has nothing else to do.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a new process may take for each step of taking this one's place.
const STEP_TIMEOUT: Duration = Duration::from_secs(15);
/// How long one that says no more may take to end.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

/// How to start this program again.
pub struct Program {
    /// The file as it was when this process began; another one may be there now. Or why the
    /// system does not tell.
    file: io::Result<PathBuf>,
    argv: Vec<OsString>,
}

/// What the new process says to the old one.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// Its servers serve.
    Listening,
    /// Its clients have their tunnels, or have tried.
    Connected,
    /// It cannot run: a sentence. It ends.
    Failed(String),
}

impl Progress {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Listening => PacketWriter::new(0),
            Self::Connected => PacketWriter::new(1),
            Self::Failed(why) => {
                let why = why.as_bytes();
                PacketWriter::new(2).bytes(why.get(..MAX_REASON).unwrap_or(why))
            }
        }
        .done()
    }

    /// `None` if it is one that only another version of gt knows, or malformed.
    fn decode(packet: &[u8]) -> Option<Self> {
        let mut reader = PacketReader::new(packet);
        Some(match reader.u8()? {
            0 => Self::Listening,
            1 => Self::Connected,
            2 => Self::Failed(String::from_utf8_lossy(reader.bytes()?).into_owned()),
            _ => return None,
        })
    }
}

impl Program {
    /// To be called when the process begins.
    pub fn this() -> Self {
        Self {
            file: std::env::current_exe(),
            argv: std::env::args_os().collect(),
        }
    }
}

/// The process that takes this one's place. Dropped before it does, it is ended.
pub struct ChildProcess {
    child: Child,
    socket: Async<OwnedFd>,
    has_taken_over: bool,
    /// This process's end of a link, if it has sent one.
    #[cfg(feature = "server")]
    link: Option<OwnedFd>,
}

impl ChildProcess {
    pub fn start(program: &Program) -> io::Result<Self> {
        let file = program.file.as_ref().map_err(|e| {
            let why = format!("the system does not say which program this is: {e}");
            io::Error::new(e.kind(), why)
        })?;
        let (socket, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let socket = Async::new(socket)?;
        let mut command = Command::new(file);
        let mut argv = program.argv.iter();
        if let Some(name) = argv.next() {
            command.arg0(name);
        }
        command.args(argv).env(VARIABLE, "1").stdin(theirs);
        let child = command
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("starting {}: {e}", file.display())))?;
        Ok(Self {
            child,
            socket,
            has_taken_over: false,
            #[cfg(feature = "server")]
            link: None,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives it all of these. The error says why that cannot be.
    pub async fn give(&mut self, pieces: &[Outgoing]) -> io::Result<()> {
        let giving = async {
            for (piece, socket) in pieces {
                let packet = piece.encode();
                let socket = socket.as_ref().map(|socket| socket.as_fd());
                let send = |to: &OwnedFd| send(to, &packet, socket);
                self.socket.write_with(send).await?;
            }
            let end = Item::End.encode();
            self.socket.write_with(|to| send(to, &end, None)).await
        };
        let given = timeout(STEP_TIMEOUT, giving).await;
        self.done(given).await
    }

    /// Its next word. The error says why there will be none.
    pub async fn hear(&mut self) -> io::Result<Progress> {
        let listening = async {
            loop {
                let receive = |from: &OwnedFd| receive(from);
                let (packet, socket) = self.socket.read_with(receive).await?;
                if let Some(word) = Progress::decode(&packet) {
                    return Ok((word, socket));
                }
            }
        };
        let heard = timeout(STEP_TIMEOUT, listening).await;
        match self.done(heard).await? {
            (Progress::Failed(why), _) => Err(io::Error::other(why)),
            #[cfg(feature = "server")]
            (Progress::Listening, socket) => {
                self.link = socket;
                Ok(Progress::Listening)
            }
            (word, _) => Ok(word),
        }
    }

    /// From now on nothing ends it but itself.
    pub fn takes_over(&mut self) {
        self.has_taken_over = true;
    }

    /// What its servers and those of this process go on talking over, once; `None` if it is of a
    /// version that cannot.
    #[cfg(feature = "server")]
    pub fn link(&mut self) -> Option<(ProcessLink, ProcessMessages)> {
        ProcessLink::new(self.link.take()?).ok()
    }

    /// Sends it SIGHUP.
    pub fn reload(&self) {
        // It may have ended.
        let _ = kill_process(Pid::from_child(&self.child), Signal::HUP);
    }

    /// What is to be said of a step that failed, or was not done in time (`None`). `Interrupted`
    /// is who was signalled before it could know what that means.
    async fn done<T>(&mut self, step: Option<io::Result<T>>) -> io::Result<T> {
        let e = match step {
            None => return Err(io::Error::other("the new process says nothing")),
            Some(Ok(done)) => return Ok(done),
            Some(Err(e)) => e,
        };
        let is_gone = matches!(
            e.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionReset
        );
        if !is_gone {
            return Err(e);
        }
        let Some(status) = timeout(EXIT_TIMEOUT, self.end()).await else {
            let why = "the new process does not know how to take over";
            return Err(io::Error::other(why));
        };
        let kind = match status.signal() {
            Some(SIGHUP | SIGQUIT) => io::ErrorKind::Interrupted,
            _ => io::ErrorKind::Other,
        };
        let why = format!("the new process has ended: {status}");
        Err(io::Error::new(kind, why))
    }

    /// Waits until it has ended.
    async fn end(&mut self) -> ExitStatus {
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status;
            }
            Timer::after(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        if !self.has_taken_over {
            // It may have ended before.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A process that is to take another one's place.
pub struct ParentLink(OwnedFd);

impl ParentLink {
    /// Finds out whether this process is one, and takes what it is given. To be called once,
    /// first of all.
    pub fn find() -> io::Result<Option<(Self, Inherited)>> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        std::env::remove_var(VARIABLE);
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        // What this process starts, and whoever looks at it, finds nothing special there.
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(MESSAGE_TIMEOUT))?;
        let mut legacy = Inherited::default();
        loop {
            let (packet, given) = receive(&socket)?;
            match Item::decode(&packet) {
                Some(Item::End) => return Ok(Some((Self(socket), legacy))),
                Some(piece) => legacy.add(piece, given),
                None => {}
            }
        }
    }

    /// Tells the old process. The error says that it is gone.
    pub fn say(&self, word: &Progress) -> io::Result<()> {
        send(&self.0, &word.encode(), None)
    }

    /// Tells the old process that the servers serve, and gives it its end of a link.
    #[cfg(feature = "server")]
    pub fn say_listening(&self, link: &OwnedFd) -> io::Result<()> {
        send(&self.0, &Progress::Listening.encode(), Some(link.as_fd()))
    }
}

fn send(to: &OwnedFd, packet: &[u8], socket: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sockets = socket.as_slice();
    if !sockets.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(sockets));
    }
    let bytes = [IoSlice::new(packet)];
    loop {
        match sendmsg(to, &bytes, &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => return sent.map(drop).map_err(io::Error::from),
        }
    }
}

fn receive(from: &OwnedFd) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
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
    packet.truncate(received.bytes);
    let mut sockets = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
        _ => None,
    });
    let socket = sockets.next();
    Ok((packet, socket))
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
        send(&here, b"secret", None).unwrap();
        send(&here, b"door", Some(listener.as_fd())).unwrap();
        drop((here, listener));
        let (packet, none) = receive(&there).unwrap();
        assert!(packet == b"secret" && none.is_none());
        let (packet, socket) = receive(&there).unwrap();
        assert_eq!(packet, b"door");
        let listener = TcpListener::from(socket.unwrap());
        TcpStream::connect(addr).unwrap();
        listener.accept().unwrap();
        let end = receive(&there).map(drop).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn words_are_understood_and_long_reasons_cut() {
        let why = "ü".repeat(MAX_REASON);
        for word in [
            Progress::Listening,
            Progress::Connected,
            Progress::Failed("no".to_owned()),
        ] {
            let packet = word.encode();
            assert_eq!(Progress::decode(&packet), Some(word));
        }
        let long = Progress::Failed(why.clone()).encode();
        assert!(long.len() <= MAX_PACKET);
        match Progress::decode(&long) {
            Some(Progress::Failed(cut)) => {
                assert!(cut.len() == MAX_REASON && why.starts_with(&cut))
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(Progress::decode(&[99]), None);
    }
}
