//! The link between a draining process and its successor, open while the old process has tunnels.
//! It carries messages in both directions, each with at most one socket. The messages are defined
//! in `message`.

use super::message::Message;
use super::receive;
use crate::net::kernel::{self, AsFd, OwnedFd};
use crate::net::{timeout, Interest, PollSource, Shutdown, Timer};
use async_std::channel::{self, Receiver, Sender};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Maximum number of messages queued for the other process.
const MAX_QUEUED: usize = 16;
/// Maximum length in bytes of one packet of a message: it fits into the buffer of any socket.
const MAX_FRAGMENT: usize = 4096;
/// Maximum length of a message in bytes: the hello of a client with the maximum of services fits.
const MAX_MESSAGE: usize = 256 * 1024;
/// First byte of a packet that another one of the same message follows.
const MORE_FOLLOWS: u8 = 1;
/// First byte of the last packet of a message.
const LAST: u8 = 0;
/// Pause when too many sockets are in flight (`ETOOMANYREFS`: they count against the limit of open
/// files), so that the other process can receive some.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(20);
/// Maximum number of times that [`QUEUE_FULL_PAUSE`] is waited for one packet.
const MAX_QUEUE_FULL_PAUSES: u32 = 250;

/// The sending half of the link for one server. Clones share the link.
#[derive(Clone)]
pub struct ProcessLink {
    role: Option<PathBuf>,
    queue: Sender<QueuedMessage>,
    /// Triggered once everything has been sent, or cannot be sent any more.
    flushed: Shutdown,
}

/// A message that waits to be sent, with its socket.
type QueuedMessage = (Vec<u8>, Option<Attached>);
/// A socket, and where it goes if it cannot be sent.
type Attached = (OwnedFd, Option<Sender<OwnedFd>>);

/// The receiving half of the link.
pub struct ProcessMessages(Arc<PollSource<OwnedFd>>);

impl ProcessLink {
    /// Creates the two sockets of a link.
    pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
        kernel::packet_pair()
    }

    /// Starts to send and receive over this socket.
    pub fn new(socket: OwnedFd) -> io::Result<(Self, ProcessMessages)> {
        kernel::set_nonblocking(&socket)?;
        let both = [Interest::Read, Interest::Write];
        let socket = Arc::new(PollSource::new(socket, &both)?);
        let (queue, outgoing) = channel::bounded(MAX_QUEUED);
        let flushed = Shutdown::default();
        let link = Self {
            role: None,
            queue,
            flushed: flushed.clone(),
        };
        let sending = socket.clone();
        crate::net::spawn(async move {
            if let Err(e) = send_all(&sending, &outgoing).await {
                log::debug!("sending to the other gt process: {e}");
            }
            outgoing.close();
            while let Ok((_, socket)) = outgoing.try_recv() {
                give_back(socket);
            }
            flushed.trigger();
        });
        Ok((link, ProcessMessages(socket)))
    }

    /// Returns the sending half for the server that is configured by the file `role`.
    pub fn of_role(&self, role: &Option<PathBuf>) -> Self {
        Self {
            role: role.clone(),
            ..self.clone()
        }
    }

    /// Queues a message and waits for room. Returns the socket if the link has ended.
    pub async fn send(
        &self,
        message: &Message,
        socket: Option<OwnedFd>,
    ) -> Result<(), Option<OwnedFd>> {
        let outgoing = (
            message.encode(&self.role),
            socket.map(|socket| (socket, None)),
        );
        let sent = self.queue.send(outgoing).await;
        sent.map_err(|unsent| unsent.into_inner().1.map(|(socket, _)| socket))
    }

    /// Sends a message and waits until that is done. Returns the socket if the link ends before.
    pub async fn deliver(&self, message: &Message, socket: OwnedFd) -> Result<(), Option<OwnedFd>> {
        let (unsent, back) = channel::bounded(1);
        let outgoing = (message.encode(&self.role), Some((socket, Some(unsent))));
        if let Err(unsent) = self.queue.send(outgoing).await {
            return Err(unsent.into_inner().1.map(|(socket, _)| socket));
        }
        match back.recv().await {
            Ok(socket) => Err(Some(socket)),
            // The other end of the channel goes with a message that was sent.
            Err(_) => Ok(()),
        }
    }

    /// Whether messages can still be sent.
    pub fn is_open(&self) -> bool {
        !self.queue.is_closed()
    }

    /// Closes the sending half. Queued messages are sent before the other process sees the end.
    pub fn close(&self) {
        self.queue.close();
    }

    /// Waits until everything queued is sent, after [`ProcessLink::close`].
    pub async fn flush(&self, patience: Duration) {
        timeout(patience, self.flushed.wait()).await;
    }
}

