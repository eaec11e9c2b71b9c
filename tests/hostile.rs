//! Peers that mean harm: what each attack may cost server and client, measured, and that those who
//! mean none are served while it lasts and after it.
//!
//! Every test prints `attack | bound | measured` for each of its bounds: `cargo nextest run --test
//! hostile --no-capture` gives the table. Memory is that of a build without optimisation.

#![cfg(all(feature = "server", feature = "client"))]

mod common;

mod hostile {
    pub mod bound;
    pub mod crowd;
    pub mod stage;

    mod client;
    mod many;
    mod slow;
    mod tunnel;
    mod visitors;
}
