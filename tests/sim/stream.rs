//! A connection of a visitor or service, which reads lines, heads and pieces.

use gt::net::{Conn, Socket};
use std::future::poll_fn;
use std::io;

pub struct Stream {
    conn: Conn,
    /// Received bytes that nothing has taken.
    rest: Vec<u8>,
}

/// The head of an HTTP message.
pub struct Head {
    pub first: String,
    fields: Vec<(String, String)>,
}

impl Head {
    /// Returns the value of a field, whose name is in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        let field = self.fields.iter().find(|(other, _)| other == name);
        field.map(|(_, value)| value.as_str())
    }
}

impl Stream {
    pub fn new(socket: Socket) -> Self {
        Self {
            conn: Conn::from(socket),
            rest: Vec::new(),
        }
    }

    /// Reads more bytes. False at the end.
    async fn fill(&mut self) -> io::Result<bool> {
        let mut buf = vec![0; 16 * 1024];
        let count = self.conn.read(&mut buf).await?;
        self.rest.extend_from_slice(&buf[..count]);
        Ok(count > 0)
    }

    /// Returns at most this number of bytes; none at the end.
    pub async fn some(&mut self, most: usize) -> io::Result<Vec<u8>> {
        if self.rest.is_empty() {
            self.fill().await?;
        }
        let count = self.rest.len().min(most);
        Ok(self.rest.drain(..count).collect())
    }

    /// Returns the next line without its end; `None` at the end.
    pub async fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(at) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=at).collect();
                let line = String::from_utf8_lossy(&line);
                return Ok(Some(line.trim_end().to_owned()));
            }
            if !self.fill().await? {
                return match self.rest.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    /// Returns the next head; `None` at the end.
    pub async fn head(&mut self) -> io::Result<Option<Head>> {
        let Some(first) = self.line().await? else {
            return Ok(None);
        };
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            match line.split_once(':') {
                Some((name, value)) => {
                    fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
                }
                None => return Ok(Some(Head { first, fields })),
            }
        }
    }

    pub async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.conn.write_all(bytes).await
    }

    /// Ends the direction from this end.
    pub async fn end(&self) -> io::Result<()> {
        poll_fn(|cx| self.conn.poll_shutdown(cx)).await
    }

    /// Resets the connection when it is dropped.
    pub fn reset(&self) {
        self.conn.reset_on_close();
    }
}
