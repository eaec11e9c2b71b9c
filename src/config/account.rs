//! The user and group to run as. Not the system calls: see `daemon::account`.

use super::RoleConfig;

/// The user and group to run as once all privileged resources are open.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccountConfig {
    /// User, by name or number.
    pub user: Option<String>,
    /// Group, by name or number; `None` for the user's own group.
    pub group: Option<String>,
}

/// Returns the account of a process: that of the first role that names a user.
pub fn account(roles: &[RoleConfig]) -> Option<&AccountConfig> {
    let mut accounts = roles.iter().map(RoleConfig::account);
    accounts.find(|account| account.user.is_some())
}
