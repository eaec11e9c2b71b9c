//! WebSocket through a tunnel, with the server and client of python3-websockets.

use crate::common::gt::{client, client_of_id1, server, server_of_id1};
use crate::common::{certs, websocket};

#[test]
fn websocket_messages_of_every_size_come_back() {
    let service = websocket::start();
    let mut server = server_of_id1("");
    let addr = server.addr();
    let _client = client_of_id1(addr, &format!("-local http://{}", service.addr));
    let url = format!("ws://id1.example.com:{}/", addr.port());
    assert_eq!(websocket::talk(&url, addr, None), "all came back\n");
}

#[test]
fn websocket_messages_come_back_where_the_host_is_rewritten() {
    let service = websocket::start();
    let mut server = server_of_id1("");
    let addr = server.addr();
    let local = format!("-useLocalAsHTTPHost -local http://{}", service.addr);
    let _client = client_of_id1(addr, &local);
    let url = format!("ws://id1.example.com:{}/", addr.port());
    assert_eq!(websocket::talk(&url, addr, None), "all came back\n");
}

#[test]
fn websocket_over_tls_is_decrypted_at_the_server() {
    let (certs, service) = (certs::make(), websocket::start());
    let mut server = server(&format!(
        "-addr \"\" -tlsAddr 127.0.0.1:0 {} -id id1 -secret secret1",
        certs.flags()
    ));
    let addr = server.tls_addr();
    let mut client = client(&format!(
        "-local http://{} -remote tls://{addr} -remoteCert {} -id id1 -secret secret1",
        service.addr,
        certs.ca.display()
    ));
    client.wait_for_tunnel();
    let url = format!("wss://id1.example.com:{}/", addr.port());
    let said = websocket::talk(&url, addr, Some(&certs.ca));
    assert_eq!(said, "all came back\n");
}
