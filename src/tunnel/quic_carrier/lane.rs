//! The lane of one stream: a stream of QUIC, and what has to be sent in it. Not whose turn it is.

use crate::net::quic::{QuicStreamId, QuicStreams, Urgency};
use crate::net::Throttle;
use crate::tunnel::flow_records::{FlowRecords, SentRecords};
use crate::wire::frame::StreamId;

/// The lane of one stream.
#[derive(Default)]
pub struct Lane {
    /// `None` until the stream has been announced.
    pub(super) id: Option<QuicStreamId>,
    /// What has to be opened as soon as the peer allows more streams.
    pub(super) is_awaited: bool,
    /// The rest of the header, and bytes that were read from the stream's connection and not taken.
    pub(super) head: Vec<u8>,
    pub(super) unsent: Vec<u8>,
    /// Whether this end's direction ends behind them.
    pub(super) finishes: bool,
    /// Whether the peer reads no more, and has sent everything.
    pub(super) is_stopped: bool,
    /// What the connection knows of the haste of the stream.
    pub(super) urgency: Urgency,
    /// Present if the stream carries datagrams.
    pub(super) flow: Option<Box<FlowRecords>>,
    pub(super) throttle: Option<Box<Throttle>>,
}

impl Lane {
    pub(super) fn new(is_flow: bool) -> Box<Self> {
        Box::new(Self {
            flow: is_flow.then(Box::default),
            ..Self::default()
        })
    }

    /// Makes the lane one of datagrams.
    #[cfg(feature = "server")]
    pub fn carry_datagrams(&mut self) {
        self.flow.get_or_insert_default();
    }

    /// Whether the peer reads no more, and has sent everything.
    #[cfg(all(test, feature = "server", feature = "client"))]
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// Whether bytes were read from the stream's connection that QUIC has not taken.
    #[cfg(all(test, feature = "server", feature = "client"))]
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Sends bytes, as many as the lane takes.
    pub(super) fn send(
        &mut self,
        (streams, id, stream_id): (&QuicStreams, QuicStreamId, StreamId),
        bytes: &[u8],
        (is_answered, waits): (bool, bool),
    ) -> SentRecords {
        let urgency = self.urgency;
        let sent = match &mut self.flow {
            None => streams.write(id, bytes, urgency).map(|taken| SentRecords {
                taken,
                in_stream: taken,
            }),
            Some(flow) => flow.send(
                (streams, id, stream_id),
                bytes,
                urgency,
                (is_answered, waits),
            ),
        };
        // The peer reads no more: there will be news of it.
        sent.unwrap_or(SentRecords {
            taken: bytes.len(),
            in_stream: bytes.len(),
        })
    }

    /// Sends what was left. True if nothing is left.
    pub(super) fn flush(&mut self, streams: &QuicStreams, stream_id: StreamId) -> bool {
        let Some(id) = self.id else {
            return false;
        };
        if !self.head.is_empty() {
            let head = std::mem::take(&mut self.head);
            let n = streams.write(id, &head, Urgency::Urgent);
            let n = n.unwrap_or(head.len());
            self.head = head.get(n..).unwrap_or_default().to_vec();
            if !self.head.is_empty() {
                return false;
            }
        }
        if !self.unsent.is_empty() {
            let unsent = std::mem::take(&mut self.unsent);
            // It was not sent as a DATAGRAM at once, since others wait.
            let sent = self.send((streams, id, stream_id), &unsent, (true, true));
            self.unsent = unsent.get(sent.taken..).unwrap_or_default().to_vec();
            if !self.unsent.is_empty() {
                return false;
            }
        }
        if std::mem::take(&mut self.finishes) {
            streams.finish(id);
        }
        true
    }
}
