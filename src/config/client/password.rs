//! The name and the hashed password of a visitor (`password`). Builds without passwords have
//! `no_password`.

use crate::config::value::Scalar;
use crate::passwords::{PasswordHash, UserName};

/// A visitor's name and password, `USER:HASH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserPassword {
    /// The name.
    pub user: UserName,
    /// The hash of the password.
    pub hash: PasswordHash,
}

impl Scalar for UserPassword {
    fn read(text: &str) -> Result<Self, String> {
        // The text may be a password: it is not shown.
        let wrong = |why: &str| {
            format!("It is not a name and a hash: {why}. Write what \"gt hash USER\" prints.")
        };
        let (user, hash) = text
            .split_once(':')
            .ok_or_else(|| wrong("it has no colon"))?;
        Ok(Self {
            user: user.parse().map_err(wrong)?,
            hash: hash.parse().map_err(wrong)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_a_name_and_a_hash_and_an_error_does_not_show_it() {
        let hash = format!(
            "$pbkdf2-sha256$i=310000$c29tZXNhbHRzb21l${}",
            "A".repeat(43)
        );
        let read = UserPassword::read(&format!("alice:{hash}")).unwrap();
        assert_eq!(read.user.as_str(), "alice");
        assert_eq!(read.hash.to_string(), hash);
        for text in ["alice", "alice:secret", ":secret", &format!(":{hash}")] {
            let error = UserPassword::read(text).unwrap_err();
            assert!(error.contains("gt hash USER"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
