//! The authAPI: an HTTP service that decides which clients may connect and with which host prefixes
//! (docs/configuration.md, "authAPI"). It is not asked about configured users, see `users`.

use super::users::Authenticator;
use crate::config::label::ascii;
use crate::config::{Domain, Limits, Url};
use crate::logging::{held_back, LogThrottle};
use crate::net::http::{ApiClient, ApiError, ApiRequest};
use crate::net::Timer;
use crate::wire::hello::ServiceSpec;
use async_lock::Semaphore;
use futures_lite::future;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Maximum time of a request, including the wait for its turn.
const AUTH_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of concurrent requests; others wait for their turn.
const MAX_CONCURRENT_REQUESTS: usize = 16;

/// A client of the authAPI.
pub struct AuthApi {
    url: Url,
    http: ApiClient,
    /// [`AUTH_TIMEOUT`], shorter in tests.
    timeout: Duration,
    /// Permits for concurrent requests.
    requests: Semaphore,
    /// Limits log lines about failed requests.
    failures: LogThrottle,
}

/// The API's decision about an id and its secret.
pub enum AuthDecision {
    /// The client may connect, with these prefixes.
    Granted(GrantedPrefixes),
    /// The client may not connect.
    Denied,
    /// The request failed; the log has the reason.
    Failed,
}

/// The prefixes that a client may have while its tunnel lives, besides its id.
#[derive(Debug, PartialEq, Eq)]
pub struct GrantedPrefixes(BTreeSet<String>);

impl GrantedPrefixes {
    /// Returns limits with the domains that are granted besides.
    pub fn limits(&self, limits: Arc<Limits>) -> Arc<Limits> {
        // Other names are prefixes.
        let names = self
            .0
            .iter()
            .filter(|name| name.contains('.') || *name == "*");
        let mut domains = names.filter_map(|name| Domain::parse(name).ok()).peekable();
        if domains.peek().is_none() {
            return limits;
        }
        let mut limits = Limits::clone(&limits);
        limits.domains.extend(domains);
        Arc::new(limits)
    }

    /// Replaces services whose prefix is not granted by `None`, so that indexes stay valid.
    pub fn of(&self, id: &str, services: Vec<ServiceSpec>) -> Vec<Option<ServiceSpec>> {
        let refused = |spec: &ServiceSpec| {
            let is_refused =
                |name: &&str| ascii(name) != ascii(id) && !self.0.contains(ascii(name).as_ref());
            names(spec).find(is_refused).map(str::to_owned)
        };
        let without: Vec<String> = services.iter().filter_map(refused).collect();
        if !without.is_empty() {
            log::warn!(
                "authAPI does not grant these prefixes id={id}: {}",
                without.join(", ")
            );
        }
        let services = services.into_iter();
        services
            .map(|spec| Some(spec).filter(|spec| refused(spec).is_none()))
            .collect()
    }
}

/// Returns the prefix and the domains that a service names.
fn names(spec: &ServiceSpec) -> impl Iterator<Item = &str> {
    let (prefix, domains) = match spec.ungrouped() {
        ServiceSpec::Host { prefix, .. } => (prefix.as_deref(), &[][..]),
        ServiceSpec::Domains {
            prefix, domains, ..
        } => (prefix.as_deref(), &domains[..]),
        ServiceSpec::Tcp { .. } | ServiceSpec::Udp { .. } | ServiceSpec::Grouped { .. } => {
            (None, &[][..])
        }
    };
    prefix
        .into_iter()
        .chain(domains.iter().map(|domain| &**domain))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AuthRequest<'a> {
    network_client_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    network_secret_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network_public_key: Option<&'a str>,
    applet_tokens: BTreeSet<&'a str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthResponse {
    result: bool,
    #[serde(default)]
    applet_tokens: Option<Vec<String>>,
    #[serde(default)]
    network_public_key: Option<String>,
}

impl AuthApi {
    /// Creates a client. Fails if an `https://` URL cannot be used.
    pub fn new(url: &Url) -> io::Result<Self> {
        let http = ApiClient::new(url.tls, &url.host, url.port)
            .map_err(|e| io::Error::new(e.kind(), format!("authAPI {url}: {e}")))?;
        Ok(Self {
            url: url.clone(),
            http,
            timeout: AUTH_TIMEOUT,
            requests: Semaphore::new(MAX_CONCURRENT_REQUESTS),
            failures: LogThrottle::new(),
        })
    }

    /// Whether this is the API at `url`.
    pub fn is_at(&self, url: &Url) -> bool {
        self.url == *url
    }

    /// Asks whether the client may connect, and which of its prefixes it may have.
    pub async fn authorize(
        &self,
        id: &str,
        authenticator: &Authenticator,
        services: &[ServiceSpec],
    ) -> AuthDecision {
        let key = match authenticator {
            Authenticator::Key(key) => Some(key.to_string()),
            Authenticator::Secret(_) => None,
        };
        let secret = match authenticator {
            // JSON is text, so the API cannot know a secret that is not UTF-8.
            Authenticator::Secret(secret) => match std::str::from_utf8(secret) {
                Ok(secret) => Some(secret),
                Err(_) => return AuthDecision::Denied,
            },
            Authenticator::Key(_) => None,
        };
        let question = AuthRequest {
            network_client_id: id,
            network_secret_key: secret,
            network_public_key: key.as_deref(),
            applet_tokens: services.iter().flat_map(names).collect(),
        };
        let timeout = async {
            Timer::after(self.timeout).await;
            Err(ApiError::Timeout(self.timeout))
        };
        match future::or(Box::pin(self.ask(&question)), timeout).await {
            Ok(decision) => decision,
            Err(e) => {
                if let Some(others) = self.failures.allow() {
                    log::warn!(
                        "authAPI {}: {e}; unknown ids are rejected, id={id}{}",
                        self.url,
                        held_back(others)
                    );
                }
                AuthDecision::Failed
            }
        }
    }

