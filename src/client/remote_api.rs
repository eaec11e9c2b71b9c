//! The remoteAPI: an HTTP service that knows the server's address (docs/configuration.md,
//! "remoteAPI").

use crate::config::{Remote, Url};
use crate::net::http::{ApiClient, ApiError, ApiRequest};
use crate::net::{tls, Dialer};
use crate::sync::{Mutex, MutexGuard};
use serde::Deserialize;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A client of the remoteAPI.
pub struct RemoteApi {
    /// The URL of the API.
    pub url: Url,
    http: ApiClient,
    /// The last answer.
    last: Mutex<Option<ServerLocation>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ServerLocation {
    server: Remote,
    stun: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LocationResponse {
    server_address: String,
    #[serde(default)]
    stun_address: Option<String>,
}

impl RemoteApi {
    /// Creates a client of the API. Fails if the system has no certificate authorities for an
    /// `https://` URL.
    pub fn new(url: &Url, dialer: &Arc<Dialer>) -> io::Result<Self> {
        let http = ApiClient::new(url.tls, &url.host, url.port)
            .map_err(|e| io::Error::new(e.kind(), format!("remoteAPI {url}: {e}")))?;
        Ok(Self {
            url: url.clone(),
            http: http.by(dialer.clone()),
            last: Mutex::default(),
        })
    }

    fn last(&self) -> MutexGuard<'_, Option<ServerLocation>> {
        self.last.lock()
    }

    /// Asks for the server of the client `id`. Returns its address and whether the answer has
    /// changed.
    pub async fn ask(&self, id: &str, patience: Duration) -> Result<(Remote, bool), ApiError> {
        let target = self.url.target_with("network_client_id", id);
        let mut random = [0; 16];
        tls::fill_random(&mut random).map_err(ApiError::Unreachable)?;
        let request_id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let headers = [("Request-Id", request_id.as_str())];
        let request = ApiRequest::json(&target, &headers, None);
        let now = whereabouts(&self.http.send(&request, patience).await?)?;
        let server = now.server.clone();
        let mut last = self.last();
        let is_news = last.as_ref() != Some(&now);
        *last = Some(now);
        Ok((server, is_news))
    }

    /// Returns the STUN server of the last answer; empty if there is none.
    pub fn stun(&self) -> String {
        let last = self.last();
        last.as_ref()
            .map_or_else(String::new, |last| last.stun.clone())
    }

    /// Returns the server's address in the last answer.
    pub fn known(&self) -> Option<Remote> {
        self.last().as_ref().map(|last| last.server.clone())
    }
}

fn whereabouts(body: &[u8]) -> Result<ServerLocation, ApiError> {
    let answer: LocationResponse = serde_json::from_slice(body)?;
    let server = answer.server_address.parse();
    let server =
        server.map_err(|e: String| ApiError::Unexpected(e.trim_end_matches('.').to_owned()))?;
    let stun = answer.stun_address.unwrap_or_default();
    Ok(ServerLocation { server, stun })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_the_server_like_remote() {
        for (body, server, stun) in [
            (
                r#"{"serverAddress": "tls://s.example.com", "stunAddress": "stun:s:3478"}"#,
                "tls://s.example.com:443",
                "stun:s:3478",
            ),
            (
                r#"{"serverAddress": "[::1]:7001", "x": {}}"#,
                "tcp://[::1]:7001",
                "",
            ),
            (
                r#"{"stunAddress": null, "serverAddress": "s"}"#,
                "tcp://s:80",
                "",
            ),
        ] {
            let now = whereabouts(body.as_bytes()).unwrap();
            assert_eq!(
                (now.server.to_string().as_str(), now.stun.as_str()),
                (server, stun)
            );
        }
    }

    #[test]
    fn an_answer_without_a_server_is_an_error_that_says_so() {
        for (body, why) in [
            ("", "EOF"),
            ("<html>", "expected value"),
            (r#"{"stunAddress": "s"}"#, "serverAddress"),
            (r#"{"serverAddress": ""}"#, "not a server's address"),
            (r#"{"serverAddress": "http://s"}"#, "not a server's address"),
        ] {
            let e = whereabouts(body.as_bytes()).unwrap_err().to_string();
            assert!(e.contains(why), "{body}: {e}");
        }
    }
}
