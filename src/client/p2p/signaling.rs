//! P2P signaling requests of visitors and their responses (docs/p2p.md, "Signaling"). The stream is
//! a visitor's like any other; nothing in it is trusted.

use super::checks::IceRole;
use super::driver::CONNECT_TIMEOUT;
use super::endpoint::Endpoint;
use super::limit::PeerPermit;
use super::link::PeerHandle;
use super::message::{MessageReader, SignalingMessage};
use super::sdp::{self, Description};
use super::{begin, host_candidates, P2p, P2pError, MAPPED, NOT_OPEN};
use crate::net::http::chunked::{self, within, Chunks};
use crate::net::http::reply;
use crate::net::{clock, timeout, tls, Conn};
use crate::tunnel::Stream;
use futures_lite::io::{split, ReadHalf, WriteHalf};
use futures_lite::{future, AsyncRead, AsyncReadExt, AsyncWriteExt};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Maximum length in bytes of a request's head.
const MAX_HEAD: usize = 16 * 1024;
const FIELDS: usize = 64;
/// Timeout for a request up to its first message.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Time that the gateway has to open a port, beside the answers of STUN servers.
const GATEWAY_TIMEOUT: Duration = Duration::from_secs(5);
/// The header that lets pages of any origin send these requests: they could reach the same services
/// through the server.
const CORS: &str = "Access-Control-Allow-Origin: *\r\n";

/// The operation of a request with further addresses of a peer, and the header with the peer's name.
pub const CANDIDATES: &str = "candidates";
pub const PEER: &str = "WebRTC-Peer";

/// The header that asks a client to relay a connection; its response repeats it.
pub const RELAY: &str = "WebRTC-OP: relay";

/// A request, reduced to the fields that signaling needs.
pub struct SignalingRequest {
    op: SignalingOp,
    body: SignalingBody,
    /// Bytes of the body that came with the head.
    rest: Vec<u8>,
}

enum SignalingOp {
    Offer,
    GetOffer,
    Answer(Option<u32>),
    /// Addresses of the peer to which this end has this ICE user fragment, when it cannot be reached at the earlier
    /// ones.
    Candidates(String),
    /// Relay the connection unchanged, for an end without a direct connection to the service of
    /// this label.
    Relay(String),
    Unknown,
}

/// The part of a body that is still to come.
enum SignalingBody {
    Length(u64),
    Chunked(Chunks),
    None,
}

/// A stream that asks for a relay to a service instead of a peer.
pub struct RelayRequest {
    pub stream: Stream,
    /// The label, which names the service as that of a data channel does.
    pub label: String,
    /// The head of the response that accepts the request.
    pub head: String,
    /// Bytes for the service that came with the request.
    pub already: Vec<u8>,
}

/// Serves a stream that begins with `XP `, unless it asks for a relay: the caller has to connect
/// that to the service.
pub async fn answer(p2p: &P2p, mut stream: Stream) -> io::Result<Option<RelayRequest>> {
    if !is_on(p2p) {
        let why = "P2P is disabled: remoteSTUN is not set";
        refuse(&mut stream, "403 Forbidden", why).await?;
        return Ok(None);
    }
    let reading = timeout(REQUEST_TIMEOUT, read_head(&mut stream)).await;
    let head = reading.transpose()?.flatten();
    let Some(request) = head.and_then(|head| SignalingRequest::parse(&head)) else {
        refuse(&mut stream, "400 Bad Request", "the request is malformed").await?;
        return Ok(None);
    };
    match request.op {
        SignalingOp::Offer | SignalingOp::GetOffer if p2p.context.stop.is_triggered() => {
            too_many(&mut stream).await
        }
        SignalingOp::Offer => match p2p.reserve() {
            Some(permit) => take_offer(p2p, stream, request, permit).await,
            None => too_many(&mut stream).await,
        },
        SignalingOp::GetOffer => match p2p.reserve() {
            Some(permit) => make_offer(p2p, stream, permit).await,
            None => too_many(&mut stream).await,
        },
        SignalingOp::Answer(Some(number)) => take_answer(p2p, stream, request, number).await,
        SignalingOp::Candidates(ref ufrag) => {
            let ufrag = ufrag.clone();
            take_addresses(p2p, stream, request, &ufrag).await
        }
        SignalingOp::Relay(label) if !P2p::admits(&p2p.is_open, &label) => {
            refuse(&mut stream, "403 Forbidden", NOT_OPEN).await
        }
        SignalingOp::Relay(label) => {
            return Ok(Some(RelayRequest {
                stream,
                label,
                head: reply::head("200 OK", &format!("{CORS}{RELAY}\r\n"), None),
                already: request.rest,
            }))
        }
        SignalingOp::Answer(None) | SignalingOp::Unknown => {
            let why = "no such WebRTC-OP, or no WebRTC-OP-ID";
            refuse(&mut stream, "400 Bad Request", why).await
        }
    }?;
    Ok(None)
}

