//! The second version of the wire (docs/wire.md), between ends of ours.

pub mod frame;
pub mod hello;
