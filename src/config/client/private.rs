//! Keys of private services: what two clients share, and their server does not know. Not the proof, see
//! `client::private`.

use std::path::{Path, PathBuf};

use super::service::{Exposure, ServiceConfig};
use super::Local;
use crate::config::label::label;
use crate::config::{check_length, secret_file, Secret};

/// Minimum length of a key in bytes.
const MIN_KEY: usize = 16;
/// Minimum number of different bytes in a key.
const MIN_DIFFERENT: usize = 8;

/// Reads a key from an option, or from the file of another one, which is added to `files`. The error is a
/// sentence without the key.
pub fn key(
    (option, key): (&str, Option<Secret>),
    (file_option, file): (&str, Option<PathBuf>),
    files: &mut Vec<PathBuf>,
) -> Result<Option<Secret>, String> {
    let (option, key) = match (key, file) {
        (Some(_), Some(_)) => {
            return Err(format!(
                "{option} and {file_option} both name the key: remove one of them."
            ))
        }
        (Some(key), None) => (option, key),
        (None, Some(path)) => {
            let key = secret_file::secret(file_option, Path::new(&path))?;
            files.push(path);
            (file_option, key)
        }
        (None, None) => return Ok(None),
    };
    check(option, &key)?;
    Ok(Some(key))
}

/// Checks that a key is hard to guess: a program that relays a proof could try keys at its leisure.
fn check(option: &str, key: &Secret) -> Result<(), String> {
    let bytes = key.as_bytes();
    check_length(&format!("The key of {option}"), bytes.len())?;
    let mut different = bytes.to_vec();
    different.sort_unstable();
    different.dedup();
    if bytes.len() < MIN_KEY || different.len() < MIN_DIFFERENT {
        return Err(format!(
            "The key of {option} is easy to guess: it must have {MIN_KEY} bytes or more, {MIN_DIFFERENT} of them \
             different. gt keygen -shared prints a good one."
        ));
    }
    Ok(())
}

/// Checks that no two private services of one transport have the same key, which tells them apart.
pub fn check_keys(services: &[ServiceConfig]) -> Result<(), String> {
    let mut before: Vec<&ServiceConfig> = Vec::new();
    for service in services.iter().filter(|service| service.is_private()) {
        let same = |other: &&&ServiceConfig| {
            other.exposure == service.exposure && other.is_udp() == service.is_udp()
        };
        if let Some(other) = before.iter().find(same) {
            return Err(format!(
                "The private services {} and {} have the same key, which tells them apart: give each a key of \
                 its own.",
                other.local, service.local
            ));
        }
        before.push(service);
    }
    Ok(())
}

/// Returns what peers reach private services by, if no other service has an HTTP host prefix: the id, at which
/// visitors find nothing. The error says that the id is not a host prefix.
pub fn signaling(id: &str, services: &[ServiceConfig]) -> Result<Option<ServiceConfig>, String> {
    let has_prefix = |service: &ServiceConfig| match &service.exposure {
        Exposure::Host { tls, .. } => !tls,
        Exposure::Domains { tls, prefix, .. } => !tls && prefix.is_some(),
        Exposure::Tcp { .. } | Exposure::Udp { .. } | Exposure::Private { .. } => false,
    };
    let mut private = services.iter().filter(|service| service.is_private());
    let Some(first) = private.next().filter(|_| !services.iter().any(has_prefix)) else {
        return Ok(None);
    };
    label(id).map_err(|why| {
        format!(
            "The id \"{}\" is not a host prefix, by which peers reach the private service {}: {why}. Take another \
             id.",
            id.escape_debug(),
            first.local
        )
    })?;
    Ok(Some(ServiceConfig {
        local: Local::Signaling,
        exposure: Exposure::Host {
            tls: false,
            prefix: None,
        },
        ..ServiceConfig::bare()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_long_and_hard_to_guess() {
        for (text, is_good) in [
            ("WyQk0vWSTl4Ei7CqYqCRPh9T1Q4mXc2a", true),
            ("0123456789abcdef", true),
            ("0123456789abcde", false),
            ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
            ("", false),
            (&"0123456789".repeat(21), false),
        ] {
            let checked = key(
                ("private", Some(Secret::new(text))),
                ("privateFile", None),
                &mut Vec::new(),
            );
            assert_eq!(checked.is_ok(), is_good, "{text}: {checked:?}");
            if let Err(why) = checked {
                assert!(text.is_empty() || !why.contains(text), "{why}");
            }
        }
    }
}
