//! SMB through a tunnel, with smbd behind it and smbclient in front.

use crate::common::gt::{client_of_id1, server_of_id1};
use crate::common::samples::{assert_same, random_file};
use crate::common::scratch::Scratch;
use crate::common::{ports::free_port, smbd};

#[test]
fn smbclient_puts_and_gets_files() {
    let (smbd, scratch) = (smbd::start(), Scratch::new());
    let port = free_port();
    let mut server = server_of_id1(&format!("-tcpNumber 1 -tcpRange {port}-{port}"));
    let local = format!("-local tcp://{} -remoteTCPPort {port}", smbd.addr);
    let _client = client_of_id1(server.addr(), &local);

    let (sample, down) = (random_file(50), scratch.join("down"));
    let commands = format!(
        "mkdir folder; put {} folder/up; get folder/up {}",
        sample.display(),
        down.display()
    );
    smbd.smbclient(port, &commands);
    assert_same(&sample, &smbd.shared("folder/up"));
    assert_same(&sample, &down);
    let listing = smbd.smbclient(port, "cd folder; ls");
    assert!(listing.contains(&(50 << 20).to_string()), "{listing}");
}
