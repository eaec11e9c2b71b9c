//! The options of a role: each is declared once, looked up as texts in the flags, the file and the
//! defaults, in this order, and read once. `value` parses the texts.

use super::file::{Document, Section};
use super::value::{Scalar, Value};
use super::ConfigError;

/// The declaration of an option.
#[derive(Debug)]
pub struct OptionName {
    /// The name as users write it, on the command line and in yaml: `tlsAddr`.
    pub camel: &'static str,
    /// The name of the field: `tls_addr`.
    pub field: &'static str,
    /// The kind of its value: `string`, `uint`, `bool`…
    pub kind: &'static str,
    /// Whether the option may be given several times. Of other options the last flag counts.
    pub repeats: bool,
    /// The cases in which the default applies.
    pub fallback: Fallback,
    /// The help text, a doc comment.
    help: &'static str,
    /// The default as users would write it; of a list, as a sentence lists its values. Empty for
    /// none. With [`Fallback::Never`] it is only shown, so it may be a description.
    pub default: &'static str,
}

impl OptionName {
    /// Declares an option, for [`options!`].
    pub const fn new<T: Field>(
        [camel, field, kind]: [&'static str; 3],
        help: &'static str,
        default: &'static str,
    ) -> Self {
        OptionName {
            camel,
            field,
            kind,
            repeats: T::REPEATS,
            fallback: T::FALLBACK,
            help,
            default,
        }
    }

    /// Returns what the option does, without the default.
    pub fn help(&self) -> &'static str {
        self.help.trim_start()
    }

    /// Returns the name in kebab case, with two dashes: `--tls-addr`.
    pub fn long(&self) -> String {
        format!("--{}", self.field.replace('_', "-"))
    }

    /// Returns the texts that stand for the option where it is not given.
    fn defaults(&self) -> Vec<&'static str> {
        match (self.default, self.kind) {
            ("", "bool") => vec!["false"],
            ("", _) => Vec::new(),
            (text, _) if self.repeats => {
                let texts = text.split(", ");
                texts.flat_map(|text| text.split(" and ")).collect()
            }
            (text, _) => vec![text],
        }
    }
}

/// A flag on the command line, with its value.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The option that the flag sets.
    pub name: &'static OptionName,
    /// The value as it was written.
    pub value: String,
}

/// The cases in which an option's default applies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fallback {
    /// Never: the field has a value for an option that was not given.
    Never,
    /// If the option was not given; an empty text has a meaning of its own.
    Absent,
    /// If the option was not given, or given with an empty text.
    Empty,
}

/// The type of a field that holds an option.
pub trait Field: Sized {
    /// The cases in which the default applies.
    const FALLBACK: Fallback = Fallback::Empty;
    /// Whether the option may be given several times.
    const REPEATS: bool = false;

    /// Reads the next of the texts, or all of them.
    fn from_texts(texts: &mut Texts<'_>) -> Result<Self, String>;
}

/// The texts of one option, and how many of them have been read.
pub struct Texts<'f> {
    found: &'f Found<'f>,
    read: usize,
}

impl<'f> Iterator for Texts<'f> {
    type Item = &'f str;

    fn next(&mut self) -> Option<&'f str> {
        let text = self.found.texts.get(self.read)?;
        self.read = self.read.saturating_add(1);
        Some(text)
    }
}

impl<T: Scalar> Field for T {
    fn from_texts(texts: &mut Texts<'_>) -> Result<Self, String> {
        T::read(texts.next().unwrap_or_default())
    }
}

/// An option that an empty text turns off.
impl<T: Scalar> Field for Value<T> {
    const FALLBACK: Fallback = Fallback::Absent;

    fn from_texts(texts: &mut Texts<'_>) -> Result<Self, String> {
        texts.next().unwrap_or_default().parse()
    }
}

/// An option that is `None` if it was not given, or given with an empty text.
impl<T: Scalar> Field for Option<T> {
    const FALLBACK: Fallback = Fallback::Never;

    fn from_texts(texts: &mut Texts<'_>) -> Result<Self, String> {
        texts.find(|text| !text.is_empty()).map(T::read).transpose()
    }
}

/// A repeatable option; empty texts are dropped.
impl<T: Scalar> Field for Vec<T> {
    const REPEATS: bool = true;

    fn from_texts(texts: &mut Texts<'_>) -> Result<Self, String> {
        texts.filter(|text| !text.is_empty()).map(T::read).collect()
    }
}

/// A repeatable option in which an empty text is a value.
impl<T: Scalar> Field for Vec<Value<T>> {
    const FALLBACK: Fallback = Fallback::Never;
    const REPEATS: bool = true;

    fn from_texts(texts: &mut Texts<'_>) -> Result<Self, String> {
        texts.map(str::parse).collect()
    }
}

/// A value, and whether it was given or is the default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Given<T> {
    /// The value.
    pub value: T,
    /// Whether a flag or the file has it.
    pub given: bool,
}

impl<T: Copy + PartialEq> Given<T> {
    /// Takes the other value if none was given yet. Returns whether the two agree.
    pub fn agree(&mut self, other: &Self) -> bool {
        if !self.given {
            *self = *other;
        }
        !other.given || self == other
    }
}

