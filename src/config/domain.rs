//! Domains of services: a full name, `shop.example.com`, all names below one, `*.example.com`, or all
//! names, `*`. Not which client has one.

use std::fmt;

use super::label::label;
use super::value::Scalar;
use crate::wire::hello::MAX_DOMAIN;

/// What stands for any labels in front of a name.
const ANY: &str = "*";

/// A domain in lower case, and in the `xn--` form if it is not ASCII.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Domain(Box<str>);

impl Domain {
    /// Reads a domain as a configuration or a message has it. The error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == ANY {
            return Ok(Self(ANY.into()));
        }
        let (wildcard, name) = match text.strip_prefix("*.") {
            Some(name) => ("*.", name),
            None => ("", text),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let unusual = |c: &char| c.is_ascii() && !c.is_ascii_alphanumeric() && !"-_.".contains(*c);
        if let Some(c) = name.chars().find(unusual) {
            return Err(format!("host names have no {c:?}"));
        }
        let labels = name.split('.').map(label).collect::<Result<Vec<_>, _>>();
        let labels = labels.map_err(|why| format!("for one of its parts, {why}"))?;
        let name = labels.join(".");
        match wildcard.len().saturating_add(name.len()) {
            ..=MAX_DOMAIN => Ok(Self(format!("{wildcard}{name}").into())),
            length => Err(format!(
                "it has {length} bytes, and the maximum is {MAX_DOMAIN}"
            )),
        }
    }

    /// Returns the domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a client to which this is allowed may have another domain: it is the same, or all of its
    /// names are below this one's.
    pub fn allows(&self, other: &Self) -> bool {
        let below = || {
            let tail = self.0.strip_prefix(ANY)?;
            let name = other.0.strip_prefix(ANY).unwrap_or(&other.0);
            Some(tail.is_empty() || name.ends_with(tail))
        };
        self == other || below().unwrap_or(false)
    }

    /// Iterates over the domains that a host name has, the narrowest first: itself, and what is allowed
    /// for all names below another. Not `*`.
    pub fn of_host(host: &str) -> impl Iterator<Item = String> + '_ {
        let dots = host.match_indices('.');
        let wildcards = dots.filter_map(|(at, _)| Some(format!("{ANY}{}", host.get(at..)?)));
        std::iter::once(host.to_owned()).chain(wildcards)
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Scalar for Domain {
    fn read(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|why| {
            format!(
                "\"{text}\" is not a domain: {why}. Write it like shop.example.com, *.example.com or *."
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    #[test]
    fn a_domain_is_read_in_every_form() {
        for (text, shown) in [
            ("shop.example.com", "shop.example.com"),
            ("Shop.Example.COM.", "shop.example.com"),
            ("*.example.com", "*.example.com"),
            ("*", "*"),
            ("localhost", "localhost"),
            ("müller.example", "xn--mller-kva.example"),
        ] {
            assert_eq!(domain(text).as_str(), shown);
        }
        for text in [
            "",
            ".",
            "a..b",
            ".a",
            "*..",
            "*.",
            "**",
            "*a.b",
            "a.*.b",
            "a b.c",
            "a/b",
            "a:80",
            "http://a.b",
            &format!("{}.com", "a".repeat(64)),
            &"a.".repeat(128),
        ] {
            let error = Domain::read(text).unwrap_err();
            assert!(
                error.contains("is not a domain: ") && error.contains("*.example.com"),
                "{error}"
            );
        }
        assert!(Domain::parse(&format!("{}a", "a.".repeat(126))).is_ok());
    }

    #[test]
    fn a_pattern_allows_names_below_its_own_and_nothing_beside() {
        for (pattern, name, is) in [
            ("a.b", "a.b", true),
            ("a.b", "c.a.b", false),
            ("a.b", "*.a.b", false),
            ("*.b", "a.b", true),
            ("*.b", "c.a.b", true),
            ("*.b", "*.b", true),
            ("*.b", "*.a.b", true),
            ("*.b", "b", false),
            ("*.b", "ab", false),
            ("*.b", "*", false),
            ("*.a.b", "*.b", false),
            ("*", "b", true),
            ("*", "*.b", true),
            ("*", "*", true),
        ] {
            assert_eq!(
                domain(pattern).allows(&domain(name)),
                is,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn a_host_has_its_own_name_first_and_then_the_longest_wildcard() {
        let of = |host| Domain::of_host(host).collect::<Vec<_>>();
        assert_eq!(of("a.b.c"), ["a.b.c", "*.b.c", "*.c"]);
        assert_eq!(of("a"), ["a"]);
        assert_eq!(of(""), [""]);
        // An empty label is no reason to fail.
        assert_eq!(of("a..b"), ["a..b", "*..b", "*.b"]);
    }
}
