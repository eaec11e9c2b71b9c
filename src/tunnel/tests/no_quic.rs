//! The stub of `quic` in builds without QUIC.

use super::End;

/// Returns `None`: no test runs over QUIC.
pub fn ends() -> Option<(End, End)> {
    None
}

/// Does nothing.
pub fn over_quic(_: impl Fn()) {}
