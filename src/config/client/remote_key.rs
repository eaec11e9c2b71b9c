//! The keys of servers that a client trusts instead of certificates (`remoteKey`). Not the check of them.

use std::path::PathBuf;

use crate::config::value::Scalar;
use crate::keys::Fingerprint;

/// One value of `remoteKey`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RemoteKey {
    /// The key that the server shows first.
    First,
    /// The key with this fingerprint.
    Key(Fingerprint),
}

impl Scalar for RemoteKey {
    fn read(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("first") {
            return Ok(Self::First);
        }
        text.parse().map(Self::Key).map_err(|()| {
            format!(
                "\"{text}\" is not the key of a server: write what gt fingerprint prints at the \
                 server, SHA256: and 43 characters, or first."
            )
        })
    }
}

/// The keys of servers that a client trusts.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerKeys {
    /// Any: certificates decide.
    Any,
    /// These, whatever is in the certificates.
    Only(Vec<Fingerprint>),
    /// Of each host the one that it shows first, which is remembered in this directory.
    First(PathBuf),
}

impl ServerKeys {
    /// Combines the values of `remoteKey` with `stateDir`. The error is a sentence.
    pub fn new(values: &[RemoteKey], state_dir: Option<PathBuf>) -> Result<Self, String> {
        let keys: Vec<Fingerprint> = values
            .iter()
            .filter_map(|value| match value {
                RemoteKey::Key(key) => Some(*key),
                RemoteKey::First => None,
            })
            .collect();
        let first = values.contains(&RemoteKey::First);
        match (first, keys.is_empty(), state_dir) {
            (false, true, _) => Ok(Self::Any),
            (false, false, _) => Ok(Self::Only(keys)),
            (true, true, Some(directory)) => Ok(Self::First(directory)),
            (true, true, None) => Err(
                "remoteKey is first, which needs stateDir: the directory to remember keys in."
                    .to_owned(),
            ),
            (true, false, _) => Err(
                "remoteKey is first and a key: leave out first to trust the key alone.".to_owned(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "SHA256:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc";

    #[test]
    fn keys_are_combined_with_the_directory_that_first_needs() {
        let key = RemoteKey::read(KEY).unwrap();
        let first = RemoteKey::read("First").unwrap();
        let dir = || Some(PathBuf::from("/d"));
        assert_eq!(ServerKeys::new(&[], dir()), Ok(ServerKeys::Any));
        let only = ServerKeys::Only(vec![KEY.parse().unwrap()]);
        assert_eq!(ServerKeys::new(&[key], None), Ok(only));
        let remembered = ServerKeys::First("/d".into());
        assert_eq!(ServerKeys::new(&[first], dir()), Ok(remembered));
        for (values, dir) in [(&[first][..], None), (&[first, key], dir())] {
            assert!(ServerKeys::new(values, dir).is_err());
        }
        assert!(RemoteKey::read("SHA256:x")
            .unwrap_err()
            .contains("gt fingerprint"));
    }
}
