//! A configuration file: its path, its sections and its errors. Not the meaning of options, and not
//! its role: see `role`.

use std::path::{Path, PathBuf};
use std::{fmt, fs};

use serde::Deserialize;

use super::foreign::{self, Content};
use super::hint::did_you_mean;
use super::yaml::{Node, Unknown, YamlTree};
use super::ConfigError;

/// A parsed yaml file whose keys are not interpreted yet.
#[derive(Debug)]
pub struct Document {
    /// Path of the file, relative if `-config` was.
    pub path: PathBuf,
    /// A file of users, and a text that it is to have in place of that on the disk.
    pub users: Option<(PathBuf, String)>,
    tree: YamlTree,
}

/// Maximum number of unknown keys of a file that get a warning each.
const MAX_UNKNOWN_WARNINGS: usize = 20;

impl Document {
    /// Reads and parses a file.
    pub fn open(path: &Path, content: Content) -> Result<Self, ConfigError> {
        let shown = path.display();
        let bytes = fs::read(path)
            .map_err(|error| ConfigError(format!("The file {shown} cannot be read: {error}.")))?;
        let text = String::from_utf8(bytes)
            .map_err(|_| ConfigError(format!("The file {shown} is not text in UTF-8.")))?;
        Document::parse(path, text, content)
    }

    /// Parses the text of a file. The error names the line that is not yaml.
    pub fn parse(path: &Path, text: String, content: Content) -> Result<Self, ConfigError> {
        let fail = |why| ConfigError(format!("{}: {why}", path.display()));
        let tree = match YamlTree::parse(text) {
            Ok(tree) => tree,
            Err((text, error)) => {
                let why = foreign::not_yaml(&text, content);
                let why = why.or_else(|| foreign::unquoted_proxy(&text, &error));
                return Err(fail(why.unwrap_or(error)));
            }
        };
        // A TOML file may be a single yaml value.
        let why = match tree.has_keys() {
            true => None,
            false => foreign::not_yaml(tree.text(), content),
        };
        match why {
            Some(why) => Err(fail(why)),
            None => Ok(Document {
                path: path.to_owned(),
                users: None,
                tree,
            }),
        }
    }

    /// Returns the path if the file seems to have secrets in it.
    pub fn with_secrets(&self) -> Option<PathBuf> {
        let text = self.tree.text();
        let has = |key: &str| text.contains(key);
        let has = has("secret:")
            || has("groupKey:")
            || has("sentryDSN:")
            || has("private:")
            || has("ForwardKey:");
        has.then(|| self.path.clone())
    }

    /// Reads a file, or every `*.yaml` and `*.yml` file of a directory, sorted by name.
    pub fn open_all(path: &Path) -> Result<Vec<Self>, ConfigError> {
        if !path.is_dir() {
            return Ok(vec![Document::open(path, Content::Configuration)?]);
        }
        let failed = |error| {
            ConfigError(format!(
                "The directory {} cannot be read: {error}.",
                path.display()
            ))
        };
        let mut files = Vec::new();
        for entry in fs::read_dir(path).map_err(failed)? {
            let file = entry.map_err(failed)?.path();
            let yaml = file
                .extension()
                .is_some_and(|extension| extension == "yaml" || extension == "yml");
            // Editors keep copies under hidden names.
            let hidden = file
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if yaml && !hidden && file.is_file() {
                files.push(file);
            }
        }
        if files.is_empty() {
            let shown = path.display();
            return Err(ConfigError(format!(
                "The directory {shown} has no *.yaml or *.yml file in it."
            )));
        }
        files.sort_unstable();
        let open = |file: &PathBuf| Document::open(file, Content::Configuration);
        files.iter().map(open).collect()
    }

    /// Reads a section; see [`YamlTree::read`].
    pub(super) fn read<'t, T: Deserialize<'t>>(
        &'t self,
        path: &[&str],
    ) -> Result<(T, Vec<Unknown>), ConfigError> {
        self.tree
            .read(path)
            .map_err(|error| self.error(format_args!("{error}")))
    }

