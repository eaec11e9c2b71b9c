//! The options of both roles, and what can be known of any options struct: its names. Not values'
//! meaning.
//!
//! A field is a flag (argh) and a yaml key (serde) at once, so the two cannot differ. Its
//! description is what `-h` prints.

use std::path::PathBuf;

use argh::{ArgsInfo, FlagInfo, FlagInfoKind, FromArgs, Optionality};
use serde::Deserialize;

use super::logging::{Dsn, LogLevel, SentryLevel};
use super::value::{either, Bounded, SampleRate, Value};
use super::wire::Wire;
use super::yaml::fields;

/// The options that both roles have.
#[derive(FromArgs, ArgsInfo, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct CommonOptions {
    /// the group to run as, with -user (default: the user's own)
    #[argh(option, arg_name = "string")]
    pub group: Option<Value<String>>,
    /// write the log to this file instead of stderr
    #[argh(option, arg_name = "string")]
    pub log_file: Option<Value<PathBuf>>,
    /// number of log files to keep, the current one included; 0 for no limit (default 7)
    #[argh(option, arg_name = "uint")]
    pub log_file_max_count: Option<Value<u32>>,
    /// rotate the log file at this size in bytes; 0 for never (default 536870912)
    #[argh(option, arg_name = "uint")]
    pub log_file_max_size: Option<Value<u64>>,
    /// trace, debug, info, warn, error, fatal, panic or disable (default "info")
    #[argh(option, arg_name = "string")]
    pub log_level: Option<Value<LogLevel>>,
    /// report errors to Sentry at this address: https://key@host/number
    #[argh(option, arg_name = "string")]
    #[serde(rename = "sentryDSN")]
    pub sentry_dsn: Option<Value<Dsn>>,
    /// print what the Sentry client does
    #[argh(option, arg_name = "bool")]
    pub sentry_debug: Option<Value<bool>>,
    /// the environment to report to Sentry
    #[argh(option, arg_name = "string")]
    pub sentry_environment: Option<Value<String>>,
    /// a level to report to Sentry: trace, debug, info, warn, error, fatal or panic; may be given
    /// several times (default error, fatal and panic)
    #[argh(option, arg_name = "value")]
    pub sentry_level: Vec<Value<SentryLevel>>,
    /// the release to report to Sentry (default what -version prints)
    #[argh(option, arg_name = "string")]
    pub sentry_release: Option<Value<String>>,
    /// fraction of events to report, 0.0 to 1.0 (default 1)
    #[argh(option, arg_name = "float")]
    pub sentry_sample_rate: Option<Value<SampleRate>>,
    /// the server name to report to Sentry
    #[argh(option, arg_name = "string")]
    pub sentry_server_name: Option<Value<String>>,
    /// number of threads, 1 to 64; more than one costs more than it gives on most machines (default
    /// 1)
    #[argh(option, arg_name = "uint")]
    pub threads: Option<Value<Bounded<1, 64>>>,
    /// the user to run as once all listeners are open; start gt as root, and give that user access
    /// to everything that is opened later
    #[argh(option, arg_name = "string")]
    pub user: Option<Value<String>>,
    /// version of the wire: 1, 2 or auto, which is 2 if the other end supports it and 1 otherwise
    /// (default "auto")
    #[argh(option, arg_name = "string")]
    pub wire: Option<Value<Wire>>,
}

impl CommonOptions {
    /// These, and those of the lower priority where these are not given.
    pub fn or(self, lower: Self) -> Self {
        CommonOptions {
            group: self.group.or(lower.group),
            log_file: self.log_file.or(lower.log_file),
            log_file_max_count: self.log_file_max_count.or(lower.log_file_max_count),
            log_file_max_size: self.log_file_max_size.or(lower.log_file_max_size),
            log_level: self.log_level.or(lower.log_level),
            sentry_dsn: self.sentry_dsn.or(lower.sentry_dsn),
            sentry_debug: self.sentry_debug.or(lower.sentry_debug),
            sentry_environment: self.sentry_environment.or(lower.sentry_environment),
            sentry_level: either(self.sentry_level, lower.sentry_level),
            sentry_release: self.sentry_release.or(lower.sentry_release),
            sentry_sample_rate: self.sentry_sample_rate.or(lower.sentry_sample_rate),
            sentry_server_name: self.sentry_server_name.or(lower.sentry_server_name),
            threads: self.threads.or(lower.threads),
            user: self.user.or(lower.user),
            wire: self.wire.or(lower.wire),
        }
    }
}

