//! The connection between a process that drains and the one that has taken over, for as long as
//! the old one has tunnels. Carries messages both ways, each with one socket at most.

use super::message::Message;
use super::{receive, send};
use crate::net::{timeout, Shutdown};
use async_io::{Async, Timer};
use async_std::channel::{self, Receiver, Sender};
use rustix::net::{shutdown, socketpair, AddressFamily, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Messages that wait for the other process to read.
const MAX_QUEUED: usize = 16;
/// Longest piece of a message that goes at a time, so that it fits into any socket's buffer.
const MAX_PIECE: usize = 4096;
/// Longest message: the hello of a client with as many services as there may be.
const MAX_MESSAGE: usize = 256 * 1024;
/// The first byte of a piece: another one of the message follows, or none does.
const MORE: u8 = 1;
const LAST: u8 = 0;
/// Sockets on their way count against the limit of open files. When there are too many, the other
/// process gets this long to take some, and again,
const PAUSE: Duration = Duration::from_millis(20);
/// as often as this.
const PAUSES: u32 = 250;

/// The sending half for one server. Clones send to the same process.
#[derive(Clone)]
pub struct ProcessLink {
    role: Option<PathBuf>,
    queue: Sender<QueuedMessage>,
    /// All that was sent has left, or cannot leave any more.
    flushed: Shutdown,
}

type QueuedMessage = (Vec<u8>, Option<OwnedFd>);

/// The receiving half.
pub struct ProcessMessages(Arc<Async<OwnedFd>>);

impl ProcessLink {
    /// Two sockets for the two ends of a link.
    pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        Ok(socketpair(family, kind, SocketFlags::CLOEXEC, None)?)
    }

    /// Begins to send over this socket what it is given.
    pub fn new(socket: OwnedFd) -> io::Result<(Self, ProcessMessages)> {
        let socket = Arc::new(Async::new(socket)?);
        let (queue, outgoing) = channel::bounded(MAX_QUEUED);
        let flushed = Shutdown::default();
        let link = Self {
            role: None,
            queue,
            flushed: flushed.clone(),
        };
        let sending = socket.clone();
        crate::spawn(async move {
            if let Err(e) = send_all(&sending, &outgoing).await {
                log::debug!("telling another process of gt: {e}");
            }
            outgoing.close();
            flushed.trigger();
        });
        Ok((link, ProcessMessages(socket)))
    }

    /// The same for the server whose configuration comes from the file `role`.
    pub fn of_role(&self, role: &Option<PathBuf>) -> Self {
        Self {
            role: role.clone(),
            ..self.clone()
        }
    }

    /// Sends a message once there is room. Gives the socket back if the link has ended.
    pub async fn send(
        &self,
        message: &Message,
        socket: Option<OwnedFd>,
    ) -> Result<(), Option<OwnedFd>> {
        let outgoing = (message.encode(&self.role), socket);
        let sent = self.queue.send(outgoing).await;
        sent.map_err(|unsent| unsent.into_inner().1)
    }

    /// Whether messages can still be sent.
    pub fn is_open(&self) -> bool {
        !self.queue.is_closed()
    }

    /// Takes no more messages. What was sent still leaves, then the other end sees the end.
    pub fn close(&self) {
        self.queue.close();
    }

    /// Waits until all that was sent has left, after [`Link::close`].
    pub async fn flush(&self, patience: Duration) {
        timeout(patience, self.flushed.wait()).await;
    }
}

#[cfg(test)]
impl ProcessLink {
    /// A link whose messages stay in its queue until they are taken there.
    pub fn unread() -> (Self, Unread) {
        let (queue, outgoing) = channel::bounded(MAX_QUEUED);
        let link = Self {
            role: None,
            queue,
            flushed: Shutdown::default(),
        };
        (link, Unread(outgoing))
    }
}

/// The queue of a link that nothing reads.
#[cfg(test)]
pub struct Unread(Receiver<QueuedMessage>);