    /// Returns the section `key`, whose keys are options; an empty one if the file does not have
    /// it. `names` maps options to their keys in that section; `&[]` if the keys are the options'
    /// names.
    pub(super) fn section(
        &self,
        key: &'static str,
        names: &'static [(&'static str, &'static str)],
    ) -> Result<Section<'_>, ConfigError> {
        match self.node(&[key]) {
            Some(node) => self.section_of(key.to_owned(), node, names),
            None => Ok(Section {
                document: self,
                path: String::new(),
                entries: &[],
                names,
            }),
        }
    }

    /// Returns the sections of the list `key`. A single section is a list of one.
    #[cfg(feature = "client")]
    pub(super) fn sections(&self, key: &'static str) -> Result<Vec<Section<'_>>, ConfigError> {
        let nodes = match self.node(&[key]) {
            Some(node) => node.elements(key),
            None => Vec::new(),
        };
        let section = |(path, node)| self.section_of(path, node, &[]);
        nodes.into_iter().map(section).collect()
    }

    fn section_of<'d>(
        &'d self,
        path: String,
        node: &'d Node,
        names: &'static [(&'static str, &'static str)],
    ) -> Result<Section<'d>, ConfigError> {
        let entries = self.tree.entries(&path, node);
        Ok(Section {
            document: self,
            entries: entries.map_err(|error| self.error(format_args!("{error}")))?,
            path,
            names,
        })
    }

    /// Returns the value at a path.
    pub(crate) fn node(&self, path: &[&str]) -> Option<&Node> {
        self.tree.node(path)
    }

    /// Returns the file as a tree.
    #[cfg(feature = "web")]
    pub(super) fn tree(&self) -> &YamlTree {
        &self.tree
    }

    /// Returns the text of the file.
    pub(super) fn text(&self) -> &str {
        self.tree.text()
    }

    /// Returns the keys of a section.
    pub(super) fn keys(&self, path: &[&str]) -> Vec<&str> {
        self.tree.keys(path)
    }

    /// Makes an error that names this file.
    pub(super) fn error(&self, message: fmt::Arguments<'_>) -> ConfigError {
        ConfigError(format!("{}: {message}", self.path.display()))
    }

    /// Returns a warning for each unknown key, for up to [`MAX_UNKNOWN_WARNINGS`] of them.
    /// `options` are the names that `options:` may hold.
    pub(super) fn unknown(&self, keys: &[Unknown], options: &[&str]) -> Vec<String> {
        let (told, more) = keys.split_at(keys.len().min(MAX_UNKNOWN_WARNINGS));
        let file = self.path.display();
        let warning = |(key, line): (&Unknown, Option<usize>)| {
            let path = &key.path;
            let line = line
                .map(|line| format!("line {line}: "))
                .unwrap_or_default();
            let inside = path.strip_prefix("options.");
            let hint = match did_you_mean(inside.unwrap_or(path), options.iter().copied()) {
                Some(name) if inside.is_some() => format!("; the option is called {name}"),
                Some(name) => format!("; {name} belongs under options"),
                None => String::new(),
            };
            format!("{file}: {line}{path} is not known here and is ignored{hint}")
        };
        if told.is_empty() {
            return Vec::new();
        }
        let lines = self.tree.lines_of(told);
        let mut warnings: Vec<String> = told.iter().zip(lines).map(warning).collect();
        if !more.is_empty() {
            let count = more.len();
            warnings.push(format!(
                "{file}: {count} more keys are not known and are ignored"
            ));
        }
        warnings
    }
}

/// A section of a file whose keys are options.
pub struct Section<'d> {
    document: &'d Document,
    /// The path of the section: `options`, `services[0]`.
    path: String,
    entries: &'d [(String, Node)],
    names: &'static [(&'static str, &'static str)],
}

impl<'d> Section<'d> {
    /// Returns the key and value of an option, unless the value is null.
    fn entry(&self, name: &str) -> Option<&'d (String, Node)> {
        let key = match self.names {
            [] => name,
            names => names.iter().find(|(option, _)| *option == name)?.1,
        };
        let mut entries = self.entries.iter();
        entries.find(|(entry, node)| entry == key && !node.is_null())
    }

    /// Whether the section has the option.
    pub fn has(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// Returns the text of an option, or the texts of a list.
    pub fn texts(&self, name: &str, list: bool) -> Result<Vec<&'d str>, ConfigError> {
        let Some((key, node)) = self.entry(name) else {
            return Ok(Vec::new());
        };
        let path = format!("{}.{key}", self.path);
        let texts = self.document.tree.texts(&path, node, list);
        texts.map_err(|error| self.document.error(format_args!("{error}")))
    }

    /// Makes the error about a wrong text of an option; `index` is its place in a list.
    pub fn fault(&self, name: &str, index: usize, why: &str) -> ConfigError {
        let message = match self.entry(name) {
            Some((key, node)) => {
                let path = format!("{}.{key}", self.path);
                self.document.tree.fault(&path, node, index, why)
            }
            None => why.to_owned(),
        };
        self.document.error(format_args!("{message}"))
    }

    /// Returns the keys that are not `known`.
    pub fn unknown(&self, known: &[&str]) -> Vec<Unknown> {
        let unknown = |(key, node): &(String, Node)| {
            let is_known = known.contains(&key.as_str());
            (!is_known).then(|| node.unknown(format!("{}.{key}", self.path)))
        };
        self.entries.iter().filter_map(unknown).collect()
    }
}

/// Makes an error that names the file, if there is one.
pub(super) fn error(document: Option<&Document>, message: impl fmt::Display) -> ConfigError {
    match document {
        Some(document) => document.error(format_args!("{message}")),
        None => ConfigError(message.to_string()),
    }
}
