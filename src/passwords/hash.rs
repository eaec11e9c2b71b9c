//! The hash of a password, `$pbkdf2-sha256$i=ROUNDS$SALT$HASH`, with SALT and HASH in base64 (the PHC
//! string format), and the name that a user has beside it.

use crate::encoding::BASE64;
use base64::Engine;
use ring::pbkdf2;
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt;
use std::io;
use std::num::NonZeroU32;
use std::str::FromStr;

/// Rounds of PBKDF2-HMAC-SHA256 in new hashes. On a router's 580 MHz MIPS they take about two seconds.
const ROUNDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(309_999);
/// Maximum number of rounds. More would keep a router busy for minutes.
const MAX_ROUNDS: u32 = 10_000_000;
/// Length in bytes of the salt of new hashes.
const SALT: usize = 16;
/// Maximum length in bytes of a salt; the minimum is half of [`SALT`].
const MAX_SALT: usize = 64;
/// Length in bytes of the key that is derived: that of SHA-256.
const DERIVED: usize = 32;
/// Maximum length in bytes of a user's name.
const MAX_NAME: usize = 200;

/// A password that is kept in a form from which it cannot be read.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    rounds: NonZeroU32,
    salt: Vec<u8>,
    derived: Vec<u8>,
}

/// The name of a user who has a password: 1 to 200 bytes without a colon (RFC 7617, section 2) or
/// control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName(String);

impl PasswordHash {
    /// Hashes a password with a new salt. Takes seconds on a router. The error says that the system has
    /// no random numbers.
    pub fn new(password: &[u8]) -> io::Result<Self> {
        let mut salt = vec![0; SALT];
        let no_random = |_| io::Error::other("the system gives no random numbers");
        SystemRandom::new().fill(&mut salt).map_err(no_random)?;
        let mut derived = vec![0; DERIVED];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            ROUNDS,
            &salt,
            password,
            &mut derived,
        );
        Ok(Self {
            rounds: ROUNDS,
            salt,
            derived,
        })
    }

    /// Returns the number of rounds.
    pub fn rounds(&self) -> u32 {
        self.rounds.get()
    }

    /// Takes the time that [`PasswordHash::is_of`] of another hash takes longer.
    pub fn take_as_long_as(&self, other: &Self) {
        let more = other.rounds.get().saturating_sub(self.rounds.get());
        if let Some(rounds) = NonZeroU32::new(more) {
            let derived = &mut [0; DERIVED];
            pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &self.salt, &[], derived);
        }
    }

    /// Whether this is the password. Takes as long, whatever the answer.
    pub fn is_of(&self, password: &[u8]) -> bool {
        let Self {
            rounds,
            salt,
            derived,
        } = self;
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::verify(algorithm, *rounds, salt, password, derived).is_ok()
    }
}

impl FromStr for PasswordHash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('$');
        let (Some(""), Some("pbkdf2-sha256"), Some(options), Some(salt), Some(derived), None) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err("what follows the colon is not a hash");
        };
        let rounds = options.strip_prefix("i=").unwrap_or_default();
        let rounds = rounds.strip_suffix(",l=32").unwrap_or(rounds);
        let is_plain = rounds.bytes().all(|b| b.is_ascii_digit());
        let rounds = rounds.parse::<NonZeroU32>().ok().filter(|_| is_plain);
        let rounds = rounds.ok_or("its number of rounds cannot be read")?;
        if rounds < ROUNDS {
            return Err("it has fewer than 310000 rounds");
        }
        if rounds.get() > MAX_ROUNDS {
            return Err("it has more than 10000000 rounds");
        }
        let bytes = |part: &str| BASE64.decode(part).ok();
        match (bytes(salt), bytes(derived)) {
            (Some(salt), Some(derived))
                if (SALT / 2..=MAX_SALT).contains(&salt.len()) && derived.len() == DERIVED =>
            {
                Ok(Self {
                    rounds,
                    salt,
                    derived,
                })
            }
            _ => Err("it is cut short or changed"),
        }
    }
}

impl fmt::Display for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rounds,
            salt,
            derived,
        } = self;
        let (salt, derived) = (BASE64.encode(salt), BASE64.encode(derived));
        write!(f, "$pbkdf2-sha256$i={rounds}${salt}${derived}")
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("******")
    }
}