#[cfg(test)]
impl Unread {
    /// The next message; `None` if there is none now.
    pub fn next(&self) -> Option<Message> {
        let (message, _) = self.0.try_recv().ok()?;
        Message::decode(&message).map(|(_, message)| message)
    }
}

async fn send_all(to: &Async<OwnedFd>, outgoing: &Receiver<QueuedMessage>) -> io::Result<()> {
    while let Ok((message, socket)) = outgoing.recv().await {
        let mut pieces = message.chunks(MAX_PIECE).peekable();
        while let Some(piece) = pieces.next() {
            let (kind, socket) = match pieces.peek() {
                Some(_) => (MORE, None),
                None => (LAST, socket.as_ref()),
            };
            let packet = [&[kind], piece].concat();
            let mut pauses = 0;
            loop {
                let sending = |to: &OwnedFd| send(to, &packet, socket.map(AsFd::as_fd));
                match to.write_with(sending).await {
                    Err(e) if is_too_many_sockets(&e) && pauses < PAUSES => {
                        pauses += 1;
                        Timer::after(PAUSE).await;
                    }
                    sent => break sent?,
                }
            }
        }
    }
    shutdown(to, rustix::net::Shutdown::Write).map_err(io::Error::from)
}

fn is_too_many_sockets(e: &io::Error) -> bool {
    e.raw_os_error() == Some(rustix::io::Errno::TOOMANYREFS.raw_os_error())
}

impl ProcessMessages {
    /// The next message, with the file of the server that it is for; `None` at the end.
    pub async fn next(&mut self) -> Option<(Option<PathBuf>, Message, Option<OwnedFd>)> {
        let mut bytes = Vec::new();
        loop {
            let (packet, socket) = self.0.read_with(receive).await.ok()?;
            let (kind, piece) = packet.split_first()?;
            bytes.extend_from_slice(piece);
            if bytes.len() > MAX_MESSAGE {
                return None;
            }
            if *kind == MORE {
                continue;
            }
            if let Some((role, message)) = Message::decode(&bytes) {
                return Some((role, message, socket));
            }
            // Of a later version.
            bytes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{Destination, HostKey};
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn long_messages_and_sockets_arrive_in_order_and_then_the_end() {
        async_std::task::block_on(async {
            let (here, there) = ProcessLink::pair().unwrap();
            let (link, _) = ProcessLink::new(here).unwrap();
            let (_other, mut incoming) = ProcessLink::new(there).unwrap();
            let role = Some(PathBuf::from("one.yaml"));
            let link = link.of_role(&role);
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let visitor = Message::Visitor {
                to: Destination::Host(HostKey {
                    tls: true,
                    prefix: "web".to_owned(),
                }),
                peer: listener.local_addr().unwrap(),
                head: vec![b'x'; 100_000],
            };
            let sending = {
                let (link, visitor) = (link.clone(), visitor.clone());
                let addr = listener.local_addr().unwrap();
                async_std::task::spawn(async move {
                    for _ in 0..40 {
                        let socket = TcpStream::connect(addr).unwrap();
                        link.send(&visitor, Some(socket.into())).await.unwrap();
                    }
                    link.send(&Message::Done, None).await.unwrap();
                    link.close();
                    link.send(&Message::Done, None).await.unwrap_err();
                    link.flush(Duration::from_secs(10)).await;
                })
            };
            for _ in 0..40 {
                let (of, message, socket) = incoming.next().await.unwrap();
                assert!(of == role && message == visitor);
                TcpStream::from(socket.unwrap())
                    .write_all(b"it works")
                    .unwrap();
                listener.accept().unwrap();
            }
            let (_, message, socket) = incoming.next().await.unwrap();
            assert!(message == Message::Done && socket.is_none());
            assert!(incoming.next().await.is_none());
            sending.await;
        });
    }
}
