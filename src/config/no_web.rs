//! Builds without the web page. `layers` warns of its options.

use super::options::CommonOptions;
use super::value::Scalar;
use super::ListenAddr;
use std::path::{Path, PathBuf};

/// There is no page.
#[derive(Clone, Debug)]
pub enum WebConfig {}

/// The password of the page, which nothing asks for.
pub struct WebPassword;

impl Scalar for WebPassword {
    fn read(_text: &str) -> Result<Self, String> {
        Ok(Self)
    }
}

/// The keys of a file about the page.
#[allow(dead_code)]
pub struct WebFile {
    pub admin: Option<String>,
    pub password: Option<WebPassword>,
}

impl WebConfig {
    /// Returns `None`: this build has no page.
    pub(super) fn new(
        options: &CommonOptions,
        _: WebFile,
        _: &mut [String],
    ) -> Result<Option<Self>, String> {
        // They exist so that their flags and keys are known.
        let CommonOptions {
            web_addr: _addr,
            web_cert_file: _cert,
            web_hosts: _hosts,
            web_key_file: _key,
            ..
        } = options;
        Ok(None)
    }

    /// See `web`.
    pub fn addr(&self) -> &ListenAddr {
        match *self {}
    }

    /// See `web`.
    pub fn key_file(&self) -> Option<PathBuf> {
        match *self {}
    }

    /// See `web`.
    pub fn state_dir(&self) -> Option<&Path> {
        match *self {}
    }
}