/// Whether the configuration enables peers.
pub fn is_on(p2p: &P2p) -> bool {
    // Private services are for peers alone, and need no STUN server.
    p2p.is_open.load(Ordering::Relaxed) || p2p.context().services().has_private()
}

/// Serves a stream that begins with `OPTIONS ` if it is the preflight of an `XP` request. Otherwise
/// returns the bytes that were read.
pub async fn preflight(stream: &mut Stream) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    timeout(REQUEST_TIMEOUT, read_to_end_of_head(stream, &mut head))
        .await
        .transpose()?;
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    let is_whole = parsed.parse(&head).is_ok_and(|status| status.is_complete());
    let asks = is_whole
        && parsed.headers.iter().any(|field| {
            field
                .name
                .eq_ignore_ascii_case("Access-Control-Request-Method")
                && field.value == b"XP"
        });
    if !asks {
        return Ok(Some(head));
    }
    let fields = format!(
        "{CORS}Access-Control-Allow-Methods: XP\r\n\
         Access-Control-Allow-Headers: WebRTC-OP, WebRTC-OP-ID, Content-Type\r\n\
         Access-Control-Allow-Private-Network: true\r\nAccess-Control-Max-Age: 600\r\n"
    );
    let answer = reply::head("204 No Content", &fields, None);
    stream.write_all(answer.as_bytes()).await?;
    Ok(None)
}

async fn too_many(stream: &mut Stream) -> io::Result<()> {
    let why = "there are too many peers";
    refuse(stream, "503 Service Unavailable", why).await
}

async fn refuse(stream: &mut Stream, status: &str, why: &str) -> io::Result<()> {
    let fields = format!("{CORS}Content-Type: text/plain\r\n");
    let answer = reply::head(status, &fields, Some(why.len() + 1)) + why + "\n";
    stream.write_all(answer.as_bytes()).await?;
    stream.close().await
}

/// Reads up to the end of the head, or the maximum length of one.
pub async fn read_to_end_of_head(
    stream: &mut (impl AsyncRead + Unpin),
    head: &mut Vec<u8>,
) -> io::Result<()> {
    let mut piece = [0; 1024];
    loop {
        let from = head.len().saturating_sub(3);
        match stream.read(&mut piece).await? {
            0 => return Ok(()),
            n => head.extend_from_slice(piece.get(..n).unwrap_or_default()),
        }
        let new = head.get(from..).unwrap_or_default();
        if new.windows(4).any(|four| four == b"\r\n\r\n") || head.len() > MAX_HEAD {
            return Ok(());
        }
    }
}

async fn read_head(stream: &mut Stream) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    read_to_end_of_head(stream, &mut head).await?;
    Ok((!head.is_empty()).then_some(head))
}

impl SignalingRequest {
    /// Parses a head and the bytes behind it; `None` if the head is incomplete or malformed.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut parsed = httparse::Request::new(&mut fields);
        let httparse::Status::Complete(length) = parsed.parse(bytes).ok()? else {
            return None;
        };
        let field = |name: &str| {
            let mut fields = parsed.headers.iter();
            let field = fields.find(|field| field.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(field.value).ok().map(str::trim)
        };
        let op = match field("WebRTC-OP") {
            None => SignalingOp::Offer,
            Some("get-offer") => SignalingOp::GetOffer,
            Some("resp-answer") => {
                SignalingOp::Answer(field("WebRTC-OP-ID").and_then(|id| id.parse().ok()))
            }
            Some(CANDIDATES) => SignalingOp::Candidates(field(PEER).unwrap_or_default().to_owned()),
            Some("relay") => {
                SignalingOp::Relay(field("WebRTC-Label").unwrap_or_default().to_owned())
            }
            Some(_) => SignalingOp::Unknown,
        };
        let chunked =
            field("Transfer-Encoding").is_some_and(|it| it.eq_ignore_ascii_case("chunked"));
        let body = match field("Content-Length") {
            _ if chunked => SignalingBody::Chunked(Chunks::new()),
            Some(length) => SignalingBody::Length(length.parse().ok()?),
            None => SignalingBody::None,
        };
        let rest = bytes.get(length..).unwrap_or_default().to_vec();
        Some(Self { op, body, rest })
    }

