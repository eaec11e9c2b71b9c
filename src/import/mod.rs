//! `gt import`: the configuration of another program, or of the original GT, as gt's yaml. What cannot be
//! carried stands in comments. Without the feature `import`, `no_import.rs` takes the place of this.
//!
//! `format` reads a file into a `tree`; `frpc`, `frps`, `rathole` and `original` take the settings from it and
//! make a `draft`; `verdict` has gt's own reader judge it.

mod draft;
mod format;
mod frp;
mod frpc;
mod frpc_proxy;
mod frps;
mod ini;
mod names;
mod original;
mod rathole;
mod role;
mod source;
mod template;
mod tree;
mod verdict;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use crate::config::RoleName;
use draft::{Draft, Note, NoteKind};
use format::Parsed;
use frpc_proxy::Hasher;
use role::choose;
use tree::{shown, Node};

/// Maximum size of a file, in bytes.
pub(crate) const MAX_FILE: usize = 1 << 20;

/// What `gt import` is asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct ImportRequest {
    path: PathBuf,
    role: Option<RoleName>,
}

impl ImportRequest {
    /// How `gt import` is used.
    pub const HELP: &str = "\
Usage: gt import FILE, gt client import FILE or gt server import FILE

Reads a file of frp (TOML, INI, YAML or JSON), of rathole or of the original GT and prints it as a configuration
of gt. Comments name each setting that was not carried, and why. The role in front chooses between a client and a
server if the file is for both.

  gt import frpc.toml > client.yaml && gt check -config client.yaml
";

    /// Reads the words of the command line behind `import`. `role` is the role in front of it.
    pub fn from_words(words: &[String], role: Option<RoleName>) -> Result<Self, String> {
        match words {
            [path] if path.starts_with('-') => {
                Err("gt import has no flags: write gt import FILE.".to_owned())
            }
            [path] if !path.is_empty() => Ok(Self {
                path: PathBuf::from(path),
                role,
            }),
            _ => Err(
                "Write gt import FILE, with one file of frp, rathole or the original GT."
                    .to_owned(),
            ),
        }
    }

    /// Reads and converts the file. The error names it.
    pub fn run(&self) -> Result<Imported, String> {
        let shown = self.path.display();
        let failed = |error| format!("The file {shown} cannot be read: {error}.");
        let mut bytes = Vec::new();
        let limit = u64::try_from(MAX_FILE)
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        let file = File::open(&self.path).map_err(failed)?;
        file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
        import(&bytes, &shown.to_string(), self.role, hash)
    }
}

/// A configuration for gt.
#[derive(Debug)]
pub struct Imported {
    /// The yaml.
    pub text: String,
    /// The role that it is for.
    pub role: RoleName,
    /// What the user should know that sees only the messages.
    pub summary: Vec<String>,
    /// The reason why gt would not run it as it is.
    pub incomplete: Option<String>,
}

/// A program whose files can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Frpc,
    Frps,
    Rathole(RoleName),
    Original(RoleName),
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Program::Frpc => "a client of frp (frpc)",
            Program::Frps => "a server of frp (frps)",
            Program::Rathole(RoleName::Client) => "a client of rathole",
            Program::Rathole(RoleName::Server) => "a server of rathole",
            Program::Original(RoleName::Client) => "a client of GT",
            Program::Original(RoleName::Server) => "a server of GT",
        }
    }

    /// Finds out what a file is for. `asked` is the role that the user has named. The error is a sentence.
    fn of(root: &Node, asked: Option<RoleName>) -> Result<Self, String> {
        if original::is_of(root) {
            let role = original::role(root, asked)?;
            return Ok(Program::Original(role));
        }
        if rathole::is_of(root) {
            let has = |role: &str| root.get(role).is_some();
            let role = choose(has(rathole::CLIENT), has(rathole::SERVER), asked)?;
            return Ok(Program::Rathole(role));
        }
        if original::is_of_users(root) {
            return Err(
                "these are the users of a server of GT, a file that gt reads as it is (the option users)"
                    .to_owned(),
            );
        }
        let signs = frp::signs(root);
        if signs.client || signs.server || signs.both {
            return match choose(signs.client, signs.server, asked)? {
                RoleName::Client => Ok(Program::Frpc),
                RoleName::Server => Ok(Program::Frps),
            };
        }
        let keys: Vec<String> = root
            .keys()
            .take(5)
            .map(|key| format!("\"{}\"", shown(key)))
            .collect();
        let keys = match keys.is_empty() {
            true => "it has no keys".to_owned(),
            false => format!("its keys begin with {}", keys.join(", ")),
        };
        Err(format!(
            "this is no file of frp, rathole or the original GT that gt knows: {keys}"
        ))
    }

    fn convert(self, root: Node, hash: Hasher) -> Draft {
        match self {
            Program::Frpc => frpc::convert(root, hash),
            Program::Frps => frps::convert(root),
            Program::Rathole(role) => rathole::convert(root, role),
            Program::Original(role) => original::convert(root, role),
        }
    }
}

