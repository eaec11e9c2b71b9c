//! One order of a certificate, from its beginning, or from where it was left, to its end (RFC 8555, section 7.4).
//! Not when there is one.

use super::directory::{Answer, Directory};
use super::jws::{base64url, AccountKey, Signer};
use super::messages::{self, AcmeUrl, AuthorizationStatus, Challenge, OrderStatus, Problem, Token};
use super::pending::PendingChallenges;
use super::{AcmeError, ChallengeKind};
use crate::net::tls::CertificateKey;
use crate::net::Timer;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Time between two looks at what the authority works on, unless it asks for another one.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest and longest such time.
const POLL_LIMITS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// Number of looks at one thing.
const MAX_POLLS: u32 = 60;
/// Number of states that an order may go through.
const MAX_STEPS: u32 = 20;

/// An order for one name.
pub struct Order<'a> {
    pub directory: &'a mut Directory,
    pub key: &'a AccountKey,
    /// The URL of the account.
    pub account: &'a str,
    pub certificate_key: &'a CertificateKey,
    pub name: &'a str,
    pub pending: &'a Arc<PendingChallenges>,
    /// The ways to prove the name, the one to try first.
    pub kinds: &'a [ChallengeKind],
}

impl Order<'_> {
    /// Places the order and returns its URL. `replaces` is the identifier of the certificate that it renews.
    pub async fn place(&mut self, replaces: Option<&str>) -> Result<AcmeUrl, AcmeError> {
        let mut order = json!({"identifiers": [{"type": "dns", "value": self.name}]});
        if let (Some(replaces), Some(order)) = (replaces, order.as_object_mut()) {
            order.insert("replaces".to_owned(), replaces.into());
        }
        let url = self.directory.urls.new_order.clone();
        let answer = self.post(&url, &order.to_string()).await?;
        messages::order(&answer.body).map_err(AcmeError::Malformed)?;
        answer
            .location
            .ok_or_else(|| AcmeError::Malformed("the new order has no URL".to_owned()))
    }

    /// Takes the order to its end and returns the certificates in PEM.
    pub async fn finish(&mut self, url: &AcmeUrl) -> Result<Vec<u8>, AcmeError> {
        let (mut has_requested, mut has_proved) = (false, false);
        let mut polls = 0u32;
        for _ in 0..MAX_STEPS {
            let (mut order, mut wait) = self.look(url).await?;
            // What has been asked for may not show at once.
            while order == OrderStatus::Processing
                || (has_requested && matches!(order, OrderStatus::Ready { .. }))
            {
                polls = polls.saturating_add(1);
                if polls > MAX_POLLS {
                    return Err(AcmeError::Slow);
                }
                pause(wait).await;
                (order, wait) = self.look(url).await?;
            }
            match order {
                OrderStatus::Pending { authorizations } => {
                    if has_proved {
                        // That may not show at once either.
                        pause(wait).await;
                    }
                    for authorization in &authorizations {
                        self.authorize(authorization).await?;
                    }
                    has_proved = true;
                }
                OrderStatus::Ready { finalize } => {
                    let request = self.certificate_key.request(self.name);
                    let request = base64url(&request.map_err(AcmeError::Local)?);
                    let payload = json!({"csr": request}).to_string();
                    self.post(&finalize, &payload).await?;
                    has_requested = true;
                }
                OrderStatus::Processing => {}
                OrderStatus::Valid { certificate } => {
                    return Ok(self.post(&certificate, "").await?.body);
                }
                OrderStatus::Invalid { error } => {
                    let error = error.unwrap_or_default();
                    return Err(AcmeError::Refused(error.text()));
                }
            }
        }
        Err(AcmeError::Slow)
    }

    async fn look(&mut self, url: &AcmeUrl) -> Result<(OrderStatus, Option<Duration>), AcmeError> {
        let answer = self.post(url, "").await?;
        let order = messages::order(&answer.body).map_err(AcmeError::Malformed)?;
        Ok((order, answer.retry_after))
    }

    /// Proves that the name is the server's.
    async fn authorize(&mut self, url: &AcmeUrl) -> Result<(), AcmeError> {
        let mut awaited = None;
        let mut tried = None;
        for _ in 0..MAX_POLLS {
            let answer = self.post(url, "").await?;
            let authorization = messages::authorization(&answer.body, self.name);
            let authorization = authorization.map_err(AcmeError::Malformed)?;
            match authorization.status {
                AuthorizationStatus::Valid => return Ok(()),
                AuthorizationStatus::Pending if awaited.is_some() => {}
                AuthorizationStatus::Pending => {
                    let (kind, challenge, url, token) = self.choose(&authorization.challenges)?;
                    let text = self.key.authorization(&token.0);
                    let expected = self.pending.expect(kind, self.name, &token.0, text);
                    awaited = Some(expected.map_err(AcmeError::Local)?);
                    tried = Some(kind);
                    // An order that was left may have been asked for its validation.
                    if challenge.status.as_deref().is_none_or(|it| it == "pending") {
                        self.post(url, "{}").await?;
                    }
                    continue;
                }
                AuthorizationStatus::Invalid
                | AuthorizationStatus::Deactivated
                | AuthorizationStatus::Expired
                | AuthorizationStatus::Revoked => {
                    let error = reason(authorization.challenges);
                    return Err(AcmeError::Unproved(error.text(), tried));
                }
            }
            pause(answer.retry_after).await;
        }
        Err(AcmeError::Slow)
    }

    /// Selects the way to prove the name.
    fn choose<'a>(
        &self,
        challenges: &'a [Challenge],
    ) -> Result<(ChallengeKind, &'a Challenge, &'a AcmeUrl, &'a Token), AcmeError> {
        for kind in self.kinds {
            let mut offered = challenges.iter().filter(|it| it.r#type == kind.name());
            let usable =
                |it: &'a Challenge| Some((*kind, it, it.url.as_ref()?, it.token.as_ref()?));
            if let Some(found) = offered.find_map(usable) {
                return Ok(found);
            }
        }
        let names: Vec<_> = self.kinds.iter().map(|kind| kind.name()).collect();
        Err(AcmeError::Malformed(format!(
            "it does not offer {}",
            names.join(" or ")
        )))
    }

    async fn post(&mut self, url: &AcmeUrl, payload: &str) -> Result<Answer, AcmeError> {
        let signer = Signer::Account(self.account);
        self.directory.post(self.key, signer, url, payload).await
    }
}

/// Returns the error of the challenge that has failed.
fn reason(challenges: Vec<Challenge>) -> Problem {
    let mut errors = challenges.into_iter().filter_map(|it| it.error);
    errors.next().unwrap_or_default()
}

async fn pause(asked: Option<Duration>) {
    let (least, most) = POLL_LIMITS;
    Timer::after(asked.unwrap_or(POLL_INTERVAL).clamp(least, most)).await;
}
