//! The first version of the wire protocol (docs/gt1.md).

pub mod frame;
pub mod hello;
