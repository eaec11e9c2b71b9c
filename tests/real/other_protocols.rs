//! The errors of a client whose remote is not a gt server.

use crate::common::certs;
use crate::common::gt::{client, server};
use crate::common::service::{self, Service};
use std::io::{Read, Write};
use std::net::SocketAddr;

fn assert_told(scheme: &str, addr: SocketAddr, words: &[&str]) {
    for wire in ["auto", "1"] {
        let mut client = client(&format!(
            "-remote {scheme}://{addr} -wire {wire} -remoteCertInsecure -id id1 -secret secret1 \
             -reconnectDelay 100ms -local http://127.0.0.1:80"
        ));
        client.assert_keeps_failing(words);
    }
}

#[test]
fn a_web_server_is_recognised() {
    // Like nginx, it does not wait for a complete line of an invalid request.
    let web = Service::start(0, |mut stream| {
        let _ = stream.read(&mut [0; 16])?;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    });
    let words = ["a web server answers at this address (HTTP/1.1 400 Bad Request)"];
    assert_told("tcp", web.addr, &words);
    assert_told("tls", web.addr, &["does not speak TLS on this port"]);
}

#[test]
fn an_ssh_server_is_recognised() {
    let ssh = service::banner("SSH-2.0-OpenSSH_9.2p1\r\n");
    let words = ["an SSH server answers at this address (SSH-2.0-OpenSSH_9.2p1)"];
    assert_told("tcp", ssh.addr, &words);
}

#[test]
fn a_tls_port_is_recognised() {
    let certs = certs::make();
    let mut server = server(&format!(
        "-addr \"\" -tlsAddr 127.0.0.1:0 -id id1 -secret secret1 {}",
        certs.flags()
    ));
    assert_told("tcp", server.tls_addr(), &["use tls:// instead of tcp://"]);
}
