//! The rights that the file of a program gives to its processes: capabilities, and the owner's user
//! and group. Not those that a process has already.

use rustix::fs::getxattr_query;
use rustix::thread::set_no_new_privs;
use std::os::unix::fs::PermissionsExt;

/// This program's file.
const PROGRAM: &str = "/proc/self/exe";
/// Attribute of a file with its capabilities (capabilities(7)).
const CAPABILITIES: &str = "security.capability";
/// Mode bits for the owner's user and group.
const SET_ID: u32 = 0o6000;

/// Makes this process, its threads and its children get no rights from any program file (prctl(2),
/// `no_new_privs`). Call it while there is one thread.
///
/// Changes nothing if gt's own file gives rights: a restart is to get them again, even from a
/// process that has become another user and has none left.
pub fn refuse() {
    let gives_user =
        std::fs::metadata(PROGRAM).is_ok_and(|it| it.permissions().mode() & SET_ID != 0);
    if !gives_user && getxattr_query(PROGRAM, CAPABILITIES).is_err() {
        // Fails before Linux 3.5 only.
        let _ = set_no_new_privs(true);
    }
}
