//! The answers of an authority, as JSON (RFC 8555, section 7.1; RFC 9773). Not what gt does about them.

use crate::config::Url;
use crate::net::tls::certificate_facts::seconds;
use serde::Deserialize;

/// Maximum number of bytes of a text that is shown or sent back.
const MAX_TEXT: usize = 300;
/// Maximum number of bytes of a URL.
const MAX_URL: usize = 2000;
/// Maximum number of authorizations of an order, which has one name.
const MAX_PARTS: usize = 10;

/// The URLs of an authority.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectoryUrls {
    pub new_nonce: AcmeUrl,
    pub new_account: AcmeUrl,
    pub new_order: AcmeUrl,
    #[serde(default)]
    pub renewal_info: Option<AcmeUrl>,
    #[serde(default)]
    pub meta: DirectoryMeta,
}

/// What an authority tells about itself.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DirectoryMeta {
    pub external_account_required: bool,
}

/// An `https://` URL as the authority has written it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct AcmeUrl {
    /// The text, which is signed.
    pub text: String,
    /// Its parts.
    pub url: Url,
}

impl TryFrom<String> for AcmeUrl {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        use crate::config::value::Scalar;
        match Url::read(&text) {
            Ok(url) if url.tls && text.len() <= MAX_URL => Ok(Self { text, url }),
            _ => Err("it is not an https:// URL"),
        }
    }
}

/// The state of an order.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum OrderStatus {
    /// Authorizations are missing.
    Pending { authorizations: Vec<AcmeUrl> },
    /// The request for the certificate is missing.
    Ready { finalize: AcmeUrl },
    /// The authority is at work.
    Processing,
    /// The certificate is there.
    Valid { certificate: AcmeUrl },
    /// The order has failed.
    Invalid {
        #[serde(default)]
        error: Option<Problem>,
    },
}

/// Proof that a name is the server's.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Authorization {
    pub identifier: Identifier,
    pub status: AuthorizationStatus,
    #[serde(default)]
    pub challenges: Vec<Challenge>,
    #[serde(default)]
    pub wildcard: bool,
}

/// A name of a certificate.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Identifier {
    pub r#type: String,
    pub value: String,
}

/// The state of an authorization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthorizationStatus {
    Pending,
    Valid,
    Invalid,
    Deactivated,
    Expired,
    Revoked,
}

/// A way to prove that a name is the server's.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Challenge {
    pub r#type: String,
    /// Kinds that gt does not know may have none.
    #[serde(default)]
    pub url: Option<AcmeUrl>,
    #[serde(default)]
    pub token: Option<Token>,
    #[serde(default)]
    pub status: Option<String>,
    #[serde(default)]
    pub error: Option<Problem>,
}

/// The token of a challenge: base64url (RFC 8555, section 8.3).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Token(pub String);

impl TryFrom<String> for Token {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        match (1..=MAX_TEXT).contains(&text.len()) && text.bytes().all(usual) {
            true => Ok(Self(text)),
            false => Err("it is not a token"),
        }
    }
}

/// An error of the authority (RFC 7807).
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Problem {
    pub r#type: String,
    pub detail: String,
}

impl Problem {
    /// Whether the problem is of this kind, like `badNonce`.
    pub fn is(&self, kind: &str) -> bool {
        self.r#type.rsplit(':').next() == Some(kind)
    }

    /// Returns the kind and the explanation, shortened, without control characters.
    pub fn text(&self) -> String {
        let kind = self.r#type.rsplit(':').next().unwrap_or_default();
        printable(&format!("{kind}: {}", self.detail))
    }
}

/// Returns a text of the authority for the log: shortened, and without control characters.
pub fn printable(text: &str) -> String {
    let shown = text.chars().filter(|c| !c.is_control());
    let mut shown: String = shown.take(MAX_TEXT).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// When a certificate is best renewed (RFC 9773, section 4.2), in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenewalWindow {
    pub start: i64,
    pub end: i64,
}

impl RenewalWindow {
    /// Reads the answer of an authority; `None` if it is not understood.
    pub fn read(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct RenewalInfo {
            suggested_window: SuggestedWindow,
        }
        #[derive(Deserialize)]
        struct SuggestedWindow {
            start: String,
            end: String,
        }
        let info: RenewalInfo = serde_json::from_slice(body).ok()?;
        let (start, end) = (
            timestamp(&info.suggested_window.start)?,
            timestamp(&info.suggested_window.end)?,
        );
        (start < end).then_some(Self { start, end })
    }
}

/// Reads an order; the error says what is wrong.
pub fn order(body: &[u8]) -> Result<OrderStatus, String> {
    let order: OrderStatus = read(body)?;
    match &order {
        OrderStatus::Pending { authorizations } if authorizations.is_empty() => {
            Err("the order has no authorizations".to_owned())
        }
        OrderStatus::Pending { authorizations } if authorizations.len() > MAX_PARTS => {
            Err("the order has too many authorizations".to_owned())
        }
        _ => Ok(order),
    }
}

