//! What the check of a password says.

/// The verdict about a request to a service, by its password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordVerdict {
    /// The service needs no password.
    NotNeeded,
    /// The request has the right password.
    Right,
    /// The request has no password, or a wrong one.
    Wrong,
    /// The password was not checked: too many others wait.
    Busy,
}
