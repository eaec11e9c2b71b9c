//! A flow of datagrams as a connection: its bytes are records of datagrams. So what relays streams of
//! bytes relays datagrams, too, with the same limits and records.

use super::records::{RecordReader, MAX_RUN};
use crate::net::ShardId;
use crate::sync::Mutex;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

/// The datagrams between two addresses.
pub trait Flow: fmt::Debug + Send + Sync {
    /// Reads records of received datagrams, or a part of them. 0 after [`Flow::close`].
    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Ready when a read may find something.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Sends datagrams, in order, or drops and counts them.
    fn send(&self, datagrams: &[&[u8]]);

    /// Ends the flow: later datagrams belong to another one.
    fn close(&self);

    /// Lets the tasks of another executor thread use the flow.
    fn move_to(&self, thread: ShardId) -> io::Result<()>;

    /// Returns this end's address.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// Returns the peer's address.
    fn peer_addr(&self) -> io::Result<SocketAddr>;
}

/// A connection that carries records of datagrams.
#[derive(Debug)]
pub struct DatagramConn {
    flow: Box<dyn Flow>,
    written: Mutex<RecordReader>,
}

impl DatagramConn {
    /// Makes a connection of a flow.
    pub fn new(flow: Box<dyn Flow>) -> Self {
        Self {
            flow,
            written: Mutex::default(),
        }
    }

    /// Returns the flow.
    pub fn flow(&self) -> &dyn Flow {
        &*self.flow
    }

    /// Takes bytes of records, and sends the datagrams that are whole. Takes all of them: what cannot be
    /// sent now is dropped.
    pub fn write(&self, bytes: &[u8]) -> usize {
        let mut written = self.written.lock();
        written.feed::<MAX_RUN>(bytes, |run| self.flow.send(run));
        bytes.len()
    }
}
