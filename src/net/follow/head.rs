//! The head of one request, and edits of it.

use super::{HttpRefusal, RequestRule};
use smallvec::SmallVec;
use std::ops::Range;

/// Maximum number of header fields of a head.
pub const MAX_FIELDS: usize = 128;

/// Room in bytes that is made for the text of edits in advance.
const USUAL_TEXT: usize = 256;
/// Number of fields for which room is made in advance.
const USUAL_FIELDS: usize = 16;

/// A complete, unambiguous head: method, target, version and fields.
#[derive(Debug)]
pub struct RequestHead<'a> {
    bytes: &'a [u8],
    method: Range<usize>,
    target: Range<usize>,
    fields: Vec<FieldSpan>,
}

/// The position of a field in a head.
#[derive(Debug)]
struct FieldSpan {
    name: Range<usize>,
    value: Range<usize>,
    /// The whole line with its CRLF.
    line: Range<usize>,
}

/// One header field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadField<'a> {
    /// The name, as the visitor wrote it.
    pub name: &'a [u8],
    /// The value without surrounding whitespace.
    pub value: &'a [u8],
    at: Range<usize>,
    line: Range<usize>,
}

impl HeadField<'_> {
    /// Whether the field has this name, in any case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

impl<'a> RequestHead<'a> {
    /// Parses `bytes`: whole lines that end with CRLF, the last one empty.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, HttpRefusal> {
        let mut lines = SectionLines { bytes, at: 0 };
        let first = lines.next().unwrap_or_default();
        let (method, target) = request_line(bytes.get(first.clone()).unwrap_or_default())?;
        let fields = fields(bytes, lines)?;
        Ok(Self {
            bytes,
            method,
            target,
            fields,
        })
    }

    /// Returns the method.
    pub fn method(&self) -> &'a [u8] {
        self.bytes.get(self.method.clone()).unwrap_or_default()
    }

    /// Returns the target, as in the request line.
    pub fn target(&self) -> &'a [u8] {
        self.bytes.get(self.target.clone()).unwrap_or_default()
    }

    /// Whether the version is HTTP/1.0.
    pub fn is_http_1_0(&self) -> bool {
        let version = self.bytes.get(self.target.end..);
        version.is_some_and(|rest| rest.starts_with(b" HTTP/1.0"))
    }

    /// Iterates over the fields, in their order.
    pub fn fields(&self) -> impl Iterator<Item = HeadField<'a>> + '_ {
        let bytes = self.bytes;
        self.fields.iter().map(move |place| place.field(bytes))
    }

    /// Returns the host in a target such as `http://host/path`, as a range of the target.
    pub fn authority(&self) -> Option<Range<usize>> {
        let target = self.target();
        let in_scheme = |b: &u8| b.is_ascii_alphanumeric() || b"+-.".contains(b);
        let scheme = target.iter().position(|b| !in_scheme(b))?;
        let rest = target.get(scheme..)?.strip_prefix(b"://")?;
        let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#'));
        let start = scheme.saturating_add(3);
        Some(start..start.saturating_add(end.unwrap_or(rest.len())))
    }
}

/// Rejects trailers that would change how the request is read if they were merged into its head, or
/// that the rule forbids
/// (RFC 9110, section 6.5.1).
pub fn check_trailers(bytes: &[u8], rule: &dyn RequestRule) -> Result<(), HttpRefusal> {
    let places = fields(bytes, SectionLines { bytes, at: 0 })?;
    for place in places {
        let field = place.field(bytes);
        let framing = ["host", "content-length", "transfer-encoding"];
        if framing.iter().any(|name| field.is(name)) || !rule.allows_trailer(field.name) {
            return Err(HttpRefusal::bad_request(
                "a trailer that must be in the head",
            ));
        }
    }
    Ok(())
}

impl FieldSpan {
    fn field<'a>(&self, bytes: &'a [u8]) -> HeadField<'a> {
        HeadField {
            name: bytes.get(self.name.clone()).unwrap_or_default(),
            value: bytes.get(self.value.clone()).unwrap_or_default(),
            at: self.value.clone(),
            line: self.line.clone(),
        }
    }
}

/// Iterates over the lines of a section without their ends, up to the empty one.
struct SectionLines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Iterator for SectionLines<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let rest = self.bytes.get(self.at..)?;
        let length = rest.iter().position(|b| *b == b'\r')?;
        let line = self.at..self.at.saturating_add(length);
        self.at = line.end.saturating_add(2);
        (length > 0).then_some(line)
    }
}

