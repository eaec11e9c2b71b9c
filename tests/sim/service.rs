//! The services behind a client: an HTTP and a TCP server that do what a visitor asks of them, so that
//! the visitor knows what to expect.

use crate::pattern;
use crate::stream::Stream;
use gt::net;
use gt::sim::{self, ProcessId};
use std::io;
use std::time::Duration;

/// Port of a client's HTTP service on its own host.
pub const HTTP: u16 = 8000;
/// Port of a client's TCP service on its own host.
pub const TCP: u16 = 9000;

/// Starts both services of a client.
pub fn start(process: ProcessId, owner: usize) {
    sim::spawn(
        process,
        serve(process, HTTP, move |stream| http(stream, owner)),
    );
    sim::spawn(
        process,
        serve(process, TCP, move |stream| tcp(stream, owner)),
    );
}

async fn serve<F>(process: ProcessId, port: u16, answer: impl Fn(Stream) -> F + Send + 'static)
where
    F: std::future::Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = net::listen(Some("127.0.0.1"), port).expect("a free port");
    loop {
        let (socket, _) = listener.accept().await;
        let answering = answer(Stream::new(socket));
        sim::spawn(process, async move {
            // The visitor or gt may have gone.
            let _ = answering.await;
        });
    }
}

/// Answers requests `/KIND/KEY/LENGTH` with the pattern of the key.
async fn http(mut stream: Stream, owner: usize) -> io::Result<()> {
    while let Some(head) = stream.head().await? {
        let target = head.first.split(' ').nth(1).unwrap_or_default();
        let mut parts = target.trim_start_matches('/').split('/');
        let kind = parts.next().unwrap_or_default();
        let number = |text: Option<&str>| text.and_then(|text| text.parse().ok());
        let key: u64 = number(parts.next()).ok_or(io::ErrorKind::InvalidData)?;
        let length = number(parts.next()).ok_or(io::ErrorKind::InvalidData)? as usize;
        let mut received = 0;
        let sent: usize = head
            .field("content-length")
            .map_or(0, |text| text.parse().unwrap());
        while received < sent {
            let piece = stream.some(sent - received).await?;
            if piece.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(at) = pattern::difference(key, received, &piece) {
                sim::trace(format_args!("byte {at} of the upload {key} is wrong"));
                let text = format!("HTTP/1.1 500 Wrong byte {at}\r\nContent-Length: 0\r\n\r\n");
                return stream.send(text.as_bytes()).await;
            }
            received += piece.len();
        }
        let bound = match kind {
            "unbounded" => "Connection: close\r\n".to_owned(),
            _ => format!("Content-Length: {length}\r\n"),
        };
        let text = format!("HTTP/1.1 200 OK\r\nX-Owner: {owner}\r\nX-Key: {key}\r\n{bound}\r\n");
        stream.send(text.as_bytes()).await?;
        match kind {
            "slow" => {
                let mut at = 0;
                while at < length {
                    let piece = (length - at).min(sim::between(1, 4000) as usize);
                    stream.send(&pattern::bytes(key, at, piece)).await?;
                    at += piece;
                    sim::pass(Duration::from_millis(sim::between(0, 1500))).await;
                }
            }
            "resets" => {
                stream.send(&pattern::bytes(key, 0, length / 2)).await?;
                sim::pass(Duration::from_millis(sim::between(0, 50))).await;
                stream.reset();
                return Ok(());
            }
            _ => stream.send(&pattern::bytes(key, 0, length)).await?,
        }
        if kind == "unbounded" {
            return Ok(());
        }
    }
    Ok(())
}

/// Says whose it is, and does what the first line says: `echo`, or `source KEY LENGTH`.
async fn tcp(mut stream: Stream, owner: usize) -> io::Result<()> {
    let Some(line) = stream.line().await? else {
        return Ok(());
    };
    stream.send(format!("{owner}\n").as_bytes()).await?;
    let mut words = line.split(' ');
    match words.next() {
        Some("echo") => loop {
            let piece = stream.some(8000).await?;
            if piece.is_empty() {
                return stream.end().await;
            }
            stream.send(&piece).await?;
        },
        _ => {
            let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
            let (key, length) = (number(), number());
            let key = key.ok_or(io::ErrorKind::InvalidData)?;
            let length = length.ok_or(io::ErrorKind::InvalidData)? as usize;
            stream.send(&pattern::bytes(key, 0, length)).await?;
            stream.end().await?;
            // The other direction still works.
            let mut received = 0;
            loop {
                let piece = stream.some(8000).await?;
                if piece.is_empty() {
                    break;
                }
                if pattern::difference(key, received, &piece).is_some() {
                    sim::trace(format_args!("a wrong byte after the end of {key}"));
                    return Err(io::ErrorKind::InvalidData.into());
                }
                received += piece.len();
            }
            Ok(())
        }
    }
}