/// Reads an authorization of `name`; the error says what is wrong.
pub fn authorization(body: &[u8], name: &str) -> Result<Authorization, String> {
    let authorization: Authorization = read(body)?;
    let Identifier { r#type, value } = &authorization.identifier;
    match r#type == "dns" && value.eq_ignore_ascii_case(name) && !authorization.wildcard {
        true => Ok(authorization),
        false => Err("the authorization is for another name".to_owned()),
    }
}

/// Reads JSON; the error quotes nothing of it.
pub fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|e| {
        format!(
            "the answer is not as RFC 8555 has it (line {}, column {})",
            e.line(),
            e.column()
        )
    })
}

/// Reads a time (RFC 3339), in seconds since 1970.
fn timestamp(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse().ok())?
    };
    let has =
        |at: usize, expected: &str| text.get(at..at + 1).is_some_and(|it| expected.contains(it));
    if !(has(4, "-") && has(7, "-") && has(10, "Tt ") && has(13, ":") && has(16, ":")) {
        return None;
    }
    let local = seconds(
        number(0, 4)?,
        number(5, 7)?,
        number(8, 10)?,
        number(11, 13)?,
        number(14, 16)?,
        number(17, 19)?,
    )?;
    let rest = text.get(19..)?;
    let rest = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => rest,
    };
    let zone = text.len().checked_sub(rest.len())?;
    match rest.as_bytes() {
        [b'Z' | b'z'] => Some(local),
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (number(zone + 1, zone + 3)?, number(zone + 4, zone + 6)?);
            let offset = hours * 3600 + minutes * 60;
            Some(if *sign == b'+' {
                local - offset
            } else {
                local + offset
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_of_an_order_has_what_it_needs() {
        for (body, is_right) in [
            (
                r#"{"status": "pending", "authorizations": ["https://h/1"]}"#,
                true,
            ),
            (r#"{"status": "pending", "authorizations": []}"#, false),
            (r#"{"status": "pending"}"#, false),
            (r#"{"status": "ready", "finalize": "https://h/f"}"#, true),
            (r#"{"status": "ready", "finalize": "http://h/f"}"#, false),
            (r#"{"status": "ready"}"#, false),
            (r#"{"status": "processing"}"#, true),
            (
                r#"{"status": "valid", "certificate": "https://h/c", "more": []}"#,
                true,
            ),
            (r#"{"status": "valid"}"#, false),
            (r#"{"status": "invalid"}"#, true),
            (r#"{"status": "other"}"#, false),
            ("<html>", false),
            ("", false),
            ("[]", false),
        ] {
            assert_eq!(order(body.as_bytes()).is_ok(), is_right, "{body}");
        }
    }

    #[test]
    fn an_authorization_for_another_name_is_refused() {
        let body = |kind: &str, name: &str, more: &str| {
            format!(
                r#"{{"identifier": {{"type": "{kind}", "value": "{name}"}}, "status": "pending"{more}}}"#
            )
        };
        let is = |body: String| authorization(body.as_bytes(), "a.example").is_ok();
        assert!(is(body("dns", "a.example", "")));
        assert!(is(body("dns", "A.Example", "")));
        assert!(!is(body("dns", "b.example", "")));
        assert!(!is(body("ip", "a.example", "")));
        assert!(!is(body("dns", "a.example", r#", "wildcard": true"#)));
        let unknown = r#", "challenges": [{"type": "x-1"}, {"type": "http-01", "token": "a_-9", "url": "https://h/"}]"#;
        assert!(is(body("dns", "a.example", unknown)));
        let token =
            r#", "challenges": [{"type": "http-01", "token": "a/../b", "url": "https://h/"}]"#;
        assert!(!is(body("dns", "a.example", token)));
    }

    #[test]
    fn a_problem_is_shown_short_and_without_control_characters() {
        let problem = Problem {
            r#type: "urn:ietf:params:acme:error:rateLimited".to_owned(),
            detail: format!("a\r\nb\u{1b}[2J{}", "x".repeat(1000)),
        };
        assert!(problem.is("rateLimited") && !problem.is("badNonce"));
        let text = problem.text();
        assert!(text.starts_with("rateLimited: ab[2Jxx") && text.chars().count() <= MAX_TEXT + 1);
    }

    #[test]
    fn a_time_is_read_with_its_zone() {
        for (text, expected) in [
            ("1970-01-02T00:00:00Z", Some(86_400)),
            ("1970-01-02T00:00:00.123456Z", Some(86_400)),
            ("1970-01-02T01:30:00+01:30", Some(86_400)),
            ("1970-01-01T23:00:00-01:00", Some(86_400)),
            ("1970-01-02T00:00:00", None),
            ("1970-01-02", None),
            ("1970-13-02T00:00:00Z", None),
            ("1970-01-02T00:00:00Zx", None),
            ("1970-01-0éT00:00:00Z", None),
            ("", None),
        ] {
            assert_eq!(timestamp(text), expected, "{text}");
        }
        let window = |start: &str, end: &str| {
            RenewalWindow::read(
                format!(r#"{{"suggestedWindow": {{"start": "{start}", "end": "{end}"}}}}"#)
                    .as_bytes(),
            )
        };
        assert!(window("1970-01-02T00:00:00Z", "1970-01-03T00:00:00Z").is_some());
        assert!(window("1970-01-03T00:00:00Z", "1970-01-02T00:00:00Z").is_none());
    }
}
