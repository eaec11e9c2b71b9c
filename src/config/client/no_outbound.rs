//! The stub of `outbound` in builds without it: `remoteBind` and `remoteProxy` are refused.

use crate::config::value::Scalar;
use crate::net::{LinkSource, ProxyServer};

const WHY: &str =
    "This gt was built without the choice of a proxy or a link to the server (the feature outbound): \
     install one with it, or remove the option.";

impl Scalar for LinkSource {
    fn read(_text: &str) -> Result<Self, String> {
        Err(WHY.to_owned())
    }
}

impl Scalar for ProxyServer {
    fn read(_text: &str) -> Result<Self, String> {
        Err(WHY.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_and_a_link_are_refused_with_the_name_of_the_feature() {
        let proxy = ProxyServer::read("http://user:hush@proxy:3128").unwrap_err();
        let link = LinkSource::read("eth1").unwrap_err();
        for error in [proxy, link] {
            assert!(error.contains("(the feature outbound)"), "{error}");
            assert!(!error.contains("hush"));
        }
    }
}
