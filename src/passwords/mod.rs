//! Passwords of people: how they are kept as hashes, and how one is asked for. Not who may use them.

mod hash;
mod prompt;
#[cfg(any(feature = "client", feature = "web"))]
mod queue;

pub use hash::{PasswordHash, UserName};
pub use prompt::read_password;
#[cfg(any(feature = "client", feature = "web"))]
pub(crate) use queue::PasswordQueue;
#[cfg(feature = "client")]
pub(crate) use queue::QueuePlace;
