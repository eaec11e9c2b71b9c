//! A client that asks a remoteAPI for its server's address. The API and the servers are written by
//! hand.

use crate::common;
use crate::common::api::{self, answer, Api};
use crate::common::gt::{client, Gt};
use crate::common::peer::gt1::{data, first, hello, PeerServer};
use crate::common::peer::ID_ALONE;
use crate::common::service;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

/// The hello of every client in this file.
fn id1() -> Vec<u8> {
    hello("id&1", "secret1", &ID_ALONE)
}

/// Starts a client that asks `api`.
fn asking(api: &Api, more: &str) -> Gt {
    let url = format!("http://{}/where?key=k1", api.addr);
    client(&format!(
        "-wire 1 -remoteAPI {url} -id id&1 -secret secret1 -reconnectDelay 100ms {more}"
    ))
}

/// Returns the API's response for a server at `addr`.
fn at(addr: SocketAddr) -> Vec<u8> {
    let json = serde_json::json!({"serverAddress": format!("tcp://{addr}")});
    answer(200, &json.to_string())
}

/// Starts an API with a response that the test can change.
fn saying(first: Vec<u8>) -> (Api, Arc<Mutex<Vec<u8>>>) {
    let say = Arc::new(Mutex::new(first));
    let said = say.clone();
    let api = api::start(0, move |_| said.lock().unwrap().clone());
    (api, say)
}

#[cfg(feature = "p2p")]
#[test]
fn the_log_names_the_stun_servers_of_the_configuration() {
    let here = PeerServer::start();
    let stun = "-remoteSTUN stun:stun.example.com:3478 -local http://127.0.0.1:1";
    let remote = here.addr;
    let line = format!("-remote tcp://{remote} -id id1 -secret secret1 {stun}");
    let mut fixed_client = client(&line);
    let fixed = format!("remote url remote=tcp://{remote} stun=stun:stun.example.com:3478");
    fixed_client.wait_for(&fixed);
    let (api, _) = saying(at(remote));
    let mut client = asking(&api, stun);
    client.wait_for(&fixed);
}

#[test]
fn the_api_is_asked_before_each_connection() {
    let (here, there) = (PeerServer::start(), PeerServer::start());
    let json = serde_json::json!({
        "serverAddress": here.addr.to_string(),
        "stunAddress": "stun.example.com:3478",
    });
    let (api, say) = saying(answer(200, &json.to_string()));
    let mut client = asking(&api, "-local http://127.0.0.1:1");
    let tunnel = here.accept_ready(&id1());
    client.wait_for(&format!(
        "remote url remote=tcp://{} stun=stun.example.com:3478",
        here.addr
    ));

    *say.lock().unwrap() = at(there.addr);
    tunnel.shutdown();
    let _tunnel = there.accept_ready(&id1());
    client.wait_for(&format!("remote url remote=tcp://{} stun=", there.addr));

    let requests = [api.request(), api.request()];
    for request in &requests {
        assert_eq!(request.line, "GET /where?key=k1&network_client_id=id%261");
        let id = request.field("Request-Id").expect("a Request-Id");
        assert!(
            id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()),
            "{id}"
        );
    }
    assert_ne!(
        requests[0].field("Request-Id"),
        requests[1].field("Request-Id")
    );
    assert!(!client.log().contains("k1"), "a key shows");
}

#[test]
fn a_changed_host_leaves_running_tunnels_alone() {
    let (here, there, echo) = (PeerServer::start(), PeerServer::start(), service::echo());
    let (api, say) = saying(at(here.addr));
    let more = format!("-local http://{} -remoteIdleConnections 2", echo.addr);
    let _client = asking(&api, &more);
    let mut stays = here.accept_ready(&id1());
    let goes = here.accept_ready(&id1());
    stays.send(&first(1, 0, b"one"));
    assert_eq!(stays.gather(1, 3), b"one");

    *say.lock().unwrap() = at(there.addr);
    goes.shutdown();
    let mut came = there.accept_ready(&id1());
    stays.send(&data(1, b"two"));
    assert_eq!(stays.gather(1, 3), b"two");
    came.send(&first(1, 0, b"three"));
    assert_eq!(came.gather(1, 5), b"three");
}

#[test]
fn additional_tunnels_go_to_the_same_server() {
    let (here, there, echo) = (PeerServer::start(), PeerServer::start(), service::echo());
    let (api, say) = saying(at(here.addr));
    let _client = asking(&api, &format!("-local http://{}", echo.addr));
    let mut tunnel = here.accept_ready(&id1());
    *say.lock().unwrap() = at(there.addr);
    for stream in 1..=3 {
        tunnel.send(&first(stream, 0, b"x"));
    }
    here.accept_ready(&id1());
    assert_eq!(api.more_requests(), 1);
}

#[test]
fn an_api_that_fails_is_asked_again_and_the_log_says_why() {
    let server = PeerServer::start();
    let (api, say) = saying(answer(500, ""));
    let mut client = asking(&api, "-local http://127.0.0.1:1");
    for (answer, why) in [
        (answer(500, ""), "it answered with status 500; "),
        (
            answer(200, r#"{"serverAddress": "udp://h"}"#),
            "unexpected answer: \"udp://h\" is not a server's address: ",
        ),
        (Vec::new(), "it closed the connection without an answer; "),
    ] {
        *say.lock().unwrap() = answer;
        let line = client.wait_for(&format!(
            "cannot get the server's address from remoteAPI: {why}"
        ));
        let again = format!("; trying http://{}/where?****** again in ", api.addr);
        assert!(line.contains(" WRN ") && line.contains(&again), "{line}");
    }
    *say.lock().unwrap() = at(server.addr);
    server.accept_ready(&id1());
    client.wait_for_tunnel();
}

#[test]
fn an_api_that_keeps_failing_is_asked_less_and_less_often() {
    let (api, _) = saying(answer(503, ""));
    asking(&api, "-local http://127.0.0.1:1").assert_keeps_failing(&["status 503"]);
}

#[test]
fn an_api_that_is_down_at_first_is_waited_for() {
    let port = common::ports::free_port();
    let server = PeerServer::start();
    let mut client = client(&format!(
        "-wire 1 -remoteAPI http://127.0.0.1:{port} -id id&1 -secret secret1 -reconnectDelay 100ms \
         -local http://127.0.0.1:1"
    ));
    client.wait_for(&format!("connecting to 127.0.0.1:{port}: "));
    let there = at(server.addr);
    let api = api::start(port, move |_| there.clone());
    server.accept_ready(&id1());
    assert_eq!(api.request().line, "GET /?network_client_id=id%261");
}

#[test]
fn a_remote_beside_the_api_is_another_server() {
    let (fixed, asked) = (PeerServer::start(), PeerServer::start());
    let (api, _) = saying(at(asked.addr));
    let more = format!("-local http://127.0.0.1:1 -remote tcp://{}", fixed.addr);
    let mut client = asking(&api, &more);
    let _tunnels = (fixed.accept_ready(&id1()), asked.accept_ready(&id1()));
    client.wait_for_tunnels(2);
}