/// Converts the bytes of a file. The error names the file.
pub(crate) fn import(
    bytes: &[u8],
    name: &str,
    role: Option<RoleName>,
    hash: Hasher,
) -> Result<Imported, String> {
    let parsed = text(bytes).and_then(format::read);
    let imported = parsed.and_then(|parsed| convert(parsed, name, role, hash));
    imported.map_err(|why| format!("{name}: {why}."))
}

/// Converts a file that was read. The error is a sentence without its end.
fn convert(
    parsed: Parsed,
    name: &str,
    role: Option<RoleName>,
    hash: Hasher,
) -> Result<Imported, String> {
    let Parsed {
        format,
        root,
        templates,
    } = parsed;
    let program = Program::of(&root, role)?;
    let mut draft = program.convert(root, hash);
    if !templates.is_empty() {
        let why = "gt has no templates: write what they make of the lines between them. Ranges of ports are \
                   local: tcp://HOST:6000-6010 and remoteTCPPort: 6000-6010";
        let note = Note::about(NoteKind::Todo, templates, why);
        draft.body.notes.push(note);
    }
    let incomplete = verdict::settle(&mut draft);
    let role = draft.role;
    let (body, counts) = draft.write(false);
    let counts = format!("{} not carried, {} to do", counts.lost, counts.todo);
    let (program, file) = (program.name(), format!("{role}.yaml"));
    let mut head = format!(
        "# gt import: {program} in {format}, from {}.\n\
         # {counts}: see \"not carried\" and \"to do\" in the comments.\n\
         # It has secrets, so that gt's user alone should be able to read it: chmod 600 {file}\n\
         # Test it with: gt check -config {file}\n",
        shown(name)
    );
    let mut summary = vec![format!("{name} is for {program}, in {format}: {counts}")];
    if let Some(why) = &incomplete {
        head.push_str(&format!("# gt does not run it yet: {}\n", shown(why)));
        summary.push(format!("gt does not run what was printed yet: {why}"));
    }
    Ok(Imported {
        text: head + &body,
        role,
        summary,
        incomplete,
    })
}

/// Returns the bytes of a file as text, without a byte order mark. The error is a sentence without its end.
fn text(bytes: &[u8]) -> Result<&str, String> {
    if bytes.len() > MAX_FILE {
        return Err(format!(
            "it has more than {MAX_FILE} bytes, the most that gt import reads"
        ));
    }
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        return Err("it is text in UTF-16: save it in UTF-8".to_owned());
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let breaks = before.iter().filter(|byte| **byte == b'\n').count();
        let line = breaks.saturating_add(1);
        format!("line {line}: this is not text in UTF-8: save the file in UTF-8")
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Hashes a password, as `gt hash` does.
#[cfg(feature = "password")]
fn hash(password: &str) -> Result<String, String> {
    let hash = crate::passwords::PasswordHash::new(password.as_bytes());
    hash.map(|hash| hash.to_string())
        .map_err(|error| error.to_string())
}

/// Hashes no password.
#[cfg(not(feature = "password"))]
fn hash(_: &str) -> Result<String, String> {
    Err("this gt was built without the feature password".to_owned())
}
