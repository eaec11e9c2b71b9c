//! Overlaps of users' ranges of ports, of one protocol, with each other and with the global ones. Not whether a
//! port is free.

use crate::config::PortRange;

/// A user's range, with the user's id.
pub type Own<'a> = (&'a str, PortRange);

/// Fails if ranges of two users overlap. Ranges of one user may overlap. `protocol` is `tcp` or `udp`.
pub fn check_users<'a>(
    protocol: &str,
    ranges: impl Iterator<Item = Own<'a>>,
) -> Result<(), String> {
    let mut ranges: Vec<Own<'_>> = ranges.collect();
    ranges.sort_unstable_by_key(|(id, range)| (range.first, range.last, *id));
    // The range with the highest last port so far. The ranges are sorted, so a range that overlaps
    // any other user's overlaps this one.
    let mut furthest: Option<Own<'_>> = None;
    for own in ranges {
        let (id, range) = own;
        match furthest {
            Some((other, before)) if before.overlaps(range) && other != id => {
                return Err(format!(
                    "The users \"{other}\" and \"{id}\" have {} ports in common: {before} and {range} \
                     overlap. Give them different ports, or remove both lists to give all users the \
                     global {protocol}.",
                    protocol.to_ascii_uppercase()
                ));
            }
            Some((_, before)) if before.last >= range.last => {}
            _ => furthest = Some(own),
        }
    }
    Ok(())
}

/// Returns one warning about all ranges of users that overlap `global` ranges.
pub fn warn_of_global<'a>(
    protocol: &str,
    ranges: impl Iterator<Item = Own<'a>>,
    global: &[PortRange],
) -> Option<String> {
    let shared = |own: Own<'a>| {
        let met = global.iter().find(|global| global.overlaps(own.1));
        met.map(|global| (own, *global))
    };
    let mut found = ranges.filter_map(shared);
    let ((id, range), global) = found.next()?;
    let mut others: Vec<&str> = found.map(|((other, _), _)| other).collect();
    others.retain(|other| *other != id);
    others.dedup();
    let more = match others.len() {
        0 => String::new(),
        1 => "; so do the ranges of 1 more user".to_owned(),
        more => format!("; so do the ranges of {more} more users"),
    };
    Some(format!(
        "the {protocol} range {range} of the user \"{id}\" overlaps the global {global}: clients without \
         a list of their own may take ports out of it, at random too{more}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range((first, length): (u16, u16)) -> PortRange {
        let last = first.saturating_add(length);
        PortRange { first, last }
    }

    proptest! {
        #[test]
        fn two_users_with_a_port_in_common_are_always_found(
            ranges in prop::collection::vec((0usize..4, (1u16..200, 0u16..40)), 0..8),
        ) {
            let ids = ["a", "b", "c", "d"];
            let own: Vec<_> = ranges.iter().map(|(at, it)| (ids[*at], range(*it))).collect();
            let share = own.iter().any(|(id, range)| {
                own.iter().any(|(other, theirs)| id != other && range.overlaps(*theirs))
            });
            prop_assert_eq!(check_users("tcp", own.iter().copied()).is_err(), share);
        }
    }

    #[test]
    fn ranges_overlap_from_the_first_port_to_the_last() {
        let middle = range((100, 10));
        for (other, overlaps) in [
            ((90, 9), false),
            ((90, 10), true),
            ((105, 1), true),
            ((90, 40), true),
            ((110, 0), true),
            ((111, 0), false),
        ] {
            assert_eq!(middle.overlaps(range(other)), overlaps, "{other:?}");
            assert_eq!(range(other).overlaps(middle), overlaps, "{other:?}");
        }
    }
}
