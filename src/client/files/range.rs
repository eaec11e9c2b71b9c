//! Parsing of `Range` headers (RFC 9110, section 14). Not the sending.

/// The part of a file to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByteRange {
    /// The whole file: no single byte range was asked for, or it was malformed.
    Whole,
    /// The bytes from `first` to `last`, both included and within the file.
    Part { first: u64, last: u64 },
    /// No requested byte is within the file: status 416.
    Outside,
}

impl ByteRange {
    /// Parses the header's value for a file of `size` bytes. Several ranges get the whole file,
    /// which RFC 9110 allows.
    pub(crate) fn parse(value: &[u8], size: u64) -> ByteRange {
        let Some((unit, range)) = split(value, b'=') else {
            return ByteRange::Whole;
        };
        if !unit.eq_ignore_ascii_case(b"bytes") {
            return ByteRange::Whole;
        }
        let Some((first, last)) = split(range.trim_ascii(), b'-') else {
            return ByteRange::Whole;
        };
        match (first, last, number(first), number(last)) {
            (b"", _, _, Some(0)) => ByteRange::Outside,
            // A suffix of an empty file is the whole file.
            (b"", _, _, Some(_)) if size == 0 => ByteRange::Whole,
            (b"", _, _, Some(count)) => ByteRange::part(size.saturating_sub(count), u64::MAX, size),
            (_, b"", Some(first), _) => ByteRange::part(first, u64::MAX, size),
            (_, _, Some(first), Some(last)) if first <= last => ByteRange::part(first, last, size),
            _ => ByteRange::Whole,
        }
    }

    fn part(first: u64, last: u64, size: u64) -> ByteRange {
        match size.checked_sub(1) {
            Some(end) if first <= end => ByteRange::Part {
                first,
                last: last.min(end),
            },
            _ => ByteRange::Outside,
        }
    }
}

fn split(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let middle = text.iter().position(|byte| *byte == at)?;
    Some((text.get(..middle)?, text.get(middle.checked_add(1)?..)?))
}

/// Parses digits. A number beyond u64 becomes the largest one.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let more = |sum: u64, digit: &u8| {
        sum.saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    };
    Some(digits.iter().fold(0, more))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(first: u64, last: u64) -> ByteRange {
        ByteRange::Part { first, last }
    }

    #[test]
    fn closed_open_and_suffix_ranges_are_found() {
        for (value, range) in [
            ("bytes=0-0", part(0, 0)),
            ("bytes=2-5", part(2, 5)),
            ("bytes=2-", part(2, 9)),
            ("bytes=2-99", part(2, 9)),
            ("bytes=2-99999999999999999999999", part(2, 9)),
            ("bytes=-3", part(7, 9)),
            ("bytes=-99", part(0, 9)),
            ("Bytes= 9-9 ", part(9, 9)),
            ("bytes=10-", ByteRange::Outside),
            ("bytes=99999999999999999999999-", ByteRange::Outside),
            ("bytes=-0", ByteRange::Outside),
        ] {
            assert_eq!(ByteRange::parse(value.as_bytes(), 10), range, "{value}");
        }
    }

    #[test]
    fn anything_but_a_single_byte_range_is_the_whole_file() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5-2",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=1-2-3",
            "bytes=0-1,3-4",
            "bytes=-1,0-",
            "rows=0-1",
            "bytes 0-1",
            "bytes=1 -2",
        ] {
            assert_eq!(
                ByteRange::parse(value.as_bytes(), 10),
                ByteRange::Whole,
                "{value}"
            );
        }
    }

    #[test]
    fn an_empty_file_has_no_part() {
        assert_eq!(ByteRange::parse(b"bytes=0-", 0), ByteRange::Outside);
        assert_eq!(ByteRange::parse(b"bytes=0-0", 0), ByteRange::Outside);
        assert_eq!(ByteRange::parse(b"bytes=-1", 0), ByteRange::Whole);
    }

    /// Returns the bytes that a range selects, by testing every byte.
    fn selected(first: Option<u64>, last: Option<u64>, size: u64) -> Vec<u64> {
        let meant = |at: &u64| match (first, last) {
            (Some(first), Some(last)) => first <= *at && *at <= last,
            (Some(first), None) => first <= *at,
            (None, Some(count)) => size - at <= count,
            (None, None) => true,
        };
        (0..size).filter(meant).collect()
    }

    proptest! {
        #[test]
        fn a_range_selects_the_bytes_it_names(
            first in proptest::option::of(0_u64..40),
            last in proptest::option::of(0_u64..40),
            size in 0_u64..32,
        ) {
            let text = |bound: Option<u64>| bound.map(|n| n.to_string()).unwrap_or_default();
            let value = format!("bytes={}-{}", text(first), text(last));
            let nonsense = matches!((first, last), (Some(a), Some(b)) if a > b)
                || (first, last) == (None, None);
            let bytes = selected(first, last, size);
            match ByteRange::parse(value.as_bytes(), size) {
                ByteRange::Part { first, last } => {
                    prop_assert!(!nonsense);
                    prop_assert_eq!(bytes, (first..=last).collect::<Vec<_>>());
                }
                ByteRange::Outside => prop_assert!(!nonsense && bytes.is_empty()),
                ByteRange::Whole => prop_assert!(nonsense || (size == 0 && first.is_none())),
            }
        }

        #[test]
        fn any_range_header_gives_a_part_within_the_file(value: Vec<u8>, size: u64) {
            let text = [b"bytes=", value.as_slice()].concat();
            for value in [value.as_slice(), text.as_slice()] {
                if let ByteRange::Part { first, last } = ByteRange::parse(value, size) {
                    prop_assert!(first <= last && last < size);
                }
            }
        }

        #[test]
        fn almost_valid_range_headers_give_a_part_within_the_file(
            value in "bytes=[0-9]{0,22} ?-[0-9]{0,22}",
            size: u64,
        ) {
            if let ByteRange::Part { first, last } = ByteRange::parse(value.as_bytes(), size) {
                prop_assert!(first <= last && last < size);
            }
        }
    }
}
