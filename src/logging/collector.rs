//! Programs that take gt's output, add the time, and store it: OpenWrt's procd and systemd's
//! journal. The parent module makes the lines.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::{env, fs};

/// Environment variable by which gt.init says that procd takes the output.
const PROCD_VARIABLE: &str = "GT_LOG";
/// Environment variable with the device and inode of the journal's socket (systemd.exec(5)).
const JOURNAL_VARIABLE: &str = "JOURNAL_STREAM";
/// What stderr leads to.
const STDERR: &str = "/proc/self/fd/2";
/// Maximum length of a line for procd in bytes. procd passes lines to syslog(3), which in musl cuts
/// them at 1024 bytes, of which up to 53 are the priority, the time and the name.
const MAX_LINE: usize = 960;
/// What stands for the middle of a line that is longer.
const OMISSION: &str = " ... ";
/// Length in bytes of what is kept of the end of a longer line, where errors have their reason.
const KEPT_END: usize = MAX_LINE / 2;
const KEPT_START: usize = MAX_LINE - KEPT_END - OMISSION.len();

/// A program that takes gt's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collector {
    /// It gives lines of stdout the priority info, and those of stderr the priority err.
    Procd,
    /// It takes the priority from the beginning of a line (sd-daemon(3)).
    Journal,
}

impl Collector {
    /// Returns the collector that takes stderr, if there is one.
    pub fn detect() -> Option<Self> {
        if env::var_os(PROCD_VARIABLE).is_some_and(|value| value == "procd") {
            return Some(Self::Procd);
        }
        let journal = env::var_os(JOURNAL_VARIABLE)?;
        let stderr = fs::metadata(STDERR).ok()?;
        // Programs that the journal's client starts inherit the variable, but perhaps not stderr.
        let is_journal = journal == *format!("{}:{}", stderr.dev(), stderr.ino());
        is_journal.then_some(Self::Journal)
    }

    /// Writes a line that begins with `before` bytes which the collector does not need, and then a
    /// level of three letters.
    pub fn write_line(self, line: &mut [u8], before: usize) -> io::Result<()> {
        let level = line.get(before..).and_then(|text| text.get(..3));
        let priority = match level {
            Some(b"INF") => b'6',
            Some(b"DBG" | b"TRC") => b'7',
            Some(b"WRN") => b'4',
            _ => b'3',
        };
        match self {
            Self::Procd => {
                let text = line.get(before..).unwrap_or_default();
                let shortened = shortened(text);
                let text = shortened.as_deref().unwrap_or(text);
                match priority {
                    b'6'.. => io::stdout().write_all(text),
                    _ => io::stderr().write_all(text),
                }
            }
            // All to stderr: whether stdout leads to the journal, too, is not known.
            Self::Journal => {
                let prefix = [b'<', priority, b'>'];
                // In place of the end of what is not needed, so that it is one write.
                let start = before.saturating_sub(prefix.len());
                if let Some(place) = line.get_mut(start..).and_then(<[u8]>::first_chunk_mut) {
                    *place = prefix;
                }
                io::stderr().write_all(line.get(start..).unwrap_or_default())
            }
        }
    }
}

/// Returns a line without its middle if it is too long.
fn shortened(line: &[u8]) -> Option<Vec<u8>> {
    if line.len() <= MAX_LINE {
        return None;
    }
    let text = std::str::from_utf8(line).ok()?;
    let start = text.get(..text.floor_char_boundary(KEPT_START))?;
    let end = text.get(text.ceil_char_boundary(text.len().saturating_sub(KEPT_END))..)?;
    Some([start, OMISSION, end].concat().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_maximum_length_stays() {
        let line = format!("{}\n", "x".repeat(MAX_LINE - 1));
        assert_eq!(shortened(line.as_bytes()), None);
        assert!(shortened(format!("x{line}").as_bytes()).is_some());
    }

    #[test]
    fn a_long_line_keeps_its_ends_and_no_character_is_cut() {
        // Each offset of a character of three bytes at both places.
        for (begin, end) in (0..3).flat_map(|a| (0..3).map(move |b| (a, b))) {
            let line = format!(
                "{}{}{}: no space\n",
                "a".repeat(begin),
                "€".repeat(2000),
                "b".repeat(end)
            );
            let short = shortened(line.as_bytes()).unwrap();
            let short = String::from_utf8(short).unwrap();
            assert!(short.len() <= MAX_LINE && short.len() > MAX_LINE - 6);
            let (start, rest) = short.split_once(OMISSION).unwrap();
            assert!(line.starts_with(start) && line.ends_with(rest), "{short}");
            assert!(rest.ends_with(": no space\n"));
        }
    }
}
