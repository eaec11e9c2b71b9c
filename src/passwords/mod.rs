//! Passwords of people: how they are kept as hashes, and how one is asked for. Not who may use them.

mod hash;
mod prompt;

pub use hash::{PasswordHash, UserName};
pub use prompt::read_password;