    async fn ask(&self, question: &AuthRequest<'_>) -> Result<AuthDecision, ApiError> {
        let key = question.network_public_key;
        let question = serde_json::to_vec(question)?;
        let _permit = self.requests.acquire().await;
        let request = ApiRequest::json(&self.url.target, &[], Some(&question));
        let answer = self.http.send(&request, self.timeout).await?;
        parse_response(&answer, key)
    }
}

/// Reads an answer. A key must be in it, too: an API that knows nothing of keys has not looked at it.
fn parse_response(body: &[u8], key: Option<&str>) -> Result<AuthDecision, ApiError> {
    let answer: AuthResponse = serde_json::from_slice(body)?;
    let has_looked = key.is_none() || answer.network_public_key.as_deref() == key;
    if !answer.result || !has_looked {
        return Ok(AuthDecision::Denied);
    }
    let prefixes = answer.applet_tokens.unwrap_or_default();
    let prefixes = prefixes.iter().map(|prefix| ascii(prefix).into_owned());
    Ok(AuthDecision::Granted(GrantedPrefixes(prefixes.collect())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(prefix: Option<&str>) -> ServiceSpec {
        ServiceSpec::Host {
            tls: false,
            prefix: prefix.map(Into::into),
        }
    }

    fn granted(body: &str) -> GrantedPrefixes {
        match parse_response(body.as_bytes(), None) {
            Ok(AuthDecision::Granted(grant)) => grant,
            _ => panic!("{body} grants nothing"),
        }
    }

    #[test]
    fn services_without_a_grant_become_none() {
        let port = ServiceSpec::Tcp {
            random: true,
            port: 0,
        };
        let services = vec![
            host(Some("b")),
            host(Some("A")),
            host(None),
            host(Some("ID1")),
            port.clone(),
        ];
        let right = |a| {
            vec![
                None,
                a,
                Some(host(None)),
                Some(host(Some("ID1"))),
                Some(port.clone()),
            ]
        };
        let some = granted(r#"{"result": true, "appletTokens": ["a", "other"]}"#);
        assert_eq!(
            some.of("id1", services.clone()),
            right(Some(host(Some("A"))))
        );
        for none in [
            r#"{"result": true, "appletTokens": null, "more": [1]}"#,
            r#"{"result": true}"#,
        ] {
            assert_eq!(granted(none).of("id1", services.clone()), right(None));
        }
    }

    #[test]
    fn only_a_complete_answer_is_accepted() {
        let denied = parse_response(br#"{"result": false, "appletTokens": ["a"]}"#, None);
        assert!(matches!(denied, Ok(AuthDecision::Denied)));
        for body in ["", "{}", "true", r#"{"result": 1}"#, r#"{"result": true"#] {
            assert!(parse_response(body.as_bytes(), None).is_err(), "{body}");
        }
    }

    #[test]
    fn a_key_is_admitted_only_by_an_answer_that_repeats_it() {
        let right = "gt-ed25519 A";
        for (body, granted) in [
            (r#"{"result": true}"#, false),
            (r#"{"result": true, "networkPublicKey": null}"#, false),
            (
                r#"{"result": true, "networkPublicKey": "gt-ed25519 B"}"#,
                false,
            ),
            (
                r#"{"result": false, "networkPublicKey": "gt-ed25519 A"}"#,
                false,
            ),
            (
                r#"{"result": true, "networkPublicKey": "gt-ed25519 A"}"#,
                true,
            ),
        ] {
            let decision = parse_response(body.as_bytes(), Some(right)).unwrap();
            assert_eq!(
                matches!(decision, AuthDecision::Granted(_)),
                granted,
                "{body}"
            );
        }
    }

    #[test]
    fn requests_to_a_silent_api_fail_even_while_they_wait_for_a_slot() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut api = AuthApi::new(&Url {
            tls: false,
            host: "127.0.0.1".into(),
            port: listener.local_addr().unwrap().port(),
            target: "/".into(),
        })
        .unwrap();
        api.timeout = Duration::from_millis(20);
        let api = std::sync::Arc::new(api);
        async_std::task::block_on(async {
            let asked: Vec<_> = (0..MAX_CONCURRENT_REQUESTS * 2)
                .map(|_| {
                    let api = api.clone();
                    async_std::task::spawn(async move {
                        api.authorize("id1", &Authenticator::Secret((*b"s").into()), &[])
                            .await
                    })
                })
                .collect();
            for decision in asked {
                assert!(matches!(decision.await, AuthDecision::Failed));
            }
        });
        let permits: Vec<_> = std::iter::from_fn(|| api.requests.try_acquire()).collect();
        assert_eq!(
            permits.len(),
            MAX_CONCURRENT_REQUESTS,
            "all permits are free again"
        );
    }
}