impl UserName {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text.len() > MAX_NAME {
            return Err("a user's name has 1 to 200 bytes");
        }
        if text.contains(':') || text.chars().any(char::is_control) {
            return Err("a user's name has no colon and no control characters");
        }
        if text.contains(char::REPLACEMENT_CHARACTER) {
            return Err("a user's name is in UTF-8");
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_of_its_password_alone_and_reads_as_it_is_written() {
        let (one, other) = (
            PasswordHash::new(b"secret").unwrap(),
            PasswordHash::new(b"secret").unwrap(),
        );
        assert_ne!(one, other, "each has a salt of its own");
        assert!(one.is_of(b"secret") && other.is_of(b"secret"));
        assert!(!one.is_of(b"Secret") && !one.is_of(b""));
        let text = one.to_string();
        assert!(text.starts_with("$pbkdf2-sha256$i=310000$"), "{text}");
        assert_eq!(text.parse(), Ok(one.clone()));
        let padded = text.replace("i=310000", "i=310000,l=32") + "=";
        assert_eq!(padded.parse(), Ok(one.clone()));
        assert_eq!(format!("{one:?}"), "******");
    }

    /// RFC 7914, section 11, has this vector, of 80 000 rounds and 64 bytes: its first half is the key
    /// of 32.
    #[test]
    fn keys_are_derived_as_rfc_7914_shows() {
        let hash = PasswordHash {
            rounds: NonZeroU32::new(80_000).unwrap(),
            salt: b"NaCl".to_vec(),
            derived: vec![
                0x4d, 0xdc, 0xd8, 0xf6, 0x0b, 0x98, 0xbe, 0x21, 0x83, 0x0c, 0xee, 0x5e, 0xf2, 0x27,
                0x01, 0xf9, 0x64, 0x1a, 0x44, 0x18, 0xd0, 0x4c, 0x04, 0x14, 0xae, 0xff, 0x08, 0x87,
                0x6b, 0x34, 0xab, 0x56,
            ],
        };
        assert!(hash.is_of(b"Password"));
    }

    #[test]
    fn what_is_no_hash_says_why() {
        let salt = "c29tZXNhbHRzb21lc2FsdA";
        let key = "A".repeat(43);
        for (text, why) in [
            ("secret".to_owned(), "is not a hash"),
            (String::new(), "is not a hash"),
            (
                format!("$pbkdf2-sha512$i=310000${salt}${key}"),
                "is not a hash",
            ),
            (
                format!("$pbkdf2-sha256$i=310000${salt}${key}$"),
                "is not a hash",
            ),
            (
                format!("$pbkdf2-sha256$310000${salt}${key}"),
                "number of rounds",
            ),
            (
                format!("$pbkdf2-sha256$i=+310000${salt}${key}"),
                "number of rounds",
            ),
            (
                format!("$pbkdf2-sha256$i=0${salt}${key}"),
                "number of rounds",
            ),
            (
                format!("$pbkdf2-sha256$i=99999999999${salt}${key}"),
                "number of rounds",
            ),
            (
                format!("$pbkdf2-sha256$i=309999${salt}${key}"),
                "fewer than",
            ),
            (
                format!("$pbkdf2-sha256$i=10000001${salt}${key}"),
                "more than",
            ),
            (format!("$pbkdf2-sha256$i=310000$c2FsdA${key}"), "cut short"),
            (format!("$pbkdf2-sha256$i=310000${salt}$AAAA"), "cut short"),
            (
                format!("$pbkdf2-sha256$i=310000${salt}${key}A"),
                "cut short",
            ),
            (format!("$pbkdf2-sha256$i=310000$s!lt${key}"), "cut short"),
        ] {
            let error = text.parse::<PasswordHash>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        let longest = format!("$pbkdf2-sha256$i=10000000${salt}${key}");
        assert!(longest.parse::<PasswordHash>().is_ok());
    }

    #[test]
    fn a_name_fits_into_a_request() {
        for name in ["alice", "a b", "älice", &"a".repeat(200)] {
            assert_eq!(name.parse::<UserName>().unwrap().as_str(), name);
        }
        for name in ["", "a:b", "a\nb", "\u{FFFD}", &"a".repeat(201)] {
            assert!(name.parse::<UserName>().is_err(), "{name}");
        }
    }
}
