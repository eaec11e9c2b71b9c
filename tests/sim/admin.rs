//! What a server's API tells, as its administrator reads it.

use crate::stream::Stream;
use gt::net::{dial, timeout};
use std::time::Duration;

/// Port of the API on the server's own host.
pub const PORT: u16 = 8081;

/// The figures of a server.
pub struct Metrics(Vec<(String, f64)>);

impl Metrics {
    /// Reads them; `None` if the server does not answer.
    pub async fn read() -> Option<Self> {
        timeout(Duration::from_secs(5), Self::fetch()).await?
    }

    async fn fetch() -> Option<Self> {
        let socket = dial("127.0.0.1", PORT, Duration::from_secs(5)).await.ok()?;
        let mut stream = Stream::new(socket);
        let request = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
        stream.send(request).await.ok()?;
        let head = stream.head().await.ok()??;
        if !head.first.contains(" 200 ") {
            return None;
        }
        let mut figures = Vec::new();
        while let Some(line) = stream.line().await.ok()? {
            if let Some((name, value)) = line.rsplit_once(' ') {
                if let Ok(value) = value.parse() {
                    figures.push((name.to_owned(), value));
                }
            }
        }
        Some(Self(figures))
    }

    /// Returns a figure of a client.
    pub fn of_client(&self, name: &str, client: usize) -> Option<f64> {
        self.get(&format!("gt_client_{name}{{id=\"c{client}\"}}"))
    }

    /// Returns a figure by its name with its labels.
    pub fn get(&self, name: &str) -> Option<f64> {
        let figure = self.0.iter().find(|(other, _)| other == name);
        figure.map(|(_, value)| *value)
    }
}
