//! Restart without loss: the running gt starts the installed program as a child process, hands its
//! listening sockets and state over to it (see [`Inherited`]), and drains once the child is ready.
//!
//! The two exchange packets over a socket pair, which is the child's standard input. A socket
//! travels with the packet that describes it.
//!
//! The servers of both exchange messages over a `ProcessLink` while the old process drains. The
//! child sends the parent's end of the link with [`Progress::Listening`]; versions of gt before the
//! link ignore it or send none.

mod inherited;
#[cfg(feature = "server")]
mod link;
#[cfg(feature = "server")]
mod message;
mod packet;
#[cfg(not(feature = "sim"))]
mod program;

pub use inherited::{Inherited, Item, Outgoing};
#[cfg(feature = "server")]
pub use link::{ProcessLink, ProcessMessages};
#[cfg(feature = "server")]
pub use message::{Destination, HostKey, Message, MovedTunnel};
pub use program::Program;

use crate::net::kernel::{self, AsFd, OwnedFd};
use crate::net::{timeout, Interest, PollSource, Timer};
#[cfg(feature = "sim")]
use crate::sim::program;
use packet::{PacketReader, PacketWriter};
use program::Child;
use signal_hook::consts::{SIGHUP, SIGQUIT, SIGUSR1};
use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// Maximum length of a packet in bytes: the longest content is a path.
const MAX_PACKET: usize = 8192;
/// Maximum length in bytes of the reason in [`Progress::Failed`].
const MAX_REASON: usize = 4096;
/// Time that the child waits for the next item; the parent is on the same machine and does nothing
/// else meanwhile.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that the child has for each step of taking over.
const STEP_TIMEOUT: Duration = Duration::from_secs(15);
/// Time that a child that has closed its socket has to exit.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

/// A report of the child process to its parent.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// The child's servers accept connections.
    Listening,
    /// The child's clients are connected, or have tried to connect.
    Connected,
    /// The child cannot run and ends, for this reason: a sentence.
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
        .finish()
    }

    /// Decodes a report. `None` if it is malformed or of a kind that only later versions know.
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

/// Why the child process has not taken over.
#[derive(Debug)]
pub enum TakeoverError {
    /// The child could not be started, or the socket that leads to it failed.
    Io(io::Error),
    /// The child cannot run and has said why.
    Failed(String),
    /// A signal ended the child before it could handle signals; another attempt may succeed.
    Signaled(ExitStatus),
    /// The child has ended without a report.
    Ended(ExitStatus),
    /// The child has not completed a step within [`STEP_TIMEOUT`].
    Timeout,
    /// The installed program does not read what it was given.
    Unaware,
}

impl fmt::Display for TakeoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) => e.fmt(f),
            Self::Failed(why) => f.write_str(why),
            Self::Signaled(status) | Self::Ended(status) => {
                write!(f, "the new process has ended: {status}")
            }
            Self::Timeout => {
                write!(f, "the new process did not report within {STEP_TIMEOUT:?}")
            }
            Self::Unaware => f.write_str("the new process does not know how to take over"),
        }
    }
}

/// The process that takes over from this one. Killed on drop unless it has taken over.
pub struct ChildProcess {
    child: Child,
    socket: PollSource<OwnedFd>,
    has_taken_over: bool,
    /// This process's end of the link, if the child has sent one.
    #[cfg(feature = "server")]
    link: Option<OwnedFd>,
}

impl ChildProcess {
    /// Starts the program as a child process that waits for items.
    pub fn start(program: &Program) -> io::Result<Self> {
        let (child, socket) = Child::start(program)?;
        let socket = PollSource::new(socket, &[Interest::Read, Interest::Write])?;
        Ok(Self {
            child,
            socket,
            has_taken_over: false,
            #[cfg(feature = "server")]
            link: None,
        })
    }

    /// Returns the number of the child process.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Sends all items.
    pub async fn send_items(&mut self, items: &[Outgoing]) -> Result<(), TakeoverError> {
        let giving = async {
            for (item, socket) in items {
                let packet = item.encode();
                let socket = socket.as_ref().map(|socket| socket.as_fd());
                let send = |to: &OwnedFd| kernel::send_packet(to, &packet, socket);
                self.socket.call(Interest::Write, send).await?;
            }
            let end = Item::End.encode();
            let send = |to: &OwnedFd| kernel::send_packet(to, &end, None);
            self.socket.call(Interest::Write, send).await
        };
        let given = timeout(STEP_TIMEOUT, giving).await;
        self.check_step(given).await
    }

