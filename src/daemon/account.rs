//! The user that the process switches to once it no longer needs root: when its listeners are open
//! and its files have been read.

use crate::config::{self, RoleConfig};
use crate::state_dir;
use nix::unistd::{getegid, geteuid, initgroups, setgid, setgroups, setuid, Gid, Group, Uid, User};
use std::ffi::CString;
use std::io;

/// A user of this machine and its group.
#[derive(Debug, PartialEq, Eq)]
pub struct Account {
    /// The name, or the number as configured if the user has no name.
    name: String,
    uid: Uid,
    gid: Gid,
    /// Whether the user has an entry in the user database, and so supplementary groups.
    is_named: bool,
}

/// Whether this process may become any user.
pub fn is_root() -> bool {
    geteuid().is_root()
}

impl Account {
    /// Finds the account that the configuration names, if any. Fails if there is no such user or
    /// group.
    pub fn of(roles: &[RoleConfig]) -> io::Result<Option<Self>> {
        let Some(account) = config::account(roles) else {
            return Ok(None);
        };
        let user = account.user.as_deref();
        let found = user.map(|user| Self::find(user, account.group.as_deref()));
        found.transpose()
    }

    fn find(name: &str, group: Option<&str>) -> io::Result<Self> {
        let none = |what: &str, name: &str| {
            let text = format!("{what}: this machine has no \"{name}\"");
            io::Error::new(io::ErrorKind::NotFound, text)
        };
        let number = name.parse().ok().map(Uid::from_raw);
        let user = match number {
            Some(uid) => User::from_uid(uid)?,
            None => User::from_name(name)?,
        };
        let uid = number.or(user.as_ref().map(|user| user.uid));
        let uid = uid.ok_or_else(|| none("user", name))?;
        let gid = match group {
            Some(group) => match group.parse() {
                Ok(gid) => Gid::from_raw(gid),
                Err(_) => {
                    Group::from_name(group)?
                        .ok_or_else(|| none("group", group))?
                        .gid
                }
            },
            None => match &user {
                Some(user) => user.gid,
                None => Gid::from_raw(uid.as_raw()),
            },
        };
        Ok(Self {
            name: user.as_ref().map_or(name, |user| &user.name).to_owned(),
            uid,
            gid,
            is_named: user.is_some(),
        })
    }

    /// Makes the directories of the roles that are missing for this user, as long as the process may.
    pub fn make_state_dirs(&self, roles: &[RoleConfig]) -> io::Result<()> {
        if !is_root() {
            return Ok(());
        }
        let mut paths = roles.iter().filter_map(RoleConfig::state_dir);
        paths.try_for_each(|path| state_dir::make_for(path, self.uid.as_raw(), self.gid.as_raw()))
    }

    /// Switches all threads of the process to this user for good (the C library covers the
    /// threads). Returns whether the process ran as another user before. Fails without root.
    pub fn switch(&self) -> io::Result<bool> {
        if (geteuid(), getegid()) == (self.uid, self.gid) {
            // After a restart the process starts as this user already.
            return Ok(false);
        }
        let explain = |e: nix::Error| {
            // Displaying `nix::Error` would link nix's own table of messages; `io::Error` uses
            // the C library's.
            let e = io::Error::from(e);
            let hint = match geteuid().is_root() {
                true => "",
                false => " (only root can become another user)",
            };
            let text = format!("becoming the user {}: {e}{hint}", self.name);
            io::Error::new(e.kind(), text)
        };
        let groups = match CString::new(self.name.as_str()) {
            Ok(name) if self.is_named => initgroups(&name, self.gid),
            _ => setgroups(&[self.gid]),
        };
        groups.map_err(explain)?;
        setgid(self.gid).map_err(explain)?;
        setuid(self.uid).map_err(explain)?;
        if !self.uid.is_root() && setuid(Uid::from_raw(0)).is_ok() {
            let text = format!(
                "becoming the user {}: the process could become root again",
                self.name
            );
            return Err(io::Error::other(text));
        }
        log::info!("running as the user {}", self.name);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_found_by_name_and_number() {
        let root = Account::find("root", None).unwrap();
        assert_eq!((root.uid.as_raw(), root.gid.as_raw()), (0, 0));
        assert_eq!(Account::find("0", Some("0")).unwrap(), root);
        let nobody = Account::find("54321", None).unwrap();
        assert_eq!((nobody.uid.as_raw(), nobody.gid.as_raw()), (54321, 54321));
        assert!(!nobody.is_named && root.is_named);
        let why = |user, group| Account::find(user, group).unwrap_err().to_string();
        assert_eq!(
            why("no such", None),
            "user: this machine has no \"no such\""
        );
        assert_eq!(
            why("root", Some("none:")),
            "group: this machine has no \"none:\""
        );
    }
}
