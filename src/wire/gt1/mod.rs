//! The first version of the wire (WIRE.md), byte for byte.

pub mod frame;
pub mod hello;
