//! Builds without proxies: a service that is one cannot be published.

use std::fmt;

use super::local::Local;
use crate::config::value::Scalar;
use crate::config::AddressRules;

const WHY: &str =
    "This gt was built without proxies (the feature proxy): install one with them, or remove \
                   the service.";

/// No proxy can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {}

impl ProxyKind {
    /// Reads the `local` of a proxy, which is an error; `None` if it is one of another service.
    pub fn read(text: &str) -> Option<Result<Self, String>> {
        let (scheme, _) = text.split_once(':').unwrap_or((text, ""));
        let known = ["socks5", "httpproxy"];
        let is_proxy = known.iter().any(|known| scheme.eq_ignore_ascii_case(known));
        is_proxy.then(|| Err(WHY.to_owned()))
    }
}

/// No proxy carries datagrams.
pub fn has_udp(kind: ProxyKind) -> bool {
    match kind {}
}

impl fmt::Display for ProxyKind {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

/// No proxy has targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {}

impl Scalar for Target {
    fn read(_text: &str) -> Result<Self, String> {
        Err(WHY.to_owned())
    }
}

/// Accepts every service: none is a proxy.
pub fn check(
    _name: &str,
    _local: &Local,
    _targets: &[Target],
    _visitors: &AddressRules,
    _has_password: bool,
) -> Result<(), String> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_refused_with_the_name_of_the_feature() {
        for text in ["socks5:", "SOCKS5://", "httpproxy:", "httpproxy"] {
            let error = Local::read(text).unwrap_err();
            assert!(error.contains("(the feature proxy)"), "{error}");
        }
        let error = Target::read("10.0.0.0/8").unwrap_err();
        assert!(error.contains("(the feature proxy)"), "{error}");
    }
}
