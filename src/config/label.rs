//! One label of a host name: what a host prefix may be, and the form in which it is published and
//! compared. Not which client may have it.

use std::borrow::Cow;
use std::fmt;

/// Longest label of a host name, in bytes (RFC 1035, 2.3.4).
pub const MAX_LABEL: usize = 63;
/// Longest text that is converted. A label of 63 characters has at most four bytes for each; the
/// conversion takes time quadratic in its length, and visitors choose the text.
const MAX_TEXT: usize = MAX_LABEL * 4;

/// Why a text cannot be a host prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotALabel {
    /// There is nothing.
    Empty,
    /// It is more than one label, and visitors are routed by the first one.
    Dot,
    /// This character cannot stand in a host name.
    Character(char),
    /// It has this many bytes as host names carry it.
    TooLong(usize),
}

impl fmt::Display for NotALabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotALabel::Empty => f.write_str("it is empty"),
            NotALabel::Dot => f.write_str(
                "it has a dot in it, and visitors are told apart by the first label of a host name \
                 alone",
            ),
            NotALabel::Character(c) => write!(
                f,
                "it has {c:?} in it: it can have letters, digits and -_~!$&'()*+,;= in it, and \
                 nothing else"
            ),
            NotALabel::TooLong(bytes) => write!(
                f,
                "it has {bytes} bytes as host names carry it, and the most is {MAX_LABEL}"
            ),
        }
    }
}

/// The label as it is published: lower case, and of other scripts the `xn--` form.
pub fn label(text: &str) -> Result<String, NotALabel> {
    if text.contains('.') {
        return Err(NotALabel::Dot);
    }
    let label = value(text)?;
    match label.len() {
        ..=MAX_LABEL => Ok(label),
        bytes => Err(NotALabel::TooLong(bytes)),
    }
}

/// The same for a header other than Host, whose whole value is the prefix: it may have dots and be
/// longer.
pub fn value(text: &str) -> Result<String, NotALabel> {
    // What may stand in the host of a URL (RFC 3986, 3.2.2). Nothing of it ends a header or a tag.
    let unusual = |c: &char| match c.is_ascii() {
        true => !c.is_ascii_alphanumeric() && !"-._~!$&'()*+,;=".contains(*c),
        // Browsers take the last three for dots.
        false => c.is_whitespace() || c.is_control() || "\u{3002}\u{ff0e}\u{ff61}".contains(*c),
    };
    match text.chars().find(unusual) {
        Some(c) => Err(NotALabel::Character(c)),
        None if text.is_empty() => Err(NotALabel::Empty),
        None => Ok(ascii(text).into_owned()),
    }
}

/// The form in which labels are compared: lower case, and of other scripts the `xn--` form. A text
/// that is too long for a label is lower-cased only.
pub fn ascii(text: &str) -> Cow<'_, str> {
    let convertible = !text.is_ascii() && text.len() <= MAX_TEXT;
    let converted = if convertible { punycode(text) } else { None };
    match converted {
        Some(code) => format!("xn--{code}").into(),
        None if text.bytes().any(|byte| byte.is_ascii_uppercase()) => {
            text.to_ascii_lowercase().into()
        }
        None => text.into(),
    }
}

/// The lower-case letter of the scripts whose capitals have a simple one: Latin, Greek, Cyrillic.
/// The tables of the standard library would add 12 KB to the program.
fn lower(c: char) -> char {
    let after = |distance: u32| char::from_u32(u32::from(c) + distance).unwrap_or(c);
    match c {
        'À'..='Ö' | 'Ø'..='Þ' | 'Α'..='Ρ' | 'Σ'..='Ϋ' | 'А'..='Я' => after(32),
        'Ѐ'..='Џ' => after(80),
        'Ā'..='Į' | 'Ĳ'..='Ķ' | 'Ŋ'..='Ŷ' if u32::from(c) % 2 == 0 => after(1),
        'Ĺ'..='Ň' | 'Ź'..='Ž' if u32::from(c) % 2 == 1 => after(1),
        _ => c.to_ascii_lowercase(),
    }
}

