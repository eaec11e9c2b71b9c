//! The programs of the other tests work without a tunnel between them. If a test in here fails, the
//! machine is at fault, not gt.

use crate::common::curl::{curl, https};
use crate::common::hello::{cutter, Cut};
use crate::common::samples::{assert_same, random_file};
use crate::common::scratch::Scratch;
use crate::common::{certs, nginx, service, smbd, sshd, visitor, websocket};

#[test]
fn nginx_serves_and_stores() {
    let certs = certs::make();
    let nginx = nginx::start(Some(&certs));
    let http = nginx.http;
    assert_eq!(curl(&format!("http://{http}/")).text(), nginx::INDEX);
    assert_eq!(
        curl(&format!("--compressed http://{http}/zipped/lines")).text(),
        nginx::lines()
    );
    let page = https("id1.example.com", nginx.https, &certs.ca, "");
    assert_eq!(page.text(), nginx::INDEX);
    // openssl accepts a ClientHello in pieces.
    for cut in [Cut::Bytes, Cut::Records(1), Cut::Records(100)] {
        let cutter = cutter(nginx.https, cut);
        let page = https("id1.example.com", cutter.addr, &certs.ca, "");
        assert_eq!(page.text(), nginx::INDEX);
    }
    let sample = random_file(100);
    let put = format!("-T {} http://{http}/upload/up", sample.display());
    assert_eq!(curl(&put).code, 0);
    assert_same(&sample, &nginx.stored("up"));
}

#[test]
fn sshd_accepts_ssh_and_scp() {
    let sshd = sshd::start();
    let scratch = Scratch::new();
    let (from, to) = (scratch.file("from", "hello"), scratch.join("to"));
    assert_eq!(
        sshd.ssh(sshd.addr.port(), "echo one; echo two"),
        "one\ntwo\n"
    );
    sshd.copy_to(sshd.addr.port(), &from, &to);
    assert_same(&from, &to);
}

#[test]
fn smbd_accepts_smbclient() {
    let smbd = smbd::start();
    let scratch = Scratch::new();
    let from = scratch.file("from", "hello");
    let put = format!("put {} up", from.display());
    smbd.smbclient(smbd.addr.port(), &put);
    assert_same(&from, &smbd.shared("up"));
}

#[test]
fn websocket_server_and_client_work_together() {
    let server = websocket::start();
    let url = format!("ws://{}/", server.addr);
    assert_eq!(websocket::talk(&url, server.addr, None), "all came back\n");
}

#[test]
fn the_small_services_work() {
    service::assert_echo_at(service::echo().addr);
    let http = service::http(0, "here");
    assert_eq!(visitor::get(http.addr, "a.b", "/x").text(), "here /x a.b");
    let unanswering = service::unanswering();
    let limit = std::time::Duration::from_millis(300);
    let error = std::net::TcpStream::connect_timeout(&unanswering.addr, limit).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}
