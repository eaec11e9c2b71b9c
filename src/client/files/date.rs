//! A moment in UTC, in the formats of HTTP and of folder listings. No clock, no time zones.

use std::fmt;

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A second of UTC in the years 0 to 9999. The order of the fields makes the derived comparison
/// chronological.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment {
    year: u16,
    /// 0–11; 0 is January.
    month: u8,
    /// 1–31.
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
    /// 0–6; 0 is Sunday.
    weekday: u8,
}

impl Moment {
    /// Converts seconds since 1970; `None` outside the years 0 to 9999.
    pub(crate) fn from_unix(seconds: i64) -> Option<Moment> {
        // Years are counted from 1 March of year 0, so that a leap day is the last day of a year.
        const DAYS_BEFORE_1970: i64 = 719_468;
        let days = seconds.div_euclid(86_400).checked_add(DAYS_BEFORE_1970)?;
        let clock = seconds.rem_euclid(86_400);
        let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        // From March on, the months' lengths repeat every 153 days (five months).
        let from_march = (5 * day + 2) / 153;
        let month = (from_march + 2) % 12;
        let year = era.checked_mul(400)? + year_of_era + i64::from(month < 2);
        Some(Moment {
            year: u16::try_from(year).ok().filter(|year| *year <= 9999)?,
            month: u8::try_from(month).ok()?,
            day: u8::try_from(day - (153 * from_march + 2) / 5 + 1).ok()?,
            hour: u8::try_from(clock / 3600).ok()?,
            minute: u8::try_from(clock / 60 % 60).ok()?,
            second: u8::try_from(clock % 60).ok()?,
            weekday: u8::try_from((days + 3).rem_euclid(7)).ok()?,
        })
    }

    /// Parses the only format of RFC 9110, section 5.6.7, that is still sent: `Sun, 06 Nov 1994
    /// 08:49:37 GMT`. The two obsolete formats are not supported; if a date is not parsed, its
    /// sender gets a full response.
    pub(crate) fn parse(text: &[u8]) -> Option<Moment> {
        let text = std::str::from_utf8(text).ok()?;
        let (weekday, rest) = text.split_once(", ")?;
        let mut words = rest.split(' ');
        let mut word = || words.next();
        let (day, month, year, clock, zone) = (word()?, word()?, word()?, word()?, word()?);
        if word().is_some() || zone != "GMT" {
            return None;
        }
        let mut clock = clock.split(':');
        let mut part = || number(clock.next()?, 2);
        let (hour, minute, second) = (part()?, part()?, part()?);
        if clock.next().is_some() || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        Some(Moment {
            year: number(year, 4)?,
            month: index(&MONTHS, month)?,
            day: u8::try_from(number(day, 2).filter(|day| (1..=31).contains(day))?).ok()?,
            hour: u8::try_from(hour).ok()?,
            minute: u8::try_from(minute).ok()?,
            second: u8::try_from(second).ok()?,
            weekday: index(&DAYS, weekday)?,
        })
    }

    /// Formats the moment as `2024-05-01 13:37`.
    pub(crate) fn short(&self) -> impl fmt::Display + '_ {
        struct Short<'a>(&'a Moment);
        impl fmt::Display for Short<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Moment {
                    year,
                    month,
                    day,
                    hour,
                    minute,
                    ..
                } = self.0;
                write!(
                    f,
                    "{year:04}-{:02}-{day:02} {hour:02}:{minute:02}",
                    month + 1
                )
            }
        }
        Short(self)
    }
}

/// Formats the moment as an HTTP date (RFC 9110, section 5.6.7).
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Moment {
            year,
            day,
            hour,
            minute,
            second,
            ..
        } = self;
        let weekday = DAYS.get(usize::from(self.weekday)).unwrap_or(&"");
        let month = MONTHS.get(usize::from(self.month)).unwrap_or(&"");
        write!(
            f,
            "{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT"
        )
    }
}

fn number(text: &str, digits: usize) -> Option<u16> {
    if text.len() != digits || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn index(names: &[&str], name: &str) -> Option<u8> {
    names
        .iter()
        .position(|known| *known == name)
        .and_then(|at| u8::try_from(at).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn http(seconds: i64) -> String {
        Moment::from_unix(seconds)
            .map(|moment| moment.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn known_moments_are_formatted_as_http_dates() {
        assert_eq!(http(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(http(4_107_542_399), "Sun, 28 Feb 2100 23:59:59 GMT");
        assert_eq!(http(4_107_542_400), "Mon, 01 Mar 2100 00:00:00 GMT");
        assert_eq!(http(-1), "Wed, 31 Dec 1969 23:59:59 GMT");
        assert_eq!(http(253_402_300_799), "Fri, 31 Dec 9999 23:59:59 GMT");
        let short = Moment::from_unix(784_111_777).unwrap().short().to_string();
        assert_eq!(short, "1994-11-06 08:49");
    }

    #[test]
    fn a_moment_outside_the_calendar_is_none() {
        for seconds in [253_402_300_800, i64::MAX, i64::MIN, -62_200_000_000] {
            assert_eq!(Moment::from_unix(seconds), None);
        }
    }

    #[test]
    fn an_invalid_date_is_none() {
        for text in [
            "",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 GMT ",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:+9:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
        ] {
            assert_eq!(Moment::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Moment::parse(b"\xff, 06 Nov 1994 08:49:37 GMT"), None);
    }

    proptest! {
        #[test]
        fn a_date_is_parsed_as_it_was_formatted(seconds in 0_i64..253_402_300_800) {
            let moment = Moment::from_unix(seconds);
            prop_assert!(moment.is_some());
            prop_assert_eq!(Moment::parse(http(seconds).as_bytes()), moment);
        }

        #[test]
        fn moments_compare_like_their_seconds(a in 0_i64..1 << 33, b in 0_i64..1 << 33) {
            prop_assert_eq!(Moment::from_unix(a).cmp(&Moment::from_unix(b)), a.cmp(&b));
        }

        #[test]
        fn no_number_or_text_panics(seconds: i64, text: Vec<u8>) {
            let _ = Moment::from_unix(seconds);
            let _ = Moment::parse(&text);
        }
    }
}