/// Returns the positions of the method and the target in a request line without its end.
pub fn request_line(line: &[u8]) -> Result<(Range<usize>, Range<usize>), HttpRefusal> {
    let bad = HttpRefusal::bad_request("not an HTTP/1 request line");
    let mut blanks = line.iter().enumerate().filter(|(_, b)| **b == b' ');
    let (Some((first, _)), Some((second, _)), None) = (blanks.next(), blanks.next(), blanks.next())
    else {
        return Err(bad);
    };
    let target = first.saturating_add(1)..second;
    let method = line.get(..first).unwrap_or_default();
    let version = line.get(second.saturating_add(1)..).unwrap_or_default();
    let is_sound = !method.is_empty()
        && method.iter().all(|b| is_token(*b))
        && !target.is_empty()
        && !line.contains(&b'\t')
        && matches!(version, b"HTTP/1.1" | b"HTTP/1.0");
    match is_sound {
        true => Ok((0..first, target)),
        false => Err(bad),
    }
}

fn fields(bytes: &[u8], lines: SectionLines<'_>) -> Result<Vec<FieldSpan>, HttpRefusal> {
    let mut fields = Vec::with_capacity(USUAL_FIELDS);
    for line in lines {
        if fields.len() >= MAX_FIELDS {
            let why = "the request has more than 128 header fields";
            return Err(HttpRefusal::head_too_large(why));
        }
        let text = bytes.get(line.clone()).unwrap_or_default();
        let colon = text.iter().position(|b| *b == b':');
        let Some(colon) = colon.filter(|colon| *colon > 0) else {
            return Err(HttpRefusal::bad_request("a header field without a name"));
        };
        let (name, rest) = text.split_at(colon);
        // A line folded onto the one before fails here too.
        if name.iter().any(|b| !b.is_ascii_graphic()) {
            return Err(HttpRefusal::bad_request(
                "whitespace or an invalid character in a header's name",
            ));
        }
        let value = rest.get(1..).unwrap_or_default();
        let lead = value.iter().take_while(|b| is_blank(b)).count();
        let trail = value.iter().rev().take_while(|b| is_blank(b)).count();
        let start = line.start.saturating_add(colon).saturating_add(1 + lead);
        fields.push(FieldSpan {
            name: line.start..line.start.saturating_add(colon),
            value: start..line.end.saturating_sub(trail).max(start),
            line: line.start..line.end.saturating_add(2),
        });
    }
    Ok(fields)
}

/// Whether the byte may be part of a token (RFC 9110, section 5.6.2).
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

fn is_blank(b: &u8) -> bool {
    matches!(b, b' ' | b'\t')
}

/// Edits of a head. Of two edits that overlap, the one that begins first applies.
#[derive(Debug, Default)]
pub struct Edits {
    /// The ranges of the head that are replaced, in their order, and those of `text` that replace them.
    places: SmallVec<[(Range<usize>, Range<usize>); 6]>,
    /// The new text of all edits: one allocation.
    text: Vec<u8>,
}

impl Edits {
    /// Replaces the value of a field.
    pub fn set(&mut self, field: &HeadField<'_>, value: &str) {
        self.replace(field.at.clone(), &[value]);
    }

    /// Removes a field with its line.
    pub fn remove(&mut self, field: &HeadField<'_>) {
        self.replace(field.line.clone(), &[]);
    }

    /// Adds a field behind all others.
    pub fn add(&mut self, head: &RequestHead<'_>, name: &str, value: &str) {
        let end = head.bytes.len().saturating_sub(2);
        self.replace(end..end, &[name, ": ", value, "\r\n"]);
    }

    /// Replaces a part of the target, given as a range of it.
    pub fn set_target(&mut self, head: &RequestHead<'_>, part: Range<usize>, by: &str) {
        let start = head.target.start;
        let part = start.saturating_add(part.start)..start.saturating_add(part.end);
        self.replace(part, &[by]);
    }

    fn replace(&mut self, place: Range<usize>, by: &[&str]) {
        let start = self.text.len();
        if start == 0 {
            self.text.reserve(USUAL_TEXT);
        }
        for piece in by {
            self.text.extend_from_slice(piece.as_bytes());
        }
        let behind = |(other, _): &(Range<usize>, _)| other.start <= place.start;
        let at = self.places.partition_point(behind);
        self.places.insert(at, (place, start..self.text.len()));
    }

    /// Returns the head with the edits applied.
    pub fn apply(self, head: &RequestHead<'_>) -> Vec<u8> {
        let length = head.bytes.len().saturating_add(self.text.len());
        let mut changed = Vec::with_capacity(length);
        let mut at = 0;
        for (range, by) in self.places {
            if let Some(before) = head.bytes.get(at..range.start) {
                changed.extend_from_slice(before);
                changed.extend_from_slice(self.text.get(by).unwrap_or_default());
                at = range.end;
            }
        }
        changed.extend_from_slice(head.bytes.get(at..).unwrap_or_default());
        changed
    }
}