    /// Waits for the next report. Fails if the child cannot take over or ends.
    pub async fn next_progress(&mut self) -> Result<Progress, TakeoverError> {
        let listening = async {
            loop {
                let (packet, socket) = self.socket.call(Interest::Read, receive).await?;
                if let Some(progress) = Progress::decode(&packet) {
                    return Ok((progress, socket));
                }
            }
        };
        let heard = timeout(STEP_TIMEOUT, listening).await;
        match self.check_step(heard).await? {
            (Progress::Failed(why), _) => Err(TakeoverError::Failed(why)),
            #[cfg(feature = "server")]
            (Progress::Listening, socket) => {
                self.link = socket;
                Ok(Progress::Listening)
            }
            (progress, _) => Ok(progress),
        }
    }

    /// Lets the child live on when this value is dropped.
    pub fn detach(&mut self) {
        self.has_taken_over = true;
    }

    /// Takes the link between the servers of both processes; `None` if the child's version has
    /// none.
    #[cfg(feature = "server")]
    pub fn link(&mut self) -> Option<(ProcessLink, ProcessMessages)> {
        ProcessLink::new(self.link.take()?).ok()
    }

    /// Sends SIGHUP to the child, so that it reads its configuration again.
    pub fn reload(&self) {
        self.child.hang_up();
    }

    /// Turns a failed or timed-out (`None`) step into an error.
    async fn check_step<T>(&mut self, step: Option<io::Result<T>>) -> Result<T, TakeoverError> {
        let e = match step {
            None => return Err(TakeoverError::Timeout),
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
            return Err(TakeoverError::Io(e));
        }
        let Some(status) = timeout(EXIT_TIMEOUT, self.wait()).await else {
            return Err(TakeoverError::Unaware);
        };
        Err(match status.signal() {
            Some(SIGHUP | SIGQUIT | SIGUSR1) => TakeoverError::Signaled(status),
            _ => TakeoverError::Ended(status),
        })
    }

    /// Waits until the process has ended.
    async fn wait(&mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.child.try_wait() {
                return status;
            }
            Timer::after(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        if !self.has_taken_over {
            self.child.kill();
        }
    }
}

/// The link of a child process to the parent it takes over from.
pub struct ParentLink(OwnedFd);

impl ParentLink {
    /// Receives the handover if a parent process has started this one for it. Call it once, before
    /// anything else.
    pub fn from_env() -> io::Result<Option<(Self, Inherited)>> {
        let Some(socket) = program::socket_to_parent(MESSAGE_TIMEOUT)? else {
            return Ok(None);
        };
        let mut inherited = Inherited::default();
        loop {
            let (packet, descriptor) = receive(&socket)?;
            if inherited.is_complete_with(&packet, descriptor) {
                return Ok(Some((Self(socket), inherited)));
            }
        }
    }

    /// Receives the handover over a socket that leads to the parent.
    #[cfg(feature = "sim")]
    pub async fn from_socket(socket: OwnedFd) -> io::Result<(Self, Inherited)> {
        let source = PollSource::new(socket, &[Interest::Read])?;
        let mut inherited = Inherited::default();
        loop {
            let receiving = timeout(MESSAGE_TIMEOUT, source.call(Interest::Read, receive));
            let received = receiving
                .await
                .unwrap_or(Err(io::ErrorKind::TimedOut.into()));
            let (packet, descriptor) = received?;
            if inherited.is_complete_with(&packet, descriptor) {
                let socket = source.get_ref().as_fd().try_clone_to_owned()?;
                return Ok((Self(socket), inherited));
            }
        }
    }

    /// Sends a report. Fails if the parent has ended.
    pub fn report(&self, progress: &Progress) -> io::Result<()> {
        kernel::send_packet(&self.0, &progress.encode(), None)
    }

    /// Reports that the servers listen, and sends the parent its end of the link.
    #[cfg(feature = "server")]
    pub fn report_listening(&self, link: &OwnedFd) -> io::Result<()> {
        let listening = Progress::Listening.encode();
        kernel::send_packet(&self.0, &listening, Some(link.as_fd()))
    }
}

fn receive(from: &OwnedFd) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    kernel::receive_packet(from, MAX_PACKET)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_socket_arrives_with_its_packet() {
        let (here, there) = kernel::packet_pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        kernel::send_packet(&here, b"secret", None).unwrap();
        kernel::send_packet(&here, b"listener", Some(listener.as_fd())).unwrap();
        drop((here, listener));
        let (packet, none) = receive(&there).unwrap();
        assert!(packet == b"secret" && none.is_none());
        let (packet, socket) = receive(&there).unwrap();
        assert_eq!(packet, b"listener");
        let listener = TcpListener::from(socket.unwrap());
        TcpStream::connect(addr).unwrap();
        listener.accept().unwrap();
        let end = receive(&there).map(drop).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn progress_survives_encoding_and_long_reasons_are_cut() {
        let why = "ü".repeat(MAX_REASON);
        for progress in [
            Progress::Listening,
            Progress::Connected,
            Progress::Failed("no".to_owned()),
        ] {
            let packet = progress.encode();
            assert_eq!(Progress::decode(&packet), Some(progress));
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
