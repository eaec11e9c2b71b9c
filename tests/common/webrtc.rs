//! An independent peer: the `webrtc` crate, which shares no code with gt, on its own threads. Calls
//! here wait for its results, so that a test reads from top to bottom.

use super::signal::{candidate, Layer, Signal};
use super::{eventually, PATIENCE};
use bytes::BytesMut;
use serde_json::{json, Value};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::runtime::Runtime;
use webrtc::data_channel::{DataChannel, DataChannelEvent, RTCDataChannelState};
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCConfigurationBuilder,
    RTCIceCandidateInit, RTCIceGatheringState, RTCIceServer, RTCSessionDescription,
};

/// Length of a message that all peers accept, in bytes.
pub const MESSAGE: usize = 16 * 1024;

/// How a peer describes itself.
#[derive(Clone, Copy, Debug)]
pub struct How {
    pub layer: Layer,
    /// Whether its addresses are sent one by one behind the offer.
    pub trickle: bool,
}

pub const PLAIN: How = How {
    layer: Layer::Plain,
    trickle: false,
};

pub struct Peer {
    connection: Arc<dyn PeerConnection>,
    gathered: Gathered,
    runtime: Option<Arc<Runtime>>,
}

/// Whether all addresses are known.
#[derive(Clone, Default)]
struct Gathered(Arc<AtomicBool>);

impl PeerConnectionEventHandler for Gathered {
    fn on_ice_gathering_state_change<'a, 'b>(
        &'a self,
        state: RTCIceGatheringState,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        if state == RTCIceGatheringState::Complete {
            self.0.store(true, Ordering::SeqCst);
        }
        Box::pin(async {})
    }
}

/// A data channel of the peer.
pub struct Channel {
    inner: Arc<dyn DataChannel>,
    /// Bytes that were received and not read yet.
    rest: Mutex<Vec<u8>>,
    runtime: Arc<Runtime>,
}

impl Peer {
    /// Creates a peer at an address of this machine.
    pub fn new() -> Peer {
        Peer::at("127.0.0.1:0", Vec::new())
    }

    /// Creates a peer at this address of a machine behind a NAT, which asks a STUN server for its
    /// public address.
    pub fn behind(addr: &str, stun: &str) -> Peer {
        let server = RTCIceServer {
            urls: vec![stun.to_owned()],
            ..RTCIceServer::default()
        };
        Peer::at(addr, vec![server])
    }

    fn at(addr: &str, stun: Vec<RTCIceServer>) -> Peer {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("start a runtime");
        let gathered = Gathered::default();
        let connection = runtime.block_on(async {
            PeerConnectionBuilder::new()
                .with_udp_addrs(vec![addr.to_owned()])
                .with_configuration(
                    RTCConfigurationBuilder::new()
                        .with_ice_servers(stun)
                        .build(),
                )
                .with_handler(Arc::new(gathered.clone()))
                .with_data_channel_send_buffer_limit(512 * 1024)
                .build()
                .await
                .expect("build a peer")
        });
        Peer {
            connection: Arc::new(connection),
            gathered,
            runtime: Some(Arc::new(runtime)),
        }
    }

    fn runtime(&self) -> &Arc<Runtime> {
        self.runtime.as_ref().expect("a peer that is there")
    }

    /// Creates a peer, connects it to the client behind `host` and opens its first channel.
    pub fn connect(server: SocketAddr, host: &str, label: &str, how: How) -> (Peer, Channel) {
        let peer = Peer::new();
        let channel = peer.channel(label);
        let status = peer.offer_to(server, host, how, |offer| offer);
        assert_eq!(status, 200, "the offer should be taken");
        channel.wait_open();
        (peer, channel)
    }

