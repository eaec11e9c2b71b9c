//! One label of a host name: the rules for host prefixes, and their normalised form. Not the
//! question which client may have one.

use std::borrow::Cow;
use std::fmt;

/// Maximum length of a label of a host name, in bytes (RFC 1035, section 2.3.4).
pub const MAX_LABEL: usize = 63;
/// Maximum length of a text that is converted, in bytes: a label has at most 63 characters of four
/// bytes. The conversion takes quadratic time, and visitors choose the text.
const MAX_TEXT: usize = MAX_LABEL * 4;

/// The reason why a text cannot be a host prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotALabel {
    /// The text is empty.
    Empty,
    /// The text has a dot; visitors are routed by the first label alone.
    Dot,
    /// The text has this character, which host names cannot have.
    Character(char),
    /// The label has this many bytes in its `xn--` form.
    TooLong(usize),
}

impl fmt::Display for NotALabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotALabel::Empty => f.write_str("it is empty"),
            NotALabel::Dot => f.write_str(
                "it has a dot, and visitors are routed by the first label of a host name alone",
            ),
            NotALabel::Character(c) => write!(
                f,
                "it has {c:?} in it, but only letters, digits and -_~!$&'()*+,;= are allowed"
            ),
            NotALabel::TooLong(bytes) => write!(
                f,
                "it has {bytes} bytes in a host name, and the maximum is {MAX_LABEL}"
            ),
        }
    }
}

/// Returns the label as it is published: in lower case, and in the `xn--` form (RFC 5890, section
/// 2.3.2.1) if it is not ASCII.
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

/// Normalises a host prefix as [`label`] does, but allows dots and any length: the whole value of a
/// header other than Host is the prefix.
pub fn value(text: &str) -> Result<String, NotALabel> {
    // The characters of a URL's host (RFC 3986, section 3.2.2). None of them ends a header or a
    // tag.
    let unusual = |c: &char| match c.is_ascii() {
        true => !c.is_ascii_alphanumeric() && !"-._~!$&'()*+,;=".contains(*c),
        // Browsers treat the last three as dots.
        false => c.is_whitespace() || c.is_control() || "\u{3002}\u{ff0e}\u{ff61}".contains(*c),
    };
    match text.chars().find(unusual) {
        Some(c) => Err(NotALabel::Character(c)),
        None if text.is_empty() => Err(NotALabel::Empty),
        None => Ok(ascii(text).into_owned()),
    }
}

/// Returns the form in which labels are compared: lower case, and the `xn--` form if it is not
/// ASCII. A text that is too long for a label is only lower-cased.
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

/// Returns the lower case of a Latin, Greek or Cyrillic letter, and other characters as they are.
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

/// Encodes the lower-cased text in Punycode (RFC 3492, section 6.3). `None` on overflow, which no
/// text of [`MAX_TEXT`] bytes causes.
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
    fn labels_in_other_scripts_become_what_browsers_ask_for() {
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
    fn lower_case_equals_that_of_the_standard_library() {
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
    fn a_text_that_no_visitor_can_ask_for_is_no_label() {
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
