//! WebSocket through a tunnel, with the server and client of python3-websockets.

use crate::common::gt::{http_tunnel, tls_tunnel};
use crate::common::{certs, password, websocket};

#[test]
fn websocket_messages_of_every_size_come_back() {
    let service = websocket::start();
    let (_server, _client, addr) = http_tunnel(service.addr, "", "");
    let url = format!("ws://id1.example.com:{}/", addr.port());
    assert_eq!(websocket::talk(&url, addr, None), "all came back\n");
}

#[test]
fn websocket_messages_come_back_where_the_host_is_rewritten() {
    let service = websocket::start();
    let (_server, _client, addr) = http_tunnel(service.addr, "", "-useLocalAsHTTPHost");
    let url = format!("ws://id1.example.com:{}/", addr.port());
    assert_eq!(websocket::talk(&url, addr, None), "all came back\n");
}

#[test]
fn websocket_over_tls_is_decrypted_at_the_server() {
    let (certs, service) = (certs::make(), websocket::start());
    let (_server, _client, addr) = tls_tunnel(&certs, service.addr, "", "");
    let url = format!("wss://id1.example.com:{}/", addr.port());
    let said = websocket::talk(&url, addr, Some(&certs.ca));
    assert_eq!(said, "all came back\n");
}

#[test]
fn websocket_needs_the_password_of_the_service() {
    let service = websocket::start();
    let options = format!("-password {}", password::alice());
    let (_server, _client, addr) = http_tunnel(service.addr, "", &options);
    let url = format!("ws://alice:secret@id1.example.com:{}/", addr.port());
    assert_eq!(websocket::talk(&url, addr, None), "all came back\n");
    let without = format!("ws://alice:wrong@id1.example.com:{}/", addr.port());
    assert!(websocket::refusal(&without, addr).contains("HTTP 401"));
}
