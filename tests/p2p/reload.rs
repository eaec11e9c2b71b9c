//! Peers of a client whose configuration changes.

use crate::common::filed::Filed;
use crate::common::gt::server_of_id1;
use crate::common::ports::free_port;
use crate::common::service::echo;
use crate::common::signal::{Layer, Signal};
use crate::common::webrtc::Peer;
use serde_json::json;

const HOST: &str = "id1.example.com";

#[test]
fn peers_that_keep_their_port_after_a_change_of_ports_are_found_and_told_the_end() {
    let mut server = server_of_id1("-stunAddr 127.0.0.1:0 ");
    let (remote, stun, echo) = (server.addr(), server.stun_addr(), echo());
    let local = echo.addr;
    let text = move |ports: &str| {
        format!(
            "options: {{remote: \"tcp://{remote}\", id: id1, secret: secret1, logLevel: debug, \
             remoteSTUN: \"stun:{stun}\"{ports}}}\nservices:\n- {{local: \"http://{local}\"}}\n"
        )
    };
    let range = |port: u16| format!(", webrtcMinPort: {port}, webrtcMaxPort: {port}");
    let mut client = Filed::start("client", text, &range(free_port()));
    client.gt.wait_for_tunnel();
    let peer = Peer::new();
    let channel = peer.channel("");
    let mut signal = Signal::start(remote, HOST, "", Layer::Plain);
    signal.say(&json!({"type": "offer", "sdp": peer.offer()}));
    signal.finish();
    assert_eq!(signal.status(), 200);
    let answer = signal.next().expect("an answer");
    peer.take_answer(&answer);
    while let Some(message) = signal.next() {
        peer.take_candidate(message["candidate"].as_str().expect("a candidate"));
    }
    channel.wait_open();
    let sdp = answer["sdp"].as_str().expect("an sdp");
    let ufrag = sdp
        .lines()
        .find_map(|line| line.strip_prefix("a=ice-ufrag:"));
    let ufrag = ufrag.expect("a fragment").trim();
    let port = free_port();
    client.reload(&range(port));
    // Its addresses are exchanged as before: those of its own socket.
    let lines = format!("WebRTC-OP: candidates\r\nWebRTC-Peer: {ufrag}\r\n");
    let mut signal = Signal::start(remote, HOST, &lines, Layer::Plain);
    signal.finish();
    assert_eq!(signal.status(), 200);
    let told = signal.next().expect("an address");
    let told = told["candidate"].as_str().expect("a candidate");
    assert_ne!(
        told.split(' ').nth(5),
        Some(port.to_string().as_str()),
        "{told}"
    );
    channel.send(b"still there");
    assert_eq!(channel.next().as_deref(), Some(&b"still there"[..]));
    assert!(client.gt.gone_peers().is_empty());
    // The end waits until each peer has been told.
    client.gt.stop();
    assert_eq!(client.gt.gone_peers().len(), 1);
}