    /// Sends an offer, changed by `change`, and applies the answer. Returns the answer's status.
    pub fn offer_to(
        &self,
        server: SocketAddr,
        host: &str,
        how: How,
        change: impl FnOnce(String) -> String,
    ) -> u16 {
        let offer = change(self.offer());
        let is_candidate = |line: &&str| line.starts_with("a=candidate:");
        let candidates = offer.lines().filter(is_candidate);
        let candidates: Vec<&str> = candidates.map(|line| &line[2..]).collect();
        assert!(!candidates.is_empty(), "no candidates in {offer}");
        let mut signal = Signal::start(server, host, "", how.layer);
        if how.trickle {
            let rest = offer.lines().filter(|line| !is_candidate(line));
            let rest: String = rest.flat_map(|line| [line, "\r\n"]).collect();
            signal.say(&json!({"type": "offer", "sdp": rest}));
        } else {
            signal.say(&json!({"type": "offer", "sdp": offer}));
            signal.finish();
        }
        let status = signal.status();
        if status != 200 {
            return status;
        }
        let answer = signal.next().expect("an answer");
        self.take_answer(&answer);
        if how.trickle {
            // The response has begun already.
            for line in candidates {
                signal.say(&candidate(line));
            }
            signal.finish();
        }
        self.take_candidates(&mut signal);
        status
    }

    /// Gets an offer of the client behind `host` and answers it.
    pub fn answer_to(&self, server: SocketAddr, host: &str, layer: Layer) {
        let mut signal = Signal::start(server, host, "WebRTC-OP: get-offer\r\n", layer);
        signal.finish();
        assert_eq!(signal.status(), 200, "an offer should be had");
        let offer = signal.next().expect("an offer");
        assert_eq!(offer["type"], "offer", "{offer}");
        let sdp = offer["sdp"].as_str().expect("an sdp").to_owned();
        self.runtime().block_on(async {
            let offer = RTCSessionDescription::offer(sdp).expect("an offer");
            let connection = &self.connection;
            connection.set_remote_description(offer).await.expect("it");
            let answer = connection.create_answer(None).await.expect("an answer");
            connection.set_local_description(answer).await.expect("it");
        });
        let answer = self.local();
        let number = self.take_candidates(&mut signal).expect("a number");
        let lines = format!("WebRTC-OP: resp-answer\r\nWebRTC-OP-ID: {number}\r\n");
        let mut signal = Signal::start(server, host, &lines, layer);
        signal.say(&json!({"type": "answer", "sdp": answer}));
        signal.finish();
        assert_eq!(signal.status(), 200, "the answer should be taken");
    }

    /// Returns an offer that contains the addresses.
    pub fn offer(&self) -> String {
        self.runtime().block_on(async {
            let offer = self.connection.create_offer(None).await.expect("an offer");
            let set = self.connection.set_local_description(offer).await;
            set.expect("take our own offer");
        });
        self.local()
    }

    fn local(&self) -> String {
        eventually("a peer to know its addresses", || {
            let description = self.runtime().block_on(self.connection.local_description());
            let sdp = description?.sdp;
            let is_all = self.gathered.0.load(Ordering::SeqCst);
            (is_all && sdp.contains("a=candidate:")).then_some(sdp)
        })
    }

    pub fn take_answer(&self, answer: &Value) {
        assert_eq!(answer["type"], "answer", "{answer}");
        let sdp = answer["sdp"].as_str().expect("an sdp").to_owned();
        let answer = RTCSessionDescription::answer(sdp).expect("an answer");
        let taken = self.connection.set_remote_description(answer);
        self.runtime().block_on(taken).expect("take the answer");
    }

    /// Applies the candidates of an answer up to its end. Returns the number of the offer.
    fn take_candidates(&self, signal: &mut Signal) -> Option<u64> {
        let mut number = None;
        while let Some(message) = signal.next() {
            if let Some(id) = message["id"].as_u64() {
                number = Some(id);
                continue;
            }
            let text = message["candidate"].as_str();
            let candidate = text.unwrap_or_else(|| panic!("no candidate: {message}"));
            self.take_candidate(candidate);
        }
        number
    }

    pub fn take_candidate(&self, candidate: &str) {
        let init = RTCIceCandidateInit {
            candidate: candidate.to_owned(),
            sdp_mid: Some("0".to_owned()),
            sdp_mline_index: Some(0),
            ..RTCIceCandidateInit::default()
        };
        // It may reject addresses of other families.
        let added = self.connection.add_ice_candidate(init);
        let _ = self.runtime().block_on(added);
    }