    /// Returns the next messages of the body; `None` at its end. Errors are the sender's.
    pub async fn next(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        reader: &mut MessageReader,
    ) -> io::Result<Option<SignalingMessage>> {
        let read = |cx: &mut Context<'_>, buf: &mut [u8]| Pin::new(&mut *stream).poll_read(cx, buf);
        self.body.next(&mut self.rest, reader, read).await
    }
}

/// The head of another client's response to a request of this client.
pub struct SignalingResponse {
    /// The status code.
    pub status: u16,
    /// Whether the relayed connection follows.
    pub relays: bool,
    body: SignalingBody,
    /// Bytes that have come behind the head.
    pub rest: Vec<u8>,
}

impl SignalingResponse {
    /// Reads a response up to the end of its head.
    pub async fn read(conn: &Conn) -> io::Result<Self> {
        let mut bytes = Vec::new();
        loop {
            let mut piece = [0; 1024];
            let n = conn.read(&mut piece).await?;
            bytes.extend_from_slice(piece.get(..n).unwrap_or_default());
            let mut fields = [httparse::EMPTY_HEADER; FIELDS];
            let mut parsed = httparse::Response::new(&mut fields);
            let status = parsed.parse(&bytes).map_err(io::Error::other)?;
            if let httparse::Status::Complete(length) = status {
                let has = |name: &str, value: &str| {
                    parsed.headers.iter().any(|field| {
                        field.name.eq_ignore_ascii_case(name)
                            && field.value.eq_ignore_ascii_case(value.as_bytes())
                    })
                };
                let chunked = has("Transfer-Encoding", "chunked");
                let relays = has("WebRTC-OP", "relay");
                let body = match chunked {
                    true => SignalingBody::Chunked(Chunks::new()),
                    // Up to the end of the connection.
                    false => SignalingBody::Length(u64::MAX),
                };
                return Ok(Self {
                    status: parsed.code.unwrap_or_default(),
                    relays,
                    body,
                    rest: bytes.split_off(length),
                });
            }
            if n == 0 || bytes.len() > MAX_HEAD {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Returns the next message; `None` at the end.
    pub async fn next(
        &mut self,
        conn: &Conn,
        reader: &mut MessageReader,
    ) -> io::Result<Option<SignalingMessage>> {
        let read = |cx: &mut Context<'_>, buf: &mut [u8]| conn.poll_read(cx, buf);
        self.body.next(&mut self.rest, reader, read).await
    }
}

impl SignalingBody {
    /// Adds bytes of the body. False if they are malformed.
    fn take(&mut self, mut bytes: &[u8], reader: &mut MessageReader) -> bool {
        match self {
            Self::None => true,
            Self::Length(left) => {
                let (n, rest) = within(*left, bytes.len());
                *left = rest;
                reader.feed(bytes.get(..n).unwrap_or_default())
            }
            Self::Chunked(chunks) => {
                while !bytes.is_empty() && *chunks != Chunks::Last {
                    if !chunks.data(&mut bytes).is_ok_and(|data| reader.feed(data)) {
                        return false;
                    }
                }
                if *chunks == Chunks::Last {
                    *self = Self::None;
                }
                true
            }
        }
    }

    /// Returns the next message of the body; `None` at its end. `rest` are bytes of the body that
    /// were read and not used yet. Fails if `poll_read` does, or if the body is malformed.
    async fn next<P>(
        &mut self,
        rest: &mut Vec<u8>,
        reader: &mut MessageReader,
        mut poll_read: P,
    ) -> io::Result<Option<SignalingMessage>>
    where
        P: FnMut(&mut Context<'_>, &mut [u8]) -> Poll<io::Result<usize>>,
    {
        loop {
            match reader.next() {
                Some(Ok(message)) => return Ok(Some(message)),
                Some(Err(())) => return Err(io::ErrorKind::InvalidData.into()),
                None => {}
            }
            if rest.is_empty() {
                if matches!(self, Self::None | Self::Length(0)) {
                    return Ok(None);
                }
                let mut piece = [0; 2048];
                match poll_fn(|cx| poll_read(cx, &mut piece)).await? {
                    0 => return Ok(None),
                    n => rest.extend_from_slice(piece.get(..n).unwrap_or_default()),
                }
            }
            if !self.take(&std::mem::take(rest), reader) {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
}

async fn begin_answer(writer: &mut WriteHalf<Stream>) -> io::Result<()> {
    let fields = format!(
        "{CORS}Content-Type: application/octet-stream\r\nCache-Control: no-store\r\n\
         Transfer-Encoding: chunked\r\n"
    );
    let head = reply::head("200 OK", &fields, None);
    writer.write_all(head.as_bytes()).await
}

async fn say(writer: &mut WriteHalf<Stream>, bytes: &[u8]) -> io::Result<()> {
    writer.write_all(&chunk(bytes)).await
}

/// Encodes a chunk of HTTP's chunked coding.
pub fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = Vec::new();
    chunked::write(bytes, &mut chunk);
    chunk
}

/// The candidates for the public addresses of this end: as STUN servers see them, and the port that the gateway has
/// opened. Each comes when it is known.
pub struct PublicCandidates<'a> {
    endpoint: &'a Endpoint,
    servers: std::vec::IntoIter<String>,
    /// Up to when the gateway is waited for; `None` once it has answered.
    gateway: Option<Instant>,
    /// The servers that tell the kind of the NAT; empty once it is known.
    of_nat: Vec<String>,
    told: Vec<SocketAddr>,
}

impl<'a> PublicCandidates<'a> {
    /// Starts with none.
    pub fn new(p2p: &P2p, endpoint: &'a Endpoint) -> Self {
        Self {
            endpoint,
            servers: p2p.stun().into_iter(),
            of_nat: p2p.stun(),
            gateway: Some(clock::now() + GATEWAY_TIMEOUT),
            told: Vec::new(),
        }
    }

    /// Leaves the kind of the NAT out, which takes time: for peers that wait for the last candidate, as browsers do that
    /// ask for an offer.
    fn without_nat(mut self) -> Self {
        self.of_nat.clear();
        self
    }

    /// Waits for the next candidate; `None` after the last one.
    pub async fn next(&mut self) -> Option<String> {
        // At once, if the port was mapped before.
        if let Some(mapped) = self.mapped(clock::now()).await {
            return Some(mapped);
        }
        while let Some(server) = self.servers.next() {
            let Some(addr) = self.endpoint.reflexive(&server).await else {
                continue;
            };
            if let Some(candidate) = self.tell(addr, "s") {
                return Some(candidate);
            }
        }
        let of_nat = std::mem::take(&mut self.of_nat);
        // A mapped port needs no way through the NAT, and an end without NAT has no hard one.
        let reflexive = self.told.first().filter(|_| self.gateway.is_some());
        if let (Some(addr), false) = (reflexive, of_nat.is_empty()) {
            if let Some(nat) = self.endpoint.learn_nat(&of_nat, *addr).await {
                let candidate = self.format(nat.addr.into(), "s");
                return Some(format!("{candidate} {}", nat.attribute()));
            }
        }
        self.mapped(self.gateway?).await
    }

    async fn mapped(&mut self, deadline: Instant) -> Option<String> {
        self.gateway?;
        let addr = self.endpoint.mapped(deadline).await?;
        self.gateway = None;
        self.tell(addr, MAPPED)
    }

    /// Formats an address as a candidate, unless it has been told.
    fn tell(&mut self, addr: SocketAddr, foundation: &str) -> Option<String> {
        // Without NAT it is an address of this machine.
        if self.told.contains(&addr) || self.endpoint.hosts().contains(&addr) {
            return None;
        }
        let candidate = self.format(addr, foundation);
        self.told.push(addr);
        Some(candidate)
    }

    fn format(&self, addr: SocketAddr, foundation: &str) -> String {
        let number = self.told.len();
        // Type preference, local preference, component (RFC 8445, section 5.1.2).
        let priority = (100u32 << 24) | (65_535 << 8) | 255;
        format!(
            "candidate:{foundation}{number} 1 udp {priority} {} {} typ srflx raddr 0.0.0.0 rport 0",
            addr.ip(),
            addr.port()
        )
    }
}

/// Sends the addresses of this machine, then the public ones.
async fn send_candidates(
    mut public: PublicCandidates<'_>,
    writer: &mut WriteHalf<Stream>,
    hosts: Vec<String>,
) -> io::Result<()> {
    for host in hosts {
        say(writer, &SignalingMessage::Candidate(host).write()).await?;
    }
    while let Some(candidate) = public.next().await {
        say(writer, &SignalingMessage::Candidate(candidate).write()).await?;
    }
    Ok(())
}

/// Processes candidates until the body ends or is malformed.
async fn take_candidates(
    link: &PeerHandle,
    request: &mut SignalingRequest,
    stream: &mut ReadHalf<Stream>,
    reader: &mut MessageReader,
) {
    while let Ok(Some(message)) = request.next(stream, reader).await {
        if let SignalingMessage::Candidate(candidate) = message {
            link.with(|peer| peer.add_remote(&candidate, clock::now()));
        }
    }
}

async fn first_message(
    request: &mut SignalingRequest,
    stream: &mut Stream,
    reader: &mut MessageReader,
) -> Option<SignalingMessage> {
    timeout(REQUEST_TIMEOUT, request.next(stream, reader))
        .await?
        .ok()?
}

async fn take_offer(
    p2p: &P2p,
    mut stream: Stream,
    mut request: SignalingRequest,
    permit: PeerPermit,
) -> io::Result<()> {
    let mut reader = MessageReader::default();
    let reading = async { Some(first_message(&mut request, &mut stream, &mut reader).await) };
    let revoked = async {
        permit.revoked().await;
        None
    };
    let Some(first) = future::or(reading, revoked).await else {
        return too_many(&mut stream).await;
    };
    let Some(SignalingMessage::Offer(offer)) = first else {
        return refuse(&mut stream, "400 Bad Request", "the offer is malformed").await;
    };
    let offer = match Description::parse(&offer) {
        Ok(offer) => offer,
        Err(why) => return refuse(&mut stream, "400 Bad Request", why).await,
    };
    let endpoint = match p2p.endpoint() {
        Ok(endpoint) => endpoint,
        Err(e) => return failed(&mut stream, &e).await,
    };
    let begun = begin(
        p2p,
        endpoint.clone(),
        IceRole::Answers,
        Some(permit),
        |peer, identity| {
            let side = offer.side_of_answer();
            let answer = peer.describe(identity, |ours| offer.answer(ours, side));
            peer.connect(identity, &offer, side, clock::now())?;
            Ok(answer)
        },
    );
    let (link, hosts, answer) = match begun {
        Ok(begun) => begun,
        Err(e) => return failed(&mut stream, &e).await,
    };
    let (mut receiving, mut sending) = split(stream);
    let answering = async {
        begin_answer(&mut sending).await?;
        say(&mut sending, &SignalingMessage::Answer(answer).write()).await?;
        send_candidates(PublicCandidates::new(p2p, &endpoint), &mut sending, hosts).await?;
        sending.write_all(chunked::END).await?;
        sending.close().await
    };
    let hearing = async {
        let more = take_candidates(&link, &mut request, &mut receiving, &mut reader);
        let settled = async {
            link.connected().await;
        };
        timeout(CONNECT_TIMEOUT, future::or(more, settled)).await;
    };
    future::zip(answering, hearing).await.0
}

async fn make_offer(p2p: &P2p, mut stream: Stream, permit: PeerPermit) -> io::Result<()> {
    let endpoint = match p2p.endpoint() {
        Ok(endpoint) => endpoint,
        Err(e) => return failed(&mut stream, &e).await,
    };
    let begun = begin(
        p2p,
        endpoint.clone(),
        IceRole::Offers,
        Some(permit),
        |peer, identity| Ok(peer.describe(identity, sdp::offer)),
    );
    let (link, hosts, offer) = match begun {
        Ok(begun) => begun,
        Err(e) => return failed(&mut stream, &e).await,
    };
    let mut number = [0; 4];
    if tls::fill_random(&mut number).is_err() {
        link.with(|peer| peer.end("the system has no random numbers"));
        return Ok(());
    }
    let number = u32::from_ne_bytes(number);
    {
        let mut inner = p2p.lock();
        let waits = |link: &PeerHandle| *link.lock().state() == super::peer::PeerState::Connecting;
        inner.offered.retain(|_, link| waits(link));
        inner.offered.insert(number, link);
    }
    let (_, mut sending) = split(stream);
    begin_answer(&mut sending).await?;
    say(&mut sending, &SignalingMessage::Offer(offer).write()).await?;
    let public = PublicCandidates::new(p2p, &endpoint).without_nat();
    send_candidates(public, &mut sending, hosts).await?;
    say(&mut sending, format!("{{\"id\":{number}}}").as_bytes()).await?;
    sending.write_all(chunked::END).await?;
    sending.close().await
}

async fn take_answer(
    p2p: &P2p,
    mut stream: Stream,
    mut request: SignalingRequest,
    number: u32,
) -> io::Result<()> {
    let mut reader = MessageReader::default();
    let first = first_message(&mut request, &mut stream, &mut reader).await;
    let Some(SignalingMessage::Answer(answer)) = first else {
        return refuse(&mut stream, "400 Bad Request", "the answer is malformed").await;
    };
    let answer = match Description::parse(&answer) {
        Ok(answer) => answer,
        Err(why) => return refuse(&mut stream, "400 Bad Request", why).await,
    };
    let link = p2p.lock().offered.remove(&number);
    let Some(link) = link else {
        return refuse(
            &mut stream,
            "404 Not Found",
            "there is no such offer, or it has expired",
        )
        .await;
    };
    let identity = p2p.endpoint().map(|endpoint| endpoint.identity.clone());
    let connecting = identity.and_then(|identity| {
        link.with(|peer| peer.connect(&identity, &answer, answer.side_of_offer(), clock::now()))
    });
    if let Err(e) = connecting {
        return failed(&mut stream, &e).await;
    }
    let (mut receiving, mut sending) = split(stream);
    let more = take_candidates(&link, &mut request, &mut receiving, &mut reader);
    let settled = async {
        link.connected().await;
    };
    timeout(CONNECT_TIMEOUT, future::or(more, settled)).await;
    let head = reply::head("200 OK", CORS, Some(0));
    sending.write_all(head.as_bytes()).await?;
    sending.close().await
}

/// Takes further addresses of a connected peer, and answers with those that this end has now.
async fn take_addresses(
    p2p: &P2p,
    mut stream: Stream,
    mut request: SignalingRequest,
    ufrag: &str,
) -> io::Result<()> {
    let Some((endpoint, link)) = p2p.peer(ufrag) else {
        return refuse(&mut stream, "404 Not Found", "there is no such peer").await;
    };
    if !link.lock().may_exchange(clock::now()) {
        let why = "the addresses of the peer have been exchanged too often";
        return refuse(&mut stream, "429 Too Many Requests", why).await;
    }
    endpoint.forget_reflexive();
    let (mut receiving, mut sending) = split(stream);
    let mut reader = MessageReader::default();
    let hearing = take_candidates(&link, &mut request, &mut receiving, &mut reader);
    let hearing = timeout(REQUEST_TIMEOUT, hearing);
    let public = PublicCandidates::new(p2p, &endpoint).without_nat();
    let answering = async {
        begin_answer(&mut sending).await?;
        send_candidates(public, &mut sending, host_candidates(&endpoint)).await?;
        sending.write_all(chunked::END).await?;
        sending.close().await
    };
    future::zip(answering, hearing).await.0
}

async fn failed(stream: &mut Stream, e: &P2pError) -> io::Result<()> {
    log::warn!("P2P: {e}");
    refuse(
        stream,
        "503 Service Unavailable",
        "no peer can be created; the log says why",
    )
    .await
}