/// An option's names and nature.
#[derive(Clone, Debug)]
pub struct OptionName {
    /// As users write it, on the command line and in yaml: `tlsAddr`.
    pub camel: &'static str,
    /// As argh wants it: `tls-addr`.
    pub kebab: &'static str,
    /// What its value is: `string`, `uint`, `bool` …
    pub kind: &'static str,
    /// Whether it may be given several times; of others the last counts.
    pub repeats: bool,
    /// What it does.
    pub help: &'static str,
}

/// The names of all options in `T`.
pub fn names<T: ArgsInfo + for<'de> Deserialize<'de>>() -> Vec<OptionName> {
    names_of(T::get_args_info().flags, fields::<T>())
}

fn names_of(flags: &[FlagInfo<'static>], fields: &[&'static str]) -> Vec<OptionName> {
    let find = |camel: &&'static str| {
        let kebab = kebab(camel);
        let flag = flags
            .iter()
            .find(|flag| flag.long.strip_prefix("--") == Some(&kebab))?;
        Some(OptionName {
            camel,
            kebab: flag.long.strip_prefix("--")?,
            kind: match flag.kind {
                FlagInfoKind::Option { arg_name } => arg_name,
                FlagInfoKind::Switch => return None,
            },
            repeats: matches!(flag.optionality, Optionality::Repeating),
            help: flag.description,
        })
    };
    fields.iter().filter_map(find).collect()
}

/// `remoteTCPPort` → `remote-tcp-port`: a capital begins a word unless the word is all capitals.
pub fn kebab(camel: &str) -> String {
    let bytes = camel.as_bytes();
    let mut kebab = String::with_capacity(camel.len() + 4);
    for (i, byte) in bytes.iter().enumerate() {
        let before = i.checked_sub(1).and_then(|i| bytes.get(i));
        let after = bytes.get(i + 1);
        let begins = byte.is_ascii_uppercase()
            && before.is_some_and(|before| {
                !before.is_ascii_uppercase() || after.is_some_and(u8::is_ascii_lowercase)
            });
        if begins {
            kebab.push('-');
        }
        kebab.push(char::from(byte.to_ascii_lowercase()));
    }
    kebab
}

/// Of `names`, the one that was probably meant by `wrong`: the same but for case and dashes.
pub fn did_you_mean<'n>(wrong: &str, mut names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let plain = |name: &str| name.replace(['-', '_'], "").to_ascii_lowercase();
    let wrong = plain(wrong);
    names.find(|name| plain(name) == wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_capitals_stays_one_word() {
        for (camel, wanted) in [
            ("remoteTCPPort", "remote-tcp-port"),
            ("httpMUXHeader", "http-mux-header"),
            ("hostWithID", "host-with-id"),
            ("apiTLSVersion", "api-tls-version"),
            ("useLocalAsHTTPHost", "use-local-as-http-host"),
            ("sentryDSN", "sentry-dsn"),
            ("s", "s"),
        ] {
            assert_eq!(kebab(camel), wanted);
        }
    }

    #[test]
    fn every_field_is_a_flag_and_a_key_of_one_name() {
        assert_eq!(
            names::<CommonOptions>().len(),
            fields::<CommonOptions>().len()
        );
        assert_eq!(
            CommonOptions::get_args_info().flags.len(),
            fields::<CommonOptions>().len() + 1
        );
    }
}
