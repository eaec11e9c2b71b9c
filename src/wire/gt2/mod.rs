//! The second version of the wire protocol (docs/wire.md).

pub mod frame;
pub mod hello;
pub mod origin;
#[cfg(feature = "quic")]
pub mod stream_header;