    /// Returns the description of a peer with a channel.
    pub fn offer_with_channel(&self) -> String {
        let _channel = self.channel("");
        self.offer()
    }

    /// Creates a channel that opens once the peer is connected.
    pub fn channel(&self, label: &str) -> Channel {
        let created = self.connection.create_data_channel(label, None);
        let inner = self.runtime().block_on(created).expect("create a channel");
        Channel {
            inner,
            rest: Mutex::default(),
            runtime: self.runtime().clone(),
        }
    }

    /// Opens a channel of a connected peer.
    pub fn open(&self, label: &str) -> Channel {
        let channel = self.channel(label);
        channel.wait_open();
        channel
    }

    /// Ends gracefully.
    pub fn close(&self) {
        let closed = self.runtime().block_on(self.connection.close());
        closed.expect("close a peer");
    }

    /// Disappears silently, like a machine without power. Its channels must be dropped before.
    pub fn vanish(mut self) {
        let runtime = self.runtime.take().expect("a peer that is there");
        let runtime = Arc::into_inner(runtime).expect("no channel is held any more");
        runtime.shutdown_background();
        std::mem::forget(self.connection.clone());
    }
}

impl Channel {
    /// Returns the next event of the channel; `None` at its end.
    fn event(&self) -> Option<DataChannelEvent> {
        let event = async { tokio::time::timeout(PATIENCE, self.inner.poll()).await };
        let event = self.runtime.block_on(event);
        event.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain for a channel"))
    }

    pub fn is_open(&self) -> bool {
        let state = self.runtime.block_on(self.inner.ready_state());
        state.is_ok_and(|state| state == RTCDataChannelState::Open)
    }

    pub fn wait_open(&self) {
        loop {
            match self.event() {
                Some(DataChannelEvent::OnOpen) => return,
                Some(DataChannelEvent::OnBufferedAmountLow) => {}
                other => panic!("a channel should open: {other:?}"),
            }
        }
    }

    /// Sends bytes in messages of at most [`MESSAGE`].
    pub fn send(&self, bytes: &[u8]) {
        self.send_by(bytes, MESSAGE);
    }

    pub fn send_by(&self, bytes: &[u8], size: usize) {
        for piece in bytes.chunks(size) {
            let sent = self.runtime.block_on(async {
                let sending = self.inner.send(BytesMut::from(piece));
                tokio::time::timeout(PATIENCE, sending).await
            });
            sent.expect("a message to be taken").expect("send");
        }
    }

    /// Sends one message, however long it takes until there is room.
    pub fn send_patiently(&self, message: &[u8]) {
        let sent = self.runtime.block_on(self.inner.send(message.into()));
        sent.expect("send");
    }

    /// Waits until the other end has acknowledged everything.
    pub fn wait_sent(&self) {
        eventually("all to be acknowledged", || {
            let left = self.runtime.block_on(self.inner.outstanding_bytes());
            (left.expect("ask how much is left") == 0).then_some(())
        });
    }

    /// Returns the next message; `None` at the channel's end.
    pub fn next(&self) -> Option<Vec<u8>> {
        loop {
            match self.event() {
                Some(DataChannelEvent::OnMessage(message)) => {
                    assert!(message.data.len() <= MESSAGE, "{}", message.data.len());
                    return Some(message.data.to_vec());
                }
                None | Some(DataChannelEvent::OnClose) => return None,
                Some(_) => {}
            }
        }
    }

    /// Reads `count` bytes.
    pub fn read(&self, count: usize) -> Vec<u8> {
        let mut rest = self.rest.lock().unwrap();
        while rest.len() < count {
            match self.next() {
                Some(more) => rest.extend(more),
                None => panic!("the channel has ended after {} bytes", rest.len()),
            }
        }
        let more = rest.split_off(count);
        std::mem::replace(&mut rest, more)
    }

    /// Reads up to the end.
    pub fn read_to_end(&self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut *self.rest.lock().unwrap());
        bytes.extend(std::iter::from_fn(|| self.next()).flatten());
        bytes
    }

    pub fn close(&self) {
        self.runtime.block_on(self.inner.close()).expect("close");
    }
}
