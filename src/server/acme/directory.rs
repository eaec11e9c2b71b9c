//! The requests to an authority: its directory, nonces, and signed requests (RFC 8555, sections 6 and 7.2).
//! Not what is asked.

use super::jws::{AccountKey, Signer};
use super::messages::{self, AcmeUrl, DirectoryUrls, Problem};
use super::{AcmeError, AcmeSettings};
use crate::config::Url;
use crate::net::http::{ApiClient, ApiRequest, RequestBody, Response};
use crate::net::tls::Connector;
use std::io;
use std::time::Duration;

/// Maximum time of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of hosts that an authority may use.
const MAX_HOSTS: usize = 4;
/// Number of attempts with a new nonce each.
const NONCE_ATTEMPTS: u32 = 8;
/// Maximum length of a nonce in bytes.
const MAX_NONCE: usize = 300;
/// Longest time that an authority can have gt wait.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

const JOSE: &str = "application/jose+json";
const REPLAY_NONCE: &str = "replay-nonce";
const LOCATION: &str = "location";
const RETRY_AFTER: &str = "retry-after";
const FIELDS: &[&str] = &[REPLAY_NONCE, LOCATION, RETRY_AFTER];

/// An authority that has been asked for its URLs.
pub struct Directory {
    /// The URLs of the authority.
    pub urls: DirectoryUrls,
    hosts: Hosts,
    /// A nonce for the next request.
    nonce: Option<String>,
}

/// The hosts of an authority, with their connections.
struct Hosts {
    connector: Connector,
    clients: Vec<((String, u16), ApiClient)>,
}

/// An answer with a status from 200 to 299.
pub struct Answer {
    pub body: Vec<u8>,
    /// The URL of what was made.
    pub location: Option<AcmeUrl>,
    /// The time after which to ask again.
    pub retry_after: Option<Duration>,
}

impl Directory {
    /// Asks for the URLs of an authority.
    pub async fn open(settings: &AcmeSettings) -> Result<Self, AcmeError> {
        let mut hosts = Hosts {
            connector: settings.connector.clone(),
            clients: Vec::new(),
        };
        let answer = hosts.get(&settings.config.directory).await?;
        let urls: DirectoryUrls = messages::read(&answer.body).map_err(AcmeError::Malformed)?;
        if urls.meta.external_account_required {
            return Err(AcmeError::Malformed(
                "it wants an account that was made elsewhere (external account binding), which gt does not \
                 support; use another acmeDirectory"
                    .to_owned(),
            ));
        }
        Ok(Self {
            urls,
            hosts,
            nonce: None,
        })
    }

    /// Asks for something that needs no signature.
    pub async fn get(&mut self, url: &AcmeUrl) -> Result<Answer, AcmeError> {
        self.hosts.get(&url.url).await
    }

    /// Gets a nonce for the next request if there is none.
    pub async fn prepare(&mut self) -> Result<(), AcmeError> {
        if self.nonce.is_none() {
            self.nonce = Some(self.new_nonce().await?);
        }
        Ok(())
    }

    /// Sends a signed request. An empty payload asks for what is there. The response to a request whose nonce
    /// the authority refuses has another one.
    pub async fn post(
        &mut self,
        key: &AccountKey,
        signer: Signer<'_>,
        url: &AcmeUrl,
        payload: &str,
    ) -> Result<Answer, AcmeError> {
        for _ in 0..NONCE_ATTEMPTS {
            let nonce = match self.nonce.take() {
                Some(nonce) => nonce,
                None => self.new_nonce().await?,
            };
            let body = key.sign(signer, &nonce, &url.text, payload);
            let body = body.map_err(AcmeError::Local)?;
            let request = ApiRequest {
                target: &url.url.target,
                headers: &[],
                body: Some(RequestBody {
                    media_type: JOSE,
                    bytes: &body,
                }),
                accept: "*/*",
                fields: FIELDS,
            };
            let response = self.hosts.ask(&url.url, &request).await?;
            self.nonce = nonce_of(&response);
            match judge(response) {
                Err(AcmeError::Problem { problem, .. }) if problem.is("badNonce") => {}
                result => return result,
            }
        }
        Err(AcmeError::Malformed(format!(
            "it has refused {NONCE_ATTEMPTS} nonces that it had given"
        )))
    }

    async fn new_nonce(&mut self) -> Result<String, AcmeError> {
        let url = self.urls.new_nonce.url.clone();
        let response = self.hosts.ask(&url, &plain(&url)).await?;
        let nonce = nonce_of(&response);
        judge(response)?;
        nonce.ok_or_else(|| AcmeError::Malformed("it has given no nonce".to_owned()))
    }
}

impl Hosts {
    async fn get(&mut self, url: &Url) -> Result<Answer, AcmeError> {
        judge(self.ask(url, &plain(url)).await?)
    }

    async fn ask(&mut self, url: &Url, request: &ApiRequest<'_>) -> Result<Response, AcmeError> {
        let host = (url.host.clone(), url.port);
        let at = match self.clients.iter().position(|(known, _)| *known == host) {
            Some(at) => at,
            None if self.clients.len() >= MAX_HOSTS => {
                return Err(AcmeError::Malformed("it uses too many hosts".to_owned()))
            }
            None => {
                let client = ApiClient::over(Some(self.connector.clone()), &url.host, url.port);
                self.clients.push((host, client));
                self.clients.len().saturating_sub(1)
            }
        };
        let Some((_, client)) = self.clients.get(at) else {
            return Err(AcmeError::Local(io::Error::other("no connection")));
        };
        let asked = client.ask(request, REQUEST_TIMEOUT).await;
        asked.map_err(|e| {
            let text = e.to_string();
            let advice = match text.contains("UnknownIssuer") {
                true => "; set acmeCA to the authorities that have signed its certificate",
                false => "",
            };
            AcmeError::Unreachable(text + advice)
        })
    }
}

fn plain(url: &Url) -> ApiRequest<'_> {
    ApiRequest {
        fields: FIELDS,
        ..ApiRequest::json(&url.target, &[], None)
    }
}

/// Returns the nonce of a response (RFC 8555, section 6.5.1).
fn nonce_of(response: &Response) -> Option<String> {
    let nonce = response.field(REPLAY_NONCE)?;
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_nonce = (1..=MAX_NONCE).contains(&nonce.len()) && nonce.bytes().all(usual);
    is_nonce.then(|| nonce.to_owned())
}

/// Returns an answer, or the authority's error.
fn judge(response: Response) -> Result<Answer, AcmeError> {
    let seconds = response.field(RETRY_AFTER).and_then(|it| it.parse().ok());
    let retry_after = seconds.map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
    let location = response.field(LOCATION).map(str::to_owned);
    match response.status {
        200..=299 => Ok(Answer {
            location: location.and_then(|text| AcmeUrl::try_from(text).ok()),
            body: response.body,
            retry_after,
        }),
        300..=399 => Err(AcmeError::Malformed(format!(
            "it redirects (status {}), which RFC 8555 does not provide for",
            response.status
        ))),
        status => match serde_json::from_slice::<Problem>(&response.body) {
            Ok(problem) if !problem.r#type.is_empty() => Err(AcmeError::Problem {
                problem,
                status,
                retry_after,
            }),
            _ => Err(AcmeError::Status(status, retry_after)),
        },
    }
}