impl<T: Scalar> Field for Given<T> {
    fn from_texts(texts: &mut Texts<'_>) -> Result<Self, String> {
        let given = !matches!(texts.found.origin, Origin::Default);
        T::from_texts(texts).map(|value| Given { value, given })
    }
}

/// A struct of options, declared by [`options!`].
pub trait Options: Sized {
    /// The declarations of the options, in the order of the fields.
    const NAMES: &'static [OptionName];

    /// Parses flags and returns the texts of each option, in the order of the fields.
    fn texts(arguments: &[&str]) -> Result<Vec<Vec<String>>, argh::EarlyExit>;

    /// Reads the texts that were found, in the order of the fields.
    fn read(found: &mut dyn Iterator<Item = Found<'_>>) -> Result<Self, ConfigError>;
}

/// Declares a struct of options. A field is the whole declaration of an option: `/// help`, then
/// `field: Type = "default" => ("name", "kind of value")`, with a type that is a [`Field`]. argh
/// splits the command line into the texts of the flags; [`Layers`] reads them.
macro_rules! options {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $help:literal])+
                $field:ident: $type:ty $(= $default:literal)? => ($camel:literal, $kind:literal)
            ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        $vis struct $name {
            $( $(#[doc = $help])+ pub $field: $type, )*
        }

        impl $crate::config::layers::Options for $name {
            const NAMES: &'static [$crate::config::layers::OptionName] = &[
                $( $crate::config::layers::OptionName::new::<$type>(
                    [$camel, stringify!($field), $kind],
                    concat!($($help),+),
                    concat!($($default)?),
                ), )*
            ];

            fn texts(arguments: &[&str]) -> Result<Vec<Vec<String>>, argh::EarlyExit> {
                /// The texts of the flags.
                #[derive(argh::FromArgs)]
                struct Texts {
                    $( $(#[doc = $help])+ #[argh(option)] $field: Vec<String>, )*
                }
                let texts = <Texts as argh::FromArgs>::from_args(&["gt"], arguments)?;
                Ok(vec![$( texts.$field ),*])
            }

            fn read(
                found: &mut dyn Iterator<Item = $crate::config::layers::Found<'_>>,
            ) -> Result<Self, $crate::config::ConfigError> {
                Ok($name {
                    $( $field: $crate::config::layers::field(found.next())?, )*
                })
            }
        }
    };
}
pub(crate) use options;

/// Reads the texts of one option.
pub(crate) fn field<T: Field>(found: Option<Found<'_>>) -> Result<T, ConfigError> {
    let found = found.unwrap_or_default();
    let mut texts = Texts {
        found: &found,
        read: 0,
    };
    T::from_texts(&mut texts).map_err(|why| found.fault(texts.read.saturating_sub(1), &why))
}

/// The texts of an option, and where they come from.
#[derive(Default)]
pub struct Found<'a> {
    name: &'a str,
    texts: Vec<&'a str>,
    origin: Origin<'a>,
}

#[derive(Default)]
enum Origin<'a> {
    #[default]
    Default,
    Flag,
    File(&'a Section<'a>, &'a str),
}

impl Found<'_> {
    /// Returns the error about a wrong text; `index` is its place among them.
    fn fault(&self, index: usize, why: &str) -> ConfigError {
        match self.origin {
            Origin::File(section, key) => section.fault(key, index, why),
            Origin::Flag | Origin::Default => ConfigError::new(format!("-{}: {why}", self.name)),
        }
    }
}

/// The sources of options. A flag takes precedence over the file, the file over the default.
#[derive(Default)]
pub struct Layers<'a> {
    /// The flags, in their order.
    pub flags: &'a [Flag],
    /// Sections of the file; the first one that has the option counts.
    pub file: &'a [Section<'a>],
}

impl<'a> Layers<'a> {
    /// Reads the options of `T`. The error names the flag, or the file, the line and the key.
    pub fn read<T: Options>(&self) -> Result<T, ConfigError> {
        let flags: Vec<(String, &str)> = self
            .flags
            .iter()
            .filter(|flag| T::NAMES.iter().any(|name| name.camel == flag.name.camel))
            .map(|flag| (flag.name.long(), flag.value.as_str()))
            .collect();
        let arguments: Vec<&str> = flags
            .iter()
            .flat_map(|(long, value)| [long.as_str(), value])
            .collect();
        let texts = T::texts(&arguments).map_err(|early| ConfigError::new(early.output))?;
        let options = T::read(&mut self.find(T::NAMES, &texts)?.into_iter())?;
        if !flags.is_empty() && !self.file.is_empty() {
            // A wrong value in the file is an error even if a flag takes precedence over it:
            // without the flag nothing would start.
            let flags = &[];
            Layers { flags, ..*self }.read::<T>()?;
        }
        Ok(options)
    }

    /// Whether a flag or the file has one of the options of `T`.
    #[cfg(feature = "client")]
    pub fn have<T: Options>(&self) -> bool {
        T::NAMES
            .iter()
            .any(|name| self.by_flag(name.camel) || self.in_file(name).is_some())
    }