#[cfg(test)]
impl ProcessLink {
    /// Creates a link whose messages stay in its queue for the test to read.
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

/// The queue of a link created by [`ProcessLink::unread`].
#[cfg(test)]
pub struct Unread(Receiver<QueuedMessage>);

#[cfg(test)]
impl Unread {
    /// Returns the next message, if one is queued.
    pub fn next(&self) -> Option<Message> {
        let (message, _) = self.0.try_recv().ok()?;
        Message::decode(&message).map(|(_, message)| message)
    }
}

async fn send_all(to: &PollSource<OwnedFd>, outgoing: &Receiver<QueuedMessage>) -> io::Result<()> {
    while let Ok((message, socket)) = outgoing.recv().await {
        let mut fragments = message.chunks(MAX_FRAGMENT).peekable();
        while let Some(fragment) = fragments.next() {
            let (kind, attached) = match fragments.peek() {
                Some(_) => (MORE_FOLLOWS, None),
                None => (LAST, socket.as_ref().map(|(socket, _)| socket)),
            };
            let packet = [&[kind], fragment].concat();
            let mut pauses = 0;
            loop {
                let sending =
                    |to: &OwnedFd| kernel::send_packet(to, &packet, attached.map(AsFd::as_fd));
                match to.call(Interest::Write, sending).await {
                    Err(e)
                        if kernel::is_too_many_descriptors(&e)
                            && pauses < MAX_QUEUE_FULL_PAUSES =>
                    {
                        pauses += 1;
                        Timer::after(QUEUE_FULL_PAUSE).await;
                    }
                    Ok(()) => break,
                    Err(e) => {
                        give_back(socket);
                        return Err(e);
                    }
                }
            }
        }
    }
    kernel::end_packets(to.get_ref())
}

/// Returns a socket that could not be sent to the one who waits for that.
fn give_back(unsent: Option<Attached>) {
    if let Some((socket, Some(back))) = unsent {
        // Nobody waits any more if the task has ended.
        let _ = back.try_send(socket);
    }
}

impl ProcessMessages {
    /// Receives the next message and the file of the server it is for; `None` at the end.
    pub async fn next(&mut self) -> Option<(Option<PathBuf>, Message, Option<OwnedFd>)> {
        let mut bytes = Vec::new();
        loop {
            let (packet, socket) = self.0.call(Interest::Read, receive).await.ok()?;
            let (kind, fragment) = packet.split_first()?;
            bytes.extend_from_slice(fragment);
            if bytes.len() > MAX_MESSAGE {
                return None;
            }
            if *kind == MORE_FOLLOWS {
                continue;
            }
            if let Some((role, message)) = Message::decode(&bytes) {
                return Some((role, message, socket));
            }
            // A message that only later versions know.
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
    fn a_socket_that_cannot_be_delivered_comes_back() {
        async_std::task::block_on(async {
            let (here, there) = ProcessLink::pair().unwrap();
            let (link, _messages) = ProcessLink::new(here).unwrap();
            // The other process is killed.
            drop(there);
            for _ in 0..2 {
                let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
                let back = link.deliver(&Message::Done, near.into()).await;
                let back = back.expect_err("nobody receives it").expect("the socket");
                std::os::unix::net::UnixStream::from(back)
                    .write_all(b"x")
                    .unwrap();
                std::io::Read::read_exact(&mut far, &mut [0]).unwrap();
            }
        });
    }

    #[test]
    fn long_messages_and_sockets_arrive_in_order_before_the_end() {
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
                origin: None,
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
