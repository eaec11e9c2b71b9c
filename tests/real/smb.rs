//! SMB through a tunnel, with smbd behind it and smbclient in front.

use crate::common::gt::tcp_tunnel;
use crate::common::samples::{assert_same, random_file};
use crate::common::scratch::Scratch;
use crate::common::smbd;

#[test]
fn smbclient_puts_and_gets_files() {
    let (smbd, scratch) = (smbd::start(), Scratch::new());
    let (_server, _client, at) = tcp_tunnel(smbd.addr, "", "");
    let port = at.port();

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
