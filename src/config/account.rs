//! The user that a process is to become. Not how: see `daemon::account`.

use super::options::CommonOptions;
use super::RoleConfig;

/// Whom a process is to become once it has what takes root.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccountConfig {
    /// By name or number.
    pub user: Option<String>,
    /// The same; `None` means the user's own.
    pub group: Option<String>,
}

/// The one that counts for a process: that of the first role that names a user.
pub fn account(roles: &[RoleConfig]) -> Option<&AccountConfig> {
    let mut accounts = roles.iter().map(RoleConfig::account);
    accounts.find(|account| account.user.is_some())
}

impl CommonOptions {
    pub(super) fn account(&self) -> AccountConfig {
        AccountConfig {
            user: self.user.clone(),
            group: self.group.clone(),
        }
    }
}
