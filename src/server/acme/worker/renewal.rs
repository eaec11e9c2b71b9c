//! When the authority suggests to renew a certificate (RFC 9773). Not the renewal.

use super::super::directory::Directory;
use super::super::failure::seconds;
use super::super::jws::base64url;
use super::super::messages::{AcmeUrl, RenewalWindow};
use super::super::store::NameState;
use super::super::AcmeError;
use super::{now, Worker};
use crate::net::tls::certificate_facts::CertificateFacts;
use std::time::Duration;

/// Seconds between two questions for the time of a renewal, if the authority does not tell.
const ASK_INTERVAL: i64 = 6 * 3600;

impl Worker {
    /// Asks the authority when a certificate is best renewed.
    pub(super) async fn ask_for_renewal(&mut self, name: &str) {
        let now = now();
        let file = self.file(name);
        let asked = match self.replaced(&file) {
            Some(certificate) => self.renewal_window(&certificate).await,
            None => Ok(None),
        };
        let Some(known) = self.names.get_mut(name) else {
            return;
        };
        let mut again = ASK_INTERVAL;
        match asked {
            Ok(Some((window, after))) => {
                // Spread over the window, so that not all servers come at a time.
                let length = u64::try_from(window.end.saturating_sub(window.start)).unwrap_or(1);
                let place = u64::from(crate::net::random()).checked_rem(length);
                let place = i64::try_from(place.unwrap_or_default()).unwrap_or_default();
                let is_new = known
                    .file
                    .renew
                    .is_none_or(|renew| !(window.start..window.end).contains(&renew));
                if is_new {
                    known.file.renew = Some(window.start.saturating_add(place));
                }
                again = after.map_or(again, seconds).clamp(60, 24 * 3600);
            }
            Ok(None) => again = 24 * 3600,
            Err(e) => log::debug!("asking when to renew the certificate of {name}: {e}"),
        }
        known.file.ask = now.saturating_add(again);
        if let Err(e) = self.write(name, false).await {
            log::debug!("{e}");
        }
    }

    /// Returns the authority's suggestion for a certificate; `None` if it makes none.
    async fn renewal_window(
        &self,
        certificate: &str,
    ) -> Result<Option<(RenewalWindow, Option<Duration>)>, AcmeError> {
        let mut directory = Directory::open(&self.acme).await?;
        let Some(base) = directory.urls.renewal_info.clone() else {
            return Ok(None);
        };
        let text = format!("{}/{certificate}", base.text.trim_end_matches('/'));
        let Ok(url) = AcmeUrl::try_from(text) else {
            return Ok(None);
        };
        let answer = directory.get(&url).await?;
        let window = RenewalWindow::read(&answer.body);
        Ok(window.map(|window| (window, answer.retry_after)))
    }

    /// Returns the identifier of a name's certificate (RFC 9773, section 4.1).
    pub(super) fn replaced(&self, file: &NameState) -> Option<String> {
        let issued = crate::net::tls::first_certificate(&file.chain)?;
        let facts = CertificateFacts::read(&issued)?;
        Some(format!(
            "{}.{}",
            base64url(&facts.authority?),
            base64url(&facts.serial)
        ))
    }
}
