//! The options of a role: declared once each, looked up as texts in the flags, then in the file, then
//! among the defaults, and read once. Not what a value means, see `value`.

use super::file::Section;
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
    /// Whether it may be given several times. Of other options the last flag counts.
    pub repeats: bool,
    /// When the default replaces what was given.
    pub fallback: Fallback,
    /// The help text, a doc comment.
    help: &'static str,
    /// The default as users would write it; of a list, as a sentence lists its values. Empty for none.
    /// A field that can say that nothing was given never reads it, so it may be a description there.
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

    /// What the option does, without the default.
    pub fn help(&self) -> &'static str {
        self.help.trim_start()
    }

    /// The name in kebab case, with two dashes: `--tls-addr`.
    pub fn long(&self) -> String {
        format!("--{}", self.field.replace('_', "-"))
    }

    /// The texts that stand for the option where it is not given.
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

/// A flag of the command line.
#[derive(Clone, Debug)]
pub struct Flag {
    /// Its option.
    pub name: &'static OptionName,
    /// The value as it was written.
    pub value: String,
}

/// When an option's default replaces what was given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fallback {
    /// Never: the field can say that nothing was given.
    Never,
    /// If nothing was given; an empty text has a meaning of its own.
    Absent,
    /// If nothing was given, or an empty text.
    Empty,
}

/// The type of a field that holds an option.
pub trait Field: Sized {
    /// When the default replaces what was given.
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

/// An empty text turns the option off.
impl<T: Scalar> Field for Value<T> {
    const FALLBACK: Fallback = Fallback::Absent;

    fn from_texts(texts: &mut Texts<'_>) -> Result<Self, String> {
        texts.next().unwrap_or_default().parse()
    }
}

/// `None` if nothing was given, or an empty text.
impl<T: Scalar> Field for Option<T> {
    const FALLBACK: Fallback = Fallback::Never;

    fn from_texts(texts: &mut Texts<'_>) -> Result<Self, String> {
        texts.find(|text| !text.is_empty()).map(T::read).transpose()
    }
}

/// All that was given, without the empty texts.
impl<T: Scalar> Field for Vec<T> {
    const REPEATS: bool = true;

    fn from_texts(texts: &mut Texts<'_>) -> Result<Self, String> {
        texts.filter(|text| !text.is_empty()).map(T::read).collect()
    }
}

/// All that was given, the empty texts included.
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
    /// Takes the other value where none was given yet. Returns whether the two agree.
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

/// A struct that [`options!`] has declared.
pub trait Options: Sized {
    /// Its options, in the order of its fields.
    const NAMES: &'static [OptionName];

    /// The texts of its flags, in the order of its fields.
    fn texts(arguments: &[&str]) -> Result<Vec<Vec<String>>, argh::EarlyExit>;

    /// Reads the texts that were found, in the order of its fields.
    fn read(found: &mut dyn Iterator<Item = Found<'_>>) -> Result<Self, ConfigError>;
}

/// Declares a struct of options. A field is an option, and all that is said about it:
/// `/// help`, then `field: Type = "default" => ("name", "kind of value")`. [`Field`] says which types
/// there are. argh makes the texts of the flags out of it, [`Layers`] reads them.
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
    /// The error that one of the texts is wrong.
    fn fault(&self, index: usize, why: &str) -> ConfigError {
        match self.origin {
            Origin::File(section, key) => section.fault(key, index, why),
            Origin::Flag | Origin::Default => ConfigError::new(format!("-{}: {why}", self.name)),
        }
    }
}

/// Where options are looked up: a flag stands over the file, the file over the default.
#[derive(Default)]
pub struct Layers<'a> {
    /// The flags, in their order.
    pub flags: &'a [Flag],
    /// Sections of the file, the first one that has the option counts.
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
            // A wrong value in the file is an error even if a flag stands over it: without the flag
            // nothing would start.
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

/// The one of `names` that differs from `wrong` in case and dashes only.
pub fn did_you_mean<'n>(wrong: &str, mut names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let plain = |name: &str| name.replace(['-', '_'], "").to_ascii_lowercase();
    let wrong = plain(wrong);
    names.find(|name| plain(name) == wrong)
}

#[cfg(test)]
mod tests;
