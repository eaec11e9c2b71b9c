//! SSH through a tunnel, with sshd behind it and ssh and scp in front.

use crate::common::gt::tcp_tunnel;
use crate::common::samples::{assert_same, random_file};
use crate::common::scratch::Scratch;
use crate::common::sshd;

#[test]
fn ssh_runs_a_command_and_scp_copies_fifty_mebibytes_both_ways() {
    let (sshd, scratch) = (sshd::start(), Scratch::new());
    let (_server, _client, at) = tcp_tunnel(sshd.addr, "", "");
    let port = at.port();

    assert_eq!(sshd.ssh(port, "echo one; seq 3"), "one\n1\n2\n3\n");
    let lines = sshd.ssh(port, "seq 100000");
    assert_eq!(lines.lines().count(), 100_000);
    assert!(lines.ends_with("\n100000\n"));

    let (sample, up, down) = (random_file(50), scratch.join("up"), scratch.join("down"));
    sshd.copy_to(port, &sample, &up);
    assert_same(&sample, &up);
    sshd.copy_from(port, &up, &down);
    assert_same(&sample, &down);
}
