//! What the check of a password says.

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordVerdict {
    /// Its visitors need none.
    NotNeeded,
    Right,
    /// It has none, or a wrong one.
    Wrong,
    /// Too many others are being checked.
    Busy,
}
