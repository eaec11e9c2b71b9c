//! Stands where P2P does in a build without it. That it has none is said by `config`.

use super::Me;
use crate::config;
use crate::tunnel::Stream;
use futures_lite::AsyncWriteExt;
use std::io;
use std::sync::Arc;

const FORBIDDEN: &[u8] =
    b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

#[derive(Clone, Debug, PartialEq)]
pub struct Options;

impl Options {
    pub fn new(_: &config::Client) -> Self {
        Self
    }
}

pub struct P2p(());

impl P2p {
    pub fn new(_: Options) -> Self {
        Self(())
    }

    pub fn change(&self, _: Options) {}

    pub fn told(&self, _: &str) {}

    pub fn close(&self) {}
}

pub async fn answer(_: &Arc<Me>, mut stream: Stream) -> io::Result<()> {
    stream.write_all(FORBIDDEN).await
}

pub async fn preflight(_: &Arc<Me>, _: &mut Stream) -> io::Result<Option<Vec<u8>>> {
    Ok(Some(Vec::new()))
}