/// RFC 3492, 6.3, of the lower-cased text. `None` on overflow, which no text of [`MAX_TEXT`]
/// bytes brings about.
fn punycode(text: &str) -> Option<String> {
    const BASE: u32 = 36;
    const TMIN: u32 = 1;
    const TMAX: u32 = 26;
    const SKEW: u32 = 38;
    const DAMP: u32 = 700;
    const DIGITS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let adapt = |delta: u32, points: u32, first: bool| -> Option<u32> {
        let mut delta = delta / if first { DAMP } else { 2 };
        delta += delta.checked_div(points)?;
        let mut k = 0;
        while delta > (BASE - TMIN) * TMAX / 2 {
            delta /= BASE - TMIN;
            k += BASE;
        }
        Some(k + (BASE - TMIN + 1) * delta / (delta + SKEW))
    };
    let digit = |n: u32| {
        let digit = DIGITS.get(usize::try_from(n).ok()?);
        digit.map(|digit| char::from(*digit))
    };

    let input: Vec<char> = text.chars().map(lower).collect();
    let mut output: String = input.iter().filter(|c| c.is_ascii()).collect();
    let basic = u32::try_from(output.len()).ok()?;
    if basic > 0 {
        output.push('-');
    }
    let (mut n, mut delta, mut bias, mut handled) = (128u32, 0u32, 72u32, basic);
    while let Some(next) = input
        .iter()
        .map(|c| u32::from(*c))
        .filter(|c| *c >= n)
        .min()
    {
        let steps = (next - n).checked_mul(handled.checked_add(1)?)?;
        delta = delta.checked_add(steps)?;
        n = next;
        for c in input.iter().map(|c| u32::from(*c)) {
            if c < n {
                delta = delta.checked_add(1)?;
            }
            if c != n {
                continue;
            }
            let (mut q, mut k) = (delta, BASE);
            loop {
                let t = k.saturating_sub(bias).clamp(TMIN, TMAX);
                if q < t {
                    break;
                }
                output.push(digit(t + (q - t) % (BASE - t))?);
                q = (q - t) / (BASE - t);
                k += BASE;
            }
            output.push(digit(q)?);
            handled = handled.checked_add(1)?;
            bias = adapt(delta, handled, handled == basic + 1)?;
            delta = 0;
        }
        delta = delta.checked_add(1)?;
        n = n.checked_add(1)?;
    }
    Some(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_scripts_become_what_browsers_ask_for() {
        // From RFC 3492, 7.1, and of browsers.
        for (text, code) in [
            ("müller", "xn--mller-kva"),
            ("MÜLLER", "xn--mller-kva"),
            ("bücher", "xn--bcher-kva"),
            ("faß", "xn--fa-hia"),
            ("ليهمابتكلموشعربي؟", "xn--egbpdaj6bu4bxfgehfvwxn"),
            ("他们为什么不说中文", "xn--ihqwcrb4cv8a8dqg056pqjye"),
            (
                "почемужеонинеговорятпорусски",
                "xn--b1abfaaepdrnnbgefbadotcwatmq2g4l",
            ),
            (
                "Почемужеонинеговорятпорусски",
                "xn--b1abfaaepdrnnbgefbadotcwatmq2g4l",
            ),
            (
                "porquénopuedensimplementehablarenespañol",
                "xn--porqunopuedensimplementehablarenespaol-fmd56a",
            ),
            ("3年b組金八先生", "xn--3b-ww4c5e180e575a65lsy2b"),
            ("パフィーdeルンバ", "xn--de-jg4avhby1noc0d"),
            ("そのスピードで", "xn--d9juau41awczczp"),
            ("žluťoučký", "xn--luouk-uva4it5a4g"),
            ("plain", "plain"),
            ("Plain-1", "plain-1"),
            ("XN--MLLER-KVA", "xn--mller-kva"),
        ] {
            assert_eq!(label(text).as_deref(), Ok(code), "{text}");
            assert_eq!(ascii(text), code);
        }
    }

    #[test]
    fn capitals_become_the_letters_that_the_standard_library_makes_of_them() {
        for c in ('\u{80}'..='\u{52f}').filter(|c| lower(*c) != *c) {
            assert!(c.to_lowercase().eq([lower(c)]), "{c}");
        }
        for text in ["ÀÖØÞ", "ΑΡΣΫ", "АЯЀЏЁ", "ĀŁŃŠŻŽČŘ"] {
            assert_eq!(
                text.chars().map(lower).collect::<String>(),
                text.to_lowercase()
            );
        }
    }

    #[test]
    fn what_no_visitor_can_ask_for_is_no_label() {
        let long = "x".repeat(MAX_LABEL);
        assert_eq!(label(&long).as_deref(), Ok(long.as_str()));
        assert_eq!(label(&format!("{long}x")), Err(NotALabel::TooLong(64)));
        // 40 characters that are more than 63 bytes in the other form.
        let wide: String = ('\u{4e00}'..).step_by(17).take(40).collect();
        assert!(matches!(label(&wide), Err(NotALabel::TooLong(64..))));
        assert_eq!(label(""), Err(NotALabel::Empty));
        assert_eq!(label("a.b"), Err(NotALabel::Dot));
        assert_eq!(value("a.b").as_deref(), Ok("a.b"));
        for c in [
            ' ', '\r', '/', '@', ':', '"', '<', '\u{85}', '\u{2028}', '。',
        ] {
            assert_eq!(label(&format!("a{c}b")), Err(NotALabel::Character(c)));
        }
    }

    #[test]
    fn a_text_that_is_too_long_for_a_label_is_not_converted() {
        let long = "ü".repeat(MAX_TEXT);
        assert_eq!(ascii(&long), long);
        assert_eq!(ascii(&format!("A{long}")), format!("a{long}"));
        assert!(matches!(label(&long), Err(NotALabel::TooLong(_))));
    }
}