    /// Whether a flag has the option.
    #[cfg(feature = "client")]
    pub fn by_flag(&self, name: &str) -> bool {
        self.flags.iter().any(|flag| flag.name.camel == name)
    }

    fn in_file(&self, name: &OptionName) -> Option<&'a Section<'a>> {
        self.file.iter().find(|section| section.has(name.camel))
    }

    fn find<'t>(
        &self,
        names: &[OptionName],
        flags: &'t [Vec<String>],
    ) -> Result<Vec<Found<'t>>, ConfigError>
    where
        'a: 't,
    {
        let find = |(name, flags): (&OptionName, &'t Vec<String>)| {
            let mut found = Found {
                name: name.camel,
                ..Found::default()
            };
            if !flags.is_empty() {
                let first = if name.repeats { 0 } else { flags.len() - 1 };
                found.texts = flags.iter().skip(first).map(String::as_str).collect();
                found.origin = Origin::Flag;
            } else if let Some(section) = self.in_file(name) {
                found.texts = section.texts(name.camel, name.repeats)?;
                found.origin = Origin::File(section, name.camel);
            }
            let empty = found.texts.iter().all(|text| text.is_empty());
            let defaults = name.defaults();
            let falls_back = match name.fallback {
                Fallback::Never => false,
                Fallback::Absent => found.texts.is_empty(),
                Fallback::Empty => empty && !defaults.is_empty(),
            };
            if falls_back {
                found.texts = defaults;
                found.origin = Origin::Default;
            }
            Ok(found)
        };
        names.iter().zip(flags).map(find).collect()
    }
}

/// Returns a warning for each option in `table` that is set, if this program was built without
/// `p2p`.
#[cfg(any(feature = "server", feature = "client"))]
pub(super) fn without_p2p(
    table: &[&str],
    flags: &[Flag],
    document: Option<&Document>,
) -> Vec<String> {
    match cfg!(feature = "p2p") {
        true => Vec::new(),
        false => without("p2p", table, flags, document),
    }
}

/// Returns a warning for each option in `table` that is set, if this program was built without
/// `portmap`.
#[cfg(feature = "client")]
pub(super) fn without_portmap(
    table: &[&str],
    flags: &[Flag],
    document: Option<&Document>,
) -> Vec<String> {
    match cfg!(feature = "portmap") {
        true => Vec::new(),
        false => without("portmap", table, flags, document),
    }
}

/// Returns a warning for each option in `table` that is set, if this program was built without
/// `quic`.
#[cfg(feature = "server")]
pub(super) fn without_quic(
    table: &[&str],
    flags: &[Flag],
    document: Option<&Document>,
) -> Vec<String> {
    match cfg!(feature = "quic") {
        true => Vec::new(),
        false => without("quic", table, flags, document),
    }
}

/// Returns a warning for each option in `table` that is set, if this program was built without `web`.
#[cfg(any(feature = "server", feature = "client"))]
pub(super) fn without_web(
    table: &[&str],
    flags: &[Flag],
    document: Option<&Document>,
) -> Vec<String> {
    match cfg!(feature = "web") {
        true => Vec::new(),
        false => without("web", table, flags, document),
    }
}

/// Returns a warning for each option in `table` that is set, if this program was built without `ws`.
#[cfg(feature = "server")]
pub(super) fn without_ws(
    table: &[&str],
    flags: &[Flag],
    document: Option<&Document>,
) -> Vec<String> {
    match cfg!(feature = "ws") {
        true => Vec::new(),
        false => without("ws", table, flags, document),
    }
}

/// Returns a warning for each option in `table`, which needs the feature `acme`, that is set in a program
/// without it.
#[cfg(feature = "server")]
pub(super) fn without_acme(
    table: &[&str],
    flags: &[Flag],
    document: Option<&Document>,
) -> Vec<String> {
    match cfg!(feature = "acme") {
        true => Vec::new(),
        false => without("acme", table, flags, document),
    }
}

/// Returns a warning for each option in `table` that is set: this program was built without `feature`.
fn without(
    feature: &str,
    table: &[&str],
    flags: &[Flag],
    document: Option<&Document>,
) -> Vec<String> {
    let names = set(table, flags, document).into_iter();
    names
        .map(|name| format!("{name} is set, but this gt was built without the feature {feature}"))
        .collect()
}

/// Returns the options in `table` that a flag or the file sets, as they are written there.
fn set(table: &[&str], flags: &[Flag], document: Option<&Document>) -> Vec<String> {
    let mut names = Vec::new();
    let keys = document
        .map(|document| document.keys(&["options"]))
        .unwrap_or_default();
    for name in table {
        if flags.iter().any(|flag| flag.name.camel == *name) {
            names.push(format!("-{name}"));
        }
        if let Some(document) = document.filter(|_| keys.contains(name)) {
            names.push(format!("{}: options.{name}", document.path.display()));
        }
    }
    names
}

#[cfg(test)]
mod tests;
