//! Private services: only clients that prove a shared key reach them, directly or through the server. The server,
//! which introduces and relays, cannot prove the key, nor read or change what it relays (docs/p2p.md, "Private
//! services").

mod dialled;
mod exchange;
mod lockout;
mod proof;
mod served;

pub use dialled::{over_peer, over_relay};
pub use exchange::ProofError;
pub use proof::{Carried, ChannelBinding};
pub use served::{carry, serve_peer, serve_relay};

#[cfg(test)]
mod tests;
