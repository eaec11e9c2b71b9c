//! The options by which a server gets certificates from an authority. Not the protocol.

use std::path::PathBuf;

use super::options::ServerOptions;
use crate::config::value::Scalar;
use crate::config::{Domain, Url};

/// How a server gets certificates for the names of its clients.
#[derive(Clone, Debug, PartialEq)]
pub struct AcmeConfig {
    /// The domains below which host prefixes get certificates, in lower case.
    pub domains: Vec<Box<str>>,
    /// The address that the authority writes to.
    pub email: Option<String>,
    /// The URL of the authority's directory.
    pub directory: Url,
    /// PEM file with the authorities that have signed the directory's own certificate; `None` for those of the
    /// system.
    pub ca: Option<PathBuf>,
    /// Directory for keys and certificates.
    pub state_dir: PathBuf,
}

impl AcmeConfig {
    /// Takes the options; `None` without an `acmeDomain`. The error says which option is missing.
    pub fn of(
        options: &ServerOptions,
        state_dir: Option<&PathBuf>,
    ) -> Result<Option<Self>, String> {
        if options.acme_domain.is_empty() {
            return Ok(None);
        }
        let wildcard = |domain: &&Domain| domain.as_str().starts_with('*');
        if let Some(domain) = options.acme_domain.iter().find(wildcard) {
            return Err(format!(
                "acmeDomain is {domain}: write it without \"*.\"; each host prefix in use below it gets a \
                 certificate of its own, and there are none for wildcards."
            ));
        }
        let Some(state_dir) = state_dir else {
            return Err(
                "acmeDomain needs stateDir, where gt keeps the certificates and the key of its account."
                    .to_owned(),
            );
        };
        if options.tls_addr.is_none() {
            return Err("acmeDomain needs tlsAddr, where the certificates are used.".to_owned());
        }
        if !options.http_mux_header.0.eq_ignore_ascii_case("Host") {
            return Err(
                "acmeDomain needs the httpMUXHeader Host: with another one, clients have no host names."
                    .to_owned(),
            );
        }
        if !options.acme_directory.tls {
            return Err("acmeDirectory must be an https:// URL.".to_owned());
        }
        let domains = options.acme_domain.iter();
        Ok(Some(Self {
            domains: domains.map(|domain| domain.as_str().into()).collect(),
            email: options.acme_email.as_ref().map(|email| email.0.clone()),
            directory: options.acme_directory.clone(),
            ca: options.acme_ca.clone(),
            state_dir: state_dir.clone(),
        }))
    }
}

/// An address of electronic mail.
#[derive(Clone, Debug, PartialEq)]
pub struct Email(pub String);

impl Scalar for Email {
    fn read(text: &str) -> Result<Self, String> {
        let (local, host) = text.rsplit_once('@').unwrap_or_default();
        // What a mailto URL would need escapes for is not taken.
        let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-._+=".contains(&byte);
        let is_usual = |part: &str| !part.is_empty() && part.bytes().all(usual);
        match is_usual(local) && is_usual(host) && text.len() <= 254 {
            true => Ok(Self(text.to_owned())),
            false => Err(format!(
                "\"{text}\" is not an email address: write it like admin@example.com."
            )),
        }
    }
}
